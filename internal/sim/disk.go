package sim

import (
	"context"
	"errors"
	"io"

	"holdfast/internal/store"
	"holdfast/internal/vfs"
)

// errStoreFault is what a store returns that was told to fail.
var errStoreFault = errors.New("sim: the store's disk fails")

// simStore is a store.Mem that fails when told to, and lies when a mutation says so.
type simStore struct {
	*store.Mem
	w   *World
	rng stream
	// left counts down the changes until the store fails for good; 0: it does not.
	left   int
	failed bool
	// rotten are the metadata keys [lo, hi) whose block has another checksum than when it was written; nil: none.
	rotten [2][]byte
	// stale is a write that will be done again (mutation).
	stale func() error
	// cutting: objects seem shorter than they are (mutation).
	cutting bool
}

func newStore(w *World, rng stream) *simStore { return &simStore{Mem: store.NewMem(), w: w, rng: rng} }

// forgetReplies deletes the replies that are recorded for retries (mutation).
func (st *simStore) forgetReplies() {
	var b store.Batch
	for _, prefix := range [][]byte{{'p', 4, 'e'}, {'p', 3}} {
		end := append([]byte(nil), prefix...)
		end[len(end)-1]++
		b.DeleteRange(prefix, end)
	}
	_ = st.Mem.Commit(&b)
}

// stopAfter makes the nth change from now on fail, and all after it.
func (st *simStore) stopAfter(n int) { st.left, st.failed = n, false }

// restart makes the store work again.
func (st *simStore) restart() { st.left, st.failed, st.cutting = 0, false, false }

func (st *simStore) change() error {
	if st.left > 0 {
		st.left--
		st.failed = st.left == 0
	}
	if st.failed {
		return errStoreFault
	}
	return nil
}

func (st *simStore) Commit(b *store.Batch) error {
	if err := st.change(); err != nil {
		return err
	}
	return st.Mem.Commit(b)
}

func (st *simStore) WriteObject(id uint64, off int64, data []byte) error {
	if err := st.change(); err != nil {
		return err
	}
	if st.w.cfg.Mutation == ApplyTwice && st.w.chaos {
		st.repeat(id, off, data)
	}
	return st.Mem.WriteObject(id, off, data)
}

// repeat does an earlier write again now and then, and remembers one for later.
func (st *simStore) repeat(id uint64, off int64, data []byte) {
	if st.stale != nil && st.rng.chance(0.05) {
		_ = st.stale()
		st.stale = nil
	}
	if st.stale == nil {
		data = append([]byte(nil), data...)
		st.stale = func() error { return st.Mem.WriteObject(id, off, data) }
	}
}

func (st *simStore) TruncateObject(id uint64, size int64) error {
	if err := st.change(); err != nil {
		return err
	}
	return st.Mem.TruncateObject(id, size)
}

func (st *simStore) PunchObject(id uint64, off, length int64) error {
	if err := st.change(); err != nil {
		return err
	}
	return st.Mem.PunchObject(id, off, length)
}

func (st *simStore) RemoveObject(id uint64) error {
	if err := st.change(); err != nil {
		return err
	}
	return st.Mem.RemoveObject(id)
}

func (st *simStore) SyncObjects(ctx context.Context) error {
	if err := st.change(); err != nil {
		return err
	}
	if st.w.cfg.Mutation == SkipObjectSync {
		return nil
	}
	return st.Mem.SyncObjects(ctx)
}

func (st *simStore) FlushMeta(ctx context.Context) error {
	if err := st.change(); err != nil {
		return err
	}
	return st.Mem.FlushMeta(ctx)
}

func (st *simStore) InstallMeta(r io.Reader, last *store.Batch) error {
	if err := st.change(); err != nil {
		return err
	}
	err := st.Mem.InstallMeta(r, last)
	if err == nil {
		st.rotten = [2][]byte{}
	}
	return err
}

func (st *simStore) SeekObject(id uint64, off int64, hole bool) (int64, error) {
	if st.cutting && off > 0 {
		return 0, store.ErrNoData
	}
	at, err := st.Mem.SeekObject(id, off, hole)
	if st.cutting && hole && err == nil {
		at = min(at, 4096)
	}
	return at, err
}

// simFS is a vfs.Sim that forgets to sync when a mutation says so.
type simFS struct {
	*vfs.Sim
	w *World
}

func (fs simFS) wrap(f vfs.File, err error) (vfs.File, error) {
	if err != nil || fs.w.cfg.Mutation != SkipLogSync {
		return f, err
	}
	return &lazyFile{File: f, w: fs.w}, nil
}

func (fs simFS) Open(name string) (vfs.File, error)   { return fs.wrap(fs.Sim.Open(name)) }
func (fs simFS) Create(name string) (vfs.File, error) { return fs.wrap(fs.Sim.Create(name)) }
func (fs simFS) OpenOrCreate(name string) (vfs.File, error) {
	return fs.wrap(fs.Sim.OpenOrCreate(name))
}

// lazyFile skips every other Sync.
type lazyFile struct {
	vfs.File
	w     *World
	syncs int
}

func (f *lazyFile) Sync() error {
	if f.syncs++; f.syncs%2 == 0 && f.w.chaos {
		return nil
	}
	return f.File.Sync()
}
