package lab

import (
	"testing"
	"time"
)

// TestFiveNodes loses two of five nodes, the leader first and the leader last, under the load of a client.
func TestFiveNodes(t *testing.T) {
	l := newLab(t)
	c, guests := startClusterOf(t, l, ClusterOptions{Roles: DataNodes(5), Copies: 5}, 1)
	loads := startLoads(t, c, guests, "4.2")
	for _, how := range []Loss{LossKill, LossLink} {
		for _, leaderFirst := range []bool{true, false} {
			leader := runFreely(t, c, loads)
			lost := []*Node{leader, other(t, c, leader)}
			if !leaderFirst {
				lost[0], lost[1] = lost[1], lost[0]
			}
			var heals []func() error
			var gaps []time.Duration
			for _, n := range lost {
				start := time.Now()
				heal, err := c.Lose(t.Context(), n, how)
				if err != nil {
					t.Fatal(err)
				}
				heals = append(heals, heal)
				gaps = append(gaps, goOn(t, loads, start, string(how)+" of node "+n.Name))
			}
			for _, heal := range heals {
				if err := heal(); err != nil {
					t.Fatal(err)
				}
			}
			healed := time.Now()
			awaitHealthy(t, c)
			t.Logf("%s of two, leader first %v: longest gaps %v; in sync %v after they were back", how, leaderFirst, gaps, round(time.Since(healed)))
			if max(gaps[0], gaps[1]) > lossLimit {
				t.Error("a client waited")
			}
		}
	}
	stopLoads(t, c, guests, loads, "4.2")
	checkEqual(t, c)
}
