package sim

import (
	"testing"
	"time"
)

// TestReboots lets machines of clients start anew all the time, while nodes go and the leadership moves: what they held is free as soon as they are back.
func TestReboots(t *testing.T) {
	f := Faults{Interval: 60 * time.Millisecond, RetainBytes: 16 << 10}
	f.Weights[faultReboot], f.Weights[faultKill], f.Weights[faultTransfer], f.Weights[faultClientDrop], f.Weights[faultHeal] = 6, 1, 1, 2, 1
	reboots := 0
	for seed := range uint64(10) {
		reboots += run(t, Config{Seed: seed, Faults: &f}).Stats().Faults[faultReboot]
	}
	if reboots < 100 {
		t.Errorf("%d reboots in all, want 100 at least", reboots)
	}
	t.Logf("%d reboots", reboots)
}
