package rpc

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Defaults of ConnConfig.
const (
	DefaultMaxRecord    = 1<<20 + 64<<10 // the largest WRITE or READ payload we negotiate, and room for the rest of the compound
	DefaultMaxInflight  = 256
	DefaultMaxQueued    = 4 << 20
	DefaultWriteTimeout = 30 * time.Second
	DefaultReadTimeout  = 30 * time.Second
)

// Errors that end a connection.
var (
	// ErrClosed is returned for what was asked of, or was waiting on, a connection that its owner closed.
	ErrClosed = errors.New("rpc: connection is closed")
	// ErrBadMark is the end of a connection whose peer sent an impossible record mark (RFC 5531 section 11).
	ErrBadMark = errors.New("rpc: bad record mark")
	// ErrTooLarge is the end of a connection whose peer sent a record over the limit.
	ErrTooLarge = errors.New("rpc: record exceeds the limit")
	// ErrNotRPC is the end of a connection whose peer sent a record that is neither call nor reply.
	ErrNotRPC = errors.New("rpc: record is not an RPC message")
	// ErrSlowReader is the end of a connection whose peer does not read its replies.
	ErrSlowReader = errors.New("rpc: peer does not read its replies")
)

// Handler receives the calls that arrive on a connection.
type Handler interface {
	// Handle is called for one record after the other from the connection's reader; while it runs nothing more is read from
	// that connection, so it hands long work to somebody else. Whoever ends the work calls rec.Done, once.
	// The record starts like a call (its message type is CALL); the rest is for ParseCall to judge.
	Handle(c *Conn, rec Record)
}

// HandlerFunc is a Handler made of a function.
type HandlerFunc func(c *Conn, rec Record)

// Handle calls f.
func (f HandlerFunc) Handle(c *Conn, rec Record) { f(c, rec) }

// Record is one call as it came off the wire, in a buffer of its own that belongs to whoever holds the record.
type Record struct {
	// Buf holds ConnConfig.Headroom bytes of unspecified content, for the holder to use, and then the message.
	Buf []byte
	// Off is where the message starts.
	Off int

	conn *Conn
}

// Bytes returns the message.
func (r Record) Bytes() []byte { return r.Buf[r.Off:] }

// Done says that the call is answered, or dropped: it no longer counts as in flight. It must be called exactly once; the buffer
// stays the holder's.
func (r Record) Done() {
	if r.conn != nil {
		r.conn.recordDone(len(r.Buf) - r.Off)
	}
}

// ConnConfig are the limits and habits of a connection. Zero values stand for the defaults.
type ConnConfig struct {
	// MaxRecord is the longest record accepted, in bytes.
	MaxRecord int
	// Headroom is how many bytes are left free in front of each record.
	Headroom int
	// MaxInflight is how many calls may be with the handler; beyond that nothing is read.
	MaxInflight int
	// MaxQueued is how many bytes of replies may wait for the peer before no more calls are read from it.
	MaxQueued int
	// WriteTimeout is how long the peer may take to accept a batch of output (and a second longer for each 64 KiB).
	WriteTimeout time.Duration
	// ReadTimeout is how long a record that has begun may take to arrive. Between records a peer may be silent for ever.
	ReadTimeout time.Duration
	// Alloc returns the buffer for a record: n bytes of any content. nil: make.
	Alloc func(n int) []byte
	// Free takes back the buffers of replies after Pending.Free; nil: they are left to the garbage collector.
	Free func(buf []byte)
	// Handler receives the calls of the peer. nil: calls end the connection.
	Handler Handler
	// Log receives one line for each connection that ends by the peer's fault. nil: slog.Default.
	Log *slog.Logger
}

func (cfg *ConnConfig) setDefaults() {
	setDefault(&cfg.MaxRecord, DefaultMaxRecord)
	setDefault(&cfg.MaxInflight, DefaultMaxInflight)
	setDefault(&cfg.MaxQueued, DefaultMaxQueued)
	setDefault(&cfg.WriteTimeout, DefaultWriteTimeout)
	setDefault(&cfg.ReadTimeout, DefaultReadTimeout)
	if cfg.Alloc == nil {
		cfg.Alloc = func(n int) []byte { return make([]byte, n) }
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
}

func setDefault[T int | int64 | time.Duration](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}

// Conn is one connection on which both ends may call. All methods are safe for concurrent use.
//
// One goroutine reads (run). Writing has no goroutine of its own: whoever sends drives the output as far as the socket accepts it
// at once, for everybody who queued meanwhile; only when the peer is slow is a goroutine started to wait for it, and it ends when the
// queue is empty. So Send never waits for a peer.
type Conn struct {
	cfg    ConnConfig
	nc     net.Conn
	raw    syscall.RawConn // nil when nc is no socket: then every write goes through flush
	id     uint64
	local  netip.AddrPort
	remote netip.AddrPort
	shared *shared // limits shared by the connections of a server; nil for a lone connection

	reader recordReader
	out    output

	xid   atomic.Uint32
	value atomic.Value
	reset atomic.Bool // the end is to be a reset

	done chan struct{} // closed with the connection

	// mu guards the fields below. Waiting for them is done on turn.
	mu        sync.Mutex
	turn      sync.Cond // broadcast when inflight or the queue shrinks, and on the end
	inflight  int
	err       error // why the connection ended; nil while it lives
	pending   map[uint32]*Pending
	flushWait sync.WaitGroup // the flusher, if any
}

var connIDs atomic.Uint64

// NewConn makes a Conn of an established connection. Nothing is read before Run; Send works at once.
func NewConn(nc net.Conn, cfg ConnConfig) *Conn { return newConn(nc, cfg, nil) }

func newConn(nc net.Conn, cfg ConnConfig, sh *shared) *Conn {
	cfg.setDefaults()
	c := &Conn{
		cfg:    cfg,
		nc:     nc,
		id:     connIDs.Add(1),
		local:  addrPort(nc.LocalAddr()),
		remote: addrPort(nc.RemoteAddr()),
		shared: sh,
		done:   make(chan struct{}),
	}
	c.turn.L = &c.mu
	c.reader = recordReader{br: bufio.NewReaderSize(nc, readBufferBytes), conn: c}
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.raw = raw
		}
	}
	c.out.init(c)
	// Any start will do, as XIDs are compared on one connection only; not 0, so that traces of several connections differ.
	c.xid.Store(uint32(c.id)*2654435761 + uint32(time.Now().UnixNano()))
	return c
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
	}
	return netip.AddrPort{}
}

// LocalAddr returns this end's address; the zero value for what is not TCP.
func (c *Conn) LocalAddr() netip.AddrPort { return c.local }

// RemoteAddr returns the peer's address; the zero value for what is not TCP.
func (c *Conn) RemoteAddr() netip.AddrPort { return c.remote }

// Done returns a channel that is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns why the connection has ended, nil while it lives; io.EOF when the peer closed it.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// SetValue keeps something of the owner's with the connection. All values of one connection must be of one type.
func (c *Conn) SetValue(v any) { c.value.Store(v) }

// Value returns what SetValue kept, or nil.
func (c *Conn) Value() any { return c.value.Load() }

// Buffered returns how many bytes of further input have arrived already. It may be called from Handle only, which runs in the reader.
func (c *Conn) Buffered() int { return c.reader.br.Buffered() }

// Close ends the connection; output that waits is dropped.
func (c *Conn) Close() { c.end(ErrClosed) }

// Reset ends the connection and makes the peer see a reset instead of an orderly end (SO_LINGER 0), so that a client reconnects at once.
func (c *Conn) Reset() {
	c.reset.Store(true)
	c.end(ErrClosed)
}

// Fail ends the connection because of what the peer sent, with one line in the log.
func (c *Conn) Fail(err error) {
	if c.end(err) {
		c.cfg.Log.Warn("closing an RPC connection", "peer", c.peer(), "err", err)
	}
}

func (c *Conn) peer() string {
	if c.remote.IsValid() {
		return c.remote.String()
	}
	return c.nc.RemoteAddr().String()
}

// vanishOnExit makes the kernel forget the connection when this process dies, rather than go on trying for minutes to end it in order. Where an
// address moves between nodes that matters: the clients' new connections may use the same ports, and when the address comes back here, the
// remainder of the old one would answer for a new one that does not exist any more, and keep its client from noticing.
func (c *Conn) vanishOnExit() { c.setLinger(0) }

// setLinger is SO_LINGER: 0 makes closing a reset, -1 an orderly end in the background. An error means that the socket is gone already.
func (c *Conn) setLinger(seconds int) {
	if t, ok := c.nc.(interface{ SetLinger(int) error }); ok {
		_ = t.SetLinger(seconds)
	}
}

// end closes the connection for the reason err and reports whether it was the first to do so.
func (c *Conn) end(err error) bool {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return false
	}
	c.err = err
	waiting := c.pending
	c.pending = nil
	close(c.done)
	c.turn.Broadcast()
	c.mu.Unlock()

	if c.reset.Load() {
		c.setLinger(0)
	} else {
		c.setLinger(-1)
	}
	_ = c.nc.Close()
	c.out.abort(err)
	for _, p := range waiting {
		p.finish(nil, fmt.Errorf("rpc: call interrupted: %w", err))
	}
	return true
}

// Run reads from the connection until it ends, handing calls to the handler and replies to their callers, and returns why it ended:
// io.EOF for an orderly end by the peer, ErrClosed after Close. It must be called once.
func (c *Conn) Run() error {
	err := c.readLoop()
	if errors.Is(err, ErrBadMark) || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrNotRPC) || errors.Is(err, ErrSlowReader) {
		c.Fail(err)
	} else {
		c.end(err)
	}
	err = c.Err()
	c.out.abort(err) // whoever ended the connection may not have come to it yet, and then a flusher could still be started
	c.flushWait.Wait()
	return err
}

func (c *Conn) readLoop() error {
	for {
		if err := c.waitTurn(); err != nil {
			return err
		}
		buf, err := c.reader.next()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return ErrClosed
			}
			return err
		}
		if err := c.dispatch(buf); err != nil {
			return err
		}
	}
}

// dispatch hands on one record: headroom, then the message.
func (c *Conn) dispatch(buf []byte) error {
	msg := buf[c.cfg.Headroom:]
	if len(msg) < 8 {
		c.releaseBudget(len(msg))
		return fmt.Errorf("%w: %d bytes", ErrNotRPC, len(msg))
	}
	switch kind := binary.BigEndian.Uint32(msg[4:]); {
	case kind == msgCall && c.cfg.Handler != nil:
		c.mu.Lock()
		c.inflight++
		c.mu.Unlock()
		c.cfg.Handler.Handle(c, Record{Buf: buf, Off: c.cfg.Headroom, conn: c})
		return nil
	case kind == msgReply:
		c.releaseBudget(len(msg))
		c.deliver(buf)
		return nil
	default:
		c.releaseBudget(len(msg))
		return fmt.Errorf("%w: message type %d", ErrNotRPC, kind)
	}
}

// waitTurn waits until another record may be read: few enough calls in flight, and a peer that reads its replies.
func (c *Conn) waitTurn() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.err == nil && (c.inflight >= c.cfg.MaxInflight || c.out.unreadReplies() > c.cfg.MaxQueued) {
		c.turn.Wait()
	}
	return c.err
}

func (c *Conn) recordDone(n int) {
	c.mu.Lock()
	c.inflight--
	if c.inflight == c.cfg.MaxInflight-1 {
		c.turn.Broadcast()
	}
	c.mu.Unlock()
	c.releaseBudget(n)
}

func (c *Conn) acquireBudget(n int) error {
	if c.shared == nil || c.shared.budget.acquire(n, c.done) {
		return nil
	}
	return ErrClosed
}

func (c *Conn) releaseBudget(n int) {
	if c.shared != nil {
		c.shared.budget.release(n)
	}
}
