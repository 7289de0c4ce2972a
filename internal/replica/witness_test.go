package replica

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

const theWitness = WitnessBit | 3

// newWitnessSim is a group of two data members and a witness, which begin without probing.
func newWitnessSim(t *testing.T, seed uint64) *sim {
	s := newSim(t, seed, 0)
	for _, id := range []uint64{1, 2, theWitness} {
		s.add(id).fresh = true
		s.first = append(s.first, id)
	}
	return s.begin()
}

func calmWitness(t *testing.T, seed uint64) *sim {
	t.Helper()
	s := newWitnessSim(t, seed)
	if !s.until(5*time.Second, s.inSync) {
		t.Fatal("the group does not come in sync")
	}
	return s
}

// inSync reports whether there is a leader that says that both copies are complete, and everybody is up.
func (s *sim) inSync() bool {
	l := s.leader()
	if l == nil {
		return false
	}
	st := l.core.Status(l.clock())
	up := !slices.ContainsFunc(st.Peers, func(p PeerStatus) bool { return !p.Active })
	return st.InSync && up
}

func (s *sim) other(n *simNode) *simNode { return s.nodes[2-n.id] }

func TestSimulationOfWitness(t *testing.T) {
	for seed := *firstSeed; seed < *firstSeed+seeds(60); seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			s := newWitnessSim(t, seed)
			s.chaos = true
			s.after(0, s.load)
			s.after(simMS*500, s.misfortune)
			s.run(15 * time.Second)
			s.settle()
			if !s.until(10*time.Second, s.inSync) {
				t.Error("the copies do not come in sync")
			}
		})
	}
}

// loseOneAtATime lets members fail one at a time, each time after the group said that it is in sync, in the worst moments. It returns how the group failed to go on, or "".
func loseOneAtATime(s *sim, rounds int) string {
	if !s.until(5*time.Second, s.inSync) {
		return "the group does not come in sync"
	}
	var load func()
	load = func() {
		s.propose()
		s.after(s.rng.Int64N(30*simMS), load)
	}
	load()
	for round := range rounds {
		s.run(time.Duration(s.rng.Int64N(200 * simMS)))
		if !s.until(20*time.Second, s.inSync) {
			return fmt.Sprintf("round %d: the group does not come in sync", round)
		}
		n := s.nodes[s.rng.IntN(3)]
		if s.rng.IntN(2) == 0 {
			n = s.leader()
		}
		what := s.rng.IntN(6)
		heal := func() { n.start() }
		switch what {
		case 0, 1:
			n.crash()
		case 2:
			s.isolate(n)
			heal = func() { clear(s.cut) }
		case 3:
			n.paused = s.now + int64(2*time.Second) + s.rng.Int64N(500*simMS)
			heal = func() {}
		case 5: // a link
			o := s.nodes[(slices.Index(s.nodes, n)+1+s.rng.IntN(2))%3]
			s.cut[[2]uint64{n.id, o.id}], s.cut[[2]uint64{o.id, n.id}] = true, true
			heal = func() { clear(s.cut) }
		case 4: // a restart, which may lose what was not synced yet
			n.crash()
			n.start()
		}
		acked := s.acked
		if !s.until(3*time.Second, func() bool { return s.acked > acked && s.leader() != nil }) {
			return fmt.Sprintf("round %d: the group does not go on without node %d (%d)", round, n.id, what)
		}
		s.run(time.Duration(s.rng.Int64N(1000 * simMS)))
		heal()
	}
	load = func() {}
	s.settle()
	return ""
}

func TestWitnessGroupSurvivesAnyLoss(t *testing.T) {
	for seed := *firstSeed; seed < *firstSeed+seeds(20); seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			s := newWitnessSim(t, seed)
			if failure := loseOneAtATime(s, 30); failure != "" {
				for _, n := range s.nodes {
					if n.core != nil {
						t.Logf("%+v", n.core.Status(n.clock()))
					}
				}
				t.Fatalf("%v: %s", time.Duration(s.now), failure)
			}
		})
	}
}

func TestWitnessThatRunsAheadIsFound(t *testing.T) {
	if testing.Short() {
		t.Skip("looks for a history in which it shows")
	}
	for seed := range uint64(40) {
		s := newWitnessSim(t, seed)
		s.ahead = true
		if failure := loseOneAtATime(s, 30); failure != "" {
			t.Logf("seed %d: %s", seed, failure)
			return
		}
	}
	t.Error("a witness that runs ahead does no harm that the check would notice")
}

func TestWitnessHoldsNothing(t *testing.T) {
	s := calmWitness(t, 1)
	for range 50 {
		s.mustPropose()
	}
	w := s.byID[theWitness]
	if !s.until(time.Second, func() bool { return w.core.applied >= s.acked }) {
		t.Fatal("the witness does not follow")
	}
	entries, err := w.log.Entries(1, w.log.LastIndex()+1, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Type == raftpb.EntryNormal && len(e.Data) > 0 {
			t.Fatalf("entry %d holds %d bytes", e.Index, len(e.Data))
		}
	}
	// It starts again where its log begins, and gets a snapshot if the log of the others begins later.
	l := s.leader()
	w.checkpoint()
	w.crash()
	for range 100 {
		s.mustPropose()
	}
	l.checkpoint()
	if l.log.FirstIndex() <= w.log.LastIndex()+1 {
		t.Fatal("no snapshot is needed")
	}
	w.start()
	if !s.until(5*time.Second, func() bool { return w.core.applied >= s.acked }) {
		t.Fatal("the witness does not catch up")
	}
	for id := range uint64(2) {
		n := s.nodes[id]
		if to, err := n.core.successor(theWitness, 0); n.core.leads() && err == nil {
			t.Errorf("%d may take over", to)
		}
	}
}

// TestPeerGoesOutOfSync: a loss of a copy is told everywhere, costs no more than it takes to notice, and is over when it is whole again.
func TestPeerGoesOutOfSync(t *testing.T) {
	for _, detected := range []bool{false, true} {
		s := calmWitness(t, 2)
		l := s.leader()
		dead, w := s.other(l), s.byID[theWitness]
		began := s.now
		dead.core, dead.life = nil, dead.life+1
		if detected {
			l.core.PeerGone(l.clock(), dead.id)
			l.flush()
		}
		s.mustPropose()
		took := time.Duration(s.now - began)
		t.Logf("death detected %v: the next entry is committed after %v", detected, took)
		if detected && took > 20*time.Millisecond || took > 300*time.Millisecond {
			t.Errorf("the next entry is committed after %v", took)
		}
		if st := l.core.Status(l.clock()); st.InSync || !st.OneCopy || !slices.Equal(st.Out, []uint64{dead.id}) {
			t.Errorf("the leader says %+v", st)
		}
		if !s.until(time.Second, func() bool { return w.core.Status(w.clock()).OneCopy && l.outs == 1 && w.outs == 1 }) {
			t.Error("the witness is not told")
		}
		// That lasts, here and there.
		l.crash()
		w.crash()
		l.start()
		w.start()
		if !s.until(3*time.Second, func() bool { return s.leader() == l }) {
			t.Fatal("the one that has everything does not lead")
		}
		if !l.core.Status(l.clock()).OneCopy {
			t.Error("after a restart the leader believes in two copies")
		}
		s.mustPropose()
		dead.start()
		if !s.until(2*time.Second, s.inSync) {
			t.Fatal("the member that came back does not come in sync")
		}
		if !s.until(time.Second, func() bool { return len(w.core.conf.Out)+len(dead.core.conf.Out) == 0 }) {
			t.Error("the others are not told")
		}
	}
}

// After a transfer, and after the death of the leader, nobody waits for anything.
func TestWitnessCostsNoTimeout(t *testing.T) {
	s := calmWitness(t, 3)
	l := s.leader()
	began := s.now
	if _, err := l.core.TransferLeader(l.clock(), 0); err != nil {
		t.Fatal(err)
	}
	l.flush()
	next := s.other(l)
	if !s.until(time.Second, func() bool { return s.leader() == next }) {
		t.Fatal("no transfer")
	}
	if d := time.Duration(s.now - began); d > 40*time.Millisecond {
		t.Errorf("a transfer takes %v", d)
	}
	s.run(40 * time.Millisecond)
	if st := next.core.Status(next.clock()); !st.InSync || len(next.core.conf.Out) > 0 {
		t.Errorf("after a transfer the former leader is out of sync: %+v", st)
	}
	for _, detected := range []bool{true, false} {
		if !s.until(5*time.Second, s.inSync) {
			t.Fatal("the group does not come in sync")
		}
		l, next = next, l
		began := s.now
		l.core, l.life = nil, l.life+1
		if detected {
			next.core.PeerGone(next.clock(), l.id)
			next.flush()
		}
		if !s.until(time.Second, func() bool { return s.leader() == next }) {
			t.Fatal("nobody leads")
		}
		if d := time.Duration(s.now - began); detected && d > 220*time.Millisecond || d > 400*time.Millisecond {
			t.Errorf("the failover takes %v (detected %v)", d, detected)
		}
		l.start()
	}
}

// A member that is up and does not get on is left behind after SyncTimeout, and not taken back at once.
func TestSlowPeerIsLeftBehind(t *testing.T) {
	s := calmWitness(t, 4)
	l := s.leader()
	slow := s.other(l)
	s.until(time.Second, func() bool { return !slow.writing && len(slow.appends) == 0 })
	slow.writing = true // its disk hangs
	before, began := s.acked, s.now
	s.propose()
	if !s.until(2*time.Second, func() bool { return s.acked > before }) {
		t.Fatal("the group waits for ever")
	}
	if d := time.Duration(s.now - began); d < DefaultSyncTimeout || d > DefaultSyncTimeout+100*time.Millisecond {
		t.Errorf("it waits for %v", d)
	}
	slow.writing = false
	slow.flush()
	s.run(time.Second)
	if l.core.Status(l.clock()).InSync {
		t.Error("it is taken back at once")
	}
	if !s.until(10*time.Second, s.inSync) {
		t.Error("it is never taken back")
	}
}

// TestWitnessMembership goes from one member to two and a witness, replaces each of them, and comes back.
func TestWitnessMembership(t *testing.T) {
	for seed := range uint64(10) {
		s := calm(t, 50+seed, 1)
		for range 20 {
			s.mustPropose()
		}
		s.nodes[0].checkpoint()
		s.chaos = true
		s.after(0, s.load)
		steps := [][]uint64{{1, 2, theWitness}, {1, 4, theWitness}, {4, 5, theWitness}, {4, 5, WitnessBit | 6}, {4, 5, 7}, {5, 7, WitnessBit | 8}, {7}}
		for _, want := range steps {
			for _, id := range want {
				if s.byID[id] == nil {
					n := s.add(id)
					n.fresh = true
					n.start()
				}
			}
			s.changeTo(want...)
			if l := s.leader(); len(want) == 3 && slices.ContainsFunc(want, IsWitness) && (l == nil || !l.core.Status(l.clock()).InSync) {
				t.Errorf("seed %d: with %v the change ends before everybody is in sync", seed, want)
			}
			s.run(100 * time.Millisecond)
		}
		s.settle()
	}
}

// TestReplicasWithWitness runs two data members and a witness over real connections and logs: the witness needs no state machine, and either data member may be lost.
func TestReplicasWithWitness(t *testing.T) {
	checkGoroutines(t)
	c := newClusterOf(t, []uint64{1, 2, theWitness}, func(cfg *Config) {
		if IsWitness(cfg.ID) {
			cfg.StateMachine = nil
			cfg.CheckpointBytes, cfg.RetainBytes = 1<<10, 1<<10
		}
	})
	l := c.leader()
	for range 200 {
		l = c.mustDo(l, 1000)
	}
	for range 3 {
		for l = c.leader(); !l.replica.Status().InSync; l = c.leader() {
			time.Sleep(time.Millisecond)
		}
		dead := c.stop(l.id)
		next := c.leader()
		if next.id == theWitness {
			t.Fatal("the witness leads")
		}
		next = c.mustDo(next, 1000)
		if st := next.replica.Status(); !st.OneCopy {
			t.Errorf("%+v", st)
		}
		c.start(dead.id, nil, dead.sm)
		c.mustDo(c.leader(), 1000)
	}
	for !c.leader().replica.Status().InSync {
		time.Sleep(time.Millisecond)
	}
	if n := c.nodes[theWitness]; n.log.FirstIndex() == 1 {
		t.Error("the witness keeps all of the log")
	}
	c.agree()
}

// TestWitnessIsNeverAheadOfAllDisks: the only copy crashes and loses what its disk did not have yet. A witness that had it would not vote for it, and the other copy may never come back.
func TestWitnessIsNeverAheadOfAllDisks(t *testing.T) {
	s := calmWitness(t, 5)
	l := s.leader()
	s.other(l).crash()
	s.mustPropose()
	s.until(time.Second, func() bool { return !l.writing && len(l.appends) == 0 })
	l.writing = true // its disk hangs
	s.propose()
	s.run(100 * time.Millisecond)
	l.appends = nil
	l.crash()
	l.start()
	if !s.until(5*time.Second, func() bool { return s.leader() == l }) {
		t.Fatal("nobody can be elected")
	}
	s.mustPropose()
}

// A member that has just come back is told at once that it is in sync, by a change of membership; it cannot campaign before it has applied that. A transfer in this
// moment waits for it instead of giving the lease up in vain.
// TestInSyncHasAllThatTheWitnessHas: a leader that hears a copy which does not hear it takes it in and gives it up again and again. Whenever it calls it in sync, the copy has to have all that the
// witness has. Found by package sim, seed 200966830446496.
func TestInSyncHasAllThatTheWitnessHas(t *testing.T) {
	for seed := range seeds(40) {
		s := calmWitness(t, seed)
		lead := s.leader()
		peer, witness := s.other(lead), s.byID[theWitness]
		s.cut[[2]uint64{lead.id, peer.id}] = true
		outs := 0
		for end := s.now + int64(4*time.Second); s.now < end; {
			s.propose()
			s.run(time.Duration(s.rng.Int64N(10 * simMS)))
			if s.leader() != lead {
				continue
			}
			if !lead.core.Status(lead.clock()).InSync {
				outs++
			} else if has, needs := peer.log.LastIndex(), witness.log.LastIndex(); has < needs {
				t.Fatalf("seed %d: the peer has %d entries and is called in sync, the witness has %d", seed, has, needs)
			}
		}
		if outs == 0 {
			t.Errorf("seed %d: the peer never was out of sync", seed)
		}
		s.settle()
	}
}

func TestTransferToOneThatCameBack(t *testing.T) {
	for seed := range uint64(20) {
		s := calmWitness(t, seed)
		l := s.leader()
		back := s.other(l)
		back.crash()
		if !s.until(2*time.Second, func() bool { return l.core.Status(l.clock()).OneCopy }) {
			t.Fatal("the loss is not noticed")
		}
		s.mustPropose()
		back.slow = 30 * simMS
		back.start()
		if !s.until(2*time.Second, func() bool { return l.core.Status(l.clock()).InSync }) {
			t.Fatal("the member that came back does not come in sync")
		}
		began := s.now
		if _, err := l.core.TransferLeader(l.clock(), back.id); err != nil {
			t.Fatal(err)
		}
		l.flush()
		if !s.until(2*time.Second, func() bool { return s.leader() == back }) {
			t.Fatalf("seed %d: no transfer: %v", seed, l.core.transfer.err)
		}
		if d := time.Duration(s.now - began); d > 400*time.Millisecond {
			t.Errorf("seed %d: the transfer takes %v", seed, d)
		}
	}
}
