package portmap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxDatagram is the longest question that is read: headers with the largest credentials that RFC 5531 allows, and three strings.
const maxDatagram = 2 << 10

// readPause is how long is waited after a read that failed.
const readPause = 10 * time.Millisecond

// listenUDP opens a socket on an address that need not be here yet. On an unspecified address it learns which one each question was sent to.
// SO_REUSEADDR is not set: with it the socket would take the questions from another program's.
func listenUDP(ctx context.Context, addr netip.AddrPort) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(network, _ string, c syscall.RawConn) error {
		var err error
		ctlErr := c.Control(func(fd uintptr) {
			if err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1); err != nil {
				err = fmt.Errorf("set IP_FREEBIND on a %s socket: %w", network, err)
				return
			}
			if addr.Addr() == netip.IPv4Unspecified() {
				err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_PKTINFO, 1)
			}
			if addr.Addr() == netip.IPv6Unspecified() {
				err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1)
			}
		})
		return errors.Join(ctlErr, err)
	}}
	pc, err := lc.ListenPacket(ctx, family("udp", addr.Addr()), addr.String())
	if err != nil {
		return nil, err
	}
	return pc.(*net.UDPConn), nil
}

// family makes a network's name that of one address family, so that an unspecified IPv6 address is not one of IPv4, too.
func family(network string, ip netip.Addr) string {
	if ip.Is6() {
		return network + "6"
	}
	return network + "4"
}

// serveUDP answers until the socket is closed.
func (s *Server) serveUDP(ctx context.Context, conn *net.UDPConn, bound netip.Addr) {
	limit := newLimiter()
	buf, oob := make([]byte, maxDatagram), make([]byte, 128)
	for {
		n, oobn, flags, from, err := conn.ReadMsgUDPAddrPort(buf, oob)
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		case err != nil: // such as an ICMP error about an answer
			select {
			case <-ctx.Done():
			case <-time.After(readPause):
			}
			continue
		case flags&unix.MSG_TRUNC != 0 || !limit.allow(from.Addr().Unmap(), time.Now()):
			continue
		}
		local, control := bound, []byte(nil)
		if bound.IsUnspecified() {
			if local, control = askedAddress(oob[:oobn]); !local.IsValid() {
				continue
			}
		}
		reply, err := answer(&question{record: buf[:n], local: local, proto: protoUDP, entries: s.entries(local)})
		if err != nil || reply == nil {
			continue
		}
		if _, _, err := conn.WriteMsgUDPAddrPort(reply, control, from); err != nil {
			s.log.Debug("cannot answer a port mapper question", "from", from, "err", err)
		}
	}
}

// askedAddress returns the address that a datagram was sent to, and the control message that makes the answer come from it.
func askedAddress(oob []byte) (netip.Addr, []byte) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}, nil
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			// struct in_pktinfo: index, local address, address in the header.
			ip := [4]byte(m.Data[4:8])
			return netip.AddrFrom4(ip), unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: ip})
		case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			ip := [16]byte(m.Data[:16])
			return netip.AddrFrom16(ip), unix.PktInfo6(&unix.Inet6Pktinfo{Addr: ip})
		}
	}
	return netip.Addr{}, nil
}
