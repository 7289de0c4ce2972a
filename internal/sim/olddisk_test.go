package sim

import (
	"testing"
	"time"
)

// TestOldDisks lets nodes lose disks and find them again: those that went on without do not start with them.
func TestOldDisks(t *testing.T) {
	f := Faults{Interval: 250 * time.Millisecond, RetainBytes: 16 << 10, Noticed: 0.01}
	f.Weights[faultReplace], f.Weights[faultKill], f.Weights[faultHeal] = 4, 1, 1
	found, refused := 0, 0
	for _, kind := range []Kind{Fixed, Elastic, Witnessed} {
		t.Run(kind.String(), func(t *testing.T) {
			before := refused
			for seed := range uint64(12) {
				st := run(t, Config{Seed: seed, Kind: kind, Faults: &f}).Stats()
				found += st.Faults[faultOldDisk]
				refused += st.Outdated
			}
			if refused == before {
				t.Error("no start was refused")
			}
		})
	}
	if found <= refused {
		t.Errorf("of %d disks that were found again none could be used", found)
	}
}
