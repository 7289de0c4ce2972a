package replica

import "testing"

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
