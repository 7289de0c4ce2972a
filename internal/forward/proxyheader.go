package forward

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// The PROXY protocol is haproxy's (doc/proxy-protocol.txt, versions 1 and 2); most balancers speak it.
const (
	signatureV2 = "\r\n\r\n\x00\r\nQUIT\n"
	maxV1       = 107 // bytes of the longest line of version 1, with its end
	maxV2       = 2048
)

// balancerTimeout is how long a balancer may take to send its header.
const balancerTimeout = 5 * time.Second

// errProxyHeader is the reason for resetting a balancer's connection.
var errProxyHeader = errors.New("no PROXY header")

// balancedConn is a connection from a balancer on behalf of a client. It is the balancer's socket in all but its addresses.
type balancedConn struct {
	*net.TCPConn
	client, local *net.TCPAddr
}

func (c *balancedConn) RemoteAddr() net.Addr { return c.client }
func (c *balancedConn) LocalAddr() net.Addr  { return c.local }

// NetConn returns the socket.
func (c *balancedConn) NetConn() net.Conn { return c.TCPConn }

// identify reads the PROXY header of a connection that comes from a balancer; others it returns as they are.
func (p *Proxy) identify(ctx context.Context, nc net.Conn) (net.Conn, error) {
	t, ok := nc.(*net.TCPConn)
	if !ok || !p.isBalancer(addrPort(nc.RemoteAddr()).Addr()) {
		return nc, nil
	}
	stop := context.AfterFunc(ctx, func() { breakOff(nc) })
	defer stop()
	if err := nc.SetReadDeadline(time.Now().Add(balancerTimeout)); err != nil {
		return nc, err
	}
	client, local, err := readProxyHeader(nc)
	if err != nil {
		return nc, err
	}
	if err := nc.SetReadDeadline(time.Time{}); err != nil {
		return nc, err
	}
	if !client.IsValid() {
		return nc, nil // the balancer speaks for itself
	}
	return &balancedConn{TCPConn: t, client: net.TCPAddrFromAddrPort(client), local: net.TCPAddrFromAddrPort(local)}, nil
}

func (p *Proxy) isBalancer(a netip.Addr) bool {
	for _, n := range p.cfg.Balancers {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

// readProxyHeader reads a header of either version, and nothing beyond it. Without an error and with invalid addresses the balancer speaks for
// itself, as in its health checks.
func readProxyHeader(r io.Reader) (client, local netip.AddrPort, err error) {
	// Both versions are longer than the signature of version 2.
	var start [len(signatureV2)]byte
	if _, err := io.ReadFull(r, start[:]); err != nil {
		return client, local, fmt.Errorf("%w: %w", errProxyHeader, err)
	}
	switch {
	case string(start[:]) == signatureV2:
		return readV2(r)
	case bytes.HasPrefix(start[:], []byte("PROXY ")):
		return readV1(r, start[:])
	}
	return client, local, errProxyHeader
}

func readV2(r io.Reader) (client, local netip.AddrPort, err error) {
	var fixed [4]byte // version and command, family and protocol, length
	if _, err := io.ReadFull(r, fixed[:]); err != nil {
		return client, local, fmt.Errorf("%w: %w", errProxyHeader, err)
	}
	n := int(binary.BigEndian.Uint16(fixed[2:]))
	if fixed[0]>>4 != 2 || n > maxV2 {
		return client, local, fmt.Errorf("%w: version %d, %d bytes", errProxyHeader, fixed[0]>>4, n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return client, local, fmt.Errorf("%w: %w", errProxyHeader, err)
	}
	switch fixed[0] & 0xf {
	case 0: // LOCAL
		return client, local, nil
	case 1: // PROXY
	default:
		return client, local, fmt.Errorf("%w: command %d", errProxyHeader, fixed[0]&0xf)
	}
	size := 0
	switch fixed[1] {
	case 0x11: // TCP over IPv4
		size = 4
	case 0x21: // TCP over IPv6
		size = 16
	default:
		return client, local, nil // unknown to the balancer, or not TCP: the protocol says to use the connection's own
	}
	if n < 2*size+4 {
		return client, local, fmt.Errorf("%w: too short", errProxyHeader)
	}
	from, _ := netip.AddrFromSlice(body[:size])
	to, _ := netip.AddrFromSlice(body[size : 2*size])
	ports := body[2*size:]
	client = netip.AddrPortFrom(from.Unmap(), binary.BigEndian.Uint16(ports))
	return client, netip.AddrPortFrom(to.Unmap(), binary.BigEndian.Uint16(ports[2:])), nil
}

// readV1 reads a line "PROXY TCP4 192.0.2.1 192.0.2.2 1023 2049\r\n", or "PROXY UNKNOWN ...\r\n", of which start was read.
func readV1(r io.Reader, start []byte) (client, local netip.AddrPort, err error) {
	line := append(make([]byte, 0, maxV1), start...)
	for !bytes.HasSuffix(line, []byte("\r\n")) {
		if len(line) == maxV1 {
			return client, local, fmt.Errorf("%w: endless line", errProxyHeader)
		}
		// One byte at a time: what follows is the client's.
		line = line[:len(line)+1]
		if _, err := io.ReadFull(r, line[len(line)-1:]); err != nil {
			return client, local, fmt.Errorf("%w: %w", errProxyHeader, err)
		}
	}
	f := strings.Split(string(line[:len(line)-2]), " ")
	if f[1] == "UNKNOWN" {
		return client, local, nil
	}
	if len(f) != 6 || f[1] != "TCP4" && f[1] != "TCP6" {
		return client, local, fmt.Errorf("%w: %q", errProxyHeader, line)
	}
	from, err1 := parseAddrPort(f[2], f[4])
	to, err2 := parseAddrPort(f[3], f[5])
	if err := errors.Join(err1, err2); err != nil {
		return client, local, fmt.Errorf("%w: %w", errProxyHeader, err)
	}
	return from, to, nil
}

func parseAddrPort(addr, port string) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return netip.AddrPort{}, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(a.Unmap().WithZone(""), uint16(n)), nil
}
