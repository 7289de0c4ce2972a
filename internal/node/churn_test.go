package node

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"holdfast/internal/cluster"
)

// churnTime is how long TestChurn goes on.
const churnTime = 10 * time.Second

// TestChurn changes who keeps a volume in every way that there is, while nodes are killed and stopped and a client works: copies are made anew, nodes are replaced by
// new ones, put into standby, and the lead is moved. No node may give up by itself, and nothing acknowledged may be lost.
func TestChurn(t *testing.T) {
	limit := churnTime
	if testing.Short() {
		limit = 6 * time.Second
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for _, roles := range [][]cluster.Role{{cluster.RoleData, cluster.RoleData, cluster.RoleData}, twoAndWitness} {
		churn(t, rng, roles, limit/2)
	}
}

func churn(t *testing.T, rng *rand.Rand, roles []cluster.Role, limit time.Duration) {
	c := newCluster(t, clusterOptions{processes: true, roles: roles}).startAll()
	w := c.workload()
	c.busy(w, 100)
	role := map[*testNode]cluster.Role{}
	for i, n := range c.nodes {
		role[n] = roles[i]
	}
	done := map[string]int{}
	for end := time.Now().Add(limit); time.Now().Before(end); {
		c.rebuilt(len(roles))
		c.inSync(len(roles))
		n := c.nodes[rng.IntN(len(c.nodes))]
		what := []string{"rebuild", "replace", "kill", "stop", "move", "standby"}[rng.IntN(6)]
		if role[n] == cluster.RoleWitness && (what == "rebuild" || what == "standby") {
			continue
		}
		done[what]++
		switch what {
		case "rebuild":
			c.rebuild(rng, n)
		case "replace":
			c.kill(n)
			fresh := c.newNode(fmt.Sprintf("n%d", len(c.all)))
			role[fresh] = role[n]
			c.join(fresh, role[n], n.name)
			c.forget(n)
			// Until the old node is out, the loss of another one is the second at a time.
			c.gone(n.name)
		case "kill":
			c.kill(n)
			c.busy(w, uint64(rng.IntN(100)))
			c.start(n)
		case "stop":
			c.signal(n, syscall.SIGSTOP)
			time.Sleep(time.Duration(rng.IntN(500)) * time.Millisecond)
			c.signal(n, syscall.SIGCONT)
		case "move":
			// Whether it can be done is not the point: the leader may just be changing.
			_, _ = c.leader().api().Transfer(c.context(), "v", "")
		case "standby":
			for _, on := range []bool{true, false} {
				c.mustDo(cluster.Command{SetNode: &cluster.SetNode{Name: n.name, Standby: &on}})
				c.busy(w, 50)
			}
		}
	}
	c.inSync(len(roles))
	t.Logf("%v: %v", roles, done)
	c.verify(w)
	c.equal()
}

// rebuild has a copy made anew, and may kill a node on the way.
func (c *testCluster) rebuild(rng *rand.Rand, n *testNode) {
	c.t.Helper()
	c.mustDo(cluster.Command{RebuildCopy: &cluster.RebuildCopy{Volume: "v", Node: n.name}})
	if rng.IntN(2) == 0 {
		time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond)
		victim := c.nodes[rng.IntN(len(c.nodes))]
		c.kill(victim)
		c.start(victim)
	}
	c.rebuilt(3)
}

// gone waits until a node is no member any more.
func (c *testCluster) gone(name string) {
	c.t.Helper()
	await(c.t, testTimeout, func() bool {
		s, err := c.nodes[0].api().State(c.context())
		return err == nil && s.NodeNamed(name) == nil
	}, func() string { return "node " + name + " is still a member" })
}

// rebuilt waits until the volume has its members and no copies are moving.
func (c *testCluster) rebuilt(members int) {
	c.t.Helper()
	await(c.t, testTimeout, func() bool {
		s, err := c.nodes[0].api().State(c.context())
		return err == nil && s.Volume("v") != nil && len(s.Volume("v").Members) == members && len(s.Volume("v").Rebuild)+len(s.Volume("v").Former) == 0
	}, func() string { return "the copies of the volume are still moving" })
}
