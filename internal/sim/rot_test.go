package sim

import (
	"fmt"
	"testing"
	"time"
)

// TestRot lets file data and metadata rot, and expects that a check names the rotten copies and no others, and that all is well when they were made anew.
func TestRot(t *testing.T) {
	last := uint64(4)
	if testing.Short() {
		last = 2
	}
	f := Faults{Interval: 150 * time.Millisecond, RetainBytes: 16 << 10}
	for k, weight := range map[faultKind]int{faultObjectRot: 8, faultMetaRot: 4, faultKill: 2, faultIsolate: 2, faultHeal: 4, faultTransfer: 2} {
		f.Weights[k] = weight
	}
	var sum Stats
	for _, kind := range []Kind{Fixed, Elastic} {
		for seed := range last {
			t.Run(fmt.Sprintf("%v/seed=%d", kind, seed), func(t *testing.T) {
				st := run(t, Config{Seed: seed, Kind: kind, Nodes: 3, Faults: &f}).Stats()
				sum.Checks += st.Checks
				sum.Rotten += st.Rotten
				sum.Void += st.Void
				sum.Unreadable += st.Unreadable
				sum.Aside += st.Aside
				sum.Faults[faultObjectRot] += st.Faults[faultObjectRot]
				sum.Faults[faultMetaRot] += st.Faults[faultMetaRot]
			})
		}
	}
	t.Logf("%d checks, %d reads of rotten data, %d runs in which it spread; %d leaders stepped aside, %d calls could not be answered", sum.Checks, sum.Rotten, sum.Void, sum.Aside, sum.Unreadable)
	if sum.Checks == 0 || sum.Faults[faultObjectRot] == 0 || last > 2 && (sum.Faults[faultMetaRot] == 0 || sum.Aside == 0 || sum.Rotten == 0 || sum.Void > 2) {
		t.Errorf("%+v", sum)
	}
}
