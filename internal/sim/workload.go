package sim

import (
	"encoding/binary"
	"fmt"
	"slices"

	"holdfast/internal/rpc"
	"holdfast/internal/xdr"
)

// The export holds files of blocks, each block a register that is written and read as a whole; files that are cut (see cuts); counters that are incremented under a lock; and folders, two of
// which form a namespace.
type file struct {
	name       string
	fh         string
	blockBytes int
	blocks     int
}

// layout is what setup makes. Some files are so small that the volume keeps them with the metadata, blocks of others do not begin on a page.
var layout = []file{
	{name: "small", blockBytes: 40, blocks: 2},
	{name: "large", blockBytes: 5000, blocks: 3},
	{name: "growing", blockBytes: 1500, blocks: 5},
}

const (
	counters  = 2
	spaces    = 2 // namespaces
	spaceDirs = 2 // folders in each
	names     = 4 // in each folder
	// counterLocks is the range of a counter that is locked.
	counterBytes = 8
)

// tree is what was made of the layout.
type tree struct {
	root     string
	files    []file
	cuts     []file
	counters []file
	dirs     [spaces * spaceDirs]string
}

// content is what a block holds for a value: every byte follows from it, so that a mixture of two is noticed. 0 is a block that was never written.
func content(value uint64, size int) []byte {
	b := make([]byte, size)
	if value == 0 {
		return b
	}
	binary.BigEndian.PutUint64(b, value)
	x := value
	for i := 8; i < size; i++ {
		x = x*6364136223846793005 + 1442695040888963407
		b[i] = byte(x >> 56)
	}
	return b
}

// valueOf is the inverse of content. A block is short if the file ends in it.
func valueOf(b []byte, size int) (uint64, bool) {
	whole := make([]byte, size)
	copy(whole, b)
	v := binary.BigEndian.Uint64(whole)
	return v, string(content(v, size)) == string(whole)
}

// setup makes the tree, as the first client and before anything goes wrong.
type setup struct {
	w    *World
	p    *process
	done bool
}

func newSetup(w *World) *setup {
	for i := range w.faults.clients() {
		c := newClient(w, i, i%3 == 2)
		w.clients = append(w.clients, c)
		c.session = &session{c: c, verifier: c.rng.Uint64()}
	}
	st := &setup{w: w}
	w.oracle.tree = &tree{files: slices.Clone(layout), cuts: slices.Clone(cuts)}
	for i := range counters {
		w.oracle.tree.counters = append(w.oracle.tree.counters, file{name: fmt.Sprintf("counter%d", i)})
	}
	st.p = w.clients[0].process(0)
	w.oracle.setup = st.p
	w.after(500*msec, st.root)
	return st
}

func (st *setup) ready() bool { return st.done && st.w.clientsIdle() }

func (st *setup) root() {
	var fh string
	st.p.compound(false, func(c *compound) {
		c.op(opPutRootFH).named(opLookup, exportPath[1:]).op(opGetFH)
	}, func(r *results) {
		r.skip(opPutRootFH, opLookup)
		fh = r.getFH()
		if r.check() != stOK {
			st.w.after(100*msec, st.root) // the exports are not there yet
			return
		}
		t := st.w.oracle.tree
		t.root = fh
		st.make(0)
	})
}

// make makes the ith thing of the tree.
func (st *setup) make(i int) {
	t := st.w.oracle.tree
	all := slices.Concat(pointers(t.files), pointers(t.cuts), pointers(t.counters))
	if i < len(all) {
		st.p.create(t.root, all[i].name, func(s status, fh string) {
			if s != stOK {
				st.w.fail("setup: create %s: status %d", all[i].name, s)
				return
			}
			all[i].fh = fh
			st.make(i + 1)
		})
		return
	}
	d := i - len(all)
	if d == len(t.dirs) {
		st.done = true
		return
	}
	st.p.compound(true, func(c *compound) {
		c.putFH(t.root).op(opCreate)
		c.Uint32(2) // NF4DIR
		c.String(fmt.Sprintf("dir%d", d))
		c.attrMode(0o777)
		c.op(opGetFH)
	}, func(r *results) {
		r.next(opPutFH)
		if r.next(opCreate) == stOK {
			r.changeInfo()
			for range r.Count(8, 4) {
				r.Uint32()
			}
		}
		t.dirs[d] = r.getFH()
		if s := r.check(); s != stOK {
			st.w.fail("setup: create dir%d: status %d", d, s)
			return
		}
		st.make(i + 1)
	})
}

func pointers(f []file) []*file {
	var all []*file
	for i := range f {
		all = append(all, &f[i])
	}
	return all
}

func (f *Faults) clients() int { return 5 }

// process returns a new process of the client.
func (c *client) process(slot int) *process {
	p := &process{c: c, num: slot, slot: uint32(slot), id: c.num*slotCount + slot, opens: map[string]string{}, locks: map[string]string{}}
	p.rng = c.w.stream("process", uint64(p.id), 0)
	return p
}

// startClients sets the processes to work.
func (w *World) startClients() {
	for _, c := range w.clients {
		for slot := range slotCount {
			p := w.oracle.setup // goes on in its slot
			if c.num > 0 || slot > 0 {
				p = c.process(slot)
			}
			if w.cfg.works(p.id) {
				p.c.busy++
				p.think()
			}
		}
	}
}

// clientsIdle reports whether no call is under way, nor a process.
func (w *World) clientsIdle() bool {
	for _, c := range w.clients {
		if len(c.calls) > 0 || c.busy > 0 || c.session.making {
			return false
		}
	}
	return true
}

// think lets the process pause and then do something.
func (p *process) think() {
	w := p.c.w
	if limit := w.cfg.Operations; !w.working || limit > 0 && p.operations == limit {
		p.c.busy--
		return
	}
	p.operations++
	p.rng = w.stream("process", uint64(p.id), uint64(p.operations))
	d := p.rng.Int64N(20 * msec)
	if p.rng.chance(0.03) {
		d += p.rng.Int64N(2 * sec)
	}
	w.after(d, func() {
		if !w.working {
			p.c.busy--
			return
		}
		p.act()
	})
}

// act does one operation drawn at random, and thinks again after it.
func (p *process) act() {
	w := p.c.w
	t := w.oracle.tree
	// One process of each client reads only, so that it goes on while those that write have to wait.
	reads := p.slot == slotCount-1
	switch k := p.rng.IntN(20); {
	case reads && k < 6:
		p.lookup(p.rng.IntN(spaces), p.rng.IntN(spaceDirs*names), p.think)
	case reads && k < 8:
		p.readCut(&t.cuts[p.rng.IntN(len(t.cuts))], p.think)
	case reads || k < 7:
		f := &t.files[p.rng.IntN(len(t.files))]
		block := p.rng.IntN(f.blocks)
		if !reads && p.rng.chance(0.6) {
			p.writeBlock(f, block, p.think)
		} else {
			p.readBlock(f, block, p.think)
		}
	case k < 9:
		p.cut(&t.cuts[p.rng.IntN(len(t.cuts))], p.think)
	case k < 16:
		p.namespace(p.rng.IntN(spaces), p.think)
	case p.c.v3:
		p.think()
	case k < 19:
		p.increment(&t.counters[p.rng.IntN(counters)], p.think)
	default:
		p.close(&t.files[p.rng.IntN(len(t.files))], p.think)
	}
}

// readBack reads everything, as the first client.
func (w *World) readBack() {
	t := w.oracle.tree
	p := w.oracle.setup
	w.oracle.last = true
	p.c.busy++
	var steps []func(then func())
	for i := range t.files {
		f := &t.files[i]
		for b := range f.blocks {
			steps = append(steps, func(then func()) { p.readBlock(f, b, then) })
		}
	}
	for i := range t.cuts {
		steps = append(steps, func(then func()) { p.readCut(&t.cuts[i], then) })
	}
	for space := range spaces {
		for name := range spaceDirs * names {
			steps = append(steps, func(then func()) { p.lookup(space, name, then) })
		}
	}
	for i := range t.counters {
		steps = append(steps, func(then func()) { p.increment(&t.counters[i], then) })
	}
	var run func(i int)
	run = func(i int) {
		if i == len(steps) {
			p.c.busy--
			return
		}
		steps[i](func() { run(i + 1) })
	}
	run(0)
}

// Files.

// stateFor calls fn with a stateid for I/O on f: that of an open, or the anonymous one, which stands for none in version 3, too; "" if the session was lost.
func (p *process) stateFor(f *file, fn func(stateid string)) {
	if p.c.v3 || p.c.num%2 == 1 {
		fn(anonymousStateID)
		return
	}
	p.openFile(f, fn)
}

// openFile opens f unless it is open, and calls fn with the stateid, "" if the session was lost.
func (p *process) openFile(f *file, fn func(stateid string)) {
	ss := p.c.session
	if id := p.opens[f.fh]; id != "" && p.generation == ss.generation && ss.id != "" {
		fn(id)
		return
	}
	var clientID uint64
	p.compound(true, func(c *compound) {
		clientID = ss.clientID
		c.putFH(p.c.w.oracle.tree.root)
		c.open(clientID, p.owner(), 3)
		c.Uint32(0) // no create
		c.Uint32(0) // CLAIM_NULL
		c.String(f.name)
		c.op(opGetFH)
	}, func(r *results) {
		r.next(opPutFH)
		id := r.openResult()
		fh := r.getFH()
		switch st := r.check(); st {
		case stOK:
			if fh != f.fh {
				p.c.w.fail("client %d: OPEN %s: another handle than before", p.c.num, f.name)
				return
			}
			p.opens[f.fh] = id
			fn(id)
		case stLost:
			fn("")
		default:
			p.unexpected("OPEN "+f.name, st)
		}
	})
}

func (p *process) owner() string { return fmt.Sprintf("process %d", p.num) }

func (p *process) unexpected(what string, st status) {
	p.c.w.fail("client %d process %d: %s: status %d", p.c.num, p.num, what, st)
}

// close closes f if it is open.
func (p *process) close(f *file, then func()) {
	id := p.opens[f.fh]
	if id == "" || p.c.v3 || p.generation != p.c.session.generation {
		then()
		return
	}
	p.stateful(true, func(c *compound) {
		c.putFH(f.fh).op(opClose)
		c.Uint32(0)
		c.Fixed([]byte(id))
	}, func(r *results) {
		r.next(opPutFH)
		r.next(opClose)
		delete(p.opens, f.fh)
		if st := r.last; st != stOK && st != stLost {
			p.unexpected("CLOSE "+f.name, st)
			return
		}
		then()
	})
}

func (p *process) readBlock(f *file, block int, then func()) {
	h := p.c.w.oracle.begin(p, registerKey(f, block), registerOp{})
	p.read(f, uint64(block*f.blockBytes), f.blockBytes, func(b []byte, st status) {
		switch {
		case st == stLost:
			h.drop()
			then()
			return
		case st != stOK:
			p.unexpected("READ "+f.name, st)
			return
		}
		v, ok := valueOf(b, f.blockBytes)
		if p.garbled(ok, fmt.Sprintf("from block %d of %s", block, f.name)) {
			h.drop()
			then()
			return
		}
		h.end(registerOp{value: v})
		then()
	})
}

// garbled reports whether what was read is to be forgotten: it is no content that clients wrote. That must not be, unless it came from a rotten disk, which no
// read is promised to notice.
func (p *process) garbled(ok bool, where string) bool {
	switch {
	case ok:
		return false
	case p.c.answered.rot:
		p.c.w.stats.Rotten++
	default:
		p.c.w.fail("client %d reads a mixture of values %s", p.c.num, where)
	}
	return true
}

// read reads count bytes from off, fewer at the end of the file.
func (p *process) read(f *file, off uint64, count int, got func(b []byte, st status)) {
	if p.c.v3 {
		p.read3(f, off, count, got)
		return
	}
	p.stateFor(f, func(id string) {
		if id == "" {
			got(nil, stLost)
			return
		}
		p.stateful(false, func(c *compound) {
			c.putFH(f.fh).op(opRead)
			c.Fixed([]byte(id))
			c.Uint64(off)
			c.Uint32(uint32(count))
		}, func(r *results) {
			if st := r.skip(opPutFH, opRead); st != stOK {
				got(nil, st)
				return
			}
			r.Bool()
			b := r.Opaque(maxOpaque)
			got(b, r.check())
		})
	})
}

func (p *process) writeBlock(f *file, block int, then func()) {
	o := &p.c.w.oracle
	o.values++
	value := o.values
	p.stateFor(f, func(id string) {
		if id == "" {
			then() // nothing was written
			return
		}
		h := o.begin(p, registerKey(f, block), registerOp{write: true, value: value})
		p.write(f, id, block, content(value, f.blockBytes), p.changed(h, "WRITE "+f.name, registerOp{}, then))
	})
}

// changed takes the answer to what changes a file, out if it was done.
func (p *process) changed(h *record, what string, out any, then func()) func(st status) {
	return func(st status) {
		switch st {
		case stOK:
			h.end(out)
		case stLost:
			h.lost()
		default:
			p.unexpected(what, st)
			return
		}
		then()
	}
}

// write writes a block.
func (p *process) write(f *file, id string, block int, data []byte, done func(st status)) {
	off := uint64(block * f.blockBytes)
	if p.c.v3 {
		p.write3(f, off, data, done)
		return
	}
	p.write4(f.fh, id, off, data, done)
}

func (p *process) write4(fh, id string, off uint64, data []byte, done func(st status)) {
	p.stateful(true, func(c *compound) {
		c.putFH(fh).op(opWrite)
		c.Fixed([]byte(id))
		c.Uint64(off)
		c.Uint32(2) // FILE_SYNC
		c.Opaque(data)
	}, func(r *results) {
		r.skip(opPutFH, opWrite)
		if r.last != stOK {
			done(r.last)
			return
		}
		if count, stable := r.Uint32(), r.Uint32(); r.check() == stOK && (count != uint32(len(data)) || stable != 2) {
			p.c.w.fail("client %d: WRITE of %d bytes answers %d, stable %d", p.c.num, len(data), count, stable)
			return
		}
		done(r.check())
	})
}

// create makes a file and closes it again. GUARDED: the name must be free.
func (p *process) create(dir, name string, done func(st status, fh string)) {
	var clientID uint64
	p.compound(true, func(c *compound) {
		clientID = p.c.session.clientID
		c.putFH(dir)
		c.open(clientID, p.owner(), 3)
		c.Uint32(1)
		if p.c.num%2 == 0 {
			c.Uint32(1) // GUARDED4
		} else {
			c.Uint32(3) // EXCLUSIVE4_1
			c.Uint64(p.rng.Uint64())
		}
		c.attrMode(0o666)
		c.Uint32(0)
		c.String(name)
		c.op(opGetFH)
	}, func(r *results) {
		r.next(opPutFH)
		id := r.openResult()
		fh := r.getFH()
		if st := r.check(); st != stOK {
			done(st, "")
			return
		}
		p.stateful(true, func(c *compound) {
			c.putFH(fh).op(opClose)
			c.Uint32(0)
			c.Fixed([]byte(id))
		}, func(r *results) {
			if st := r.skip(opPutFH, opClose); st != stOK && st != stLost && st != stStale {
				p.unexpected("CLOSE "+name, st)
				return
			}
			done(stOK, fh)
		})
	})
}

func (c *compound) open(clientID uint64, owner string, access uint32) {
	c.op(opOpen)
	c.Uint32(0)
	c.Uint32(access | 0x400) // no delegation
	c.Uint32(0)
	c.Uint64(clientID)
	c.String(owner)
}

func (c *compound) attrMode(mode uint32) {
	c.Uint32(2)
	c.Uint32(0)
	c.Uint32(1 << (33 - 32))
	var e xdr.Encoder
	e.Uint32(mode)
	c.Opaque(e.Bytes())
}

func (r *results) openResult() (id string) {
	if r.next(opOpen) != stOK {
		return ""
	}
	id = string(r.Fixed(stateIDBytes))
	r.changeInfo()
	r.Uint32()
	for range r.Count(8, 4) {
		r.Uint32()
	}
	if kind := r.Uint32(); kind == 3 {
		if why := r.Uint32(); why == 1 || why == 2 {
			r.Bool()
		}
	}
	return id
}

// Version 3.

func (p *process) call3(proc uint32, args func(e *xdr.Encoder), done func(st status, d *xdr.Decoder)) {
	var e xdr.Encoder
	args(&e)
	p.c.send(rpc.ProgNFS, 3, proc, e.Bytes(), func(b []byte) {
		d := xdr.NewDecoder(b)
		st := status(d.Uint32())
		if st == stDelay {
			p.c.w.after(20*msec, func() { p.call3(proc, args, done) })
			return
		}
		done(st, d)
	})
}

const (
	attr3Bytes = 84
)

func skipAttr3(d *xdr.Decoder) {
	if d.Bool() {
		d.Fixed(attr3Bytes)
	}
}

func (p *process) read3(f *file, off uint64, count int, done func(b []byte, st status)) {
	p.call3(6, func(e *xdr.Encoder) {
		e.String(f.fh)
		e.Uint64(off)
		e.Uint32(uint32(count))
	}, func(st status, d *xdr.Decoder) {
		skipAttr3(d)
		if st != stOK {
			done(nil, st)
			return
		}
		d.Uint32()
		d.Bool()
		b := d.Opaque(maxOpaque)
		if d.Err() != nil {
			st = stMalformed
		}
		done(b, st)
	})
}

func (p *process) write3(f *file, off uint64, data []byte, done func(st status)) {
	p.call3(7, func(e *xdr.Encoder) {
		e.String(f.fh)
		e.Uint64(off)
		e.Uint32(uint32(len(data)))
		e.Uint32(2)
		e.Opaque(data)
	}, func(st status, d *xdr.Decoder) { done(st) })
}
