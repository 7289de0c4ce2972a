package forward

import (
	"net"
	"net/netip"
	"sync/atomic"
)

// Conn is a client's connection that arrived by another node. Its addresses are those of the client's own connection.
type Conn struct {
	net.Conn // the stream

	client, local *net.TCPAddr
	abrupt        atomic.Bool
}

// newConn returns a *Conn, or something around one that writes more at once.
func newConn(stream net.Conn, h Header) net.Conn {
	c := &Conn{Conn: stream, client: net.TCPAddrFromAddrPort(h.Client), local: net.TCPAddrFromAddrPort(h.Local)}
	if w, ok := stream.(bufferWriter); ok {
		return gatheringConn{c, w}
	}
	return c
}

// bufferWriter is what link's connections have: many buffers, or a large one, become few system calls.
type bufferWriter interface {
	WriteBuffers(bufs [][]byte) error
}

// gatheringConn is a Conn over such a stream.
type gatheringConn struct {
	*Conn
	bufferWriter
}

// RemoteAddr returns the client's address and port, a *net.TCPAddr.
func (c *Conn) RemoteAddr() net.Addr { return c.client }

// LocalAddr returns the address and port, at another node, that the client connected to, a *net.TCPAddr.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// NetConn returns the stream, for its socket's options.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// SetLinger decides what Close does, as a socket's does: with 0 it breaks the stream without a word and without waiting. The client sees a reset either way.
func (c *Conn) SetLinger(seconds int) error {
	c.abrupt.Store(seconds == 0)
	setLinger(c.Conn, seconds)
	return nil
}

// Close ends the stream.
func (c *Conn) Close() error {
	if c.abrupt.Load() {
		breakOff(c.Conn)
		return nil
	}
	return c.Conn.Close()
}

// socket returns what is below the layers of a connection.
func socket(nc net.Conn) net.Conn {
	for {
		upper, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			return nc
		}
		nc = upper.NetConn()
	}
}

// setLinger is SO_LINGER of the connection's socket, if it is one: 0 makes closing a reset, also by the kernel when this process dies.
func setLinger(nc net.Conn, seconds int) {
	if t, ok := socket(nc).(interface{ SetLinger(int) error }); ok {
		_ = t.SetLinger(seconds) // an error means that the socket is gone
	}
}

// breakOff ends a connection so that the peer sees a reset, without waiting for it: TLS finds its socket closed when it is to say good-bye.
func breakOff(nc net.Conn) {
	setLinger(nc, 0)
	_ = socket(nc).Close()
	_ = nc.Close()
}

// addrPort returns a TCP address; the zero value for any other.
func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
