package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
)

// TestRemoved asks a node for its status that runs although it was removed.
func TestRemoved(t *testing.T) {
	c := newCluster(t, clusterOptions{})
	gone := c.nodes[2]
	await(t, testTimeout, func() bool {
		s, err := gone.api().Status(c.context(), true)
		return err == nil && len(s.Nodes) == 3
	}, func() string { return "the node does not know the others" })
	c.mustDo(cluster.Command{RemoveNode: &cluster.RemoveNode{Name: gone.name}})
	await(t, testTimeout, func() bool {
		s, err := c.nodes[0].api().State(c.context())
		return err == nil && s.NodeNamed(gone.name) == nil
	}, func() string { return "the node is not removed" })
	var s api.Status
	await(t, testTimeout, func() bool {
		var err error
		s, err = gone.api().Status(c.context(), false)
		return err == nil && s.Removed != ""
	}, func() string { return strings.Join(s.Warnings, "\n") })
	if len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "node c was removed from the cluster") || !strings.Contains(s.Warnings[0], "delete its data folder "+gone.dir) {
		t.Errorf("warnings: %q", s.Warnings)
	}
	for _, n := range s.Nodes {
		if n.Name != gone.name && n.State != api.NodeRefuses {
			t.Errorf("node %s: %s", n.Name, n.State)
		}
	}
	if s, err := c.nodes[0].api().Status(c.context(), false); err != nil || s.Removed != "" {
		t.Errorf("node a says %q, %v", s.Removed, err)
	}
}

// TestNoGroups starts a node without the file that says in which groups it has a part: not before it ran is that as it should be.
func TestNoGroups(t *testing.T) {
	c := newCluster(t, clusterOptions{roles: []cluster.Role{cluster.RoleData}}).startAll()
	n := c.nodes[0]
	c.mustStop(n)
	b, err := os.ReadFile(n.log)
	if err != nil || !strings.Contains(string(b), "no other node has a copy of the volume") || strings.Contains(string(b), "takes it over") {
		t.Errorf("the only node stops otherwise: %v", err)
	}
	file := filepath.Join(n.dir, "groups.json")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(n.dir, "cluster", "state.json")
	for _, move := range []bool{false, true} { // with the state, and with the log alone
		if move {
			if err := os.Rename(state, state+".away"); err != nil {
				t.Fatal(err)
			}
		}
		c.start(n)
		if err := c.ended(n); err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "restore the file") {
			t.Errorf("it starts, with %v", err)
		}
		if _, err := os.Lstat(file); err == nil {
			t.Fatal("the file was made")
		}
	}
	if err := os.Rename(state+".away", state); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	c.start(n)
	c.leader()
}
