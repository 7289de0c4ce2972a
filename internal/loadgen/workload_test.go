package loadgen

import (
	"context"
	"testing"
	"time"
)

// runWorkload runs a workload until it has done enough of everything for a fault to show, and verifies it.
func runWorkload(t *testing.T, s *fakeServer) Report {
	t.Helper()
	w, err := StartWorkload(t.Context(), WorkloadConfig{
		Mount: s.mount, FileBytes: 64 << 10, Files: 3, Names: 20, ProbeInterval: time.Microsecond, LockInterval: time.Microsecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close(context.Background())
	enough := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.calls["WRITE probe"] > 110 && s.calls["LOCKT held"] > 3*heldLocks && s.calls["WRITE counter"] > 40 && s.calls["WRITE writer-0-4"] > 0 &&
			s.calls["WRITE writer-1-4"] > 1 && s.calls["RENAME name-00000030"] > 0
	}
	until(t, w, enough)
	r, err := w.Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// until waits until the workload has done enough, which the fake has no event for.
func until(t *testing.T, w *Workload, enough func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !enough(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the workload stands still: %+v", w.Live())
		}
	}
}

func (l *ackLog) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.times)
}

func TestWorkloadHealthy(t *testing.T) {
	r := runWorkload(t, newFakeServer())
	if !r.OK() || len(r.Problems) != 0 {
		t.Errorf("a healthy server: %+v", r)
	}
	if r.Ops == 0 || r.AckedBytes == 0 {
		t.Errorf("nothing was done: %+v", r)
	}
}

// TestWorkloadFinds checks that each thing that a server may do wrong once is found.
func TestWorkloadFinds(t *testing.T) {
	lost := func(r Report) bool { return r.Lost > 0 && r.Doubled == 0 && r.LocksLost == 0 && r.Errors == 0 }
	doubled := func(r Report) bool { return r.Lost == 0 && r.Doubled > 0 && r.LocksLost == 0 && r.Errors == 0 }
	unlocked := func(r Report) bool { return r.LocksLost > 0 }
	failed := func(r Report) bool { return r.Errors == 1 && r.Lost == 0 && r.LocksLost == 0 }
	tests := []struct {
		name  string
		fault func(op, name string, nth int) fault
		found func(Report) bool
	}{
		{"acknowledged append dropped", on("WRITE", "writer-1-4", 2, drop), lost},
		{"first append dropped", on("WRITE", "writer-0-4", 1, drop), lost},
		{"append of a removed file dropped", on("WRITE", "writer-0-0", 3, drop), lost},
		{"bit flipped", on("WRITE", "writer-0-4", 1, corrupt), lost},
		{"increment dropped", on("WRITE", "counter", 33, drop), lost},
		{"creation executed twice", on("OPEN", "new-00000024", 1, twice), doubled},
		{"rename executed twice", on("RENAME", "name-00000024", 1, twice), doubled},
		{"removal executed twice", on("REMOVE", "name-00000005", 1, twice), doubled},
		{"rename dropped", on("RENAME", "name-00000024", 1, drop), func(r Report) bool { return r.Lost+r.Doubled > 0 }},
		{"locks forgotten", on("WRITE", "probe", 100, forget), unlocked},
		{"an error", on("WRITE", "probe", 100, fail), failed},
		{"an error of a lock", on("LOCK", "counter", 20, fail), failed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newFakeServer()
			s.fault = tt.fault
			r := runWorkload(t, s)
			if r.OK() || !tt.found(r) || len(r.Problems) == 0 {
				t.Errorf("not found, or something else: %+v", r)
			}
		})
	}
}

// TestWorkloadFindsLostProbe checks the probe's own write, of which only the last round is there at the end.
func TestWorkloadFindsLostProbe(t *testing.T) {
	s := newFakeServer()
	w, err := StartWorkload(t.Context(), WorkloadConfig{Mount: s.mount, ProbeInterval: time.Microsecond})
	if err != nil {
		t.Fatal(err)
	}
	until(t, w, func() bool { return w.probe.acks.count() >= 10 })
	w.Stop()
	h, _, err := w.clients[0].Lookup(t.Context(), w.dir, probeName)
	if err != nil {
		t.Fatal(err)
	}
	n := w.probe.next - 1
	clear(s.nodes[h].data[n%probeSlots*probeBytes:][:probeBytes])
	r, err := w.Verify(t.Context())
	if err != nil || r.Lost == 0 {
		t.Errorf("not found: %+v, %v", r, err)
	}
}

func TestWorkloadRemove(t *testing.T) {
	s := newFakeServer()
	w, err := StartWorkload(t.Context(), WorkloadConfig{Mount: s.mount})
	if err != nil {
		t.Fatal(err)
	}
	w.Stop()
	if err := w.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := len(s.nodes["root"].entries); left != 0 {
		t.Errorf("%d entries are left", left)
	}
}

func TestGap(t *testing.T) {
	base := time.Unix(1000, 0)
	ms := func(n int) time.Time { return base.Add(time.Duration(n) * time.Millisecond) }
	tests := []struct {
		name     string
		acks     []int
		from, to int
		want     int
	}{
		{"nothing", nil, 0, 100, 100},
		{"inside", []int{0, 10, 20, 300, 310}, 5, 400, 280},
		{"outside before", []int{0, 500, 510, 520}, 505, 520, 10},
		{"outside after", []int{0, 10, 20, 500}, 0, 15, 10},
		{"reaches in", []int{0, 300, 310}, 200, 310, 300},
		{"reaches out", []int{0, 10, 300}, 5, 100, 290},
		{"not ended", []int{0, 10}, 5, 250, 240},
		{"begins with the window", []int{150, 160}, 100, 165, 50},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var l ackLog
			for _, a := range tt.acks {
				l.add(ms(a))
			}
			if got := l.gap(ms(tt.from), ms(tt.to)); got != time.Duration(tt.want)*time.Millisecond {
				t.Errorf("gap %v, want %d ms", got, tt.want)
			}
		})
	}
}

func TestGapForgetsOldest(t *testing.T) {
	var l ackLog
	base := time.Unix(1000, 0)
	for i := range ackHistory + 10 {
		l.add(base.Add(time.Duration(i) * time.Second))
	}
	if l.count() != ackHistory {
		t.Errorf("%d acknowledgements are kept", l.count())
	}
	end := base.Add((ackHistory + 9) * time.Second)
	if got := l.gap(base.Add(100*time.Second), end); got != time.Second {
		t.Errorf("gap %v", got)
	}
}

func TestRecordsDiffer(t *testing.T) {
	seen := make(map[string]bool)
	for w := range 3 {
		for n := range uint64(100) {
			r := appendRecord(nil, w, n)
			if len(r) > maxRecordBytes {
				t.Fatalf("record of %d bytes", len(r))
			}
			if again := appendRecord(nil, w, n); string(again) != string(r) {
				t.Fatal("a record is not determined by its numbers")
			}
			if seen[string(r)] {
				t.Fatal("two records are equal")
			}
			seen[string(r)] = true
		}
	}
}
