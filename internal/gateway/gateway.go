// Package gateway decides what happens to each NFS request at one node: whether it is only read, under the leader's lease, or proposed to
// the log; who waits for which reply; and when clients must go elsewhere. It has no goroutine, clock, network or disk of its own: package node drives it with real
// connections and a real raft group, the simulator with simulated ones.
package gateway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"holdfast/internal/nfs4"
	"holdfast/internal/rpc"
	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

// ErrNotServing is returned when the node does not lead the volume, or its lease has run out. Nothing was proposed.
var ErrNotServing = errors.New("gateway: this node does not serve the volume now")

// ErrHangUp is returned for input that deserves no answer; the connection must be closed.
var ErrHangUp = errors.New("gateway: not an RPC call")

// ErrDamaged is returned by Read when this node's own copy could not be read.
var ErrDamaged = errors.New("gateway: this node's copy of the volume is damaged")

// Raft is what the gateway needs of a raft group.
type Raft interface {
	// ServingTerm returns the term in which this node leads, holds the lease now and has applied an entry of its own; 0 if it does not.
	ServingTerm() uint64
	// Propose hands an entry to raft. The entry belongs to raft afterwards. An error means that it will never be applied.
	// It may wait while too much is under way.
	Propose(entry []byte) error
}

// Conn is a client's connection: the key that back channels are bound to, and the way to answer. Implementations are comparable.
type Conn interface {
	nfs4.BackChannel
	// Reply sends one RPC record. It takes ownership of the slice.
	Reply(record []byte)
	// RemoteAddr is the client's address.
	RemoteAddr() netip.AddrPort
}

// Clock gives the leader's stamps.
type Clock interface {
	// WallNS is the time since the epoch in nanoseconds, for file times.
	WallNS() int64
	// MonotonicNS never steps; leases are measured with it.
	MonotonicNS() int64
	// Random is a random number.
	Random() uint64
}

// Config is what New needs.
type Config struct {
	Volume *volume.Volume
	Raft   Raft
	NFS4   *nfs4.Program
	// Programs are all that the volume executes, NFS4 among them.
	Programs []volume.Program
	Clock    Clock
	// Node is this node's id, part of every proposal's number.
	Node uint64
	// Rules returns what a client may do in which export.
	Rules func(addr netip.Addr) []volume.Rule
	// Full reports whether growth must be refused, because a replica is below its reserve.
	Full func() bool
}

// Gateway serves one volume at one node. Safe for concurrent use.
type Gateway struct {
	cfg Config
	led atomic.Pointer[leadership] // nil while not leading

	counter atomic.Uint64
	mu      sync.Mutex
	waiting map[uint64]waiter // by proposal number
}

// leadership is one that Lead told of.
type leadership struct {
	term  uint64
	front *nfs4.Front
}

type waiter struct {
	conn Conn
	done func() // releases what the request held; may be nil
}

// New returns a gateway that does not lead yet.
func New(cfg Config) *Gateway {
	g := &Gateway{cfg: cfg, waiting: make(map[uint64]waiter)}
	// Numbers of a former life of this node must not meet waiters of this one: entries of then may be applied now.
	g.counter.Store(cfg.Clock.Random() & (1<<counterBits - 1) >> 1)
	return g
}

// counterBits is the width of the counter within a proposal number; the node id is above it.
const counterBits = 48

// HeadroomBytes is what a record's buffer needs in front of the record for n rules, so that the entry's header fits without a copy.
func HeadroomBytes(n int) int { return volume.HeaderBytes(n) }

// Request is a decoded call on its way through the gateway.
type Request struct {
	volume.Request
	// Mutates tells that the call must go through the log.
	Mutates bool
	program volume.Program
}

// Decode parses a record. If the RPC layer itself has the answer (unknown program, bad credentials), it returns that reply record. ErrHangUp: no answer is possible.
func (g *Gateway) Decode(conn Conn, record []byte, req *Request) (reply []byte, err error) {
	*req = Request{}
	if err := rpc.ParseCall(record, &req.Call); err != nil {
		var rej *rpc.RejectError
		if errors.As(err, &rej) {
			var e xdr.Encoder
			rpc.AppendRejected(&e, rej)
			return e.Bytes(), nil
		}
		return nil, errors.Join(ErrHangUp, err)
	}
	req.Client = conn.RemoteAddr()
	req.program = g.program(req.Call.Prog, req.Call.Vers)
	if req.program != nil {
		req.Rules = g.cfg.Rules(req.Client.Addr())
		req.Mutates = req.program.Mutates(&req.Request)
	}
	return nil, nil
}

// program returns the program for a call; nil if there is none, which the volume answers.
func (g *Gateway) program(prog, vers uint32) volume.Program {
	for _, p := range g.cfg.Programs {
		if n, v := p.Number(); n == prog && v == vers {
			return p
		}
	}
	return nil
}

// serving returns the leadership that Lead told of last, if the node serves in it: not where it has lost that and leads again, before Follow and Lead tell. What an earlier leadership saw of slots
// and leases says nothing of what clients did with the leaders in between.
func (g *Gateway) serving() *leadership {
	if l := g.led.Load(); l != nil && g.cfg.Raft.ServingTerm() == l.term {
		return l
	}
	return nil
}

// admit runs the leader's own checks of an NFSv4 request (slot order, lease renewal) and fills in what only the leader knows. It returns a reply if there is nothing left to execute.
func (g *Gateway) admit(conn Conn, req *Request) (reply []byte, err error) {
	l := g.serving()
	if l == nil {
		return nil, ErrNotServing
	}
	req.Time = g.cfg.Clock.WallNS()
	if req.program != volume.Program(g.cfg.NFS4) {
		return nil, nil
	}
	if reply, done := l.front.Admit(conn, &req.Request, req.Mutates, g.cfg.Clock.MonotonicNS()); done {
		return reply, nil
	}
	req.SeqFlags = l.front.SeqFlags(&req.Request)
	return nil, nil
}

// Read executes a request that does not mutate and appends the reply record to reply. ErrNotServing: nothing of what was appended may be sent; the caller may try again when
// the node serves again. ErrDamaged: the reply is the protocol's I/O error, and may be sent if no other replica can take over; where one can, it has the answer.
func (g *Gateway) Read(conn Conn, req *Request, reply *xdr.Encoder) error {
	start := reply.Len()
	ready, err := g.admit(conn, req)
	if err != nil {
		return err
	}
	if ready != nil {
		reply.Raw(ready)
		return nil
	}
	damage := g.cfg.Volume.Read(&req.Request, reply)
	// The state that was read was current only if the lease was still held afterwards. An entry that failed half done stops the replica, but not before readers can see it.
	if g.cfg.Volume.Failed() || g.serving() == nil {
		reply.Truncate(start)
		return ErrNotServing
	}
	if damage != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, damage)
	}
	return nil
}

// Propose sends a mutating request on its way through the log; the reply goes to conn when the entry is applied, and done is called once when the gateway needs the
// request no longer, whatever became of it. buf[off:] is the record; the bytes in front of it are overwritten with the entry's header if they suffice. After an error done is not called.
func (g *Gateway) Propose(conn Conn, req *Request, buf []byte, off int, done func()) error {
	ready, err := g.admit(conn, req)
	if err != nil {
		return err
	}
	if ready != nil {
		conn.Reply(ready)
		if done != nil {
			done()
		}
		return nil
	}
	e := volume.Entry{
		Kind: volume.EntryCall, Proposal: g.cfg.Node<<counterBits | g.counter.Add(1)&(1<<counterBits-1),
		Time: req.Time, Client: req.Client, Rules: req.Rules, SeqFlags: req.SeqFlags, Random: g.cfg.Clock.Random(), Full: g.cfg.Full(),
	}
	entry := frame(&e, buf, off)
	g.mu.Lock()
	g.waiting[e.Proposal] = waiter{conn, done}
	g.mu.Unlock()
	if err := g.cfg.Raft.Propose(entry); err != nil {
		if _, ours := g.take(e.Proposal); !ours {
			// Follow came in between and has dropped the request with all others: done was called, and the connection is being closed.
			return nil
		}
		return errors.Join(ErrNotServing, err)
	}
	return nil
}

// frame puts e's header in front of the record at buf[off:], in place if there is room.
func frame(e *volume.Entry, buf []byte, off int) []byte {
	n := volume.HeaderBytes(len(e.Rules))
	if n > off {
		e.Payload = buf[off:]
		return e.Encode()
	}
	e.AppendHeader(buf[off-n : off-n])
	return buf[off-n:]
}

// Command proposes an entry that no client waits for.
func (g *Gateway) Command(kind volume.EntryKind, client netip.AddrPort, payload []byte) error {
	if g.cfg.Raft.ServingTerm() == 0 {
		return ErrNotServing
	}
	e := volume.Entry{Kind: kind, Time: g.cfg.Clock.WallNS(), Client: client, Random: g.cfg.Clock.Random(), Payload: payload}
	return g.cfg.Raft.Propose(e.Encode())
}

func (g *Gateway) take(proposal uint64) (waiter, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	w, ok := g.waiting[proposal]
	if ok {
		delete(g.waiting, proposal)
	}
	return w, ok
}

// Applied is called by the apply worker for each applied entry with the reply that the volume computed, and answers whoever waits for it.
func (g *Gateway) Applied(entry, reply []byte) {
	if len(entry) < 16 {
		return
	}
	proposal := binary.BigEndian.Uint64(entry[8:])
	if proposal>>counterBits != g.cfg.Node {
		return
	}
	w, ok := g.take(proposal)
	if !ok {
		return
	}
	if reply != nil {
		w.conn.Reply(reply)
	}
	if w.done != nil {
		w.done()
	}
}

// Lead makes the gateway start serving: the node became leader in a term. Volatile state of an earlier leadership is forgotten. The caller runs the returned front's Run while it leads.
func (g *Gateway) Lead(term uint64) *nfs4.Front {
	front := nfs4.NewFront(g.cfg.NFS4, g.cfg.Volume, g.cfg.Clock.MonotonicNS())
	g.led.Store(&leadership{term, front})
	return front
}

// Follow makes the gateway stop serving. It forgets all waiters: what they asked for may or may not happen; they will ask the next leader. The caller closes the connections.
func (g *Gateway) Follow() {
	g.led.Store(nil)
	g.mu.Lock()
	dropped := g.waiting
	g.waiting = make(map[uint64]waiter)
	g.mu.Unlock()
	for _, w := range dropped {
		if w.done != nil {
			w.done()
		}
	}
}

// Tick does the leader's periodic work: it proposes the expiry of clients whose lease has run out.
func (g *Gateway) Tick() {
	l := g.serving()
	if l == nil {
		return
	}
	prog, vers := g.cfg.NFS4.Number()
	for _, command := range l.front.Expired(g.cfg.Clock.MonotonicNS()) {
		if g.serving() != l { // the next leader counts afresh, also if it is this node
			return
		}
		// What is not taken is returned by the next call.
		_ = g.Command(volume.EntryCommand, netip.AddrPort{}, volume.CommandPayload(prog, vers, command))
	}
}

// ConnClosed forgets a connection.
func (g *Gateway) ConnClosed(conn Conn) {
	if l := g.led.Load(); l != nil {
		l.front.ConnClosed(conn)
	}
}

// Waiting returns how many requests wait for their entries.
func (g *Gateway) Waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.waiting)
}
