package vfs

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Sim is a disk in memory that behaves as badly as a real one may. Crash throws away what was not made durable, in every combination that
// a power cut may leave: any subset of the 512-byte sectors written since the last Sync, any length that the file had since, and of the
// changes of names any prefix per folder. Faults (AddFault, SetFree, FlipBit, StopAfter) are switched on by the test.
//
// A Sim starts no goroutine and takes every choice from its seed, so one sequence of calls always has one outcome. Its methods may be called
// concurrently.
type Sim struct {
	mu      sync.Mutex
	rand    *rand.Rand
	root    *node
	pending []dirOp // changes of names that are not durable yet, oldest first
	epoch   int     // counts crashes; handles of an earlier epoch are dead

	faults    []*fault
	stopAfter int // operations until the power fails; 0: it does not
	stopped   bool
	torn      bool

	capacity int64 // bytes; 0: no limit
	used     int64 // bytes of pages held
	counters Counters
}

// Counters counts what a Sim was asked to do, failed calls included.
type Counters struct {
	Reads, Writes, Syncs, DirSyncs int
	BytesRead, BytesWritten        int64
}

// node is a file or a folder, whatever names lead to it.
type node struct {
	dir     bool
	entries map[string]*node // a folder's names
	durable map[string]*node // those that would survive a crash now

	content        // a file's
	name    string // the last part of its path, for faults
	links   int
	handles int
}

// dirOp is one atomic change of names.
type dirOp []dirChange

// dirChange sets or, with a nil node, removes a name of a folder.
type dirChange struct {
	dir  *node
	name string
	to   *node
}

// NewSim returns an empty disk without limits whose random choices follow from seed.
func NewSim(seed uint64) *Sim {
	return &Sim{
		rand: rand.New(rand.NewPCG(seed, 0x686f6c6466617374)),
		root: newDir(),
	}
}

func newDir() *node {
	return &node{dir: true, entries: map[string]*node{}, durable: map[string]*node{}, links: 1}
}

func newFile() *node { return &node{content: newContent()} }

// clean turns name into a path from the root.
func clean(name string) string { return path.Clean("/" + name) }

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// lookup returns the node at name or nil.
func (s *Sim) lookup(name string) *node {
	n := s.root
	for part := range strings.SplitSeq(strings.Trim(clean(name), "/"), "/") {
		if part == "" {
			continue
		}
		if n == nil || !n.dir {
			return nil
		}
		n = n.entries[part]
	}
	return n
}

// parent returns the folder that holds or would hold name, and the last part of name.
func (s *Sim) parent(op, name string) (*node, string, error) {
	dir, base := path.Split(clean(name))
	n := s.lookup(dir)
	if n == nil || base == "" {
		return nil, "", pathError(op, name, fs.ErrNotExist)
	}
	if !n.dir {
		return nil, "", pathError(op, name, syscall.ENOTDIR)
	}
	return n, base, nil
}

// change applies op to the current names and notes it as not durable.
func (s *Sim) change(op dirOp) {
	for _, c := range op {
		if old := c.dir.entries[c.name]; old != nil {
			old.links--
			s.release(old)
		}
		if c.to == nil {
			delete(c.dir.entries, c.name)
			continue
		}
		c.dir.entries[c.name] = c.to
		c.to.name = c.name
		c.to.links++
	}
	s.pending = append(s.pending, op)
}

// release gives a file's space back when nothing leads to it any more.
func (s *Sim) release(n *node) {
	if !n.dir && n.links == 0 && n.handles == 0 {
		s.used -= n.allocated()
	}
}

// Open implements FS.
func (s *Sim) Open(name string) (File, error) { return s.open("open", name, false, false) }

// Create implements FS.
func (s *Sim) Create(name string) (File, error) { return s.open("create", name, true, true) }

// OpenOrCreate implements FS.
func (s *Sim) OpenOrCreate(name string) (File, error) { return s.open("open", name, true, false) }

func (s *Sim) open(op, name string, create, empty bool) (File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(OpOpen, op, name); err != nil {
		return nil, err
	}
	dir, base, err := s.parent(op, name)
	if err != nil {
		return nil, err
	}
	n := dir.entries[base]
	switch {
	case n == nil && !create:
		return nil, pathError(op, name, fs.ErrNotExist)
	case n == nil:
		n = newFile()
		if err := s.changeNames(op, name, dirOp{{dir, base, n}}); err != nil {
			return nil, err
		}
	case n.dir:
		return nil, pathError(op, name, syscall.EISDIR)
	case empty:
		n.truncate(s, 0)
	}
	n.handles++
	return &simFile{sim: s, node: n, name: name, epoch: s.epoch}, nil
}

// changeNames is change behind the hooks for changes of names.
func (s *Sim) changeNames(op, name string, names dirOp) error {
	if err := s.check(OpNames, op, name); err != nil {
		return err
	}
	if s.powerFails() {
		if s.rand.IntN(2) == 0 {
			s.change(names)
		}
		return pathError(op, name, ErrStopped)
	}
	s.change(names)
	return nil
}

// Rename implements FS.
func (s *Sim) Rename(oldName, newName string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	from, oldBase, err := s.parent("rename", oldName)
	if err != nil {
		return err
	}
	to, newBase, err := s.parent("rename", newName)
	if err != nil {
		return err
	}
	n := from.entries[oldBase]
	if n == nil {
		return pathError("rename", oldName, fs.ErrNotExist)
	}
	if target := to.entries[newBase]; target != nil && (target.dir || n.dir) {
		return pathError("rename", newName, syscall.EEXIST)
	}
	if clean(oldName) == clean(newName) {
		return s.check(OpNames, "rename", oldName)
	}
	return s.changeNames("rename", oldName, dirOp{{from, oldBase, nil}, {to, newBase, n}})
}

// Remove implements FS.
func (s *Sim) Remove(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, base, err := s.parent("remove", name)
	if err != nil {
		return err
	}
	n := dir.entries[base]
	if n == nil {
		return pathError("remove", name, fs.ErrNotExist)
	}
	if len(n.entries) > 0 {
		return pathError("remove", name, syscall.ENOTEMPTY)
	}
	return s.changeNames("remove", name, dirOp{{dir, base, nil}})
}

// MkdirAll implements FS.
func (s *Sim) MkdirAll(dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.root
	for part := range strings.SplitSeq(strings.Trim(clean(dir), "/"), "/") {
		if part == "" {
			continue
		}
		next := n.entries[part]
		if next == nil {
			next = newDir()
			next.links = 0
			if err := s.changeNames("mkdir", dir, dirOp{{n, part, next}}); err != nil {
				return err
			}
		}
		if !next.dir {
			return pathError("mkdir", dir, syscall.ENOTDIR)
		}
		n = next
	}
	return nil
}

// List implements FS.
func (s *Sim) List(dir string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(OpOpen, "list", dir); err != nil {
		return nil, err
	}
	n := s.lookup(dir)
	if n == nil {
		return nil, pathError("list", dir, fs.ErrNotExist)
	}
	if !n.dir {
		return nil, pathError("list", dir, syscall.ENOTDIR)
	}
	return sortedKeys(n.entries), nil
}

// Stat implements FS.
func (s *Sim) Stat(name string) (Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(OpOpen, "stat", name); err != nil {
		return Info{}, err
	}
	n := s.lookup(name)
	if n == nil {
		return Info{}, pathError("stat", name, fs.ErrNotExist)
	}
	if n.dir {
		return Info{Dir: true}, nil
	}
	return Info{Size: n.size, Allocated: n.allocated()}, nil
}

// SyncDir implements FS.
func (s *Sim) SyncDir(dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counters.DirSyncs++
	if err := s.check(OpSyncDir, "syncdir", dir); err != nil {
		return err
	}
	n := s.lookup(dir)
	if n == nil || !n.dir {
		return pathError("syncdir", dir, fs.ErrNotExist)
	}
	fails := s.powerFails()
	if !fails || s.rand.IntN(2) == 0 {
		s.settle(n)
	}
	if fails {
		return pathError("syncdir", dir, ErrStopped)
	}
	return nil
}

// settle makes the pending changes in dir durable, and those that came before them in the folders that such a change also touches.
func (s *Sim) settle(dir *node) {
	touched := map[*node]bool{dir: true}
	keep := make([]bool, len(s.pending))
	for i, op := range slices.Backward(s.pending) {
		keep[i] = !slices.ContainsFunc(op, func(c dirChange) bool { return touched[c.dir] })
		if !keep[i] {
			for _, c := range op {
				touched[c.dir] = true
			}
		}
	}
	var rest []dirOp
	for i, op := range s.pending {
		if keep[i] {
			rest = append(rest, op)
			continue
		}
		op.settle()
	}
	s.pending = rest
}

func (op dirOp) settle() {
	for _, c := range op {
		if c.to == nil {
			delete(c.dir.durable, c.name)
		} else {
			c.dir.durable[c.name] = c.to
		}
	}
}

// Space implements FS. A Sim without a limit reports 1 TiB in all.
func (s *Sim) Space(dir string) (free, total uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(OpOpen, "statfs", dir); err != nil {
		return 0, 0, err
	}
	capacity := s.capacity
	if capacity == 0 {
		capacity = 1 << 40
	}
	return uint64(max(capacity-s.used, 0)), uint64(capacity), nil
}

// Counters returns what was counted so far.
func (s *Sim) Counters() Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counters
}

// String lists every file with its length, for the log of a failed test.
func (s *Sim) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	s.walk("/", s.root, func(name string, n *node) { fmt.Fprintf(&b, "%s %d\n", name, n.size) })
	return b.String()
}

// walk calls fn for every file below n in order of names.
func (s *Sim) walk(name string, n *node, fn func(string, *node)) {
	if !n.dir {
		fn(name, n)
		return
	}
	for _, k := range sortedKeys(n.entries) {
		s.walk(path.Join(name, k), n.entries[k], fn)
	}
}
