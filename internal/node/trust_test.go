package node

import (
	"strings"
	"testing"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/identity"
)

// TestTrustWarnings is about what a node says when certificates stand between it and others.
func TestTrustWarnings(t *testing.T) {
	const day = 24 * time.Hour
	const here, silent, refuses, expired = api.NodeAnswers, api.NodeSilent, api.NodeRefuses, api.NodeExpired
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.Local)
	type states []api.NodeState
	for _, tt := range []struct {
		name    string
		others  states
		role    cluster.Role // of all of them
		own     time.Duration
		newest  time.Duration // event, from now
		want    []string      // a part of each, in their order
		not     string
		removed bool
	}{
		{"all is well", states{here, here}, cluster.RoleData, day, -day, nil, "", false},
		{"silence", states{silent, silent}, cluster.RoleData, day, -day, nil, "", false},
		{"one refuses", states{refuses, here}, cluster.RoleData, day, -day, []string{"node b refuses this node's certificate: compare the clocks of both (`date`)"}, "removed", false},
		{"the only one refuses", states{refuses}, cluster.RoleData, day, -day, []string{"node b refuses this node's certificate, and no other answers: compare the clocks"}, "delete", false},
		{"one refuses, one is silent", states{refuses, silent}, cluster.RoleData, day, -day, []string{"If they agree, this node was removed"}, "delete", false},
		{"all refuse", states{refuses, refuses}, cluster.RoleData, day, -day, []string{"node b refuses", "node c refuses"}, "", true},
		{"all refuse what has ended", states{refuses, refuses}, cluster.RoleData, -day, -day,
			[]string{"the certificate of this node ended on 2026-06-30 12:00:00 by its clock, which says 2026-07-01 12:00:00, and is refused by b, c: compare the clocks (`date`). If they agree, the log says"}, "replace", false},
		{"a witness's has ended", states{refuses, refuses}, cluster.RoleWitness, -day, -day, []string{"`holdfast node replace a`"}, "", false},
		{"all refuse a node with a dead clock", states{refuses, refuses}, cluster.RoleData, 20 * 365 * day, 9 * 365 * day,
			[]string{"this node's clock is wrong, and no other node accepts it: it says 2026-07-01 12:00:00, and"}, "removed", false},
		{"a dead clock, and one answers", states{refuses, here}, cluster.RoleData, day, 9 * 365 * day, []string{"node b refuses"}, "is wrong", false},
		{"leaders' clocks differ a little", states{refuses, refuses}, cluster.RoleData, day, time.Minute, []string{"node b refuses", "node c refuses"}, "", true},
		{"all others' have ended", states{expired, expired}, cluster.RoleData, -day, -day,
			[]string{"by this node's clock, which says 2026-07-01 12:00:00, the certificates of nodes b, c have ended, so that it connects to none of them: it is likely that this clock is wrong"}, "replace", false},
		{"the only other's has ended", states{expired}, cluster.RoleData, day, -day, []string{"the certificate of node b ended on 2026-06-29 12:00:00 by this node's clock, which says 2026-07-01 12:00:00, so that this node does not"}, "replace", false},
		{"one of two has ended", states{expired, here}, cluster.RoleData, day, -day, []string{"the certificate of node b ended"}, "node c", false},
		{"that of a witness has ended", states{expired, here}, cluster.RoleWitness, day, -day, []string{"If they agree, node b was away for too long: get it a new one (`holdfast node replace b`)"}, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &api.Status{Node: "a", ID: 1, Time: now, Nodes: []api.NodeStatus{{Name: "a", ID: 1, Role: string(tt.role), State: api.NodeSelf, Expires: now.Add(tt.own)}}}
			for i, state := range tt.others {
				n := api.NodeStatus{Name: string(rune('b' + i)), ID: uint64(i + 2), Role: string(tt.role), State: state, Expires: now.Add(60 * day)}
				if state == expired {
					n.Expires = now.Add(-2 * day)
				}
				s.Nodes = append(s.Nodes, n)
			}
			state := &cluster.State{Events: []cluster.Event{{Time: now.Add(-100 * day)}, {Time: now.Add(tt.newest)}}}
			got := trustWarnings(s, state)
			if len(got) != len(tt.want) {
				t.Fatalf("%d warnings: %q", len(got), got)
			}
			for i, w := range got {
				if !strings.Contains(w, tt.want[i]) || (tt.not != "" && strings.Contains(w, tt.not)) {
					t.Errorf("%q, want %q and not %q", w, tt.want[i], tt.not)
				}
			}
			if got := looksRemoved(s, state); got != tt.removed {
				t.Errorf("removed: %v", got)
			}
		})
	}
}

// TestCertificatesApart wants a volume's newest copy not to be taken for lost, and the reason first, when it is certificates that keep nodes apart.
func TestCertificatesApart(t *testing.T) {
	s := &api.Status{Node: "e", ID: 2, Time: time.Now(), Volumes: []api.VolumeStatus{{Name: "main", Members: []string{"d", "e", "w"}}}, Nodes: []api.NodeStatus{
		{Name: "d", ID: 1, Role: string(cluster.RoleData), State: api.NodeRefuses}, {Name: "e", ID: 2, Role: string(cluster.RoleData), State: api.NodeSelf},
		{Name: "w", ID: 3, Role: string(cluster.RoleWitness), State: api.NodeAnswers},
	}}
	got := warnings(s, &cluster.State{}, false)
	if want := "node d, which cannot be reached because of a certificate, may alone have the newest data"; len(got) == 0 || !strings.Contains(got[0], want) || strings.Contains(got[0], "start it") {
		t.Errorf("%q, want %q first", got, want)
	}
	s.Nodes[2].State = api.NodeSilent
	if got := warnings(s, &cluster.State{}, false); len(got) == 0 || !strings.HasPrefix(got[0], "node d refuses this node's certificate, and no other answers") {
		t.Errorf("%q", got)
	}
}

// TestClockMonthsAhead starts one of three nodes with a clock for which all certificates have ended.
func TestClockMonthsAhead(t *testing.T) {
	c, set := skewed(t)
	odd := c.nodes[2]
	c.awaitStatus(odd, func(s *api.Status) bool { return len(s.Nodes) == 3 })
	c.mustStop(odd)
	set(odd, 100*24*time.Hour)
	c.start(odd)
	s := c.awaitStatus(odd, func(s *api.Status) bool {
		return len(s.Nodes) == 3 && s.Nodes[0].State == api.NodeExpired && s.Nodes[1].State == api.NodeExpired
	})
	if len(s.Warnings) == 0 || !strings.Contains(s.Warnings[0], "it is likely that this clock is wrong") || s.Removed != "" {
		t.Errorf("node c says %q, %q", s.Warnings, s.Removed)
	}
	s = c.awaitStatus(c.nodes[0], func(s *api.Status) bool {
		return s.Nodes[2].State == api.NodeRefuses && s.Nodes[1].State == api.NodeAnswers
	})
	if text := strings.Join(s.Warnings, "\n"); !strings.Contains(text, "node c refuses this node's certificate: compare the clocks") || strings.Contains(text, "node c does not answer at") || s.Removed != "" {
		t.Errorf("node a says %q, %q", s.Warnings, s.Removed)
	}
	// The clock is set.
	set(odd, 0)
	for _, n := range c.nodes {
		c.awaitStatus(n, func(s *api.Status) bool { return len(namesIn(s, api.NodeAnswers)) == 2 })
	}
}

// TestCheckRenewed wants a node to keep its certificate rather than take one that ends before, or that it cannot use.
func TestCheckRenewed(t *testing.T) {
	made := time.Now().AddDate(-1, 0, 0)
	authority := func() *identity.CA {
		ca, err := identity.NewCA("test", identity.NewClusterID(), made)
		if err != nil {
			t.Fatal(err)
		}
		return ca
	}
	ca, foreign := authority(), authority()
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := identity.NewRequest(key, "w")
	if err != nil {
		t.Fatal(err)
	}
	sign := func(by *identity.CA, at time.Time) api.CertificateResult {
		cert, err := by.SignNode(request, identity.NodeInfo{Number: 3, Name: "w"}, at)
		if err != nil {
			t.Fatal(err)
		}
		return api.CertificateResult{Certificate: string(cert), CA: string(ca.CertificatePEM())}
	}
	had := sign(ca, time.Now().AddDate(0, -2, 0))
	creds, err := identity.NewCredentials([]byte(had.Certificate), key, []byte(had.CA))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		next api.CertificateResult
		want string
	}{
		"as usual":                {sign(ca, time.Now()), ""},
		"signed with clock ahead": {sign(ca, time.Now().AddDate(5, 0, 0)), ""},
		"the same":                {had, ""},
		"signed with dead clock":  {sign(ca, time.Unix(0, 0)), "the clock of the data node that signed it is behind"},
		"of another authority":    {sign(foreign, time.Now()), "cannot be used"},
		"nothing":                 {api.CertificateResult{CA: had.CA}, "cannot be used"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := checkRenewed(creds, tt.next); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
