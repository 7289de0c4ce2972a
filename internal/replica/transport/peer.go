package transport

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"

	"holdfast/internal/link"
)

// peer is another node.
type peer struct {
	t  *Transport
	id uint64
	// ctx ends when the transport closes or the node is no peer any more.
	ctx    context.Context
	cancel context.CancelFunc
	addr   atomic.Pointer[string]

	control, bulk *lane
	// inbound counts the connections that the peer has to us.
	inbound atomic.Int32
	// known: it was connected, and was not reported as gone since.
	known atomic.Bool
}

func newPeer(t *Transport, id uint64, addr string) *peer {
	p := &peer{t: t, id: id}
	p.ctx, p.cancel = context.WithCancel(t.ctx)
	p.addr.Store(&addr)
	p.control = newLane(p, kindControl, maxControlBytes)
	p.bulk = newLane(p, kindBulk, maxBulkBytes)
	return p
}

func (p *peer) address() string { return *p.addr.Load() }

// move makes the peer be connected to at another address, if it is another.
func (p *peer) move(addr string) {
	if p.address() == addr {
		return
	}
	p.addr.Store(&addr)
	// That a connection is refused where it never was does not mean that it is dead.
	p.known.Store(false)
	p.control.drop()
	p.bulk.drop()
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

// lane is one connection to a peer, again and again.
type lane struct {
	p     *peer
	kind  kind
	limit int
	wake  chan struct{} // holds at most one token

	mu    sync.Mutex
	conn  *link.Conn // nil: not connected
	queue []queued
	bytes int
	// busy: somebody is writing, and looks at the queue again afterwards. held: conn has something that the socket had no room for; it goes before the queue.
	busy, held bool
	// told is when Unreachable was last called, to call it once per tick and not once per message.
	told time.Time
}

type queued struct {
	g *Group
	m raftpb.Message
}

func newLane(p *peer, k kind, limit int) *lane {
	return &lane{p: p, kind: k, limit: limit, wake: make(chan struct{}, 1)}
}

// unreachableInterval is how often a group hears that a peer is not reachable.
const unreachableInterval = 20 * time.Millisecond

// put queues a message, or drops it if there is no connection or no room. A call of flush must follow.
func (l *lane) put(g *Group, m *raftpb.Message) {
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

// flush writes what is queued, as far as it is short and the socket has room, and leaves the rest to the lane's goroutine. It never waits. It saves
// the sender, who has nothing better to do, the price of waking another goroutine for each message.
func (l *lane) flush() {
	l.mu.Lock()
	if l.conn == nil || l.busy || len(l.queue) == 0 {
		l.mu.Unlock()
		return
	}
	if l.held || l.bytes > inlineBytes {
		l.mu.Unlock()
		l.signal()
		return
	}
	conn, msgs := l.conn, l.queue
	l.queue, l.bytes, l.busy = nil, 0, true
	l.mu.Unlock()
	done, err := conn.TryWrite(l.encode(msgs))
	if err != nil {
		_ = conn.Close() // use finds out
	}
	l.mu.Lock()
	l.busy = false
	if l.conn == conn {
		l.held = !done
	}
	more := l.conn != nil && (l.held || len(l.queue) > 0)
	l.mu.Unlock()
	if more {
		l.signal()
	}
}

func (l *lane) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// begin takes what there is to write; false: nothing, or somebody else is writing.
func (l *lane) begin() (msgs []queued, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy || (!l.held && len(l.queue) == 0) {
		return nil, false
	}
	msgs = l.queue
	l.held, l.queue, l.bytes, l.busy = false, nil, 0, true
	return msgs, true
}

func (l *lane) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy = false
}

func (l *lane) setConn(conn *link.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn, l.held = conn, false
	l.queue, l.bytes = nil, 0
}

// drop closes the connection, so that run makes another.
func (l *lane) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		_ = l.conn.Close()
	}
}

// run keeps the connection up until the peer's context ends.
func (l *lane) run() {
	t, ctx := l.p.t, l.p.ctx
	pause := t.cfg.RedialMin
	var lastErr string
	for ctx.Err() == nil {
		addr := l.p.address()
		conn, err := t.dial(ctx, l.p, addr, l.kind)
		if err == nil {
			pause, lastErr = t.cfg.RedialMin, ""
			err = l.use(conn, addr)
			if ctx.Err() != nil {
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
		} else if err.Error() != lastErr && ctx.Err() == nil {
			lastErr = err.Error()
			t.cfg.Logger.Warn("cannot connect to a peer", "peer", l.p.id, "kind", l.kind.String(), "err", err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		if !l.p.known.Load() {
			pause = min(pause*3/2, t.cfg.RedialMax)
		}
	}
}

// errMoved is why the connection to a peer whose address changes is given up.
var errMoved = errors.New("transport: the peer has another address now")

// use sends what is queued until the connection, which leads to addr, breaks. The other side sends nothing, so reading tells when it closes.
func (l *lane) use(conn *link.Conn, addr string) error {
	broken := make(chan error, 1)
	var reader sync.WaitGroup
	reader.Go(func() {
		var b [1]byte
		_, err := conn.Read(b[:])
		if err == nil {
			err = ErrBadFrame
		}
		broken <- err
	})
	defer reader.Wait()
	defer conn.Close()
	defer context.AfterFunc(l.p.ctx, func() { _ = conn.Close() })()
	l.setConn(conn)
	defer l.setConn(nil)
	l.p.known.Store(true)
	if l.p.address() != addr {
		l.p.known.Store(false)
		return errMoved
	}
	for {
		select {
		case err := <-broken:
			return err
		case <-l.wake:
		}
		for {
			msgs, ok := l.begin()
			if !ok {
				break
			}
			err := conn.Flush()
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
func (l *lane) encode(msgs []queued) (bufs [][]byte) {
	for i := range msgs {
		bufs, _ = l.appendFrame(bufs, &msgs[i])
	}
	return bufs
}

// appendFrame appends a message's frame to bufs and returns its length, 0 for a message that cannot be sent.
func (l *lane) appendFrame(bufs [][]byte, q *queued) ([][]byte, int) {
	next, n, err := AppendFrame(bufs, q.g.id, &q.m)
	if err != nil {
		l.p.t.cfg.Logger.Error("a message cannot be sent", "peer", l.p.id, "type", q.m.Type.String(), "err", err)
		return bufs, 0
	}
	return next, n
}

// write sends messages with as few system calls as their size allows.
func (l *lane) write(conn *link.Conn, msgs []queued) error {
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
		if err := conn.WriteBuffers(bufs); err != nil {
			return err
		}
		bufs, bytes = bufs[:0], 0
	}
	return nil
}
