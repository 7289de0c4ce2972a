package link

import (
	"net"
	"testing"
)

// fakeConn is a connection from an address.
type fakeConn struct {
	net.Conn
	from   string
	closed bool
}

func (c *fakeConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(c.from), Port: 7} }
func (c *fakeConn) Close() error         { c.closed = true; return nil }

func TestTheOldestHandshakeIsGivenUp(t *testing.T) {
	h := newHandshakes(4, 2)
	var conns []*fakeConn
	var done []func()
	begin := func(from string) {
		c := &fakeConn{from: from}
		conns, done = append(conns, c), append(done, h.begin(c))
	}
	closed := func(want ...bool) {
		t.Helper()
		for i, w := range want {
			if conns[i].closed != w {
				t.Errorf("connection %d: closed %v", i, conns[i].closed)
			}
		}
	}
	begin("192.0.2.1")
	begin("2001:db8::1")
	begin("2001:db8::2")
	closed(false, false, false)
	begin("2001:db8::3") // the third of its network
	closed(false, true, false, false)
	done[1]() // the goroutine of one that was given up ends
	begin("192.0.2.2")
	begin("192.0.2.3") // the fifth of all
	closed(true, true, false, false, false, false)
	done[2]()
	begin("192.0.2.4")
	closed(true, true, false, false, false, false, false)
	for _, f := range done {
		f()
	}
	if h.all.Len() != 0 || len(h.sources) != 0 {
		t.Errorf("%d handshakes from %d sources are left", h.all.Len(), len(h.sources))
	}
	begin("192.0.2.1")
	h.closeAll()
	if !conns[len(conns)-1].closed {
		t.Error("closeAll leaves a connection open")
	}
}
