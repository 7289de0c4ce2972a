package config

import (
	"net/netip"

	"holdfast/internal/export"
)

// Config is the whole file. All nodes of a cluster may use the same file, with Node given on the command line instead.
type Config struct {
	// Node is which of Nodes this one is. The command line may override it.
	Node string `yaml:"node"`
	// Data is the folder that holds everything the node stores.
	Data    string   `yaml:"data"`
	Nodes   []Node   `yaml:"nodes"`
	Volumes []Volume `yaml:"volumes"`
	Timing  Timing   `yaml:"timing"`
	Limits  Limits   `yaml:"limits"`
	Log     Log      `yaml:"log"`
	Cluster Cluster  `yaml:"cluster"`
}

// Node is a member of the cluster.
type Node struct {
	Name string `yaml:"name"`
	// ID identifies the node to the others for ever; its place in the list, from 1, unless given.
	ID uint64 `yaml:"id"`
	// Peer is the host and port that the other nodes reach this one at.
	Peer string `yaml:"peer"`
	// Admin is the address of the admin API; without one it is on a Unix socket in the data folder only.
	Admin string `yaml:"admin"`
	// Role is "data".
	Role string `yaml:"role"`
}

// RoleData is the role of a node that keeps a copy of the data.
const RoleData = "data"

// Volume is a replicated volume: a virtual NFS server with exports.
type Volume struct {
	Name string `yaml:"name"`
	// ID is part of every file handle and must never change; the volume's place in the list, from 1, unless given.
	ID      uint32  `yaml:"id"`
	Address Address `yaml:"address"`
	// Listen is the IP address and port that NFS is served at.
	Listen  string   `yaml:"listen"`
	Exports []Export `yaml:"exports"`
	// Reserve is how many bytes every replica keeps free: below it, writes that need space are refused.
	Reserve Size `yaml:"reserve"`
}

// Log is the replicated log's, and the format and level of the messages that the daemon prints.
type Log struct {
	Segment Size   `yaml:"segment"`
	Format  string `yaml:"format"`
	Level   string `yaml:"level"`
}

// Cluster identifies the cluster and keeps strangers out.
type Cluster struct {
	// Name is shared by all nodes; a node of another cluster is turned away.
	Name string `yaml:"name"`
	// SecretFile holds a secret that the nodes share; without one they trust whoever reaches their peer port.
	SecretFile string `yaml:"secret_file"`
}

const defaultClusterName = "holdfast"

// setDefaults gives the values that the file may leave out; the decoder calls it before it reads the keys.
func (c *Config) setDefaults() {
	c.Timing.setDefaults()
	c.Limits.setDefaults()
	c.Log = Log{Segment: defaultSegmentBytes, Format: "text", Level: "info"}
	c.Cluster = Cluster{Name: defaultClusterName}
}

func (n *Node) setDefaults() { n.Role = RoleData }

func (v *Volume) setDefaults() { v.Listen, v.Reserve = defaultListen, defaultReserve }

// Self returns the node that c.Node names, or nil.
func (c *Config) Self() *Node { return c.NodeByName(c.Node) }

// NodeByName returns the node of that name, or nil.
func (c *Config) NodeByName(name string) *Node {
	for i := range c.Nodes {
		if c.Nodes[i].Name == name {
			return &c.Nodes[i]
		}
	}
	return nil
}

// Table returns the volume's exports as package export takes them.
func (v *Volume) Table() []export.Export {
	out, err := exportTable(v.Exports)
	if err != nil {
		return nil // Parse has refused such a file
	}
	return out
}

// MountAddr returns the address that clients mount. For the kind listen it is where the listener binds.
func (v *Volume) MountAddr() netip.AddrPort { return mountAddr(v.Address, v.Listen) }
