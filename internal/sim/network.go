package sim

import (
	"slices"

	"holdfast/internal/replica"
)

// station is an end of a link: a node's id, or a client's number above clientStations.
type station uint64

const clientStations = 100

// network carries messages between stations. Cuts are of one direction each.
type network struct {
	w     *World
	links map[[2]station]stream
	cut   map[[2]station]bool
	// Chances of a message between nodes to get lost, to come twice, to come late.
	drop, dup, slow float64
	// lag is added to every message, jitter at random.
	lag, jitter int64
}

func (n *network) init(w *World) {
	*n = network{w: w, links: n.links, cut: map[[2]station]bool{}, jitter: 400 * usec}
	if n.links == nil {
		n.links = map[[2]station]stream{}
	}
}

// heal makes the network a good one again.
func (n *network) heal() { n.init(n.w) }

// blocked reports whether nothing gets from a to b.
func (n *network) blocked(a, b station) bool { return n.cut[[2]station{a, b}] }

// sever cuts the link from a to b.
func (n *network) sever(a, b station) {
	if a != b {
		n.cut[[2]station{a, b}] = true
	}
}

// link returns the source of chance of what goes from a to b.
func (n *network) link(a, b station) stream {
	s, ok := n.links[[2]station{a, b}]
	if !ok {
		s = n.w.stream("link", uint64(a), uint64(b))
		n.links[[2]station{a, b}] = s
	}
	return s
}

// delay draws how long a message from a to b takes.
func (n *network) delay(a, b station) int64 {
	return 50*usec + n.lag + n.link(a, b).Int64N(n.jitter+1)
}

// send takes a message of the raft group.
func (n *network) send(m replica.Message) {
	w := n.w
	w.note("send", m.From, m.To, uint64(m.Type), m.Term, m.Index, m.Commit)
	if ack, ok := forgeAck(m); ok && w.cfg.Mutation == AckBeforeMajority && w.chaos {
		w.after(0, func() {
			w.byID[m.From].input(func(l *life) { l.turn(func(core *replica.Core, now int64) { core.Step(now, ack) }) })
		})
	}
	a, b := station(m.From), station(m.To)
	link := n.link(a, b)
	if n.blocked(a, b) || link.chance(n.drop) {
		return
	}
	copies := 1
	if link.chance(n.dup) {
		copies = 2
	}
	for range copies {
		d := n.delay(a, b)
		if link.chance(n.slow) {
			d += link.Int64N(500 * msec)
		}
		w.after(d, func() {
			if n.blocked(a, b) {
				return
			}
			to := w.byID[m.To]
			to.input(func(l *life) {
				c := m
				c.Context = slices.Clone(m.Context)
				c.Entries = slices.Clone(m.Entries)
				l.turn(func(core *replica.Core, now int64) { core.Step(now, c) })
			})
		})
	}
}

// pipe is one direction of a stream connection: what is put in comes out in order, or not at all.
type pipe struct {
	w        *World
	from, to station
	queue    [][]byte
	moving   bool
	closed   bool
	deliver  func(record []byte)
}

// stallRetry is how often a stream that gets nothing through tries again, as TCP does.
const stallRetry = 40 * msec

func (p *pipe) put(record []byte) {
	if p.closed {
		return
	}
	p.queue = append(p.queue, record)
	p.move()
}

func (p *pipe) move() {
	if p.moving || p.closed || len(p.queue) == 0 {
		return
	}
	p.moving = true
	d := p.w.net.delay(p.from, p.to)
	if p.w.net.link(p.from, p.to).chance(p.w.net.drop) {
		d += stallRetry
	}
	p.w.after(d, p.arrive)
}

func (p *pipe) arrive() {
	if p.closed {
		return
	}
	if p.w.net.blocked(p.from, p.to) {
		p.w.after(stallRetry, p.arrive)
		return
	}
	record := p.queue[0]
	p.queue = p.queue[1:]
	p.moving = false
	p.deliver(record)
	p.move()
}
