package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/config"
	"holdfast/internal/join"
	"holdfast/internal/loadgen"
	"holdfast/internal/nfsclient"
)

// testTimeout bounds what a test waits for: enough for a machine with much else to do.
const testTimeout = 30 * time.Second

// testNode is one member, a goroutine of this process or a process of its own.
type testNode struct {
	name string
	dir  string // its data folder
	peer string // its address
	file string // its own file
	log  string // path of its log

	// While it runs:
	cancel context.CancelFunc // a goroutine
	cmd    *exec.Cmd          // a process
	done   chan error
}

func (n *testNode) running() bool { return n.done != nil }

func (n *testNode) api() *api.Client { return api.NewClient(n.dir) }

// testCluster is nodes that serve one volume on a loopback address of its own: 127.x.y.100, the nodes 127.x.y.1 and so on. Nobody else is there, so ports are never taken.
type testCluster struct {
	t       testing.TB
	dir     string
	network string
	nodes   []*testNode
	all     []*testNode // those that were replaced, too
	addr    string
	options clusterOptions
}

const defaultExports = `
      - path: /data
        mode: "1777"
        clients:
          - {match: 127.0.0.0/8, options: [rw, no_root_squash]}`

type clusterOptions struct {
	// processes makes nodes processes of their own, which can be killed.
	processes bool
	exports   string
	// roles of the nodes; three data nodes unless given. The first is a data node.
	roles []cluster.Role
	extra string // further keys of the volume
	// space stands for the size of the nodes' disks, if they are no processes.
	space  func(data string) (free, total uint64, err error)
	tuning tuning // of nodes that are no processes; testTuning unless given
	local  string // further lines of the nodes' own files; NETWORK stands for the first three bytes of the cluster's addresses
}

// newCluster forms a cluster whose nodes run. There is no volume before startAll.
func newCluster(t testing.TB, o clusterOptions) *testCluster {
	t.Helper()
	if o.exports == "" {
		o.exports = defaultExports
	}
	if o.roles == nil {
		o.roles = []cluster.Role{cluster.RoleData, cluster.RoleData, cluster.RoleData}
	}
	network := freeNetwork(t)
	c := &testCluster{t: t, dir: t.TempDir(), network: network, addr: network + ".100:2049", options: o}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			c.kill(n)
		}
		c.checkLogs()
		if t.Failed() {
			c.showLogs()
		}
	})
	first := c.newNode("a")
	if _, err := join.Init(join.Options{Data: first.dir, Name: first.name, Peer: first.peer, Cluster: "test"}); err != nil {
		t.Fatal(err)
	}
	c.start(first)
	for i, role := range o.roles[1:] {
		c.join(c.newNode(string(rune('b'+i))), role, "")
	}
	return c
}

// newNode makes a node that belongs to no cluster.
func (c *testCluster) newNode(name string) *testNode {
	c.t.Helper()
	n := &testNode{name: name, peer: fmt.Sprintf("%s.%d:7420", c.network, len(c.all)+1)}
	n.dir, n.file, n.log = filepath.Join(c.dir, name), filepath.Join(c.dir, name+".yaml"), filepath.Join(c.dir, name+".log")
	if err := os.WriteFile(n.file, []byte(fmt.Sprintf("data: %s\nlisten: %s\n%s", n.dir, n.peer, strings.ReplaceAll(c.options.local, "NETWORK", c.network))), 0o600); err != nil {
		c.t.Fatal(err)
	}
	c.nodes, c.all = append(c.nodes, n), append(c.all, n)
	return n
}

// forget takes a node that is gone for good out of the test's list.
func (c *testCluster) forget(n *testNode) {
	c.nodes = slices.DeleteFunc(slices.Clone(c.nodes), func(o *testNode) bool { return o == n })
}

// join lets a node join and starts it.
func (c *testCluster) join(n *testNode, role cluster.Role, replaces string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	var token api.TokenResult
	var err error
	var via *testNode
	for _, via = range c.nodes {
		if via != n && via.running() {
			break
		}
	}
	await(c.t, testTimeout, func() bool {
		token, err = via.api().Token(ctx, api.TokenRequest{Role: string(role), Lifetime: time.Hour, Replaces: replaces})
		return err == nil
	}, func() string { return fmt.Sprintf("no token: %v", err) })
	if _, err := join.Join(ctx, token.Address, token.Token, join.Options{Data: n.dir, Name: n.name, Peer: n.peer}); err != nil {
		c.t.Fatalf("node %s does not join: %v", n.name, err)
	}
	c.start(n)
}

// freeNetwork returns the first three bytes of a loopback network that nobody uses.
func freeNetwork(t testing.TB) string {
	t.Helper()
	for range 100 {
		network := fmt.Sprintf("127.%d.%d", 1+rand.IntN(254), 1+rand.IntN(254))
		ln, err := net.Listen("tcp", network+".100:2049")
		if err == nil {
			ln.Close()
			return network
		}
	}
	t.Fatal("no loopback network is free")
	return ""
}

// checkLogs fails the test if a node that was a process of its own died of its own, or raced.
func (c *testCluster) checkLogs() {
	c.t.Helper()
	for _, n := range c.all {
		b, err := os.ReadFile(n.log)
		if err != nil {
			continue // it was never started
		}
		for _, bad := range []string{"DATA RACE", "panic:", "fatal error:", "[running]:"} {
			if i := strings.Index(string(b), bad); i >= 0 {
				c.t.Errorf("node %s: %.3000s", n.name, b[i:])
			}
		}
	}
}

// showLogs prints the end of each node's log.
func (c *testCluster) showLogs() {
	const most = 6000
	for _, n := range c.all {
		b, err := os.ReadFile(n.log)
		if err != nil {
			continue
		}
		c.t.Logf("log of node %s:\n%s", n.name, b[max(0, len(b)-most):])
	}
}

// spec is the volume's configuration.
func (c *testCluster) spec() config.VolumeSpec {
	c.t.Helper()
	text := fmt.Sprintf("volumes:\n  - name: v\n    address: {kind: listen}\n    listen: %s\n    reserve: 16MiB\n%s    exports:%s\n", c.addr, c.options.extra, c.options.exports)
	s, err := config.ParseSpec("test", []byte(text))
	if err != nil {
		c.t.Fatal(err)
	}
	return s.Volumes[0]
}

// startAll makes the volume and waits until all nodes take part in it.
func (c *testCluster) startAll() *testCluster {
	c.t.Helper()
	c.mustDo(cluster.Command{AddVolume: &cluster.AddVolume{Spec: c.spec()}})
	c.inSync(len(c.nodes))
	return c
}

// mustDo executes a command of the cluster.
func (c *testCluster) mustDo(cmd cluster.Command) cluster.Result {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	for _, n := range c.nodes {
		if !n.running() {
			continue
		}
		var r cluster.Result
		var err error
		await(c.t, testTimeout, func() bool {
			r, err = n.api().Do(ctx, cmd)
			return err == nil || !strings.Contains(err.Error(), "no node is running")
		}, func() string { return fmt.Sprint(err) })
		if err != nil {
			c.t.Fatal(err)
		}
		return r
	}
	c.t.Fatal("no node runs")
	return cluster.Result{}
}

func (c *testCluster) start(n *testNode) {
	c.t.Helper()
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	done := make(chan error, 1)
	n.done = done
	if c.options.processes {
		defer log.Close()
		n.cmd = exec.Command(os.Args[0])
		n.cmd.Env = append(os.Environ(), nodeEnv+"="+n.file)
		n.cmd.Stdout, n.cmd.Stderr = log, log
		n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := n.cmd.Start(); err != nil {
			c.t.Fatal(err)
		}
		cmd := n.cmd
		go func() { done <- cmd.Wait() }()
		return
	}
	local, err := config.LoadLocal(n.file)
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	t := testTuning
	if c.options.tuning.segmentBytes != 0 {
		t = c.options.tuning
	}
	t.space = c.options.space
	go func() {
		defer log.Close()
		done <- run(ctx, local, "test", slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), t)
	}()
}

// stop ends a node in good order and returns what it ended with.
func (c *testCluster) stop(n *testNode) error {
	c.t.Helper()
	if n.cmd != nil {
		c.signal(n, syscall.SIGTERM)
	} else {
		n.cancel()
	}
	return c.ended(n)
}

func (c *testCluster) mustStop(n *testNode) {
	c.t.Helper()
	if err := c.stop(n); err != nil {
		c.t.Fatalf("node %s: %v", n.name, err)
	}
}

// kill ends a node at once if it is a process; it does nothing to one that does not run.
func (c *testCluster) kill(n *testNode) {
	c.t.Helper()
	switch {
	case !n.running():
		return
	case n.cmd != nil:
		_ = n.cmd.Process.Kill() // it may have ended
	default:
		n.cancel()
	}
	_ = c.ended(n)
}

// signal sends a signal to a node that is a process.
func (c *testCluster) signal(n *testNode, sig syscall.Signal) {
	c.t.Helper()
	if err := n.cmd.Process.Signal(sig); err != nil {
		c.t.Fatalf("node %s: %v", n.name, err)
	}
}

func (c *testCluster) ended(n *testNode) error {
	c.t.Helper()
	select {
	case err := <-n.done:
		n.done, n.cmd, n.cancel = nil, nil, nil
		return err
	case <-time.After(testTimeout):
		c.t.Fatalf("node %s does not end", n.name)
		return nil
	}
}

// look returns a running node's view of the volume.
func (c *testCluster) look(n *testNode) (api.Status, api.VolumeStatus, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s, err := n.api().Status(ctx, true)
	if err != nil {
		return s, api.VolumeStatus{}, err
	}
	if len(s.Volumes) != 1 {
		return s, api.VolumeStatus{}, errors.New("no volume")
	}
	return s, s.Volumes[0], nil
}

// leader waits until a node serves, and returns it.
func (c *testCluster) leader() *testNode {
	c.t.Helper()
	var found *testNode
	await(c.t, testTimeout, func() bool {
		for _, n := range c.nodes {
			if !n.running() {
				continue
			}
			select {
			case err := <-n.done:
				n.done <- err
				c.t.Fatalf("node %s has ended: %v", n.name, err)
			default:
			}
			if _, v, err := c.look(n); err == nil && v.Serving && v.Role == "leader" {
				found = n
				return true
			}
		}
		return false
	}, func() string { return "no node serves" })
	return found
}

// other returns a running node that is not n.
func (c *testCluster) other(n *testNode) *testNode {
	c.t.Helper()
	for _, o := range c.nodes {
		if o != n && o.running() {
			return o
		}
	}
	c.t.Fatal("no other node runs")
	return nil
}

// inSync waits until the leader sees count replicas in sync.
func (c *testCluster) inSync(count int) {
	c.t.Helper()
	var last api.VolumeStatus
	await(c.t, testTimeout, func() bool {
		_, v, err := c.look(c.leader())
		if err != nil {
			return false
		}
		last = v
		n := 0
		for _, r := range v.Replicas {
			if r.InSync && !r.Learner {
				n++
			}
		}
		return n >= count && !v.Changing
	}, func() string { return fmt.Sprintf("replicas are not in sync: %+v", last.Replicas) })
}

// transfer moves the leadership to a node, again if a busy machine has others elect each other meanwhile.
func (c *testCluster) transfer(to *testNode) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	var err error
	await(c.t, testTimeout, func() bool {
		from := c.leader()
		if from != to {
			_, err = from.api().Transfer(ctx, "v", to.name)
		}
		return c.leader() == to
	}, func() string { return fmt.Sprintf("the lead does not go to node %s: %v", to.name, err) })
}

// equal waits until all replicas are there, and compares them.
func (c *testCluster) equal() {
	c.t.Helper()
	want := slices.DeleteFunc(slices.Clone(c.options.roles), func(r cluster.Role) bool { return r == cluster.RoleWitness })
	c.inSync(len(c.options.roles))
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	res, err := api.NewClient(c.leader().dir).Check(ctx, "v")
	if err != nil {
		c.t.Fatal(err)
	}
	if !res.Equal || len(res.Replicas) != len(want) || len(res.Missing) != 0 {
		c.t.Errorf("replicas: %+v", res)
	}
	for _, r := range res.Replicas {
		if r.Digest == "" || r.Index != res.Replicas[0].Index {
			c.t.Errorf("replica %+v", r)
		}
	}
}

func (c *testCluster) context() context.Context {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*testTimeout)
	c.t.Cleanup(cancel)
	return ctx
}

// mount mounts an export; it is unmounted at the end of the test.
func (c *testCluster) mount(version, export string) nfsclient.Client {
	c.t.Helper()
	cl, err := nfsclient.Mount(c.context(), nfsclient.Config{Address: c.addr, Export: export, Version: version, IOBytes: 64 << 10})
	if err != nil {
		c.t.Fatalf("mount %s with version %s: %v", export, version, err)
	}
	c.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = cl.Close(ctx) // the nodes may be gone
	})
	return cl
}

// write makes or overwrites a file.
func (c *testCluster) write(cl nfsclient.Client, name string, content []byte) error {
	ctx := c.context()
	f, err := cl.Open(ctx, cl.Root(), name, nfsclient.OpenOptions{Create: nfsclient.Unchecked})
	if err != nil {
		return err
	}
	if err := f.Write(ctx, content, 0, nfsclient.FileSync); err != nil {
		return err
	}
	return f.Close(ctx)
}

func (c *testCluster) mustWrite(cl nfsclient.Client, name string, content []byte) {
	c.t.Helper()
	if err := c.write(cl, name, content); err != nil {
		c.t.Fatalf("write %s: %v", name, err)
	}
}

// mustRead checks what a file holds.
func (c *testCluster) mustRead(cl nfsclient.Client, name string, want []byte) {
	c.t.Helper()
	ctx := c.context()
	f, err := cl.Open(ctx, cl.Root(), name, nfsclient.OpenOptions{Read: true})
	if err != nil {
		c.t.Fatalf("open %s: %v", name, err)
	}
	got := make([]byte, len(want)+1)
	n, _, err := f.Read(ctx, got, 0)
	if err != nil {
		c.t.Fatalf("read %s: %v", name, err)
	}
	if string(got[:n]) != string(want) {
		c.t.Errorf("%s holds %d bytes %.40q, want %d bytes %.40q", name, n, got[:n], len(want), want)
	}
	if err := f.Close(ctx); err != nil {
		c.t.Fatal(err)
	}
}

// workload starts the workload that remembers what it was promised.
func (c *testCluster) workload() *loadgen.Workload {
	c.t.Helper()
	working, cut := context.WithCancel(context.Background())
	w, err := loadgen.StartWorkload(working, loadgen.WorkloadConfig{
		Mount: loadgen.MountWith(nfsclient.Config{Address: c.addr, Export: "/data"}),
	})
	if err != nil {
		cut()
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		cut() // or workers whose server is gone would wait for it
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		w.Close(ctx)
	})
	return w
}

// busy waits until the workload has done some more.
func (c *testCluster) busy(w *loadgen.Workload, ops uint64) {
	c.t.Helper()
	start := w.Live().Ops
	await(c.t, testTimeout, func() bool { return w.Live().Ops >= start+ops }, func() string {
		return fmt.Sprintf("the workload stands still: %+v", w.Live())
	})
}

// verify stops the workload and checks that it lost nothing.
func (c *testCluster) verify(w *loadgen.Workload) {
	c.t.Helper()
	w.Stop()
	rep, err := w.Verify(c.context())
	if err != nil {
		c.t.Fatal(err)
	}
	if !rep.OK() {
		c.t.Errorf("%+v", rep)
	}
	c.t.Logf("%d operations, %d bytes acknowledged, none lost", rep.Ops, rep.AckedBytes)
}

// logged waits until a node's log has text in it.
func (c *testCluster) logged(n *testNode, text string) {
	c.t.Helper()
	await(c.t, testTimeout, func() bool {
		b, err := os.ReadFile(n.log)
		return err == nil && strings.Contains(string(b), text)
	}, func() string { return fmt.Sprintf("node %s does not log %q", n.name, text) })
}
