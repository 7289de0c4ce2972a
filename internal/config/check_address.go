package config

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
)

// portmapPort is where NFSv3 clients look for ports (RFC 1833), at a volume's address and at a node's own.
const portmapPort = 111

// movable checks that an address is one that a server can have and that can move between machines. It is not part of Prefix: what a cluster stores must be read whatever
// later releases think of it.
func (d *decoder) movable(key string, p netip.Prefix) {
	addr := p.Addr()
	switch what := noHost(p); {
	case addr.IsLoopback():
		d.failAt(key, "%s is every machine's own and reaches no other: name an address of the clients' network that no machine has yet (for nodes on one machine there is kind %s)", addr, AddressListen)
	case addr.Is4In6():
		d.failAt(key, "%s is an IPv4 address in the form of an IPv6 one: write %s, with the length of the prefix in its network", addr, addr.Unmap())
	case addr.Is4() && addr.As4()[0] == 0:
		d.failAt(key, "%s is in 0.0.0.0/8, which no machine can have: name an address in the clients' network that no machine has yet", addr)
	case p.Bits() == 0:
		d.failAt(key, "%s: a prefix of length 0 is all addresses, not a network: write %s/24 or whatever the network has", p, addr)
	case what != "":
		d.failAt(key, "%s is the %s of its network, which no server can have: name an address in it that no machine has yet", p, what)
	}
}

// noHost tells what an address of a network stands for that is no machine's; "" for others.
func noHost(p netip.Prefix) string {
	addr := p.Addr()
	switch {
	case addr.Is6() && p.Bits() < 127 && addr == p.Masked().Addr():
		return "address of all routers" // RFC 4291 section 2.6.1; RFC 6164 excepts networks of two
	case !addr.Is4() || p.Bits() > 30: // RFC 3021 excepts networks of two
		return ""
	}
	host := uint32(1)<<(32-p.Bits()) - 1
	switch binary.BigEndian.Uint32(addr.AsSlice()) & host {
	case 0:
		return "number"
	case host:
		return "broadcast address"
	}
	return ""
}

// listenable checks that connections can be taken at an address.
func (d *decoder) listenable(key string, at netip.AddrPort) {
	addr := at.Addr()
	switch {
	case addr.IsMulticast(), addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		d.failAt(key, "%s is for many machines at once: nobody can connect to it", addr)
	case addr.Is6() && addr.IsLinkLocalUnicast() && addr.Zone() == "":
		d.failAt(key, "%s is in every network, so that the device must be named, as in [%s%%eth0]:%d; better, use an address that routers know", addr, addr, at.Port())
	case at.Port() == portmapPort:
		d.failAt(key, "port %d tells NFSv3 clients where the others are (rpcbind); use another port", portmapPort)
	}
}

// nodePort checks a volume's port at the nodes' own addresses.
func (d *decoder) nodePort(key string, port uint16) {
	if port == portmapPort {
		d.failAt(key, "port %d of every node tells NFSv3 clients where the others are (rpcbind); use another port", portmapPort)
	}
}

// CheckPorts returns as Errors without lines which ports of volumes are those at which the nodes themselves listen, or nil; peers are the nodes' own addresses, host and port, by
// their names. Locate adds the lines.
func (s *Spec) CheckPorts(peers map[string]string) error {
	d := &decoder{places: map[string]place{}, bad: map[string]bool{}}
	own := make(map[uint16]string)
	for _, name := range slices.Sorted(maps.Keys(peers)) {
		if at, ok := parsePort(peers[name]); ok && own[at] == "" {
			own[at] = name
		}
	}
	taken := slices.Collect(maps.Values(peers))
	for i := range s.Volumes {
		v, key := &s.Volumes[i], fmt.Sprintf("volumes[%d]", i)
		if name := own[v.NodePort]; v.NodePort != 0 && name != "" {
			d.failAt(key+".node_port", "port %d is node %s's own, for the other nodes and for administrators; use another port", v.NodePort, name)
		}
		listen, err := netip.ParseAddrPort(v.Listen)
		if err != nil {
			continue
		}
		// A node takes its port at all its addresses, unless its file says otherwise, and so at those of volumes that it leads.
		if name := own[listen.Port()]; name != "" && (v.Address.Kind == AddressIP || slices.Contains(taken, v.Listen)) {
			d.failAt(key+".listen", "port %d is node %s's own, for the other nodes and for administrators; use another port", listen.Port(), name)
		}
	}
	return d.result()
}

// parsePort returns the port of a host and port.
func parsePort(peer string) (uint16, bool) {
	_, port, err := net.SplitHostPort(peer)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return uint16(n), err == nil && n > 0
}

// CheckListeners returns as Errors without lines how a volume, which is valid for itself, would collide with other volumes of s where it or they listen, or nil. A volume of s that
// has its name is the one that it takes the place of. Two that clients would mount at the same address the cluster itself refuses.
func (s *Spec) CheckListeners(v *VolumeSpec) error {
	d := &decoder{places: map[string]place{}, bad: map[string]bool{}}
	var seen []listener
	for i := range s.Volumes {
		if o := &s.Volumes[i]; o.Name != v.Name && o.MountAddr() != v.MountAddr() {
			seen = append(seen, o.listeners("volumes["+o.Name+"]")...)
		}
	}
	for _, l := range v.listeners("volumes[" + v.Name + "]") {
		d.apart(seen, l)
	}
	return d.result()
}

// listeners returns where a valid volume takes connections.
func (v *VolumeSpec) listeners(key string) []listener {
	var all []listener
	if at, err := netip.ParseAddrPort(v.Listen); err == nil {
		all = append(all, listener{addr: at, key: key + ".listen", moving: v.Address.Kind == AddressIP})
	}
	if v.NodePort != 0 {
		all = append(all, listener{addr: netip.AddrPortFrom(netip.IPv6Unspecified(), v.NodePort), key: key + ".node_port", node: true})
	}
	return all
}
