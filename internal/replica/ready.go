package replica

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// Take returns what there is to do since the last Take.
func (c *Core) Take() Output {
	out := c.out
	c.out = Output{}
	return out
}

// collect turns what raft wants into output.
func (c *Core) collect() {
	for c.rn.HasReady() {
		rd := c.rn.Ready()
		var votes []Message
		for _, m := range rd.Messages {
			switch {
			case m.To == raft.LocalAppendThread:
				c.out.Appends = append(c.out.Appends, c.appendWork(m, votes))
				votes = nil
			case m.To == raft.LocalApplyThread:
				c.install.holding = append(c.install.holding, ApplyWork{Entries: m.Entries, responses: m.Responses})
			case m.Type == raftpb.MsgSnap:
				c.sendSnapshot(m.To)
			case m.Type == raftpb.MsgVote:
				// Raft would send these while the term is still being written. They wait for it here: a candidate that crashed and came back in
				// the term before could otherwise campaign in the same term with a shorter log, and count the old answers.
				c.tellCommit(&m)
				votes = append(votes, m)
			default:
				if m.Type == raftpb.MsgPreVote {
					c.tellCommit(&m)
				}
				if m.Type == raftpb.MsgApp && c.holdCommit(&m) {
					continue
				}
				c.emit(m)
			}
		}
		if len(votes) > 0 {
			// The local append message comes last in a Ready, and a campaign changes the hard state.
			panic(fmt.Sprintf("replica: raft asks for votes in term %d without writing the term", c.state.term))
		}
	}
	c.release()
	if c.confWrite {
		// Commit indexes are not synced otherwise. This one is, so that members that are gone are not asked for again after a restart.
		c.confWrite = false
		c.out.Appends = append(c.out.Appends, AppendWork{HardState: c.rn.BasicStatus().HardState, Sync: true, conf: c.confIndex})
	}
	if !c.install.active && !c.install.needed {
		for _, w := range c.install.holding {
			c.out.Applies = append(c.out.Applies, w)
			c.install.applying++
		}
		c.install.holding = nil
	}
}

// holdCommit reports whether m, a MsgApp, can wait because it tells nothing but a newer commit index. Raft sends one to everybody each time something commits, and gets an
// answer each time: with one request at a time that is more messages than those that replicate. The next entries tell it as well, and the next tick at the
// latest. Followers apply a little later for it, which nobody waits for.
func (c *Core) holdCommit(m *Message) bool {
	p := c.peer(m.To)
	if n := len(m.Entries); n > 0 {
		p.sent, p.commit = m.Entries[n-1].Index, nil
		return false
	}
	// One that does not continue what was sent is raft's way to find out what the follower has.
	if m.Index != p.sent {
		p.commit = nil
		return false
	}
	held := *m
	p.commit = &held
	return true
}

// sendCommits sends what holdCommit has held back.
func (c *Core) sendCommits() {
	for _, id := range c.members {
		if p := c.peers[id]; p != nil && p.commit != nil {
			c.emit(*p.commit)
			p.commit = nil
		}
	}
}

func (c *Core) appendWork(m Message, votes []Message) AppendWork {
	w := AppendWork{Entries: m.Entries, responses: append(votes, m.Responses...)}
	if hs := (raftpb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}); !raft.IsEmptyHardState(hs) {
		w.HardState = hs
	}
	if m.Snapshot != nil {
		meta := m.Snapshot.Metadata
		w.Snapshot = &SnapshotMeta{Index: meta.Index, Term: meta.Term, Conf: c.conf, ConfIndex: c.confIndex}
		c.last = meta.Index
		c.install.resetting = true
	}
	if n := len(m.Entries); n > 0 {
		c.last = m.Entries[n-1].Index
	}
	// Responses alone need no sync: what they vouch for is in this work or in one before it.
	w.Sync = c.hardStateMatters(w.HardState) || len(m.Entries) > 0 || m.Snapshot != nil
	return w
}

// hardStateMatters reports whether hs changes more than the commit index.
func (c *Core) hardStateMatters(hs raftpb.HardState) bool {
	if raft.IsEmptyHardState(hs) || (hs.Term == c.log.hs.Term && hs.Vote == c.log.hs.Vote) {
		return false
	}
	c.log.hs = hs
	return true
}

// AppendDone tells that w is done. Works must be done, and told, in order.
func (c *Core) AppendDone(now int64, w *AppendWork) {
	c.now = now
	if c.rn == nil {
		c.blankDone(w)
		return
	}
	if w.Snapshot != nil {
		c.install.resetting = false
		c.noteStable(w.Snapshot.Term)
	}
	if n := len(w.Entries); n > 0 {
		c.noteStable(w.Entries[n-1].Term)
	}
	c.confStable = max(c.confStable, w.conf)
	for _, m := range w.responses {
		if m.To != c.cfg.ID {
			c.dress(&m)
			c.out.Messages = append(c.out.Messages, m)
			continue
		}
		c.stepOwn(m)
	}
	c.after()
}

// ApplyDone tells that w is done. Works must be done, and told, in order.
func (c *Core) ApplyDone(now int64, w *ApplyWork) {
	c.now = now
	c.install.applying--
	for i := range w.Entries {
		e := &w.Entries[i]
		if e.Type != raftpb.EntryNormal {
			c.applyConf(e)
		} else if e.Term == c.state.term && c.state.role == raft.StateLeader {
			c.proposedBytes -= min(c.proposedBytes, uint64(len(e.Data)))
		}
		c.applied = max(c.applied, e.Index)
	}
	for _, m := range w.responses {
		c.stepOwn(m)
	}
	c.tickTransfer()
	c.after()
}

// stepOwn gives raft its own answer to work that is done. If the membership changed meanwhile so that this replica is no member any more, raft does not want it.
func (c *Core) stepOwn(m Message) {
	if err := c.rn.Step(m); err != nil && !errors.Is(err, raft.ErrStepPeerNotFound) {
		panic(fmt.Sprintf("replica: raft refuses its own %v: %v", m.Type, err))
	}
}

// applyConf makes a committed change of membership effective, unless conf has it already.
func (c *Core) applyConf(e *raftpb.Entry) {
	if e.Index <= c.confIndex {
		return
	}
	cc, err := decodeConfChange(e)
	if err != nil {
		panic(fmt.Sprintf("replica: entry %d: %v", e.Index, err))
	}
	if id, out, ok := syncStep(cc); ok {
		c.conf, c.confIndex = c.conf.step(id, out), e.Index
	} else {
		c.conf, c.confIndex = c.conf.become(*c.rn.ApplyConfChange(cc), c.cfg.FullMembers), e.Index
	}
	c.setMembers()
	c.forgetPeers()
}

func decodeConfChange(e *raftpb.Entry) (raftpb.ConfChangeV2, error) {
	if e.Type == raftpb.EntryConfChange {
		var cc raftpb.ConfChange
		if err := cc.Unmarshal(e.Data); err != nil {
			return raftpb.ConfChangeV2{}, fmt.Errorf("decode a change of membership: %w", err)
		}
		return cc.AsV2(), nil
	}
	var cc raftpb.ConfChangeV2
	if err := cc.Unmarshal(e.Data); err != nil {
		return raftpb.ConfChangeV2{}, fmt.Errorf("decode a change of membership: %w", err)
	}
	return cc, nil
}

// Conf returns the membership and the index of the last change in it.
func (c *Core) Conf() (ConfState, uint64) { return c.conf, c.confIndex }

// members of a Meta, for the driver.
func (c *Core) meta() Meta {
	return Meta{Recover: c.recover, Conf: c.conf, ConfIndex: c.confIndex}
}

func sortedKeys[V any](m map[uint64]V) []uint64 {
	keys := make([]uint64, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
