package node

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"holdfast/internal/cluster"
	"holdfast/internal/config"
	"holdfast/internal/replica"
	"holdfast/internal/volume"
)

// TestTiming checks that every timing that a cluster can be made with is one that a raft group can work with.
func TestTiming(t *testing.T) {
	taken := 0
	for _, tick := range []time.Duration{time.Millisecond, 20 * time.Millisecond, time.Second} {
		for election := range 14 {
			for _, lease := range []int{0, 3, 40, 60, 65, 100, 180, 199, 5000} {
				for _, drift := range []int{0, 1, 30, 1000} {
					c := config.Timing{
						Tick: config.Duration(tick), Election: election,
						Lease: config.Duration(lease) * config.Duration(time.Millisecond), Drift: config.Duration(drift) * config.Duration(time.Millisecond),
					}
					c.Complete()
					if c.Validate() != nil {
						continue
					}
					taken++
					// Timing is looked at before the members are.
					_, err := replica.NewCore(0, replica.CoreConfig{ID: 9, Peers: []uint64{1}, Timing: timing(c)})
					if err == nil || !strings.Contains(err.Error(), "not among the first members") {
						t.Errorf("%s: %v", fmt.Sprintf("%+v", c), err)
					}
				}
			}
		}
	}
	if taken < 10 {
		t.Errorf("%d timings were taken", taken)
	}
}

// TestVersions checks that the cluster and the volumes count the same versions.
func TestVersions(t *testing.T) {
	if cluster.MaxVersion < volume.MaxVersion {
		t.Errorf("the cluster goes up to version %d, volumes up to %d: they could never have it", cluster.MaxVersion, volume.MaxVersion)
	}
}
