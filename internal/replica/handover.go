package replica

import (
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

// transfer is a leader's handing over: first it takes no more proposals and waits until all it took are applied (draining), then it gives up its
// lease and lets the successor campaign.
type transfer struct {
	active   bool
	to       uint64
	deadline int64
	// err is why the last transfer ended without a successor.
	err error
}

// drainTimeout is how long a leader that is to hand over waits for what it proposed. Nothing is lost if it takes longer: it leads on.
const drainTimeout = 2 * time.Second

var (
	errDrain = fmt.Errorf("replica: what was proposed was not applied within %v; leading on", drainTimeout)
	// ErrNotTakenOver is why a transfer failed after the lease was given up: there is an election, and any member may lead in the end.
	ErrNotTakenOver = fmt.Errorf("replica: the successor did not take over in time; stepped down")
)

func (t *transfer) end() { t.active = false }

// TransferLeader begins to hand over to a member, or to the most up to date one if to is 0. LeaderLost comes when the lease is given up.
// It returns who shall take over.
func (c *Core) TransferLeader(now int64, to uint64) (uint64, error) {
	c.now = now
	if c.rn == nil || c.state.role != raft.StateLeader || c.applied < c.lease.firstOwn {
		return 0, ErrNotLeader
	}
	if c.transfer.active {
		return 0, ErrTransferring
	}
	to, err := c.successor(to, 0)
	if err != nil {
		return 0, err
	}
	c.transfer = transfer{active: true, to: to, deadline: now + int64(drainTimeout)}
	c.tickTransfer()
	c.after()
	return to, nil
}

// Transferring reports whether a transfer is under way, and if not, how the last one failed (nil if it did not).
func (c *Core) Transferring() (bool, error) { return c.transfer.active, c.transfer.err }

// successor picks who can take over: it must vote, be heard of, have a state, and replicate without a gap; the further its log, the better. One that would rather
// not lead is not picked, unless it is named or reluctant is among the flags that are tolerated.
func (c *Core) successor(want uint64, tolerated byte) (uint64, error) {
	if want != 0 {
		tolerated |= flagReluctant
	}
	best := c.bestSuccessor(tolerated, func(id uint64) bool { return want == 0 || id == want })
	switch {
	case best != 0:
		return best, nil
	case want != 0:
		return 0, fmt.Errorf("%w: the one that was named is not in sync", ErrNoSuccessor)
	}
	return 0, ErrNoSuccessor
}

// bestSuccessor returns the best of those that are allowed, 0 if none is able.
func (c *Core) bestSuccessor(tolerated byte, allowed func(id uint64) bool) uint64 {
	best, bestMatch := uint64(0), uint64(0)
	c.rn.WithProgress(func(id uint64, typ raft.ProgressType, pr tracker.Progress) {
		p := c.peers[id]
		if id == c.cfg.ID || typ == raft.ProgressTypeLearner || p == nil || c.isWitness(id) || !allowed(id) {
			return
		}
		fresh := c.now-p.seen < c.electionTimeout() && p.report.applied+caughtUp >= c.confIndex
		if fresh && p.report.flags&^tolerated == 0 && pr.State == tracker.StateReplicate && (best == 0 || pr.Match > bestMatch) {
			best, bestMatch = id, pr.Match
		}
	})
	return best
}

func (c *Core) electionTimeout() int64 { return int64(c.cfg.Timing.ElectionTicks) * c.tick }

// tickTransfer moves a transfer on. Raft does not campaign before it has applied the changes of membership that are committed, so the successor is waited for until it says
// that it has.
func (c *Core) tickTransfer() {
	t := &c.transfer
	if !t.active || c.state.role != raft.StateLeader {
		return
	}
	switch {
	case !c.lease.released && c.applied == c.last && c.peer(t.to).report.applied >= c.confIndex:
		// From here on nothing is served in this term, whatever becomes of the transfer.
		c.lease.released = true
		t.deadline = c.now + c.electionTimeout()
		c.noteServing()
		c.rn.TransferLeader(t.to)
	case !c.lease.released && c.now >= t.deadline:
		t.err = errDrain
		t.end()
	case c.lease.released && c.now >= t.deadline:
		t.err = ErrNotTakenOver
		c.stepUp()
		// This replica is likely to be the best leader still, and the promises made to it do not bind against it.
		c.election.campaignAt = c.now + 2*c.tick
	}
}

// tickStandIn lets a leader that does not serve hand over to a member that has all its entries and can: one whose state machine is invalid, or one that would rather not lead and has not
// got an entry of its own committed. The latter may be because it cannot: the others wait for a snapshot, and its damaged copy gives none.
func (c *Core) tickStandIn() {
	var tolerated byte
	switch {
	case c.transfer.active || c.state.role != raft.StateLeader:
		return
	case c.install.needed:
		tolerated = flagReluctant
	case c.reluctant && c.applied < c.lease.firstOwn:
	default:
		return
	}
	to, err := c.successor(0, tolerated)
	if err != nil || c.rn.Status().Progress[to].Match < c.last {
		return // later
	}
	c.lease.released = true
	c.transfer = transfer{active: true, to: to, deadline: c.now + c.electionTimeout()}
	c.rn.TransferLeader(to)
}

// tickRemoved lets a leader that is no member any more hand over, to a member that knows: one that does not might need the vote of those that are gone. Until then it leads,
// so that its successor can learn of it.
func (c *Core) tickRemoved() {
	if c.transfer.active || c.state.role != raft.StateLeader || c.inVoters(c.cfg.ID) || c.applied < c.lease.firstOwn {
		return
	}
	to := c.bestSuccessor(flagReluctant, func(id uint64) bool { return c.peer(id).report.applied >= c.confIndex })
	if to == 0 {
		return // later
	}
	c.transfer = transfer{active: true, to: to, deadline: c.now + int64(drainTimeout)}
	c.tickTransfer()
}

// stepUp moves to the next term as a follower, so that this term has no leader any more.
func (c *Core) stepUp() {
	// A request for a vote does it, of a candidate with nothing in its log, which gets none. Answers of a higher term do it, too, but raft takes them of members only, and
	// this replica may be none any more.
	m := Message{Type: raftpb.MsgVote, From: c.anyOther(), To: c.cfg.ID, Term: c.state.term + 1, Context: []byte(campaignTransfer)}
	if err := c.rn.Step(m); err != nil {
		panic(fmt.Sprintf("replica: cannot step down: %v", err))
	}
	c.after()
}

// anyOther returns the number of another member. A transfer has had one.
func (c *Core) anyOther() uint64 {
	for _, id := range c.members {
		if id != c.cfg.ID {
			return id
		}
	}
	return c.transfer.to
}

// inVoters reports whether a member has a vote.
func (c *Core) inVoters(id uint64) bool {
	return slices.Contains(c.voters[0], id) || slices.Contains(c.voters[1], id)
}
