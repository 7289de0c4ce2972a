package node

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/config"
	"holdfast/internal/identity"
	"holdfast/internal/nfsclient"
)

// TestReported is about nodes that say different things of who leads.
func TestReported(t *testing.T) {
	var r reported
	for i, tt := range []struct{ node, term, want uint64 }{
		{1, 5, 1},
		{2, 6, 2},
		{1, 5, 2}, // by one that stood still
		{2, 6, 2},
		{1, 7, 1}, // it leads again
	} {
		r.note(api.LeaderResult{Node: tt.node, Term: tt.term})
		if node, _ := r.get(); node != tt.want {
			t.Errorf("%d: node %d leads, want %d", i, node, tt.want)
		}
	}
}

// TestVisits mounts a volume at the node port of a node that keeps no copy of it: it forwards to whoever leads, also when copies come to it and go.
func TestVisits(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, clusterOptions{extra: "    node_port: 2050\n    nodes: [a, b]\n"})
	c.mustDo(cluster.Command{AddVolume: &cluster.AddVolume{Spec: c.spec()}})
	c.inSync(2)
	a, b, visited := c.nodes[0], c.nodes[1], c.nodes[2]
	mount := func(n *testNode) nfsclient.Client {
		t.Helper()
		cl, err := nfsclient.Mount(c.context(), nfsclient.Config{Address: strings.Replace(n.peer, ":7420", ":2050", 1), Export: "/data"})
		if err != nil {
			t.Fatalf("mount at node %s: %v", n.name, err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = cl.Close(ctx) // the nodes may be gone
		})
		return cl
	}
	cl := mount(visited)
	round := 0
	works := func() {
		t.Helper()
		round++
		content := []byte(fmt.Sprint("round ", round))
		c.mustWrite(cl, "f", content)
		c.mustRead(c.mount("4.1", "/data"), "f", content)
	}
	works()
	c.transfer(b)
	works()
	c.transfer(a)
	works()
	// The leader is lost, and comes back: two copies wait for it.
	c.mustStop(a)
	c.start(a)
	works()
	// A copy comes here, and goes from b.
	spec := c.spec()
	spec.Nodes = []string{"a", "c"}
	c.mustDo(cluster.Command{SetVolume: &cluster.SetVolume{Spec: spec}})
	moved := func(members ...string) {
		t.Helper()
		await(t, testTimeout, func() bool {
			_, v, err := c.look(c.leader())
			return err == nil && !v.Changing && slices.Equal(v.Members, members) && len(v.Replicas) == len(members)
		}, func() string { return "the copies do not move" })
	}
	moved("a", "c")
	works()
	at := mount(b)
	c.mustRead(at, "f", []byte(fmt.Sprint("round ", round)))
	c.transfer(visited)
	works()
	c.mustRead(at, "f", []byte(fmt.Sprint("round ", round)))
	// And back.
	c.mustDo(cluster.Command{SetVolume: &cluster.SetVolume{Spec: c.spec()}})
	moved("a", "b")
	works()
	// Without a node port nobody listens.
	spec = c.spec()
	spec.NodePort = 0
	c.mustDo(cluster.Command{SetVolume: &cluster.SetVolume{Spec: spec}})
	await(t, testTimeout, func() bool {
		nc, err := net.Dial("tcp", strings.Replace(visited.peer, ":7420", ":2050", 1))
		if err == nil {
			nc.Close()
		}
		return err != nil
	}, func() string { return "the node port is open" })
}

// TestPortsTaken gives a volume node ports that the nodes have themselves.
func TestPortsTaken(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, clusterOptions{roles: []cluster.Role{cluster.RoleData}, extra: "    copies: 1\n"}).startAll()
	v := c.spec()
	v.NodePort = 7420
	if msg := wrong(c, cluster.Command{SetVolume: &cluster.SetVolume{Spec: v}}); !strings.Contains(msg, "port 7420 is node a's own") {
		t.Errorf("the nodes' own port: %s", msg)
	}
	if msg := wrong(c, cluster.Command{ApplySpec: &cluster.ApplySpec{Spec: config.Spec{Volumes: []config.VolumeSpec{v}}}}); !strings.Contains(msg, "port 7420 is node a's own") {
		t.Errorf("the nodes' own port, in a file: %s", msg)
	}
	other := c.spec()
	other.Name, other.Listen, other.NodePort = "w", strings.Replace(c.nodes[0].peer, ":7420", ":2051", 1), 2049
	if msg := wrong(c, cluster.Command{AddVolume: &cluster.AddVolume{Spec: other}}); !strings.Contains(msg, "volumes[v].listen") {
		t.Errorf("another volume's port: %s", msg)
	}
}

// TestHealthPort is about node ports and where a node answers health checks.
func TestHealthPort(t *testing.T) {
	for _, tt := range []struct {
		health string
		port   uint16
		free   bool
	}{
		{"", 7421, true}, {":7421", 0, true}, {":7421", 7422, true}, {":7421", 7421, false}, {"0.0.0.0:7421", 7421, false}, {"127.0.0.1:7421", 7421, true}, {"a.example.com:7421", 7421, false},
	} {
		n := &Node{local: &config.Local{Health: tt.health}, id: &identity.Identity{Name: "a"}}
		if err := n.checkHealthPort(&config.VolumeSpec{Name: "v", NodePort: tt.port}); (err == nil) != tt.free {
			t.Errorf("health at %q, node port %d: %v", tt.health, tt.port, err)
		}
	}
}
