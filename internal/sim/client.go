package sim

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"holdfast/internal/rpc"
	"holdfast/internal/xdr"
)

type rpcAuth = rpc.Auth

// client is a machine that mounts the export: its connection, and the calls that wait for an answer. It retries for ever, on one connection after
// the other, with a new source port each time, as the kernel's client does with a hard mount.
type client struct {
	w     *World
	num   int
	v3    bool
	addr  netip.Addr
	rng   stream
	port  uint16
	xid   uint32
	conn  *conn
	calls []*call // not answered, oldest first
	// connecting: an attempt is under way.
	connecting bool
	sleeping   bool
	session    *session // version 4
	answered   *life    // who sent the last answer
	busy       int      // processes with an operation under way
	// patience is how long it waits for an answer before it tries another connection.
	patience int64
}

// call is an RPC on its way.
type call struct {
	xid    uint32
	record []byte
	sent   int64 // when it was sent first
	last   int64 // when it was sent last
	done   func(results []byte)
}

// Timeouts of a client, in simulated time; the kernel's are a minute, and so nothing much would happen.
const (
	minPatience   = 100 * msec
	maxPatience   = 2 * sec
	redialPause   = 20 * msec
	dialTimeout   = 100 * msec // at most
	watchInterval = 100 * msec
)

func newClient(w *World, num int, v3 bool) *client {
	c := &client{w: w, num: num, v3: v3, addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(num + 1)}), port: 700, xid: uint32(num+1) << 24, rng: w.stream("client", uint64(num))}
	c.patience = c.rng.between(minPatience, maxPatience)
	c.watch()
	return c
}

func (c *client) station() station { return clientStations + station(c.num) }

// send makes a call. done gets the results, once.
func (c *client) send(prog, vers, proc uint32, args []byte, done func(results []byte)) {
	c.xid++
	var e xdr.Encoder
	auth := rpc.Auth{Flavor: rpc.AuthSys, Machine: "sim"}
	rpc.AppendCall(&e, c.xid, prog, vers, proc, &auth)
	e.Raw(args)
	k := &call{xid: c.xid, record: e.Bytes(), sent: c.w.now, last: c.w.now, done: done}
	c.calls = append(c.calls, k)
	c.w.note("call", uint64(c.num), uint64(k.xid), digest(k.record))
	c.transmit(k)
}

func (c *client) transmit(k *call) {
	if c.sleeping {
		return
	}
	if c.conn == nil {
		c.connect()
		return
	}
	k.last = c.w.now
	c.conn.up.put(k.record)
}

// connect connects to where the address seems to be.
func (c *client) connect() {
	if c.connecting || c.conn != nil || c.sleeping {
		return
	}
	c.connecting = true
	w := c.w
	n := w.addressHolder()
	if n == nil || c.rng.chance(0.1) {
		nodes := w.dataNodes()
		n = nodes[c.rng.IntN(len(nodes))]
	}
	c.port++
	k := &conn{w: w, client: c, addr: netip.AddrPortFrom(c.addr, 700+c.port%300)}
	again := func(d int64) {
		w.after(d, func() {
			c.connecting = false
			if len(c.calls) > 0 {
				c.connect()
			}
		})
	}
	w.after(w.net.delay(c.station(), station(n.id)), func() {
		if w.net.blocked(c.station(), station(n.id)) || w.net.blocked(station(n.id), c.station()) || n.pausedUntil > w.now {
			again(c.rng.Int64N(dialTimeout))
			return
		}
		if n.up == nil || n.up.failed != nil {
			again(redialPause + c.rng.Int64N(redialPause))
			return
		}
		l := n.up
		w.after(w.net.delay(c.station(), station(n.id)), func() {
			if l.ended || c.sleeping {
				again(redialPause)
				return
			}
			c.connecting = false
			c.conn = k
			w.logf("client %d connects to node %d", c.num, n.id)
			l.accept(k)
			c.resend()
		})
	})
}

// addressHolder is the node that took the address last.
func (w *World) addressHolder() *node {
	var holder *node
	newest := int64(-1)
	for _, n := range w.nodes {
		if n.up != nil && n.up.serve.phase != following && n.up.serve.since > newest {
			holder, newest = n, n.up.serve.since
		}
	}
	return holder
}

// resend sends again, on a new connection, what was not answered.
func (c *client) resend() {
	for _, k := range c.calls {
		c.w.stats.Retries++
		k.last = c.w.now
		if c.conn == nil {
			return
		}
		c.conn.up.put(k.record)
	}
}

// received takes a reply.
func (c *client) received(from *conn, record []byte) {
	if c.conn != from || c.sleeping {
		return
	}
	xid, results, err := rpc.ParseReply(record)
	if err != nil {
		c.w.fail("client %d gets a reply that is none: %v", c.num, err)
		return
	}
	i := slices.IndexFunc(c.calls, func(k *call) bool { return k.xid == xid })
	c.w.note("reply", uint64(c.num), uint64(xid), digest(record))
	if i < 0 {
		return // an answer to a call that was repeated
	}
	k := c.calls[i]
	c.answered = from.life
	if from.life.rot && len(results) >= 4 && status(binary.BigEndian.Uint32(results)) == stIO {
		// What cannot be read any more there is asked for again, of another node when this one is found out.
		c.w.stats.Unreadable++
		c.drop()
		return
	}
	c.calls = slices.Delete(c.calls, i, i+1)
	c.w.stats.Calls++
	k.done(results)
}

// disconnected: the server has closed the connection.
func (c *client) disconnected(from *conn) {
	from.hungUp = true
	if c.conn != from {
		return
	}
	c.conn = nil
	if len(c.calls) > 0 {
		c.connect()
	}
}

// drop closes the connection. What is on its way may still reach the server.
func (c *client) drop() {
	k := c.conn
	if k == nil {
		return
	}
	c.conn = nil
	k.hungUp = true
	k.down.closed = true
	d := c.w.net.delay(k.up.from, k.up.to)
	if c.rng.chance(0.5) {
		k.up.closed = true
	} else {
		d += c.rng.Int64N(200 * msec)
	}
	c.w.after(d, func() { k.life.after(0, func() { k.life.closed(k) }) })
	if len(c.calls) > 0 {
		c.connect()
	}
}

// reboot makes the client's machine start anew: what it waits for, has open and has locked is forgotten, and by another verifier the server hears of it (RFC 8881
// section 2.4).
func (c *client) reboot() {
	ss := c.session
	if c.v3 || ss.id == "" {
		return // nothing to forget, or about to introduce itself
	}
	c.w.stats.Faults[faultReboot]++
	calls := c.calls
	c.calls = nil
	c.drop()
	ss.id, ss.verifier = "", c.rng.Uint64()
	ss.generation++
	for _, k := range calls {
		k.done(nil)
	}
}

// sleep makes the client silent.
func (c *client) sleep(d int64) {
	c.sleeping = true
	c.drop()
	c.w.after(d, func() {
		c.sleeping = false
		if len(c.calls) > 0 {
			c.connect()
		}
	})
}

// watch gives up connections on which nothing comes back.
func (c *client) watch() {
	c.w.after(watchInterval, func() {
		c.watch()
		if c.sleeping {
			return
		}
		if c.conn == nil && len(c.calls) > 0 {
			c.connect()
			return
		}
		for _, k := range c.calls {
			if c.conn != nil && c.w.now-k.last > c.patience {
				c.drop()
				return
			}
		}
	})
}

// waitingCalls counts calls that wait for answers.
func (w *World) waitingCalls() int {
	n := 0
	for _, c := range w.clients {
		n += len(c.calls)
	}
	return n
}

// minorVersionAt is where the minor version is in a COMPOUND whose tag is empty.
const minorVersionAt = 4

// compound builds a COMPOUND of version 4.1 (RFC 8881 section 16.2).
type compound struct {
	xdr.Encoder
	opsAt int
	ops   uint32
}

func newCompound() *compound {
	c := &compound{}
	c.Uint32(0) // tag
	c.Uint32(1) // minor version
	c.opsAt = c.Len()
	c.Uint32(0)
	return c
}

// minorVersion makes it one of another minor version than 1.
func (c *compound) minorVersion(v uint32) { c.PutUint32(minorVersionAt, v) }

func (c *compound) op(n uint32) *compound {
	c.Uint32(n)
	c.ops++
	c.PutUint32(c.opsAt, c.ops)
	return c
}

// Operations of version 4 (RFC 8881 section 16.2.1, RFC 7862 section 15).
const (
	opClose           = 4
	opCreate          = 6
	opGetFH           = 10
	opLink            = 11
	opLock            = 12
	opLockU           = 14
	opLookup          = 15
	opOpen            = 18
	opPutFH           = 22
	opPutRootFH       = 24
	opRead            = 25
	opReadDir         = 26
	opRemove          = 28
	opRename          = 29
	opSaveFH          = 32
	opSetAttr         = 34
	opWrite           = 38
	opExchangeID      = 42
	opCreateSession   = 43
	opSequence        = 53
	opReclaimComplete = 58
	opDeallocate      = 62
)

// status is nfsstat4 or nfsstat3.
type status uint32

// The statuses that the simulation knows.
const (
	stOK             status = 0
	stNoEnt          status = 2
	stIO             status = 5
	stExist          status = 17
	stStale          status = 70
	stDelay          status = 10008
	stDenied         status = 10010
	stGrace          status = 10013
	stBadSession     status = 10052
	stStaleClientID  status = 10022
	stSeqMisordered  status = 10063
	stDeadSession    status = 10078
	stLost           status = 1 << 30 // of the simulation: the session was lost, nothing is known
	stMalformed      status = 1<<30 + 1
	statusBroken     status = 1<<30 + 2
	maxOpaque               = 1 << 20
	attrSize                = 4
	attrFileHandle          = 19
	stateIDBytes            = 16
	sessionIDBytes          = 16
	exchangeNonPNFS         = 0x10000
	anonymousStateID        = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
)

func (c *compound) putFH(fh string) *compound {
	c.op(opPutFH)
	c.String(fh)
	return c
}

func (c *compound) named(op uint32, name string) *compound {
	c.op(op)
	c.String(name)
	return c
}

// results walks the answer to a COMPOUND.
type results struct {
	*xdr.Decoder
	left int
	last status
}

func parseResults(b []byte) *results {
	r := &results{Decoder: xdr.NewDecoder(b)}
	r.Uint32()
	r.Opaque(1024)
	r.left = r.Count(1000, 8)
	return r
}

// next reads the head of the next operation's result.
func (r *results) next(op uint32) status {
	if r.last != stOK {
		return r.last
	}
	if r.left == 0 {
		r.last = stMalformed
		return r.last
	}
	r.left--
	got, st := r.Uint32(), status(r.Uint32())
	if got != op || r.Err() != nil {
		st = stMalformed
	}
	r.last = st
	return st
}

// skip reads results without a body.
func (r *results) skip(ops ...uint32) status {
	for _, op := range ops {
		r.next(op)
	}
	return r.last
}

func (r *results) getFH() string {
	if r.next(opGetFH) != stOK {
		return ""
	}
	return string(r.Opaque(128))
}

func (r *results) changeInfo() {
	r.Bool()
	r.Uint64()
	r.Uint64()
}

// check turns what could not be decoded into a status. A call whose session was lost has no answer.
func (r *results) check() status {
	if r.last != stLost && r.Err() != nil {
		return stMalformed
	}
	return r.last
}

// session is a client's session, or the lack of one.
type session struct {
	c        *client
	id       string // "" while there is none
	clientID uint64
	// generation counts sessions.
	generation int
	making     bool
	verifier   uint64
	waiting    []func()
	// renewed is when the last call was sent that the server answered: until a lease time later the client may rely on its state.
	renewed int64
}

// slotCount is the number of slots, one for each process of the client.
const slotCount = 3

// ready calls fn when there is a session.
func (ss *session) ready(fn func()) {
	if ss.id != "" {
		fn()
		return
	}
	ss.waiting = append(ss.waiting, fn)
	ss.make()
}

func (ss *session) make() {
	if ss.making {
		return
	}
	ss.making = true
	ss.exchange()
}

func (ss *session) exchange() {
	c := newCompound().op(opExchangeID)
	c.Uint64(ss.verifier)
	c.String(fmt.Sprintf("client %d", ss.c.num))
	c.Uint32(exchangeNonPNFS)
	c.Uint32(0)
	c.Uint32(0)
	ss.c.send(rpc.ProgNFS, 4, 1, c.Bytes(), func(b []byte) {
		r := parseResults(b)
		if st := r.next(opExchangeID); st != stOK {
			ss.retry("EXCHANGE_ID", st, ss.exchange)
			return
		}
		ss.clientID = r.Uint64()
		seq := r.Uint32()
		if st := r.check(); st != stOK {
			ss.c.w.fail("client %d: EXCHANGE_ID: status %d", ss.c.num, st)
			return
		}
		ss.create(seq)
	})
}

func (ss *session) create(seq uint32) {
	c := newCompound().op(opCreateSession)
	c.Uint64(ss.clientID)
	c.Uint32(seq)
	c.Uint32(0)
	for range 2 {
		for _, v := range []uint32{0, 64 << 10, 64 << 10, 8 << 10, 16, slotCount, 0} {
			c.Uint32(v)
		}
	}
	c.Uint32(0x40000000)
	c.Uint32(1)
	c.Uint32(rpc.AuthNone)
	ss.c.send(rpc.ProgNFS, 4, 1, c.Bytes(), func(b []byte) {
		r := parseResults(b)
		if st := r.next(opCreateSession); st != stOK {
			// The client id may have expired meanwhile, or a repeated EXCHANGE_ID that was late has put another in its place.
			ss.retry("CREATE_SESSION", st, ss.exchange)
			return
		}
		id := string(r.Fixed(sessionIDBytes))
		if st := r.check(); st != stOK {
			ss.c.w.fail("client %d: CREATE_SESSION: status %d", ss.c.num, st)
			return
		}
		ss.complete(id)
	})
}

// complete tells the server that nothing will be reclaimed, as the first request on slot 0.
func (ss *session) complete(id string) {
	c := newCompound().op(opSequence)
	c.Fixed([]byte(id))
	for _, v := range []uint32{1, 0, slotCount - 1, 1} {
		c.Uint32(v)
	}
	c.op(opReclaimComplete)
	c.Bool(false)
	began := ss.c.w.now
	ss.c.send(rpc.ProgNFS, 4, 1, c.Bytes(), func(b []byte) {
		r := parseResults(b)
		if r.next(opSequence); r.last == stBadSession {
			ss.c.w.after(20*msec, ss.exchange) // it expired already
			return
		}
		r.Fixed(sessionIDBytes)
		for range 5 {
			r.Uint32()
		}
		r.next(opReclaimComplete)
		if st := r.check(); st != stOK {
			ss.c.w.fail("client %d: RECLAIM_COMPLETE: status %d", ss.c.num, st)
			return
		}
		ss.id, ss.making, ss.renewed = id, false, began
		ss.generation++
		ss.c.w.oracle.begins(ss.c)
		waiting := ss.waiting
		ss.waiting = nil
		for _, fn := range waiting {
			fn()
		}
	})
}

func (ss *session) retry(what string, st status, fn func()) {
	switch st {
	case stDelay, stGrace, stStaleClientID, stSeqMisordered:
		ss.c.w.after(20*msec, fn)
	default:
		ss.c.w.fail("client %d: %s: status %d", ss.c.num, what, st)
	}
}

// lost: the server does not know the session any more. That is right only after a lease time of silence.
func (ss *session) lost(generation int, st status) {
	w := ss.c.w
	if generation != ss.generation || ss.id == "" {
		return
	}
	if w.now-ss.renewed < int64(w.cfg.Lease) {
		w.fail("client %d loses its session (status %d) %d ms after it renewed its lease", ss.c.num, st, (w.now-ss.renewed)/msec)
		return
	}
	w.note("session lost", uint64(ss.c.num))
	w.stats.Expired++
	ss.id = ""
}

// process is a thread on a client that makes one call at a time. It owns a slot of the session.
type process struct {
	c    *client
	num  int
	slot uint32
	seq  uint32
	// generation is that of the session that seq and the state below belong to.
	generation int
	opens      map[string]string // file handle -> stateid
	locks      map[string]string // file handle -> lock stateid
	id         int               // in histories
	operations int               // begun
	rng        stream            // of the present operation
}

// compound executes a COMPOUND exactly once. done gets what follows SEQUENCE; if the session was lost, results whose status is stLost.
func (p *process) compound(cache bool, build func(c *compound), done func(r *results)) {
	p.c.session.ready(func() { p.inSession(cache, build, done) })
}

// stateful is compound for what has to do with the process's opens and locks: it is not sent when they were lost with the session.
func (p *process) stateful(cache bool, build func(c *compound), done func(r *results)) {
	p.c.session.ready(func() {
		if p.renew() {
			done(&results{last: stLost})
			return
		}
		p.inSession(cache, build, done)
	})
}

// renew makes the process begin anew if its client has another session than it knew.
func (p *process) renew() bool {
	ss := p.c.session
	if p.generation == ss.generation {
		return false
	}
	p.generation, p.seq = ss.generation, 0
	if p.slot == 0 {
		p.seq = 1 // RECLAIM_COMPLETE
	}
	p.opens, p.locks = map[string]string{}, map[string]string{}
	return true
}

func (p *process) inSession(cache bool, build func(c *compound), done func(r *results)) {
	ss := p.c.session
	p.renew()
	generation, began := ss.generation, p.c.w.now
	c := newCompound().op(opSequence)
	c.Fixed([]byte(ss.id))
	c.Uint32(p.seq + 1)
	c.Uint32(p.slot)
	c.Uint32(slotCount - 1)
	c.Bool(cache)
	build(c)
	p.c.w.logf("client %d slot %d seq %d cached %v: the next call", p.c.num, p.slot, p.seq+1, cache)
	ss.c.send(rpc.ProgNFS, 4, 1, c.Bytes(), func(b []byte) {
		if generation != ss.generation {
			done(&results{last: stLost})
			return
		}
		r := parseResults(b)
		switch st := r.next(opSequence); st {
		case stOK:
		case stDelay: // what is sent again may hold stateids of this session
			p.c.w.after(20*msec, func() { p.stateful(cache, build, done) })
			return
		case stBadSession, stDeadSession:
			ss.lost(generation, st)
			done(&results{last: stLost})
			return
		default:
			p.c.w.fail("client %d slot %d: SEQUENCE %d: status %d", p.c.num, p.slot, p.seq+1, st)
			return
		}
		id := string(r.Fixed(sessionIDBytes))
		seq, slot := r.Uint32(), r.Uint32()
		r.Uint32()
		r.Uint32()
		r.Uint32() // flags
		p.seq++
		if id != ss.id || seq != p.seq || slot != p.slot {
			p.c.w.fail("client %d slot %d: the answer to request %d is for request %d of slot %d", p.c.num, p.slot, p.seq, seq, slot)
			return
		}
		ss.renewed = max(ss.renewed, began)
		done(r)
	})
}
