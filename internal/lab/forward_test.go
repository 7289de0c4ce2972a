package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/internal/lab/work"
)

// forwardPort is the volume's port at the nodes' own addresses.
const forwardPort = 12049

// balancerAddr is haproxy's address.
const balancerAddr = "10.94.0.40"

// TestForward mounts by the address of a node that does not lead, and through a balancer, for networks where no address can move.
func TestForward(t *testing.T) {
	l := newLab(t)
	c, guests := startClusterOf(t, l, ClusterOptions{Roles: DataNodes(3), Volume: []string{"--node-port", fmt.Sprint(forwardPort)}}, 1)
	g := guests[0]
	at := func(addr string) Export {
		return Export{Addr: addr, Path: "/data", Port: forwardPort, MountPort: forwardPort}
	}
	t.Run("node", func(t *testing.T) {
		entry := other(t, c, awaitHealthy(t, c))
		// The rules are for the client, and not for the node in between.
		command(t, entry, "export", "set", clusterVolume, "/data", "--client", g.Addr+":rw,no_root_squash")
		s := fixedExport{c, at(entry.Addr)}
		loads := startLoads(t, s, guests, "4.2")
		for _, how := range []Loss{LossKill, LossLink} {
			if runFreely(t, c, loads) == entry {
				if err := c.Transfer(t.Context(), entry, other(t, c, entry)); err != nil {
					t.Fatal(err)
				}
			}
			gap := loseLeader(t, c, loads, how)
			t.Logf("by a node that does not lead, %s of the leader: longest gap %v", how, gap)
			if gap > lossLimit {
				t.Error("a client waited")
			}
		}
		if leader := runFreely(t, c, loads); leader != entry {
			start := time.Now()
			if err := c.Transfer(t.Context(), leader, entry); err != nil {
				t.Fatal(err)
			}
			gap := goOn(t, loads, start, "the move to the node in between")
			t.Logf("a move to the node in between: longest gap %v", gap)
			if gap > lossLimit {
				t.Error("a client waited")
			}
		}
		stopLoads(t, s, guests, loads, "4.2")
		mount(t, g, s.Export(), "3", "/mnt")
		fileStep(t, g, work.FileStep{Path: "/mnt/v3", Do: "write", Size: 1 << 20}, "")
		unmount(t, g, "/mnt")
	})
	t.Run("haproxy", func(t *testing.T) {
		if _, err := exec.LookPath("haproxy"); err != nil {
			t.Skip("haproxy is not installed; apt-get install haproxy")
		}
		startHaproxy(t, l, c)
		command(t, c.Nodes[0], "export", "set", clusterVolume, "/data", "--client", balancerAddr+":rw,no_root_squash")
		s := fixedExport{c, at(balancerAddr)}
		load := startProbe(t, g, s.Export())
		for _, how := range []Loss{LossTransfer, LossKill, LossLink} {
			gap := loseLeader(t, c, []*Load{load}, how)
			t.Logf("through haproxy, %s of the leader: longest gap %v", how, gap)
			if gap > lossLimit {
				t.Error("a client waited")
			}
		}
		stopProbe(t, load)
		unmount(t, g, "/mnt")
	})
	checkEqual(t, c)
}

// fixedExport is a server that is mounted in another way.
type fixedExport struct {
	Server
	export Export
}

func (f fixedExport) Export() Export { return f.export }

// startHaproxy runs haproxy on a machine of its own. The node that is known to serve is preferred; while none is, the others forward: a client that
// is turned away again and again, because there is no server, waits for 3 s.
func startHaproxy(t *testing.T, l *Lab, c *Cluster) {
	t.Helper()
	var config strings.Builder
	fmt.Fprintf(&config, `global
	maxconn 100
defaults
	mode tcp
	timeout connect 500ms
	timeout client 1h
	timeout server 1h
frontend nfs
	bind %s:%d
	default_backend nodes
backend nodes
	option redispatch 1
	retries 5
	option allbackups
	option httpchk GET /health/%s
	default-server port %d inter 100ms fall 1 rise 1 on-marked-down shutdown-sessions
`, balancerAddr, forwardPort, clusterVolume, healthPort)
	for _, n := range c.Nodes {
		fmt.Fprintf(&config, "\tserver %[1]s %[2]s:%[3]d check\n\tserver %[1]s-any %[2]s:%[3]d backup\n", n.Name, n.Addr, forwardPort)
	}
	file := filepath.Join(l.Dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	netns, err := l.Net.AddNode("balancer", balancerAddr)
	if err != nil {
		t.Fatal(err)
	}
	p, err := startProcess(l.spawn, netns, "haproxy", filepath.Join(l.Dir, "haproxy.log"), "haproxy", "-db", "-f", file)
	if err != nil {
		t.Fatal(err)
	}
	l.onClose(p.Kill)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of haproxy:\n%s", p.tail(40))
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := l.awaitPort(ctx, p, fmt.Sprintf("%s:%d", balancerAddr, forwardPort)); err != nil {
		t.Fatal(err)
	}
}
