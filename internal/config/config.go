package config

import (
	"net/netip"
	"time"

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

// Kinds of address.
const (
	// AddressIP is an IP address that the leader holds.
	AddressIP = "ip"
	// AddressListen binds the listener on whichever node leads, for several nodes on one machine.
	AddressListen = "listen"
)

// Address says how clients find the leader.
type Address struct {
	Kind string `yaml:"kind"`
	// IP is the address and the length of its network's prefix.
	IP     Prefix `yaml:"ip"`
	Device string `yaml:"device"`
	// Lifetime is how long the kernel keeps the address when nobody renews it.
	Lifetime Duration `yaml:"lifetime"`
}

// Export is a folder that clients can mount.
type Export struct {
	Path    string   `yaml:"path"`
	Clients []Client `yaml:"clients"`
	// Owner, Group and Mode are given to the folder when it is first made.
	Owner uint32 `yaml:"owner"`
	Group uint32 `yaml:"group"`
	Mode  Mode   `yaml:"mode"`

	parsed []export.Client
}

// Client is an entry of an export's client list.
type Client struct {
	Match   string   `yaml:"match"`
	Options []string `yaml:"options"`
}

// Timing is how fast failures are noticed.
type Timing struct {
	Tick Duration `yaml:"tick"`
	// Election is how many ticks without a word from the leader pass, at least, before a node campaigns.
	Election int `yaml:"election"`
	// Lease is how long a leader serves reads after a majority heard from it; it must run out before an election can begin.
	Lease Duration `yaml:"lease"`
	// Drift is how far clocks may drift apart during a lease; the leader cuts its own lease short by it.
	Drift Duration `yaml:"drift"`
}

// Limits keep a flood of clients from taking a node down.
type Limits struct {
	// Connections is how many clients may be connected to one volume.
	Connections int `yaml:"connections"`
	// InflightBytes is how much memory requests under way may take.
	InflightBytes Size `yaml:"inflight_bytes"`
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

// Defaults of what the file leaves out.
const (
	DefaultNFSPort       = 2049
	defaultListen        = "0.0.0.0:2049"
	defaultClusterName   = "holdfast"
	defaultLifetime      = 3 * time.Second
	defaultReserve       = 1 << 30
	defaultDirMode       = 0o755
	defaultTick          = 20 * time.Millisecond
	defaultElection      = 10
	defaultConnections   = 4096
	defaultInflightBytes = 256 << 20
	defaultSegmentBytes  = 64 << 20
	// The lease ends this many ticks before the first election can begin.
	leaseMarginTicks = 1
	// Drift is this part of the lease unless given: crystals differ by far less than one part in a hundred.
	driftPart = 100
)

// setDefaults gives the values that the file may leave out; the decoder calls it before it reads the keys.
func (c *Config) setDefaults() {
	c.Timing = Timing{Tick: Duration(defaultTick), Election: defaultElection}
	c.Limits = Limits{Connections: defaultConnections, InflightBytes: defaultInflightBytes}
	c.Log = Log{Segment: defaultSegmentBytes, Format: "text", Level: "info"}
	c.Cluster = Cluster{Name: defaultClusterName}
}

func (n *Node) setDefaults() { n.Role = RoleData }

func (v *Volume) setDefaults() { v.Listen, v.Reserve = defaultListen, defaultReserve }

func (a *Address) setDefaults() { a.Lifetime = Duration(defaultLifetime) }

func (e *Export) setDefaults() { e.Mode = defaultDirMode }

// deriveTiming sets lease and drift, if the file does not, from tick and election.
func (t *Timing) deriveTiming() {
	if t.Lease == 0 {
		t.Lease = t.Tick * Duration(t.Election-leaseMarginTicks)
	}
	if t.Drift == 0 {
		t.Drift = t.Lease / driftPart
	}
}

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
	var out []export.Export
	for _, e := range v.Exports {
		out = append(out, export.Export{Path: e.Path, Clients: e.parsed, UID: e.Owner, GID: e.Group, Mode: uint32(e.Mode)})
	}
	return out
}

// MountAddr returns the address that clients mount. For the kind listen it is where the listener binds.
func (v *Volume) MountAddr() netip.AddrPort {
	listen, err := netip.ParseAddrPort(v.Listen)
	if err != nil {
		return netip.AddrPort{} // Parse has refused such a file
	}
	if v.Address.Kind == AddressIP {
		return netip.AddrPortFrom(netip.Prefix(v.Address.IP).Addr(), listen.Port())
	}
	return listen
}
