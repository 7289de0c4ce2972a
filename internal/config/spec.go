package config

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"holdfast/internal/export"
)

// Spec is the declarative part of the cluster's state: what "holdfast apply" takes and "holdfast export-config" prints as YAML, and what the
// cluster keeps and the API shows as JSON.
type Spec struct {
	// Cluster is the cluster's name: a guard against applying a file to the wrong cluster. A file may leave it out.
	Cluster string `yaml:"cluster" json:"cluster,omitempty"`
	// Nodes are attributes of nodes that have joined. Nodes that are not named keep theirs.
	Nodes   []NodeSpec   `yaml:"nodes" json:"nodes,omitempty"`
	Volumes []VolumeSpec `yaml:"volumes" json:"volumes"`
}

// NodeSpec is what a person decides about a node that has joined.
type NodeSpec struct {
	Name string `yaml:"name" json:"name"`
	// Zone is what fails together, such as a rack or a building. Copies of a volume are spread over zones.
	Zone string `yaml:"zone" json:"zone,omitempty"`
}

// VolumeSpec is a replicated volume: a virtual NFS server with exports. NewVolume returns one with its defaults; JSON that leaves a key out
// gives the default too.
type VolumeSpec struct {
	Name string `yaml:"name" json:"name"`
	// Copies is how many data nodes hold the volume, as far as there are so many: 1, 2, 3 or 5.
	Copies int `yaml:"copies" json:"copies"`
	// Nodes, unless empty, pins which data nodes hold the volume; there are as many as Copies then.
	Nodes   []string `yaml:"nodes" json:"nodes,omitempty"`
	Address Address  `yaml:"address" json:"address"`
	// Listen is the IP address and port that NFS is served at: port 2049 of the volume's address unless given.
	Listen string `yaml:"listen" json:"listen"`
	// NodePort, unless 0, is a port at which every node serves the volume at its own addresses, forwarding to the leader.
	NodePort uint16 `yaml:"node_port" json:"node_port,omitempty"`
	// Size is how many bytes clients may store; 0 is no limit but the disks'.
	Size Size `yaml:"size" json:"size"`
	// Reserve is how many bytes every replica keeps free: below it, writes that need space are refused.
	Reserve Size `yaml:"reserve" json:"reserve"`
	// Prefer names the nodes that should lead the volume, best first.
	Prefer   []string `yaml:"prefer" json:"prefer,omitempty"`
	Failback Failback `yaml:"failback" json:"failback"`
	Exports  []Export `yaml:"exports" json:"exports"`
}

// Policies of failing back.
const (
	// FailbackManual leaves a volume where it is until somebody moves it.
	FailbackManual = "manual"
	// FailbackAuto moves a volume to a more preferred node once that has been stable for a while.
	FailbackAuto = "auto"
)

// Failback says whether a volume returns by itself to the node that it prefers.
type Failback struct {
	Policy string `yaml:"policy" json:"policy"`
	// After is how long a preferred node must have been stable.
	After Duration `yaml:"after" json:"after"`
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
	Kind string `yaml:"kind" json:"kind"`
	// IP is the address and the length of its network's prefix.
	IP Prefix `yaml:"ip" json:"ip,omitzero"`
	// Device is the network device that gets the address; if empty, the one that is in the address's network.
	Device string `yaml:"device" json:"device,omitempty"`
	// Lifetime is how long the kernel keeps an IP address when nobody renews it.
	Lifetime Duration `yaml:"lifetime" json:"lifetime,omitzero"`
}

// Export is a folder that clients can mount.
type Export struct {
	Path    string   `yaml:"path" json:"path"`
	Clients []Client `yaml:"clients" json:"clients"`
	// Owner, Group and Mode are given to the folder when it is first made.
	Owner uint32 `yaml:"owner" json:"owner"`
	Group uint32 `yaml:"group" json:"group"`
	Mode  Mode   `yaml:"mode" json:"mode"`
}

// Client is an entry of an export's client list.
type Client struct {
	// Match says which clients: an address, a network, a name, a pattern of names, or * for all.
	Match string `yaml:"match" json:"match"`
	// Options are as in exports(5).
	Options []string `yaml:"options" json:"options,omitempty"`
}

// Defaults of what a specification leaves out.
const (
	DefaultNFSPort       = 2049
	defaultListen        = "0.0.0.0:2049"
	defaultCopies        = 3
	defaultLifetime      = 3 * time.Second
	defaultReserve       = 1 << 30
	defaultDirMode       = 0o755
	defaultFailbackAfter = 5 * time.Minute
)

// NewVolume returns a volume with every default but that of Listen, which follows from the address: see Complete.
func NewVolume(name string) VolumeSpec {
	v := VolumeSpec{Copies: defaultCopies}
	v.setDefaults()
	v.Name = name
	return v
}

// NewExport returns an export with every default: nobody may use it yet.
func NewExport(path string) Export {
	e := Export{Path: path}
	e.setDefaults()
	return e
}

// Complete gives fields that are zero their defaults, where zero has no meaning of its own, so that equal volumes are equal values.
func (v *VolumeSpec) Complete() {
	if v.Copies == 0 {
		v.Copies = defaultCopies
		if len(v.Nodes) > 0 {
			v.Copies = len(v.Nodes)
		}
	}
	if v.Listen == "" {
		v.Listen = v.defaultListen()
	}
	switch {
	case v.Address.Kind == AddressListen:
		v.Address.Lifetime = 0
	case v.Address.Lifetime == 0:
		v.Address.Lifetime = Duration(defaultLifetime)
	}
	if v.Failback.Policy == "" {
		v.Failback.Policy = FailbackManual
	}
	if v.Failback.After == 0 {
		v.Failback.After = Duration(defaultFailbackAfter)
	}
}

// defaultListen returns the volume's own address with the port of NFS, or every address if it has none.
func (v *VolumeSpec) defaultListen() string {
	if ip := netip.Prefix(v.Address.IP); v.Address.Kind == AddressIP && ip.IsValid() {
		return netip.AddrPortFrom(ip.Addr(), DefaultNFSPort).String()
	}
	return defaultListen
}

// The decoder calls setDefaults before it reads keys.

func (s *Spec) setDefaults() { s.Volumes = []VolumeSpec{} }

func (v *VolumeSpec) setDefaults() {
	v.Reserve, v.Exports = defaultReserve, []Export{}
	v.Address.setDefaults()
	v.Failback.setDefaults()
}

func (f *Failback) setDefaults() {
	f.Policy, f.After = FailbackManual, Duration(defaultFailbackAfter)
}

func (a *Address) setDefaults() { a.Lifetime = Duration(defaultLifetime) }

func (e *Export) setDefaults() { e.Mode = defaultDirMode }

// UnmarshalJSON gives what the JSON leaves out its default.
func (v *VolumeSpec) UnmarshalJSON(text []byte) error {
	type plain VolumeSpec
	v.setDefaults()
	if err := json.Unmarshal(text, (*plain)(v)); err != nil {
		return err
	}
	v.Complete()
	return nil
}

// UnmarshalJSON gives what the JSON leaves out its default.
func (f *Failback) UnmarshalJSON(text []byte) error {
	type plain Failback
	f.setDefaults()
	return json.Unmarshal(text, (*plain)(f))
}

// UnmarshalJSON gives what the JSON leaves out its default.
func (a *Address) UnmarshalJSON(text []byte) error {
	type plain Address
	a.setDefaults()
	return json.Unmarshal(text, (*plain)(a))
}

// UnmarshalJSON gives what the JSON leaves out its default.
func (e *Export) UnmarshalJSON(text []byte) error {
	type plain Export
	e.setDefaults()
	return json.Unmarshal(text, (*plain)(e))
}

// Clone returns a copy that shares nothing with s.
func (s *Spec) Clone() *Spec {
	c := *s
	c.Nodes, c.Volumes = slices.Clone(s.Nodes), slices.Clone(s.Volumes)
	for i := range c.Volumes {
		c.Volumes[i] = s.Volumes[i].Clone()
	}
	return &c
}

// Clone returns a copy that shares nothing with v.
func (v *VolumeSpec) Clone() VolumeSpec {
	c := *v
	c.Nodes, c.Prefer, c.Exports = slices.Clone(v.Nodes), slices.Clone(v.Prefer), slices.Clone(v.Exports)
	for i := range c.Exports {
		c.Exports[i] = v.Exports[i].Clone()
	}
	return c
}

// Clone returns a copy that shares nothing with e.
func (e *Export) Clone() Export {
	c := *e
	c.Clients = slices.Clone(e.Clients)
	for i := range c.Clients {
		c.Clients[i].Options = slices.Clone(e.Clients[i].Options)
	}
	return c
}

// Volume returns the volume of that name, or nil.
func (s *Spec) Volume(name string) *VolumeSpec {
	if i := slices.IndexFunc(s.Volumes, func(v VolumeSpec) bool { return v.Name == name }); i >= 0 {
		return &s.Volumes[i]
	}
	return nil
}

// Table returns the volume's exports as package export takes them.
func (v *VolumeSpec) Table() ([]export.Export, error) {
	table, err := exportTable(v.Exports)
	if err != nil {
		return nil, fmt.Errorf("volume %s: %w", v.Name, err)
	}
	return table, nil
}

func exportTable(exports []Export) ([]export.Export, error) {
	var out []export.Export
	for _, e := range exports {
		parsed := export.Export{Path: e.Path, UID: e.Owner, GID: e.Group, Mode: uint32(e.Mode)}
		for _, c := range e.Clients {
			match, err := export.ParseMatch(c.Match)
			if err != nil {
				return nil, fmt.Errorf("export %s: %w", strconv.Quote(e.Path), err)
			}
			options, err := export.ParseOptions(c.Options)
			if err != nil {
				return nil, fmt.Errorf("export %s: clients %s: %w", strconv.Quote(e.Path), c.Match, err)
			}
			parsed.Clients = append(parsed.Clients, export.Client{Match: match, Options: options})
		}
		out = append(out, parsed)
	}
	return out, export.Check(out)
}

// MountAddr returns the address that clients mount, or the zero AddrPort if the volume is not valid. For the kind listen it is where the
// listener binds.
func (v *VolumeSpec) MountAddr() netip.AddrPort { return mountAddr(v.Address, v.Listen) }

func mountAddr(a Address, listen string) netip.AddrPort {
	at, err := netip.ParseAddrPort(listen)
	if err != nil {
		return netip.AddrPort{}
	}
	if a.Kind == AddressIP {
		return netip.AddrPortFrom(netip.Prefix(a.IP).Addr(), at.Port())
	}
	return at
}
