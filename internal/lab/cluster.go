package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"text/template"
	"time"

	"holdfast/internal/api"
)

const (
	clusterVolume  = "main"
	clusterAddr    = "10.94.0.100"
	clusterNFSPort = 2049
	peerPort       = 7400
	// statusTimeout bounds a question to a node that may be stopped.
	statusTimeout = 500 * time.Millisecond
	// pollEvery is how often nodes are asked while the harness waits for a state that nobody announces.
	pollEvery = 10 * time.Millisecond
)

// Cluster is a number of Holdfast nodes, each in a namespace of its own, that serve one volume on one address.
type Cluster struct {
	Nodes []*Node

	lab    *Lab
	binary string
}

// Node is one Holdfast process, its configuration and its data.
type Node struct {
	Name string // also the name of its port at the bridge
	Addr string
	Data string // folder
	// Disk is the file system of Data if that has one of its own.
	Disk *Disk
	// Process is the current one; it changes with every start.
	Process *Process

	cluster *Cluster
	netns   string
	config  string // file
	api     *api.Client
}

// configTemplate is the configuration of a node, see internal/config.
var configTemplate = template.Must(template.New("config").Parse(`node: {{.Node.Name}}
data: {{.Node.Data}}
cluster: {name: lab}
nodes:
{{- range .Nodes}}
  - {name: {{.Name}}, peer: "{{.Addr}}:{{$.PeerPort}}"}
{{- end}}
volumes:
  - name: {{.Volume}}
    address: {kind: ip, ip: {{.VolumeAddr}}/24, device: eth0}
    listen: 0.0.0.0:{{.NFSPort}}
    reserve: 64MiB
    exports:
      - path: /data
        mode: "0777"
        clients:
          - {match: 10.94.0.0/24, options: [rw, no_root_squash]}
log: {format: text, level: info}
`))

// StartCluster builds Holdfast, or takes the binary that is given, starts that many nodes and waits until they serve.
func (l *Lab) StartCluster(ctx context.Context, nodes int, binary string) (*Cluster, error) {
	return l.StartClusterOnDisks(ctx, nodes, binary, 0)
}

// StartClusterOnDisks is StartCluster with a file system of that many bytes for each node; 0 makes none.
func (l *Lab) StartClusterOnDisks(ctx context.Context, nodes int, binary string, diskBytes int64) (*Cluster, error) {
	var err error
	if binary == "" {
		if binary, err = build(ctx, l.Dir, "holdfast/cmd/holdfast", "holdfast"); err != nil {
			return nil, err
		}
	}
	c := &Cluster{lab: l, binary: binary}
	for i := range nodes {
		n := &Node{Name: string(rune('a' + i)), Addr: fmt.Sprintf("10.94.0.%d", 11+i), cluster: c}
		n.Data = filepath.Join(l.Dir, "node-"+n.Name)
		n.config = filepath.Join(l.Dir, "node-"+n.Name+".yaml")
		n.api = api.NewClient(n.Data)
		if n.netns, err = l.Net.AddNode(n.Name, n.Addr); err != nil {
			return nil, err
		}
		if diskBytes > 0 {
			if n.Disk, err = l.AddDisk("node-"+n.Name, diskBytes); err != nil {
				return nil, err
			}
		} else if err := os.MkdirAll(n.Data, 0o755); err != nil {
			return nil, err
		}
		c.Nodes = append(c.Nodes, n)
	}
	for _, n := range c.Nodes {
		config, err := c.nodeConfig(n)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(n.config, config, 0o644); err != nil {
			return nil, err
		}
		if err := n.Start(); err != nil {
			return nil, err
		}
		l.onClose(func() error { return n.Process.Kill() })
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if _, err := c.AwaitHealthy(ctx); err != nil {
		return nil, err
	}
	return c, l.awaitPort(ctx, c.Nodes[0].Process, fmt.Sprintf("%s:%d", clusterAddr, clusterNFSPort))
}

// nodeConfig renders a node's configuration file.
func (c *Cluster) nodeConfig(n *Node) ([]byte, error) {
	var out bytes.Buffer
	err := configTemplate.Execute(&out, map[string]any{
		"Node": n, "Nodes": c.Nodes, "PeerPort": peerPort, "Volume": clusterVolume, "VolumeAddr": clusterAddr, "NFSPort": clusterNFSPort,
	})
	return out.Bytes(), err
}

// Export implements Server.
func (c *Cluster) Export() Export {
	return Export{Addr: clusterAddr, Path: "/data", Port: clusterNFSPort, MountPort: clusterNFSPort}
}

// Start runs the node's process, for the first time or again. Its log is appended to.
func (n *Node) Start() (err error) {
	n.Process, err = startProcess(n.cluster.lab.spawn, n.netns, "node "+n.Name,
		filepath.Join(n.cluster.lab.Dir, "node-"+n.Name+".log"), n.cluster.binary, "serve", "--config", n.config)
	return err
}

// Log returns the last lines of the node's log.
func (n *Node) Log(lines int) string { return n.Process.tail(lines) }

// volume asks the node for its view of the volume.
func (n *Node) volume(ctx context.Context) (api.VolumeStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	s, err := n.api.Status(ctx, true)
	if err != nil {
		return api.VolumeStatus{}, err
	}
	for _, v := range s.Volumes {
		if v.Name == clusterVolume {
			return v, nil
		}
	}
	return api.VolumeStatus{}, fmt.Errorf("node %s has no volume %s", n.Name, clusterVolume)
}

// volumes asks all nodes at once; a node that does not answer has an error.
func (c *Cluster) volumes(ctx context.Context) ([]api.VolumeStatus, []error) {
	all := make([]api.VolumeStatus, len(c.Nodes))
	errs := make([]error, len(c.Nodes))
	var wg sync.WaitGroup
	for i, n := range c.Nodes {
		wg.Go(func() { all[i], errs[i] = n.volume(ctx) })
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

// AwaitHealthy waits until one node serves and all others are in sync with it, and returns the leader.
func (c *Cluster) AwaitHealthy(ctx context.Context) (*Node, error) {
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
			for _, r := range all[i].Replicas {
				if !r.InSync {
					return nil
				}
			}
			if len(c.Nodes) > 1 && len(all[i].Replicas) < len(c.Nodes)-1 {
				return nil
			}
		}
		return leader
	})
}

// Transfer hands the volume over to another node.
func (c *Cluster) Transfer(ctx context.Context, from, to *Node) error {
	_, err := from.api.Transfer(ctx, clusterVolume, to.Name)
	return err
}

// Check runs `holdfast check` on a node: it fails unless all replicas are equal.
func (c *Cluster) Check(ctx context.Context, n *Node) error {
	out, err := exec.CommandContext(ctx, c.binary, "--data", n.Data, "check", clusterVolume).CombinedOutput()
	if err != nil {
		return fmt.Errorf("holdfast check: %w\n%s", err, out)
	}
	return nil
}

// Loss is a way to lose a leader.
type Loss string

// The ways to lose a leader.
const (
	LossKill     Loss = "SIGKILL"   // its process dies
	LossStop     Loss = "SIGSTOP"   // it hangs
	LossLink     Loss = "link down" // it is cut off
	LossTransfer Loss = "transfer"  // it hands over
)

// Lose makes the cluster lose this leader, and returns what undoes that.
func (c *Cluster) Lose(ctx context.Context, leader *Node, how Loss) (heal func() error, err error) {
	switch how {
	case LossKill:
		return leader.Start, leader.Process.Kill()
	case LossStop:
		p := leader.Process
		return func() error { return p.Signal(syscall.SIGCONT) }, p.Signal(syscall.SIGSTOP)
	case LossLink:
		return func() error { return c.lab.Net.LinkUp(leader.Name) }, c.lab.Net.LinkDown(leader.Name)
	case LossTransfer:
		for i, n := range c.Nodes {
			if n == leader {
				to := c.Nodes[(i+1)%len(c.Nodes)]
				return func() error { return nil }, c.Transfer(ctx, leader, to)
			}
		}
	}
	return nil, errors.New("no such loss: " + string(how))
}
