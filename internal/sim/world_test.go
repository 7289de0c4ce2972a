package sim

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// run runs a configuration and says how to see more of a failure.
func run(t *testing.T, cfg Config) *World {
	t.Helper()
	w := New(cfg)
	if err := w.Run(); err != nil {
		t.Errorf("%v\nto replay: go run ./internal/sim/cmd/swarm %s -log", err, strings.Join(cfg.Args(), " "))
	}
	return w
}

func TestWithoutFaults(t *testing.T) {
	f := Faults{Interval: time.Second, RetainBytes: 64 << 10}
	for _, n := range []int{1, 2, 3} {
		t.Run(fmt.Sprintf("nodes=%d", n), func(t *testing.T) {
			w := run(t, Config{Seed: uint64(n), Nodes: n, Faults: &f, Duration: 2 * time.Second})
			st := w.Stats()
			if st.Operations < 300 || st.Histories < 12 {
				t.Errorf("the clients did next to nothing: %+v", st)
			}
			if st.Leaders != 1 {
				t.Errorf("%d leaderships although nothing went wrong", st.Leaders)
			}
		})
	}
}

func TestDeterminism(t *testing.T) {
	for seed := range uint64(3) {
		a, b := run(t, Config{Seed: seed}), run(t, Config{Seed: seed})
		if a.Digest() != b.Digest() {
			t.Errorf("seed %d: two runs differ", seed)
		}
	}
}

// regressions are seeds that found something once, beside the first few. A change of the simulation changes what a seed does; what was found has a test of its own
// where it was mended.
var regressions = []uint64{111, 30252, 40695, 70021, 8014804039481, 30000426, 2961329089561, 56191148274348, 200966830446496, 257809670727779, 149340726273098, 79419580149857, 174466617628415,
	31996807380846, 31996807380879, 9971475709080, 9971475714000, 271113786716675, 271113786719948, 187903778105624}

func TestSeeds(t *testing.T) {
	seeds := append([]uint64(nil), regressions...)
	last := uint64(40)
	if testing.Short() {
		last = 8
	}
	for seed := range last {
		seeds = append(seeds, seed)
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { run(t, Config{Seed: seed}) })
	}
}

// TestFreshSeeds runs seeds that nobody has run before, for as long as HOLDFAST_SIM says (20 s if it says nothing).
func TestFreshSeeds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes its time")
	}
	d := 20 * time.Second
	if s := os.Getenv("HOLDFAST_SIM"); s != "" {
		var err error
		if d, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(d)
	next := rand.Uint64() >> 16
	var mu sync.Mutex
	var wg sync.WaitGroup
	seeds := 0
	for range 2 {
		wg.Go(func() {
			for time.Now().Before(deadline) && !t.Failed() {
				mu.Lock()
				seed := next
				next++
				seeds++
				mu.Unlock()
				run(t, Config{Seed: seed})
			}
		})
	}
	wg.Wait()
	t.Logf("%d seeds", seeds)
}
