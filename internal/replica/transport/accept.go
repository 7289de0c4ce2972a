package transport

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"holdfast/internal/link"
)

// acceptLoop takes connections from peers.
func (t *Transport) acceptLoop() {
	for {
		accepted, err := t.ln.Accept()
		if err != nil {
			if t.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			t.cfg.Logger.Warn("cannot accept a connection", "err", err)
			select {
			case <-time.After(100 * time.Millisecond): // out of descriptors, most likely
			case <-t.ctx.Done():
			}
			continue
		}
		conn, ok := accepted.(*link.Conn)
		if !ok {
			// Nobody knows who it is.
			t.cfg.Logger.Error("the transport's listener is not one of package link", "type", fmt.Sprintf("%T", accepted))
			_ = accepted.Close()
			continue
		}
		if !t.track(conn) {
			_ = conn.Close()
			return
		}
		t.goRun(func() {
			defer t.untrack(conn)
			t.serve(conn)
		})
	}
}

func (t *Transport) track(conn *link.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.conns[conn] = nil
	return true
}

func (t *Transport) untrack(conn *link.Conn) {
	_ = conn.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, conn)
}

// admit notes whose connection it is; false: the node is no peer any more.
func (t *Transport) admit(conn *link.Conn, p *peer) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.peer(p.id) != p {
		return false
	}
	t.conns[conn] = p
	return true
}

// serve does everything for one accepted connection.
func (t *Transport) serve(conn *link.Conn) {
	h, p, err := t.welcome(conn)
	if err != nil {
		level := slog.LevelWarn
		if errors.Is(err, refusedUnknown) || errors.Is(err, io.EOF) {
			level = slog.LevelDebug // it tries again and again until it is known here
		}
		if t.ctx.Err() == nil {
			t.cfg.Logger.Log(t.ctx, level, "a connection for raft was turned away", "from", conn.RemoteAddr().String(), "node", h.from, "err", err)
		}
		return
	}
	if !t.admit(conn, p) {
		return
	}
	p.inbound.Add(1)
	defer p.inbound.Add(-1)
	r := bufio.NewReaderSize(conn, 64<<10)
	if h.kind == kindSnapshot {
		err = t.serveSnapshot(conn, r, h.from)
	} else {
		err = t.serveMessages(r, h.from)
	}
	if err != nil && !errors.Is(err, io.EOF) && p.ctx.Err() == nil {
		t.cfg.Logger.Info("a connection from a peer ends", "peer", h.from, "kind", h.kind.String(), "err", err)
	}
}

// welcome finds out who is on the other side.
func (t *Transport) welcome(conn *link.Conn) (h hello, p *peer, err error) {
	if err := conn.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return h, nil, err
	}
	h, err = welcome(conn, func(h hello) refusal {
		if h.to != t.cfg.ID || h.from == t.cfg.ID {
			return refusedIdentity
		}
		if p = t.peer(h.from); p == nil {
			return refusedUnknown
		}
		return accepted
	})
	if err != nil {
		return h, nil, err
	}
	return h, p, conn.SetDeadline(time.Time{})
}

// maxBatch bounds how many messages are delivered at once.
const maxBatch = 64

// serveMessages delivers what a peer sends, until it stops.
func (t *Transport) serveMessages(r *bufio.Reader, from uint64) error {
	var g *Group
	var batch []raftpb.Message
	deliver := func() {
		if g != nil && len(batch) > 0 {
			g.handler.Receive(batch)
		}
		batch = nil
	}
	defer deliver()
	for {
		b, err := readFrame(r, MaxFrameBytes)
		if err != nil {
			return err
		}
		id, m, err := DecodeMessage(b)
		if err != nil {
			return err
		}
		if err := t.checkRoute(&m, from); err != nil {
			return err
		}
		if g == nil || g.id != id || len(batch) == maxBatch {
			deliver()
			g = t.group(id)
		}
		batch = append(batch, m)
		if r.Buffered() < frameHeaderBytes+messageBytes {
			deliver()
			g = nil // it may leave
		}
	}
}

// checkRoute checks that a message from a node is from a member that is there, to one that is here.
func (t *Transport) checkRoute(m *raftpb.Message, from uint64) error {
	if NodeOf(m.From) != from || NodeOf(m.To) != t.cfg.ID {
		return fmt.Errorf("%w: a message from %d to %d came from %d", ErrBadFrame, m.From, m.To, from)
	}
	return nil
}

// serveSnapshot hands a stream to the group that it is for.
func (t *Transport) serveSnapshot(conn *link.Conn, r *bufio.Reader, from uint64) error {
	s := newStream(conn, r)
	b, err := s.Receive()
	if err != nil {
		return err
	}
	id, m, err := DecodeMessage(b)
	if err != nil {
		return err
	}
	if err := t.checkRoute(&m, from); err != nil {
		return err
	}
	g := t.group(id)
	if g == nil || g.member != m.To {
		return fmt.Errorf("transport: a snapshot for member %d of group %d, which is not here", m.To, id)
	}
	return g.handler.ReceiveSnapshot(t.ctx, m.From, s)
}
