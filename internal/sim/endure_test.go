package sim

import (
	"fmt"
	"testing"
	"time"
)

// TestEndure loses one node after the other of three, or of two and a witness, each as soon as all is well again.
func TestEndure(t *testing.T) {
	last, rounds := uint64(6), 12
	if testing.Short() {
		last = 2
	}
	f := Faults{Interval: 100 * time.Millisecond, RetainBytes: 16 << 10}
	f.Weights[faultKill], f.Weights[faultIsolate], f.Weights[faultHeal] = 1, 1, 2
	for _, kind := range []Kind{Fixed, Witnessed} {
		for seed := range last {
			t.Run(fmt.Sprintf("%v/seed=%d", kind, seed), func(t *testing.T) {
				if n := run(t, Config{Seed: seed, Kind: kind, Nodes: 3, Endure: rounds, Duration: time.Second, Faults: &f}).Stats().Endured; n != rounds {
					t.Errorf("%d of %d losses", n, rounds)
				}
			})
		}
	}
}
