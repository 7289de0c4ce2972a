package node

import (
	"slices"
	"testing"
	"time"

	"holdfast/internal/loadgen"
	"holdfast/internal/nfsclient"
)

// What a client may have to wait at most, by the median of its failovers.
const (
	killLimit     = 300 * time.Millisecond
	transferLimit = 200 * time.Millisecond
)

// BenchmarkOutage measures the longest time between two O_SYNC writes that a client issues every 10 ms, when the leader's process is killed and when the
// leadership is handed over. Run it with -benchtime=10x on a machine that does nothing else: it fails if the median of ten is over the limit.
func BenchmarkOutage(b *testing.B) {
	for _, bb := range []struct {
		name  string
		limit time.Duration
		fail  func(c *testCluster, leader *testNode)
	}{
		{"kill", killLimit, func(c *testCluster, leader *testNode) { c.kill(leader) }},
		{"transfer", transferLimit, func(c *testCluster, leader *testNode) { c.transfer(c.other(leader)) }},
	} {
		b.Run(bb.name, func(b *testing.B) {
			c := newCluster(b, clusterOptions{processes: true}).startAll()
			w, err := loadgen.StartWorkload(b.Context(), loadgen.WorkloadConfig{
				Mount: loadgen.MountWith(nfsclient.Config{Address: c.addr, Export: "/data"}), Writers: 1,
			})
			if err != nil {
				b.Fatal(err)
			}
			var gaps []time.Duration
			for range b.N {
				c.inSync(3)
				c.busy(w, 200)
				leader := c.leader()
				from := time.Now()
				bb.fail(c, leader)
				c.leader()
				c.busy(w, 200)
				gaps = append(gaps, w.Gap(from.Add(-50*time.Millisecond), time.Now()))
				if !leader.running() {
					c.start(leader)
				}
			}
			c.verify(w)
			slices.Sort(gaps)
			median := gaps[len(gaps)/2]
			b.ReportMetric(float64(median.Microseconds())/1000, "ms/median")
			b.ReportMetric(float64(gaps[len(gaps)-1].Microseconds())/1000, "ms/worst")
			b.ReportMetric(0, "ns/op")
			if b.N >= 10 && median > bb.limit {
				b.Errorf("the median outage is %v, limit %v: %v", median, bb.limit, gaps)
			}
		})
	}
}
