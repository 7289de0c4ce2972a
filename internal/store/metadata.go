package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// metadata is the part of Disk that is in Pebble. Its folder holds a database folder db-N and the file CURRENT, which names it: InstallMeta
// builds another database beside it and switches by renaming CURRENT.
type metadata struct {
	fs  vfs.FS
	dir string
	opt Options
	db  atomic.Pointer[database]
}

// currentFile names the database folder in use.
const currentFile = "CURRENT"

// formatVersion is the format of Pebble's files. Raising it is one-way: a release that knows the newer format must have been out before.
const formatVersion = pebble.FormatFlushableIngestExcises

// database is an open Pebble and how many use it: the store itself and its open snapshots. The last one closes it.
type database struct {
	*pebble.DB
	name string
	refs atomic.Int64

	failOnce sync.Once
	failure  error
	failed   chan struct{} // closed once failure is set

	// damage is why there are no more compactions: one of them has met a damaged block, and each would.
	damage  atomic.Pointer[error]
	damaged func(error) // Options.Damaged
}

// backgroundError notes an error of a flush or compaction. Pebble would try again for ever.
func (d *database) backgroundError(err error) {
	if !pebble.IsCorruptionError(err) {
		d.fail(err)
		return
	}
	err = unreadable("compact metadata", err)
	if d.damage.CompareAndSwap(nil, &err) && d.damaged != nil {
		d.damaged(err)
	}
}

// sublevelsMost is how many sublevels of level 0 may pile up when there are no compactions. At 12 Pebble would let writers wait for ever.
const sublevelsMost = 8

// checkBacklog lets a store fail in which too much has piled up since its compactions ended.
func (d *database) checkBacklog() {
	if err := d.damage.Load(); err != nil && d.Metrics().Levels[0].Sublevels >= sublevelsMost {
		d.fail(*err)
	}
}

// scheduler lets one compaction run at a time, as Pebble does by itself, and none once one has met damage. As their number does not depend on how much there is to do, there is nothing
// that would have to be looked at periodically.
type scheduler struct {
	*pebble.ConcurrencyLimitScheduler
	d *database
}

func newScheduler(d *database) scheduler {
	return scheduler{pebble.NewConcurrencyLimitSchedulerWithNoPeriodicGrantingForTest(), d}
}

// Register implements pebble.CompactionScheduler.
func (s scheduler) Register(goroutines int, db pebble.DBForCompaction) {
	s.ConcurrencyLimitScheduler.Register(goroutines, limited{db, s.d})
}

// limited is the database as the scheduler sees it.
type limited struct {
	pebble.DBForCompaction
	d *database
}

// GetAllowedWithoutPermission implements pebble.DBForCompaction.
func (l limited) GetAllowedWithoutPermission() int {
	if l.d.damage.Load() != nil {
		return 0
	}
	return l.DBForCompaction.GetAllowedWithoutPermission()
}

// fail notes an error after which nothing more is taken: we take a disk that fails for lost.
func (d *database) fail(err error) {
	d.failOnce.Do(func() {
		d.failure = err
		close(d.failed)
	})
}

// check returns the error of a flush or compaction, if there was one.
func (d *database) check() error {
	select {
	case <-d.failed:
		return d.failure
	default:
		return nil
	}
}

func (d *database) release() error {
	if d.refs.Add(-1) > 0 {
		return nil
	}
	return d.DB.Close()
}

type silentLogger struct{}

func (silentLogger) Infof(string, ...any)  {}
func (silentLogger) Errorf(string, ...any) {}

// Fatalf is called when Pebble cannot go on, such as when writing its manifest failed; it must not return.
func (silentLogger) Fatalf(format string, args ...any) {
	panic("store: pebble: " + fmt.Sprintf(format, args...))
}

func openMetadata(fs vfs.FS, dir string, opt Options) (*metadata, error) {
	m := &metadata{fs: fs, dir: dir, opt: opt}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	name, err := m.current()
	if err != nil {
		return nil, err
	}
	fresh := name == ""
	if fresh {
		name = "db-1"
	}
	if err := m.removeOthers(name); err != nil {
		return nil, err
	}
	db, err := m.openDatabase(name)
	if err != nil {
		return nil, err
	}
	if fresh {
		if err := m.setCurrent(name); err != nil {
			return nil, errors.Join(err, db.release())
		}
	}
	m.db.Store(db)
	return m, nil
}

func (m *metadata) openDatabase(name string) (*database, error) {
	d := &database{name: name, failed: make(chan struct{}), damaged: m.opt.Damaged}
	d.refs.Store(1)
	// Pebble takes the memory of its memtables from the cache: were they not added, two of them would leave no room for blocks at all.
	cache := pebble.NewCache(m.opt.CacheBytes + int64(m.opt.MemTableBytes))
	defer cache.Unref()
	o := &pebble.Options{
		FS:                    m.fs,
		Cache:                 cache,
		DisableWAL:            true, // the raft log is the WAL
		FormatMajorVersion:    formatVersion,
		MemTableSize:          m.opt.MemTableBytes,
		L0CompactionThreshold: 4,
		MaxOpenFiles:          500,
		Logger:                silentLogger{},
		// Whoever met the damage is told by an error. Without a listener Pebble would end the process, whoever that is.
		EventListener: &pebble.EventListener{BackgroundError: d.backgroundError, DataCorruption: func(pebble.DataCorruptionInfo) {}},
	}
	o.Experimental.CompactionScheduler = newScheduler(d)
	for i := range o.Levels {
		// Most lookups that fail are for names about to be created.
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(m.fs.PathJoin(m.dir, name), o)
	if err != nil {
		return nil, fmt.Errorf("store: open metadata %s: %w", name, err)
	}
	d.DB = db
	return d, nil
}

// current returns the name in CURRENT, "" if there is none.
func (m *metadata) current() (string, error) {
	f, err := m.fs.Open(m.fs.PathJoin(m.dir, currentFile))
	if err != nil {
		if isNotExist(err) {
			return "", nil
		}
		return "", fmt.Errorf("store: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return "", fmt.Errorf("store: read %s: %w", currentFile, err)
	}
	name := strings.TrimSuffix(string(b), "\n")
	if _, err := databaseNumber(name); err != nil {
		return "", fmt.Errorf("store: %s holds %q, not the name of a database", currentFile, b)
	}
	return name, nil
}

func databaseNumber(name string) (int, error) {
	return strconv.Atoi(strings.TrimPrefix(name, "db-"))
}

// setCurrent points CURRENT to name, atomically and durably.
func (m *metadata) setCurrent(name string) error {
	path := m.fs.PathJoin(m.dir, currentFile)
	err := func() error {
		f, err := m.fs.Create(path+".new", vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		if _, err := f.Write([]byte(name + "\n")); err != nil {
			return errors.Join(err, f.Close())
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
		if err := m.fs.Rename(path+".new", path); err != nil {
			return err
		}
		dir, err := m.fs.OpenDir(m.dir)
		if err != nil {
			return err
		}
		return errors.Join(dir.Sync(), dir.Close())
	}()
	if err != nil {
		return fmt.Errorf("store: write %s: %w", currentFile, err)
	}
	return nil
}

// removeOthers deletes database folders that an Install left behind.
func (m *metadata) removeOthers(name string) error {
	list, err := m.fs.List(m.dir)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	for _, other := range list {
		if strings.HasPrefix(other, "db-") && other != name {
			if err := m.fs.RemoveAll(m.fs.PathJoin(m.dir, other)); err != nil {
				return fmt.Errorf("store: %w", err)
			}
		}
	}
	return nil
}

// Get implements Store.
func (m *metadata) Get(key []byte) ([]byte, error) {
	v, closer, err := m.db.Load().Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, unreadable("get", err)
	}
	out := append([]byte(nil), v...)
	return out, closer.Close()
}

// Scan implements Store.
func (m *metadata) Scan(lo, hi []byte, fn func(key, value []byte) bool) error {
	return scan(m.db.Load(), lo, hi, fn)
}

func scan(r pebble.Reader, lo, hi []byte, fn func(key, value []byte) bool) error {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lo, UpperBound: hi})
	if err != nil {
		return unreadable("scan", err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			break // Close returns it as well
		}
		if !fn(it.Key(), value) {
			break
		}
	}
	if err := it.Close(); err != nil {
		return unreadable("scan", err)
	}
	return nil
}

// Commit implements Store.
func (m *metadata) Commit(b *Batch) error {
	if err := commit(m.db.Load(), b.Ops); err != nil {
		return fmt.Errorf("store: commit: %w", err)
	}
	return nil
}

func commit(db *database, ops []Op) error {
	if err := db.check(); err != nil {
		return err
	}
	pb := db.NewBatch()
	defer pb.Close()
	for i := range ops {
		op := &ops[i]
		var err error
		switch op.Kind {
		case OpSet:
			err = pb.Set(op.Key, op.Value, nil)
		case OpDelete:
			err = pb.Delete(op.Key, nil)
		case OpDeleteRange:
			if compare(op.Key, op.Value) < 0 {
				err = pb.DeleteRange(op.Key, op.Value, nil)
			}
		}
		if err != nil {
			return err
		}
	}
	return db.Apply(pb, pebble.NoSync)
}

// FlushMeta implements Store.
func (m *metadata) FlushMeta(ctx context.Context) error { return m.db.Load().flush(ctx) }

func (d *database) flush(ctx context.Context) error {
	flushed, err := d.AsyncFlush()
	if err == nil {
		select {
		case <-flushed:
		case <-d.failed:
			err = d.failure
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil {
		return fmt.Errorf("store: flush metadata: %w", err)
	}
	d.checkBacklog()
	return nil
}

// SnapshotMeta implements Store.
func (m *metadata) SnapshotMeta() (MetaSnapshot, error) {
	db := m.db.Load()
	db.refs.Add(1)
	return &metaSnapshot{db: db, snap: db.NewSnapshot()}, nil
}

// installBatchBytes is how much of a stream is put into one batch.
const installBatchBytes = 256 << 10

// InstallMeta implements Store.
func (m *metadata) InstallMeta(r io.Reader, last *Batch) error {
	old := m.db.Load()
	n, err := databaseNumber(old.name)
	if err != nil {
		return fmt.Errorf("store: install metadata: %w", err)
	}
	name := "db-" + strconv.Itoa(n+1)
	if err := m.removeOthers(old.name); err != nil {
		return err
	}
	db, err := m.openDatabase(name)
	if err != nil {
		return err
	}
	err = fill(db, r, last)
	if err == nil {
		err = m.setCurrent(name)
	}
	if err != nil {
		return fmt.Errorf("store: install metadata: %w", errors.Join(err, db.release()))
	}
	m.db.Store(db)
	if err := old.release(); err != nil {
		return fmt.Errorf("store: close replaced metadata: %w", err)
	}
	if old.refs.Load() > 0 {
		return nil // a snapshot still reads it; the next Open deletes it
	}
	return m.removeOthers(name)
}

// fill writes a stream and then last to a new database and makes them durable.
func fill(db *database, r io.Reader, last *Batch) error {
	var ops []Op
	size := 0
	err := readStream(r, func(key, value []byte) error {
		kv := append(append(make([]byte, 0, len(key)+len(value)), key...), value...)
		ops = append(ops, Op{OpSet, kv[:len(key)], kv[len(key):]})
		if size += len(kv); size < installBatchBytes {
			return nil
		}
		err := commit(db, ops)
		ops, size = ops[:0], 0
		return err
	})
	if err != nil {
		return err
	}
	if err := commit(db, ops); err != nil {
		return err
	}
	if err := commit(db, last.Ops); err != nil {
		return err
	}
	return db.flush(context.Background())
}

func (m *metadata) close() error {
	db := m.db.Load()
	if err := errors.Join(db.flush(context.Background()), db.release()); err != nil {
		return fmt.Errorf("store: close metadata: %w", err)
	}
	return nil
}

type metaSnapshot struct {
	db   *database
	snap *pebble.Snapshot
}

func (s *metaSnapshot) Scan(lo, hi []byte, fn func(key, value []byte) bool) error {
	return scan(s.snap, lo, hi, fn)
}

func (s *metaSnapshot) WriteTo(w io.Writer) (int64, error) {
	out := newStreamWriter(w)
	if err := scan(s.snap, nil, nil, out.add); err != nil {
		return out.n, err
	}
	return out.close()
}

func (s *metaSnapshot) Close() error { return errors.Join(s.snap.Close(), s.db.release()) }
