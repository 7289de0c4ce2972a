package node

import (
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/doctor"
)

func TestReadClock(t *testing.T) {
	const ms = time.Millisecond
	sent := time.Now()
	for _, tt := range []struct {
		name         string
		took, ahead  time.Duration // of the answer, and what the other's clock said, compared with sent
		offset, half time.Duration
	}{
		{"at once", 0, 0, 0, 0},
		{"in the middle", 10 * ms, 5 * ms, 0, 5 * ms},
		{"at the beginning", 4000 * ms, 0, -2000 * ms, 2000 * ms},
		{"at the end", 4000 * ms, 4000 * ms, 2000 * ms, 2000 * ms},
		{"behind", 2 * ms, -time.Hour, -time.Hour - ms, ms},
		{"ahead", 2 * ms, time.Hour, time.Hour - ms, ms},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, want := readClock(sent, sent.Add(tt.took), sent.Add(tt.ahead).Round(0)), (reading{tt.offset, tt.half}); got != want {
				t.Errorf("%v, want %v", got, want)
			}
		})
	}
	for _, year := range []int{1, 9999} { // beyond what a Duration holds
		r := readClock(sent, sent, time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC))
		if far := (wallClock{reading: r}); r.offset.Abs() != maxOffset || !far.differs(wallClock{reading: reading{offset: -r.offset}}, doctor.ClockProblem) {
			t.Errorf("year %d: %v", year, r)
		}
	}
}

// clockStatus is the status that node a gives; the clocks of b and so on are ahead of its own by so much.
func clockStatus(uncertainty time.Duration, offsets ...time.Duration) *api.Status {
	s := &api.Status{Node: "a", ID: 1, ClusterLeader: "a", Time: time.Now(), Nodes: []api.NodeStatus{{Name: "a", ID: 1, State: api.NodeSelf}}}
	for i := range offsets {
		n := api.NodeStatus{Name: string(rune('b' + i)), ID: uint64(i + 2), State: api.NodeAnswers, ClockOffset: &offsets[i], ClockUncertainty: uncertainty}
		s.Nodes = append(s.Nodes, n)
	}
	return s
}

func TestClockWarning(t *testing.T) {
	const ms, sec = time.Millisecond, time.Second
	type offsets []time.Duration
	const most, differ = "compared with most nodes', the clock of node ", "the clocks of the nodes differ, and it cannot be told which is right: compared with that of node a, the clock of node "
	for _, tt := range []struct {
		name        string
		uncertainty time.Duration
		offsets     offsets
		want        string // the sentence, before what to do
		urgent      bool
	}{
		{"alone", 0, nil, "", false},
		{"as they should be", ms, offsets{3 * ms, -5 * ms}, "", false},
		{"nearly a second", 0, offsets{999 * ms, 999 * ms, 0}, "", false},
		{"within what is uncertain", 400 * ms, offsets{1300 * ms}, "", false},
		{"within what is uncertain of two", 400 * ms, offsets{1700 * ms, 0, 0}, "", false},
		{"a slow machine", 30 * sec, offsets{30 * sec, -30 * sec}, "", false},
		{"two", ms, offsets{5 * sec}, differ + "b is 5.0 s ahead", false},
		{"two, by much", ms, offsets{-2 * time.Hour}, differ + "b is 2 h 0 min behind", true},
		{"one of three", ms, offsets{0, 90 * sec}, most + "c is 1 min 30 s ahead", true},
		{"one of three, beyond what is uncertain", 300 * ms, offsets{0, 1700 * ms}, most + "c is 1.7 s ahead", false},
		{"the one that answers", ms, offsets{5 * sec, 5 * sec}, most + "a is 5.0 s behind", false},
		{"the one that answers of four", ms, offsets{5 * sec, 5 * sec, 5 * sec}, most + "a is 5.0 s behind", false},
		{"two of five", ms, offsets{0, -12 * sec, 100 * 24 * time.Hour, 0}, most + "c is 12 s behind, that of node d 100 days ahead", true},
		{"two and two", ms, offsets{0, 5 * sec, 5 * sec}, differ + "c is 5.0 s ahead, that of node d 5.0 s ahead", false},
		{"each another", ms, offsets{5 * sec, -5 * sec}, differ + "b is 5.0 s ahead, that of node c 5.0 s behind", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, urgent := clockWarning(clockStatus(tt.uncertainty, tt.offsets...))
			sentence, do, _ := strings.Cut(got, ". Keep ")
			if sentence != tt.want || urgent != tt.urgent || (tt.want != "" && !strings.Contains(do, "same time servers")) {
				t.Errorf("%v %q, want %v %q", urgent, got, tt.urgent, tt.want)
			}
		})
	}
	s := clockStatus(ms, 5*sec, 5*sec)
	s.Nodes[1].ClockOffset = nil // of an earlier release, which makes two
	if got, _ := clockWarning(s); !strings.HasPrefix(got, differ+"c") {
		t.Errorf("%q", got)
	}
}

// TestClockAndCertificates wants a node whose clock is known to be wrong to say that, and nothing of certificates that it takes for old.
func TestClockAndCertificates(t *testing.T) {
	const ahead = 80 * 24 * time.Hour
	for _, wrong := range []bool{false, true} {
		s := clockStatus(0, -ahead, -ahead)
		if !wrong {
			s = clockStatus(0, 0, 0)
		}
		for i := range s.Nodes {
			s.Nodes[i].Expires = s.Time.Add(7 * 24 * time.Hour)
		}
		got := strings.Join(warnings(s, &cluster.State{}, false), "\n")
		if strings.Contains(got, "node a is 80 days ahead") != wrong || strings.Contains(got, "was not renewed") == wrong {
			t.Errorf("%v: %s", wrong, got)
		}
	}
}

// skewed is a cluster of three nodes, and a function that sets the clock of one of them ahead of the others'.
func skewed(t *testing.T) (c *testCluster, set func(n *testNode, ahead time.Duration)) {
	var name atomic.Pointer[string]
	var ahead atomic.Int64
	tuned := testTuning
	tuned.now = func(data string) time.Time {
		if one := name.Load(); one != nil && *one == filepath.Base(data) {
			return time.Now().Add(time.Duration(ahead.Load()))
		}
		return time.Now()
	}
	return newCluster(t, clusterOptions{tuning: tuned}), func(n *testNode, d time.Duration) {
		ahead.Store(int64(d))
		name.Store(&n.name)
	}
}

// awaitStatus asks a node until its status is as wanted.
func (c *testCluster) awaitStatus(n *testNode, ok func(s *api.Status) bool) api.Status {
	c.t.Helper()
	var s api.Status
	var err error
	await(c.t, testTimeout, func() bool {
		s, err = n.api().Status(c.context(), false)
		return err == nil && ok(&s)
	}, func() string { return strings.Join(s.Warnings, "\n") })
	return s
}

// TestClocksDiffer gives one of three nodes another clock.
func TestClocksDiffer(t *testing.T) {
	c, set := skewed(t)
	a, odd := c.nodes[0], c.nodes[2]
	allAnswer := func(s *api.Status) bool {
		return len(s.Nodes) == 3 && !slices.ContainsFunc(s.Nodes, func(n api.NodeStatus) bool { return n.ID != s.ID && n.ClockOffset == nil })
	}
	for _, n := range c.nodes {
		if s := c.awaitStatus(n, allAnswer); strings.Contains(strings.Join(s.Warnings, "\n"), "clock") || s.Time.IsZero() {
			t.Errorf("node %s: %v %q", n.name, s.Time, s.Warnings)
		}
	}
	const ahead = 30 * time.Second
	set(odd, ahead)
	for _, n := range c.nodes {
		s := c.awaitStatus(n, allAnswer)
		if text := strings.Join(s.Warnings, "\n"); !strings.Contains(text, "compared with most nodes', the clock of node c is ") || !strings.Contains(text, " s ahead. ") {
			t.Errorf("node %s: %q", n.name, s.Warnings)
		}
		if other := s.Nodes[2]; n == a && (*other.ClockOffset-ahead).Abs() > other.ClockUncertainty {
			t.Errorf("c is %v ahead, +-%v", *other.ClockOffset, other.ClockUncertainty)
		}
	}
	results, err := a.api().Doctor(c.context())
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(results, func(r doctor.Result) bool { return r.ID == "clock" })
	if at < 0 || results[at].Status != doctor.Warning || !strings.Contains(results[at].Found, "The clock of c is ") || strings.Contains(results[at].Found, "The clock of b is ") {
		t.Errorf("doctor: %+v", results[at])
	}
}
