package wal

import (
	"errors"
	"fmt"
	"path"
	"slices"
)

// recovery rebuilds a Log from its folder. What it may conclude from what it finds is explained in the package's documentation.
type recovery struct {
	*Log
	ends  []int64     // by segment: where its whole frames end
	tail  int         // the last segment with a frame, or -1
	last  frameHeader // of the last whole frame
	known bool        // Log.last is known, as opposed to lying before the oldest segment
}

// recover loads what the folder holds and gets the Log ready for writing.
func (l *Log) recover() error {
	if err := l.openFolder(); err != nil {
		return err
	}
	r := recovery{Log: l, tail: -1, known: len(l.segs) == 0 || l.segs[0].seq == 1}
	for i := range l.segs {
		if err := r.scan(i); err != nil {
			return err
		}
	}
	leftovers, err := r.checkTail()
	if err != nil {
		return err
	}
	if err := r.checkState(); err != nil {
		return err
	}
	if err := r.startWriting(); err != nil {
		return err
	}
	l.rotate = leftovers
	return l.recycle()
}

// openFolder opens the segments and spares and removes what is neither.
func (l *Log) openFolder() error {
	names, err := l.fs.List(l.dir)
	if err != nil {
		return fmt.Errorf("wal: list %s: %w", l.dir, err)
	}
	for _, name := range names {
		full := path.Join(l.dir, name)
		if seq, ok := parseName(name, segmentSuffix); ok {
			if err := l.openSegment(full, seq); err != nil {
				return err
			}
		} else if n, ok := parseName(name, spareSuffix); ok {
			l.nextSpare = max(l.nextSpare, n+1)
			if err := l.openSpare(full); err != nil {
				return fmt.Errorf("wal: open spare segment: %w", err)
			}
		} else if name == prepareName {
			if err := l.fs.Remove(full); err != nil {
				return fmt.Errorf("wal: %w", err)
			}
		}
	}
	return nil
}

func (l *Log) openSegment(name string, seq uint64) error {
	f, err := l.fs.Open(name)
	if err != nil {
		return fmt.Errorf("wal: open segment: %w", err)
	}
	s := &segment{file: f, name: name, seq: seq}
	l.segs = append(l.segs, s)
	if n := len(l.segs); n > 1 && seq != l.segs[n-2].seq+1 {
		return &CorruptError{name, 0, fmt.Sprintf("the segment before it is missing; the last one there is is number %d", l.segs[n-2].seq)}
	}
	size, err := f.Size()
	if err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	if size < segmentHeaderBytes {
		return &CorruptError{name, size, "it ends in the segment header"}
	}
	b := make([]byte, segmentFieldBytes)
	if _, err := f.ReadAt(b, 0); err != nil {
		return fmt.Errorf("wal: read segment header: %w", err)
	}
	h, err := decodeSegmentHeader(b)
	if ve := (*VersionError)(nil); errors.As(err, &ve) {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err != nil {
		return &CorruptError{name, 0, err.Error()}
	}
	if h.seq != seq {
		return &CorruptError{name, 16, fmt.Sprintf("it is segment %d under the name of another", h.seq)}
	}
	if size < h.size {
		return &CorruptError{name, size, fmt.Sprintf("it ends there, but was made with %d bytes", h.size)}
	}
	s.salt, s.size = h.salt, h.size
	return nil
}

func (l *Log) openSpare(name string) error {
	f, err := l.fs.Open(name)
	if err != nil {
		return err
	}
	size, err := f.Size()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if size != l.opts.SegmentBytes || len(l.spares) >= l.opts.Spares {
		return errors.Join(f.Close(), l.fs.Remove(name))
	}
	l.spares = append(l.spares, spare{f, name})
	l.spareCount.Add(1)
	return nil
}

func (l *Log) scannerOf(s *segment) *scanner {
	return &scanner{file: s.file, size: s.size, salt: s.salt}
}

// scan applies the whole frames of segment i.
func (r *recovery) scan(i int) error {
	seg := r.segs[i]
	sc := r.scannerOf(seg)
	off := int64(segmentHeaderBytes)
	for {
		h, ds, ok, err := sc.frame(off)
		if err != nil {
			return fmt.Errorf("wal: scan %s: %w", seg.name, err)
		}
		if !ok {
			break
		}
		if err := r.checkChain(i, &h); err != nil {
			return err
		}
		if err := r.apply(seg, &h, ds); err != nil {
			return err
		}
		r.tail, r.last = i, h
		off += h.length
	}
	r.ends = append(r.ends, off)
	return nil
}

// checkChain checks that the segment before segment i was found as long as a frame in segment i says it was.
func (r *recovery) checkChain(i int, h *frameHeader) error {
	if i == 0 || h.prevEnd == r.ends[i-1] {
		return nil
	}
	return &CorruptError{r.segs[i-1].name, r.ends[i-1],
		fmt.Sprintf("no whole frame is there, but the next segment says that frames go on to %d", h.prevEnd)}
}

// apply does again what the write of a frame did.
func (r *recovery) apply(seg *segment, h *frameHeader, ds []descriptor) error {
	if h.trunc.index < r.trunc.index {
		return &CorruptError{seg.name, h.offset, fmt.Sprintf("a truncation at %d follows one at %d", h.trunc.index, r.trunc.index)}
	}
	r.hard, r.trunc = h.hard, h.trunc
	if h.flags&flagReset != 0 {
		r.resetLocked(h.trunc)
		r.known = true
	}
	if h.count > 0 {
		if err := r.applyEntries(seg, h, ds); err != nil {
			return err
		}
	}
	if r.known && h.trunc.index > r.Log.last {
		return &CorruptError{seg.name, h.offset, fmt.Sprintf("the log was truncated at %d, but entry %d is its last", h.trunc.index, r.Log.last)}
	}
	return nil
}

func (r *recovery) applyEntries(seg *segment, h *frameHeader, ds []descriptor) error {
	if !r.known {
		r.Log.last = h.first - 1
		r.known = true
	}
	if h.first > r.Log.last+1 || h.first <= h.trunc.index {
		return &CorruptError{seg.name, h.offset, fmt.Sprintf("entry %d follows entry %d", h.first, r.Log.last)}
	}
	if h.first <= r.Log.last {
		r.truncateLocked(h.first)
	}
	locs := make([]loc, len(ds))
	off := h.offset + h.dataOffset()
	for i, d := range ds {
		locs[i] = loc{uint32(off), d.length, d.checksum, d.kind}
		off += int64(d.length)
		r.terms.add(h.first+uint64(i), d.term)
	}
	r.indexLocked(seg, h.first, locs)
	return nil
}

// checkTail looks for frames behind the end of the log. Those that show that what is not whole at the end had been durable are an error; it reports whether there
// are others behind the end in the last segment with frames.
func (r *recovery) checkTail() (leftovers bool, err error) {
	if r.tail < 0 && len(r.segs) > 0 && r.segs[0].seq > 1 {
		return false, &CorruptError{r.segs[0].name, segmentHeaderBytes, "no whole frame is there, but segments before this one were given up"}
	}
	for i := max(r.tail, 0); i < len(r.segs); i++ {
		sc := r.scannerOf(r.segs[i])
		// What begins at the end itself is the frame that is not whole; the next one to be written there replaces it.
		for off := r.ends[i] + frameAlign; ; off += frameAlign {
			h, ok, err := sc.find(off)
			if err != nil {
				return false, fmt.Errorf("wal: scan %s: %w", r.segs[i].name, err)
			}
			if !ok {
				break
			}
			if err := r.checkLeftover(i, &h); err != nil {
				return false, err
			}
			leftovers = leftovers || i == r.tail
			off = h.offset
		}
	}
	return leftovers, nil
}

// checkLeftover decides what the header of a frame behind the end of the log, in segment i, tells.
func (r *recovery) checkLeftover(i int, h *frameHeader) error {
	if h.synced > r.ends[i] {
		return &CorruptError{r.segs[i].name, r.ends[i],
			fmt.Sprintf("no whole frame is there, but the frame at %d was written when all before %d was durable", h.offset, h.synced)}
	}
	if i > r.tail+1 {
		return &CorruptError{r.segs[i-1].name, segmentHeaderBytes, "no whole frame is there, but the next segment has frames"}
	}
	if i > r.tail && i > 0 {
		return r.checkChain(i, h)
	}
	return nil
}

// checkState checks that what was read makes a log.
func (r *recovery) checkState() error {
	name := r.dir
	if r.tail >= 0 {
		name = r.segs[r.tail].name
	}
	r.Log.last = max(r.Log.last, r.trunc.index)
	if r.hard.Commit > r.Log.last {
		return &CorruptError{name, r.last.offset,
			fmt.Sprintf("the commit index is %d, but the last entry found is %d", r.hard.Commit, r.Log.last)}
	}
	r.terms.forget(r.trunc.index)
	if r.Log.last == r.trunc.index {
		return nil
	}
	for _, s := range r.segs {
		if len(s.locs) == 0 {
			continue
		}
		if s.first > r.trunc.index+1 {
			return &CorruptError{s.name, segmentHeaderBytes,
				fmt.Sprintf("the log begins with entry %d, but should with %d", s.first, r.trunc.index+1)}
		}
		break
	}
	return nil
}

// startWriting makes durable what was read and the last segment with frames the active one. Segments behind it, which hold nothing, become spares: what a torn
// write may have left there must never follow a new frame.
func (r *recovery) startWriting() error {
	r.dirMu.Lock()
	unused := slices.Clone(r.segs[r.tail+1:])
	slices.Reverse(unused) // newest first, for the same reason that retire wants the oldest first: no gap
	r.segs = r.segs[:r.tail+1]
	err := r.retire(unused)
	r.dirMu.Unlock()
	if err != nil {
		return fmt.Errorf("wal: give up unused segments: %w", err)
	}
	if r.tail < 0 {
		seg, err := r.prepare(1)
		if err != nil {
			return fmt.Errorf("wal: prepare the first segment: %w", err)
		}
		r.segs = []*segment{seg}
		r.active, r.end, r.synced = seg, segmentHeaderBytes, segmentHeaderBytes
		return nil
	}
	r.active, r.end, r.prevEnd = r.segs[r.tail], r.ends[r.tail], r.last.prevEnd
	r.closed = r.last.flags&flagClosed != 0
	if err := r.rewrite(r.active, r.last.synced, r.end); err != nil {
		return fmt.Errorf("wal: write the end of %s again: %w", r.active.name, err)
	}
	r.synced = r.end
	return nil
}

// rewrite writes [off, end) of s once more and syncs it. A failed fdatasync of the process before this one leaves pages that read well, count as clean
// and are not on the disk; only a new write makes the next fdatasync mean something.
func (r *recovery) rewrite(s *segment, off, end int64) error {
	sc := r.scannerOf(s)
	for off < end {
		b, err := sc.bytes(off, min(end-off, windowBytes))
		if err != nil {
			return err
		}
		if _, err := s.file.WriteAt(b, off); err != nil {
			return err
		}
		off += int64(len(b))
	}
	return s.file.Sync()
}
