package join

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
)

// shortName is the first label of a host's name.
func shortName(host string) string {
	name, _, _ := strings.Cut(host, ".")
	return name
}

// peerAddress completes the address that other nodes shall reach this one at. Without a host it is the address that the machine itself uses toward another one.
func peerAddress(given, toward string) (string, error) {
	host, port := given, DefaultPort
	if h, p, err := net.SplitHostPort(given); err == nil {
		host, port = h, p
	}
	if host == "" {
		found, err := ownAddress(toward)
		if err != nil {
			return "", ownAddressError(toward, err)
		}
		host = found
	}
	host = strings.Trim(host, "[]")
	if addr, err := netip.ParseAddr(host); err == nil && addr.IsUnspecified() {
		return "", fmt.Errorf("%s is no address that other nodes can reach: give one with --peer", host)
	}
	return net.JoinHostPort(host, port), nil
}

// checkPeer refuses an address at which the other nodes could not reach this one.
func checkPeer(peer, toward string) error {
	own, err := netip.ParseAddrPort(peer)
	if err != nil {
		return nil // a name, of which the other nodes know more
	}
	host, _, _ := net.SplitHostPort(toward)
	if other, err := netip.ParseAddr(host); err == nil && own.Addr().IsLoopback() && !other.IsLoopback() {
		return fmt.Errorf("%s is this machine itself for every node, so that the one at %s cannot reach this one there: give an address of the network with --peer", own.Addr(), toward)
	}
	ln, err := net.Listen("tcp", peer)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("another process of this machine listens at %s already: end that one, or give this node another port with --peer and `listen` in its file", peer)
	}
	if err != nil {
		return nil // the others may reach it at an address that this machine does not have itself
	}
	return ln.Close()
}

// ownAddressError says why the machine's own address toward another is not known.
func ownAddressError(toward string, err error) error {
	var unknown *net.DNSError
	if errors.As(err, &unknown) {
		return fmt.Errorf("find the node at %s: %w", toward, err)
	}
	return fmt.Errorf("find out the address that the other nodes reach this one at: %w; give it with --peer", err)
}

// anywhere is an address of the networks for documentation (RFC 5737): nothing is sent to it, it stands for what the default route leads to.
const anywhere = "192.0.2.1:9"

// ownAddress returns the address that this machine sends from when it talks to another.
func ownAddress(toward string) (string, error) {
	if toward == "" {
		toward = anywhere
	}
	// Connecting a UDP socket sends nothing; it picks the route.
	conn, err := net.Dial("udp", toward)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return "", err
	}
	return local.Addr().String(), nil
}
