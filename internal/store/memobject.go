package store

// pageBytes is the granule of a memory object: what was never written takes no page and is a hole.
const pageBytes = 4096

// memObject is a sparse byte array. Pages are never changed in place, so that copies share them.
type memObject struct {
	size  int64
	pages map[int64]*[pageBytes]byte
}

func newMemObject() *memObject { return &memObject{pages: map[int64]*[pageBytes]byte{}} }

func (o *memObject) clone() *memObject {
	c := &memObject{size: o.size, pages: make(map[int64]*[pageBytes]byte, len(o.pages))}
	for i, p := range o.pages {
		c.pages[i] = p
	}
	return c
}

func (o *memObject) write(off int64, data []byte) {
	o.size = max(o.size, off+int64(len(data)))
	for len(data) > 0 {
		page := new([pageBytes]byte)
		if old := o.pages[off/pageBytes]; old != nil {
			*page = *old
		}
		n := copy(page[off%pageBytes:], data)
		o.pages[off/pageBytes] = page
		off, data = off+int64(n), data[n:]
	}
}

func (o *memObject) read(off int64, buf []byte) {
	for len(buf) > 0 {
		n := min(int64(len(buf)), pageBytes-off%pageBytes)
		if page := o.pages[off/pageBytes]; page != nil {
			copy(buf[:n], page[off%pageBytes:])
		} else {
			clear(buf[:n])
		}
		off, buf = off+n, buf[n:]
	}
}

// flip flips a bit and reports whether there was data at off.
func (o *memObject) flip(off int64, bit uint) bool {
	if o == nil || off >= o.size || o.pages[off/pageBytes] == nil {
		return false
	}
	page := *o.pages[off/pageBytes]
	page[off%pageBytes] ^= 1 << (bit % 8)
	o.pages[off/pageBytes] = &page
	return true
}

// zero makes [off, end) a hole.
func (o *memObject) zero(off, end int64) {
	for i, page := range o.pages {
		lo, hi := max(off, i*pageBytes), end
		if i < (1<<63-1)/pageBytes {
			hi = min(end, (i+1)*pageBytes)
		}
		switch {
		case lo >= hi:
		case hi-lo == pageBytes:
			delete(o.pages, i)
		default:
			cut := *page
			clear(cut[lo-i*pageBytes : hi-i*pageBytes])
			o.pages[i] = &cut
		}
	}
}

func (o *memObject) truncate(size int64) {
	if size < o.size {
		o.zero(size, 1<<63-1)
		first := (size + pageBytes - 1) / pageBytes
		for i := range o.pages {
			if i >= first {
				delete(o.pages, i)
			}
		}
	}
	o.size = size
}

// seek is SeekObject without its error: -1 stands for ErrNoData.
func (o *memObject) seek(off int64, hole bool) int64 {
	if off >= o.size {
		return -1
	}
	if hole {
		for off < o.size && o.pages[off/pageBytes] != nil {
			off = (off/pageBytes + 1) * pageBytes
		}
		return min(off, o.size)
	}
	if o.pages[off/pageBytes] != nil {
		return off
	}
	best := int64(-1)
	for i := range o.pages {
		if at := i * pageBytes; at >= off && at < o.size && (best < 0 || at < best) {
			best = at
		}
	}
	return best
}

// objectOp is one change of an object, kept until it counts as durable.
type objectOp struct {
	kind     objectOpKind
	id       uint64
	off, end int64
	data     []byte
}

type objectOpKind uint8

const (
	objectWrite objectOpKind = iota
	objectTruncate
	objectPunch
	objectRemove
)

func (op *objectOp) apply(objects map[uint64]*memObject) {
	o := objects[op.id]
	if o == nil {
		if op.kind == objectPunch || op.kind == objectRemove || op.kind == objectTruncate && op.end == 0 {
			return
		}
		o = newMemObject()
		objects[op.id] = o
	}
	switch op.kind {
	case objectWrite:
		o.write(op.off, op.data)
	case objectTruncate:
		o.truncate(op.end)
	case objectPunch:
		o.zero(op.off, op.end)
	case objectRemove:
		delete(objects, op.id)
	}
}
