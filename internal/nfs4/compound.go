package nfs4

import (
	"bytes"
	"sync"

	"holdfast/internal/nfs4/state"
	"holdfast/internal/rpc"
	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

const (
	// rpcReplyBytes is the header of an accepted reply, which counts against a session's ca_maxresponsesize.
	rpcReplyBytes = 24
	// replySlack keeps room for the header of the operation that meets the limit.
	replySlack = 16
	// unboundReplyBytes limits the replies of compounds outside of sessions, which hold one small result.
	unboundReplyBytes = 8192
	// mutatingResultBytes is room for the result of any operation that changed something; those results are small. LOCK's NFS4ERR_DENIED may be longer, but changed nothing.
	mutatingResultBytes = 256
)

// compound is one COMPOUND being executed.
type compound struct {
	p   *Program
	tx  *volume.Tx
	req *volume.Request
	d   xdr.Decoder
	e   *xdr.Encoder

	minor uint32
	ops   uint32 // in the request
	start int    // offset of COMPOUND4res in e
	limit int    // most bytes of COMPOUND4res
	cache bool   // the limit is that of the reply cache

	a   args
	set setAttrs

	cur, saved     filehandle
	curState       state.StateID
	savedState     state.StateID
	curStateSet    bool
	savedStateSet  bool
	usableExports  []volume.Export
	usableSet      bool
	credBuf        volume.Cred
	credRule       volume.Rule
	credSet        bool
	inSession      bool
	client         state.ClientID
	seq            sequenceArgs
	print          uint32
	printed        [12]byte // scratch of fingerprint, here so that it does not escape
	record, replay bool
	recorded       []byte // the reply to replay; aliases the tables
	keepResult     bool   // the failed operation has a result besides its status
	unrepeatable   bool   // the reply holds what other replicas may see otherwise, see readInApply

	kv     txKV
	notify []state.Waiter
	closed []volume.Ino
}

// txKV mirrors changes of the tables into the volume's metadata. The tables hand out scratch, the volume keeps what it gets: values are copied.
type txKV struct{ tx *volume.Tx }

func (k *txKV) Put(key, value []byte) { k.tx.Put(stateKey, key, bytes.Clone(value)) }
func (k *txKV) Del(key []byte)        { k.tx.Del(stateKey, key) }

var compoundPool = sync.Pool{New: func() any { return new(compound) }}

func newCompound(p *Program, tx *volume.Tx, req *volume.Request, e *xdr.Encoder) *compound {
	c := compoundPool.Get().(*compound)
	c.p, c.tx, c.req, c.e = p, tx, req, e
	c.kv.tx = tx
	c.d.Reset(req.Call.Args)
	c.start = e.Len()
	c.limit = unboundReplyBytes
	return c
}

// release returns c to the pool, keeping only the slices it grew.
func (c *compound) release() {
	usable, ids := c.usableExports[:0], c.a.stateids[:0]
	*c = compound{}
	c.usableExports, c.a.stateids = usable, ids
	compoundPool.Put(c)
}

// header is what precedes the operations in COMPOUND4args (RFC 8881 section 16.2.1).
type header struct {
	tag        []byte
	minor, ops uint32
}

func decodeHeader(d *xdr.Decoder) (header, bool) {
	h := header{tag: d.Opaque(maxTagBytes), minor: d.Uint32(), ops: d.Uint32()}
	return h, d.Err() == nil
}

func servedMinor(minor uint32) bool { return minor == 1 || minor == 2 }

// run executes the compound and appends COMPOUND4res (RFC 8881 section 16.2.2).
func (c *compound) run() rpc.AcceptStat {
	h, ok := decodeHeader(&c.d)
	if !ok {
		return rpc.GarbageArgs
	}
	c.minor, c.ops = h.minor, h.ops
	c.e.Uint32(uint32(statusOK))
	c.e.Opaque(h.tag)
	countAt := c.e.Len()
	c.e.Uint32(0)
	st, done := errMinorVersMismatch, uint32(0)
	if servedMinor(h.minor) {
		st, done = c.runOps()
	}
	if c.replay {
		c.e.Truncate(c.start)
		c.e.Raw(c.recorded)
		return rpc.Success
	}
	c.e.PutUint32(c.start, uint32(st))
	c.e.PutUint32(countAt, done)
	if c.record && (st == statusOK || done > 1) { // a SEQUENCE that failed leaves its slot alone
		if c.unrepeatable {
			c.p.tables.RecordUncached(&c.kv, c.seq.session, c.seq.slot, c.seq.seqid, c.print)
		} else {
			c.p.tables.Record(&c.kv, c.seq.session, c.seq.slot, c.seq.seqid, c.print, c.e.Bytes()[c.start:])
		}
	}
	c.finish()
	return rpc.Success
}

// finish does what may only follow once the tables are as the compound leaves them.
func (c *compound) finish() {
	for _, ino := range c.closed {
		c.tx.ReleaseOrphan(ino)
	}
	if len(c.notify) > 0 {
		c.p.notifyWaiters(c.notify)
	}
}

// runOps executes operations until one fails, and returns its status and how many results were appended.
func (c *compound) runOps() (st status, done uint32) {
	for i := range c.ops {
		st = c.runOp(i)
		if c.replay {
			return statusOK, 0
		}
		if st != statusOK {
			return st, i + 1
		}
	}
	return statusOK, c.ops
}

// runOp executes operation i and appends its nfs_resop4.
func (c *compound) runOp(i uint32) status {
	op := c.d.Uint32()
	if c.d.Err() != nil { // no more operations although the count says so
		return c.result(opnumIllegal, errBadXDR)
	}
	info := opOf(op, c.minor)
	if info == &illegalOp {
		op = opnumIllegal
	}
	c.e.Uint32(op)
	statusAt := c.e.Len()
	c.e.Uint32(uint32(statusOK))
	st := place(info, op, i, c.ops)
	if st == statusOK {
		st = c.execute(info)
	}
	body := statusAt + 4
	if c.e.Len()-c.start > c.limit && !c.replay {
		st, c.keepResult = c.tooBig(), false
	}
	if st != statusOK && !c.keepResult {
		c.e.Truncate(body)
		if op == opnumSetattr { // SETATTR4res has attrsset whatever the status
			bitmap{}.encode(c.e)
		}
	}
	c.keepResult = false
	c.e.PutUint32(statusAt, uint32(st))
	return st
}

func (c *compound) execute(info *opInfo) status {
	info.decode(&c.a, &c.d)
	if c.d.Err() != nil {
		return errBadXDR
	}
	if info.flags&opMutates != 0 {
		if c.tx.ReadOnly() {
			// Mutates and this table are one, so this cannot be; better an error than a change that is not logged.
			return volume.ErrServerFault
		}
		if !c.room(mutatingResultBytes) {
			return c.tooBig()
		}
	}
	return info.run(c)
}

// result appends an nfs_resop4 that holds a status only.
func (c *compound) result(op uint32, st status) status {
	c.e.Uint32(op)
	c.e.Uint32(uint32(st))
	return st
}

// room reports whether n more bytes fit into the reply.
func (c *compound) room(n int) bool { return n <= c.roomLeft() }

func (c *compound) roomLeft() int { return c.limit - (c.e.Len() - c.start) }

// tooBig returns the error for a result that does not fit (RFC 8881 section 2.10.6.4).
func (c *compound) tooBig() status {
	if c.cache {
		return errRepTooBigToCache
	}
	return errRepTooBig
}

// stateidArg returns the operation's stateid with the special "current" one replaced (RFC 8881 section 16.2.3.1.2).
func (c *compound) stateidArg() (state.StateID, status) {
	if c.a.stateid != state.CurrentStateID {
		return c.a.stateid, statusOK
	}
	if !c.curStateSet {
		return state.StateID{}, errBadStateid
	}
	return c.curState, statusOK
}

// regularAndStateid returns what an operation on a regular file by a stateid begins with.
func (c *compound) regularAndStateid() (*volume.Inode, state.StateID, status) {
	n, st := c.regular()
	if st != statusOK {
		return nil, state.StateID{}, st
	}
	sid, st := c.stateidArg()
	return n, sid, st
}

// answerState appends a stateid4, which is the current one from here on.
func (c *compound) answerState(sid state.StateID) {
	c.curState, c.curStateSet = sid, true
	c.encodeStateid(sid)
}

// encodeStateid appends a stateid4.
func (c *compound) encodeStateid(sid state.StateID) {
	c.e.Uint32(sid.Seqid)
	c.e.Fixed(sid.Other[:])
}

// checkIO decides whether sid allows access (state.AccessRead or AccessWrite) to n. With a special stateid nothing was checked at an OPEN, so permission bits are now.
func (c *compound) checkIO(n *volume.Inode, sid state.StateID, access uint32) status {
	if st := c.p.tables.CheckIO(c.client, n.Ino, sid, access); st != statusOK {
		return st
	}
	if !sid.Special() {
		return statusOK
	}
	return c.tx.MayOpen(c.cred(c.cur.rule), n, access&state.AccessRead != 0, access&state.AccessWrite != 0)
}
