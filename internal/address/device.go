package address

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// device is a network interface.
type device struct {
	index int
	name  string
	mac   net.HardwareAddr // empty where there are none, as on loopback
	// member tells that the interface is in the network of the address that moves without it: by another address or by a route.
	member bool
	// carrier tells that the interface was made to carry the address.
	carrier bool
}

// device finds where the neighbours of an address are. An interface with an address in the same network goes before one that a route leads to.
func (*kernel) device(name string, prefix netip.Prefix) (device, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return device{}, fmt.Errorf("list interfaces: %w", err)
	}
	described := make([]string, 0, len(links))
	var byRoute *device
	for _, l := range links {
		a := l.Attrs()
		if a.Group == carrierGroup {
			continue // it carries the address of another volume, or this one's
		}
		networks, err := networksOf(l)
		if err != nil {
			return device{}, err
		}
		described = append(described, describeLink(a.Name, networks))
		if name != "" && name != a.Name {
			continue
		}
		member, there := false, false
		for _, n := range networks {
			there = there || n.Addr() == prefix.Addr()
			member = member || n.Addr() != prefix.Addr() && prefix.Contains(n.Addr())
		}
		route := false
		if !member {
			if route, err = routed(l, prefix.Addr(), there); err != nil {
				return device{}, err
			}
		}
		d := device{index: a.Index, name: a.Name, mac: linkMAC(l), member: member || route}
		switch {
		case name != "" || member:
			return d, nil
		case route && byRoute == nil:
			byRoute = &d
		}
	}
	if byRoute != nil {
		return *byRoute, nil
	}
	return device{}, &DeviceError{Device: name, Prefix: prefix, Devices: described}
}

// DeviceError says that no interface of this machine can have an address.
type DeviceError struct {
	Device  string // the interface asked for; empty if any would do
	Prefix  netip.Prefix
	Devices []string // the interfaces that there are, with their addresses
}

// Error says what is wrong with the device, and what to do.
func (e *DeviceError) Error() string {
	there := strings.Join(e.Devices, "; ")
	if e.Device != "" {
		return fmt.Sprintf("there is no interface %s; this machine has: %s. Correct the name, or leave it out to have the interface found by its network",
			e.Device, there)
	}
	return fmt.Sprintf("no interface has an address in %s, nor a route to it that needs no gateway; this machine has: %s. Correct the address or the length of its prefix, "+
		"give an interface an address in %s, or name the interface", e.Prefix.Masked(), there, e.Prefix.Masked())
}

// describeLink names an interface and its addresses.
func describeLink(name string, networks []netip.Prefix) string {
	text := make([]string, 0, len(networks))
	for _, n := range networks {
		text = append(text, n.String())
	}
	if len(text) == 0 {
		return name + " (no address)"
	}
	return name + " (" + strings.Join(text, ", ") + ")"
}

// networksOf lists the addresses of a link with their prefixes.
func networksOf(l netlink.Link) ([]netip.Prefix, error) {
	addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", l.Attrs().Name, err)
	}
	var networks []netip.Prefix
	for _, a := range addrs {
		if p, ok := prefixOf(a.IPNet); ok {
			networks = append(networks, p)
		}
	}
	return networks, nil
}

// routed tells whether the kernel takes an address for a neighbour on a link: whether there is a route to it by that link, without a
// gateway, and not the one to everywhere. Where the address is on the link already, the routes that the kernel made for addresses may be its own.
func routed(l netlink.Link, ip netip.Addr, there bool) (bool, error) {
	family := netlink.FAMILY_V4
	if ip.Is6() {
		family = netlink.FAMILY_V6
	}
	routes, err := netlink.RouteList(l, family)
	if err != nil {
		return false, fmt.Errorf("list routes of %s: %w", l.Attrs().Name, err)
	}
	for _, r := range routes {
		if there && r.Protocol == unix.RTPROT_KERNEL {
			continue
		}
		dst, ok := prefixOf(r.Dst)
		// The route to the address alone is its own.
		if ok && r.Gw == nil && r.Via == nil && len(r.MultiPath) == 0 && dst.Bits() > 0 && !dst.IsSingleIP() && dst.Contains(ip) {
			return true, nil
		}
	}
	return false, nil
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	ip, ok := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(ip.Unmap(), bits), ok
}

// linkMAC returns the link address of an Ethernet interface, nil for others.
func linkMAC(l netlink.Link) net.HardwareAddr {
	if a := l.Attrs(); len(a.HardwareAddr) == 6 && a.Flags&net.FlagLoopback == 0 {
		return a.HardwareAddr
	}
	return nil
}
