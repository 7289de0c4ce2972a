package replica

import (
	"go.etcd.io/raft/v3/raftpb"
)

// logView is raft's view of the stable log. It implements raft.Storage.
//
// Raft reads through it synchronously. The log keeps its newest entries in memory, so only a follower that lags far behind costs a read of the
// disk in the run loop, of one message at a time.
type logView struct {
	log      LogReader
	hs       raftpb.HardState // as last handed out for writing
	conf     raftpb.ConfState // of the start
	snapshot func() (raftpb.Snapshot, error)
}

// InitialState returns what the replica starts from.
func (v *logView) InitialState() (raftpb.HardState, raftpb.ConfState, error) {
	return v.hs, v.conf, nil
}

// Entries returns entries in [lo, hi), at least one, as many as fit into maxSize.
func (v *logView) Entries(lo, hi, maxSize uint64) ([]raftpb.Entry, error) {
	return v.log.Entries(lo, hi, maxSize)
}

// Term returns the term of an entry.
func (v *logView) Term(i uint64) (uint64, error) { return v.log.Term(i) }

// LastIndex returns the index of the last stable entry.
func (v *logView) LastIndex() (uint64, error) { return v.log.LastIndex(), nil }

// FirstIndex returns the index of the first entry that is there.
func (v *logView) FirstIndex() (uint64, error) { return v.log.FirstIndex(), nil }

// Snapshot says at which index a snapshot could be made.
func (v *logView) Snapshot() (raftpb.Snapshot, error) { return v.snapshot() }
