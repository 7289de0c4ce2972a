// Package rpc is ONC RPC version 2 (RFC 5531) over TCP: record marking, call and reply headers, the AUTH_NONE and AUTH_SYS flavours, and
// connections on which both ends may call (the NFSv4.1 back channel, RFC 8881 section 2.10.3.1).
package rpc

import (
	"errors"
	"fmt"

	"holdfast/internal/xdr"
)

// Program numbers (IANA).
const (
	ProgPortmap = 100000
	ProgNFS     = 100003
	ProgMount   = 100005
	ProgNLM     = 100021
)

// Authentication flavours (RFC 5531 section 8.2).
const (
	AuthNone = 0
	AuthSys  = 1
	AuthGSS  = 6
)

// AcceptStat is the status of an accepted call (RFC 5531 section 9).
type AcceptStat uint32

// The values of AcceptStat.
const (
	Success      AcceptStat = 0
	ProgUnavail  AcceptStat = 1
	ProgMismatch AcceptStat = 2
	ProcUnavail  AcceptStat = 3
	GarbageArgs  AcceptStat = 4
	SystemErr    AcceptStat = 5
)

// Message types and reply statuses (RFC 5531 section 9).
const (
	msgCall      = 0
	msgReply     = 1
	replyOK      = 0
	replyDenied  = 1
	rpcMismatch  = 0
	authError    = 1
	rpcVersion   = 2
	maxAuthBytes = 400 // RFC 5531 section 8.2
	maxMachine   = 255 // RFC 5531 appendix A
	maxGroups    = 16  // RFC 5531 appendix A
)

// Auth is a caller's identity as the call states it.
type Auth struct {
	Flavor   uint32
	UID, GID uint32
	Groups   []uint32
	Machine  string
}

// Call is a decoded RPC call. Args aliases the record.
type Call struct {
	XID              uint32
	Prog, Vers, Proc uint32
	Auth             Auth
	Args             []byte
}

// ErrNotCall is returned by ParseCall for a record that is no RPC call.
var ErrNotCall = errors.New("rpc: record is not a call")

// RejectError is a call that must be answered with a rejection (RFC 5531 section 9, rejected_reply).
type RejectError struct {
	XID      uint32
	Mismatch bool   // RPC version other than 2; otherwise an authentication error
	AuthStat uint32 // auth_stat when !Mismatch
}

// Error says why the call is rejected.
func (e *RejectError) Error() string {
	if e.Mismatch {
		return "rpc: caller speaks an RPC version other than 2"
	}
	return fmt.Sprintf("rpc: credentials refused (auth_stat %d)", e.AuthStat)
}

// auth_stat values (RFC 5531 section 9).
const (
	AuthBadCred  = 1
	AuthTooWeak  = 5
	AuthRejected = 2
)

// ParseCall decodes the header of one record into c.
func ParseCall(record []byte, c *Call) error {
	d := xdr.NewDecoder(record)
	c.XID = d.Uint32()
	if kind := d.Uint32(); d.Err() == nil && kind != msgCall {
		return ErrNotCall
	}
	vers := d.Uint32()
	c.Prog, c.Vers, c.Proc = d.Uint32(), d.Uint32(), d.Uint32()
	if d.Err() != nil {
		return fmt.Errorf("rpc: call header: %w", d.Err())
	}
	if vers != rpcVersion {
		return &RejectError{XID: c.XID, Mismatch: true}
	}
	flavor := d.Uint32()
	body := d.Opaque(maxAuthBytes)
	d.Uint32() // verifier flavour
	d.Opaque(maxAuthBytes)
	if d.Err() != nil {
		return fmt.Errorf("rpc: call header: %w", d.Err())
	}
	c.Auth = Auth{Flavor: flavor}
	switch flavor {
	case AuthNone:
		c.Auth.UID, c.Auth.GID = 65534, 65534
	case AuthSys:
		if err := parseSys(body, &c.Auth); err != nil {
			return &RejectError{XID: c.XID, AuthStat: AuthBadCred}
		}
	default:
		return &RejectError{XID: c.XID, AuthStat: AuthRejected}
	}
	c.Args = d.Rest()
	return nil
}

func parseSys(body []byte, a *Auth) error {
	d := xdr.NewDecoder(body)
	d.Uint32() // stamp
	a.Machine = d.String(maxMachine)
	a.UID, a.GID = d.Uint32(), d.Uint32()
	if n := d.Count(maxGroups, 4); n > 0 {
		a.Groups = make([]uint32, n)
		for i := range a.Groups {
			a.Groups[i] = d.Uint32()
		}
	}
	return d.Err()
}

// AppendAccepted appends the header of an accepted reply with an AUTH_NONE verifier. For Success the results follow; for
// ProgMismatch the lowest and highest supported version must follow.
func AppendAccepted(e *xdr.Encoder, xid uint32, stat AcceptStat) {
	e.Uint32(xid)
	e.Uint32(msgReply)
	e.Uint32(replyOK)
	e.Uint32(AuthNone)
	e.Uint32(0)
	e.Uint32(uint32(stat))
}

// AppendRejected appends the reply for a RejectError.
func AppendRejected(e *xdr.Encoder, r *RejectError) {
	e.Uint32(r.XID)
	e.Uint32(msgReply)
	e.Uint32(replyDenied)
	if r.Mismatch {
		e.Uint32(rpcMismatch)
		e.Uint32(rpcVersion)
		e.Uint32(rpcVersion)
		return
	}
	e.Uint32(authError)
	e.Uint32(r.AuthStat)
}
