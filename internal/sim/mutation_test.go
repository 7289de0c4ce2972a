package sim

import (
	"testing"
	"time"
)

// bounds is within how many seeds each mutation is found; where it is not given, within 20.
var bounds = map[Mutation]uint64{ServeAfterLease: 100, IgnoreDamage: 200}

// faultsFor is a mix in which a mutation shows early; nil: any.
func faultsFor(m Mutation) *Faults {
	if m == WitnessAhead {
		// Crashes of the only copy after the other was lost for good, and disks that are slower than the network.
		f := &Faults{Interval: 60 * time.Millisecond, RetainBytes: 64 << 10}
		f.Weights[faultSlowDisk], f.Weights[faultCrash], f.Weights[faultReplace], f.Weights[faultHeal] = 4, 4, 4, 1
		return f
	}
	if m != ServeAfterLease {
		return nil
	}
	// Leaders that do not hear that there is another one.
	f := &Faults{Interval: 250 * time.Millisecond, Drift: 1, RetainBytes: 64 << 10}
	f.Weights[faultIsolate], f.Weights[faultPause], f.Weights[faultHeal], f.Weights[faultClientDrop] = 4, 2, 5, 2
	return f
}

func TestMutationsAreFound(t *testing.T) {
	for _, m := range Mutations() {
		t.Run(m.String(), func(t *testing.T) {
			bound := bounds[m]
			if testing.Short() && bound != 0 {
				t.Skip("takes many seeds")
			}
			if bound == 0 {
				bound = 20
			}
			for seed := range bound {
				if err := New(Config{Seed: seed, Mutation: m, Faults: faultsFor(m)}).Run(); err != nil {
					t.Logf("found by seed %d: %v", seed, err)
					return
				}
			}
			t.Errorf("%d seeds did not find it", bound)
		})
	}
}
