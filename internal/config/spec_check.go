package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// minVolumeBytes catches sizes without a unit.
const minVolumeBytes = 1 << 20

// numbersOfCopies are those that make sense: 4 copies survive no more failures than 3.
var numbersOfCopies = []int{1, 2, 3, 5}

// taken collects what no two volumes may share, each with the key that has it.
type taken struct {
	names     map[string]string
	addresses map[netip.Addr]string
	listeners []listener
}

// checkSpec checks what the values of a specification mean, and completes them.
func (d *decoder) checkSpec(s *Spec) {
	d.name("cluster", s.Cluster)
	nodes := map[string]string{}
	for i := range s.Nodes {
		key := fmt.Sprintf("nodes[%d]", i)
		if d.required(key + ".name") {
			d.name(key+".name", s.Nodes[i].Name)
			unique(d, nodes, key+".name", s.Nodes[i].Name, "the name")
		}
		if s.Nodes[i].Zone != "" {
			d.name(key+".zone", s.Nodes[i].Zone)
		}
	}
	d.required("volumes")
	seen := taken{names: map[string]string{}, addresses: map[netip.Addr]string{}}
	for i := range s.Volumes {
		d.volumeSpec(&s.Volumes[i], fmt.Sprintf("volumes[%d]", i), &seen)
	}
}

func (d *decoder) volumeSpec(v *VolumeSpec, key string, seen *taken) {
	if d.required(key + ".name") {
		d.name(key+".name", v.Name)
		unique(d, seen.names, key+".name", v.Name, "the name")
	}
	d.nodeNames(key+".nodes", v.Nodes)
	d.copies(v, key)
	if !d.has(key + ".listen") {
		v.Listen = v.defaultListen()
	}
	listen := d.listen(v.Listen, key+".listen", v.defaultListen())
	if d.required(key+".address") && !d.bad[key+".address"] {
		d.address(v, key, listen, seen)
	}
	if listen.IsValid() && !d.bad[key+".address.ip"] {
		moving := v.Address.Kind == AddressIP
		d.listenable(key+".listen", listen)
		seen.listeners = d.apart(seen.listeners, listener{addr: listen, key: key + ".listen", moving: moving})
	}
	if v.NodePort != 0 && !d.bad[key+".node_port"] {
		d.nodePort(key+".node_port", v.NodePort)
		every := netip.AddrPortFrom(netip.IPv6Unspecified(), v.NodePort)
		seen.listeners = d.apart(seen.listeners, listener{addr: every, key: key + ".node_port", node: true})
	}
	if d.usable(key+".size") && v.Size != 0 && v.Size < minVolumeBytes {
		d.failAt(key+".size", "%d bytes are too small for a volume; write a unit, such as 500GiB, or 0 for no limit", uint64(v.Size))
	}
	d.preference(v, key)
	if d.required(key+".exports") && !d.bad[key+".exports"] {
		d.exports(v.Exports, key+".exports")
	}
}

// nodeNames checks a list of names of nodes.
func (d *decoder) nodeNames(key string, names []string) {
	seen := map[string]string{}
	for i, name := range names {
		at := fmt.Sprintf("%s[%d]", key, i)
		d.name(at, name)
		unique(d, seen, at, name, "the name")
	}
}

// copies checks how many nodes hold a volume, and which.
func (d *decoder) copies(v *VolumeSpec, key string) {
	given, pinned := d.has(key+".copies"), d.usable(key+".nodes") && len(v.Nodes) > 0
	switch {
	case given && d.bad[key+".copies"]:
	case given && !slices.Contains(numbersOfCopies, v.Copies):
		d.failAt(key+".copies", "there can be 1, 2, 3 or 5 copies, not %d", v.Copies)
	case given && pinned && v.Copies != len(v.Nodes):
		d.failAt(key+".nodes", "%d copies (%s) need as many nodes, not %d; to have one on each of these, leave copies out", v.Copies, d.where(key+".copies"), len(v.Nodes))
	case !given && pinned && !slices.Contains(numbersOfCopies, len(v.Nodes)):
		d.failAt(key+".nodes", "there can be 1, 2, 3 or 5 copies, not %d", len(v.Nodes))
	case !given:
		v.Copies = 0 // for Complete
	}
}

// preference checks which nodes a volume prefers, and whether it returns to them.
func (d *decoder) preference(v *VolumeSpec, key string) {
	d.nodeNames(key+".prefer", v.Prefer)
	if len(v.Nodes) > 0 && !d.bad[key+".nodes"] {
		for i, name := range v.Prefer {
			if at := fmt.Sprintf("%s.prefer[%d]", key, i); !d.bad[at] && !slices.Contains(v.Nodes, name) {
				d.unknownNode(at, name, v.Nodes, "the volume is not on %q", fmt.Sprintf("%s has", d.where(key+".nodes")))
			}
		}
	}
	d.oneOf(key+".failback.policy", v.Failback.Policy, FailbackManual, FailbackAuto)
	if d.usable(key+".failback.after") && time.Duration(v.Failback.After) > maxFailback {
		d.failAt(key+".failback.after", "use at most %v, or the policy %s for a volume that stays where it is", Duration(maxFailback), FailbackManual)
	}
	if v.Failback.Policy == FailbackAuto && d.usable(key+".failback.policy") && len(v.Prefer) == 0 && !d.bad[key+".prefer"] {
		d.failAt(key+".failback.policy", "there is no node to return to; name it in prefer")
	}
}

// unknownNode complains about a node that is not among known. what has a verb for the name, and where says who knows the others.
func (d *decoder) unknownNode(key, name string, known []string, what, where string) {
	text := fmt.Sprintf(what, name)
	if meant := nearest(name, known); meant != "" {
		d.failAt(key, "%s; did you mean %q?", text, meant)
		return
	}
	d.failAt(key, "%s; %s %s", text, where, strings.Join(known, ", "))
}

func (d *decoder) address(v *VolumeSpec, key string, listen netip.AddrPort, seen *taken) {
	a, at := &v.Address, key+".address"
	if !d.required(at + ".kind") {
		return
	}
	d.oneOf(at+".kind", a.Kind, AddressIP, AddressListen)
	if d.bad[at+".kind"] {
		return
	}
	if a.Kind == AddressIP {
		d.ipAddress(v, key, listen, seen)
		return
	}
	for _, name := range []string{"ip", "device", "lifetime"} {
		if d.has(at + "." + name) {
			d.failAt(at+"."+name, "an address of kind %s has no %s: the listener's own address is what clients mount", a.Kind, name)
		}
	}
	if listen.IsValid() && listen.Addr().IsUnspecified() {
		d.failAt(key+".listen", "with an address of kind listen, this is what clients mount: name the IP address")
	}
}

func (d *decoder) ipAddress(v *VolumeSpec, key string, listen netip.AddrPort, seen *taken) {
	at := key + ".address"
	ip := netip.Prefix(v.Address.IP).Addr()
	if d.required(at+".ip") && d.usable(at+".ip") {
		d.movable(at+".ip", netip.Prefix(v.Address.IP))
		unique(d, seen.addresses, at+".ip", ip, "the address")
		deaf := listen.Addr() != ip && !listen.Addr().IsUnspecified() || listen.Addr().Is4() && ip.Is6()
		if listen.IsValid() && deaf {
			d.failAt(key+".listen", "clients mount %s, where nothing would listen; leave listen out, or use %s", ip, netip.AddrPortFrom(ip, listen.Port()))
		}
	}
	if d.has(at + ".device") {
		d.device(at+".device", v.Address.Device)
	}
	d.lifetime(at+".lifetime", v.Address.Lifetime)
}
