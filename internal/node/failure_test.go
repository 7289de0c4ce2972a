package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestRebuild takes a node's disk away while clients write, and gives it an empty one.
func TestRebuild(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	c := newCluster(t, clusterOptions{processes: true}).startAll()
	w := c.workload()
	c.busy(w, 200)
	for _, lost := range []*testNode{c.other(c.leader()), c.leader()} {
		c.inSync(3)
		c.kill(lost)
		if err := os.RemoveAll(lost.dir); err != nil {
			t.Fatal(err)
		}
		c.busy(w, 500)
		c.start(lost)
		c.inSync(3)
		c.busy(w, 100)
		c.transfer(lost) // it counts as any other
	}
	c.verify(w)
	c.equal()
}

// TestMinority ends two of three nodes: nothing is served, status says why, requests wait, and go on when one of the two is back.
func TestMinority(t *testing.T) {
	for _, version := range []string{"4.1", "3"} {
		t.Run(version, func(t *testing.T) {
			if testing.Short() && version != "3" {
				t.Skip("takes seconds")
			}
			c := newCluster(t, clusterOptions{processes: true}).startAll()
			cl := c.mount(version, "/data")
			c.mustWrite(cl, "f", []byte("before"))
			c.inSync(3)
			leader := c.leader()
			away := slices.DeleteFunc(slices.Clone(c.nodes), func(n *testNode) bool { return n == leader })
			for _, n := range away {
				c.kill(n)
			}
			written := make(chan error, 1)
			go func() { written <- c.write(cl, "f", []byte("within")) }()
			await(t, testTimeout, func() bool {
				s, v, err := c.look(leader)
				return err == nil && !v.Serving && v.Leader == "" && strings.Contains(strings.Join(s.Warnings, "\n"), "no leader")
			}, func() string { return "status does not say that there is no leader" })
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if a, err := cl.GetAttr(ctx, cl.Root()); err == nil {
				t.Errorf("a minority answers: %+v", a)
			}
			select {
			case err := <-written:
				t.Fatalf("a minority answered a write: %v", err)
			default:
			}
			c.start(away[0])
			if err := <-written; err != nil {
				t.Errorf("the write that waited: %v", err)
			}
			c.mustRead(cl, "f", []byte("within"))
			c.start(away[1])
			c.equal()
		})
	}
}

// killTime is how long TestKillLoop kills.
const killTime = 20 * time.Second

// TestKillLoop kills nodes at random moments under load, or stops their processes for a while, one at a time, and in the end kills all at once. Everything
// acknowledged must be there.
func TestKillLoop(t *testing.T) {
	limit := killTime
	if testing.Short() {
		limit = 4 * time.Second
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	c := newCluster(t, clusterOptions{processes: true}).startAll()
	w := c.workload()
	c.busy(w, 100)
	kills := 0
	for end := time.Now().Add(limit); time.Now().Before(end); kills++ {
		victim := c.nodes[rng.IntN(3)]
		if rng.IntN(2) == 0 {
			victim = c.leader()
		}
		if rng.IntN(4) == 0 {
			// A leader that stands still keeps the listener's address, and so the clients, until it notices that it leads no more.
			c.signal(victim, syscall.SIGSTOP)
			time.Sleep(time.Duration(rng.IntN(700)) * time.Millisecond)
			c.signal(victim, syscall.SIGCONT)
		} else {
			c.kill(victim)
			if rng.IntN(3) > 0 {
				c.busy(w, uint64(rng.IntN(300)))
			}
			c.start(victim)
		}
		// The next one may be killed when this one counts again: two of three must have everything.
		c.inSync(3)
		c.busy(w, uint64(1+rng.IntN(100)))
	}
	for _, n := range c.nodes {
		c.signal(n, syscall.SIGKILL) // all of them before any is waited for
	}
	for _, n := range c.nodes {
		c.kill(n)
	}
	for _, n := range c.nodes {
		c.start(n)
	}
	c.leader()
	c.busy(w, 100)
	t.Logf("%d kills and stops, and all at once", kills)
	c.verify(w)
	c.equal()
}

// TestStrangers starts a node of another cluster, and one with another secret: it stays outside, and both sides say why.
func TestStrangers(t *testing.T) {
	checkGoroutines(t)
	dir := t.TempDir()
	secret := func(name, text string) string {
		path := dir + "/" + name
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	right := "cluster: {name: right, secret_file: " + secret("right", "0123456789abcdef") + "}\n"
	for _, tt := range []struct{ name, cluster, want string }{
		{"another secret", "cluster: {name: right, secret_file: " + secret("wrong", "fedcba9876543210") + "}\n", "secrets do not match"},
		{"no secret", "cluster: {name: right}\n", "secrets do not match"},
		{"another cluster", strings.Replace(right, "name: right", "name: wrong", 1), "belongs to another cluster"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t, clusterOptions{extra: right})
			stranger := c.nodes[2]
			text, err := os.ReadFile(stranger.config)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(stranger.config, []byte(strings.Replace(string(text), right, tt.cluster, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, n := range c.nodes {
				c.start(n)
			}
			c.logged(stranger, tt.want)
			c.logged(c.nodes[0], tt.want)
			if _, v, err := c.look(stranger); err == nil && (v.Leader != "" || v.Applied != 0) {
				t.Errorf("the stranger takes part: %+v", v)
			}
		})
	}
}

// TestStartErrors starts nodes that cannot work, and wants to be told what to do.
func TestStartErrors(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, clusterOptions{}).startAll()
	first := c.nodes[0]
	text, err := os.ReadFile(first.config)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name, content string) string {
		path := dir + "/" + name
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for i, tt := range []struct {
		name, old, new, want string
	}{
		{"folder in use", "", "", "is in use by another holdfast process"},
		{"folder is a file", first.dir, file("plain", ""), "make the data folder"},
		{"no parent for the folder", first.dir, file("parent", "") + "/x", "make the data folder"},
		{"peer port in use", first.dir, dir + "/fresh", "this node's peer address in the configuration"},
		{"no secret file", "volumes:", "cluster: {secret_file: " + dir + "/none}\nvolumes:", "read the cluster's secret"},
		{"short secret", "volumes:", "cluster: {secret_file: " + file("short", "abc\n") + "}\nvolumes:", "shorter than 16 characters"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := &testNode{name: "x", dir: first.dir, config: fmt.Sprintf("%s/%d.yaml", dir, i), log: dir + "/log"}
			changed := strings.Replace(string(text), tt.old, tt.new, 1)
			if strings.Contains(tt.name, "secret") {
				changed = strings.Replace(changed, first.dir, fmt.Sprintf("%s/%d", dir, i), 1)
			}
			if err := os.WriteFile(n.config, []byte(changed), 0o600); err != nil {
				t.Fatal(err)
			}
			c.start(n)
			err := c.ended(n)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// TestListenAddressInUse lets another program hold the volume's address: the leader says so, and serves when it can.
func TestListenAddressInUse(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, clusterOptions{})
	free := occupy(t, c.addr)
	c.startAll()
	c.logged(c.leader(), "cannot listen yet")
	free()
	c.mustWrite(c.mount("4.1", "/data"), "f", []byte("x"))
}
