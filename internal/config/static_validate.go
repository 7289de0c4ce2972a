package config

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"holdfast/internal/export"
)

// Bounds of what a file may ask for, each with the reason in its message.
const (
	minTick         = time.Millisecond
	minElection     = 4
	maxElection     = 1000
	minLeaseTicks   = 3           // a lease survives two lost heartbeats
	minLifetime     = time.Second // the kernel counts lifetimes of addresses in whole seconds
	minSegmentBytes = 4 << 20     // an entry holds up to a little more than 1 MiB
	minInflight     = 8 << 20
	maxNameBytes    = 63 // of nodes, volumes and clusters, as of a DNS label
	maxDeviceBytes  = 15 // IFNAMSIZ without its NUL
)

// validator checks what the values mean. Its methods record errors with the decoder.
type validator struct {
	*decoder
	c *Config
}

func (v *validator) check() {
	v.required("data")
	if v.usable("data") && !filepath.IsAbs(v.c.Data) {
		v.failAt("data", "%q must be an absolute path", v.c.Data)
	}
	v.nodes()
	v.volumes()
	v.timing()
	v.limits()
	v.name("cluster.name", v.c.Cluster.Name)
	if v.usable("cluster.secret_file") && !filepath.IsAbs(v.c.Cluster.SecretFile) {
		v.failAt("cluster.secret_file", "%q must be an absolute path", v.c.Cluster.SecretFile)
	}
}

// required complains about a key that is missing, unless what should contain it is wrong as a whole.
func (v *validator) required(key string) bool {
	if v.has(key) {
		return true
	}
	if v.bad[parentOf(key)] {
		return false
	}
	v.failAt(key, "the key is missing")
	return false
}

// parentOf returns the key of the mapping that a key is in; "" is the file's own.
func parentOf(key string) string { return key[:max(0, strings.LastIndexByte(key, '.'))] }

// oneOf complains about a value that is not among the known ones.
func (v *validator) oneOf(key, value string, known ...string) {
	if !v.usable(key) {
		return
	}
	for _, k := range known {
		if value == k {
			return
		}
	}
	if meant := nearest(value, known); meant != "" {
		v.failAt(key, "unknown value %q; did you mean %q?", value, meant)
		return
	}
	v.failAt(key, "unknown value %q; known are %s", value, strings.Join(known, ", "))
}

// name checks a name that ends up in file names, metrics and messages.
func (v *validator) name(key, name string) {
	if !v.usable(key) {
		return
	}
	if name == "" || len(name) > maxNameBytes {
		v.failAt(key, "%q: a name has 1 to %d characters", name, maxNameBytes)
		return
	}
	for i, r := range name {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_':
		case (r == '-' || r == '.') && i > 0:
		default:
			v.failAt(key, "%q: a name is made of letters, digits, - _ and ., the first a letter, digit or _", name)
			return
		}
	}
}

// unique complains about a value that an earlier key has.
func unique[T comparable](v *validator, seen map[T]string, key string, value T, what string) {
	if v.bad[key] {
		return
	}
	if first, twice := seen[value]; twice {
		v.failAt(key, "%s %v is taken by %s", what, value, v.where(first))
		return
	}
	seen[value] = key
}

// where names a key and its line.
func (v *validator) where(key string) string {
	if at, ok := v.places[key]; ok {
		return fmt.Sprintf("%s in line %d", key, at.line)
	}
	return key
}

func (v *validator) nodes() {
	if !v.required("nodes") || v.bad["nodes"] {
		return
	}
	if len(v.c.Nodes) == 0 {
		v.failAt("nodes", "a cluster has at least one node")
		return
	}
	names, ids, peers := map[string]string{}, map[uint64]string{}, map[string]string{}
	var known []string
	for i := range v.c.Nodes {
		n, key := &v.c.Nodes[i], fmt.Sprintf("nodes[%d]", i)
		if v.required(key + ".name") {
			v.name(key+".name", n.Name)
			unique(v, names, key+".name", n.Name, "the name")
			known = append(known, n.Name)
		}
		v.nodeID(key+".id", n, ids)
		if v.required(key + ".peer") {
			v.hostPort(key+".peer", n.Peer)
			unique(v, peers, key+".peer", n.Peer, "the address")
		}
		if v.has(key + ".admin") {
			v.hostPort(key+".admin", n.Admin)
			unique(v, peers, key+".admin", n.Admin, "the address")
		}
		v.role(key+".role", n.Role)
	}
	if v.required("node") {
		v.self(known)
	}
}

// nodeID checks a node's id. Its upper bits make proposals unique, so that 16 bits must do.
func (v *validator) nodeID(key string, n *Node, ids map[uint64]string) {
	if v.usable(key) && (n.ID == 0 || n.ID > 1<<16-1) {
		v.failAt(key, "an id is a number from 1 to 65535")
	}
	unique(v, ids, key, n.ID, "the id")
}

func (v *validator) role(key, role string) {
	if v.usable(key) && role == "witness" {
		v.failAt(key, "witness nodes are not available in this release; use three data nodes")
		return
	}
	v.oneOf(key, role, RoleData)
}

func (v *validator) self(known []string) {
	if v.bad["node"] || v.c.NodeByName(v.c.Node) != nil {
		return
	}
	if meant := nearest(v.c.Node, known); meant != "" {
		v.failAt("node", "no node is called %q; did you mean %q?", v.c.Node, meant)
		return
	}
	v.failAt("node", "no node is called %q; the nodes are %s", v.c.Node, strings.Join(known, ", "))
}

// hostPort checks an address that other machines reach this one at.
func (v *validator) hostPort(key, s string) {
	if !v.usable(key) {
		return
	}
	host, port, err := net.SplitHostPort(s)
	switch {
	case err != nil:
		v.failAt(key, "%q is not an address with a port, such as 10.94.0.11:7400", s)
	case !validPort(port):
		v.failAt(key, "%q is not a port from 1 to 65535", port)
	case host == "":
		v.failAt(key, "%q lacks the host in front of the port", s)
	default:
		if addr, err := netip.ParseAddr(host); err == nil && addr.IsUnspecified() {
			v.failAt(key, "%s is no address that another node can reach", host)
			return
		}
		if _, err := export.ParseMatch(host); err != nil || strings.ContainsAny(host, "*?/") {
			v.failAt(key, "%q is neither an IP address nor a host name", host)
		}
	}
}

func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

func (v *validator) timing() {
	t := &v.c.Timing
	if v.usable("timing.tick") && time.Duration(t.Tick) < minTick {
		v.failAt("timing.tick", "a tick lasts at least %v", minTick)
	}
	if v.usable("timing.election") && (t.Election < minElection || t.Election > maxElection) {
		v.failAt("timing.election", "an election begins after %d to %d ticks", minElection, maxElection)
	}
	if v.bad["timing.tick"] || v.bad["timing.election"] {
		return
	}
	quiet := time.Duration(t.Tick) * time.Duration(t.Election)
	if v.usable("timing.lease") && time.Duration(t.Lease) >= quiet {
		v.failAt("timing.lease", "the lease (%v) must run out before an election can begin (%d ticks of %v: %v)", t.Lease, t.Election, t.Tick, quiet)
	}
	t.Complete()
	if v.usable("timing.drift") && t.Drift >= t.Lease {
		v.failAt("timing.drift", "a drift of %v leaves nothing of the lease of %v", t.Drift, t.Lease)
	}
	if v.bad["timing.lease"] || v.bad["timing.drift"] {
		return
	}
	// Where neither is given, it is the election that decides about both.
	key := "timing.election"
	for _, k := range []string{"timing.drift", "timing.lease"} {
		if v.has(k) {
			key = k
		}
	}
	switch least := minLeaseTicks * time.Duration(t.Tick); {
	case time.Duration(t.Lease+t.Drift) >= quiet:
		v.failAt(key, "the lease (%v) and the drift (%v) must run out before an election can begin (%d ticks of %v: %v)", t.Lease, t.Drift, t.Election, t.Tick, quiet)
	case time.Duration(t.Lease-t.Drift) < least:
		v.failAt(key, "the lease (%v) less the drift (%v) must last for %d ticks of %v at least", t.Lease, t.Drift, minLeaseTicks, t.Tick)
	}
}

func (v *validator) limits() {
	if v.usable("limits.connections") && v.c.Limits.Connections < 1 {
		v.failAt("limits.connections", "at least one client must be able to connect")
	}
	if v.usable("limits.inflight_bytes") && v.c.Limits.InflightBytes < minInflight {
		v.failAt("limits.inflight_bytes", "at least %v are needed", Size(minInflight))
	}
	if v.usable("log.segment") && v.c.Log.Segment < minSegmentBytes {
		v.failAt("log.segment", "a segment has at least %v", Size(minSegmentBytes))
	}
	v.oneOf("log.format", v.c.Log.Format, "text", "json")
	v.oneOf("log.level", v.c.Log.Level, "debug", "info", "warn", "error")
}
