package address

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
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
	// guard makes sure that no packets from an address leave when the carrier or the address on it is gone, for a lifetime; closeGuard keeps
	// them from leaving from now on; unguard ends all that.
	guard(d device, ip netip.Addr, lifetime time.Duration) error
	closeGuard(d device, ip netip.Addr) error
	unguard(ip netip.Addr) error
	// send puts an Ethernet frame out.
	send(d device, frame []byte) error
	// listen receives the frames of an Ethernet type that arrive at the interface, one a Read, see packetPort.
	listen(d device, etherType uint16, group netip.Addr) (io.ReadCloser, error)
	// macs lists the link addresses of this machine.
	macs() ([]net.HardwareAddr, error)
	// answersForAll tells whether the kernel answers ARP on the interface for the addresses of other interfaces, too.
	answersForAll(d device) bool
	// Close closes what is kept open for send.
	Close() error
	// tickle sends IP packets from the server's address to clients, as Tickle does.
	tickle(server netip.AddrPort, clients []netip.AddrPort) error
}

// kernel is the network of the namespace that the process is in.
type kernel struct {
	mu  sync.Mutex
	out *os.File // the socket that frames leave by: kept, as the kernel takes some 10 ms to close one
}

func (k *kernel) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := k.out
	if k.out = nil; out == nil {
		return nil
	}
	return out.Close()
}

func (*kernel) macs() ([]net.HardwareAddr, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var macs []net.HardwareAddr
	for _, l := range links {
		if mac := linkMAC(l); mac != nil {
			macs = append(macs, mac)
		}
	}
	return macs, nil
}

func (*kernel) carrier() (device, io.Closer, error) { return openCarrier() }

func (*kernel) add(d device, prefix netip.Prefix, lifetime time.Duration) error {
	a := netlinkAddr(prefix)
	a.ValidLft = int(lifetime / time.Second)
	a.PreferedLft = a.ValidLft
	if d.carrier {
		a.PreferedLft = 0 // the host's own connections must not come from an address that moves (RFC 6724 section 5)
	}
	if prefix.Addr().Is6() {
		// Duplicate address detection would keep the address unusable for a second; a sentry has asked already.
		a.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrReplace(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: d.index}}, a); err != nil {
		return fmt.Errorf("add %s to %s: %w", prefix, d.name, err)
	}
	if prefix.Addr().Is6() {
		awaitLocal(prefix.Addr())
	}
	return nil
}

// awaitLocal waits until the kernel takes packets for an IPv6 address that was added: it does that in the background, and drops what arrives
// before, so that the first client would come to know the address as one that is silent for a second. There is no event for it: the one for
// the address comes too early.
func awaitLocal(ip netip.Addr) {
	const patience, pause = 100 * time.Millisecond, 100 * time.Microsecond
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(pause) {
		routes, err := netlink.RouteGet(ip.AsSlice())
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return
		}
	}
}

func (*kernel) remove(d device, prefix netip.Prefix) error {
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

func (k *kernel) send(d device, frame []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.out == nil {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open packet socket: %w", err)
		}
		k.out = os.NewFile(uintptr(fd), "packet socket")
	}
	if err := unix.Sendto(int(k.out.Fd()), frame, 0, &unix.SockaddrLinklayer{Ifindex: d.index, Halen: 6}); err != nil {
		return fmt.Errorf("send a frame on %s: %w", d.name, err)
	}
	return nil
}

func (*kernel) tickle(server netip.AddrPort, clients []netip.AddrPort) error {
	return Tickle(server, clients)
}

// answersForAll reads arp_ignore (ip-sysctl), of which the greater value counts. By default it is 0; balancers set it.
func (*kernel) answersForAll(d device) bool {
	for _, name := range []string{"all", d.name} {
		text, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + name + "/arp_ignore")
		if err == nil && strings.TrimSpace(string(text)) != "0" {
			return false
		}
	}
	return true
}
