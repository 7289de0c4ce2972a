package node

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/identity"
)

// TestTakeover stops the leader, twice: it is an event that another node leads, and why.
func TestTakeover(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, clusterOptions{}).startAll()
	for range 2 {
		was := c.leader()
		c.mustStop(was)
		c.nodes = slices.DeleteFunc(c.nodes, func(n *testNode) bool { return n == was })
		want := "took over from " + was.name + ", which does not answer"
		var e api.Explanation
		await(t, testTimeout, func() bool {
			var err error
			e, err = c.nodes[0].api().Explain(c.context(), "v")
			return err == nil && slices.ContainsFunc(e.Events, func(ev cluster.Event) bool {
				return ev.Kind == cluster.EventMove && ev.Node == e.Leader && strings.Contains(ev.Text, want)
			})
		}, func() string { return fmt.Sprintf("%q is not in %+v", want, e) })
		if e.Since.IsZero() {
			t.Error("nobody says since when the volume is led there")
		}
		c.nodes = append(c.nodes, was)
		c.start(was)
		c.inSync(3)
	}
}

// TestMoveToStandby refuses to move a volume to a node that would hand it over again.
func TestMoveToStandby(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, clusterOptions{}).startAll()
	on, off := true, false
	to := c.other(c.leader()).name
	c.mustDo(cluster.Command{SetNode: &cluster.SetNode{Name: to, Standby: &on}})
	var refused *api.Error
	if r, err := c.nodes[0].api().Transfer(c.context(), "v", to); !errors.As(err, &refused) || refused.Status != http.StatusConflict {
		t.Errorf("a move to a node in standby: %+v, %v", r, err)
	}
	c.mustDo(cluster.Command{SetNode: &cluster.SetNode{Name: to, Standby: &off}})
	if r, err := c.nodes[0].api().Transfer(c.context(), "v", to); err != nil || r.To != to {
		t.Errorf("a move to a node that may lead: %+v, %v", r, err)
	}
}

// TestNewAddress starts a node at another address than it had: the others, who cannot reach it, learn of that from it.
func TestNewAddress(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, clusterOptions{}).startAll()
	n := c.other(c.leader())
	c.mustStop(n)
	id, err := identity.Load(identity.Dir(n.dir))
	if err != nil {
		t.Fatal(err)
	}
	old := n.peer
	n.peer = c.network + ".77:7420"
	id.PeerAddress = n.peer
	if err := id.Save(identity.Dir(n.dir)); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(n.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.file, []byte(strings.ReplaceAll(string(file), old, n.peer)), 0o600); err != nil {
		t.Fatal(err)
	}
	c.start(n)
	c.inSync(3)
	if s, err := c.leader().api().State(c.context()); err != nil || s.NodeNamed(n.name).Peer != n.peer {
		t.Errorf("the address is %+v, %v", s.NodeNamed(n.name), err)
	}
}

// TestMaintenanceEnds lets a time of maintenance pass: it is not spoken of any more.
func TestMaintenanceEnds(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, clusterOptions{roles: []cluster.Role{cluster.RoleData}}).startAll()
	status := func() api.Status {
		s, err := c.nodes[0].api().Status(c.context(), true)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	c.mustDo(cluster.Command{SetMaintenance: &cluster.SetMaintenance{On: true, Until: time.Now().Add(time.Hour), Why: "new switches"}})
	if s := status(); !strings.Contains(s.Maintenance, "new switches") {
		t.Errorf("maintenance is %q", s.Maintenance)
	}
	c.mustDo(cluster.Command{SetMaintenance: &cluster.SetMaintenance{On: true, Until: time.Now().Add(100 * time.Millisecond), Why: "new switches"}})
	await(t, testTimeout, func() bool { return status().Maintenance == "" }, func() string { return "it is maintenance still" })
}
