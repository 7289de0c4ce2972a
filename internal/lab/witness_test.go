package lab

import (
	"context"
	"testing"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
)

// lossLimit is how long clients may wait when any single node is lost.
const lossLimit = time.Second

// TestTwoPlusWitness loses each node of two and a witness after each other, with the time to catch up in between and no more, under the load of a client.
func TestTwoPlusWitness(t *testing.T) {
	l := newLab(t)
	c, guests := startClusterOf(t, l, ClusterOptions{Roles: TwoPlusWitness()}, 1)
	loads := startLoads(t, c, guests, "4.2")
	for _, how := range []Loss{LossKill, LossLink} {
		for _, name := range []string{"a", "b", "c", "a", "c", "b", "a"} { // each after each other
			leader := runFreely(t, c, loads)
			lost := c.Node(name)
			start := time.Now()
			heal, err := c.Lose(t.Context(), lost, how)
			if err != nil {
				t.Fatal(err)
			}
			gap := goOn(t, loads, start, string(how)+" of node "+name)
			awaitCopies(t, c, lost.Role == cluster.RoleData)
			gap = max(gap, goOn(t, loads, start, "the loss of a copy"))
			if err := heal(); err != nil {
				t.Fatal(err)
			}
			healed := time.Now()
			awaitHealthy(t, c)
			caughtUp := time.Since(healed)
			awaitCopies(t, c, false)
			t.Logf("%s of node %s (%s, led: %v): longest gap %v; in sync %v after it was back", how, name, lost.Role, lost == leader, gap, round(caughtUp))
			if gap > lossLimit {
				t.Errorf("a client waited for %v", gap)
			}
		}
	}
	stopLoads(t, c, guests, loads, "4.2")
	checkEqual(t, c)
}

// awaitCopies waits until the status says whether the newest data is on one node only, and what that means.
func awaitCopies(t *testing.T, c *Cluster, one bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := c.AwaitStatus(ctx, "the number of copies", func(v *api.VolumeStatus) bool {
		return v.OneCopy == one && (!one || v.Safety == api.SafetyNone)
	})
	if err != nil {
		t.Error(err)
	}
}
