package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"
)

// peer is another node.
type peer struct {
	t    *Transport
	id   uint64
	addr string

	control, bulk *link
	// inbound counts the connections that the peer has to us.
	inbound atomic.Int32
	// known: it was connected, and was not reported as gone since.
	known atomic.Bool
}

func newPeer(t *Transport, id uint64, addr string) *peer {
	p := &peer{t: t, id: id, addr: addr}
	p.control = newLink(p, kindControl, maxControlBytes)
	p.bulk = newLink(p, kindBulk, maxBulkBytes)
	return p
}

// Limits of what is queued for a peer. Raft has at most Config.InflightBytes of a group's entries under way to a follower, so the bulk queue
// overflows only if many groups share a slow peer.
const (
	maxControlBytes = 1 << 20
	maxBulkBytes    = 128 << 20
)

// send queues a message on the connection that it belongs on.
func (p *peer) send(g *Group, m *raftpb.Message) {
	switch m.Type {
	case raftpb.MsgApp, raftpb.MsgAppResp:
		p.bulk.put(g, m)
	default:
		p.control.put(g, m)
	}
}

// refused notes that a connection to the peer was refused. If it had been there, and has no connection to us any more, its process is dead.
func (p *peer) refused() {
	if p.inbound.Load() == 0 && p.known.CompareAndSwap(true, false) {
		for _, g := range p.t.allGroups() {
			g.handler.PeerGone(p.id)
		}
	}
}

// link is one connection to a peer, again and again.
type link struct {
	p     *peer
	kind  kind
	limit int
	wake  chan struct{} // holds at most one token

	mu   sync.Mutex
	conn net.Conn // nil: not connected
	// raw is conn's, for writing without waiting; nil if conn cannot.
	raw   syscall.RawConn
	queue []queued
	bytes int
	// busy: somebody is writing, and looks at the queue again afterwards. rest is what the socket had no room for; it goes before the queue.
	busy bool
	rest [][]byte
	// told is when Unreachable was last called, to call it once per tick and not once per message.
	told time.Time
}

type queued struct {
	g *Group
	m raftpb.Message
}

func newLink(p *peer, k kind, limit int) *link {
	return &link{p: p, kind: k, limit: limit, wake: make(chan struct{}, 1)}
}

// unreachableInterval is how often a group hears that a peer is not reachable.
const unreachableInterval = 20 * time.Millisecond

// put queues a message, or drops it if there is no connection or no room. A call of flush must follow.
func (l *link) put(g *Group, m *raftpb.Message) {
	size := messageBytes + len(m.Context)
	for i := range m.Entries {
		size += descriptorBytes + len(m.Entries[i].Data)
	}
	l.mu.Lock()
	if l.conn != nil && (l.bytes == 0 || l.bytes+size <= l.limit) {
		l.queue = append(l.queue, queued{g, *m})
		l.bytes += size
		l.mu.Unlock()
		return
	}
	now := time.Now()
	tell := l.kind == kindBulk && now.Sub(l.told) >= unreachableInterval
	if tell {
		l.told = now
	}
	l.mu.Unlock()
	if tell {
		g.handler.Unreachable(l.p.id)
	}
}

// inlineBytes is how much flush writes itself: what is longer takes the kernel longer to copy than another goroutine takes to wake up.
const inlineBytes = 32 << 10

// flush writes what is queued, as far as it is short and the socket has room, and leaves the rest to the link's goroutine. It never waits. It saves
// the sender, who has nothing better to do, the price of waking another goroutine for each message.
func (l *link) flush() {
	l.mu.Lock()
	if l.conn == nil || l.busy || (len(l.queue) == 0 && len(l.rest) == 0) {
		l.mu.Unlock()
		return
	}
	if l.raw == nil || len(l.rest) > 0 || l.bytes > inlineBytes {
		l.mu.Unlock()
		l.signal()
		return
	}
	conn, raw, msgs := l.conn, l.raw, l.queue
	l.queue, l.bytes, l.busy = nil, 0, true
	l.mu.Unlock()
	rest := tryWritev(raw, l.encode(msgs))
	l.mu.Lock()
	l.busy = false
	if l.conn == conn {
		l.rest = rest
	}
	more := l.conn != nil && len(l.queue)+len(l.rest) > 0
	l.mu.Unlock()
	if more {
		l.signal()
	}
}

func (l *link) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// tryWritev writes what the socket takes now and returns the rest. A broken connection takes nothing: whoever writes the rest finds out why.
func tryWritev(raw syscall.RawConn, bufs [][]byte) (rest [][]byte) {
	if len(bufs) == 0 {
		return nil
	}
	n := 0
	// Its error says that the connection is closed.
	_ = raw.Write(func(fd uintptr) bool {
		n, _ = unix.Writev(int(fd), bufs[:min(len(bufs), maxVectors)])
		return true // not to be called again when there is room
	})
	for len(bufs) > 0 && n >= len(bufs[0]) {
		n -= len(bufs[0])
		bufs = bufs[1:]
	}
	if len(bufs) > 0 && n > 0 {
		bufs[0] = bufs[0][n:]
	}
	return bufs
}

// maxVectors is how many buffers Linux writes at once (IOV_MAX).
const maxVectors = 1024

// begin takes what there is to write; false: nothing, or somebody else is writing.
func (l *link) begin() (rest [][]byte, msgs []queued, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy || len(l.queue)+len(l.rest) == 0 {
		return nil, nil, false
	}
	rest, msgs = l.rest, l.queue
	l.rest, l.queue, l.bytes, l.busy = nil, nil, 0, true
	return rest, msgs, true
}

func (l *link) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy = false
}

func (l *link) setConn(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn, l.raw = conn, nil
	l.queue, l.bytes, l.rest = nil, 0, nil
	if tcp, ok := conn.(*net.TCPConn); ok {
		if raw, err := tcp.SyscallConn(); err == nil {
			l.raw = raw
		}
	}
}

// run keeps the connection up until the transport closes.
func (l *link) run() {
	t := l.p.t
	pause := t.cfg.RedialMin
	var lastErr string
	for t.ctx.Err() == nil {
		conn, err := t.dial(t.ctx, l.p, l.kind)
		if err == nil {
			pause, lastErr = t.cfg.RedialMin, ""
			l.p.known.Store(true)
			err = l.use(conn)
			if t.ctx.Err() != nil {
				return
			}
			t.cfg.Logger.Info("connection to a peer is lost", "peer", l.p.id, "kind", l.kind.String(), "err", err)
			for _, g := range t.allGroups() {
				g.handler.Unreachable(l.p.id)
			}
			continue // at once: whether it is refused tells whether the process is dead
		}
		if errors.Is(err, unix.ECONNREFUSED) {
			l.p.refused()
		} else if err.Error() != lastErr && t.ctx.Err() == nil {
			lastErr = err.Error()
			t.cfg.Logger.Warn("cannot connect to a peer", "peer", l.p.id, "kind", l.kind.String(), "err", err)
		}
		select {
		case <-time.After(pause):
		case <-t.ctx.Done():
		}
		if !l.p.known.Load() {
			pause = min(pause*3/2, t.cfg.RedialMax)
		}
	}
}

// use sends what is queued until the connection breaks. The other side sends nothing, so reading tells when it closes.
func (l *link) use(conn net.Conn) error {
	broken := make(chan error, 1)
	var reader sync.WaitGroup
	reader.Add(1)
	go func() {
		defer reader.Done()
		var b [1]byte
		_, err := conn.Read(b[:])
		if err == nil {
			err = ErrBadFrame
		}
		broken <- err
	}()
	defer reader.Wait()
	defer conn.Close()
	defer context.AfterFunc(l.p.t.ctx, func() { _ = conn.Close() })()
	l.setConn(conn)
	defer l.setConn(nil)
	for {
		select {
		case err := <-broken:
			return err
		case <-l.wake:
		}
		for {
			rest, msgs, ok := l.begin()
			if !ok {
				break
			}
			err := writev(conn, rest)
			if err == nil {
				err = l.write(conn, msgs)
			}
			l.end()
			if err != nil {
				return err
			}
		}
	}
}

// encode returns the frames of short messages.
func (l *link) encode(msgs []queued) (bufs [][]byte) {
	for i := range msgs {
		bufs, _ = l.appendFrame(bufs, &msgs[i])
	}
	return bufs
}

// appendFrame appends a message's frame to bufs and returns its length, 0 for a message that cannot be sent.
func (l *link) appendFrame(bufs [][]byte, q *queued) ([][]byte, int) {
	next, n, err := AppendFrame(bufs, q.g.id, &q.m)
	if err != nil {
		l.p.t.cfg.Logger.Error("a message cannot be sent", "peer", l.p.id, "type", q.m.Type.String(), "err", err)
		return bufs, 0
	}
	return next, n
}

// write sends messages with as few system calls as their size allows.
func (l *link) write(conn io.Writer, msgs []queued) error {
	const batchBytes = 1 << 20
	var bufs [][]byte
	bytes := 0
	for i := range msgs {
		var n int
		bufs, n = l.appendFrame(bufs, &msgs[i])
		bytes += n
		msgs[i] = queued{}
		if bytes < batchBytes && i < len(msgs)-1 {
			continue
		}
		if err := writev(conn, bufs); err != nil {
			return err
		}
		bufs, bytes = bufs[:0], 0
	}
	return writev(conn, bufs)
}

// writev writes bufs. A connection that cannot gather, TLS, gets small ones glued together.
func writev(conn io.Writer, bufs [][]byte) error {
	if len(bufs) == 0 {
		return nil
	}
	vec := net.Buffers(bufs)
	if _, ok := conn.(*net.TCPConn); !ok {
		vec = glue(bufs)
	}
	_, err := vec.WriteTo(conn)
	return err
}

// glue joins small neighbours.
func glue(bufs [][]byte) net.Buffers {
	const small = 16 << 10
	var out net.Buffers
	var cur []byte
	for _, b := range bufs {
		if len(b) > small {
			if len(cur) > 0 {
				out, cur = append(out, cur), nil
			}
			out = append(out, b)
			continue
		}
		cur = append(cur, b...)
	}
	if len(cur) > 0 {
		out = append(out, cur)
	}
	return out
}
