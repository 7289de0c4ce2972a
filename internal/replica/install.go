package replica

import (
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// install is the receiving of a snapshot, and the holding back of entries that goes with it.
type install struct {
	// active: a snapshot is being received. Nothing is applied meanwhile, and this replica does not campaign; it appends and votes as ever.
	active bool
	// needed: the state machine holds nothing valid, so nothing can be applied before a snapshot came.
	needed bool
	// holding are works that wait until neither is so.
	holding []ApplyWork
	// resetting: the log does not yet know of the snapshot that was installed last.
	resetting bool
	// applying counts works that are handed out and not done.
	applying int
}

const (
	// maxSnapshotSends is how many snapshots a leader sends at a time.
	maxSnapshotSends = 2
	// snapshotRetry is how long it waits after one failed.
	snapshotRetry = time.Second
)

// snapshotSource tells raft at which index a snapshot can be made: that of the state machine, at any time. What is sent in the end is made
// when the receiver is there, and so has this index or a higher one.
func (c *Core) snapshotSource() (raftpb.Snapshot, error) {
	if len(c.sends) >= maxSnapshotSends || c.applied == 0 || c.install.needed {
		return raftpb.Snapshot{}, raft.ErrSnapshotTemporarilyUnavailable
	}
	term, err := c.log.Term(c.applied)
	if err != nil {
		return raftpb.Snapshot{}, raft.ErrSnapshotTemporarilyUnavailable
	}
	return raftpb.Snapshot{Metadata: raftpb.SnapshotMetadata{Index: c.applied, Term: term, ConfState: c.conf.raft()}}, nil
}

// offerSnapshot sends a snapshot to a member whose log is fine and whose state machine is not.
func (c *Core) offerSnapshot(to uint64) {
	if !slices.Contains(c.members, to) {
		return
	}
	if _, busy := c.sends[to]; busy || c.install.needed || len(c.sends) >= maxSnapshotSends || c.now < c.peer(to).retry {
		return
	}
	c.sendSnapshot(to)
}

func (c *Core) sendSnapshot(to uint64) {
	if _, busy := c.sends[to]; busy {
		return // raft gave up on the one that is under way; its end tells raft to look again
	}
	c.sends[to] = c.applied
	c.out.Snapshots = append(c.out.Snapshots, SnapshotWork{To: to, Term: c.state.term, Index: c.applied})
}

// SnapshotMeta returns the metadata of a snapshot that the state machine made at index. It fails if index is not yet told by ApplyDone
// (try again then) or no longer in the log.
func (c *Core) SnapshotMeta(index uint64) (SnapshotMeta, error) {
	if index > c.applied {
		return SnapshotMeta{}, fmt.Errorf("replica: entry %d is being applied", index)
	}
	term, err := c.log.Term(index)
	if err != nil {
		return SnapshotMeta{}, fmt.Errorf("term of entry %d: %w", index, err)
	}
	return SnapshotMeta{Index: index, Term: term, Conf: c.conf, ConfIndex: c.confIndex}, nil
}

// SnapshotDone ends a SnapshotWork.
func (c *Core) SnapshotDone(now int64, to uint64, ok bool) {
	c.now = now
	delete(c.sends, to)
	status := raft.SnapshotFinish
	if !ok {
		status = raft.SnapshotFailure
		c.peer(to).retry = now + int64(snapshotRetry)
	}
	c.rn.ReportSnapshot(to, status)
	c.after()
}

// BeginInstall asks whether a snapshot from the leader of term may be received. If so, no entries are handed out until EndInstall; the caller waits
// until Installable, and then installs.
func (c *Core) BeginInstall(now int64, from, term, index uint64) error {
	c.now = now
	switch {
	case c.rn == nil || !c.known(from):
		return fmt.Errorf("%w: not taking part yet", ErrSnapshotRefused)
	case len(c.sends) > 0:
		return fmt.Errorf("%w: still sending one", ErrSnapshotRefused)
	case c.install.active:
		return fmt.Errorf("%w: another one is being installed", ErrSnapshotRefused)
	case c.install.resetting:
		// Meta.Installing must stay until then, or a restart does not know what the state machine holds.
		return fmt.Errorf("%w: the log does not know of the last one yet", ErrSnapshotRefused)
	case term < c.state.term:
		return fmt.Errorf("%w: it is of term %d, this is term %d", ErrSnapshotRefused, term, c.state.term)
	case c.state.role == raft.StateLeader:
		return fmt.Errorf("%w: this is the leader", ErrSnapshotRefused)
	case index <= c.applied && !c.install.needed:
		c.tellMatch(from, term)
		return fmt.Errorf("%w: entry %d is applied already", ErrSnapshotRefused, c.applied)
	}
	if first := c.cfg.Log.FirstIndex(); index+1 < first && c.install.needed {
		return fmt.Errorf("%w: the log begins at %d only", ErrSnapshotRefused, first)
	}
	c.install.active = true
	return nil
}

// tellMatch tells the leader how far this replica's log goes, as raft does when it gets a snapshot that it has no use for. Otherwise a leader that was led to believe
// that this log is empty would offer snapshots for ever: raft makes an old leader step down by an empty MsgAppResp, and if that old leader is elected in the
// very term of it, it takes it for an acknowledgement of nothing. (Leaders of this release do not, see admit; those before it do.)
func (c *Core) tellMatch(leader, term uint64) {
	if term != c.state.term || leader != c.state.lead {
		return
	}
	c.out.Messages = append(c.out.Messages, Message{Type: raftpb.MsgAppResp, From: c.cfg.ID, To: leader, Term: term, Index: c.applied})
}

// Installable reports whether all entries that were handed out are applied.
func (c *Core) Installable() bool { return c.install.active && c.install.applying == 0 }

// EndInstall ends what BeginInstall began. With meta the state machine is at meta.Index now. With nil the installation failed; applied is the
// state machine's applied index, 0 if it holds nothing any more, and begun tells whether the installation had begun: then it does not even hold an empty state.
func (c *Core) EndInstall(now int64, from uint64, meta *SnapshotMeta, applied uint64, begun bool) {
	c.now = now
	c.install.active = false
	if meta == nil {
		if applied < c.applied || applied == 0 && begun {
			c.install.needed, c.applied = true, 0
		}
		c.after()
		return
	}
	c.install.needed = false
	c.applied = max(c.applied, meta.Index)
	// Raft takes the snapshot as one from the leader of the term: it is committed state, whoever leads by now. If that is another, raft is told to forget
	// the sender again.
	conf, confIndex := c.conf, c.confIndex
	c.conf, c.confIndex = meta.Conf, meta.ConfIndex
	lead := c.state.lead
	m := Message{Type: raftpb.MsgSnap, From: from, To: c.cfg.ID, Term: c.state.term, Snapshot: &raftpb.Snapshot{
		Metadata: raftpb.SnapshotMetadata{Index: meta.Index, Term: meta.Term, ConfState: meta.Conf.raft()},
	}}
	if err := c.rn.Step(m); err != nil {
		panic(fmt.Sprintf("replica: raft refuses a snapshot: %v", err))
	}
	if lead != from {
		_ = c.rn.ForgetLeader() // a heartbeat tells who leads
	}
	before := len(c.out.Appends)
	c.after()
	restored := false
	for _, w := range c.out.Appends[before:] {
		restored = restored || w.Snapshot != nil
	}
	if !restored {
		// The log holds the snapshot's index already: raft commits up to it, and the changes of membership come as entries.
		c.conf, c.confIndex = conf, confIndex
	}
	c.setMembers()
}

// KeepFrom returns the lowest index that the log must keep for others if it may drop everything up to index: snapshots that are being sent, and
// members that lag but not beyond limit.
func (c *Core) KeepFrom(index, limit uint64) uint64 {
	keep := index + 1
	for _, to := range sortedKeys(c.sends) {
		keep = min(keep, c.sends[to]+1)
	}
	if c.rn == nil {
		return keep
	}
	// Raft has not seen yet all that is applied when a snapshot was just installed; it still reads those entries.
	keep = min(keep, c.rn.BasicStatus().Applied+1)
	if c.state.role != raft.StateLeader {
		return keep
	}
	st := c.rn.Status()
	for _, id := range c.members {
		if pr, ok := st.Progress[id]; ok && id != c.cfg.ID && pr.Match+1 >= limit {
			keep = min(keep, pr.Match+1)
		}
	}
	return keep
}
