package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
)

// Node is one Holdfast process, the machine that it runs on, and its data.
type Node struct {
	// Name is the node's, and that of the machine's port at the bridge.
	Name string
	Addr string
	// Data is the folder that it stores everything in.
	Data string
	Role cluster.Role
	// Disk is the file system of Data if that has one of its own.
	Disk *Disk
	// Process is the current one; it changes with every start.
	Process *Process

	cluster *Cluster
	netns   string
	config  string // file
	ahead   time.Duration
	api     *api.Client
}

// nodeConfig is a node's own file, see config.Local.
const nodeConfig = `data: %s
listen: ":%d"
health: ":%d"
log: {format: text, level: info}
`

// AddMachine makes a machine that belongs to no cluster yet.
func (c *Cluster) AddMachine() (*Node, error) {
	l := c.lab
	n := &Node{Name: string(rune('a' + c.made)), Addr: fmt.Sprintf("10.94.0.%d", firstNodeAddr+c.made), cluster: c}
	c.made++
	n.Data = filepath.Join(l.Dir, "node-"+n.Name)
	n.config = filepath.Join(l.Dir, "node-"+n.Name+".yaml")
	n.api = api.NewClient(n.Data)
	var err error
	if n.netns, err = l.Net.AddNode(n.Name, n.Addr); err != nil {
		return nil, err
	}
	if c.options.DiskBytes > 0 {
		if n.Disk, err = l.AddDisk("node-"+n.Name, c.options.DiskBytes); err != nil {
			return nil, err
		}
	}
	return n, os.WriteFile(n.config, fmt.Appendf(nil, nodeConfig, n.Data, nodePort, healthPort), 0o644)
}

// peer is where other nodes reach it.
func (n *Node) peer() string { return fmt.Sprintf("%s:%d", n.Addr, nodePort) }

// init makes the cluster, with its first node, and starts that.
func (c *Cluster) init(ctx context.Context, n *Node) error {
	n.Role = cluster.RoleData
	if _, err := n.Holdfast(ctx, "init", "--cluster", "lab", "--name", n.Name, "--peer", n.peer(), "--no-start"); err != nil {
		return err
	}
	return c.begin(ctx, n)
}

// Join lets a machine join with a role, and starts it.
func (c *Cluster) Join(ctx context.Context, n *Node, role cluster.Role) error {
	n.Role = role
	return c.join(ctx, n, "node", "add", "--role", string(role))
}

// Replace lets a machine take the place of a member. It may be that member's own, without its data.
func (c *Cluster) Replace(ctx context.Context, old, n *Node) error {
	n.Role = old.Role
	c.drop(old)
	return c.join(ctx, n, "node", "replace", old.Name)
}

// Remove removes a node from the cluster, and ends it.
func (c *Cluster) Remove(ctx context.Context, n *Node) error {
	c.drop(n)
	if _, err := c.Nodes[0].Holdfast(ctx, "node", "remove", n.Name); err != nil {
		return err
	}
	return n.Process.Kill()
}

func (c *Cluster) drop(n *Node) {
	c.Nodes = slices.DeleteFunc(c.Nodes, func(o *Node) bool { return o == n })
}

// join gets a token by a command on a member that runs, joins with it, and starts the node.
func (c *Cluster) join(ctx context.Context, n *Node, command ...string) error {
	out, err := c.Nodes[0].Holdfast(ctx, append(command, "-o", "json")...)
	if err != nil {
		return err
	}
	var token api.TokenResult
	if err := json.Unmarshal([]byte(out), &token); err != nil {
		return fmt.Errorf("decode the token %q: %w", out, err)
	}
	if _, err := n.Holdfast(ctx, "join", token.Address, "--token", token.Token, "--name", n.Name, "--peer", n.peer(), "--no-start"); err != nil {
		return err
	}
	return c.begin(ctx, n)
}

// begin starts a node for the first time, and waits until it knows of the cluster that it is in.
func (c *Cluster) begin(ctx context.Context, n *Node) error {
	if err := n.Start(); err != nil {
		return err
	}
	c.lab.onClose(func() error { return n.Process.Kill() })
	c.Nodes = append(c.Nodes, n)
	for {
		asked, cancel := context.WithTimeout(ctx, statusTimeout)
		s, err := n.api.Status(asked, true)
		cancel()
		if err == nil && slices.ContainsFunc(s.Nodes, func(m api.NodeStatus) bool { return m.Name == n.Name }) {
			return nil
		}
		if err := n.Process.pause(ctx, pollEvery); err != nil {
			return fmt.Errorf("node %s does not take part in a cluster: %w; its log:\n%s", n.Name, err, n.Log(20))
		}
	}
}

// Start runs the node's process, for the first time or again. Its log is appended to.
func (n *Node) Start() (err error) {
	n.Process, err = startProcess(n.cluster.lab.spawn, n.netns, "node "+n.Name,
		filepath.Join(n.cluster.lab.Dir, "node-"+n.Name+".log"), n.cluster.options.Binary, "serve", "--config", n.config)
	if err != nil || n.ahead == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), clockTimeout)
	defer cancel()
	return n.startClock(ctx)
}

// Holdfast runs a command on the node's machine and returns what it printed.
func (n *Node) Holdfast(ctx context.Context, args ...string) (string, error) {
	return holdfast(ctx, n.cluster.options.Binary, n.netns, append([]string{"--data", n.Data}, args...)...)
}

// LoseDisk kills the node and deletes all that it has stored.
func (n *Node) LoseDisk() error {
	if err := n.Process.Kill(); err != nil {
		return err
	}
	return os.RemoveAll(n.Data)
}

// Log returns the last lines of the node's log.
func (n *Node) Log(lines int) string { return n.Process.tail(lines) }

// volume asks the node for its view of a volume.
func (n *Node) volume(ctx context.Context, name string) (api.VolumeStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	s, err := n.api.Status(ctx, true)
	if err != nil {
		return api.VolumeStatus{}, err
	}
	for _, v := range s.Volumes {
		if v.Name == name {
			return v, nil
		}
	}
	return api.VolumeStatus{}, fmt.Errorf("node %s has no volume %s", n.Name, name)
}

// Loss is a way to lose a node.
type Loss string

// The ways to lose a node.
const (
	LossKill     Loss = "SIGKILL"   // its process dies
	LossStop     Loss = "SIGSTOP"   // it hangs
	LossLink     Loss = "link down" // it is cut off
	LossTransfer Loss = "transfer"  // it hands over
)

// Lose makes the cluster lose this node, and returns what undoes that.
func (c *Cluster) Lose(ctx context.Context, n *Node, how Loss) (heal func() error, err error) {
	switch how {
	case LossKill:
		return n.Start, n.Process.Kill()
	case LossStop:
		p := n.Process
		return func() error { return p.Signal(syscall.SIGCONT) }, p.Signal(syscall.SIGSTOP)
	case LossLink:
		return func() error { return c.lab.Net.LinkUp(n.Name) }, c.lab.Net.LinkDown(n.Name)
	case LossTransfer:
		for i, o := range c.Nodes {
			if o == n {
				to := c.Nodes[(i+1)%len(c.Nodes)]
				return func() error { return nil }, c.Transfer(ctx, n, to)
			}
		}
	}
	return nil, errors.New("no such loss: " + string(how))
}
