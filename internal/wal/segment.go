package wal

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"holdfast/internal/vfs"
)

// segment is a file of the log.
type segment struct {
	file vfs.File
	name string // path
	seq  uint64
	salt uint64
	size int64

	// guarded by Log.mu:
	first    uint64 // index of locs[0]
	locs     []loc  // the entries that are in this segment and not replaced
	detached bool   // not in the log any more; the file's content may be anything
}

// lastLocked returns the index of the last entry in s, or 0. Log.mu is held.
func (s *segment) lastLocked() uint64 {
	if len(s.locs) == 0 {
		return 0
	}
	return s.first + uint64(len(s.locs)) - 1
}

// spare is a former segment that waits for reuse.
type spare struct {
	file vfs.File
	name string
}

const (
	segmentSuffix = ".seg"
	spareSuffix   = ".spare"
	prepareName   = "prepare.tmp"
)

func (l *Log) segmentName(seq uint64) string {
	return path.Join(l.dir, fmt.Sprintf("%016x%s", seq, segmentSuffix))
}

// parseName returns the number in a name of 16 digits and suffix.
func parseName(name, suffix string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != 16 {
		return 0, false
	}
	seq, err := strconv.ParseUint(digits, 16, 64)
	return seq, err == nil
}

// preparer is the outcome of preparing a segment.
type preparer struct {
	seg *segment
	err error
}

// prepareLoop prepares the segments that are ordered, one at a time.
func (l *Log) prepareLoop() {
	defer close(l.done)
	for seq := range l.requests {
		seg, err := l.prepare(seq)
		l.prepared <- preparer{seg, err}
	}
}

// order asks for the segment after the active one, ahead of need. writeMu is held, or the Log is not shared yet.
func (l *Log) order() {
	if l.requests != nil && !l.requested {
		l.requests <- l.active.seq + 1
		l.requested = true
	}
}

// takePrepared returns the segment after the active one. writeMu is held.
func (l *Log) takePrepared() (*segment, error) {
	if l.requests == nil {
		return l.prepare(l.active.seq + 1)
	}
	ahead := l.requested
	l.order()
	l.hurry.Store(true)
	defer l.hurry.Store(false)
	for {
		p := <-l.prepared
		l.requested = false
		if p.err == nil || !ahead || l.Err() != nil {
			return p.seg, p.err
		}
		// That may be long ago, and for lack of space that is there by now.
		ahead = false
		l.order()
	}
}

// nextSegment makes a new segment the active one, when the present one is durable. An error in preparing the new one changes nothing. writeMu is held.
func (l *Log) nextSegment() error {
	seg, err := l.takePrepared()
	if err != nil {
		return fmt.Errorf("wal: prepare segment: %w", err)
	}
	// A frame in the new segment says that all of this one is durable.
	if err := l.sync(); err != nil {
		return errors.Join(err, seg.file.Close())
	}
	l.prevEnd = l.end
	l.active, l.end, l.synced = seg, segmentHeaderBytes, segmentHeaderBytes
	l.rotate = false
	l.mu.Lock()
	l.segs = append(l.segs, seg)
	l.mu.Unlock()
	l.order()
	return nil
}

// prepare makes segment seq from a spare or from nothing. When it returns, header and name are durable.
func (l *Log) prepare(seq uint64) (*segment, error) {
	l.dirMu.Lock()
	defer l.dirMu.Unlock()
	from, err := l.takeSpare()
	if err != nil {
		return nil, err
	}
	h := segmentHeader{seq: seq, salt: l.newSalt(), size: l.opts.SegmentBytes}
	seg := &segment{file: from.file, name: l.segmentName(seq), seq: seq, salt: h.salt, size: h.size}
	if _, err := seg.file.WriteAt(h.encode(), 0); err != nil {
		return nil, errors.Join(err, seg.file.Close())
	}
	if err := seg.file.Sync(); err != nil {
		return nil, errors.Join(l.fail(fmt.Errorf("sync %s: %w", from.name, err)), seg.file.Close())
	}
	if err := l.fs.Rename(from.name, seg.name); err != nil {
		return nil, errors.Join(err, seg.file.Close())
	}
	if err := l.fs.SyncDir(l.dir); err != nil {
		return nil, errors.Join(l.fail(fmt.Errorf("sync %s: %w", l.dir, err)), seg.file.Close())
	}
	return seg, nil
}

// newSalt returns a random number that is not zero, as zeros are what files are full of. dirMu is held.
func (l *Log) newSalt() uint64 {
	for {
		if salt := l.opts.Rand(); salt != 0 {
			return salt
		}
	}
}

// takeSpare returns a file of the size of a segment that nobody needs. dirMu is held.
func (l *Log) takeSpare() (spare, error) {
	if n := len(l.spares); n > 0 {
		s := l.spares[n-1]
		l.spares = l.spares[:n-1]
		l.spareCount.Add(-1)
		return s, nil
	}
	s := spare{name: path.Join(l.dir, prepareName)}
	var err error
	if s.file, err = l.fs.Create(s.name); err != nil {
		return spare{}, err
	}
	if err := s.file.Preallocate(0, l.opts.SegmentBytes, false); err != nil {
		// A full disk needs the space more than the next attempt does.
		return spare{}, errors.Join(err, s.file.Close(), l.fs.Remove(s.name))
	}
	if err := l.fill(s.file); err != nil {
		return spare{}, errors.Join(err, s.file.Close())
	}
	return s, nil
}

// How much of a new file is written and synced at a time: little, so that appends do not wait long behind it on the disk, but not so little that the file
// system's journal is committed all the time.
const (
	fillBytes     = 1 << 20
	fillSyncBytes = 8 << 20
)

// fill writes a new file once all over. An fdatasync after a write to space that was only reserved has to make the file system's own metadata durable too,
// which says that the space is written now, and takes nearly twice as long (ext4, with a journal or without). It stops when somebody waits for the file.
func (l *Log) fill(f vfs.File) error {
	if l.opts.SyncPrepare {
		return nil // a simulated disk has no such metadata
	}
	b := make([]byte, min(fillBytes, l.opts.SegmentBytes))
	for off := int64(0); off < l.opts.SegmentBytes && !l.hurry.Load(); off += int64(len(b)) {
		b = b[:min(int64(len(b)), l.opts.SegmentBytes-off)]
		if _, err := f.WriteAt(b, off); err != nil {
			return fmt.Errorf("fill a new segment: %w", err)
		}
		if (off+int64(len(b)))%fillSyncBytes != 0 {
			continue
		}
		if err := f.Sync(); err != nil {
			return l.fail(fmt.Errorf("sync a new segment: %w", err))
		}
	}
	return nil // prepare syncs the rest
}

// retire takes segments that left the log out of the folder, oldest first, so that a crash leaves no gap. dirMu is held.
func (l *Log) retire(segs []*segment) error {
	for _, s := range segs {
		if len(l.spares) >= l.opts.Spares || s.size != l.opts.SegmentBytes {
			if err := errors.Join(l.fs.Remove(s.name), s.file.Close()); err != nil {
				return err
			}
			continue
		}
		to := path.Join(l.dir, fmt.Sprintf("%016x%s", l.nextSpare, spareSuffix))
		l.nextSpare++
		if err := l.fs.Rename(s.name, to); err != nil {
			return errors.Join(err, s.file.Close())
		}
		l.spares = append(l.spares, spare{s.file, to})
		l.spareCount.Add(1)
	}
	// A spare gets a new header only when it is durable that it is no segment any more.
	return l.fs.SyncDir(l.dir)
}
