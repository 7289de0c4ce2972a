package replica

import (
	"go.etcd.io/raft/v3/raftpb"

	"holdfast/internal/wal"
)

// Message is what replicas of a group send each other: raft's own messages, and two types of ours.
type Message = raftpb.Message

// Message types beside raft's own. Their numbers are part of the wire format.
const (
	// MsgProbe is what a replica without any state asks all others before it takes part: Context is a nonce, LogTerm a hash of the
	// configured members.
	MsgProbe raftpb.MessageType = 64
	// MsgProbeReply answers with the sender's Term and last Index; Context repeats the nonce, LogTerm is the hash of the sender's members.
	MsgProbeReply raftpb.MessageType = 65
)

// LogReader is what a Core reads of the log. Methods may be called while another goroutine appends. Errors for indexes that are not there are
// raft.ErrCompacted and raft.ErrUnavailable; any other is the end of the replica.
type LogReader interface {
	// FirstIndex returns the index of the first entry that is there; LastIndex+1 if there is none.
	FirstIndex() uint64
	// LastIndex returns the index of the last entry.
	LastIndex() uint64
	// Term returns the term of the entry at index, which lies between FirstIndex()-1 and LastIndex().
	Term(index uint64) (uint64, error)
	// Entries returns the entries in [lo, hi), as many as fit into maxBytes, at least one.
	Entries(lo, hi, maxBytes uint64) ([]raftpb.Entry, error)
}

// Log is a durable log: *wal.Log.
type Log interface {
	LogReader
	// HardState returns the hard state that was last appended.
	HardState() raftpb.HardState
	// Append writes a batch and makes it durable unless it says NoSync. An error means that the log is unusable.
	Append(b wal.Batch) error
	// Reset durably drops all entries and makes the log continue after index, whose entry has the given term.
	Reset(index, term uint64) error
	// TruncatePrefix allows the log to drop entries up to index, inclusive. It may be called while another goroutine appends.
	TruncatePrefix(index uint64) error
}

var _ Log = (*wal.Log)(nil)

// AppendWork is something to write to the log. Works must be done in order; several may share one write and one sync. Steps of one work, in
// order: save Meta durably, if there is one; if there is a Snapshot, reset the log to its index and term; append HardState (unless it is
// empty) and Entries, durably if Sync. Then AppendDone is called for each work in order.
type AppendWork struct {
	Meta      *Meta
	Snapshot  *SnapshotMeta
	HardState raftpb.HardState
	Entries   []raftpb.Entry
	// Sync reports whether the write must be durable before AppendDone. It is not needed when only the commit index changed.
	Sync bool

	responses []Message
	conf      uint64 // the index of a change of membership that HardState says is committed
}

// commitOnly reports whether there is nothing to do for w.
func (w *AppendWork) commitOnly() bool {
	return !w.Sync && w.Meta == nil && w.Snapshot == nil && len(w.Entries) == 0
}

// ApplyWork is a run of committed entries for the state machine. Works must be done in order. For each entry beyond the state machine's applied
// index: Apply if it is a normal one, AdvanceTo otherwise; entries up to that index are skipped. Then ApplyDone is called.
type ApplyWork struct {
	Entries []raftpb.Entry

	responses []Message
}

// SnapshotWork asks for a snapshot to be sent. It ends with a call of SnapshotDone.
type SnapshotWork struct {
	To uint64
	// Term is the leader's term.
	Term uint64
	// Index is the lowest index that the snapshot may have.
	Index uint64
}

// SnapshotMeta says what of the log a snapshot stands for.
type SnapshotMeta struct {
	Index uint64 `json:"index"`
	Term  uint64 `json:"term"`
	// Conf is the membership, which contains every change up to ConfIndex. ConfIndex may lie beyond Index.
	Conf      ConfState `json:"conf"`
	ConfIndex uint64    `json:"confIndex"`
}

// EventKind says what happened to a replica's part in its group.
type EventKind uint8

// The kinds of event.
const (
	// LeaderReady: this replica leads, holds the lease and has applied an entry of its term. It may serve, and Serving is true.
	LeaderReady EventKind = iota + 1
	// LeaderLost: what LeaderReady said is over for that term, for good. Proposals without a reply may or may not have been committed.
	LeaderLost
	// LeaseLapsed: the lease ran out although the replica still leads; LeaseRegained or LeaderLost follows.
	LeaseLapsed
	// LeaseRegained: the lease is back in the same term.
	LeaseRegained
	// LeaderChanged: Leader is the leader that this replica knows in Term, 0 for none.
	LeaderChanged
	// OutOfSync: the log says that the data member Peer may lack something that is committed from here on, in a group with a witness. If it is one of two, the newest data has one
	// copy. InSync: it has everything again.
	OutOfSync
	InSync
)

func (k EventKind) String() string {
	names := [...]string{"?", "leader ready", "leader lost", "lease lapsed", "lease regained", "leader changed", "out of sync", "in sync"}
	if int(k) < len(names) {
		return names[k]
	}
	return names[0]
}

// Event is a change of a replica's part in its group.
type Event struct {
	Kind   EventKind
	Term   uint64
	Leader uint64 // LeaderChanged only
	Peer   uint64 // OutOfSync and InSync only
}

// Output is what a Core wants done. Messages may be sent at once and may be lost; the works must be done as their types say.
type Output struct {
	Messages  []Message
	Appends   []AppendWork
	Applies   []ApplyWork
	Snapshots []SnapshotWork
	Events    []Event
}
