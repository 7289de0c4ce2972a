package address

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Tickle sends each client one TCP acknowledgement from the server's address that belongs to no connection. The client
// answers it with what its connection expects (RFC 9293 section 3.10.7.4, RFC 5961 section 5); this machine, which now
// has the address but not the connection, resets that; and the client connects anew at once, rather than at its next
// retransmission. A tickle for a connection that does exist here is answered and ignored. It needs CAP_NET_RAW.
//
// Clients of the other address family than the server's are left out. All errors are returned together; a client that
// cannot be reached does not keep the others from being tickled.
func Tickle(server netip.AddrPort, clients []netip.AddrPort) error {
	server = unmap(server)
	family := unix.AF_INET
	if server.Addr().Is6() {
		family = unix.AF_INET6
	}
	// IPPROTO_RAW implies that the IP header is given (raw(7)).
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("open raw socket: %w", err)
	}
	defer unix.Close(fd)
	var errs []error
	for _, c := range clients {
		c = unmap(c)
		if c.Addr().Is4() != server.Addr().Is4() {
			continue
		}
		if err := unix.Sendto(fd, tickle(server, c), 0, rawSockaddr(c)); err != nil {
			errs = append(errs, fmt.Errorf("tickle %s: %w", c, err))
		}
	}
	return errors.Join(errs...)
}

// unmap makes an IPv4 address of one that is mapped into IPv6, as listeners on both families report them.
func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// rawSockaddr is where a packet goes. Raw sockets have no port, and IPv6 wants it to be zero.
func rawSockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16()}
}
