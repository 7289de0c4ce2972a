package replica

import (
	"context"
	"errors"
	"slices"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"holdfast/internal/wal"
)

// A blank replica that dies between saving its Meta and its hard state has not entered the term that keeps it from voting twice: it must ask all others again.
func TestReplicaThatDiedWhileEnteringIsBlank(t *testing.T) {
	meta := &memMeta{}
	cfg := Config{ID: 1, Peers: []uint64{1, 2, 3}, Log: &memLog{}, Meta: meta, StateMachine: newToySM(), Transport: noTransport{}, Clock: bootClock{}, Fatal: func(error) {}, Logger: quiet}
	if err := meta.Save(&Meta{Recover: 8, Conf: ConfState{Voters: cfg.Peers}}); err != nil {
		t.Fatal(err)
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if st := r.core.Status(0); st.Role != RoleBlank {
		t.Errorf("it starts as a %v in term %d", st.Role, st.Term)
	}
	cfg.Log.(*memLog).hs.Term, cfg.Log.(*memLog).hs.Vote = 8, 1
	if r, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	if st := r.core.Status(0); st.Role != RoleFollower || st.Term != 8 || !st.Recovering {
		t.Errorf("with its hard state it starts as a %v in term %d, recovering %v", st.Role, st.Term, st.Recovering)
	}
}

// A change of membership that is found in the log at a start must still be known when a checkpoint has let the log go. Found by package sim.
func TestMembershipOutlivesItsEntry(t *testing.T) {
	log, meta, sm := &memLog{}, &memMeta{}, newToySM()
	cfg := Config{
		ID: 2, Peers: []uint64{1}, Log: log, Meta: meta, StateMachine: sm, Transport: noTransport{}, Clock: bootClock{}, Fatal: func(error) {}, Logger: quiet,
		RetainBytes: 1, RetainMaxBytes: 1,
	}
	cc := raftpb.ConfChangeV2{Changes: []raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeAddNode, NodeID: 2}}}
	data, err := cc.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	entries := []raftpb.Entry{{Index: 1, Term: 1}, {Index: 2, Term: 1, Type: raftpb.EntryConfChangeV2, Data: data}, {Index: 3, Term: 1, Data: make([]byte, 100)}}
	err = errors.Join(meta.Save(&Meta{Conf: ConfState{Voters: cfg.Peers}}), log.Append(wal.Batch{Entries: entries, HardState: raftpb.HardState{Term: 1, Commit: 3}}))
	if err != nil {
		t.Fatal(err)
	}
	sm.advance(1, nil)
	sm.advance(2, nil)
	sm.advance(3, entries[2].Data)
	sm.durable = sm.state.clone()
	m, err := NewManual(0, cfg, 1)
	if err != nil {
		t.Fatal(err)
	}
	more := []AppendWork{{Entries: []raftpb.Entry{{Index: 4, Term: 1, Data: make([]byte, 100)}, {Index: 5, Term: 1, Data: make([]byte, 100)}}, Sync: true}}
	if err := errors.Join(m.Append(more), m.Checkpoint(context.Background(), 1)); err != nil {
		t.Fatal(err)
	}
	if log.FirstIndex() < 3 {
		t.Fatalf("the log still begins at %d", log.FirstIndex())
	}
	if m, err = NewManual(0, cfg, 1); err != nil {
		t.Fatal(err)
	}
	if conf, _ := m.Core.Conf(); !slices.Equal(conf.Voters, []uint64{1, 2}) {
		t.Errorf("the voters are %v", conf.Voters)
	}
}

// TestRemovedWhileAppending has a leader's own append end after the change that removed it was applied.
func TestRemovedWhileAppending(t *testing.T) {
	s := calm(t, 1, 3)
	l := s.leader()
	var others []uint64
	for _, n := range s.nodes {
		if n != l {
			others = append(others, n.id)
		}
	}
	l.core.rn.ApplyConfChange(raftpb.ConfChange{Type: raftpb.ConfChangeRemoveNode, NodeID: l.id}.AsV2())
	if c := l.core.rn.Status().Config.Voters; len(c.IDs()) != len(others) {
		t.Fatalf("the members are %v", c)
	}
	m := raftpb.Message{Type: raftpb.MsgAppResp, From: l.id, To: l.id, Term: l.core.state.term, Index: l.core.applied}
	l.core.AppendDone(l.clock(), &AppendWork{responses: []raftpb.Message{m}})
}
