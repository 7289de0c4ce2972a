package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"holdfast/internal/vfs"
)

// Defaults and limits of Options.
const (
	DefaultSegmentBytes = 64 << 20
	DefaultCacheBytes   = 64 << 20
	DefaultSpares       = 16 // a GiB, what a busy volume logs between two checkpoints

	MinSegmentBytes = 16 << 10
	MaxSegmentBytes = 1 << 31 // offsets in a segment are kept in 32 bits
)

// Options are the settings of a Log. Zero values stand for the defaults.
type Options struct {
	// SegmentBytes is the size of new segments, rounded up to whole pages. No entry can be larger.
	SegmentBytes int64
	// CacheBytes bounds the memory held by recent entries; negative: none are kept.
	CacheBytes int64
	// Spares is how many former segments are kept for reuse; negative: none.
	Spares int
	// SyncPrepare makes Append prepare the next segment itself when it needs one, instead of a goroutine ahead of time. For simulations, which
	// have to be deterministic.
	SyncPrepare bool
	// Rand returns the random numbers that segments are salted with; nil: the runtime's, which nobody can guess. It is called by one
	// goroutine at a time.
	Rand func() uint64
	// Now is the clock for Stats; nil: time.Now.
	Now func() time.Time
}

func (o *Options) setDefaults() error {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = DefaultSegmentBytes
	}
	o.SegmentBytes = roundUp(o.SegmentBytes, pageBytes)
	if o.SegmentBytes < MinSegmentBytes || o.SegmentBytes > MaxSegmentBytes {
		return fmt.Errorf("wal: segments of %d bytes: must be %d to %d", o.SegmentBytes, MinSegmentBytes, int64(MaxSegmentBytes))
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = DefaultCacheBytes
	}
	if o.Spares == 0 {
		o.Spares = DefaultSpares
	}
	if o.Rand == nil {
		o.Rand = rand.Uint64
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return nil
}

// Log is the raft log of one replica. One goroutine appends; all methods may be called concurrently.
type Log struct {
	fs   vfs.FS
	dir  string
	opts Options

	// writeMu is held while a frame is written.
	writeMu   sync.Mutex
	active    *segment // the last of segs; frames go here
	end       int64    // of the frames in active
	synced    int64    // all of active before this offset is durable
	prevEnd   int64    // of the frames in the segment before active
	rotate    bool     // the next frame goes to a new segment
	closed    bool     // the last frame on disk says that the log was closed
	header    []byte   // scratch: frame header and descriptors
	gather    [][]byte // scratch: what a write is made of
	locs      []loc    // scratch: the entries of a frame
	requested bool     // a prepared segment is on order

	// dirMu guards names in the folder and spares.
	dirMu     sync.Mutex
	spares    []spare
	nextSpare uint64 // number for the name of the next one; never one that is in use

	spareCount atomic.Int32 // len(spares), for Stats, which must not wait for a disk

	hurry atomic.Bool // an append waits for the segment being prepared

	requests chan uint64   // sequence numbers of segments to prepare; nil with SyncPrepare
	prepared chan preparer // what became of them
	done     chan struct{} // closed when the preparing goroutine has ended

	// mu guards all that follows; it is never held across I/O.
	mu     sync.RWMutex
	failed error // the Log is unusable
	segs   []*segment
	trunc  point // the log begins after it
	last   uint64
	terms  termRuns
	hard   raftpb.HardState
	cache  cache
	stats  Stats
}

// Stats is for status and metrics.
type Stats struct {
	FirstIndex, LastIndex uint64
	Segments              int   // in use, the active one included
	SegmentBytes          int64 // disk space of those
	Spares                int   // former segments kept for reuse
	CacheBytes            int64 // data of entries held in memory
	Appends               uint64
	AppendedBytes         uint64 // written, frame headers included
	Syncs                 uint64
	LastSync              time.Duration // how long the last fdatasync took
	SlowestSync           time.Duration
}

// Open opens the log in dir, creating it if it is not there, and recovers what a crash left. It returns a CorruptError if something that was durable is
// not there any more, and a VersionError for a log of another format. No two Logs may have one folder open.
func Open(fsys vfs.FS, dir string, opts Options) (*Log, error) {
	if err := opts.setDefaults(); err != nil {
		return nil, err
	}
	l := &Log{fs: fsys, dir: dir, opts: opts}
	l.cache.limit = opts.CacheBytes
	if err := vfs.MkdirDurable(fsys, dir); err != nil {
		return nil, fmt.Errorf("wal: create %s: %w", dir, err)
	}
	if err := l.recover(); err != nil {
		return nil, errors.Join(err, l.closeFiles())
	}
	if !opts.SyncPrepare {
		l.requests = make(chan uint64, 1)
		l.prepared = make(chan preparer, 1)
		l.done = make(chan struct{})
		go l.prepareLoop()
		l.order()
	}
	return l, nil
}

// Close makes everything durable, marks the log as closed and releases the files. The Log is unusable afterwards.
func (l *Log) Close() error {
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	if errors.Is(l.Err(), ErrClosed) {
		return nil
	}
	var err error
	if l.Err() == nil {
		err = l.writeClosed()
	}
	if l.requests != nil {
		close(l.requests)
		<-l.done
		if l.requested {
			if p := <-l.prepared; p.seg != nil {
				err = errors.Join(err, p.seg.file.Close())
			}
		}
	}
	l.mu.Lock()
	if l.failed == nil {
		l.failed = ErrClosed
	}
	l.mu.Unlock()
	return errors.Join(err, l.closeFiles())
}

// writeClosed appends the frame that tells the next Open that nothing can be torn.
func (l *Log) writeClosed() error {
	if l.closed {
		return l.sync()
	}
	l.mu.RLock()
	f := frame{hard: l.hard, trunc: l.trunc, flags: flagClosed}
	l.mu.RUnlock()
	if _, err := l.write(f); err != nil {
		return err
	}
	l.closed = true
	return l.sync()
}

func (l *Log) closeFiles() error {
	l.dirMu.Lock()
	defer l.dirMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, s := range l.segs {
		errs = append(errs, s.file.Close())
	}
	for _, s := range l.spares {
		errs = append(errs, s.file.Close())
	}
	l.segs, l.spares = nil, nil
	return errors.Join(errs...)
}

// Err returns why the Log is unusable, or nil.
func (l *Log) Err() error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.failed
}

// fail makes the Log unusable. After a failed write or sync nobody knows what is on the disk and what the page cache pretends is there, and trying
// again may seem to work; only a new Open, which writes it again, may go on from here.
func (l *Log) fail(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed = &failure{err}
	}
	return l.failed
}

// Stats returns the figures as of now.
func (l *Log) Stats() Stats {
	l.mu.RLock()
	defer l.mu.RUnlock()
	s := l.stats
	s.FirstIndex, s.LastIndex = l.trunc.index+1, l.last
	s.Segments = len(l.segs)
	for _, seg := range l.segs {
		s.SegmentBytes += seg.size
	}
	s.Spares = int(l.spareCount.Load())
	s.CacheBytes = l.cache.bytes
	return s
}
