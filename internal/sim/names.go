package sim

import (
	"holdfast/internal/xdr"
)

// nameKind is an operation on a namespace.
type nameKind uint8

const (
	nameLookup nameKind = iota
	nameCreate
	nameRemove
	nameRename
	nameLink
	nameList
)

func (k nameKind) String() string {
	return [...]string{"lookup", "create", "remove", "rename", "link", "list"}[k]
}

// nameOp is an operation on a namespace and what came of it. Names are numbered through the folders.
type nameOp struct {
	kind nameKind
	a, b int // names; b for RENAME and LINK
	st   status
	id   string // file handle
	// serial tells CREATEs apart.
	serial int64
	// list is what LIST found: the file handle of each name of folder a, "" for none.
	list [names]string
}

// place is the folder and the name of a number.
func (p *process) place(space, n int) (dir, name string) {
	return p.c.w.oracle.tree.dirs[space*spaceDirs+n/names], string(rune('a' + n%names))
}

// namespace does an operation on a namespace.
func (p *process) namespace(space int, then func()) {
	a, b := p.rng.IntN(spaceDirs*names), p.rng.IntN(spaceDirs*names)
	switch k := p.rng.IntN(10); {
	case k < 1 && !p.c.v3:
		p.list(space, p.rng.IntN(spaceDirs), then)
	case k < 3:
		p.lookup(space, a, then)
	case k < 6:
		p.createName(space, a, then)
	case k < 8:
		p.remove(space, a, then)
	case k < 9 || p.c.v3:
		p.rename(space, a, b, then)
	default:
		p.link(space, a, b, then)
	}
}

// outcome ends an operation on a namespace.
func (p *process) outcome(h *record, op nameOp, then func()) {
	switch op.st {
	case stLost:
		if op.kind == nameLookup || op.kind == nameList {
			h.drop()
		} else {
			h.lost()
		}
	case stOK, stNoEnt, stExist:
		h.end(op)
	default:
		p.unexpected(op.kind.String(), op.st)
		return
	}
	then()
}

func (p *process) lookup(space, n int, then func()) {
	dir, name := p.place(space, n)
	op := nameOp{kind: nameLookup, a: n}
	h := p.c.w.oracle.begin(p, spaceKey(space), op)
	if p.c.v3 {
		p.call3(3, func(e *xdr.Encoder) { e.String(dir); e.String(name) }, func(st status, d *xdr.Decoder) {
			op.st = st
			if st == stOK {
				op.id = string(d.Opaque(64))
			}
			p.outcome(h, op, then)
		})
		return
	}
	p.compound(false, func(c *compound) { c.putFH(dir).named(opLookup, name).op(opGetFH) }, func(r *results) {
		r.skip(opPutFH, opLookup)
		op.id = r.getFH()
		op.st = r.check()
		p.outcome(h, op, then)
	})
}

func (p *process) createName(space, n int, then func()) {
	dir, name := p.place(space, n)
	op := nameOp{kind: nameCreate, a: n, serial: p.c.w.oracle.stamp}
	h := p.c.w.oracle.begin(p, spaceKey(space), op)
	if p.c.v3 {
		guarded := p.num%2 == 0
		verifier := p.rng.Uint64()
		p.call3(8, func(e *xdr.Encoder) {
			e.String(dir)
			e.String(name)
			if !guarded {
				e.Uint32(2) // EXCLUSIVE
				e.Uint64(verifier)
				return
			}
			e.Uint32(1)
			e.Bool(true)
			e.Uint32(0o666)
			for range 5 {
				e.Uint32(0)
			}
		}, func(st status, d *xdr.Decoder) {
			op.st = st
			if st == stOK {
				if d.Bool() {
					op.id = string(d.Opaque(64))
				}
				if d.Err() != nil {
					op.st = stMalformed
				}
			}
			p.outcome(h, op, then)
		})
		return
	}
	p.create(dir, name, func(st status, fh string) {
		op.st, op.id = st, fh
		p.outcome(h, op, then)
	})
}

func (p *process) remove(space, n int, then func()) {
	dir, name := p.place(space, n)
	op := nameOp{kind: nameRemove, a: n}
	h := p.c.w.oracle.begin(p, spaceKey(space), op)
	if p.c.v3 {
		p.call3(12, func(e *xdr.Encoder) { e.String(dir); e.String(name) }, func(st status, d *xdr.Decoder) {
			op.st = st
			p.outcome(h, op, then)
		})
		return
	}
	p.compound(true, func(c *compound) { c.putFH(dir).named(opRemove, name) }, func(r *results) {
		op.st = r.skip(opPutFH, opRemove)
		p.outcome(h, op, then)
	})
}

func (p *process) rename(space, a, b int, then func()) {
	fromDir, from := p.place(space, a)
	toDir, to := p.place(space, b)
	op := nameOp{kind: nameRename, a: a, b: b}
	h := p.c.w.oracle.begin(p, spaceKey(space), op)
	if p.c.v3 {
		p.call3(14, func(e *xdr.Encoder) { e.String(fromDir); e.String(from); e.String(toDir); e.String(to) }, func(st status, d *xdr.Decoder) {
			op.st = st
			p.outcome(h, op, then)
		})
		return
	}
	p.compound(true, func(c *compound) {
		c.putFH(fromDir).op(opSaveFH).putFH(toDir).named(opRename, from)
		c.String(to)
	}, func(r *results) {
		op.st = r.skip(opPutFH, opSaveFH, opPutFH, opRename)
		p.outcome(h, op, then)
	})
}

func (p *process) link(space, a, b int, then func()) {
	fromDir, from := p.place(space, a)
	toDir, to := p.place(space, b)
	op := nameOp{kind: nameLink, a: a, b: b}
	h := p.c.w.oracle.begin(p, spaceKey(space), op)
	p.compound(true, func(c *compound) {
		c.putFH(fromDir).named(opLookup, from).op(opSaveFH).putFH(toDir).named(opLink, to)
	}, func(r *results) {
		op.st = r.skip(opPutFH, opLookup, opSaveFH, opPutFH, opLink)
		p.outcome(h, op, then)
	})
}

// list reads a whole folder, which is so small that it fits one READDIR.
func (p *process) list(space, dir int, then func()) {
	op := nameOp{kind: nameList, a: dir}
	h := p.c.w.oracle.begin(p, spaceKey(space), op)
	p.compound(false, func(c *compound) {
		c.putFH(p.c.w.oracle.tree.dirs[space*spaceDirs+dir]).op(opReadDir)
		c.Uint64(0)
		c.Uint64(0)
		c.Uint32(4096)
		c.Uint32(8192)
		c.Uint32(1)
		c.Uint32(1 << attrFileHandle)
	}, func(r *results) {
		if r.skip(opPutFH, opReadDir) == stOK {
			op.list = p.entries(r)
		}
		op.st = r.check()
		p.outcome(h, op, then)
	})
}

// entries decodes the result of READDIR.
func (p *process) entries(r *results) (list [names]string) {
	r.Uint64() // verifier
	for r.Bool() && r.Err() == nil {
		r.Uint64()
		name := r.String(255)
		for range r.Count(8, 4) {
			r.Uint32()
		}
		fh := xdr.NewDecoder(r.Opaque(1024)).Opaque(128)
		if len(name) != 1 || name[0] < 'a' || name[0] >= 'a'+names || list[name[0]-'a'] != "" {
			p.c.w.fail("client %d: READDIR finds %q, twice or never made", p.c.num, name)
			return list
		}
		list[name[0]-'a'] = string(fh)
	}
	if !r.Bool() && r.Err() == nil {
		p.c.w.fail("client %d: READDIR of %d names does not come to the end", p.c.num, names)
	}
	return list
}
