package sim

import (
	"fmt"

	"github.com/anishathalye/porcupine"

	"holdfast/internal/xdr"
)

// cuts are files that are written in blocks, cut, grown and punched, and read as a whole: what is gone must not come back. The blocks of one are so small that the
// volume keeps the file with the metadata until it has grown.
var cuts = []file{
	{name: "short", blockBytes: 1500, blocks: cutBlocks},
	{name: "long", blockBytes: 5000, blocks: cutBlocks},
}

const cutBlocks = 4

// cutKind is an operation on such a file.
type cutKind uint8

const (
	cutRead cutKind = iota
	cutWrite
	cutSize
	cutPunch
)

func (k cutKind) String() string { return [...]string{"read", "write", "size", "punch"}[k] }

// cutOp is an operation on such a file.
type cutOp struct {
	kind  cutKind
	block int    // that is written, or the last in which a hole is punched
	value uint64 // that is written
	// halves is the size that is set, or where the hole begins, in halves of a block.
	halves int
	// state is what was read.
	state cutState
}

// cutState is what such a file holds.
type cutState struct {
	halves int // the size
	values [cutBlocks]uint64
	// half marks blocks of whose value only the first half is left: the second reads as zeros, or is beyond the end.
	half [cutBlocks]bool
}

// cutModel is the whole file.
var cutModel = porcupine.Model{
	Init: func() any { return cutState{} },
	Step: func(state, in, out any) (bool, any) {
		next := state.(cutState)
		op := in.(cutOp)
		switch op.kind {
		case cutWrite:
			next.write(op.block, op.value)
		case cutSize:
			next.size(op.halves)
		case cutPunch:
			next.zero(op.halves, op.block)
		case cutRead:
			return out.(cutOp).state == next, next
		}
		return true, next
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v -> %+v", in, out) },
}

func (s *cutState) write(block int, value uint64) {
	s.halves = max(s.halves, 2*(block+1))
	s.values[block], s.half[block] = value, false
}

func (s *cutState) size(halves int) {
	s.halves = halves
	s.zero(halves, cutBlocks-1)
}

// zero makes zeros of what follows some halves, up to the end of a block.
func (s *cutState) zero(halves, block int) {
	for i := range block + 1 {
		switch left := halves - 2*i; {
		case left <= 0:
			s.values[i], s.half[i] = 0, false
		case left == 1:
			s.half[i] = s.values[i] != 0
		}
	}
}

// parseCut is what the bytes of the file f say, false if they are no content that it can have.
func parseCut(f *file, b []byte) (s cutState, ok bool) {
	half := f.blockBytes / 2
	if len(b)%half != 0 || len(b) > cutBlocks*f.blockBytes {
		return s, false
	}
	s.halves = len(b) / half
	whole := make([]byte, cutBlocks*f.blockBytes)
	copy(whole, b)
	for i := range cutBlocks {
		block := whole[i*f.blockBytes:][:f.blockBytes]
		v, ok := valueOf(block, f.blockBytes)
		if !ok {
			// The second half is zeros, then, of another block than the first.
			var first uint64
			if first, ok = valueOf(block[:half], half); !ok {
				return s, false
			}
			for _, c := range block[half:] {
				if c != 0 {
					return s, false
				}
			}
			v, s.half[i] = first, true
		}
		s.values[i] = v
	}
	return s, true
}

func cutKey(f *file) string { return "cuts " + f.name }

// cut does an operation on f.
func (p *process) cut(f *file, then func()) {
	o := &p.c.w.oracle
	var op cutOp
	switch k := p.rng.IntN(10); {
	case k < 4:
		o.values++
		op = cutOp{kind: cutWrite, block: p.rng.IntN(cutBlocks), value: o.values}
	case k < 7:
		op = cutOp{kind: cutSize, halves: p.rng.IntN(2*cutBlocks + 1)}
	case k < 8 && !p.c.v3:
		block := p.rng.IntN(cutBlocks)
		op = cutOp{kind: cutPunch, block: block, halves: p.rng.IntN(2*block + 2)}
	default:
		p.readCut(f, then)
		return
	}
	p.stateFor(f, func(id string) {
		if id == "" {
			then() // nothing was sent
			return
		}
		h := o.begin(p, cutKey(f), op)
		done := p.changed(h, op.kind.String()+" "+f.name, cutOp{}, then)
		at := uint64(op.halves * f.blockBytes / 2)
		switch {
		case op.kind == cutWrite:
			p.write(f, id, op.block, content(op.value, f.blockBytes), done)
		case p.c.v3:
			p.setSize3(f, at, done)
		case op.kind == cutPunch:
			p.punch(f, id, at, uint64((op.block+1)*f.blockBytes)-at, done)
		default:
			p.setSize4(f, id, at, done)
		}
	})
}

// readCut reads the whole of f.
func (p *process) readCut(f *file, then func()) {
	h := p.c.w.oracle.begin(p, cutKey(f), cutOp{kind: cutRead})
	p.read(f, 0, cutBlocks*f.blockBytes, func(b []byte, st status) {
		switch {
		case st == stLost:
			h.drop()
			then()
			return
		case st != stOK:
			p.unexpected("READ "+f.name, st)
			return
		}
		s, ok := parseCut(f, b)
		if p.garbled(ok, "from "+f.name) {
			h.drop()
			then()
			return
		}
		h.end(cutOp{state: s})
		then()
	})
}

func (p *process) setSize4(f *file, id string, size uint64, done func(st status)) {
	p.stateful(true, func(c *compound) {
		c.putFH(f.fh).op(opSetAttr)
		c.Fixed([]byte(id))
		c.Uint32(1)
		c.Uint32(1 << attrSize)
		var e xdr.Encoder
		e.Uint64(size)
		c.Opaque(e.Bytes())
	}, func(r *results) {
		if r.skip(opPutFH, opSetAttr) == stOK {
			for range r.Count(8, 4) {
				r.Uint32()
			}
		}
		done(r.check())
	})
}

func (p *process) setSize3(f *file, size uint64, done func(st status)) {
	p.call3(2, func(e *xdr.Encoder) {
		e.String(f.fh)
		for range 3 { // mode, owner and group stay
			e.Uint32(0)
		}
		e.Bool(true)
		e.Uint64(size)
		for range 3 { // both times, and there is no guard
			e.Uint32(0)
		}
	}, func(st status, d *xdr.Decoder) { done(st) })
}

func (p *process) punch(f *file, id string, off, length uint64, done func(st status)) {
	p.stateful(true, func(c *compound) {
		c.minorVersion(2)
		c.putFH(f.fh).op(opDeallocate)
		c.Fixed([]byte(id))
		c.Uint64(off)
		c.Uint64(length)
	}, func(r *results) {
		r.skip(opPutFH, opDeallocate)
		done(r.check())
	})
}
