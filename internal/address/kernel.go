package address

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// network is what a Manager needs of the kernel.
type network interface {
	// device finds the interface of that name, or, without a name, the one whose network the prefix is of.
	device(name string, prefix netip.Prefix) (device, error)
	// carrier makes a device of the process's own for an address, see openCarrier.
	carrier() (device, io.Closer, error)
	// add puts the address on the interface, or renews it there, for a lifetime.
	add(d device, prefix netip.Prefix, lifetime time.Duration) error
	// remove takes the address off the interface; that it is not there is no error.
	remove(d device, prefix netip.Prefix) error
	// send puts an Ethernet frame out.
	send(d device, frame []byte) error
	// tickle sends IP packets from the server's address to clients, as Tickle does.
	tickle(server netip.AddrPort, clients []netip.AddrPort) error
}

// device is a network interface.
type device struct {
	index int
	name  string
	mac   net.HardwareAddr // empty where there are none, as on loopback
	// member tells that the interface has another address in the network of the one that moves, and so a route to it.
	member bool
}

// kernel is the network of the namespace that the process is in.
type kernel struct{}

func (kernel) device(name string, prefix netip.Prefix) (device, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return device{}, fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		a := l.Attrs()
		if name != "" && a.Name != name {
			continue
		}
		member, err := hasNetwork(l, prefix)
		if err != nil {
			return device{}, err
		}
		if name == "" && !member {
			continue
		}
		d := device{index: a.Index, name: a.Name, member: member}
		if len(a.HardwareAddr) == 6 && a.Flags&net.FlagLoopback == 0 {
			d.mac = a.HardwareAddr
		}
		return d, nil
	}
	if name == "" {
		return device{}, fmt.Errorf("no interface has an address in %s; name the device", prefix.Masked())
	}
	return device{}, fmt.Errorf("there is no interface %s", name)
}

// hasNetwork tells whether a link has another address of the prefix's network.
func hasNetwork(l netlink.Link, prefix netip.Prefix) (bool, error) {
	addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return false, fmt.Errorf("list addresses of %s: %w", l.Attrs().Name, err)
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.Unmap() != prefix.Addr() && prefix.Contains(ip.Unmap()) {
			return true, nil
		}
	}
	return false, nil
}

func (kernel) carrier() (device, io.Closer, error) { return openCarrier() }

func (kernel) add(d device, prefix netip.Prefix, lifetime time.Duration) error {
	a := netlinkAddr(prefix)
	a.ValidLft = int(lifetime / time.Second)
	a.PreferedLft = a.ValidLft
	if prefix.Addr().Is6() {
		// Duplicate address detection would keep the address unusable for a second; raft knows that there is one holder.
		a.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrReplace(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: d.index}}, a); err != nil {
		return fmt.Errorf("add %s to %s: %w", prefix, d.name, err)
	}
	return nil
}

func (kernel) remove(d device, prefix netip.Prefix) error {
	err := netlink.AddrDel(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: d.index}}, netlinkAddr(prefix))
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("remove %s from %s: %w", prefix, d.name, err)
	}
	return nil
}

func netlinkAddr(p netip.Prefix) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{
		IP:   p.Addr().AsSlice(),
		Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
	}}
}

func (kernel) send(d device, frame []byte) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: d.index, Halen: 6}); err != nil {
		return fmt.Errorf("announce on %s: %w", d.name, err)
	}
	return nil
}

func (kernel) tickle(server netip.AddrPort, clients []netip.AddrPort) error {
	return Tickle(server, clients)
}
