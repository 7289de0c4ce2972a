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
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/config"
	"holdfast/internal/loadgen"
	"holdfast/internal/nfsclient"
)

// testTimeout bounds what a test waits for: enough for a machine with much else to do.
const testTimeout = 30 * time.Second

// testNode is one member, a goroutine of this process or a process of its own.
type testNode struct {
	name   string
	dir    string // its data folder
	config string
	log    string // path of its log

	// While it runs:
	cancel context.CancelFunc // a goroutine
	cmd    *exec.Cmd          // a process
	done   chan error
}

func (n *testNode) running() bool { return n.done != nil }

// cluster is three nodes that serve one volume on a loopback address of its own: 127.x.y.100, the nodes 127.x.y.1 to 3. Nobody else is there, so ports are never taken.
type cluster struct {
	t     testing.TB
	nodes []*testNode
	addr  string
	// processes makes nodes processes of their own, which can be killed.
	processes bool
}

const defaultExports = `
      - path: /data
        mode: "1777"
        clients:
          - {match: 127.0.0.0/8, options: [rw, no_root_squash]}`

type clusterOptions struct {
	processes bool
	exports   string
	extra     string // further top-level keys
}

func newCluster(t testing.TB, o clusterOptions) *cluster {
	t.Helper()
	if o.exports == "" {
		o.exports = defaultExports
	}
	network := freeNetwork(t)
	c := &cluster{t: t, addr: network + ".100:2049", processes: o.processes}
	dir := t.TempDir()
	members := ""
	for i := range 3 {
		members += fmt.Sprintf("  - {name: %c, peer: \"%s.%d:7400\"}\n", 'a'+i, network, i+1)
	}
	for i := range 3 {
		name := string(rune('a' + i))
		n := &testNode{name: name, dir: filepath.Join(dir, name), config: filepath.Join(dir, name+".yaml"), log: filepath.Join(dir, name+".log")}
		text := fmt.Sprintf("node: %s\ndata: %s\nnodes:\n%svolumes:\n  - name: v\n    address: {kind: listen}\n    listen: %s\n    reserve: 16MiB\n    exports:%s\n%s",
			name, n.dir, members, c.addr, o.exports, o.extra)
		if err := os.WriteFile(n.config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c.nodes = append(c.nodes, n)
	}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			c.kill(n)
		}
		c.checkLogs()
		if t.Failed() {
			c.showLogs()
		}
	})
	return c
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
func (c *cluster) checkLogs() {
	c.t.Helper()
	for _, n := range c.nodes {
		b, err := os.ReadFile(n.log)
		if err != nil {
			continue // it was never started
		}
		for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
			if i := strings.Index(string(b), bad); i >= 0 {
				c.t.Errorf("node %s: %.3000s", n.name, b[i:])
			}
		}
	}
}

// showLogs prints the end of each node's log.
func (c *cluster) showLogs() {
	const most = 6000
	for _, n := range c.nodes {
		b, err := os.ReadFile(n.log)
		if err != nil {
			continue
		}
		c.t.Logf("log of node %s:\n%s", n.name, b[max(0, len(b)-most):])
	}
}

// startAll starts the nodes and waits until one serves.
func (c *cluster) startAll() *cluster {
	c.t.Helper()
	for _, n := range c.nodes {
		c.start(n)
	}
	c.leader()
	return c
}

func (c *cluster) start(n *testNode) {
	c.t.Helper()
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	done := make(chan error, 1)
	n.done = done
	if c.processes {
		defer log.Close()
		n.cmd = exec.Command(os.Args[0])
		n.cmd.Env = append(os.Environ(), nodeEnv+"="+n.config)
		n.cmd.Stdout, n.cmd.Stderr = log, log
		n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := n.cmd.Start(); err != nil {
			c.t.Fatal(err)
		}
		cmd := n.cmd
		go func() { done <- cmd.Wait() }()
		return
	}
	cfg, err := config.Load(n.config, "")
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	go func() {
		defer log.Close()
		done <- run(ctx, cfg, "test", slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), testTuning)
	}()
}

// stop ends a node in good order and returns what it ended with.
func (c *cluster) stop(n *testNode) error {
	c.t.Helper()
	if n.cmd != nil {
		c.signal(n, syscall.SIGTERM)
	} else {
		n.cancel()
	}
	return c.ended(n)
}

func (c *cluster) mustStop(n *testNode) {
	c.t.Helper()
	if err := c.stop(n); err != nil {
		c.t.Fatalf("node %s: %v", n.name, err)
	}
}

// kill ends a node at once if it is a process; it does nothing to one that does not run.
func (c *cluster) kill(n *testNode) {
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
func (c *cluster) signal(n *testNode, sig syscall.Signal) {
	c.t.Helper()
	if err := n.cmd.Process.Signal(sig); err != nil {
		c.t.Fatalf("node %s: %v", n.name, err)
	}
}

func (c *cluster) ended(n *testNode) error {
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
func (c *cluster) look(n *testNode) (api.Status, api.VolumeStatus, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s, err := api.NewClient(n.dir).Status(ctx)
	if err != nil {
		return s, api.VolumeStatus{}, err
	}
	if len(s.Volumes) != 1 {
		return s, api.VolumeStatus{}, errors.New("no volume")
	}
	return s, s.Volumes[0], nil
}

// leader waits until a node serves, and returns it.
func (c *cluster) leader() *testNode {
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
			if _, v, err := c.look(n); err == nil && v.Serving {
				found = n
				return true
			}
		}
		return false
	}, func() string { return "no node serves" })
	return found
}

// other returns a running node that is not n.
func (c *cluster) other(n *testNode) *testNode {
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
func (c *cluster) inSync(count int) {
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
			if r.InSync {
				n++
			}
		}
		return n >= count
	}, func() string { return fmt.Sprintf("replicas are not in sync: %+v", last.Replicas) })
}

// transfer moves the leadership to a node.
func (c *cluster) transfer(to *testNode) {
	c.t.Helper()
	from := c.leader()
	if from == to {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	if _, err := api.NewClient(from.dir).Transfer(ctx, "v", to.name); err != nil {
		c.t.Fatalf("transfer from %s to %s: %v", from.name, to.name, err)
	}
	if got := c.leader(); got != to {
		c.t.Fatalf("node %s leads, not %s", got.name, to.name)
	}
}

// equal waits until all replicas are there, and compares them.
func (c *cluster) equal() {
	c.t.Helper()
	c.inSync(3)
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	res, err := api.NewClient(c.leader().dir).Check(ctx, "v")
	if err != nil {
		c.t.Fatal(err)
	}
	if !res.Equal || len(res.Replicas) != 3 || len(res.Missing) != 0 {
		c.t.Errorf("replicas: %+v", res)
	}
	for _, r := range res.Replicas {
		if r.Digest == "" || r.Index != res.Replicas[0].Index {
			c.t.Errorf("replica %+v", r)
		}
	}
}

func (c *cluster) context() context.Context {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*testTimeout)
	c.t.Cleanup(cancel)
	return ctx
}

// mount mounts an export; it is unmounted at the end of the test.
func (c *cluster) mount(version, export string) nfsclient.Client {
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
func (c *cluster) write(cl nfsclient.Client, name string, content []byte) error {
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

func (c *cluster) mustWrite(cl nfsclient.Client, name string, content []byte) {
	c.t.Helper()
	if err := c.write(cl, name, content); err != nil {
		c.t.Fatalf("write %s: %v", name, err)
	}
}

// mustRead checks what a file holds.
func (c *cluster) mustRead(cl nfsclient.Client, name string, want []byte) {
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
func (c *cluster) workload() *loadgen.Workload {
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
func (c *cluster) busy(w *loadgen.Workload, ops uint64) {
	c.t.Helper()
	start := w.Live().Ops
	await(c.t, testTimeout, func() bool { return w.Live().Ops >= start+ops }, func() string {
		return fmt.Sprintf("the workload stands still: %+v", w.Live())
	})
}

// verify stops the workload and checks that it lost nothing.
func (c *cluster) verify(w *loadgen.Workload) {
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
func (c *cluster) logged(n *testNode, text string) {
	c.t.Helper()
	await(c.t, testTimeout, func() bool {
		b, err := os.ReadFile(n.log)
		return err == nil && strings.Contains(string(b), text)
	}, func() string { return fmt.Sprintf("node %s does not log %q", n.name, text) })
}
