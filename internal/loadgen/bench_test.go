package loadgen

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"holdfast/internal/nfsclient"
)

func TestMeasure(t *testing.T) {
	seen := make([]int, 1000)
	r, err := measure(t.Context(), plan{inFlight: 8, count: len(seen)}, nil, func(_ context.Context, _, i int) error {
		seen[i]++
		return nil
	})
	if err != nil || r.Ops != len(seen) || r.Seconds <= 0 || r.Max < r.P50 {
		t.Errorf("%+v, %v", r, err)
	}
	if slices.ContainsFunc(seen, func(n int) bool { return n != 1 }) {
		t.Error("an operation was left out or repeated")
	}
	bad := errors.New("bad")
	if _, err := measure(t.Context(), plan{inFlight: 4, duration: time.Hour}, nil, func(_ context.Context, _, i int) error {
		if i == 100 {
			return bad
		}
		return nil
	}); !errors.Is(err, bad) {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := measure(ctx, plan{inFlight: 1, count: 1}, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestSamplesAreThinned(t *testing.T) {
	var s samples
	const n = 3*maxSamples + 17
	for i := range n {
		s.add(time.Duration(i))
	}
	if len(s.d) >= maxSamples || len(s.d) < maxSamples/4 || s.max != n-1 {
		t.Errorf("%d samples, max %d", len(s.d), s.max)
	}
	if got := s.d[len(s.d)/2]; got < n*2/5 || got > n*3/5 {
		t.Errorf("the median is %d of %d", got, n)
	}
}

func TestQuantile(t *testing.T) {
	var d []time.Duration
	for i := range 1000 {
		d = append(d, time.Duration(i+1)*time.Millisecond)
	}
	for q, want := range map[float64]float64{0: 1, 0.5: 500, 0.9: 900, 0.99: 990, 0.999: 999, 1: 1000} {
		if got := quantile(d, q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if quantile(nil, 0.5) != 0 {
		t.Error("quantile of nothing")
	}
}

func TestParseStat(t *testing.T) {
	const fields = " S 1 2 3 4 5 6 7 8 9 10 150 50 7 8"
	for _, name := range []string{"(x)", "(a b)", "(a) (b)", "()))"} {
		if got, err := parseStat([]byte("77 " + name + fields)); err != nil || got != 2 {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for _, bad := range []string{"", "77", "77 (x) S 1 2"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	if _, err := newCPUMeter([]int{os.Getpid()}); err != nil {
		t.Error(err)
	}
	if _, err := newCPUMeter([]int{1 << 30}); err == nil {
		t.Error("a process that is not there is accepted")
	}
}

func TestSelectCases(t *testing.T) {
	cases, err := selectCases([]string{"stat", "seq-read"})
	var names []string
	for _, c := range cases {
		names = append(names, c.name)
	}
	if want := []string{"seq-write", "seq-read", "small-files", "stat"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("%v, %v", names, err)
	}
	if _, err := selectCases([]string{"nothing"}); err == nil {
		t.Error("an unknown case is accepted")
	}
}

// TestLive runs small benchmarks and a short workload against a server: HOLDFAST_NFS_TARGET=HOST:PORT:/EXPORT, and HOLDFAST_MOUNT_ADDRESS where
// MOUNT listens elsewhere.
func TestLive(t *testing.T) {
	target := os.Getenv("HOLDFAST_NFS_TARGET")
	if target == "" {
		t.Skip("HOLDFAST_NFS_TARGET is not set")
	}
	address, export, err := nfsclient.ParseTarget(target)
	if err != nil {
		t.Fatal(err)
	}
	mount := nfsclient.Config{Address: address, MountAddress: os.Getenv("HOLDFAST_MOUNT_ADDRESS"), Export: export}
	for _, version := range []string{"3", "4.1"} {
		mount.Version = version
		_, err := Bench(t.Context(), BenchConfig{
			Mount: mount, Bytes: 16 << 20, Duration: 200 * time.Millisecond, Files: 200, Entries: 3000, Pids: []int{os.Getpid()},
			Progress: func(r Result) {
				b, err := json.Marshal(r)
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%s", b)
			},
		})
		if err != nil {
			t.Errorf("version %s: %v", version, err)
		}
	}
	w, err := StartWorkload(t.Context(), WorkloadConfig{Mount: MountWith(mount)})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close(context.Background())
	start := time.Now()
	time.Sleep(2 * time.Second) // let it work
	t.Logf("%+v, gap %v", w.Live(), w.Gap(start, time.Now()))
	r, err := w.Verify(t.Context())
	if err != nil || !r.OK() {
		t.Errorf("%+v, %v", r, err)
	}
	if err := w.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}
