package sim

import (
	"fmt"
	"testing"
)

// TestRuin takes the disks of most members of each kind of cluster away.
func TestRuin(t *testing.T) {
	last := uint64(8)
	if testing.Short() {
		last = 2
	}
	damaged := 0
	for _, kind := range []Kind{Fixed, Elastic, Witnessed} {
		ruined, operations := 0, 0
		for seed := range last {
			t.Run(fmt.Sprintf("%v/seed=%d", kind, seed), func(t *testing.T) {
				st := run(t, Config{Seed: seed, Kind: kind, Ruin: true}).Stats()
				ruined += st.Faults[faultRuin]
				operations += st.Operations
				damaged += st.Faults[faultRot]
			})
		}
		if ruined < int(last)-1 || operations == 0 {
			t.Errorf("%v: %d of %d clusters were ruined, %d operations were judged", kind, ruined, last, operations)
		}
	}
	if damaged == 0 && last > 2 {
		t.Error("no log was damaged")
	}
}
