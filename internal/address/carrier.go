package address

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// carrierFD is the least descriptor number of a carrier's device. A process that dies closes its descriptors in an order
// that depends on their numbers, the highest first since Linux 4.4 (task work runs last in, first out); the carrier has
// to go before the sockets, whose connections would be closed with a FIN otherwise.
const carrierFD = 60000

// carrierRoom is for how many carriers there is room where a process may have few descriptors.
const carrierRoom = 1024

// addrGenModeNone is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h: no link-local address.
const addrGenModeNone = 1

// openCarrier makes a network device that lives as long as this process, to carry a moving address.
//
// An address on an ordinary device outlives a killed process for a while. Until then the kernel tells all clients that
// their connections are closed, they connect anew, and the kernel, on which nobody listens any more, refuses them: a Linux
// NFS client then waits for 3 s. Where the address goes with the process, in the same instant, clients meet silence, which
// is what lets the next leader's tickles reach connections that still exist. The device is a tun whose other end nobody
// reads: packets come and go by the ordinary devices, because Linux accepts packets for an address of any of its devices on all of them. It
// answers ARP likewise, unless arp_ignore is set. It does not answer solicitations for an IPv6 address on another device than its own, nor as a
// proxy without becoming a router. Where the kernel does not answer a sentry does, which ends with the process too.
func openCarrier() (device, io.Closer, error) {
	f, err := openTun()
	if err != nil {
		return device{}, nil, fmt.Errorf("make a carrier for the address: %w", err)
	}
	d, err := setUpTun(f)
	if err != nil {
		f.Close()
		return device{}, nil, fmt.Errorf("make a carrier for the address: %w", err)
	}
	return d, f, nil
}

// openTun opens the control device at a high descriptor number.
func openTun() (*os.File, error) {
	const path = "/dev/net/tun"
	low, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(low)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, err
	}
	// There must be room above it for the carriers of many addresses.
	room := min(limit.Cur/4, carrierRoom)
	high, err := unix.FcntlInt(uintptr(low), unix.F_DUPFD_CLOEXEC, int(min(carrierFD, limit.Cur-room)))
	if err != nil {
		return nil, fmt.Errorf("duplicate descriptor: %w", err)
	}
	return os.NewFile(uintptr(high), path), nil
}

func setUpTun(f *os.File) (device, error) {
	request, err := unix.NewIfreq("holdfast%d")
	if err != nil {
		return device{}, err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(int(f.Fd()), unix.TUNSETIFF, request); err != nil {
		return device{}, fmt.Errorf("make tun device: %w", err)
	}
	link, err := netlink.LinkByName(request.Name())
	if err != nil {
		return device{}, err
	}
	// No link-local address, and no looking for routers; where there is no IPv6 there is nothing to turn off.
	if err := netlink.LinkSetIP6AddrGenMode(link, addrGenModeNone); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return device{}, fmt.Errorf("turn off link-local addresses of %s: %w", request.Name(), err)
	}
	if err := netlink.LinkSetGroup(link, carrierGroup); err != nil {
		return device{}, fmt.Errorf("put %s into its group: %w", request.Name(), err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return device{}, fmt.Errorf("set %s up: %w", request.Name(), err)
	}
	return device{index: link.Attrs().Index, name: request.Name(), carrier: true}, nil
}

// hostPrefix is the address alone: on a carrier there is no network around it.
func hostPrefix(p netip.Prefix) netip.Prefix { return netip.PrefixFrom(p.Addr(), p.Addr().BitLen()) }
