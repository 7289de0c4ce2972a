package vfs

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
)

const (
	sectorBytes = 512  // what a disk writes atomically
	pageBytes   = 4096 // the unit of allocation
	// maxVersions bounds what is remembered of a sector that is written again and again without a Sync.
	maxVersions = 4
)

// content is a file's data. What the file reads as is in pages and size; what a crash may bring back is in the rest.
type content struct {
	pages map[int64]*[pageBytes]byte // by page number; nil: allocated but never written
	size  int64

	dirty map[int64][][]byte // by sector: contents since the last Sync, the durable one first, the current one not; nil: zeros
	// doomed are sectors that were dirty when a Sync failed. The system forgets about them: they read as written, later Syncs do not
	// write them, and the disk may have the old content for ever (the trap known as fsyncgate).
	doomed map[int64][]byte
	sizes  []int64 // lengths since the last Sync, the durable one first; empty if the length is durable
}

func newContent() content {
	return content{pages: map[int64]*[pageBytes]byte{}, dirty: map[int64][][]byte{}, doomed: map[int64][]byte{}}
}

func (c *content) allocated() int64 { return int64(len(c.pages)) * pageBytes }

// sector returns the current content of a sector; nil stands for zeros.
func (c *content) sector(n int64) []byte {
	p := c.pages[n*sectorBytes/pageBytes]
	if p == nil {
		return nil
	}
	off := n * sectorBytes % pageBytes
	return p[off : off+sectorBytes]
}

// remember notes the content of sector n, which is about to change.
func (c *content) remember(n int64) {
	versions := c.dirty[n]
	if len(versions) == 0 {
		if old, ok := c.doomed[n]; ok {
			versions = append(versions, old)
			delete(c.doomed, n)
		}
	}
	if len(versions) < maxVersions {
		versions = append(versions, slices.Clone(c.sector(n)))
	}
	c.dirty[n] = versions
}

func (c *content) setSize(size int64) {
	if size != c.size {
		c.sizes = append(c.sizes, c.size)
		c.size = size
	}
}

// write stores b at off, as much of it as there is space for, and returns how much that was.
func (c *content) write(s *Sim, b []byte, off int64) int {
	done := 0
	for done < len(b) {
		at := off + int64(done)
		p := c.page(s, at/pageBytes)
		if p == nil {
			break
		}
		c.remember(at / sectorBytes)
		room := sectorBytes - at%sectorBytes
		done += copy(p[at%pageBytes:at%pageBytes+room], b[done:])
	}
	if done > 0 {
		c.setSize(max(c.size, off+int64(done)))
	}
	return done
}

// page returns page n, written before or not, or nil if the disk is full.
func (c *content) page(s *Sim, n int64) *[pageBytes]byte {
	p, ok := c.pages[n]
	if p != nil {
		return p
	}
	if !ok && !s.allocate() {
		return nil
	}
	p = new([pageBytes]byte)
	c.pages[n] = p
	return p
}

// reserve allocates the pages of [off, off+length) and reports whether there was space.
func (c *content) reserve(s *Sim, off, length int64) bool {
	for n := off / pageBytes; n*pageBytes < off+length; n++ {
		if _, ok := c.pages[n]; ok {
			continue
		}
		if !s.allocate() {
			return false
		}
		c.pages[n] = nil
	}
	return true
}

func (c *content) read(b []byte, off int64) int {
	n := int(max(min(int64(len(b)), c.size-off), 0))
	for done := 0; done < n; {
		at := off + int64(done)
		room := min(n-done, int(pageBytes-at%pageBytes))
		if p := c.pages[at/pageBytes]; p != nil {
			copy(b[done:done+room], p[at%pageBytes:])
		} else {
			clear(b[done : done+room])
		}
		done += room
	}
	return n
}

// clearRange zeroes [off, end), giving back the pages that lie wholly in it.
func (c *content) clearRange(s *Sim, off, end int64) {
	for n, p := range c.pages {
		lo, hi := max(off, n*pageBytes), min(end, (n+1)*pageBytes)
		if lo >= hi {
			continue
		}
		if p != nil {
			for sec := lo / sectorBytes; sec*sectorBytes < hi; sec++ {
				c.remember(sec)
			}
			clear(p[lo-n*pageBytes : hi-n*pageBytes])
		}
		if hi-lo == pageBytes {
			delete(c.pages, n)
			s.used -= pageBytes
		}
	}
}

func (c *content) truncate(s *Sim, size int64) {
	if size < c.size {
		// To the end of the last page, so that a page that was only partly in the file is given back too.
		c.clearRange(s, size, (c.size+pageBytes-1)/pageBytes*pageBytes)
	}
	c.setSize(size)
}

// settle makes everything durable but what is doomed.
func (c *content) settle() {
	clear(c.dirty)
	c.sizes = c.sizes[:0]
}

// doom is settle for a Sync that failed.
func (c *content) doom() {
	for n, versions := range c.dirty {
		c.doomed[n] = versions[0]
	}
	c.settle()
}

// revert takes back what a crash loses. keep is the chance of a change to survive.
func (c *content) revert(s *Sim, r *rand.Rand, keep float64, torn bool) {
	for n, old := range c.doomed {
		c.dirty[n] = [][]byte{old}
	}
	for _, n := range sortedKeys(c.dirty) {
		if r.Float64() < keep {
			continue
		}
		versions := c.dirty[n]
		old := versions[r.IntN(len(versions))]
		lost := sectorBytes
		if torn {
			lost = r.IntN(sectorBytes + 1)
		}
		c.restore(s, n, old, sectorBytes-lost)
	}
	if len(c.sizes) > 0 && r.Float64() >= keep {
		c.size = c.sizes[r.IntN(len(c.sizes))]
	}
	c.settle()
	clear(c.doomed)
	c.clearRange(s, c.size, 1<<62)
	c.settle() // what clearRange remembered is as durable as the length
}

// restore puts old back into sector n from byte from on.
func (c *content) restore(s *Sim, n int64, old []byte, from int) {
	p := c.pages[n*sectorBytes/pageBytes]
	if p == nil {
		if old == nil {
			return
		}
		p = new([pageBytes]byte)
		if _, ok := c.pages[n*sectorBytes/pageBytes]; !ok {
			s.used += pageBytes
		}
		c.pages[n*sectorBytes/pageBytes] = p
	}
	sec := p[n*sectorBytes%pageBytes:][:sectorBytes]
	clear(sec[from:])
	if old != nil {
		copy(sec[from:], old[from:])
	}
}

// flip inverts one bit, now and in everything that a crash may bring back.
func (c *content) flip(off int64, bit uint) {
	mask := byte(1) << (bit % 8)
	at := off % sectorBytes
	if sec := c.sector(off / sectorBytes); sec != nil {
		sec[at] ^= mask
	}
	for _, v := range append(c.dirty[off/sectorBytes], c.doomed[off/sectorBytes]) {
		if v != nil {
			v[at] ^= mask
		}
	}
}

// seek returns the first offset >= off of a page that holds data (data) or does not (!data), or -1.
func (c *content) seek(off int64, data bool) int64 {
	if off >= c.size {
		return -1
	}
	for n := off / pageBytes; n*pageBytes < c.size; n++ {
		if (c.pages[n] != nil) == data {
			return max(off, n*pageBytes)
		}
		if data && c.pages[n] == nil {
			next := c.nextPage(n)
			if next < 0 {
				return -1
			}
			n = next - 1
		}
	}
	if data {
		return -1
	}
	return c.size
}

// nextPage returns the number of the first written page after n, or -1: holes may be too long to walk through.
func (c *content) nextPage(n int64) int64 {
	next := int64(-1)
	for i, p := range c.pages {
		if p != nil && i > n && (next < 0 || i < next) {
			next = i
		}
	}
	return next
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
