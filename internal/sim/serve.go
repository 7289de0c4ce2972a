package sim

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"holdfast/internal/gateway"
	"holdfast/internal/replica"
	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

// phase is as in package node: what becomes of clients at a node.
type phase uint8

const (
	following phase = iota
	pausing
	serving
)

// service is what package node's service is: clients' connections and the phase.
type service struct {
	phase   phase
	since   int64  // when it began to serve
	term    uint64 // in which it did
	conns   []*conn
	waiting []func() // requests that wait for the lease to come back
	// applying is the index of the entry that is being applied, while replies to it leave.
	applying uint64
}

// handleEvents is replica's event worker: package node hears of events a little later, in order.
func (l *life) handleEvents() {
	if l.handling || len(l.events) == 0 {
		return
	}
	l.handling = true
	d := l.rng.between(0, 300*usec)
	if l.rng.chance(0.02) {
		d += l.rng.Int64N(30 * msec)
	}
	if l.late.chance(0.01) {
		d += l.late.Int64N(sec) // an address that is hard to take, or exports to publish: leaderships come and go meanwhile
	}
	l.after(d, func() {
		l.handling = false
		e := l.events[0]
		l.events = l.events[1:]
		l.event(e)
		l.handleEvents()
	})
}

// event is service.event of package node.
func (l *life) event(e replica.Event) {
	switch e.Kind {
	case replica.LeaderReady:
		l.endStale()
		l.lead(e.Term)
	case replica.LeaderLost:
		if !l.stale {
			l.follow()
		}
	case replica.LeaderChanged:
		if e.Leader != 0 && e.Leader != l.n.id {
			l.endStale()
		}
	case replica.LeaseLapsed:
		l.setPhase(pausing)
	case replica.LeaseRegained:
		l.setPhase(serving)
	}
}

// endStale ends the serving of one who does not lead any more (mutation).
func (l *life) endStale() {
	if l.stale {
		l.stale = false
		l.follow()
	}
}

func (l *life) setPhase(p phase) {
	l.serve.phase = p
	if p == pausing {
		return
	}
	waiting := l.serve.waiting
	l.serve.waiting = nil
	for _, again := range waiting {
		l.after(0, again)
	}
}

func (l *life) lead(term uint64) {
	l.w.stats.Leaders++
	l.gate.Lead(term)
	l.serve.since, l.serve.term = l.w.now, term
	l.setPhase(serving)
	if len(l.volume.Exports()) == 0 {
		spec := []volume.ExportSpec{{Path: exportPath, Mode: 0o777}}
		// If it fails the next leader does it.
		_ = l.gate.Command(volume.EntryExports, netip.AddrPort{}, volume.EncodeExports(spec))
	}
}

func (l *life) follow() {
	l.setPhase(following)
	if l.gate != nil {
		l.gate.Follow()
	}
	conns := l.serve.conns
	l.serve.conns = nil
	for _, c := range conns {
		c.reset()
	}
}

// processEnded closes the connections of a process that is gone: its host resets them when it hears of them again.
func (sv *service) processEnded() {
	for _, c := range sv.conns {
		c.reset()
	}
	sv.conns = nil
}

// serviceTick is package node's periodic work, more often where leases are so short that a second would be taken for a process that stood still.
func (l *life) serviceTick() {
	l.after(min(sec, int64(l.w.cfg.Lease)/4), l.serviceTick)
	if l.gate != nil {
		l.gate.Tick()
		l.publishVersion()
	}
}

// conn is a client's connection to a process.
type conn struct {
	w      *World
	client *client
	life   *life
	addr   netip.AddrPort
	up     pipe // to the server
	down   pipe
	gone   bool // closed at the server
	hungUp bool // closed at the client
}

// RemoteAddr implements gateway.Conn.
func (c *conn) RemoteAddr() netip.AddrPort { return c.addr }

// Call implements nfs4.BackChannel. The simulated clients have no back channel.
func (c *conn) Call(context.Context, uint32, uint32, uint32, *rpcAuth, []byte) ([]byte, error) {
	return nil, errors.New("sim: no back channel")
}

// Reply implements gateway.Conn.
func (c *conn) Reply(record []byte) {
	if index := c.life.serve.applying; index != 0 {
		c.w.oracle.acknowledged(index)
	}
	c.send(record)
}

func (c *conn) send(record []byte) {
	if !c.gone {
		c.down.put(record)
	}
}

// reset closes the connection at the server's side; the client hears of it if the network lets it.
func (c *conn) reset() {
	if c.gone {
		return
	}
	c.gone = true
	c.up.closed = true
	w := c.w
	d := w.net.delay(c.down.from, c.down.to)
	if w.net.link(c.down.from, c.down.to).chance(0.1) {
		c.down.closed = true // what was on its way is lost
	}
	w.after(d, func() {
		if !w.net.blocked(c.down.from, c.down.to) {
			c.down.closed = true
			c.client.disconnected(c)
		}
	})
}

// accept takes a connection at a node. It is closed at once by a node that does not lead.
func (l *life) accept(c *conn) {
	c.life = l
	c.up = pipe{w: l.w, from: c.client.station(), to: station(l.n.id)}
	c.up.deliver = func(record []byte) { l.run(func() { l.handle(c, record) }) }
	c.down = pipe{w: l.w, from: station(l.n.id), to: c.client.station()}
	c.down.deliver = func(record []byte) { c.client.received(c, record) }
	if l.serve.phase == following {
		c.reset()
		return
	}
	l.serve.conns = append(l.serve.conns, c)
}

// closed: the client has hung up, and the server has read to the end.
func (l *life) closed(c *conn) {
	if i := slices.Index(l.serve.conns, c); i >= 0 {
		l.serve.conns = slices.Delete(l.serve.conns, i, i+1)
	}
	if !c.gone {
		c.gone = true
		c.up.closed = true
		l.gate.ConnClosed(c)
	}
}

// handle is service.Handle of package node.
func (l *life) handle(c *conn, record []byte) {
	if c.gone || l.failed != nil {
		return
	}
	defer l.catch()
	var req gateway.Request
	// The record gets room in front for the entry's header, as package node gives it.
	off := gateway.HeadroomBytes(1)
	buf := append(make([]byte, off), record...)
	reply, err := l.gate.Decode(c, buf[off:], &req)
	switch {
	case err != nil:
		l.w.fail("the gateway refuses a call: %v", err)
	case reply != nil:
		c.Reply(reply)
	case req.Mutates:
		l.proposeCall(c, &req, buf, off)
	default:
		l.read(c, &req)
	}
}

func (l *life) read(c *conn, req *gateway.Request) {
	var e xdr.Encoder
	err := l.gate.Read(c, req, &e)
	if err == nil || !l.escapes(err) {
		c.send(e.Bytes())
		return
	}
	l.again(c, func() { l.read(c, req) })
}

func (l *life) proposeCall(c *conn, req *gateway.Request, buf []byte, off int) {
	err := l.gate.Propose(c, req, buf, off, nil)
	if err == nil {
		return
	}
	l.again(c, func() { l.proposeCall(c, req, buf, off) })
}

// again tries a request later that could not be served now, as phases.awaitServing lets it.
func (l *life) again(c *conn, try func()) {
	switch l.serve.phase {
	case following:
		if i := slices.Index(l.serve.conns, c); i >= 0 {
			l.serve.conns = slices.Delete(l.serve.conns, i, i+1)
		}
		c.reset()
	case pausing:
		l.serve.waiting = append(l.serve.waiting, func() {
			defer l.catch()
			try()
		})
	default:
		l.after(200*usec, func() {
			defer l.catch()
			try()
		})
	}
}
