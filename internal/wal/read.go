package wal

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
)

const (
	// maxSpanBytes is how much is read at once, unless one entry is larger. The entries of a read share its memory.
	maxSpanBytes = 1 << 20
	// maxGapBytes is how much between two entries (headers, replaced entries) is read along rather than skipped.
	maxGapBytes = 64 << 10
)

// FirstIndex returns the index of the first entry, or what it will be if there is none.
func (l *Log) FirstIndex() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.trunc.index + 1
}

// LastIndex returns the index of the last entry; FirstIndex()-1 if there is none.
func (l *Log) LastIndex() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.last
}

// HardState returns the newest hard state, which is durable but for Commit (see Batch.NoSync).
func (l *Log) HardState() raftpb.HardState {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.hard
}

// Term returns the term of the entry at index, which may also be FirstIndex()-1. Other indexes give ErrCompacted or ErrUnavailable.
func (l *Log) Term(index uint64) (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	switch {
	case l.failed != nil:
		return 0, l.failed
	case index == l.trunc.index:
		return l.trunc.term, nil
	case index < l.trunc.index:
		return 0, ErrCompacted
	case index > l.last:
		return 0, ErrUnavailable
	}
	return l.terms.at(index), nil
}

// Entries returns the entries in [lo, hi), as many of them as have at most maxBytes together, but at least one if hi > lo. Their data must not be changed. The error is
// ErrCompacted or ErrUnavailable for entries that are not in the log, and a CorruptError if the disk does not return what was written.
func (l *Log) Entries(lo, hi, maxBytes uint64) ([]raftpb.Entry, error) {
	entries, reads, err := l.plan(lo, hi, maxBytes)
	if err != nil {
		return nil, err
	}
	for _, r := range reads {
		if err := r.into(entries[r.at : r.at+len(r.locs)]); err != nil {
			return nil, l.explain(r.seg, err)
		}
	}
	return entries, nil
}

// segmentRead are entries to be read from one segment.
type segmentRead struct {
	seg  *segment
	locs []loc
	at   int // position of the first one in the result
}

// plan returns the entries that Entries is to return, without the data of those that have to be read.
func (l *Log) plan(lo, hi, maxBytes uint64) ([]raftpb.Entry, []segmentRead, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	switch {
	case l.failed != nil:
		return nil, nil, l.failed
	case lo > hi:
		return nil, nil, fmt.Errorf("wal: entries from %d to %d", lo, hi)
	case lo <= l.trunc.index:
		return nil, nil, ErrCompacted
	case hi > l.last+1:
		return nil, nil, ErrUnavailable
	case lo == hi:
		return nil, nil, nil
	}
	entries, reads := l.planReadsLocked(lo, hi, maxBytes)
	for _, e := range l.cache.from(lo) {
		if e.Index-lo >= uint64(len(entries)) {
			break
		}
		entries[e.Index-lo] = e
	}
	cached := l.last + 1
	if all := l.cache.from(0); len(all) > 0 {
		cached = all[0].Index
	}
	return entries, cutReads(reads, lo, cached), nil
}

// planReadsLocked works out which entries fit maxBytes and where they are. l.mu is held.
func (l *Log) planReadsLocked(lo, hi, maxBytes uint64) ([]raftpb.Entry, []segmentRead) {
	var entries []raftpb.Entry
	var reads []segmentRead
	var size uint64
	for index := lo; index < hi; {
		seg := l.findLocked(index)
		from := index - seg.first
		to := min(uint64(len(seg.locs)), hi-seg.first)
		n := from
		for ; n < to; n++ {
			size += uint64(seg.locs[n].length) + entryOverhead
			if size > maxBytes && seg.first+n > lo {
				hi = 0
				break
			}
		}
		locs := seg.locs[from:n]
		if len(locs) > 0 {
			reads = append(reads, segmentRead{seg, locs, int(index - lo)})
		}
		entries = slices.Grow(entries, len(locs))
		for i, at := range locs {
			entries = append(entries, raftpb.Entry{Index: index + uint64(i), Term: l.terms.at(index + uint64(i)), Type: at.kind})
		}
		index = seg.first + n
	}
	return entries, reads
}

// cutReads drops what is cached, from index cached on, and gives the rest memory of its own: the index may change once the lock is released.
func cutReads(reads []segmentRead, lo, cached uint64) []segmentRead {
	out := reads[:0]
	for _, r := range reads {
		first := lo + uint64(r.at)
		if first >= cached {
			break
		}
		r.locs = slices.Clone(r.locs[:min(uint64(len(r.locs)), cached-first)])
		out = append(out, r)
	}
	return out
}

// errChecksum is turned into a CorruptError with a place.
type errChecksum struct {
	index uint64
	off   int64
}

func (e *errChecksum) Error() string {
	return fmt.Sprintf("the checksum of entry %d does not match", e.index)
}

// into reads the data of entries.
func (r *segmentRead) into(entries []raftpb.Entry) error {
	for len(entries) > 0 {
		n := spanOf(r.locs)
		start := int64(r.locs[0].off)
		buf := make([]byte, int64(r.locs[n-1].off)+int64(r.locs[n-1].length)-start)
		if k, err := r.seg.file.ReadAt(buf, start); k < len(buf) {
			if errors.Is(err, io.EOF) {
				return &errChecksum{entries[0].Index, start}
			}
			return err
		}
		for i, at := range r.locs[:n] {
			from := int64(at.off) - start
			data := buf[from : from+int64(at.length) : from+int64(at.length)]
			if checksum(data) != at.checksum {
				return &errChecksum{entries[i].Index, int64(at.off)}
			}
			if len(data) > 0 {
				entries[i].Data = data
			}
		}
		entries, r.locs = entries[n:], r.locs[n:]
	}
	return nil
}

// spanOf returns how many of locs to read at once.
func spanOf(locs []loc) int {
	start := int64(locs[0].off)
	end := start + int64(locs[0].length)
	n := 1
	for ; n < len(locs); n++ {
		next := int64(locs[n].off) + int64(locs[n].length)
		if int64(locs[n].off)-end > maxGapBytes || next-start > maxSpanBytes {
			break
		}
		end = next
	}
	return n
}

// explain returns the error for a failed read of seg: if the segment was recycled meanwhile, the entries are simply gone.
func (l *Log) explain(seg *segment, err error) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.failed != nil {
		return l.failed
	}
	if seg.detached {
		return ErrCompacted
	}
	var bad *errChecksum
	if errors.As(err, &bad) {
		return &CorruptError{File: seg.name, Offset: bad.off, Reason: bad.Error()}
	}
	return fmt.Errorf("wal: read %s: %w", seg.name, err)
}
