package lab

import (
	"testing"
	"time"

	"holdfast/internal/cluster"
)

// TestReplace changes who the nodes of a cluster are, under the load of a client: from two and a witness to three copies and back, with disks lost in between.
func TestReplace(t *testing.T) {
	l := newLab(t)
	c, guests := startClusterOf(t, l, ClusterOptions{Roles: TwoPlusWitness()}, 1)
	loads := startLoads(t, c, guests, "4.2")
	// step does something to the cluster, waits until all is well, and compares the copies.
	step := func(what string, do func() error) {
		t.Helper()
		runFreely(t, c, loads)
		start := time.Now()
		if err := do(); err != nil {
			t.Fatal(err)
		}
		awaitHealthy(t, c)
		took := time.Since(start)
		gap := goOn(t, loads, start, what)
		checkBusy(t, c)
		t.Logf("%s: in sync after %v, longest gap %v", what, round(took), gap)
		if gap > lossLimit {
			t.Errorf("%s: a client waited for %v", what, gap)
		}
	}
	replace := func(name string) func() error {
		return func() error {
			n := c.Node(name)
			was, err := n.api.Status(t.Context(), true)
			if err != nil {
				return err
			}
			if err := n.LoseDisk(); err != nil {
				return err
			}
			if err := c.Replace(t.Context(), n, n); err != nil {
				return err
			}
			// What has forgotten its votes must not vote as the one that gave them.
			if is, err := n.api.Status(t.Context(), true); err != nil || is.ID == was.ID {
				t.Errorf("node %s is number %d again (%v)", name, is.ID, err)
			}
			return nil
		}
	}
	leader := awaitHealthy(t, c)
	t.Log(refused(t, leader, "node", "remove", other(t, c, leader).Name))
	step("the disk of a follower is lost and the node replaced", replace(other(t, c, leader).Name))
	step("the disk of the leader is lost and the node replaced", replace(awaitHealthy(t, c).Name))
	step("the witness is lost and replaced", replace("c"))
	step("a third copy is added", func() error {
		n, err := c.AddMachine()
		if err != nil {
			return err
		}
		return c.Join(t.Context(), n, cluster.RoleData)
	})
	step("the leader is removed", func() error { return c.Remove(t.Context(), awaitHealthy(t, c)) })
	stopLoads(t, c, guests, loads, "4.2")
	checkEqual(t, c)
}
