package address

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// packetPort receives the frames of one Ethernet type that arrive at a device, and is a member of a multicast group. All of it ends with the
// process.
type packetPort struct {
	*os.File
	group *os.File // nil without a group
}

// listen opens a port for etherTypeARP, or for etherTypeIPv6: then for solicitations and advertisements only, and as a member of group, so
// that the device and the switches let the group's frames through.
func (*kernel) listen(d device, etherType uint16, group netip.Addr) (_ io.ReadCloser, err error) {
	p := packetPort{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("listen on %s: %w", d.name, err), p.Close())
		}
	}()
	// Nothing arrives at the socket before it is bound to a protocol, so nothing slips past the filter.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	p.File = os.NewFile(uintptr(fd), "packet socket on "+d.name)
	if etherType == etherTypeIPv6 {
		program := unix.SockFprog{Len: uint16(len(neighbourFilter)), Filter: &neighbourFilter[0]}
		if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program); err != nil {
			return nil, fmt.Errorf("attach filter: %w", err)
		}
		if p.group, err = join(d, group); err != nil {
			return nil, err
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: etherType<<8 | etherType>>8, Ifindex: d.index}); err != nil {
		return nil, fmt.Errorf("bind packet socket: %w", err)
	}
	return p, nil
}

// neighbourFilter passes solicitations and advertisements of neighbours (RFC 4861 sections 4.3 and 4.4), out of all the traffic.
var neighbourFilter = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: etherHeader + 6}, // next header
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: protoICMPv6, Jf: 4},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: etherHeader + ipv6HeaderSz}, // type
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: icmpSolicitation, Jt: 1},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: icmpAdvertisement, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 16},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
}

// join makes this machine a member of a multicast group until the file is closed.
func join(d device, group netip.Addr) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("join %s: %w", group, err)
	}
	err = unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(d.index)})
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("join %s: %w", group, err)
	}
	return os.NewFile(uintptr(fd), "group "+group.String()), nil
}

// Close ends reading and leaves the group.
func (p packetPort) Close() error {
	var errs []error
	for _, f := range []*os.File{p.File, p.group} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
