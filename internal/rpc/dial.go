package rpc

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Keep-alive of all our TCP connections: a peer that vanished without a word is noticed after about a minute.
const (
	keepAliveIdle     = 30 * time.Second
	keepAliveInterval = 10 * time.Second
	keepAliveCount    = 3
	userTimeout       = 60 * time.Second // unacknowledged data, and a peer that keeps its window shut
)

// Tune sets the options of a TCP connection, or of the one below a TLS connection; what is neither is left as it is. Small records must not wait for
// each other (TCP_NODELAY is net's default), and a dead peer must be noticed. An error means that the connection has ended already.
func Tune(nc net.Conn) error {
	if below, ok := nc.(interface{ NetConn() net.Conn }); ok {
		return Tune(below.NetConn())
	}
	t, ok := nc.(*net.TCPConn)
	if !ok {
		return nil
	}
	err := t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount})
	if err != nil {
		return fmt.Errorf("rpc: setting keep-alive: %w", err)
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return fmt.Errorf("rpc: setting the user timeout: %w", err)
	}
	var optErr error
	err = raw.Control(func(fd uintptr) {
		optErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout/time.Millisecond))
	})
	if err == nil {
		err = optErr
	}
	if err != nil {
		return fmt.Errorf("rpc: setting the user timeout: %w", err)
	}
	return nil
}

// Dial connects to a TCP address. The caller must call Run, in a goroutine of its own, for replies to arrive.
func Dial(ctx context.Context, address string, cfg ConnConfig) (*Conn, error) {
	return DialFrom(ctx, netip.Addr{}, address, cfg)
}

// DialFrom is Dial from an address of this machine; the zero Addr leaves the choice to the kernel.
func DialFrom(ctx context.Context, from netip.Addr, address string, cfg ConnConfig) (*Conn, error) {
	var d net.Dialer
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	nc, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("rpc: connecting: %w", err)
	}
	if err := Tune(nc); err != nil {
		_ = nc.Close()
		return nil, err
	}
	return NewConn(nc, cfg), nil
}
