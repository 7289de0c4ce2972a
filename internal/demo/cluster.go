// Package demo runs a whole cluster as processes of this machine and shows a failover in it: the workload of package loadgen on a real NFSv4.1 connection, the
// leader killed in the middle, then a planned transfer, and at the end whether anything was lost.
package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"holdfast/internal/api"
)

// Node is one process of the demo's cluster.
type Node struct {
	Name    string
	Dir     string // its data folder
	Config  string // its own file
	Peer    string // host:port that the other nodes reach it at
	Witness bool
	api     *api.Client
	cmd     *exec.Cmd
	exited  chan struct{} // closed when cmd has ended
}

// Cluster is some nodes on this machine that serve NFS on one loopback address.
type Cluster struct {
	Addr   string // where NFS is served, host:port
	Nodes  []*Node
	binary string
}

// NewCluster prepares data nodes, and with witness a node more that holds no data, whose folders are below dir. There is no cluster before Form.
func NewCluster(binary, dir string, data int, witness bool) (*Cluster, error) {
	n := data
	if witness {
		n++
	}
	ports, err := freePorts(n + 1)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Addr: loopback(ports[n]), binary: binary}
	for i := range n {
		name := nodeName(i)
		node := &Node{
			Name: name, Dir: filepath.Join(dir, name), Config: filepath.Join(dir, name+".yaml"), Peer: loopback(ports[i]), Witness: i >= data,
		}
		node.api = api.NewClient(node.Dir)
		text := fmt.Sprintf("data: %s\nlisten: %s\n", node.Dir, node.Peer)
		if err := os.WriteFile(node.Config, []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("write the file of node %s: %w", name, err)
		}
		c.Nodes = append(c.Nodes, node)
	}
	return c, nil
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

func nodeName(i int) string { return string(rune('a' + i)) }

// The ports are below those that Linux gives to outgoing connections (ip_local_port_range): nobody takes one while its node is down for a moment.
const (
	minPort = 20000
	maxPort = 32000
)

// freePorts returns n TCP ports of the loopback address that are free now. All are held until all are found, so that they differ.
func freePorts(n int) ([]int, error) {
	const tries = 1000
	var ports []int
	var last error
	for range tries {
		if len(ports) == n {
			return ports, nil
		}
		port := minPort + rand.IntN(maxPort-minPort)
		ln, err := net.Listen("tcp", loopback(port))
		if err != nil {
			last = err
			continue
		}
		defer ln.Close()
		ports = append(ports, port)
	}
	return nil, fmt.Errorf("find free ports from %d to %d: %w", minPort, maxPort, last)
}

// Start starts a node. Its log goes to a file beside its data folder.
func (c *Cluster) Start(n *Node) error {
	logFile, err := os.OpenFile(n.Dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of node %s: %w", n.Name, err)
	}
	defer logFile.Close()
	cmd := exec.Command(c.binary, "serve", "--config", n.Config)
	cmd.Stdout, cmd.Stderr, cmd.Env = logFile, logFile, environment()
	// A demo that is itself killed leaves no nodes behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start node %s: %w", n.Name, err)
	}
	n.cmd, n.exited = cmd, make(chan struct{})
	go func(done chan struct{}) {
		// How it ended is in its log; Kill makes it an error on purpose.
		_ = cmd.Wait()
		close(done)
	}(n.exited)
	return nil
}

// Kill ends a node with SIGKILL, as a power cut would end it, and returns when it is gone.
func (c *Cluster) Kill(n *Node) error {
	if n.cmd == nil {
		return nil
	}
	if err := n.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill node %s: %w", n.Name, err)
	}
	<-n.exited
	n.cmd = nil
	return nil
}

// Close ends all nodes.
func (c *Cluster) Close() error {
	var errs []error
	for _, n := range c.Nodes {
		errs = append(errs, c.Kill(n))
		n.api.Close()
	}
	return errors.Join(errs...)
}

// PIDs returns the process ids of the running nodes.
func (c *Cluster) PIDs() []int {
	var pids []int
	for _, n := range c.Nodes {
		if n.cmd != nil {
			pids = append(pids, n.cmd.Process.Pid)
		}
	}
	return pids
}

// Leader waits until one node serves the volume and returns it.
func (c *Cluster) Leader(ctx context.Context) (*Node, api.VolumeStatus, error) {
	for {
		for _, n := range c.Nodes {
			if n.cmd == nil {
				continue
			}
			if err := n.alive(); err != nil {
				return nil, api.VolumeStatus{}, err
			}
			s, err := n.api.Status(ctx, true)
			if err == nil && len(s.Volumes) == 1 && s.Volumes[0].Serving {
				return n, s.Volumes[0], nil
			}
		}
		if !pause(ctx, 10*time.Millisecond) {
			return nil, api.VolumeStatus{}, fmt.Errorf("wait for a leader: %w", context.Cause(ctx))
		}
	}
}

// alive returns an error if a node that was started has ended, with what it said.
func (n *Node) alive() error {
	select {
	case <-n.exited:
		return fmt.Errorf("node %s ended by itself; its log %s.log says why:\n%s", n.Name, n.Dir, tail(n.Dir+".log"))
	default:
		return nil
	}
}

// tail returns the last bytes of a file, for an error message.
func tail(path string) string {
	const most = 2000
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return string(b)
}

// pause waits for d; false means that ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Port returns the port of Addr.
func (c *Cluster) Port() string {
	// Addr was made by NewCluster, of a host and a port.
	_, port, _ := net.SplitHostPort(c.Addr)
	return port
}
