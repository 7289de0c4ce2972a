package replica

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// election decides when this replica campaigns and which campaigns it hears.
type election struct {
	// campaignAt is when this replica campaigns if it hears of no leader before.
	campaignAt int64
	// gone: the leader's process is known to be dead, so campaignAt is not waited for, only the promise.
	gone bool
	// lost is the last leader but this replica that is not followed any more.
	lost uint64
	// deferred are requests for a vote that came while a promise to another forbade to hear them; at most one of each member.
	deferred []Message
}

// campaignTransfer is the context of a MsgVote whose sender was told by the leader to take over (raft's campaignTransfer).
const campaignTransfer = "CampaignTransfer"

// resetElection starts the wait for a leader anew.
func (c *Core) resetElection(now int64) {
	e := int64(c.cfg.Timing.ElectionTicks)
	c.election.campaignAt = now + (e+c.rng.Int64N(e/2+1))*c.tick
}

// tickElection campaigns when it is time to, and hears the candidates that had to wait.
func (c *Core) tickElection() {
	if c.now < c.lease.promisedUntil && c.lease.promisedTo != c.cfg.ID {
		return
	}
	for _, m := range c.takeDeferred() {
		c.hearVote(m)
	}
	due := c.election.campaignAt
	if c.election.gone {
		due = min(due, c.lease.promisedUntil+c.stagger())
	}
	if c.install.needed || c.reluctant {
		due += 2 * c.electionTimeout() // whoever can serve, and is meant to, goes first
	}
	if c.now < due || !c.mayLead() || !c.inVoters(c.cfg.ID) {
		return
	}
	c.campaign()
}

func (c *Core) campaign() {
	c.election.gone = false
	c.resetElection(c.now)
	// Raft does not campaign before it has applied the changes of membership that are committed: it answers nothing then, and we try again later.
	if err := c.rn.Campaign(); err != nil {
		c.cfg.Logger.Warn("cannot campaign", "err", err)
	}
}

// SetReluctant tells whether this replica should rather not lead, as one on a node in standby: then it campaigns later than the others, and a leader that hands
// over to whoever is best does not pick it.
func (c *Core) SetReluctant(reluctant bool) { c.reluctant = reluctant }

// stagger keeps the followers of a dead leader from campaigning at the same moment: they go in the order of their numbers, two ticks apart.
func (c *Core) stagger() int64 {
	rank := int64(0)
	for _, id := range c.members {
		if id < c.cfg.ID && id != c.state.lead {
			rank++
		}
	}
	return rank * 2 * c.tick
}

// PeerGone tells that a member's process is known to be dead: its connections closed and a new one was refused. If it was the leader,
// this replica campaigns as soon as its promise has run out.
func (c *Core) PeerGone(now int64, id uint64) {
	c.now = now
	if c.rn == nil {
		return
	}
	if c.state.lead == id && c.state.role == raft.StateFollower {
		c.election.gone = true
	}
	c.peer(id).gone = true
	c.rn.ReportUnreachable(id)
	c.tickSync()
	c.after()
}

// admitVote decides whether a request for a vote may be heard now. A promise to another than the candidate defers it; a candidate that the leader
// itself has chosen is heard at once, because that leader has given up its lease (DESIGN.md, "Handing over").
func (c *Core) admitVote(m *Message) bool {
	if c.recover != 0 && !c.onlyOther(m.From) {
		return false // a vote or an acknowledgement that this replica forgot may count already
	}
	if string(m.Context) == campaignTransfer && m.Type == raftpb.MsgVote {
		return true
	}
	if c.now < c.lease.promisedUntil && c.lease.promisedTo != m.From {
		c.election.deferred = slices.DeleteFunc(c.election.deferred, func(d Message) bool { return d.From == m.From })
		c.election.deferred = append(c.election.deferred, *m)
		return false
	}
	c.forgetLeader(m)
	return true
}

// tellCommit adds to a request for a vote, or to the refusal of one, what this replica knows to be committed: the index as Commit, its term as RejectHint, neither of which raft uses there.
func (c *Core) tellCommit(m *Message) {
	commit := c.rn.BasicStatus().Commit
	if term, err := c.log.Term(commit); err == nil {
		m.Commit, m.RejectHint = commit, term
	}
}

// learnCommit takes what tellCommit tells. A replica may have been made a voter by an entry that it has, and that it does not know to be committed; the leader that knew was the only voter
// before, and died with less in its log than it had sent. Then this replica gives it no vote, rightly, and does not campaign itself until it knows that it is a voter. Or a candidate has become the only voter by
// such an entry, and asks one for its vote that has none any more and more in its log: the refusal tells it.
func (c *Core) learnCommit(m *Message) {
	index, term := m.Commit, m.RejectHint
	m.Commit, m.RejectHint = 0, 0
	if term == 0 || c.state.role == raft.StateLeader || c.state.lead != 0 || index <= c.rn.BasicStatus().Commit {
		return
	}
	if own, err := c.log.Term(index); err != nil || own != term {
		return
	}
	// Raft takes it from the leader of the term, which it is told to forget again.
	told := Message{Type: raftpb.MsgApp, From: m.From, To: c.cfg.ID, Term: c.state.term, Index: index, LogTerm: term, Commit: index}
	if err := c.rn.Step(told); err != nil {
		c.cfg.Logger.Debug("raft ignores what is committed", "from", m.From, "err", err)
	}
	_ = c.rn.ForgetLeader()
}

// onlyOther reports whether the group is this replica and id. Then id has all that is committed, because that took both, and may lead
// with the vote of a replica that forgot everything.
func (c *Core) onlyOther(id uint64) bool {
	return len(c.voters[0]) == 2 && len(c.voters[1]) == 0 && c.inVoters(id) && c.inVoters(c.cfg.ID)
}

// forgetLeader lets raft hear a vote request although it still believes in a leader: raft's own idea of a lease counts ticks, and the promise
// that stands in its place has run out.
func (c *Core) forgetLeader(m *Message) {
	if c.state.role == raft.StateFollower && c.state.lead != 0 && m.Term > c.state.term {
		_ = c.rn.ForgetLeader() // fails with lease-based ReadIndex only, which is off
	}
}

func (c *Core) takeDeferred() []Message {
	d := c.election.deferred
	c.election.deferred = nil
	return d
}

// hearVote steps a request that was deferred.
func (c *Core) hearVote(m Message) {
	c.forgetLeader(&m)
	c.step(m)
}
