package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"holdfast/internal/xdr"
)

// ErrNotReply is returned by ParseReply for a record that is no RPC reply.
var ErrNotReply = errors.New("rpc: record is not a reply")

// ReplyError is a reply that says that the call was not executed (RFC 5531 section 9).
type ReplyError struct {
	Denied    bool       // rejected_reply; otherwise an accepted_reply other than SUCCESS
	Stat      AcceptStat // when !Denied
	Low, High uint32     // versions, when Stat is ProgMismatch or a denial is for the RPC version
	AuthStat  uint32     // auth_stat of a denial; 0 for a denial for the RPC version
}

// Error says why the call was not executed.
func (e *ReplyError) Error() string {
	switch {
	case e.Denied && e.AuthStat == 0:
		return fmt.Sprintf("rpc: call denied: RPC versions %d to %d are supported", e.Low, e.High)
	case e.Denied:
		return fmt.Sprintf("rpc: call denied: auth_stat %d", e.AuthStat)
	case e.Stat == ProgMismatch:
		return fmt.Sprintf("rpc: program versions %d to %d are supported", e.Low, e.High)
	default:
		return fmt.Sprintf("rpc: call not executed: accept_stat %d", uint32(e.Stat))
	}
}

// AppendCall appends the header of a call; the arguments follow. a's Machine and Groups are cut to what RFC 5531 allows.
func AppendCall(e *xdr.Encoder, xid, prog, vers, proc uint32, a *Auth) {
	e.Uint32(xid)
	e.Uint32(msgCall)
	e.Uint32(rpcVersion)
	e.Uint32(prog)
	e.Uint32(vers)
	e.Uint32(proc)
	e.Uint32(a.Flavor)
	at := e.Len()
	e.Uint32(0)
	if a.Flavor == AuthSys {
		e.Uint32(0) // stamp
		e.String(a.Machine[:min(len(a.Machine), maxMachine)])
		e.Uint32(a.UID)
		e.Uint32(a.GID)
		groups := a.Groups[:min(len(a.Groups), maxGroups)]
		e.Uint32(uint32(len(groups)))
		for _, g := range groups {
			e.Uint32(g)
		}
		e.PutUint32(at, uint32(e.Len()-at-4))
	}
	e.Uint32(AuthNone)
	e.Uint32(0)
}

// ParseReply decodes the header of a reply record. The results alias the record. A *ReplyError is a well-formed reply to a call that was
// not executed; any other error is a malformed reply.
func ParseReply(record []byte) (xid uint32, results []byte, err error) {
	d := xdr.NewDecoder(record)
	xid = d.Uint32()
	if kind := d.Uint32(); d.Err() == nil && kind != msgReply {
		return xid, nil, ErrNotReply
	}
	switch stat := d.Uint32(); {
	case d.Err() != nil:
	case stat == replyDenied:
		return xid, nil, parseDenied(d)
	case stat != replyOK:
		return xid, nil, fmt.Errorf("%w: reply_stat %d", ErrNotReply, stat)
	}
	d.Uint32() // verifier flavour
	d.Opaque(maxAuthBytes)
	stat := AcceptStat(d.Uint32())
	if d.Err() != nil {
		return xid, nil, fmt.Errorf("rpc: reply header: %w", d.Err())
	}
	if stat == Success {
		return xid, d.Rest(), nil
	}
	re := &ReplyError{Stat: stat}
	if stat == ProgMismatch {
		re.Low, re.High = d.Uint32(), d.Uint32()
	}
	return xid, nil, re
}

func parseDenied(d *xdr.Decoder) error {
	re := &ReplyError{Denied: true}
	switch why := d.Uint32(); why {
	case rpcMismatch:
		re.Low, re.High = d.Uint32(), d.Uint32()
	default:
		re.AuthStat = d.Uint32()
	}
	if d.Err() != nil {
		return fmt.Errorf("rpc: reply header: %w", d.Err())
	}
	return re
}

// Pending is a call that was sent and whose reply may still come.
type Pending struct {
	conn    *Conn
	xid     uint32
	ready   chan struct{} // closed when results and err are set
	buf     []byte
	results []byte
	err     error
}

// NextXID returns a transaction id that Start has not had on this connection for 2^32 calls.
func (c *Conn) NextXID() uint32 { return c.xid.Add(1) }

// Start sends a call whose record, header included, the caller has encoded, and returns at once. No other call with that XID may be pending.
// The record has at least one part; it must not change before the reply is there.
func (c *Conn) Start(xid uint32, record net.Buffers) (*Pending, error) {
	p := &Pending{conn: c, xid: xid, ready: make(chan struct{})}
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return nil, fmt.Errorf("rpc: calling: %w", c.err)
	}
	if c.pending == nil {
		c.pending = make(map[uint32]*Pending)
	}
	if c.pending[xid] != nil {
		c.mu.Unlock()
		return nil, fmt.Errorf("rpc: a call with xid %#x is pending", xid)
	}
	c.pending[xid] = p
	c.mu.Unlock()
	if err := c.out.send(outRecord{head: record[0], tail: record[1:], call: true}); err != nil {
		p.Forget()
		return nil, fmt.Errorf("rpc: calling: %w", err)
	}
	return p, nil
}

// Wait waits for the reply and returns its results. After an error of ctx the call is pending still, and Wait may be called again; otherwise
// the error is a *ReplyError, a malformed reply's, or the end of the connection's.
func (p *Pending) Wait(ctx context.Context) ([]byte, error) {
	select {
	case <-p.ready:
		return p.results, p.err
	default:
	}
	select {
	case <-p.ready:
		return p.results, p.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Forget gives up on the reply; if it comes it is dropped.
func (p *Pending) Forget() {
	c := p.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending[p.xid] == p {
		delete(c.pending, p.xid)
	}
}

// Free gives the buffer of the reply back (ConnConfig.Free). Neither the results nor p may be used afterwards. Without a Free it does nothing.
func (p *Pending) Free() {
	if buf := p.buf; buf != nil && p.conn.cfg.Free != nil {
		p.buf, p.results = nil, nil
		p.conn.cfg.Free(buf)
	}
}

func (p *Pending) finish(buf []byte, err error) {
	p.buf, p.err = buf, err
	if err == nil {
		_, p.results, p.err = ParseReply(buf[p.conn.cfg.Headroom:])
	}
	close(p.ready)
}

// deliver hands a reply to whoever waits for it. Late ones, whose caller gave up, are dropped.
func (c *Conn) deliver(buf []byte) {
	xid := binary.BigEndian.Uint32(buf[c.cfg.Headroom:])
	c.mu.Lock()
	p := c.pending[xid]
	delete(c.pending, xid)
	c.mu.Unlock()
	if p != nil {
		p.finish(buf, nil)
	}
}

// Call calls a procedure of the peer and waits for its results. The error is a *ReplyError, ctx's, or the end of the connection's.
func (c *Conn) Call(ctx context.Context, prog, vers, proc uint32, auth *Auth, args []byte) ([]byte, error) {
	xid := c.NextXID()
	e := xdr.NewEncoder(make([]byte, 0, 128))
	AppendCall(e, xid, prog, vers, proc, auth)
	p, err := c.Start(xid, net.Buffers{e.Bytes(), args})
	if err != nil {
		return nil, err
	}
	results, err := p.Wait(ctx)
	if err != nil {
		p.Forget()
	}
	return results, err
}
