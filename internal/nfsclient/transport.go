package nfsclient

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/internal/rpc"
)

// Back-off between attempts to connect: the first one after a loss is made at once.
const (
	reconnectMin = 5 * time.Millisecond
	reconnectMax = 20 * time.Millisecond
)

// Stats count what happened to a client since it was mounted.
type Stats struct {
	Calls      uint64 // requests, however often each was sent
	Reconnects uint64 // connections made after the first
	Retries    uint64 // requests sent again after a lost connection
	Delays     uint64 // answers DELAY or JUKEBOX: sent again later
	Grace      uint64 // answers GRACE: sent again later
	LostState  uint64 // answers and flags that say that the server lost state, all of them returned as errors
}

type counters struct {
	calls, reconnects, retries, delays, grace, lostState atomic.Uint64
}

func (c *counters) snapshot() Stats {
	return Stats{
		Calls: c.calls.Load(), Reconnects: c.reconnects.Load(), Retries: c.retries.Load(),
		Delays: c.delays.Load(), Grace: c.grace.Load(), LostState: c.lostState.Load(),
	}
}

// xids numbers the calls of all clients of this process: a version 3 server tells clients apart by address only, and they share it.
var xids atomic.Uint32

func init() {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	xids.Store(binary.BigEndian.Uint32(b[:]))
}

// transport is a connection to one address that is made again whenever it is lost.
type transport struct {
	cfg Config
	counters
	address string
	running sync.WaitGroup // readers of connections

	mu      sync.Mutex // guards the fields below
	conn    *rpc.Conn  // nil before the first; may have ended
	dialing chan struct{}
	closed  bool
	dials   int   // attempts since the last reply
	dialErr error // of the last attempt
	made    int   // connections
}

func newTransport(cfg Config, address string) *transport {
	return &transport{cfg: cfg, address: address}
}

// close ends the connection for good.
func (t *transport) close() {
	t.mu.Lock()
	t.closed = true
	conn := t.conn
	t.mu.Unlock()
	if conn != nil {
		conn.Close()
	}
	t.running.Wait()
}

// connect returns a living connection, making one if necessary, until ctx ends.
func (t *transport) connect(ctx context.Context) (*rpc.Conn, error) {
	for {
		t.mu.Lock()
		if t.closed {
			t.mu.Unlock()
			return nil, ErrClosed
		}
		if t.conn != nil && t.conn.Err() == nil {
			defer t.mu.Unlock()
			return t.conn, nil
		}
		if dialing := t.dialing; dialing != nil {
			t.mu.Unlock()
			select {
			case <-dialing:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			continue
		}
		done := make(chan struct{})
		t.dialing = done
		wait := t.backoffLocked()
		t.mu.Unlock()

		err := t.dial(ctx, wait)
		t.mu.Lock()
		t.dialing = nil
		if end, ends := ctx.Deadline(); ctx.Err() == nil && (!ends || time.Now().Before(end)) {
			t.dialErr = err // otherwise it is only that we stopped trying, which the connection may notice before ctx does
		}
		err = t.dialErr
		t.mu.Unlock()
		close(done)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("nfsclient: connecting to %s: %w (last error: %v)", t.address, ctx.Err(), err)
		}
	}
}

func (t *transport) backoffLocked() time.Duration {
	n := t.dials
	t.dials++
	if n == 0 {
		return 0
	}
	return min(reconnectMin<<min(n-1, 8), reconnectMax)
}

// dial makes one attempt, after a pause.
func (t *transport) dial(ctx context.Context, wait time.Duration) error {
	if err := pause(ctx, wait); err != nil {
		return err
	}
	attempt, cancel := context.WithTimeout(ctx, t.cfg.DialTimeout)
	defer cancel()
	conn, err := rpc.DialFrom(attempt, t.cfg.From, t.address, rpc.ConnConfig{Alloc: buffers.get, Free: buffers.put, Log: t.cfg.Log, MaxRecord: t.cfg.IOBytes + 256<<10})
	if err != nil {
		t.cfg.Log.Debug("connecting", "addr", t.address, "err", err)
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		conn.Close()
		return ErrClosed
	}
	if t.conn = conn; t.made > 0 {
		t.reconnects.Add(1)
	}
	t.made++
	t.running.Go(func() {
		err := conn.Run()
		t.cfg.Log.Debug("connection ended", "addr", t.address, "err", err)
	})
	return nil
}

// answered notes that the server answers, so that the next loss is followed by an attempt at once.
func (t *transport) answered() {
	t.mu.Lock()
	t.dials = 0
	t.mu.Unlock()
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// flight is one request on its way: the record, and the connection it was last sent on.
type flight struct {
	t       *transport
	xid     uint32
	record  []byte
	conn    *rpc.Conn
	pending *rpc.Pending // nil: to be sent
	sent    int
}

func (t *transport) newFlight(xid uint32, record []byte) *flight {
	t.calls.Add(1)
	return &flight{t: t, xid: xid, record: record}
}

// await returns the results of the request, sending it until a reply comes. After an error of ctx it may be called again. Other errors are *rpc.ReplyError or
// malformed replies, and final.
func (f *flight) await(ctx context.Context) ([]byte, error) {
	for {
		if f.pending == nil {
			if err := f.send(ctx); err != nil {
				return nil, err
			}
			if f.pending == nil {
				continue
			}
		}
		limited, cancel := context.WithTimeout(ctx, f.t.cfg.ReplyTimeout)
		results, err := f.pending.Wait(limited)
		cancel()
		var rejected *rpc.ReplyError
		switch {
		case err == nil, errors.As(err, &rejected):
			f.t.answered()
			return results, err
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case limited.Err() != nil:
			f.t.cfg.Log.Warn("no reply: giving up the connection", "addr", f.t.address, "after", f.t.cfg.ReplyTimeout)
			f.conn.Close()
		case f.conn.Err() == nil:
			return nil, err
		}
		f.pending = nil
	}
}

// send sends the request once; pending is nil afterwards if the connection was lost right then.
func (f *flight) send(ctx context.Context) error {
	conn, err := f.t.connect(ctx)
	if err != nil {
		return err
	}
	if f.sent > 0 {
		f.t.retries.Add(1)
	}
	f.sent++
	f.conn = conn
	f.pending, err = conn.Start(f.xid, net.Buffers{f.record})
	if err != nil && conn.Err() == nil {
		return fmt.Errorf("nfsclient: sending: %w", err)
	}
	return nil
}

// done gives the buffers back; neither the results nor the record may be used afterwards.
func (f *flight) done() {
	if f.pending != nil {
		f.pending.Free()
	}
	// A connection that the record was sent on before may still be reading from it.
	if f.sent == 1 {
		buffers.put(f.record)
	}
	f.record = nil
}

// bufferPool keeps the large buffers of records: a MiB per READ and WRITE would otherwise keep the garbage collector busy.
type bufferPool struct{ large sync.Pool }

var buffers bufferPool

// pooledBytes is the least capacity worth keeping.
const pooledBytes = 64 << 10

func (p *bufferPool) get(n int) []byte {
	if n < pooledBytes {
		return make([]byte, n)
	}
	if b, ok := p.large.Get().(*[]byte); ok && cap(*b) >= n {
		return (*b)[:n]
	}
	return make([]byte, n, max(n, DefaultIOBytes+4<<10))
}

func (p *bufferPool) put(b []byte) {
	if cap(b) >= pooledBytes {
		p.large.Put(&b)
	}
}
