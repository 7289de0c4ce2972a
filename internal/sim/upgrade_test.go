package sim

import (
	"fmt"
	"testing"
)

// TestUpgrade begins with nodes of the older release and restarts them with the newer one.
func TestUpgrade(t *testing.T) {
	last := uint64(5)
	if testing.Short() {
		last = 2
	}
	upgraded := 0
	for _, kind := range []Kind{Fixed, Elastic, Witnessed} {
		for seed := range last {
			t.Run(fmt.Sprintf("%v/seed=%d", kind, seed), func(t *testing.T) {
				w := run(t, Config{Seed: 100 + seed, Kind: kind, From: oldVersion})
				upgraded += w.Stats().Faults[faultUpgrade]
				if w.Err() == nil && w.ruined == nil && w.version != oldVersion+1 {
					t.Errorf("the cluster is at version %d", w.version)
				}
			})
		}
	}
	if upgraded == 0 {
		t.Error("no node was upgraded while faults struck")
	}
}
