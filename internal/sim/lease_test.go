package sim

import (
	"fmt"
	"sync/atomic"
	"testing"
)

// TestLeasesRunOut checks that clients of runs with short leases do lose sessions, and what hangs on that: it takes a silent client and a leader that stays for long enough.
func TestLeasesRunOut(t *testing.T) {
	last, want := uint64(30), int64(5)
	if testing.Short() {
		last, want = 8, 1
	}
	var expired atomic.Int64
	t.Run("seeds", func(t *testing.T) {
		for seed := range last {
			t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
				t.Parallel()
				expired.Add(int64(run(t, Config{Seed: seed, Lease: shortLease}).Stats().Expired))
			})
		}
	})
	if n := expired.Load(); n < want {
		t.Errorf("%d sessions were lost in %d runs, want %d at least", n, last, want)
	}
	t.Logf("%d sessions lost in %d runs", expired.Load(), last)
}
