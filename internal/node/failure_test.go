package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/identity"
	"holdfast/internal/join"
	"holdfast/internal/link"
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
		c.join(lost, cluster.RoleData, lost.name)
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
				return err == nil && !v.Serving && v.Leader == "" && strings.Contains(strings.Join(s.Warnings, "\n"), "no node serves it")
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
const killTime = 12 * time.Second

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

// TestStrangers has nodes join with tokens that are worth nothing, and connects with the certificate of another cluster: they stay outside, and hear why.
func TestStrangers(t *testing.T) {
	checkGoroutines(t)
	c, other := newCluster(t, clusterOptions{}), newCluster(t, clusterOptions{roles: []cluster.Role{cluster.RoleData}})
	ctx := c.context()
	token := func(c *testCluster, lifetime time.Duration) string {
		var r api.TokenResult
		var err error
		await(t, testTimeout, func() bool {
			r, err = c.nodes[0].api().Token(ctx, api.TokenRequest{Role: "data", Lifetime: lifetime})
			return err == nil
		}, func() string { return fmt.Sprint(err) })
		return r.Token
	}
	good := token(c, time.Hour)
	used := token(c, time.Hour)
	short := token(c, 2*time.Second)
	expiry := time.Now().Add(3 * time.Second)
	try := func(token string) error {
		_, err := join.Join(ctx, c.nodes[1].peer, token, join.Options{Data: t.TempDir(), Name: "z", Peer: c.network + ".9:7420"})
		return err
	}
	if err := try(used); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, token, want string }{
		{"used", used, "it was used"},
		{"of another cluster", token(other, time.Hour), "not of the cluster that the token was made by"},
		{"cut off", good[:len(good)-2], "token"},
		{"nonsense", "hello", "token"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := try(tt.token); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	await(t, testTimeout, func() bool { return time.Now().After(expiry) }, func() string { return "the clock stands still" })
	if err := try(short); err == nil || !strings.Contains(err.Error(), "expired") && !strings.Contains(err.Error(), "not known") {
		t.Errorf("an expired token: %v", err)
	}
	id, err := identity.Load(identity.Dir(other.nodes[0].dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := knock(ctx, id, c.nodes[0].peer); err == nil {
		t.Error("a node of another cluster was let in")
	}
	// A node that was removed is not let in any more.
	id, err = identity.Load(identity.Dir(c.nodes[2].dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := knock(ctx, id, c.nodes[0].peer); err != nil {
		t.Errorf("a node was not let in: %v", err)
	}
	c.mustDo(cluster.Command{RemoveNode: &cluster.RemoveNode{Name: "z", Force: true}})
	c.mustDo(cluster.Command{RemoveNode: &cluster.RemoveNode{Name: "c", Force: true}})
	await(t, testTimeout, func() bool {
		s, err := c.nodes[0].api().State(ctx)
		return err == nil && s.NodeNamed("c") == nil
	}, func() string { return "the node is not removed" })
	if err := knock(ctx, id, c.nodes[0].peer); err == nil || !errors.Is(err, link.ErrRefused) {
		t.Errorf("a removed node was let in, or hears something else: %v", err)
	}
}

// knock asks a node for its status, with an identity.
func knock(ctx context.Context, id *identity.Identity, addr string) error {
	creds, err := id.Credentials()
	if err != nil {
		return err
	}
	dialer := link.Dialer{Creds: creds}
	cl := api.NewRemoteClient(addr, "", func(ctx context.Context) (net.Conn, error) { return dialer.Dial(ctx, addr, 0, link.ProtoAPI) })
	defer cl.Close()
	_, err = cl.Status(ctx, true)
	return err
}

// TestStartErrors starts nodes that cannot work, and wants to be told what to do.
func TestStartErrors(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, clusterOptions{roles: []cluster.Role{cluster.RoleData}}).startAll()
	first := c.nodes[0]
	copied, whole := filepath.Join(t.TempDir(), "copy"), filepath.Join(t.TempDir(), "whole")
	for _, folder := range []string{filepath.Join(copied, "identity"), filepath.Join(whole, "identity"), filepath.Join(whole, "cluster")} {
		if err := os.CopyFS(folder, os.DirFS(filepath.Join(first.dir, filepath.Base(folder)))); err != nil {
			t.Fatal(err)
		}
	}
	groups, err := os.ReadFile(filepath.Join(first.dir, "groups.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(whole, "groups.json"), groups, 0o600); err != nil {
		t.Fatal(err)
	}
	for i, tt := range []struct {
		name, data, listen, want string
	}{
		{"folder in use", first.dir, c.network + ".8:7420", "is in use by another holdfast process"},
		{"no identity", t.TempDir(), c.network + ".8:7420", "run holdfast init or holdfast join"},
		{"port in use", whole, first.peer, "`listen` in the node's file"},
		{"half a folder", copied, c.network + ".8:7420", "the data folder is not whole"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := &testNode{name: "x", dir: tt.data, file: fmt.Sprintf("%s/%d.yaml", t.TempDir(), i), log: c.dir + "/x.log"}
			if err := os.WriteFile(n.file, []byte(fmt.Sprintf("data: %s\nlisten: %s\n", tt.data, tt.listen)), 0o600); err != nil {
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
