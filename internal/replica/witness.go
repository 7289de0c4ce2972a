package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	"go.etcd.io/raft/v3/raftpb"
)

// WitnessBit is set in the numbers of witnesses. A witness is a voter that stores the terms and indexes of the log's entries, but not what they hold. It never
// leads and has no state; it lets a group with two copies of the data go on when one is lost (DESIGN.md, "The witness").
const WitnessBit = 1 << 32

// IsWitness reports whether id is the number of a witness. In groups with Config.FullMembers it is a member like others.
func IsWitness(id uint64) bool { return id&WitnessBit != 0 }

// isWitness reports whether id is a witness in this group.
func (c *Core) isWitness(id uint64) bool { return IsWitness(id) && !c.cfg.FullMembers }

// isWitness reports whether this member is a witness in its group.
func (c Config) isWitness() bool { return IsWitness(c.ID) && !c.FullMembers }

// Defaults of a witness, whose entries count entryOverhead bytes each.
const (
	witnessCheckpointBytes = 4 << 20
	witnessRetainBytes     = 1 << 20
	witnessRetainMaxBytes  = 2 << 20
)

// entryOverhead is what an entry counts in the log beyond what it holds.
const entryOverhead = 32

// strip returns entries without what a witness has no use for. Changes of membership stay: it has to know who votes.
func strip(entries []raftpb.Entry) []raftpb.Entry {
	out := slices.Clone(entries)
	for i := range out {
		if out[i].Type == raftpb.EntryNormal {
			out[i].Data = nil
		}
	}
	return out
}

// WitnessStateMachine is the state machine of a witness: it knows how far it is, and nothing else. All that lasts of it is the log, so after a restart it is where the log begins.
type WitnessStateMachine struct{ applied atomic.Uint64 }

// NewWitnessStateMachine returns the state machine of a witness with that log.
func NewWitnessStateMachine(log LogReader) *WitnessStateMachine {
	s := &WitnessStateMachine{}
	s.applied.Store(log.FirstIndex() - 1)
	return s
}

// Applied implements StateMachine.
func (s *WitnessStateMachine) Applied() uint64 { return s.applied.Load() }

// ReplayFrom implements StateMachine: there is nothing to repeat.
func (s *WitnessStateMachine) ReplayFrom() uint64 { return s.applied.Load() + 1 }

// Redo implements StateMachine.
func (s *WitnessStateMachine) Redo(uint64, []byte) error { return nil }

// Apply implements StateMachine.
func (s *WitnessStateMachine) Apply(index uint64, _ []byte) ([]byte, error) {
	return nil, s.AdvanceTo(index)
}

// AdvanceTo implements StateMachine.
func (s *WitnessStateMachine) AdvanceTo(index uint64) error {
	s.applied.Store(index)
	return nil
}

// Checkpoint implements StateMachine.
func (s *WitnessStateMachine) Checkpoint(context.Context) (uint64, error) {
	return s.applied.Load(), nil
}

var errNoSnapshotHere = errors.New("replica: a witness has nothing to take a snapshot of")

// Snapshot implements StateMachine. A witness never leads, so nobody asks for one.
func (s *WitnessStateMachine) Snapshot(uint64) (Snapshot, error) { return nil, errNoSnapshotHere }

// Install implements StateMachine: it takes what a witnessSnapshot wrote.
func (s *WitnessStateMachine) Install(r io.Reader) error {
	b, err := io.ReadAll(io.LimitReader(r, 9))
	if err != nil {
		return err
	}
	if len(b) != 8 {
		return fmt.Errorf("replica: the snapshot for a witness has %d bytes instead of 8", len(b))
	}
	s.applied.Store(binary.BigEndian.Uint64(b))
	return nil
}

// witnessSnapshot is a snapshot for a witness: an index.
type witnessSnapshot uint64

// SnapshotForWitness returns the snapshot that a leader sends to a witness in place of its state machine's, for a SnapshotWork's index.
func SnapshotForWitness(index uint64) Snapshot { return witnessSnapshot(index) }

func (s witnessSnapshot) Index() uint64 { return uint64(s) }
func (s witnessSnapshot) Close() error  { return nil }
func (s witnessSnapshot) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(binary.BigEndian.AppendUint64(nil, uint64(s)))
	return int64(n), err
}
