package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"holdfast/internal/identity"
)

// Options of a Mux. Zero values stand for the defaults.
type Options struct {
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// HandshakeTimeout is how long a handshake may take, until somebody has accepted the connection; default 5 s.
	HandshakeTimeout time.Duration
	// UserTimeout is how long sent bytes may stay unacknowledged before a connection counts as dead (TCP_USER_TIMEOUT); default 3 s.
	UserTimeout time.Duration
	// MaxHandshakes and MaxPerSource bound the handshakes under way, all and those with one address; defaults 256 and 64. Beyond them the oldest one is given up.
	MaxHandshakes, MaxPerSource int
	// MaxStrangers bounds the open connections of those that were not asked for a certificate; default 64.
	MaxStrangers int
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.HandshakeTimeout == 0 {
		o.HandshakeTimeout = 5 * time.Second
	}
	if o.MaxHandshakes == 0 {
		o.MaxHandshakes = 256
	}
	if o.MaxPerSource == 0 {
		o.MaxPerSource = 64
	}
	if o.MaxStrangers == 0 {
		o.MaxStrangers = 64
	}
	return o
}

// Mux is a node's port: it hands accepted connections out by what they are for.
type Mux struct {
	ln         net.Listener
	opts       Options
	cfg        *tls.Config
	handshakes *handshakes
	complaints *complaints

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu        sync.Mutex
	listeners map[string]*listener
	conns     map[*Conn]struct{}
	strangers int
}

// Listen returns a Mux for the connections of ln, which it owns. Nothing is accepted before Serve.
func Listen(ln net.Listener, creds *identity.Credentials, opts Options) *Mux {
	opts = opts.withDefaults()
	m := &Mux{
		ln: ln, opts: opts,
		handshakes: newHandshakes(opts.MaxHandshakes, opts.MaxPerSource),
		complaints: newComplaints(opts.Logger),
		listeners:  make(map[string]*listener),
		conns:      make(map[*Conn]struct{}),
	}
	m.cfg = creds.Server(m.allowed)
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// allowed says who may connect for a protocol: nobody, if nobody here serves it.
func (m *Mux) allowed(proto string) identity.Access {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.listeners[proto] == nil {
		return identity.Nobody
	}
	return access(proto)
}

// Addr returns the address of the port.
func (m *Mux) Addr() net.Addr { return m.ln.Addr() }

// Listener returns a listener whose connections, all of type *Conn, are those for a protocol, which must be one of the constants. Until it is called, and after the
// listener is closed, such connections are refused. There is one listener at a time for each protocol: a second one takes the first one's place.
func (m *Mux) Listener(proto string) net.Listener {
	l := &listener{m: m, proto: proto, conns: make(chan *Conn, 16), done: make(chan struct{})}
	m.mu.Lock()
	old := m.listeners[proto]
	m.listeners[proto] = l
	m.mu.Unlock()
	if old != nil {
		_ = old.Close()
	}
	if m.ctx.Err() != nil {
		_ = l.Close()
	}
	return l
}

// Serve accepts connections until ctx ends or Close is called; then it closes the port, the listeners, and every connection. It returns an error if the port fails.
func (m *Mux) Serve(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = m.Close() })()
	defer m.wg.Wait()
	for {
		conn, err := m.ln.Accept()
		switch {
		case err == nil:
			m.accept(conn)
		case m.ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept connections: %w", err)
		default:
			m.opts.Logger.Warn("cannot accept a connection", "err", err)
			select {
			case <-time.After(100 * time.Millisecond): // out of descriptors, most likely
			case <-m.ctx.Done():
			}
		}
	}
}

// Close closes the port, the listeners and the connections.
func (m *Mux) Close() error {
	m.cancel()
	err := m.ln.Close()
	m.handshakes.closeAll()
	m.mu.Lock()
	var ls []*listener
	for _, l := range m.listeners {
		ls = append(ls, l)
	}
	m.mu.Unlock()
	for _, l := range ls {
		_ = l.Close()
	}
	m.Disconnect(func(identity.Peer) bool { return true })
	return err
}

// Disconnect closes the accepted connections of the peers that match, such as those whose certificate was revoked.
func (m *Mux) Disconnect(match func(identity.Peer) bool) {
	m.mu.Lock()
	var cs []*Conn
	for c := range m.conns {
		if match(c.peer) {
			cs = append(cs, c)
		}
	}
	m.mu.Unlock()
	for _, c := range cs {
		_ = c.Close()
	}
}

// accept does the handshake of a connection, on a goroutine of its own.
func (m *Mux) accept(conn net.Conn) {
	done := m.handshakes.begin(conn)
	if m.ctx.Err() != nil {
		_ = conn.Close() // closeAll may have come before begin
	}
	m.wg.Go(func() {
		defer done()
		if err := m.welcome(conn); err != nil {
			_ = conn.Close()
			if m.ctx.Err() == nil {
				m.complaints.log(conn.RemoteAddr(), err)
			}
		}
	})
}

// welcome finds out who is there and what for, and hands the connection over.
func (m *Mux) welcome(conn net.Conn) error {
	ctx, cancel := context.WithTimeout(m.ctx, m.opts.HandshakeTimeout)
	defer cancel()
	tune(conn, m.opts.UserTimeout)
	w := newWire(conn)
	t := tls.Server(w, m.cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		return err
	}
	proto := t.ConnectionState().NegotiatedProtocol
	c, err := newConn(t, w, proto)
	if err != nil {
		return err
	}
	m.mu.Lock()
	l := m.listeners[proto]
	m.mu.Unlock()
	if l == nil {
		return fmt.Errorf("nobody serves %s any more", proto)
	}
	if err := m.track(c); err != nil {
		return err
	}
	select {
	case l.conns <- c:
		// Close may have emptied the queue before.
		select {
		case <-l.done:
			l.drain()
		default:
		}
		return nil
	case <-l.done:
		err = fmt.Errorf("nobody serves %s any more", proto)
	case <-ctx.Done():
		err = fmt.Errorf("a connection for %s was not accepted in time", proto)
	}
	_ = c.Close()
	return err
}

// track notes an open connection.
func (m *Mux) track(c *Conn) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return net.ErrClosed
	}
	stranger := c.peer.Kind == identity.KindStranger
	if stranger {
		if m.strangers >= m.opts.MaxStrangers {
			return fmt.Errorf("there are %d connections for %s already", m.strangers, c.proto)
		}
		m.strangers++
	}
	m.conns[c] = struct{}{}
	c.onClose = func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.conns, c)
		if stranger {
			m.strangers--
		}
	}
	return nil
}

// listener has the connections for one protocol.
type listener struct {
	m     *Mux
	proto string
	conns chan *Conn
	done  chan struct{}
	once  sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, l.closed()
	default:
	}
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, l.closed()
	}
}

func (l *listener) closed() error {
	return &net.OpError{Op: "accept", Net: l.proto, Addr: l.Addr(), Err: net.ErrClosed}
}

// Close ends Accept and closes what nobody has accepted. The port stays open for the other protocols.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.m.mu.Lock()
		if l.m.listeners[l.proto] == l {
			delete(l.m.listeners, l.proto)
		}
		l.m.mu.Unlock()
		close(l.done)
	})
	l.drain()
	return nil
}

func (l *listener) drain() {
	for {
		select {
		case c := <-l.conns:
			_ = c.Close()
		default:
			return
		}
	}
}

func (l *listener) Addr() net.Addr { return l.m.ln.Addr() }
