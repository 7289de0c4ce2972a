package replica

import (
	"errors"
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"holdfast/internal/wal"
)

// A member whose state machine is invalid may be the only one that has the newest entries: the other member that had them lost its disk. It has to lead until
// somebody else has them too, or the group stays without a leader for ever. Found by package sim.
func TestInvalidStateMachineHoldsNewestEntries(t *testing.T) {
	for seed := range uint64(20) {
		s := newSim(t, seed, 3)
		if !s.until(5*time.Second, func() bool { return s.leader() != nil }) {
			t.Fatal("no leader")
		}
		lead := s.leader()
		behind, lost := s.nodes[lead.id%3], s.nodes[(lead.id+1)%3]
		load := func() {
			for range 10 {
				s.propose()
				s.run(20 * time.Millisecond)
			}
		}
		load()
		lead.checkpoint()
		if lead.log.FirstIndex() == 1 {
			t.Fatal("the log still begins at 1")
		}
		s.chaos = true
		s.isolate(behind)
		load()
		if lead.sm.Applied() <= behind.sm.Applied() {
			t.Fatal("the isolated node is not behind")
		}
		for _, n := range s.nodes {
			n.crash()
		}
		// As after a crash during an installation, and after a new disk.
		lead.sm = newToySM()
		lost.log, lost.meta, lost.sm = &memLog{}, &memMeta{}, newToySM()
		s.settle()
	}
}

// A leader whose copy is damaged cannot send the snapshots that the others wait for, without whom nothing of its own is committed. It has to hand over to the one that can, though it does
// not serve. Found by package sim, seed 2961329089561.
func TestReluctantLeaderThatCannotCommit(t *testing.T) {
	for seed := range uint64(20) {
		s := newSim(t, seed, 5)
		if !s.until(5*time.Second, func() bool { return s.leader() != nil }) {
			t.Fatal("no leader")
		}
		load := func(n int) {
			for range n {
				s.propose()
				s.run(20 * time.Millisecond)
			}
		}
		load(10)
		at := s.leader().id
		node := func(i uint64) *simNode { return s.nodes[(at-1+i)%5] }
		damaged, whole, lost, behind := node(0), node(1), node(2), []*simNode{node(3), node(4)}
		s.chaos = true
		for _, n := range behind {
			s.isolate(n)
		}
		load(60)
		for _, n := range []*simNode{damaged, whole} {
			n.checkpoint()
			if n.log.FirstIndex() <= behind[0].log.LastIndex()+1 {
				t.Fatalf("the log of %d still has what those behind it lack", n.id)
			}
		}
		for _, n := range s.nodes {
			n.crash()
		}
		lost.lost = true // its disk, and nobody has put in another yet
		s.members = slices.DeleteFunc(slices.Clone(s.members), func(id uint64) bool { return id == lost.id })
		damaged.unread = true
		s.chaos = false
		clear(s.cut)
		for _, n := range []*simNode{damaged, behind[0], behind[1]} {
			n.start()
		}
		damaged.core.SetReluctant(true)
		leads := func() bool { return damaged.core.Status(damaged.clock()).Role == RoleLeader }
		if !s.until(5*time.Second, leads) {
			t.Fatal("the only one that has the newest entries does not lead")
		}
		s.settle()
		if leads() {
			t.Error("the damaged one leads on")
		}
	}
}

// validitySM is a toySM that knows, as a volume does, when an installation has not finished: then it cannot apply anything.
type validitySM struct {
	*toySM
	invalid bool
}

func (s *validitySM) Apply(index uint64, entry []byte) ([]byte, error) {
	if s.invalid {
		return nil, errors.New("the state is incomplete")
	}
	return s.toySM.Apply(index, entry)
}

// A replica that dies while it installs its first snapshot has a log that begins at 1 and a state machine at 0, like one that has only begun. It must not apply its
// log to what is left.
func TestCrashDuringFirstInstallation(t *testing.T) {
	log, meta, sm := &memLog{}, &memMeta{}, &validitySM{toySM: newToySM(), invalid: true}
	conf := ConfState{Voters: []uint64{1, 2, 3}}
	if err := meta.Save(&Meta{Conf: conf, Installing: &SnapshotMeta{Index: 50, Term: 2, Conf: conf}}); err != nil {
		t.Fatal(err)
	}
	entries := []raftpb.Entry{{Index: 1, Term: 1, Data: []byte("12345678")}, {Index: 2, Term: 1, Data: []byte("12345678")}}
	if err := log.Append(wal.Batch{Entries: entries, HardState: raftpb.HardState{Term: 1, Commit: 2}}); err != nil {
		t.Fatal(err)
	}
	start, err := load(Config{ID: 1, Peers: conf.Voters, Timing: DefaultTiming(), Log: log, Meta: meta, StateMachine: sm, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	core, err := NewCore(0, start)
	if err != nil {
		t.Fatal(err)
	}
	core.Tick(int64(20 * time.Millisecond))
	if out := core.Take(); len(out.Applies) > 0 || !core.Status(0).NeedsSnapshot {
		t.Errorf("%d applies are to be done; needs a snapshot: %v", len(out.Applies), core.Status(0).NeedsSnapshot)
	}
}

// The same without a crash: the sender dies while the first snapshot is being installed, and the next leader has the log from 1.
func TestFailedFirstInstallation(t *testing.T) {
	log, meta, sm := &memLog{}, &memMeta{}, newToySM()
	conf := ConfState{Voters: []uint64{1, 2, 3}}
	if err := meta.Save(&Meta{Conf: conf}); err != nil {
		t.Fatal(err)
	}
	if err := log.Append(wal.Batch{HardState: raftpb.HardState{Term: 1}}); err != nil {
		t.Fatal(err)
	}
	start, err := load(Config{ID: 1, Peers: conf.Voters, Timing: DefaultTiming(), Log: log, Meta: meta, StateMachine: sm, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	core, err := NewCore(0, start)
	if err != nil {
		t.Fatal(err)
	}
	for _, begun := range []bool{false, true} {
		if err := core.BeginInstall(1, 2, 5, 50); err != nil {
			t.Fatal(err)
		}
		core.EndInstall(2, 2, nil, sm.Applied(), begun)
		if got := core.Status(2).NeedsSnapshot; got != begun {
			t.Errorf("the installation had begun: %v; needs a snapshot: %v", begun, got)
		}
	}
}

// Between the end of an installation and the reset of the log, Meta.Installing is all that a restart knows of it. Another installation must not begin and
// overwrite it. Found by package sim.
func TestInstallationWaitsForLogOfLastOne(t *testing.T) {
	log, meta, sm := &memLog{}, &memMeta{}, newToySM()
	conf := ConfState{Voters: []uint64{1, 2, 3}}
	if err := errors.Join(meta.Save(&Meta{Conf: conf}), log.Append(wal.Batch{HardState: raftpb.HardState{Term: 5}})); err != nil {
		t.Fatal(err)
	}
	start, err := load(Config{ID: 1, Peers: conf.Voters, Timing: DefaultTiming(), Log: log, Meta: meta, StateMachine: sm, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	core, err := NewCore(0, start)
	if err != nil {
		t.Fatal(err)
	}
	if err := core.BeginInstall(1, 2, 5, 50); err != nil {
		t.Fatal(err)
	}
	core.EndInstall(2, 2, &SnapshotMeta{Index: 50, Term: 5, Conf: conf}, 50, true)
	out := core.Take()
	if len(out.Appends) == 0 || out.Appends[0].Snapshot == nil {
		t.Fatalf("the log is not reset: %+v", out)
	}
	if err := core.BeginInstall(3, 2, 5, 60); !errors.Is(err, ErrSnapshotRefused) {
		t.Errorf("another installation begins: %v", err)
	}
	if err := log.Reset(50, 5); err != nil {
		t.Fatal(err)
	}
	for i := range out.Appends {
		core.AppendDone(4, &out.Appends[i])
	}
	if err := core.BeginInstall(5, 2, 5, 60); err != nil {
		t.Error(err)
	}
}

// ledSim is a group of n with a leader and some entries.
func ledSim(t *testing.T, n int) (*sim, *simNode) {
	t.Helper()
	s := newSim(t, 1, n)
	if !s.until(5*time.Second, func() bool { return s.leader() != nil }) {
		t.Fatal("no leader")
	}
	for range 10 {
		s.propose()
		s.run(20 * time.Millisecond)
	}
	return s, s.leader()
}

// TestEmptyAcknowledgement has a leader get what raft answers a leader that was deposed, in its present term: it says nothing of the follower's log. Taken for an acknowledgement, it would have the leader
// offer a snapshot, and if its copy is damaged it has none, and nobody gets on, for ever. Found by package sim.
func TestEmptyAcknowledgement(t *testing.T) {
	s, old := ledSim(t, 3)
	was := old.core.Term()
	silent := s.nodes[old.id%3]
	silent.crash()
	old.crash()
	s.after(int64(10*time.Millisecond), old.start)
	if !s.until(10*time.Second, func() bool { l := s.leader(); return l != nil && l.core.Term() > was }) {
		t.Fatal("no leader")
	}
	lead := s.leader()
	next := func() uint64 { return lead.core.rn.Status().Progress[silent.id].Next }
	term, before := lead.core.Term(), next()
	lead.core.Step(lead.clock(), Message{Type: raftpb.MsgAppResp, From: silent.id, To: lead.id, Term: term})
	if after := next(); before < 10 || after != before {
		t.Errorf("what the leader sends next is entry %d, and was %d", after, before)
	}
	lead.core.Step(lead.clock(), Message{Type: raftpb.MsgAppResp, From: silent.id, To: lead.id, Term: term + 1})
	if got := lead.core.Term(); got != term+1 {
		t.Errorf("a leader of an earlier term stays in term %d", got)
	}
}

// A leader that was led to believe that a follower's log is empty offers it a snapshot. The follower refuses, as it has all that, and must say so, or the leader goes
// on for ever and replicates nothing. Found by package sim.
func TestRefusedSnapshotTellsMatch(t *testing.T) {
	s, lead := ledSim(t, 2)
	follower := s.nodes[lead.id%2]
	st := follower.core.Status(follower.clock())
	if err := follower.core.BeginInstall(follower.clock(), lead.id, st.Term, st.Applied); !errors.Is(err, ErrSnapshotRefused) {
		t.Fatalf("a snapshot of what is applied is not refused: %v", err)
	}
	out := follower.core.Take()
	if len(out.Messages) != 1 || out.Messages[0].Type != raftpb.MsgAppResp || out.Messages[0].Reject || out.Messages[0].Index != st.Applied {
		t.Errorf("the leader is told %v", out.Messages)
	}
	if err := follower.core.BeginInstall(follower.clock(), lead.id, st.Term-1, st.Applied); err == nil || len(follower.core.Take().Messages) > 0 {
		t.Errorf("a leader of an earlier term is told something, or not refused: %v", err)
	}
}
