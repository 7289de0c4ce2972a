package replica

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

// insync is a leader's view of which data members have all that is committed, in a group with a witness. What it decides takes effect here at once, as gates opening and
// closing, and goes into the log, so that all members know (ConfState.Out).
type insync struct {
	// wait is an index that must be applied before another step is proposed.
	wait uint64
	// marks tell when the log reached which index, a tick apart, for indexes that a gating member may lack.
	marks []syncMark
}

type syncMark struct {
	at    int64
	index uint64
}

// peerSync is what insync knows of one member.
type peerSync struct {
	// gates: witnesses get nothing that it has not acknowledged.
	gates bool
	// complete: it has an entry of this term, and so everything that a witness may have got in terms before; and what the witness may have got in this one without it, up to need.
	complete bool
	need     uint64
	// grace is from when on it counts as heard of, if it was not.
	grace int64
	// retryAt is when it may be taken in again after it was too slow.
	retryAt int64
}

// slowPause is for how many SyncTimeouts a member that was too slow stays out.
const slowPause = 5

// A step is a change of membership that changes nobody: its context says what it means.
const (
	contextOut = "holdfast: out of sync"
	contextIn  = "holdfast: in sync"
)

func syncChange(id uint64, out bool) raftpb.ConfChangeV2 {
	context := contextIn
	if out {
		context = contextOut
	}
	return raftpb.ConfChangeV2{Context: []byte(context), Changes: []raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeUpdateNode, NodeID: id}}}
}

// syncStep returns what a syncChange says.
func syncStep(cc raftpb.ConfChangeV2) (id uint64, out, ok bool) {
	context := string(cc.Context)
	if len(cc.Changes) != 1 || cc.Changes[0].Type != raftpb.ConfChangeUpdateNode || context != contextIn && context != contextOut {
		return 0, false, false
	}
	return cc.Changes[0].NodeID, context == contextOut, true
}

// startSync begins a term. A member counts as in sync at first if it is in the log's view, and there is no reason to believe that it is dead: it is not the leader that
// went silent, and not known to be gone. So the witness does not get the term's first entry before it does.
func (c *Core) startSync() {
	c.insync = insync{}
	clear(c.gates)
	for _, id := range c.dataVoters() {
		if id == c.cfg.ID {
			continue
		}
		p := c.peer(id)
		silent := id == c.election.lost && c.now-p.seen >= int64(c.cfg.Timing.Lease)/2
		p.sync = peerSync{gates: !p.gone && !silent && !slices.Contains(c.conf.Out, id), grace: c.now}
	}
}

// dataVoters returns the voters that are no witnesses, in both halves of a joint configuration.
func (c *Core) dataVoters() []uint64 {
	var ids []uint64
	for _, id := range c.members {
		if c.inVoters(id) && !c.isWitness(id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// tickSync decides who is in sync.
func (c *Core) tickSync() {
	if len(c.witnesses) == 0 || c.state.role != raft.StateLeader {
		return
	}
	s := &c.insync
	if n := len(s.marks); n == 0 || s.marks[n-1].index < c.last {
		s.marks = append(s.marks, syncMark{c.now, c.last})
	}
	lowest := c.last
	c.rn.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id == c.cfg.ID || c.isWitness(id) || !c.inVoters(id) {
			return
		}
		c.judge(id, c.peer(id), pr)
		if c.gating(id) {
			lowest = min(lowest, pr.Match)
		}
	})
	for len(s.marks) > 0 && s.marks[0].index <= lowest {
		s.marks = s.marks[1:]
	}
	c.proposeSync()
}

// judge lets a member gate, or not. One that does not gate any more does so again when the log says that it is out: then it takes another entry to be in sync, and that
// entry is committed when it has it.
func (c *Core) judge(id uint64, p *peer, pr tracker.Progress) {
	ps := &p.sync
	ps.complete = ps.complete || pr.Match >= max(c.lease.firstOwn, ps.need)
	heard := !p.gone && c.now-max(p.seen, ps.grace) < c.electionTimeout()
	able := p.echo == 0 || p.report.flags&^flagReluctant == 0 // what it said in another term does not count
	if ps.gates {
		slow := c.behindSince(pr.Match) && c.witnessHeard()
		if slow {
			ps.retryAt = c.now + slowPause*int64(c.cfg.SyncTimeout)
		}
		if !heard || !able || slow {
			ps.gates = false
		}
	} else if heard && able && p.echo != 0 && c.now >= ps.retryAt && pr.State == tracker.StateReplicate && pr.Match+caughtUp >= c.last && slices.Contains(c.conf.Out, id) {
		// A step that says that it is in may be on its way from before it ceased to gate, and the witness may have got anything since.
		ps.gates, ps.complete, ps.need = true, false, c.last
	}
}

// behindSince reports whether an entry after match has waited for too long.
func (c *Core) behindSince(match uint64) bool {
	for _, m := range c.insync.marks {
		if m.index > match {
			return c.now-m.at >= int64(c.cfg.SyncTimeout)
		}
	}
	return false
}

// witnessHeard reports whether a witness is up, so that going on without a slow member is of use.
func (c *Core) witnessHeard() bool {
	return slices.ContainsFunc(c.witnesses, func(id uint64) bool {
		p := c.peers[id]
		return p != nil && c.now-p.seen < c.electionTimeout()
	})
}

// proposeSync lets the log say what is so, a step at a time.
func (c *Core) proposeSync() {
	if c.applied < max(c.insync.wait, c.lease.firstOwn) || c.conf.Joint() || c.transfer.active {
		return
	}
	for _, id := range c.dataVoters() {
		out := slices.Contains(c.conf.Out, id)
		p := c.peers[id]
		switch {
		case id == c.cfg.ID && out, id != c.cfg.ID && out && p != nil && p.sync.gates && p.sync.complete:
			c.proposeStep(id, false)
			return
		case id != c.cfg.ID && !out && (p == nil || !p.sync.gates):
			c.proposeStep(id, true)
			return
		}
	}
}

func (c *Core) proposeStep(id uint64, out bool) {
	c.insync.wait = c.last + 1
	if err := c.rn.ProposeConfChange(syncChange(id, out)); err != nil {
		c.insync.wait = 0 // the next tick tries again
	}
}

// outNow returns the data voters that lack something which is committed, or may: those that the log says are, and on a leader those that it knows to be.
func (c *Core) outNow() []uint64 {
	var out []uint64
	for _, id := range c.dataVoters() {
		p := c.peers[id]
		leading := c.state.role == raft.StateLeader && id != c.cfg.ID && len(c.witnesses) > 0
		if slices.Contains(c.conf.Out, id) || leading && (p == nil || !p.sync.gates || !p.sync.complete) {
			out = append(out, id)
		}
	}
	return out
}

// noteOut tells by events what has changed in the log's view.
func (c *Core) noteOut() {
	for _, id := range c.conf.Out {
		if !slices.Contains(c.shownOut, id) {
			c.out.Events = append(c.out.Events, Event{Kind: OutOfSync, Term: c.state.term, Peer: id})
		}
	}
	for _, id := range c.shownOut {
		if !slices.Contains(c.conf.Out, id) {
			c.out.Events = append(c.out.Events, Event{Kind: InSync, Term: c.state.term, Peer: id})
		}
	}
	c.shownOut = c.conf.Out
}
