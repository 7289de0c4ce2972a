package replica

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// calm is a group that came up without any misfortune.
func calm(t *testing.T, seed uint64, n int) *sim {
	t.Helper()
	s := newSim(t, seed, n)
	if !s.until(5*time.Second, func() bool { return s.leader() != nil }) {
		t.Fatal("nobody leads")
	}
	s.run(200 * time.Millisecond)
	return s
}

func (s *sim) mustPropose() {
	s.t.Helper()
	before := s.acked
	s.propose()
	if !s.until(time.Second, func() bool { return s.acked > before }) {
		s.t.Fatal("a proposal was not applied")
	}
}

// TestDisksGone empties disks: a group goes on if most members have what they had, and otherwise nobody begins anew, whatever the others' logs say.
func TestDisksGone(t *testing.T) {
	for _, tt := range []struct {
		name    string
		members int
		gone    int
		behind  bool // those that keep their disks never got an entry
		goes    bool
	}{
		{"the only one", 1, 1, false, false},
		{"one of two", 2, 1, false, true},
		{"both", 2, 2, false, false},
		{"one of three", 3, 1, false, true},
		{"two of three", 3, 2, false, false},
		{"two of three, the third has nothing", 3, 2, true, false},
		{"all three", 3, 3, false, false},
		{"two of five", 5, 2, false, true},
		{"three of five", 5, 3, false, false},
		{"three of five, the others have nothing", 5, 3, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSim(t, 1, tt.members)
			if tt.behind {
				for _, kept := range s.nodes[tt.gone:] {
					for _, o := range s.nodes {
						s.cut[[2]uint64{kept.id, o.id}], s.cut[[2]uint64{o.id, kept.id}] = true, true
					}
				}
			}
			if !s.until(5*time.Second, func() bool { return s.leader() != nil }) {
				t.Fatal("nobody leads")
			}
			s.mustPropose()
			s.run(200 * time.Millisecond)
			clear(s.cut)
			for i, n := range s.nodes {
				if n.crash(); i < tt.gone {
					n.wipe()
				}
			}
			for _, n := range s.nodes {
				n.start()
			}
			if goes := s.until(5*time.Second, func() bool { return s.leader() != nil }); goes != tt.goes {
				t.Fatalf("somebody leads: %v", goes)
			}
			for _, n := range s.nodes[:tt.gone] {
				// It has promised nothing without its files: they are as good as ever if they are found.
				if st := n.core.Status(n.clock()); !tt.goes && st.Role != RoleBlank {
					t.Errorf("node %d takes part: %+v", n.id, st)
				}
			}
			if tt.goes {
				s.mustPropose()
			}
		})
	}
}

// TestDisksGoneOneByOne empties the two disks that have an entry, one after the other, the second before the first has it again: the third, which never had it, is not enough.
func TestDisksGoneOneByOne(t *testing.T) {
	s := newSim(t, 1, 3)
	cut := func(third bool) {
		clear(s.cut)
		for _, o := range []uint64{1, 2} {
			s.cut[[2]uint64{3, o}], s.cut[[2]uint64{o, 3}] = third, third
		}
	}
	cut(true)
	if !s.until(5*time.Second, func() bool { return s.leader() != nil }) {
		t.Fatal("nobody leads")
	}
	s.mustPropose()
	first, second := s.byID[1], s.byID[2]
	// The first asks all others, and gets no more than their answers.
	cut(false)
	second.crash()
	first.wipe()
	first.start()
	second.start()
	if !s.until(5*time.Second, func() bool { return first.core.rn != nil }) {
		t.Fatal("the first does not take part")
	}
	if st := first.core.Status(first.clock()); st.Last != 0 || !st.Recovering {
		t.Fatalf("the first has an entry already: %+v", st)
	}
	second.crash()
	log, meta, sm := second.log, second.meta, second.sm
	second.wipe()
	second.start()
	if s.until(5*time.Second, func() bool { return s.leader() != nil }) {
		t.Fatalf("node %d leads without the entry", s.leader().id)
	}
	// The files of the second are found: it has taken no part without them.
	if st := second.core.Status(second.clock()); st.Role != RoleBlank {
		t.Fatalf("the second takes part while the first has not got back its data: %+v", st)
	}
	second.crash()
	second.log, second.meta, second.sm = log, meta, sm
	second.start()
	if !s.until(5*time.Second, func() bool { return s.leader() != nil }) {
		t.Fatal("nobody leads with the files that were found")
	}
	s.mustPropose()
	if !s.until(5*time.Second, func() bool { return !first.core.Status(first.clock()).Recovering }) {
		t.Fatal("the first does not get back its data")
	}
}

func TestFailoverTimes(t *testing.T) {
	const worst = 450 * time.Millisecond
	for _, detected := range []bool{false, true} {
		var sum, most time.Duration
		const rounds = 40
		for seed := range uint64(rounds) {
			s := calm(t, seed, 3)
			l := s.leader()
			began := s.now
			l.core, l.life = nil, l.life+1
			for _, o := range s.nodes {
				if o != l && detected {
					o.core.PeerGone(o.clock(), l.id)
					o.flush()
				}
			}
			if !s.until(5*time.Second, func() bool { return s.leader() != nil }) {
				t.Fatal("nobody takes over")
			}
			d := time.Duration(s.now - began)
			sum, most = sum+d, max(most, d)
		}
		t.Logf("death detected %v: mean %v, worst %v", detected, (sum / rounds).Round(time.Millisecond), most)
		if detected && most > 300*time.Millisecond || most > 2*worst {
			t.Errorf("worst failover with detection %v takes %v", detected, most)
		}
	}
}

func TestTransferNeedsNoWait(t *testing.T) {
	s := calm(t, 3, 3)
	for range 10 {
		l := s.leader()
		began := s.now
		to, err := l.core.TransferLeader(l.clock(), 0)
		if err != nil {
			t.Fatal(err)
		}
		l.flush()
		if _, err := l.core.Propose(l.clock(), [][]byte{{1}}); err == nil {
			t.Error("a leader that hands over takes proposals")
		}
		if !s.until(time.Second, func() bool { n := s.leader(); return n != nil && n != l }) {
			t.Fatal("nobody took over")
		}
		if d := time.Duration(s.now - began); s.leader().id != to || d > 40*time.Millisecond {
			t.Errorf("%d took over from %d after %v, expected %d", s.leader().id, l.id, d, to)
		}
		s.run(300 * time.Millisecond)
		s.mustPropose()
	}
}

func TestTransferThatFailsEndsTheTerm(t *testing.T) {
	s := calm(t, 4, 3)
	l := s.leader()
	term := l.core.state.term
	to, err := l.core.TransferLeader(l.clock(), 0)
	if err != nil {
		t.Fatal(err)
	}
	// The successor never hears of it.
	s.isolate2(to)
	l.core.Take()
	s.until(time.Second, func() bool {
		if s.leader() == l && l.core.state.term == term {
			t.Fatal("the lease came back in the term in which it was released")
		}
		return s.leader() != nil
	})
	if s.leader() == nil {
		t.Fatal("nobody leads after a transfer that failed")
	}
	if _, err := l.core.Transferring(); !errors.Is(err, ErrNotTakenOver) {
		t.Errorf("the transfer ended with %v", err)
	}
}

func (s *sim) isolate2(id uint64) {
	for _, o := range s.nodes {
		s.cut[[2]uint64{id, o.id}], s.cut[[2]uint64{o.id, id}] = true, true
	}
}

// A MsgTimeoutNow that was on its way for long must not make anyone campaign.
func TestLateTimeoutNowIsDropped(t *testing.T) {
	s := calm(t, 5, 3)
	l := s.leader()
	f := s.nodes[l.id%3]
	for _, m := range []Message{
		{Type: raftpb.MsgTimeoutNow, From: l.id, To: f.id, Term: l.core.state.term - 1},
		{Type: raftpb.MsgTimeoutNow, From: 6 - l.id - f.id, To: f.id, Term: l.core.state.term},
	} {
		f.core.Step(f.clock(), m)
		f.flush()
		if got := f.core.state; got.lead != l.id || got.term != l.core.state.term {
			t.Errorf("after a late MsgTimeoutNow of %d in term %d the state is %+v", m.From, m.Term, got)
		}
	}
}

func TestLeaseLapsesAndReturnsWithinATerm(t *testing.T) {
	s := calm(t, 6, 3)
	l := s.leader()
	term := l.core.state.term
	s.isolate2(l.id)
	if !s.until(200*time.Millisecond, func() bool { return s.leader() == nil }) {
		t.Fatal("a leader that is cut off serves on")
	}
	clear(s.cut)
	if !s.until(200*time.Millisecond, func() bool { return s.leader() == l }) || l.core.state.term != term {
		t.Fatalf("the lease did not come back in term %d", term)
	}
	// The events are consumed by flush; the state that makes them is what is left.
	if !l.core.lease.ready || l.core.lease.lapsed {
		t.Error("LeaseRegained was not sent")
	}
}

func TestEventsOfOneLeadership(t *testing.T) {
	s := calm(t, 7, 3)
	l := s.leader()
	c := l.core
	last := c.lease.end
	c.Tick(last + 1)
	c.stepUp()
	var kinds []EventKind
	for _, e := range c.Take().Events {
		if e.Kind != LeaderChanged {
			kinds = append(kinds, e.Kind)
		}
	}
	if len(kinds) != 2 || kinds[0] != LeaseLapsed || kinds[1] != LeaderLost {
		t.Errorf("events are %v", kinds)
	}
}

func TestPromiseKeepsOthersOut(t *testing.T) {
	s := calm(t, 8, 3)
	l := s.leader()
	f, o := s.nodes[l.id%3], s.nodes[(l.id+1)%3]
	vote := Message{Type: raftpb.MsgVote, From: o.id, To: f.id, Term: f.core.state.term + 1, Index: f.core.last, LogTerm: f.core.state.term}
	f.core.Step(f.clock(), vote)
	if f.core.state.term != l.core.state.term {
		t.Fatal("a promised follower hears a candidate")
	}
	// It is heard once the promise has run out and the leader was not heard of again.
	f.core.Take()
	f.core.Tick(f.core.lease.promisedUntil)
	if f.core.state.term != vote.Term {
		t.Error("a deferred vote request was not heard after the promise")
	}
}

func TestBootReplicaKeepsQuietForALease(t *testing.T) {
	s := calm(t, 9, 3)
	l := s.leader()
	f, o := s.nodes[l.id%3], s.nodes[(l.id+1)%3]
	f.crash()
	f.start()
	began := f.clock()
	f.core.Step(began, Message{Type: raftpb.MsgVote, From: o.id, To: f.id, Term: f.core.state.term + 1, Index: 1 << 20, LogTerm: 1 << 20})
	if f.core.state.term != l.core.state.term {
		t.Error("a replica votes right after its start, although it may have promised not to")
	}
}

func TestPromiseIsNoLongerThanARestartKeeps(t *testing.T) {
	s := calm(t, 10, 3)
	c := s.leader().core
	ctx := c.heartbeatContext()
	binary.BigEndian.PutUint64(ctx[8:], uint64(c.cfg.Timing.Lease)+1)
	if _, ok := c.promised(ctx); ok {
		t.Error("promises more than its own lease")
	}
}

func TestMembershipChangesAndSurvivesRestarts(t *testing.T) {
	s := calm(t, 11, 3)
	s.mustPropose()
	l := s.leader()
	gone := s.nodes[l.id%3]
	cc := raftpb.ConfChangeV2{Changes: []raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeRemoveNode, NodeID: gone.id}}}
	if err := l.core.ProposeConfChange(l.clock(), cc); err != nil {
		t.Fatal(err)
	}
	l.flush()
	two := func(n *simNode) bool {
		cs, _ := n.core.Conf()
		return len(cs.Voters) == 2
	}
	other := s.nodes[(l.id+1)%3]
	if !s.until(time.Second, func() bool { return two(l) && two(other) }) {
		t.Fatal("the change was not applied")
	}
	gone.crash()
	s.mustPropose()
	for range 3 {
		for range 20 {
			s.mustPropose()
		}
		for _, n := range []*simNode{l, other} {
			n.checkpoint()
			n.crash()
			n.start()
			if !two(n) {
				cs, at := n.core.Conf()
				t.Fatalf("after a restart the members are %v as of %d", cs.Voters, at)
			}
			if !s.until(3*time.Second, func() bool { return s.leader() != nil }) {
				t.Fatal("nobody leads")
			}
		}
	}
	s.mustPropose()
}

func TestTimingMustFit(t *testing.T) {
	bad := []Timing{
		{Tick: 20 * time.Millisecond, ElectionTicks: 10, Lease: 200 * time.Millisecond},
		{Tick: 20 * time.Millisecond, ElectionTicks: 10, Lease: 60 * time.Millisecond, Drift: 10 * time.Millisecond},
		{Tick: 20 * time.Millisecond, ElectionTicks: 2, Lease: 30 * time.Millisecond},
	}
	for _, timing := range bad {
		if _, err := NewCore(0, CoreConfig{ID: 1, Peers: []uint64{1}, Timing: timing, Log: &memLog{}, Logger: quiet}); !errors.Is(err, errTiming) {
			t.Errorf("%+v: %v", timing, err)
		}
	}
	if err := (Timing{Tick: 50 * time.Millisecond}).withDefaults().validate(); err != nil {
		t.Error(err)
	}
}

func TestStrangeMessagesAreNotHeard(t *testing.T) {
	s := calm(t, 12, 3)
	c := s.nodes[0].core
	before := c.state
	for _, m := range []Message{
		{Type: raftpb.MsgApp, From: 1, To: 1, Term: 99},
		{Type: raftpb.MsgApp, From: 0, To: 1, Term: 99},
		{Type: raftpb.MsgApp, From: 2, To: 3, Term: 99},
		{Type: raftpb.MsgProp, From: 2, To: 1, Entries: []raftpb.Entry{{Data: []byte("x")}}},
		{Type: raftpb.MsgSnap, From: 2, To: 1, Term: 99},
		{Type: raftpb.MsgHup, From: 2, To: 1},
		{Type: raftpb.MsgTransferLeader, From: 2, To: 1},
		{Type: 99, From: 2, To: 1, Term: 99},
	} {
		c.Step(s.nodes[0].clock(), m)
		if c.state != before {
			t.Errorf("%v from %d changed the state to %+v", m.Type, m.From, c.state)
		}
	}
}
