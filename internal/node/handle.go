package node

import (
	"errors"
	"sync"
	"time"

	"holdfast/internal/gateway"
	"holdfast/internal/rpc"
	"holdfast/internal/xdr"
)

// replyBufferBytes is the size of a pooled reply buffer: most replies are far smaller, and a READ's grows to its size once and then stays in the pool.
const replyBufferBytes = 4 << 10

var replyPool = sync.Pool{New: func() any { b := make([]byte, 0, replyBufferBytes); return &b }}

func putReply(b []byte) { replyPool.Put(&b) }

// Handle takes one NFS record from a connection's reader (rpc.Handler). Requests that mutate leave for the log at once; requests that only read are answered here
// and now, unless more input is waiting on the connection: then they go to a goroutine of their own, so that a client with many requests in flight
// is not served one at a time.
func (s *service) Handle(c *rpc.Conn, rec rpc.Record) {
	conn := connOf(c)
	var req gateway.Request
	reply, err := s.gate.Decode(conn, rec.Bytes(), &req)
	switch {
	case err != nil:
		c.Fail(err)
		rec.Done()
		return
	case reply != nil:
		conn.Reply(reply)
		rec.Done()
		return
	}
	if req.Mutates {
		s.propose(conn, rec, &req)
		return
	}
	if c.Buffered() == 0 {
		s.read(conn, &req)
		rec.Done()
		return
	}
	s.requests.Go(func() {
		defer rec.Done()
		s.read(conn, &req)
	})
}

// retryPause is how long a request waits that was turned away although the phase is still serving: raft knows of the end of a lease, or of a transfer, a little
// earlier than event does.
const retryPause = time.Millisecond

// await waits until a request that was turned away may be tried again, and reports whether that is here. A request whose connection ended meanwhile may be of an
// earlier leadership of this node (follow ends them all): its client may have had the answer from another leader, and gone on.
//
// If it may not, the request is dropped and the connection left to follow, which ends it when the address is given up. Reset before that, the client would be back
// at once, here still, on a connection that the next leader does not know of and so cannot tickle: if the address goes before the reset of that one is sent, the
// client takes it for a good connection and waits for its keepalive, 20 s.
func (s *service) await(conn *clientConn) bool {
	if phase, _ := s.phases.get(); phase == serving {
		pause(s.ctx, retryPause)
	}
	return s.phases.awaitServing(s.ctx) && conn.Err() == nil
}

// read answers a request that does not mutate. While the lease is interrupted it waits for it to come back, or for another leader. What this node's copy does not give back any
// more it leaves to another leader, if there can be one.
func (s *service) read(conn *clientConn, req *gateway.Request) {
	buf := replyPool.Get().(*[]byte)
	var e xdr.Encoder
	for {
		e.Reset((*buf)[:0])
		err := s.gate.Read(conn, req, &e)
		if err == nil || errors.Is(err, gateway.ErrDamaged) && !s.escape(err) {
			// A failure means that the connection is gone, and the reply with it.
			_ = conn.SendRelease(e.Bytes(), putReply)
			return
		}
		if !s.await(conn) {
			putReply(e.Bytes())
			return
		}
	}
}

// propose sends a mutating request to the log. The record's buffer belongs to the log from then on.
func (s *service) propose(conn *clientConn, rec rpc.Record, req *gateway.Request) {
	for {
		s.held.enter()
		err := s.gate.Propose(conn, req, rec.Buf, rec.Off, rec.Done)
		s.held.leave()
		if err == nil {
			return
		}
		if !errors.Is(err, gateway.ErrNotServing) {
			conn.Reset()
			rec.Done()
			return
		}
		if !s.await(conn) {
			rec.Done()
			return
		}
	}
}
