package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"holdfast/internal/replica/transport"
)

// ErrBadMembers is returned for a set of members that no group can have.
var ErrBadMembers = errors.New("replica: no such membership")

// caughtUp is how many entries a learner may lack when it becomes a voter: some that are on their way, which take a moment at most.
const caughtUp = 1024

// MemberChange is a leader's way from the membership that there is to the one that is wanted: new members come in as learners; when they have caught up, one change
// swaps the voters, by a joint configuration if it is more than one of them; when that has been left, those that stay are waited for to know it. It holds nothing
// that counts: whoever leads can begin another one at any point, and goes on from where the group is.
type MemberChange struct {
	c    *Core
	want []uint64 // sorted
	term uint64
	// wait is an index that must be applied before the next step.
	wait uint64
}

// ChangeState is where a MemberChange is.
type ChangeState struct {
	// Done: the voters are those that were wanted, there is nobody else, and all that are up know it.
	Done bool
	// HandTo, if not 0, is the member that must lead before it can go on, because this one is to go: hand over to it.
	HandTo uint64
}

// NewMemberChange returns a change to the voters want; Advance moves it on.
func (c *Core) NewMemberChange(want []uint64) (*MemberChange, error) {
	want = slices.Clone(want)
	slices.Sort(want)
	switch {
	case len(want) == 0:
		return nil, fmt.Errorf("%w: it would have no members", ErrBadMembers)
	case want[0] == 0 || len(slices.Compact(slices.Clone(want))) != len(want):
		return nil, fmt.Errorf("%w: %v", ErrBadMembers, want)
	}
	witnesses := 0
	for _, id := range want {
		if c.isWitness(id) {
			witnesses++
		}
	}
	if witnesses == len(want) || witnesses > 1 {
		return nil, fmt.Errorf("%w: %v: %d of %d are witnesses; there may be one beside members that hold data", ErrBadMembers, want, witnesses, len(want))
	}
	if !c.leads() {
		return nil, ErrNotLeader
	}
	return &MemberChange{c: c, want: want, term: c.state.term}, nil
}

// leads reports whether this replica may take proposals.
func (c *Core) leads() bool { return c.rn != nil && c.state.role == raft.StateLeader && c.lease.ready }

// Advance does what can be done now. It is to be called again after anything happened, until it is done or fails.
func (m *MemberChange) Advance(now int64) (ChangeState, error) {
	c := m.c
	c.now = now
	if !c.leads() || c.state.term != m.term {
		return ChangeState{}, ErrNotLeader
	}
	if c.applied < m.wait {
		return ChangeState{}, nil
	}
	if c.conf.Joint() {
		// Raft leaves by itself; if it was handing over at that moment, it does so after the next entry only. It does not leave twice.
		return ChangeState{}, m.propose(raftpb.ConfChangeV2{})
	}
	if changes := m.learners(); len(changes) > 0 {
		return ChangeState{}, m.propose(raftpb.ConfChangeV2{Changes: changes})
	}
	if !m.learned() {
		return ChangeState{}, nil
	}
	goal := m.want
	if !slices.Contains(goal, c.cfg.ID) {
		stays := func(id uint64) bool { return slices.Contains(m.want, id) && !c.isWitness(id) }
		out := c.outNow()
		switch to := c.bestSuccessor(flagReluctant, func(id uint64) bool { return stays(id) && !slices.Contains(out, id) }); {
		case to != 0:
			return ChangeState{HandTo: to}, nil
		case slices.ContainsFunc(c.conf.Voters, stays):
			return ChangeState{}, nil // it comes in sync, or has to be waited for
		}
		// Nobody that is to stay has a vote yet. This one leads on until they have.
		goal = append(slices.Clone(goal), c.cfg.ID)
	}
	if changes := m.swap(goal); len(changes) > 0 {
		return ChangeState{}, m.propose(raftpb.ConfChangeV2{Changes: changes})
	}
	return ChangeState{Done: m.known()}, nil
}

func (m *MemberChange) propose(cc raftpb.ConfChangeV2) error {
	if err := m.c.ProposeConfChange(m.c.now, cc); err != nil {
		return err
	}
	m.wait = m.c.last // if raft had no use for it, it made an empty entry of it, and the next step is found from what there is then
	return nil
}

// on returns the members that are on a node, and the leader if it is there: usually one.
func (c *Core) on(node uint64) []uint64 {
	ids := slices.DeleteFunc(append(slices.Clone(c.members), c.state.lead), func(id uint64) bool { return transport.NodeOf(id) != node })
	slices.Sort(ids)
	return slices.Compact(ids)
}

// learners returns the changes that make learners of those that are to be voters and are not yet, and drop learners that nobody wants any more.
func (m *MemberChange) learners() []raftpb.ConfChangeSingle {
	var changes []raftpb.ConfChangeSingle
	conf := &m.c.conf
	for _, id := range m.want {
		if !slices.Contains(conf.Voters, id) && !slices.Contains(conf.Learners, id) {
			changes = append(changes, raftpb.ConfChangeSingle{Type: raftpb.ConfChangeAddLearnerNode, NodeID: id})
		}
	}
	for _, id := range conf.Learners {
		if !slices.Contains(m.want, id) {
			changes = append(changes, raftpb.ConfChangeSingle{Type: raftpb.ConfChangeRemoveNode, NodeID: id})
		}
	}
	return changes
}

// learned reports whether all learners have caught up. A learner must also know that it is a member, because it campaigns only then.
func (m *MemberChange) learned() bool {
	c := m.c
	if len(c.conf.Learners) == 0 {
		return true
	}
	ok := true
	c.rn.WithProgress(func(id uint64, typ raft.ProgressType, pr tracker.Progress) {
		if typ != raft.ProgressTypeLearner {
			return
		}
		p := c.peers[id]
		_, sending := c.sends[id]
		ok = ok && p != nil && c.now-p.seen < c.electionTimeout() && p.report.flags&^flagReluctant == 0 && p.report.conf >= c.confIndex && !sending &&
			pr.State == tracker.StateReplicate && pr.Match+caughtUp >= c.last
	})
	return ok
}

// swap returns the changes that make goal the voters.
func (m *MemberChange) swap(goal []uint64) []raftpb.ConfChangeSingle {
	var changes []raftpb.ConfChangeSingle
	for _, id := range goal {
		if !slices.Contains(m.c.conf.Voters, id) {
			changes = append(changes, raftpb.ConfChangeSingle{Type: raftpb.ConfChangeAddNode, NodeID: id})
		}
	}
	for _, id := range m.c.conf.Voters {
		if !slices.Contains(goal, id) {
			changes = append(changes, raftpb.ConfChangeSingle{Type: raftpb.ConfChangeRemoveNode, NodeID: id})
		}
	}
	return changes
}

// known reports whether all members that are up know the configuration, durably, and are in sync. One that does not know would still ask those that are gone for their votes; one
// that is not in sync could not stand in for another.
func (m *MemberChange) known() bool {
	c := m.c
	if c.confStable < c.confIndex {
		return false
	}
	for _, id := range c.members {
		p := c.peers[id]
		if id != c.cfg.ID && p != nil && c.now-p.seen < c.electionTimeout() && (p.report.conf < c.confIndex || slices.Contains(c.conf.Out, id)) {
			return false
		}
	}
	return true
}

// SetMembers brings the group's voters to want, and returns when they are it and those that are up know it. It may be called again after any failure, here or on another leader, and
// goes on from where the group is. If this replica leads and is not in want, it hands over to a member that stays and returns an error that is ErrNotLeader:
// then it is to be called there. ctx bounds it; what was done until then stays. Status tells how far it is. One call at a time.
func (r *Replica) SetMembers(ctx context.Context, want []uint64) error {
	call := &memberCall{r: r, ctx: ctx, result: make(chan error, 1)}
	err := r.do(func(int64) {
		change, err := r.core.NewMemberChange(want)
		if err != nil {
			call.result <- err
			return
		}
		call.change = change
		r.waiters = append(r.waiters, call.advance)
	})
	if err != nil {
		return err
	}
	select {
	case err := <-call.result:
		return err
	case <-ctx.Done():
		return fmt.Errorf("change the members to %v: %w", want, ctx.Err())
	case <-r.ctx.Done():
		return ErrStopped
	}
}

// memberCall is one call of SetMembers, as the run loop moves it on.
type memberCall struct {
	r      *Replica
	ctx    context.Context // of the call
	change *MemberChange
	result chan error
	// transfer is the handing over that must come first, if it does.
	transfer *transferCall
}

// advance does what can be done now, and reports whether that was all.
func (m *memberCall) advance() bool {
	if m.transfer != nil {
		return m.handOver()
	}
	if m.ctx.Err() != nil {
		return m.end(m.ctx.Err())
	}
	last := m.r.core.last
	state, err := m.change.Advance(m.r.cfg.Clock.MonotonicNS())
	switch {
	case err != nil:
		return m.end(err)
	case state.Done:
		return m.end(nil)
	case state.HandTo != 0:
		m.transfer = &transferCall{r: m.r, ctx: m.ctx, to: state.HandTo, result: make(chan error, 1)}
		m.r.proposals.pause()
		return m.handOver()
	case m.r.core.last != last:
		m.r.inbox.signal() // what this made is for the next turn
	}
	return false
}

// handOver moves the transfer on. It ends the call: the new leader has to go on.
func (m *memberCall) handOver() bool {
	if !m.transfer.advance() {
		return false
	}
	err := <-m.transfer.result
	if err == nil {
		err = fmt.Errorf("%w any more: handed over to %s, as this member is to go", ErrNotLeader, m.r.cfg.Name(m.transfer.to))
	}
	return m.end(err)
}

func (m *memberCall) end(err error) bool {
	m.result <- err
	return true
}

// publishVoters makes Voters what the Core knows.
func (r *Replica) publishVoters() {
	voters := r.core.voters[0]
	if r.core.rn == nil {
		voters = r.core.members
	}
	r.voters.Store(&voters)
	r.votersIndex = r.core.confIndex
}
