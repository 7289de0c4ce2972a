package volume

import (
	"bytes"
	"slices"
	"testing"

	"holdfast/internal/store"
)

// model is the file system in the plainest way: what the volume is compared with.
type model struct {
	nodes map[Ino]*modelNode
	next  Ino
	open  map[Ino]bool
}

type modelNode struct {
	typ      FileType
	nlink    uint32
	parent   Ino
	children map[string]Ino
	data     []byte
	target   string
}

func newModel() *model {
	return &model{
		nodes: map[Ino]*modelNode{RootIno: {typ: TypeDir, nlink: 2, parent: RootIno, children: map[string]Ino{}}},
		next:  RootIno + 1, open: map[Ino]bool{},
	}
}

// run does what opsProgram.run does.
func (m *model) run(c *opsCall) (made Ino, errno Errno) {
	switch c.kind {
	case opsCreate, opsMkdir, opsSymlink, opsLookup, opsRemove, opsLink, opsRename:
		dir := m.nodes[c.dir]
		if dir == nil {
			return 0, ErrStale
		}
		return m.runName(c, dir)
	}
	n := m.nodes[c.ino]
	if n == nil {
		return 0, ErrStale
	}
	switch c.kind {
	case opsOpen:
		m.open[c.ino] = true
		return c.ino, OK
	case opsClose:
		delete(m.open, c.ino)
		if n.nlink == 0 {
			delete(m.nodes, c.ino)
		}
		return c.ino, OK
	case opsChmod:
		return c.ino, OK
	}
	if n.typ == TypeDir {
		return 0, ErrIsDir
	}
	if n.typ != TypeFile {
		return 0, ErrInval
	}
	return c.ino, m.runData(c, n)
}

func (m *model) runData(c *opsCall, n *modelNode) Errno {
	grow := func(size uint64) {
		if size > uint64(len(n.data)) {
			n.data = append(n.data, make([]byte, size-uint64(len(n.data)))...)
		}
	}
	end := c.off + c.length
	switch c.kind {
	case opsWriteFile:
		grow(c.off + uint64(len(c.data)))
		copy(n.data[c.off:], c.data)
	case opsResize:
		grow(c.length)
		n.data = n.data[:c.length:c.length]
	case opsAlloc:
		if c.length == 0 {
			return ErrInval
		}
		grow(end)
	case opsDealloc:
		if c.length == 0 {
			return ErrInval
		}
		if end = min(end, uint64(len(n.data))); c.off < end {
			clear(n.data[c.off:end])
		}
	}
	return OK
}

func (m *model) runName(c *opsCall, dir *modelNode) (made Ino, errno Errno) {
	if c.kind == opsLink && m.nodes[c.ino] == nil || c.kind == opsRename && m.nodes[c.dir2] == nil {
		return 0, ErrStale
	}
	if dir.typ != TypeDir || c.kind == opsRename && m.nodes[c.dir2].typ != TypeDir {
		return 0, ErrNotDir
	}
	ino, taken := dir.children[c.name]
	switch c.kind {
	case opsLookup:
		if !taken {
			return 0, ErrNoEnt
		}
		return ino, OK
	case opsRemove:
		if !taken {
			return 0, ErrNoEnt
		}
		if len(m.nodes[ino].children) > 0 {
			return 0, ErrNotEmpty
		}
		m.unlink(dir, c.name)
		return 0, OK
	case opsRename:
		return 0, m.rename(c, dir, m.nodes[c.dir2])
	}
	if taken {
		return 0, ErrExist
	}
	if c.kind == opsLink {
		n := m.nodes[c.ino]
		if n.typ == TypeDir {
			return 0, ErrIsDir
		}
		if n.nlink == 0 {
			return 0, ErrNoEnt
		}
		n.nlink++
		dir.children[c.name] = c.ino
		return c.ino, OK
	}
	n := &modelNode{typ: TypeFile, nlink: 1}
	switch c.kind {
	case opsMkdir:
		n = &modelNode{typ: TypeDir, nlink: 2, parent: c.dir, children: map[string]Ino{}}
		dir.nlink++
	case opsSymlink:
		n = &modelNode{typ: TypeSymlink, nlink: 1, target: c.name2}
	}
	ino = m.next
	m.next++
	m.nodes[ino] = n
	dir.children[c.name] = ino
	return ino, OK
}

func (m *model) unlink(dir *modelNode, name string) {
	ino := dir.children[name]
	delete(dir.children, name)
	n := m.nodes[ino]
	n.nlink--
	if n.typ == TypeDir {
		dir.nlink--
		n.nlink = 0
	}
	if n.nlink == 0 && (n.typ == TypeDir || !m.open[ino]) {
		delete(m.nodes, ino)
	}
}

func (m *model) rename(c *opsCall, from, to *modelNode) Errno {
	ino, ok := from.children[c.name]
	if !ok {
		return ErrNoEnt
	}
	n := m.nodes[ino]
	oldIno, replaces := to.children[c.name2]
	if replaces && oldIno == ino {
		return OK
	}
	if n.typ == TypeDir && from != to {
		for at := c.dir2; ; at = m.nodes[at].parent {
			if at == ino {
				return ErrInval
			}
			if at == RootIno {
				break
			}
		}
	}
	if replaces {
		old := m.nodes[oldIno]
		switch {
		case n.typ == TypeDir && old.typ != TypeDir:
			return ErrNotDir
		case n.typ != TypeDir && old.typ == TypeDir:
			return ErrIsDir
		case len(old.children) > 0:
			return ErrNotEmpty
		}
		m.unlink(to, c.name2)
	}
	delete(from.children, c.name)
	to.children[c.name2] = ino
	if n.typ == TypeDir {
		from.nlink--
		to.nlink++
		n.parent = c.dir2
	}
	return OK
}

// compare checks the whole volume against the model.
func (m *model) compare(t *testing.T, v *Volume) {
	t.Helper()
	v.View(func(tx *Tx) {
		if got := tx.v.state.inodes; got != uint64(len(m.nodes)) {
			t.Fatalf("%d inodes, want %d", got, len(m.nodes))
		}
		checkUsage(t, tx)
		for ino, want := range m.nodes {
			n, errno := tx.Inode(ino, 0)
			if errno != OK {
				t.Fatalf("inode %d: %v", ino, errno)
			}
			if n.Type != want.typ || n.Nlink != want.nlink || n.Target != want.target || n.Entries != uint64(len(want.children)) {
				t.Fatalf("inode %d is %+v, want %+v", ino, n, want)
			}
			switch n.Type {
			case TypeDir:
				m.compareDir(t, tx, n, want)
			case TypeFile:
				if n.Size != uint64(len(want.data)) {
					t.Fatalf("inode %d: size %d, want %d", ino, n.Size, len(want.data))
				}
				got := make([]byte, n.Size+10)
				count, eof, errno := tx.Read(n, 0, got)
				if errno != OK || !eof || !bytes.Equal(got[:count], want.data) {
					t.Fatalf("inode %d: content differs (%d bytes, eof %v, %v)", ino, count, eof, errno)
				}
				if n.Used < allocatedAtLeast(want.data, n) || n.Used > roundUp(n.Size, blockBytes) {
					t.Fatalf("inode %d: uses %d bytes for %d", ino, n.Used, n.Size)
				}
			}
		}
	})
}

// allocatedAtLeast is the storage that the nonzero blocks of data need.
func allocatedAtLeast(data []byte, n *Inode) (used uint64) {
	if n.Inline {
		return n.Size
	}
	for block := range slices.Chunk(data, blockBytes) {
		if len(bytes.Trim(block, "\x00")) > 0 {
			used += blockBytes
		}
	}
	return used
}

func (m *model) compareDir(t *testing.T, tx *Tx, n *Inode, want *modelNode) {
	t.Helper()
	if n.Parent != want.parent {
		t.Fatalf("inode %d: parent %d, want %d", n.Ino, n.Parent, want.parent)
	}
	seen := 0
	last := uint64(0)
	// In steps of two entries, each from a cookie, as clients do.
	for eof := false; !eof; {
		count := 0
		var errno Errno
		eof, errno = tx.ReadDir(n, last, func(e DirEntry) bool {
			if count == 2 {
				return false
			}
			count++
			if e.Cookie <= last || e.Cookie < FirstCookie || want.children[e.Name] != e.Ino || tx.mustType(t, e.Ino) != e.Type {
				t.Fatalf("directory %d: entry %+v after %d", n.Ino, e, last)
			}
			last = e.Cookie
			return true
		})
		if errno != OK {
			t.Fatal(errno)
		}
		seen += count
	}
	if seen != len(want.children) {
		t.Fatalf("directory %d: listed %d of %d entries", n.Ino, seen, len(want.children))
	}
	for name, ino := range want.children {
		if got, errno := tx.Lookup(nil, n, name); errno != OK || got.Ino != ino {
			t.Fatalf("lookup %q in %d: %v %v", name, n.Ino, got, errno)
		}
	}
}

func (tx *Tx) mustType(t *testing.T, ino Ino) FileType {
	n, errno := tx.Inode(ino, 0)
	if errno != OK {
		t.Fatalf("inode %d of an entry: %v", ino, errno)
	}
	return n.Type
}

func TestRandomOperationsMatchModel(t *testing.T) {
	for seed := range uint64(20) {
		r, m, g := newReplica(t, store.NewMem()), newModel(), newRandomOps(seed)
		for i := range 1500 {
			c := g.next()
			res := decodeResult(t, c.kind, r.apply(c.entry(int64(i))))
			made, errno := m.run(c)
			if res.errno != errno {
				t.Fatalf("seed %d, step %d: %v: %v, want %v", seed, i, c, res.errno, errno)
			}
			if res.n != nil && errno == OK && res.n.Ino != made {
				t.Fatalf("seed %d, step %d: %v: inode %d, want %d", seed, i, c, res.n.Ino, made)
			}
			g.seen(res)
			if i%300 == 299 {
				m.compare(t, r.v)
				r.reopen()
				m.compare(t, r.v)
			}
		}
	}
}
