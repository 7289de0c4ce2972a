package sim

import (
	"fmt"
	"testing"
	"time"
)

// TestKinds runs each kind of cluster, with changes of the membership.
func TestKinds(t *testing.T) {
	last := uint64(16)
	if testing.Short() {
		last = 3
	}
	for _, kind := range []Kind{Elastic, Witnessed} {
		changes, replaced := 0, 0
		for seed := range last {
			t.Run(fmt.Sprintf("%v/seed=%d", kind, seed), func(t *testing.T) {
				st := run(t, Config{Seed: seed, Kind: kind}).Stats()
				changes += st.Faults[faultMembers]
				replaced += st.Faults[faultReplace]
			})
		}
		if changes == 0 || replaced == 0 && last > 10 {
			t.Errorf("%v: %d changes, %d replaced", kind, changes, replaced)
		}
	}
}

func TestWitnessedWithoutFaults(t *testing.T) {
	f := Faults{Interval: time.Second, RetainBytes: 64 << 10}
	st := run(t, Config{Seed: 1, Kind: Witnessed, Faults: &f, Duration: 2 * time.Second}).Stats()
	if st.Operations < 300 || st.Leaders != 1 {
		t.Errorf("%+v", st)
	}
}

func TestDeterminismOfKinds(t *testing.T) {
	for _, kind := range []Kind{Elastic, Witnessed} {
		a, b := run(t, Config{Seed: 5, Kind: kind}), run(t, Config{Seed: 5, Kind: kind})
		if a.Digest() != b.Digest() {
			t.Errorf("%v: two runs differ", kind)
		}
	}
}

// TestDrawnKinds checks that the seeds are of all kinds.
func TestDrawnKinds(t *testing.T) {
	var drawn [kinds]int
	for seed := range uint64(100) {
		drawn[New(Config{Seed: seed}).cfg.Kind]++
	}
	if drawn[Fixed] < 30 || drawn[Elastic] < 10 || drawn[Witnessed] < 10 {
		t.Errorf("of 100 seeds %d are fixed, %d elastic, %d witnessed", drawn[Fixed], drawn[Elastic], drawn[Witnessed])
	}
}
