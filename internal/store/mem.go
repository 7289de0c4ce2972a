package store

import (
	"context"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
)

// Mem is a Store in memory, with the crash semantics of the one on disk: see Crash. It does nothing by itself and nothing by chance, so a
// simulation that uses it is repeatable.
type Mem struct {
	mu   sync.RWMutex
	root *node
	// crashRoots are the states of the metadata that a crash may leave: the one at the last FlushMeta, then some of those after each later
	// commit, the current one last.
	crashRoots []*node

	objects      map[uint64]*memObject
	synced       map[uint64]*memObject // as of SyncObjects, without pending
	pending      []objectOp            // changes since, oldest first
	pendingBytes int
}

const (
	// memCrashRoots and memPendingBytes bound what a Mem keeps for the sake of Crash when nobody flushes: what is older counts as durable.
	memCrashRoots   = 512
	memPendingBytes = 32 << 20

	memTotalBytes = 1 << 41
)

var _ Store = (*Mem)(nil)

// NewMem returns an empty store.
func NewMem() *Mem {
	return &Mem{crashRoots: []*node{nil}, objects: map[uint64]*memObject{}, synced: map[uint64]*memObject{}}
}

// Crash makes of the store what a power cut could leave: the metadata of some commit at or after the last FlushMeta, and of the object changes since the last
// SyncObjects any subset, writes possibly torn.
func (m *Mem) Crash(rnd *rand.Rand) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.root = m.crashRoots[rnd.IntN(len(m.crashRoots))]
	m.crashRoots = []*node{m.root}
	for _, op := range m.pending {
		switch rnd.IntN(4) {
		case 0:
			continue
		case 1:
			if op.kind == objectWrite && len(op.data) > 1 {
				op.data = op.data[:rnd.IntN(len(op.data))+1]
			}
		}
		op.apply(m.synced)
	}
	m.objects = make(map[uint64]*memObject, len(m.synced))
	for id, o := range m.synced {
		m.objects[id] = o.clone()
	}
	m.pending, m.pendingBytes = nil, 0
}

// Get implements Store.
func (m *Mem) Get(key []byte) ([]byte, error) {
	m.mu.RLock()
	root := m.root
	m.mu.RUnlock()
	v, ok := root.get(key)
	if !ok {
		return nil, ErrNotFound
	}
	return append([]byte(nil), v...), nil
}

// Scan implements Store.
func (m *Mem) Scan(lo, hi []byte, fn func(key, value []byte) bool) error {
	m.mu.RLock()
	root := m.root
	m.mu.RUnlock()
	root.scan(lo, hi, fn)
	return nil
}

// Commit implements Store.
func (m *Mem) Commit(b *Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.root = m.root.apply(b)
	m.crashRoots = append(m.crashRoots, m.root)
	if len(m.crashRoots) > memCrashRoots {
		m.thinLocked()
	}
	return nil
}

// thinLocked drops every other crash root, but neither the first nor the last.
func (m *Mem) thinLocked() {
	kept := m.crashRoots[:1]
	for i := 1; i < len(m.crashRoots)-1; i += 2 {
		kept = append(kept, m.crashRoots[i])
	}
	kept = append(kept, m.crashRoots[len(m.crashRoots)-1])
	clear(m.crashRoots[len(kept):])
	m.crashRoots = kept
}

func (m *Mem) change(op objectOp) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	op.data = append([]byte(nil), op.data...)
	op.apply(m.objects)
	m.pending = append(m.pending, op)
	m.pendingBytes += len(op.data) + 64
	if m.pendingBytes > memPendingBytes {
		half := len(m.pending)/2 + 1
		for i := range m.pending[:half] {
			m.pending[i].apply(m.synced)
			m.pendingBytes -= len(m.pending[i].data) + 64
		}
		m.pending = append([]objectOp(nil), m.pending[half:]...)
	}
	return nil
}

// WriteObject implements Store.
func (m *Mem) WriteObject(id uint64, off int64, data []byte) error {
	return m.change(objectOp{kind: objectWrite, id: id, off: off, data: data})
}

// TruncateObject implements Store.
func (m *Mem) TruncateObject(id uint64, size int64) error {
	return m.change(objectOp{kind: objectTruncate, id: id, end: size})
}

// PunchObject implements Store.
func (m *Mem) PunchObject(id uint64, off, length int64) error {
	return m.change(objectOp{kind: objectPunch, id: id, off: off, end: off + length})
}

// AllocateObject implements Store; memory needs no reserving.
func (m *Mem) AllocateObject(id uint64, off, length int64) error { return nil }

// RemoveObject implements Store.
func (m *Mem) RemoveObject(id uint64) error {
	return m.change(objectOp{kind: objectRemove, id: id})
}

// ReadObject implements Store.
func (m *Mem) ReadObject(id uint64, off int64, buf []byte) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if o := m.objects[id]; o != nil {
		o.read(off, buf)
	} else {
		clear(buf)
	}
	return nil
}

// SeekObject implements Store.
func (m *Mem) SeekObject(id uint64, off int64, hole bool) (int64, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	o := m.objects[id]
	if o == nil {
		return 0, ErrNoData
	}
	at := o.seek(off, hole)
	if at < 0 {
		return 0, ErrNoData
	}
	return at, nil
}

// ListObjects implements Store. The order is that of the ids, so that what the caller does is repeatable.
func (m *Mem) ListObjects(fn func(id uint64) bool) error {
	m.mu.RLock()
	ids := slices.Sorted(maps.Keys(m.objects))
	m.mu.RUnlock()
	for _, id := range ids {
		if !fn(id) {
			break
		}
	}
	return nil
}

// ObjectChecksum implements Store.
func (m *Mem) ObjectChecksum(ctx context.Context, id uint64, size int64) (uint32, error) {
	return checksumObject(ctx, m, id, size)
}

// FlipObject flips a bit of an object, as a disk does that rots: neither a sync nor a crash undoes it, only a write over it. It reports whether there was data at off.
func (m *Mem) FlipObject(id uint64, off int64, bit uint) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.synced[id].flip(off, bit)
	return m.objects[id].flip(off, bit)
}

// SyncObjects implements Store.
func (m *Mem) SyncObjects(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.pending {
		m.pending[i].apply(m.synced)
	}
	m.pending, m.pendingBytes = nil, 0
	return nil
}

// FlushMeta implements Store.
func (m *Mem) FlushMeta(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.crashRoots = []*node{m.root}
	return nil
}

// SnapshotMeta implements Store.
func (m *Mem) SnapshotMeta() (MetaSnapshot, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return memSnapshot{m.root}, nil
}

// InstallMeta implements Store.
func (m *Mem) InstallMeta(r io.Reader, last *Batch) error {
	var root *node
	err := readStream(r, func(key, value []byte) error {
		root = root.apply(&Batch{Ops: []Op{{OpSet, key, value}}})
		return nil
	})
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.root = root.apply(last)
	m.crashRoots = []*node{m.root}
	return nil
}

// Space implements Store.
func (m *Mem) Space() (free, total uint64, err error) { return memTotalBytes / 2, memTotalBytes, nil }

// Close implements Store; what was committed stays, for the next volume that is opened on m.
func (m *Mem) Close() error { return nil }

type memSnapshot struct{ root *node }

func (s memSnapshot) Scan(lo, hi []byte, fn func(key, value []byte) bool) error {
	s.root.scan(lo, hi, fn)
	return nil
}

func (s memSnapshot) WriteTo(w io.Writer) (int64, error) {
	out := newStreamWriter(w)
	s.root.scan(nil, nil, out.add)
	return out.close()
}

func (s memSnapshot) Close() error { return nil }
