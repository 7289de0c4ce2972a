package replica

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"holdfast/internal/vfs"
)

// Meta is the little that a replica keeps beside its log: that it takes part at all, and a membership to start from. A replica without
// it is blank: it has never taken part, or has lost its disk (DESIGN.md, "A blank replica").
type Meta struct {
	// Recover is 0 or the term of which the log must hold an entry before the replica may vote or lead.
	Recover uint64 `json:"recover,omitempty"`
	// Conf is the membership, which contains every change up to ConfIndex. Changes after it are found in the log.
	Conf      ConfState `json:"conf"`
	ConfIndex uint64    `json:"confIndex"`
	Files
	// Installing is the snapshot whose installation was begun last. If the state machine turns out to be at its index, it was finished.
	Installing *SnapshotMeta `json:"installing,omitempty"`
}

// ConfState is the membership: raft's, and who is in sync.
type ConfState struct {
	Voters         []uint64 `json:"voters"`
	Learners       []uint64 `json:"learners,omitempty"`
	VotersOutgoing []uint64 `json:"votersOutgoing,omitempty"`
	LearnersNext   []uint64 `json:"learnersNext,omitempty"`
	AutoLeave      bool     `json:"autoLeave,omitempty"`
	// Out are the voters that may lack something which is committed, in a group with a witness (DESIGN.md, "The witness").
	Out []uint64 `json:"out,omitempty"`
}

// has reports whether id is a voter, in one half at least, or a learner.
func (c ConfState) has(id uint64) bool {
	return slices.Contains(c.Voters, id) || slices.Contains(c.VotersOutgoing, id) || slices.Contains(c.Learners, id)
}

func confFromRaft(cs raftpb.ConfState) ConfState {
	return ConfState{Voters: cs.Voters, Learners: cs.Learners, VotersOutgoing: cs.VotersOutgoing, LearnersNext: cs.LearnersNext, AutoLeave: cs.AutoLeave}
}

func (c ConfState) raft() raftpb.ConfState {
	return raftpb.ConfState{Voters: c.Voters, Learners: c.Learners, VotersOutgoing: c.VotersOutgoing, LearnersNext: c.LearnersNext, AutoLeave: c.AutoLeave}
}

// voter reports whether id has a vote, in one half at least.
func (c ConfState) voter(id uint64) bool {
	return slices.Contains(c.Voters, id) || slices.Contains(c.VotersOutgoing, id)
}

// Joint reports whether the group is on its way from one set of voters to another.
func (c ConfState) Joint() bool { return len(c.VotersOutgoing) > 0 }

// become returns cs, which came of c by a change, with what c says beyond raft. Where there is a witness, a new voter is out of sync until the log says otherwise.
func (c ConfState) become(cs raftpb.ConfState, fullMembers bool) ConfState {
	next := confFromRaft(cs)
	members := slices.Concat(next.Voters, next.VotersOutgoing, next.Learners)
	if fullMembers || !slices.ContainsFunc(members, IsWitness) {
		return next
	}
	for _, id := range members {
		if next.voter(id) && !IsWitness(id) && (!c.voter(id) || slices.Contains(c.Out, id)) {
			next.Out = append(next.Out, id)
		}
	}
	slices.Sort(next.Out)
	next.Out = slices.Compact(next.Out)
	return next
}

// step returns c after a syncChange.
func (c ConfState) step(id uint64, out bool) ConfState {
	c.Out = slices.DeleteFunc(slices.Clone(c.Out), func(o uint64) bool { return o == id })
	if out && c.voter(id) {
		c.Out = append(c.Out, id)
		slices.Sort(c.Out)
	}
	return c
}

// MetaStore keeps a Meta.
type MetaStore interface {
	// Load returns what Save wrote last, or nil if there was no Save.
	Load() (*Meta, error)
	// Save durably and atomically replaces the Meta.
	Save(m *Meta) error
}

const metaVersion = 1

var errBadMeta = errors.New("replica: metadata is damaged or of a newer release")

// MetaFile is a MetaStore in one small file.
type MetaFile struct {
	FS   vfs.FS
	Name string
}

type metaDocument struct {
	Version int `json:"version"`
	Meta
}

// Load reads the file.
func (f MetaFile) Load() (*Meta, error) {
	b, err := vfs.ReadFile(f.FS, f.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name, err)
	}
	var doc metaDocument
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errBadMeta, f.Name, err)
	}
	if doc.Version != metaVersion || len(doc.Conf.Voters) == 0 {
		return nil, fmt.Errorf("%w: %s: version %d with %d voters", errBadMeta, f.Name, doc.Version, len(doc.Conf.Voters))
	}
	return &doc.Meta, nil
}

// Save replaces the file.
func (f MetaFile) Save(m *Meta) error {
	b, err := json.MarshalIndent(metaDocument{Version: metaVersion, Meta: *m}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", f.Name, err)
	}
	if err := vfs.WriteFile(f.FS, f.Name, append(b, '\n')); err != nil {
		return fmt.Errorf("write %s: %w", f.Name, err)
	}
	return nil
}
