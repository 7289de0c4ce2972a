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
	// Installing is the snapshot whose installation was begun last. If the state machine turns out to be at its index, it was finished.
	Installing *InstallMeta `json:"installing,omitempty"`
}

// ConfState is raft's membership as Meta stores it.
type ConfState struct {
	Voters         []uint64 `json:"voters"`
	Learners       []uint64 `json:"learners,omitempty"`
	VotersOutgoing []uint64 `json:"votersOutgoing,omitempty"`
	LearnersNext   []uint64 `json:"learnersNext,omitempty"`
	AutoLeave      bool     `json:"autoLeave,omitempty"`
}

// has reports whether id is a voter, in one half at least, or a learner.
func (c ConfState) has(id uint64) bool {
	return slices.Contains(c.Voters, id) || slices.Contains(c.VotersOutgoing, id) || slices.Contains(c.Learners, id)
}

// InstallMeta is a SnapshotMeta as Meta stores it.
type InstallMeta struct {
	Index     uint64    `json:"index"`
	Term      uint64    `json:"term"`
	Conf      ConfState `json:"conf"`
	ConfIndex uint64    `json:"confIndex"`
}

func confFromRaft(cs raftpb.ConfState) ConfState {
	return ConfState{Voters: cs.Voters, Learners: cs.Learners, VotersOutgoing: cs.VotersOutgoing, LearnersNext: cs.LearnersNext, AutoLeave: cs.AutoLeave}
}

func (c ConfState) raft() raftpb.ConfState {
	return raftpb.ConfState{Voters: c.Voters, Learners: c.Learners, VotersOutgoing: c.VotersOutgoing, LearnersNext: c.LearnersNext, AutoLeave: c.AutoLeave}
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
