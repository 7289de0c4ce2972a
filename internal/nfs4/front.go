package nfs4

import (
	"context"
	"encoding/binary"
	"sync"

	"holdfast/internal/nfs4/state"
	"holdfast/internal/rpc"
	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

// BackChannel is a client's connection as the leader's front knows it: an identity, and the way to call the client back (RFC 8881 section 2.10.3.1).
// Implementations must be comparable; *rpc.Conn is one.
type BackChannel interface {
	// Call calls a procedure of the client and returns its results.
	Call(ctx context.Context, prog, vers, proc uint32, auth *rpc.Auth, args []byte) ([]byte, error)
}

// Front is what only the leader knows and decides: the order of requests on slots, leases, and which connections carry back channels. A new leader makes a
// new one; nothing in it is replicated, and what it decides reaches the replicas only in log entries (Request.SeqFlags, commands). Safe for concurrent use.
//
// The node calls Admit for every NFSv4 request before it reads or proposes, SeqFlags after a successful Admit, Expired every few seconds, ConnClosed for each connection that
// ends, and Run for as long as it leads.
type Front struct {
	p      *Program
	v      *volume.Volume
	leases *state.Front[BackChannel]
	notify chan state.Waiter
	// enqueueFunc is what the program calls from apply; its address tells this front's from a later one's.
	enqueueFunc *func([]state.Waiter)

	mu       sync.Mutex // guards what follows
	sessions map[state.SessionID]*frontSession
	creating map[state.ClientID]creation
}

// frontSession is what the front remembers of a session that it has seen.
type frontSession struct {
	wantsBack bool
	back      backSlot
}

// creation is a CREATE_SESSION that was let through. The session's number is not known before it is applied; the connection is bound when the session is first used (RFC 8881
// section 18.36.3: the connection of the CREATE_SESSION is bound to the session).
type creation struct {
	conn BackChannel
	next uint64 // the session's counter is at least this
}

// maxCreating bounds the connections remembered for sessions not used yet; a client beyond it binds explicitly when it sees SEQ4_STATUS_CB_PATH_DOWN.
const maxCreating = 1024

// NewFront returns the front of a new leader, which takes over from an earlier front of the same program. nowNS is monotonic time, as for all methods. Leases start afresh.
func NewFront(p *Program, v *volume.Volume, nowNS int64) *Front {
	var next uint64
	v.View(func(*volume.Tx) { next = p.tables.NextCounter() })
	f := &Front{
		p:        p,
		v:        v,
		leases:   state.NewFront[BackChannel](state.FrontConfig{Lease: int64(p.cfg.Lease)}, next, nowNS),
		notify:   make(chan state.Waiter, notifyQueue),
		sessions: make(map[state.SessionID]*frontSession),
		creating: make(map[state.ClientID]creation),
	}
	enqueue := f.enqueue
	f.enqueueFunc = &enqueue
	p.onNotify.Store(f.enqueueFunc)
	return f
}

// firstOp is the operation that decides what the front does with a compound. It is large and looked at for every request, so it comes from a pool.
type firstOp struct {
	dec   xdr.Decoder
	tag   []byte
	op    uint32
	a     args
	found bool
}

var firstOps = sync.Pool{New: func() any { return new(firstOp) }}

// firstOpOf decodes the first operation of a compound. Whatever is wrong with the request is Execute's to answer: then it finds nothing. The caller
// frees the result.
func firstOpOf(req *volume.Request) *firstOp {
	f := firstOps.Get().(*firstOp)
	f.found = false
	if req.Call.Proc != procCompound {
		return f
	}
	d := &f.dec
	d.Reset(req.Call.Args)
	h, ok := decodeHeader(d)
	if !ok || !servedMinor(h.minor) || h.ops == 0 {
		return f
	}
	f.tag, f.op = h.tag, d.Uint32()
	switch f.op {
	case opnumSequence, opnumBindConn, opnumCreateSession:
		opTable[f.op].decode(&f.a, d)
	default:
		return f
	}
	f.found = d.Err() == nil
	return f
}

// free gives f back. Nothing of it points into the request any more.
func (f *firstOp) free() {
	*f = firstOp{}
	firstOps.Put(f)
}

// slotRecorder reads the replicated slots under the volume's lock.
type slotRecorder struct{ f *Front }

func (r slotRecorder) Slot(id state.SessionID, slot uint32) (info state.SlotInfo, st state.Status) {
	r.f.v.View(func(*volume.Tx) { info, st = r.f.p.tables.Slot(id, slot) })
	return info, st
}

// Admit decides whether a request from conn may be executed (mutates false) or proposed (true), renews the client's lease and binds connections to sessions. When
// done is true, reply is the whole RPC record to answer with and nothing may be executed.
func (f *Front) Admit(conn BackChannel, req *volume.Request, mutates bool, nowNS int64) (reply []byte, done bool) {
	op := firstOpOf(req)
	defer op.free()
	if !op.found {
		return nil, false
	}
	switch op.op {
	case opnumSequence:
		s := &op.a.seq
		args := state.SequenceArgs{Session: s.session, Slot: s.slot, Highest: s.highest, Seq: s.seqid}
		if st := f.leases.Admit(slotRecorder{f}, args, nowNS, mutates); st != statusOK {
			return firstOpError(req, op, st), true
		}
		f.session(s.session, nowNS)
	case opnumBindConn:
		if op.a.count != bindFore && f.session(op.a.session, nowNS) != nil {
			f.leases.Bind(op.a.session, conn, nowNS)
		}
	case opnumCreateSession:
		if st := f.creatingSession(conn, state.ClientID(op.a.clientID), nowNS); st != statusOK {
			return firstOpError(req, op, st), true
		}
	}
	return nil, false
}

// creatingSession remembers the connection of a CREATE_SESSION and renews the client's lease. If the result is not OK the request must not be proposed.
func (f *Front) creatingSession(conn BackChannel, id state.ClientID, nowNS int64) status {
	known := false
	var next uint64
	f.v.View(func(*volume.Tx) {
		next = f.p.tables.NextCounter()
		_, _, st := f.p.tables.BeginCreateSession(id, 0)
		known = st != state.ErrStaleClientID
	})
	if !known {
		return statusOK
	}
	if st := f.leases.Renew(id, nowNS); st != statusOK {
		return st
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.creating[id]; ok || len(f.creating) < maxCreating {
		f.creating[id] = creation{conn, next}
	}
	return statusOK
}

// session returns the front's entry for a session, made on first sight; nil if the tables have no such session. On first sight the connection that created the session is
// bound to it.
func (f *Front) session(id state.SessionID, nowNS int64) *frontSession {
	f.mu.Lock()
	s := f.sessions[id]
	f.mu.Unlock()
	if s != nil {
		return s
	}
	var info state.SessionInfo
	var st state.Status
	f.v.View(func(*volume.Tx) { info, st = f.p.tables.Session(id) })
	if st != statusOK {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if s = f.sessions[id]; s != nil {
		return s
	}
	s = &frontSession{wantsBack: info.Flags&state.SessionBackChan != 0}
	f.sessions[id] = s
	if c, ok := f.creating[info.Client]; ok && binary.BigEndian.Uint64(id[8:]) >= c.next {
		delete(f.creating, info.Client)
		if s.wantsBack {
			f.leases.Bind(id, c.conn, nowNS)
		}
	}
	return s
}

// firstOpError is the whole reply record of a compound whose first operation failed: SEQUENCE, or CREATE_SESSION.
func firstOpError(req *volume.Request, op *firstOp, st status) []byte {
	e := xdr.NewEncoder(make([]byte, 0, 64+len(op.tag)))
	rpc.AppendAccepted(e, req.Call.XID, rpc.Success)
	e.Uint32(uint32(st))
	e.Opaque(op.tag)
	e.Uint32(1)
	e.Uint32(op.op)
	e.Uint32(uint32(st))
	return e.Bytes()
}

// SeqFlags returns what the reply to an admitted request says in sr_status_flags (RFC 8881 section 18.46.3); it belongs into Request.SeqFlags. A back channel that a failover cut
// off is "down", never "faulty": a client binds a new connection for the one and throws its session away for the other.
func (f *Front) SeqFlags(req *volume.Request) uint32 {
	op := firstOpOf(req)
	defer op.free()
	if !op.found || op.op != opnumSequence {
		return 0
	}
	f.mu.Lock()
	s := f.sessions[op.a.seq.session]
	f.mu.Unlock()
	if s == nil {
		return 0
	}
	return f.leases.StatusFlags(op.a.seq.session, s.wantsBack)
}

// Expired returns the payloads of the commands (Program.Command) to propose for clients whose lease has run out, and forgets sessions that are gone. A command
// that is lost is returned again by a later call. From the first call on that returns it the client's requests are answered with NFS4ERR_DELAY.
func (f *Front) Expired(nowNS int64) [][]byte {
	var out [][]byte
	f.v.View(func(*volume.Tx) {
		for _, id := range f.leases.Expired(f.p.tables, nowNS) {
			out = append(out, expireCommand(id))
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		for id := range f.sessions {
			if _, st := f.p.tables.Session(id); st != statusOK {
				delete(f.sessions, id)
			}
		}
	})
	return out
}

// ConnClosed forgets a connection.
func (f *Front) ConnClosed(conn BackChannel) {
	f.leases.Unbind(conn)
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, c := range f.creating {
		if c.conn == conn {
			delete(f.creating, id)
		}
	}
}
