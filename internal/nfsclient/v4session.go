package nfsclient

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"sync"
	"time"

	"holdfast/internal/rpc"
	"holdfast/internal/xdr"
)

// Flags of EXCHANGE_ID, CREATE_SESSION and SEQUENCE (RFC 8881 sections 18.35, 18.36 and 18.46).
const (
	exchangeNonPNFS = 0x10000
	// seqLostState: EXPIRED_ALL_STATE_REVOKED, EXPIRED_SOME_STATE_REVOKED, ADMIN_STATE_REVOKED, RESTART_RECLAIM_NEEDED.
	seqLostState = 0x08 | 0x10 | 0x20 | 0x100
)

const (
	// sessionOverhead is what a request or reply takes besides its payload.
	sessionOverhead = 4 << 10
	maxOperations   = 16
	// cachedReplyBytes is the longest reply that we ask the server to keep for a retry.
	cachedReplyBytes = 4 << 10
	// retryDelay is how long a DELAY or GRACE is waited out.
	retryDelay = 10 * time.Millisecond
)

// session is a version 4.1 session: slots on which requests are executed exactly once, whatever happens to the connection.
type session struct {
	*transport
	id       [sessionIDBytes]byte
	clientID uint64

	free  chan struct{} // one token for each free slot
	mu    sync.Mutex    // guards freeSlots
	slots []slot
	bits  []uint64 // free slots

	flagged sync.Once // a flag about lost state was counted
}

// slot is one slot of the session (RFC 8881 section 2.10.6.1). It belongs to whoever acquired it.
type slot struct {
	id  uint32
	seq uint32 // sequence number of the last request
	// unresolved is a request whose caller gave up. The slot cannot be used again before it is known that the request was executed.
	unresolved *flight
}

// newSession makes a client id and a session.
func newSession(ctx context.Context, t *transport) (*session, serverChannel, error) {
	s := &session{transport: t}
	var ch serverChannel
	seq, err := s.exchangeID(ctx)
	if err != nil {
		return nil, ch, err
	}
	if ch, err = s.createSession(ctx, seq); err != nil {
		return nil, ch, err
	}
	n := min(t.cfg.Slots, int(ch.maxRequests))
	if n < 1 {
		return nil, ch, fmt.Errorf("nfsclient: the server grants a session without slots")
	}
	s.slots = make([]slot, n)
	s.free = make(chan struct{}, n)
	s.bits = make([]uint64, (n+63)/64)
	for i := range s.slots {
		s.slots[i].id = uint32(i)
		s.bits[i/64] |= 1 << (i % 64)
		s.free <- struct{}{}
	}
	return s, ch, nil
}

// serverChannel is what the server grants for the fore channel.
type serverChannel struct {
	maxRequestBytes, maxReplyBytes, maxRequests uint32
}

// plain sends a COMPOUND that needs no session: executing it twice is harmless.
func (s *session) plain(ctx context.Context, build func(c *compound), parse func(r *results) error) error {
	for {
		xid := xids.Add(1)
		e := xdr.NewEncoder(make([]byte, 0, 512))
		rpc.AppendCall(e, xid, rpc.ProgNFS, 4, 1, s.cfg.Auth)
		build(newCompound(e))
		res, err := s.newFlight(xid, e.Bytes()).await(ctx)
		if err != nil {
			return err
		}
		if err = parse(parseCompound(res)); !errors.Is(err, ErrDelay) {
			return s.note(err)
		}
		s.delays.Add(1)
		if err := pause(ctx, retryDelay); err != nil {
			return err
		}
	}
}

func (s *session) exchangeID(ctx context.Context) (seq uint32, err error) {
	var verifier [verifierBytes]byte
	_, _ = rand.Read(verifier[:]) // never fails
	name := s.cfg.Name
	if name == "" {
		host, _ := os.Hostname() // a name without it is unique too
		name = fmt.Sprintf("holdfast-client %s %d %x", host, os.Getpid(), verifier)
	}
	err = s.plain(ctx, func(c *compound) {
		c.op(opExchangeID)
		c.Fixed(verifier[:])
		c.String(name)
		c.Uint32(exchangeNonPNFS)
		c.Uint32(0) // SP4_NONE
		c.Uint32(0) // no implementation id
	}, func(r *results) error {
		if err := r.op(opExchangeID); err != nil {
			return err
		}
		s.clientID = r.Uint64()
		seq = r.Uint32()
		return r.check()
	})
	return seq, err
}

func (s *session) createSession(ctx context.Context, seq uint32) (ch serverChannel, err error) {
	size := uint32(s.cfg.IOBytes + sessionOverhead)
	err = s.plain(ctx, func(c *compound) {
		c.op(opCreateSession)
		c.Uint64(s.clientID)
		c.Uint32(seq)
		c.Uint32(0) // neither persistent nor a back channel: we take no delegations
		encodeChannel(c.Encoder, size, uint32(s.cfg.Slots))
		encodeChannel(c.Encoder, sessionOverhead, 1)
		c.Uint32(0x40000000) // a callback program number, from the transient range
		c.Uint32(1)
		c.Uint32(rpc.AuthNone)
	}, func(r *results) error {
		if err := r.op(opCreateSession); err != nil {
			return err
		}
		copy(s.id[:], r.Fixed(sessionIDBytes))
		r.Uint32() // sequence
		r.Uint32() // flags
		r.Uint32() // header padding
		ch.maxRequestBytes, ch.maxReplyBytes = r.Uint32(), r.Uint32()
		r.Uint32() // cached reply bytes
		r.Uint32() // operations
		ch.maxRequests = r.Uint32()
		return r.check()
	})
	return ch, err
}

func encodeChannel(e *xdr.Encoder, size, requests uint32) {
	e.Uint32(0)
	e.Uint32(size)
	e.Uint32(size)
	e.Uint32(cachedReplyBytes)
	e.Uint32(maxOperations)
	e.Uint32(requests)
	e.Uint32(0)
}

// acquire waits for a slot; the lowest free one, as servers keep fewer replies then.
func (s *session) acquire(ctx context.Context) (*slot, error) {
	select {
	case <-s.free:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, w := range s.bits {
		if w != 0 {
			n := bits.TrailingZeros64(w)
			s.bits[i] &^= 1 << n
			return &s.slots[i*64+n], nil
		}
	}
	panic("nfsclient: a token without a free slot")
}

func (s *session) release(sl *slot) {
	s.mu.Lock()
	s.bits[sl.id/64] |= 1 << (sl.id % 64)
	s.mu.Unlock()
	s.free <- struct{}{}
}

// request is one COMPOUND for a slot.
type request struct {
	mutates bool // ask the server to keep the reply
	bytes   int  // of payload, to size the record
	build   func(c *compound)
	parse   func(r *results) error // for what follows SEQUENCE; must not keep what it reads
}

// do executes a request and returns the error of parse; requests that were told to come back later are sent again.
func (s *session) do(ctx context.Context, req request) error {
	for {
		sl, err := s.acquire(ctx)
		if err != nil {
			return err
		}
		again, err := s.doSlot(ctx, sl, &req)
		s.release(sl)
		if !again {
			return s.note(err)
		}
		if err := pause(ctx, retryDelay); err != nil {
			return err
		}
	}
}

// note counts statuses that tell of lost state.
func (s *session) note(err error) error {
	var status Status
	if errors.As(err, &status) && status.lostState() {
		s.lostState.Add(1)
	}
	return err
}

// doSlot executes a request once. again: it was not executed, and may be.
func (s *session) doSlot(ctx context.Context, sl *slot, req *request) (again bool, err error) {
	if err := s.resolve(ctx, sl); err != nil {
		return false, err
	}
	xid := xids.Add(1)
	e := xdr.NewEncoder(buffers.get(512 + req.bytes)[:0])
	rpc.AppendCall(e, xid, rpc.ProgNFS, 4, 1, s.cfg.Auth)
	c := newCompound(e)
	c.op(opSequence)
	c.Fixed(s.id[:])
	c.Uint32(sl.seq + 1)
	c.Uint32(sl.id)
	c.Uint32(uint32(len(s.slots) - 1))
	c.Bool(req.mutates)
	req.build(c)
	f := s.newFlight(xid, e.Bytes())
	res, err := f.await(ctx)
	if err != nil {
		if ctx.Err() != nil && f.sent > 0 {
			sl.unresolved = f
		}
		return false, err
	}
	defer f.done()
	r := parseCompound(res)
	if again, err := s.sequenced(sl, r, !req.mutates); err != nil || again {
		return again, err
	}
	err = req.parse(r)
	var failed *Error
	if errors.As(err, &failed) && failed.index <= c.main {
		switch failed.Status {
		case ErrDelay:
			s.delays.Add(1)
			return true, nil
		case ErrGrace:
			s.grace.Add(1)
			return true, nil
		}
	}
	return false, err
}

// sequenced reads the result of SEQUENCE and advances the slot. again: the request was not executed, or its reply is gone and it may be repeated.
func (s *session) sequenced(sl *slot, r *results, repeatable bool) (again bool, err error) {
	err = r.op(opSequence)
	switch {
	case errors.Is(err, ErrDelay):
		s.delays.Add(1)
		return true, nil
	case errors.Is(err, ErrRetryUncached) && repeatable:
		sl.seq++
		return true, nil
	case err != nil:
		return false, err
	}
	sl.seq++
	r.Fixed(sessionIDBytes)
	seq, id := r.Uint32(), r.Uint32()
	r.Uint32()
	r.Uint32()
	flags := r.Uint32()
	if err := r.check(); err != nil {
		return false, err
	}
	if seq != sl.seq || id != sl.id {
		return false, fmt.Errorf("nfsclient: the answer to request %d of slot %d is for request %d of slot %d", sl.seq, sl.id, seq, id)
	}
	if flags&seqLostState != 0 {
		s.flagged.Do(func() { s.lostState.Add(1) })
	}
	return false, nil
}

// resolve waits for the answer to a request whose caller gave up, so that the slot's sequence number is known again.
func (s *session) resolve(ctx context.Context, sl *slot) error {
	if sl.unresolved == nil {
		return nil
	}
	res, err := sl.unresolved.await(ctx)
	if err != nil {
		if ctx.Err() == nil {
			sl.unresolved = nil
		}
		return err
	}
	_, err = s.sequenced(sl, parseCompound(res), true)
	sl.unresolved.done()
	sl.unresolved = nil
	return err
}

// renew keeps the lease of an idle client until ctx ends.
func (s *session) renew(ctx context.Context, lease time.Duration) {
	ticker := time.NewTicker(max(lease/3, 100*time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := s.do(ctx, request{build: func(*compound) {}, parse: func(*results) error { return nil }})
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.Error("renewing the lease", "err", err)
		}
	}
}

// destroy ends the session and the client id. A client id that is busy stays until its lease expires.
func (s *session) destroy(ctx context.Context) error {
	err := s.plain(ctx, func(c *compound) {
		c.op(opDestroySession)
		c.Fixed(s.id[:])
	}, func(r *results) error { return r.op(opDestroySession) })
	if err != nil {
		return err
	}
	err = s.plain(ctx, func(c *compound) {
		c.op(opDestroyClientID)
		c.Uint64(s.clientID)
	}, func(r *results) error { return r.op(opDestroyClientID) })
	if errors.Is(err, ErrClientIDBusy) {
		return nil
	}
	return err
}
