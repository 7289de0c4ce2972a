package sim

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// run runs a configuration and shows how to see more of a failure.
func run(t *testing.T, cfg Config) *World {
	t.Helper()
	w := New(cfg)
	if err := w.Run(); err != nil {
		t.Errorf("%v\nto replay: go run ./internal/sim/cmd/swarm -seed %d -log", err, cfg.Seed)
	}
	return w
}

func TestQuiet(t *testing.T) {
	f := Faults{Interval: time.Second, RetainBytes: 64 << 10}
	for n := 1; n <= 3; n++ {
		t.Run(fmt.Sprintf("nodes=%d", n), func(t *testing.T) {
			cfg := Config{Seed: uint64(n), Nodes: n, Faults: &f, Duration: 2 * time.Second}
			if os.Getenv("SIMLOG") != "" {
				cfg.Log = os.Stderr
			}
			w := run(t, cfg)
			t.Logf("%+v", w.Stats())
			if w.Stats().Operations < 300 {
				t.Error("the clients did next to nothing")
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

func TestSeeds(t *testing.T) {
	seeds := uint64(20)
	if testing.Short() {
		seeds = 4
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			w := run(t, Config{Seed: seed})
			t.Logf("%+v", w.Stats())
		})
	}
}
