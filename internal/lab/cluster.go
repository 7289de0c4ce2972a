package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
)

const (
	clusterVolume  = "main"
	clusterAddr    = "10.94.0.100"
	clusterNFSPort = 2049
	// firstNodeAddr is the last byte of node a's address; the others follow.
	firstNodeAddr = 11
	nodePort      = 7420
	healthPort    = 7421
	// statusTimeout bounds a question to a node that may be stopped.
	statusTimeout = 500 * time.Millisecond
	// pollEvery is how often nodes are asked while the harness waits for a state that nobody announces.
	pollEvery = 10 * time.Millisecond
	// clockTimeout bounds the wait for a process that just begins to go by the clock of its machine.
	clockTimeout = 10 * time.Second
	// formTimeout bounds the forming of a cluster.
	formTimeout = time.Minute
)

// ClusterOptions say what cluster to form.
type ClusterOptions struct {
	// Binary is Holdfast; it is built if this is empty.
	Binary string
	// Roles of the nodes, the first of which is a data node: see DataNodes.
	Roles []cluster.Role
	// Copies of the volume that are wanted; 3 unless given.
	Copies int
	// DiskBytes gives each node a file system of that size; 0: the lab's folder.
	DiskBytes int64
	// Volume are further flags of `holdfast volume create`.
	Volume []string
}

// DataNodes are the roles of so many data nodes.
func DataNodes(count int) []cluster.Role {
	return slices.Repeat([]cluster.Role{cluster.RoleData}, count)
}

// TwoPlusWitness are the roles of the smallest cluster that survives the loss of any node.
func TwoPlusWitness() []cluster.Role { return append(DataNodes(2), cluster.RoleWitness) }

// Cluster is a number of Holdfast nodes, each in a namespace of its own, that serve one volume on one address.
type Cluster struct {
	// Nodes are those that belong to the cluster.
	Nodes []*Node

	lab     *Lab
	options ClusterOptions
	made    int // nodes so far, those that are gone included
}

// StartCluster forms a cluster of so many data nodes with one volume and waits until all are in sync. Holdfast is built unless a binary is given.
func (l *Lab) StartCluster(ctx context.Context, nodes int, binary string) (*Cluster, error) {
	return l.FormCluster(ctx, ClusterOptions{Binary: binary, Roles: DataNodes(nodes)})
}

// FormCluster forms a cluster with one volume, as an administrator does, and waits until all nodes are in sync.
func (l *Lab) FormCluster(ctx context.Context, o ClusterOptions) (*Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, formTimeout)
	defer cancel()
	c, err := l.FormNodes(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := c.CreateVolume(ctx); err != nil {
		return nil, err
	}
	leader, err := c.AwaitHealthy(ctx)
	if err != nil {
		return nil, err
	}
	return c, l.awaitPort(ctx, leader.Process, fmt.Sprintf("%s:%d", clusterAddr, clusterNFSPort))
}

// FormNodes forms a cluster without a volume.
func (l *Lab) FormNodes(ctx context.Context, o ClusterOptions) (*Cluster, error) {
	if o.Copies == 0 {
		o.Copies = 3
	}
	if o.Binary == "" {
		var err error
		if o.Binary, err = build(ctx, l.Dir, "holdfast/cmd/holdfast", "holdfast"); err != nil {
			return nil, err
		}
	}
	c := &Cluster{lab: l, options: o}
	first, err := c.AddMachine()
	if err != nil {
		return nil, err
	}
	if err := c.init(ctx, first); err != nil {
		return nil, err
	}
	for _, role := range o.Roles[1:] {
		n, err := c.AddMachine()
		if err != nil {
			return nil, err
		}
		if err := c.Join(ctx, n, role); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// CreateVolume makes the volume and its export.
func (c *Cluster) CreateVolume(ctx context.Context) error {
	args := []string{"volume", "create", clusterVolume, "--address", clusterAddr + "/24", "--device", "eth0", "--reserve", "64MiB", "--copies", fmt.Sprint(c.options.Copies)}
	if _, err := c.Nodes[0].Holdfast(ctx, append(args, c.options.Volume...)...); err != nil {
		return err
	}
	_, err := c.Nodes[0].Holdfast(ctx, "export", "add", clusterVolume, c.Export().Path, "--mode", "0777", "--client", "10.94.0.0/24:rw,no_root_squash")
	return err
}

// Export implements Server.
func (c *Cluster) Export() Export {
	return Export{Addr: clusterAddr, Path: "/data", Port: clusterNFSPort, MountPort: clusterNFSPort}
}

// Node returns the member of that name.
func (c *Cluster) Node(name string) *Node {
	for _, n := range c.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// volumes asks all nodes at once; a node that does not answer has an error.
func (c *Cluster) volumes(ctx context.Context) ([]api.VolumeStatus, []error) {
	all := make([]api.VolumeStatus, len(c.Nodes))
	errs := make([]error, len(c.Nodes))
	var wg sync.WaitGroup
	for i, n := range c.Nodes {
		wg.Go(func() { all[i], errs[i] = n.volume(ctx, clusterVolume) })
	}
	wg.Wait()
	return all, errs
}

// await asks all nodes until a condition is met.
func (c *Cluster) await(ctx context.Context, what string, met func([]api.VolumeStatus, []error) *Node) (*Node, error) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		all, errs := c.volumes(ctx)
		if n := met(all, errs); n != nil {
			return n, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for %s: %w\n%s", what, ctx.Err(), c.describe(all, errs))
		}
	}
}

// describe is what the nodes said, and the ends of their logs.
func (c *Cluster) describe(all []api.VolumeStatus, errs []error) string {
	var out bytes.Buffer
	for i, n := range c.Nodes {
		status, _ := json.Marshal(all[i])
		fmt.Fprintf(&out, "node %s: %s (%v)\n%s\n", n.Name, status, errs[i], n.Log(15))
	}
	return out.String()
}

// AwaitLeader waits for a node other than not that serves, and returns it.
func (c *Cluster) AwaitLeader(ctx context.Context, not *Node) (*Node, error) {
	return c.await(ctx, "a leader", func(all []api.VolumeStatus, errs []error) *Node {
		for i, n := range c.Nodes {
			if errs[i] == nil && all[i].Serving && n != not {
				return n
			}
		}
		return nil
	})
}

// AwaitStatus waits until the volume's leader says of itself what is asked for, and returns it.
func (c *Cluster) AwaitStatus(ctx context.Context, what string, met func(*api.VolumeStatus) bool) (*Node, error) {
	return c.await(ctx, what, func(all []api.VolumeStatus, errs []error) *Node {
		for i, n := range c.Nodes {
			if errs[i] == nil && all[i].Serving && met(&all[i]) {
				return n
			}
		}
		return nil
	})
}

// AwaitHealthy waits until one node serves, and all that should take part do and are in sync with it, and returns the leader.
func (c *Cluster) AwaitHealthy(ctx context.Context) (*Node, error) {
	want := c.members()
	return c.await(ctx, "all nodes in sync", func(all []api.VolumeStatus, errs []error) *Node {
		var leader *Node
		for i, n := range c.Nodes {
			if errs[i] != nil {
				return nil
			}
			if !all[i].Serving {
				continue
			}
			if leader != nil {
				return nil // one of them does not know yet
			}
			leader = n
			if len(all[i].Members) != want || len(all[i].Replicas) != want {
				return nil
			}
			for _, r := range all[i].Replicas {
				if !r.InSync || r.Learner {
					return nil
				}
			}
		}
		return leader
	})
}

// members is how many nodes should take part in the volume.
func (c *Cluster) members() int {
	data, witnesses := 0, 0
	for _, n := range c.Nodes {
		if n.Role == cluster.RoleWitness {
			witnesses++
		} else {
			data++
		}
	}
	if data = min(data, c.options.Copies); data == 2 && witnesses > 0 {
		return 3
	}
	return data
}

// Transfer hands the volume over to another node.
func (c *Cluster) Transfer(ctx context.Context, from, to *Node) error {
	_, err := from.api.Transfer(ctx, clusterVolume, to.Name)
	return err
}

// Check runs `holdfast check` on a node: it fails unless all replicas are equal.
func (c *Cluster) Check(ctx context.Context, n *Node) error {
	_, err := n.Holdfast(ctx, "check", clusterVolume)
	return err
}

// holdfast runs the program in a namespace.
func holdfast(ctx context.Context, binary, netns string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", netns, binary}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("holdfast %s: %w: %s%s", strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}
