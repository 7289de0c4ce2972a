package state

import (
	"encoding/binary"
	"slices"
)

// Sizes that CREATE_SESSION is held to.
const (
	// minChannelBytes is the least that holds an RPC header with AUTH_SYS and a SEQUENCE.
	minChannelBytes = 128
	// maxCBSecBytes bounds the kept callback security; AUTH_SYS parameters are at most 400 bytes (RFC 5531 section 8.2).
	maxCBSecBytes = 1024
	// maxCreateResultBytes bounds the recorded CREATE_SESSION result, which is about 100 bytes.
	maxCreateResultBytes = 1024
	// maxBackRequests bounds the callbacks in flight of one session.
	maxBackRequests = 16
)

// session is one session with its fore channel's slots.
type session struct {
	id         SessionID
	client     *client
	flags      uint32
	fore, back ChannelAttrs
	cbProgram  uint32
	cbSec      []byte
	slots      []slot
}

// BeginCreateSession is phases 1 and 2 of CREATE_SESSION (RFC 8881 section 18.36.4): it finds the record and compares the sequence
// number. On Replay the recorded result is returned. On New the caller calls CreateSession, then, whatever came of it except
// NFS4ERR_DELAY, RecordCreateSession: the slot is no part of the client record, so it moves on even if phase 3 or 4 fails.
func (t *Tables) BeginCreateSession(id ClientID, seq uint32) (Verdict, []byte, Status) {
	c := t.clients[id]
	switch {
	case c == nil:
		return New, nil, ErrStaleClientID
	case seq == c.createSeq && c.createUsed:
		return Replay, c.createResult, OK
	case seq == c.createSeq+1:
		return New, nil, OK
	}
	return New, nil, ErrSeqMisordered
}

// CreateSession is phases 3 and 4: it confirms the client if need be, ending its former incarnation, and makes the session. It fails
// with NFS4ERR_CLID_INUSE for another principal, NFS4ERR_TOOSMALL and NFS4ERR_INVAL for impossible channels, NFS4ERR_NOSPC at the
// limit of sessions, and then changes nothing.
func (t *Tables) CreateSession(kv KV, a *CreateSessionArgs) (CreateSessionResult, Status) {
	c := t.clients[a.Client]
	if c == nil {
		return CreateSessionResult{}, ErrStaleClientID
	}
	if c.principal != a.Principal {
		return CreateSessionResult{}, ErrClientInUse
	}
	flags := a.Flags & (SessionPersist | SessionBackChan)
	fore, st := t.negotiateFore(a.Fore)
	if st != OK {
		return CreateSessionResult{}, st
	}
	back, st := t.negotiateBack(a.Back, flags&SessionBackChan != 0)
	if st != OK {
		return CreateSessionResult{}, st
	}
	if len(a.CBSec) > maxCBSecBytes {
		return CreateSessionResult{}, ErrInval
	}
	if len(c.sessions) >= t.limits.SessionsPerClient || len(t.sessions) >= t.limits.Sessions {
		return CreateSessionResult{}, ErrNoSpace
	}

	var dropped Dropped
	if !c.confirmed {
		if old := t.owners[c.owner].confirmed; old != nil {
			dropped = t.drop(kv, old)
		}
		t.confirm(kv, c)
	}
	s := &session{client: c, flags: flags, fore: fore, back: back, cbProgram: a.CBProgram, cbSec: slices.Clone(a.CBSec)}
	binary.BigEndian.PutUint64(s.id[:], uint64(c.id))
	binary.BigEndian.PutUint64(s.id[8:], t.take())
	t.addSession(s)
	t.putMeta(kv)
	t.putSession(kv, s)
	return CreateSessionResult{Session: s.id, Flags: flags, Fore: fore, Back: back, Dropped: dropped}, OK
}

// negotiateFore cuts the fore channel down to what the server does (RFC 8881 section 18.36.3).
func (t *Tables) negotiateFore(a ChannelAttrs) (ChannelAttrs, Status) {
	if a.MaxRequest < minChannelBytes || a.MaxResponse < minChannelBytes {
		return a, ErrTooSmall
	}
	if a.MaxRequests == 0 || a.MaxOps == 0 {
		return a, ErrInval
	}
	return ChannelAttrs{
		MaxRequest:  min(a.MaxRequest, t.limits.MaxRequest),
		MaxResponse: min(a.MaxResponse, t.limits.MaxResponse),
		MaxCached:   min(a.MaxCached, t.limits.MaxCached),
		MaxOps:      min(a.MaxOps, t.limits.MaxOps),
		MaxRequests: min(a.MaxRequests, t.limits.Slots),
	}, OK
}

// negotiateBack does the same for the back channel, where CB_SEQUENCE and one more operation must fit.
func (t *Tables) negotiateBack(a ChannelAttrs, wanted bool) (ChannelAttrs, Status) {
	if wanted && (a.MaxRequest < minChannelBytes || a.MaxResponse < minChannelBytes || a.MaxOps < 2) {
		return a, ErrTooSmall
	}
	if wanted && a.MaxRequests == 0 {
		return a, ErrInval
	}
	return ChannelAttrs{
		MaxRequest:  min(a.MaxRequest, t.limits.MaxBackRequest),
		MaxResponse: min(a.MaxResponse, t.limits.MaxBackRequest),
		MaxOps:      min(a.MaxOps, t.limits.MaxOps),
		MaxRequests: min(a.MaxRequests, maxBackRequests),
	}, OK
}

func (t *Tables) addSession(s *session) {
	s.slots = make([]slot, s.fore.MaxRequests)
	s.client.sessions = append(s.client.sessions, s)
	t.sessions[s.id] = s
}

// RecordCreateSession stores the encoded result for a retry (it is copied) and moves the sequence number on.
func (t *Tables) RecordCreateSession(kv KV, id ClientID, seq uint32, result []byte) {
	c := t.clients[id]
	if c == nil {
		return
	}
	if len(result) > maxCreateResultBytes {
		panic("state: CREATE_SESSION result of impossible length")
	}
	c.createSeq, c.createUsed, c.createResult = seq, true, slices.Clone(result)
	t.putClient(kv, c)
}

// DestroySession ends a session; the client and its opens and locks stay (RFC 8881 section 18.37).
func (t *Tables) DestroySession(kv KV, id SessionID) Status {
	s := t.sessions[id]
	if s == nil {
		return ErrBadSession
	}
	t.dropSession(kv, s)
	return OK
}

func (t *Tables) dropSession(kv KV, s *session) {
	c := s.client
	c.sessions = slices.DeleteFunc(c.sessions, func(o *session) bool { return o == s })
	for i := range s.slots {
		if s.slots[i].used() {
			t.countReply(c, -len(s.slots[i].reply()))
			kv.Del(t.slotKey(s.id, uint32(i)))
		}
	}
	delete(t.sessions, s.id)
	kv.Del(t.sessionKey(s.id))
}

// SessionInfo is what a SEQUENCE needs to know of its session.
type SessionInfo struct {
	Client     ClientID
	Flags      uint32
	Fore, Back ChannelAttrs
	CBProgram  uint32
	CBSec      []byte
	Principal  Principal // of the client
}

// Session describes a session, or says NFS4ERR_BADSESSION.
func (t *Tables) Session(id SessionID) (SessionInfo, Status) {
	s := t.sessions[id]
	if s == nil {
		return SessionInfo{}, ErrBadSession
	}
	return SessionInfo{s.client.id, s.flags, s.fore, s.back, s.cbProgram, s.cbSec, s.client.principal}, OK
}

// BackChannel replaces the callback program and security of a session (BACKCHANNEL_CTL, RFC 8881 section 18.33).
func (t *Tables) BackChannel(kv KV, id SessionID, program uint32, sec []byte) Status {
	s := t.sessions[id]
	if s == nil {
		return ErrBadSession
	}
	if len(sec) > maxCBSecBytes {
		return ErrInval
	}
	s.cbProgram, s.cbSec = program, slices.Clone(sec)
	t.putSession(kv, s)
	return OK
}
