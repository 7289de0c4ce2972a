package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// newMembers decides on another membership, which whoever leads brings about. It may do so while another one is on its way. In a group of three and more a member may
// be lost for good, and another takes its place.
func (s *sim) newMembers() {
	if s.want != nil && s.rng.IntN(3) > 0 {
		return
	}
	var able []uint64
	for _, id := range s.members {
		if !s.byID[id].lost {
			able = append(able, id)
		}
	}
	var want []uint64
	fresh := 0
	switch s.rng.IntN(4) {
	case 0: // add
		want, fresh = able, 1
	case 1: // remove, perhaps the leader
		want = slices.Clone(able)
		if len(want) > 1 {
			want = slices.Delete(want, 0, 1)
		}
	case 2: // replace one that may be lost
		want, fresh = slices.Clone(able), 1
		i := s.rng.IntN(len(want))
		if len(s.members) >= 3 && s.want == nil {
			lost := s.byID[want[i]]
			lost.crash()
			lost.lost = true
		}
		want = slices.Delete(want, i, i+1)
	case 3: // replace some, or everybody
		s.rng.Shuffle(len(able), func(i, j int) { able[i], able[j] = able[j], able[i] })
		want, fresh = slices.Clone(able[:s.rng.IntN(len(able)+1)]), 1+s.rng.IntN(2)
	}
	if len(want)+fresh > 5 {
		want = want[:5-fresh]
	}
	for range fresh {
		n := s.add(uint64(len(s.nodes) + 1))
		n.fresh = true
		want = append(want, n.id)
		s.after(s.rng.Int64N(500*simMS), n.start)
	}
	s.want = want
}

// changeMembers moves the change of membership on if n leads.
func (n *simNode) changeMembers() {
	s := n.s
	if s.want == nil || n.core == nil || !n.core.leads() {
		n.change = nil
		return
	}
	slices.Sort(s.want)
	if n.change == nil || n.change.term != n.core.state.term || !slices.Equal(n.change.want, s.want) {
		var err error
		if n.change, err = n.core.NewMemberChange(s.want); err != nil {
			s.t.Fatal(err)
		}
	}
	state, err := n.change.Advance(n.clock())
	switch {
	case err != nil:
		if !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrTransferring) {
			s.t.Fatal(err)
		}
		n.change = nil
	case state.HandTo != 0:
		_, _ = n.core.TransferLeader(n.clock(), state.HandTo)
	case state.Done:
		if got := n.core.Status(n.clock()).Voters; !slices.Equal(got, s.want) {
			s.t.Fatalf("the voters are %v, wanted were %v", got, s.want)
		}
		s.members, s.want, n.change = s.want, nil, nil
		s.changes++
		s.note(5, uint64(s.changes))
		for _, o := range s.nodes {
			if !slices.Contains(s.members, o.id) && s.rng.IntN(2) == 0 {
				o.crash() // others go on, and must not disturb
				o.lost = true
			}
		}
	}
	if n.core != nil {
		n.flush()
	}
}

func TestSimulationOfMembership(t *testing.T) {
	changes := 0
	for seed := *firstSeed; seed < *firstSeed+seeds(60); seed++ {
		n := 1 + int(seed)%4
		t.Run(fmt.Sprintf("seed=%d,nodes=%d", seed, n), func(t *testing.T) {
			s := newSim(t, seed, n)
			for _, node := range s.nodes {
				node.fresh = true
			}
			s.chaos, s.changing = true, true
			s.after(0, s.load)
			s.after(simMS*300, s.newMembers)
			s.after(simMS*500, s.misfortune)
			s.run(15 * time.Second)
			s.settle()
			changes += s.changes
		})
	}
	if uint64(changes) < 2*seeds(60) {
		t.Errorf("only %d changes were made", changes)
	}
	t.Logf("%d changes", changes)
}

// A joiner whose Meta is all that it saved is fresh again; one that is not said to be is refused, as it may have forgotten anything.
func TestJoinerThatDiedAtOnce(t *testing.T) {
	meta, log := &memMeta{}, &memLog{}
	cfg := Config{
		ID: 9, Peers: []uint64{1, 2, 3}, Fresh: true, Log: log, Meta: meta, StateMachine: newToySM(), Transport: noTransport{}, Clock: bootClock{},
		Fatal: func(error) {}, Logger: quiet,
	}
	if err := meta.Save(&Meta{Conf: ConfState{Voters: cfg.Peers}}); err != nil {
		t.Fatal(err)
	}
	cfg.Fresh = false
	if _, err := New(cfg); err == nil {
		t.Error("a replica that is no member and has no state starts")
	}
	cfg.Fresh = true
	for range 2 {
		r, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if st := r.core.Status(0); st.Role != RoleFollower || st.Term != 1 || !slices.Equal(st.Voters, cfg.Peers) {
			t.Errorf("it starts as %+v", st)
		}
		if !slices.Equal(r.Voters(), cfg.Peers) {
			t.Errorf("voters are %v", r.Voters())
		}
		cfg.Fresh = false // New has returned, so from now on it has state
	}
}

// joiner starts a new node.
func (s *sim) joiner() *simNode {
	n := s.add(uint64(len(s.nodes) + 1))
	n.fresh = true
	n.start()
	return n
}

// changeTo brings the membership to want.
func (s *sim) changeTo(want ...uint64) {
	s.t.Helper()
	s.want = want
	if !s.until(20*time.Second, func() bool { return s.want == nil }) {
		for _, n := range s.nodes {
			if n.core != nil {
				s.t.Logf("%+v", n.core.Status(n.clock()))
			}
		}
		s.t.Fatalf("the membership does not become %v", want)
	}
}

// TestNoMemberVotes: one that was removed, or does not know yet that it was added, may be asked by others to whom it is a member still, or already. Its vote may be the one that
// they need.
func TestNoMemberVotes(t *testing.T) {
	s := calm(t, 20, 3)
	s.mustPropose()
	joiner := s.joiner()
	s.changeTo(1, 3)
	removed := s.nodes[1]
	s.run(time.Second)
	for _, n := range []*simNode{joiner, removed} {
		n.crash()
		n.lost = false
		n.start()
	}
	for _, n := range []*simNode{joiner, removed} {
		s.run(5 * time.Second)
		if st := n.core.Status(n.clock()); n == joiner && st.Role != RoleFollower {
			t.Errorf("%d, which was never a member, campaigns: %+v", n.id, st)
		}
		n.core.Step(n.clock(), Message{Type: raftpb.MsgVote, From: 1, To: n.id, Term: 50, Index: 1000, LogTerm: 49})
		if st := n.core.Status(n.clock()); st.Term != 50 {
			t.Errorf("%d does not vote: %+v", n.id, st)
		}
	}
}

// TestOnlyVoterDiesAsAnotherBecomesOne: the first voter of a group of one has just made another replica a voter, and sent it more than it has on its own disk, when it dies. Found by package
// sim, seed 56191148274348.
func TestOnlyVoterDiesAsAnotherBecomesOne(t *testing.T) { dieAsVotersChange(t, 0, 1, 2) }

// TestNewOnlyVoterDies takes the power of a leader at the moment at which it has become the only voter, instead of the other that was one: it may have sent more than it had on its own disk, and
// have forgotten that the change is committed, while the other knows it, and has no vote. Found by package sim.
func TestNewOnlyVoterDies(t *testing.T) { dieAsVotersChange(t, 1, 2) }

// dieAsVotersChange lets a second node join a group of one, which then gets other voters, and takes the power of a node as soon as anybody knows of that. What it sends at the end is lost.
func dieAsVotersChange(t *testing.T, victim int, voters ...uint64) {
	for seed := range seeds(400) {
		s := calm(t, seed, 1)
		s.mustPropose()
		s.joiner()
		s.want = voters
		changed := func(n *simNode) bool { return slices.Equal(n.core.voters[0], voters) }
		for limit := s.now + 20_000*simMS; !slices.ContainsFunc(s.nodes, changed); {
			if s.now > limit {
				t.Fatal("the voters do not change")
			}
			s.propose()
			s.run(50 * time.Microsecond)
		}
		s.propose()
		s.run(time.Duration(s.rng.Int64N(simMS / 2)))
		dead, other := s.nodes[victim], s.nodes[1-victim]
		s.cut[[2]uint64{dead.id, other.id}] = true
		dead.crash()
		s.run(100 * time.Millisecond)
		s.settle()
	}
}

// TestRemovedMemberDoesNotAnswerProbes leaves one of two members alone, and then empties its disk. The other may not know that it was removed, but must not give what it still has a new life. Found
// by package sim.
func TestRemovedMemberDoesNotAnswerProbes(t *testing.T) {
	unaware := 0
	for seed := range uint64(20) {
		s := calm(t, seed, 2)
		s.mustPropose()
		first, second := s.nodes[0], s.nodes[1]
		s.want = []uint64{2}
		if !s.until(20*time.Second, func() bool { return slices.Equal(second.core.voters[0], s.want) && s.leader() == second }) {
			t.Fatal("the second is not left alone")
		}
		s.mustPropose()
		if !slices.Equal(first.core.voters[0], s.want) {
			unaware++
		}
		second.wipe()
		second.start()
		if s.until(3*time.Second, func() bool { return s.leader() != nil }) {
			t.Fatalf("seed %d: node %d leads", seed, s.leader().id)
		}
	}
	if unaware == 0 {
		t.Error("the first always knew that it was removed")
	}
}

func TestReplaceEveryMember(t *testing.T) {
	s := calm(t, 21, 3)
	for range 20 {
		s.mustPropose()
	}
	for _, n := range s.nodes {
		n.checkpoint() // newcomers may need a snapshot
	}
	var want []uint64
	for range 3 {
		want = append(want, s.joiner().id)
	}
	s.changeTo(want...)
	for _, n := range s.nodes[:3] {
		n.crash()
		n.lost = true
	}
	if !s.until(3*time.Second, func() bool { return s.leader() != nil }) {
		t.Fatal("nobody leads")
	}
	s.mustPropose()
	s.settle()
}

func TestMoveSingleMember(t *testing.T) {
	s := calm(t, 22, 1)
	s.mustPropose()
	n := s.joiner()
	s.changeTo(n.id)
	s.nodes[0].crash()
	s.nodes[0].lost = true
	if !s.until(3*time.Second, func() bool { return s.leader() == n }) {
		t.Fatal("the new member does not lead")
	}
	s.mustPropose()
}

// A removed member that goes on campaigns for ever, as nobody tells it. It must cost the others nothing.
func TestRemovedMemberDoesNotDisturb(t *testing.T) {
	s := calm(t, 23, 4)
	l := s.leader()
	var want []uint64
	removed := s.nodes[l.id%4]
	for _, n := range s.nodes {
		if n != removed {
			want = append(want, n.id)
		}
	}
	s.isolate2(removed.id) // so that it does not hear of it
	s.changeTo(want...)
	clear(s.cut)
	if removed.lost {
		removed.lost = false
		removed.start()
	}
	term, readies := l.core.state.term, s.stats.readies
	for range 100 {
		s.mustPropose()
		s.run(50 * time.Millisecond)
		if s.leader() != l {
			t.Fatal("the leader does not serve")
		}
	}
	if l.core.state.term != term || s.stats.readies != readies {
		t.Error("there was an election")
	}
	for _, p := range l.core.Status(l.clock()).Peers {
		if p.ID == removed.id {
			t.Error("the leader still counts the removed member")
		}
	}
}

func TestReluctantMemberIsLast(t *testing.T) {
	for seed := range uint64(20) {
		s := calm(t, 30+seed, 3)
		l := s.leader()
		standby, other := s.nodes[l.id%3], s.nodes[(l.id+1)%3]
		standby.core.SetReluctant(true)
		s.run(100 * time.Millisecond)
		if to, err := l.core.successor(0, 0); err != nil || to != other.id {
			t.Fatalf("%d is picked: %v", to, err)
		}
		if to, err := l.core.successor(standby.id, 0); err != nil || to != standby.id {
			t.Fatalf("named, %d is picked: %v", to, err)
		}
		l.crash()
		if !s.until(3*time.Second, func() bool { return s.leader() != nil }) || s.leader() != other {
			t.Fatal("the member in standby leads")
		}
		other.crash()
		l.start()
		if !s.until(5*time.Second, func() bool { return s.leader() != nil }) {
			t.Fatal("nobody leads")
		}
	}
}

func TestBadMembers(t *testing.T) {
	s := calm(t, 24, 1)
	for _, want := range [][]uint64{nil, {0}, {1, 1}} {
		if _, err := s.nodes[0].core.NewMemberChange(want); !errors.Is(err, ErrBadMembers) {
			t.Errorf("%v: %v", want, err)
		}
	}
}

// TestSetMembers replaces the leader of a group of three over real connections, under load.
func TestSetMembers(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, 3, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	l := c.leader()
	for range 100 {
		l = c.mustDo(l, 1000)
	}
	want, old := []uint64{4}, l
	for _, n := range c.all() {
		if n != old {
			want = append(want, n.id)
		}
	}
	// Whoever leads is asked, as a busy machine may have another leader at any time.
	ask := func(ctx context.Context, members []uint64) (err error) {
		for err = l.replica.SetMembers(ctx, members); errors.Is(err, ErrNotLeader); err = l.replica.SetMembers(ctx, members) {
			l = c.leader()
		}
		return err
	}
	if err := ask(ctx, nil); !errors.Is(err, ErrBadMembers) {
		t.Errorf("SetMembers(nil): %v", err)
	}
	short, stop := context.WithTimeout(ctx, 300*time.Millisecond)
	defer stop()
	if err := ask(short, want); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a member that is not there comes in: %v", err)
	}
	if st := l.replica.Status(); !slices.Equal(st.Learners, []uint64{4}) {
		t.Errorf("the newcomer is no learner: %+v", st)
	}
	c.start(4, nil, newToySM())
	for handed := l != old; ; handed = true {
		err := l.replica.SetMembers(ctx, want)
		if err == nil {
			if !handed {
				t.Error("a leader that is to go did not hand over")
			}
			break
		}
		if !errors.Is(err, ErrNotLeader) {
			t.Fatal(err)
		}
		l = c.leader()
	}
	slices.Sort(want)
	if st := l.replica.Status(); !slices.Equal(st.Voters, want) || st.Joint || len(st.Learners) > 0 || !slices.Equal(l.replica.Voters(), want) {
		t.Errorf("in the end there is %+v", st)
	}
	if err := ask(ctx, want); err != nil {
		t.Errorf("the same again: %v", err)
	}
	c.stop(old.id)
	c.mustDo(c.leader(), 1000)
	c.agree()
	if err := c.stop(c.leader().id).replica.SetMembers(ctx, want); !errors.Is(err, ErrStopped) {
		t.Errorf("after Close: %v", err)
	}
	c.mustDo(c.leader(), 1000)
	c.agree()
}
