package node

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/replica"
)

// TestInquiry is about what counts as heard since a question, and what is left of a status in which something is only remembered.
func TestInquiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := inquiry{began: time.Now(), tick: 20 * time.Millisecond}
		status := func(seen ...time.Duration) replica.Status {
			st := replica.Status{Role: replica.RoleLeader}
			for i, s := range seen {
				st.Peers = append(st.Peers, replica.PeerStatus{ID: uint64(i + 2), SeenNS: int64(s), Active: s >= 0 && s < 200*time.Millisecond, InSync: s >= 0})
			}
			return st
		}
		const ms = time.Millisecond
		for _, tt := range []struct {
			name     string
			since    time.Duration // the question
			seen     []time.Duration
			answered bool
			active   []bool
		}{
			{"at once", 0, []time.Duration{ms, 2 * ms}, false, []bool{false, false}},
			{"within the first tick", 19 * ms, []time.Duration{0, 0}, false, []bool{false, false}},
			{"one has answered", 40 * ms, []time.Duration{5 * ms, 45 * ms}, false, []bool{true, false}},
			{"one has answered within the first tick", 40 * ms, []time.Duration{5 * ms, 30 * ms}, false, []bool{true, false}},
			{"both have", 40 * ms, []time.Duration{5 * ms, 20 * ms}, true, []bool{true, true}},
			{"one is known to be gone", 40 * ms, []time.Duration{5 * ms, 250 * ms}, true, []bool{true, false}},
			{"one was never heard of", 40 * ms, []time.Duration{5 * ms, -1}, true, []bool{true, false}},
		} {
			st := status(tt.seen...)
			if got := q.answered(&st, tt.since); got != tt.answered {
				t.Errorf("%s: answered %t", tt.name, got)
			}
			known := q.without(st, tt.since)
			for i, p := range known.Peers {
				if p.Active != tt.active[i] || p.InSync != tt.active[i] {
					t.Errorf("%s: member %d is active %t, in sync %t", tt.name, p.ID, p.Active, p.InSync)
				}
			}
		}
		follower := status(300 * ms)
		follower.Role = replica.RoleFollower
		if !q.answered(&follower, 0) {
			t.Error("a follower waits for others")
		}
	})
}

// TestStatusAfterLoss stops the witness and the other data node, one after the other, so that nothing tells of their loss but their silence, and asks for the status in the next moment:
// it must not count what is not there.
func TestStatusAfterLoss(t *testing.T) {
	c := newCluster(t, clusterOptions{processes: true, roles: twoAndWitness}).startAll()
	leader := c.leader()
	for _, lost := range []*testNode{c.nodes[2], c.other(leader)} {
		await(t, testTimeout, func() bool {
			_, v, err := c.look(leader)
			return err == nil && v.Safety == api.SafetyFull
		}, func() string { return "the volume does not become safe" })
		c.signal(lost, syscall.SIGSTOP)
		await(t, testTimeout, func() bool { return stopped(t, lost.cmd.Process.Pid) }, func() string { return "the process goes on" })
		s, v, err := c.look(leader)
		if err != nil {
			t.Fatal(err)
		}
		if v.Safety == api.SafetyFull {
			t.Errorf("without node %s the volume is %s: %+v", lost.name, v.Safety, v.Replicas)
		}
		for _, r := range v.Replicas {
			if r.Node == lost.name && (r.Active || r.InSync) {
				t.Errorf("node %s is lost, and shown as %+v", lost.name, r)
			}
		}
		for _, voter := range s.Group.Voters {
			if voter.Node == lost.name && voter.State == api.NodeAnswers {
				t.Errorf("node %s is lost, and shown as a voter that answers", lost.name)
			}
		}
		c.signal(lost, syscall.SIGCONT)
		c.inSync(3)
		leader = c.leader()
	}
}

// stopped reports whether a process stands still.
func stopped(t *testing.T, pid int) bool {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	rest := b[bytes.LastIndexByte(b, ')')+1:]
	return bytes.HasPrefix(bytes.TrimSpace(rest), []byte("T"))
}
