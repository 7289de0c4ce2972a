package sim

import (
	"encoding/binary"
	"fmt"
	"math"
)

// holder is who holds the lock of a counter, as far as clients were told.
type holder struct {
	p          *process
	generation int
	value      uint64 // the highest value that was acknowledged
}

// increment locks a counter, reads it, writes it one higher, and unlocks it.
func (p *process) increment(f *file, then func()) {
	p.openFile(f, func(id string) {
		if id == "" {
			then()
			return
		}
		p.lock(f, id, 0, then)
	})
}

// lockTries bounds how often a process tries a lock that another holds.
const lockTries = 40

func (p *process) lock(f *file, open string, tries int, then func()) {
	w := p.c.w
	var sent int64
	p.stateful(true, func(c *compound) {
		sent = w.now
		w.oracle.claims(p, f)
		c.putFH(f.fh).op(opLock)
		c.Uint32(2) // WRITE_LT
		c.Bool(false)
		c.Uint64(0)
		c.Uint64(counterBytes)
		if lock := p.locks[f.fh]; lock != "" {
			c.Bool(false)
			c.Fixed([]byte(lock))
			c.Uint32(0)
			return
		}
		c.Bool(true)
		c.Uint32(0)
		c.Fixed([]byte(open))
		c.Uint32(0)
		c.Uint64(p.c.session.clientID)
		c.String(fmt.Sprintf("locker %d", p.num))
	}, func(r *results) {
		r.skip(opPutFH, opLock)
		switch r.last {
		case stOK:
			id := string(r.Fixed(stateIDBytes))
			if st := r.check(); st != stOK {
				p.unexpected("LOCK", st)
				return
			}
			p.locks[f.fh] = id
			w.oracle.locked(p, f)
			if w.err == nil {
				p.readCounter(f, then)
			}
		case stDenied:
			w.oracle.denied(p, f, sent)
			// In the end nobody holds it who comes back: it is free when the lease of who does not has run out.
			if !w.oracle.last && (tries == lockTries || !w.working) {
				then()
				return
			}
			w.after(p.rng.between(2*msec, 60*msec), func() {
				if p.generation != p.c.session.generation || p.c.session.id == "" {
					then()
					return
				}
				p.lock(f, open, tries+1, then)
			})
		case stLost:
			then()
		default:
			p.unexpected("LOCK", r.last)
		}
	})
}

func (p *process) readCounter(f *file, then func()) {
	p.stateful(false, func(c *compound) {
		c.putFH(f.fh).op(opRead)
		c.Fixed([]byte(p.locks[f.fh]))
		c.Uint64(0)
		c.Uint32(counterBytes)
	}, func(r *results) {
		r.skip(opPutFH, opRead)
		if r.last == stLost {
			then()
			return
		}
		r.Bool()
		b := r.Opaque(counterBytes)
		if st := r.check(); st != stOK {
			p.unexpected("READ under a lock", st)
			return
		}
		var whole [counterBytes]byte
		copy(whole[:], b)
		p.writeCounter(f, binary.BigEndian.Uint64(whole[:])+1, then)
	})
}

func (p *process) writeCounter(f *file, value uint64, then func()) {
	o := &p.c.w.oracle
	p.write4(f.fh, p.locks[f.fh], 0, binary.BigEndian.AppendUint64(nil, value), func(st status) {
		switch st {
		case stOK:
			if h := o.holders[f.fh]; value <= h.value {
				p.c.w.fail("client %d writes %d to %s under the lock; %d was written before", p.c.num, value, f.name, h.value)
				return
			}
			o.holders[f.fh].value = value
			p.unlock(f, then)
		case stLost:
			then()
		default:
			p.unexpected("WRITE under a lock", st)
		}
	})
}

func (p *process) unlock(f *file, then func()) {
	p.c.w.oracle.unlocking(p, f)
	p.stateful(true, func(c *compound) {
		c.putFH(f.fh).op(opLockU)
		c.Uint32(2)
		c.Uint32(0)
		c.Fixed([]byte(p.locks[f.fh]))
		c.Uint64(0)
		c.Uint64(counterBytes)
	}, func(r *results) {
		r.skip(opPutFH, opLockU)
		switch r.last {
		case stOK:
			p.locks[f.fh] = string(r.Fixed(stateIDBytes))
			p.c.w.oracle.released(p, f)
		case stLost:
		default:
			p.unexpected("LOCKU", r.last)
			return
		}
		then()
	})
}

// locked: a client was told that it holds the lock. Nobody else may hold it who may still rely on its lease.
func (o *oracle) locked(p *process, f *file) {
	h := o.holders[f.fh]
	if h == nil {
		h = &holder{}
		o.holders[f.fh] = h
	}
	if h.p != nil && h.p != p {
		ss := h.p.c.session
		if ss.generation == h.generation && ss.id != "" && o.w.now-ss.renewed < int64(o.w.cfg.Lease) {
			o.w.fail("client %d gets the lock of %s while client %d holds it", p.c.num, f.name, h.p.c.num)
		}
	}
	h.p, h.generation = p, p.generation
}

// unlocking: a client is about to give the lock up.
func (o *oracle) unlocking(p *process, f *file) {
	if h := o.holders[f.fh]; h.p == p {
		h.p = nil
	}
}

// A process may hold a lock, whatever it was told, from when it asks for it until it knows that it does not, or until its client has another session than the one
// in which it asked. To be denied the lock takes such a process.

const stillClaimed = math.MaxInt64

// claims: a process asks for the lock.
func (o *oracle) claims(p *process, f *file) {
	if o.claimed[f.fh] == nil {
		o.claimed[f.fh] = map[*process]int64{}
	}
	o.claimed[f.fh][p] = stillClaimed
}

// released: a process knows that it does not hold the lock.
func (o *oracle) released(p *process, f *file) { o.claimed[f.fh][p] = o.w.now }

// begins: a client has a new session, and nothing is left of the former.
func (o *oracle) begins(c *client) {
	for _, claimed := range o.claimed {
		for p, until := range claimed {
			if p.c == c && until == stillClaimed {
				claimed[p] = o.w.now
			}
		}
	}
}

// denied: a process that asked at a moment was told that another holds the lock.
func (o *oracle) denied(p *process, f *file, sent int64) {
	o.released(p, f)
	for other, until := range o.claimed[f.fh] {
		if other != p && until >= sent {
			return
		}
	}
	o.w.fail("client %d is denied the lock of %s, which nobody can hold", p.c.num, f.name)
}
