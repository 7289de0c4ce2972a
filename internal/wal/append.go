package wal

import (
	"fmt"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// Batch is what one Append makes durable: as many raft Readys as had queued up, one after the other.
type Batch struct {
	// Entries are appended. Where an index is not beyond the one before, in the log or in Entries, it and what follows are replaced. The Log
	// keeps the Data slices: the caller must not change them any more.
	Entries []raftpb.Entry
	// HardState is the new hard state; the zero value leaves it as it is. Commit never goes back.
	HardState raftpb.HardState
	// NoSync allows the write to be lost in a crash if it changes nothing but Commit. It is ignored if it changes more.
	NoSync bool
}

// frame is what is to be written as one.
type frame struct {
	entries []raftpb.Entry
	hard    raftpb.HardState
	trunc   point
	flags   uint32
}

// placed is where the entries of a frame went.
type placed struct {
	seg   *segment
	first uint64
	count int
}

// zeros fills the rest of a frame and of its last page.
var zeros [pageBytes + frameAlign]byte

// Append writes b with one gather write and one fdatasync. When it returns nil, b is durable (but see Batch.NoSync). A batch that makes no sense is
// refused and changes nothing, as does a disk that is too full for the next segment; any other error is the end of the Log.
//
// An empty batch makes durable what earlier batches left unsynced.
func (l *Log) Append(b Batch) error {
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	if err := l.Err(); err != nil {
		return err
	}
	entries, err := consecutive(b.Entries)
	if err != nil {
		return err
	}
	l.mu.RLock()
	old, trunc, last := l.hard, l.trunc, l.last
	l.mu.RUnlock()
	hard, err := nextHardState(old, b.HardState)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		if err := checkEntries(entries, old, trunc, last); err != nil {
			return err
		}
		last = entries[len(entries)-1].Index
	}
	if hard.Commit > last {
		return fmt.Errorf("wal: commit index %d is beyond the last entry %d", hard.Commit, last)
	}
	needSync := !b.NoSync || len(entries) > 0 || hard.Term != old.Term || hard.Vote != old.Vote
	if len(entries) > 0 || hard != old {
		return l.appendFrames(frame{entries: entries, hard: hard, trunc: trunc}, old, needSync)
	}
	if needSync {
		return l.sync()
	}
	return nil
}

// appendFrames writes f, in parts if it is larger than a segment, makes it durable if needSync, and shows it to readers. Parts but the last keep the old commit
// index, so that no frame ever claims to have committed what is not there yet.
func (l *Log) appendFrames(f frame, old raftpb.HardState, needSync bool) error {
	// In the usual case of one part, neither list needs an allocation.
	var onePart [1][]raftpb.Entry
	var onePlace [1]placed
	parts, err := l.split(onePart[:0], f.entries)
	if err != nil {
		return err
	}
	l.locs = l.locs[:0]
	where := onePlace[:0]
	for i, entries := range parts {
		part := f
		part.entries = entries
		if i < len(parts)-1 {
			part.hard.Commit = old.Commit
		}
		p, err := l.write(part)
		if err != nil {
			if i > 0 {
				return l.fail(err) // the file says more than the index does
			}
			return err
		}
		where = append(where, p)
	}
	if needSync {
		if err := l.sync(); err != nil {
			return err
		}
	}
	l.publish(f, where)
	return nil
}

// publish updates what readers see.
func (l *Log) publish(f frame, where []placed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hard = f.hard
	l.stats.Appends++
	if len(f.entries) == 0 {
		return
	}
	if first := f.entries[0].Index; first <= l.last {
		l.truncateLocked(first)
	}
	locs := l.locs
	for _, p := range where {
		if p.count > 0 {
			l.indexLocked(p.seg, p.first, locs[:p.count])
			locs = locs[p.count:]
		}
	}
	for _, e := range f.entries {
		l.terms.add(e.Index, e.Term)
		l.cache.add(e)
	}
}

// consecutive returns entries without those that later ones replace.
func consecutive(entries []raftpb.Entry) ([]raftpb.Entry, error) {
	for i := 1; i < len(entries); i++ {
		if entries[i].Index != entries[i-1].Index+1 {
			return merge(entries)
		}
	}
	return entries, nil
}

func merge(entries []raftpb.Entry) ([]raftpb.Entry, error) {
	out := make([]raftpb.Entry, 0, len(entries))
	for _, e := range entries {
		if n := len(out); n > 0 {
			if e.Index > out[n-1].Index+1 {
				return nil, fmt.Errorf("wal: entry %d follows entry %d", e.Index, out[n-1].Index)
			}
			keep := max(e.Index, out[0].Index) - out[0].Index
			out = out[:keep]
		}
		out = append(out, e)
	}
	return out, nil
}

// checkEntries refuses entries that raft can never mean to append: they would leave a gap or replace what is committed.
func checkEntries(entries []raftpb.Entry, hard raftpb.HardState, trunc point, last uint64) error {
	first := entries[0].Index
	switch {
	case first > last+1:
		return fmt.Errorf("wal: entry %d follows entry %d", first, last)
	case first <= trunc.index:
		return fmt.Errorf("wal: entry %d was removed by a truncation at %d: %w", first, trunc.index, ErrCompacted)
	case first <= hard.Commit:
		return fmt.Errorf("wal: entry %d would replace a committed one: the commit index is %d", first, hard.Commit)
	}
	return nil
}

// nextHardState returns the hard state after next, refusing to take a promise back.
func nextHardState(old, next raftpb.HardState) (raftpb.HardState, error) {
	if next == (raftpb.HardState{}) {
		return old, nil
	}
	if next.Term < old.Term {
		return old, fmt.Errorf("wal: term %d follows term %d", next.Term, old.Term)
	}
	if next.Term == old.Term && old.Vote != 0 && next.Vote != old.Vote {
		return old, fmt.Errorf("wal: vote for %d in term %d follows a vote for %d", next.Vote, next.Term, old.Vote)
	}
	next.Commit = max(next.Commit, old.Commit)
	return next, nil
}

// split appends to parts the pieces of entries that fit a frame each; nearly always that is one.
func (l *Log) split(parts [][]raftpb.Entry, entries []raftpb.Entry) ([][]raftpb.Entry, error) {
	room := roomInNew(l.opts.SegmentBytes)
	if frameBytes(entries) <= room {
		return append(parts, entries), nil
	}
	start := 0
	size := int64(frameHeaderBytes)
	for i := range entries {
		need := descriptorBytes + int64(len(entries[i].Data))
		if roundUp(frameHeaderBytes+need, frameAlign) > room {
			return nil, fmt.Errorf("wal: entry %d of %d bytes: %w", entries[i].Index, len(entries[i].Data), ErrTooLarge)
		}
		if roundUp(size+need, frameAlign) > room {
			parts = append(parts, entries[start:i])
			start, size = i, frameHeaderBytes
		}
		size += need
	}
	return append(parts, entries[start:]), nil
}

// roomInNew returns the length of the longest frame in a new segment of size bytes: a frame header's worth is kept for the frame that Close writes.
func roomInNew(size int64) int64 { return size - segmentHeaderBytes - frameHeaderBytes }

// write writes f at the end of the log, without a sync of its own, and appends to l.locs where its entries are. An error before anything was written
// leaves the Log as it was; any other ends it. writeMu is held.
func (l *Log) write(f frame) (placed, error) {
	length := frameBytes(f.entries)
	reserve := int64(frameHeaderBytes)
	if f.flags&flagClosed != 0 {
		reserve = 0
	}
	if l.rotate || length > l.active.size-l.end-reserve {
		if err := l.nextSegment(); err != nil {
			return placed{}, err
		}
	}
	p := placed{seg: l.active, count: len(f.entries)}
	if p.count > 0 {
		p.first = f.entries[0].Index
	}
	l.encode(f, length)
	padding := min(roundUp(l.end+length, pageBytes), l.active.size) - (l.end + length)
	align := length - int64(len(l.header))
	for i := range f.entries {
		l.gather = append(l.gather, f.entries[i].Data)
		align -= int64(len(f.entries[i].Data))
	}
	l.gather = append(l.gather, zeros[:align+padding])
	n, err := l.active.file.WriteVAt(l.gather, l.end)
	clear(l.gather)
	l.gather = l.gather[:0]
	if err != nil {
		return placed{}, l.fail(fmt.Errorf("write %d bytes at %d of %s: %w", length, l.end, l.active.name, err))
	}
	l.end += length
	l.closed = false
	l.mu.Lock()
	l.stats.AppendedBytes += uint64(n)
	l.mu.Unlock()
	return p, nil
}

// encode puts the header and the descriptors of f into l.header, that into l.gather, and where the entries will be into l.locs.
func (l *Log) encode(f frame, length int64) {
	h := frameHeader{
		salt:    l.active.salt,
		offset:  l.end,
		synced:  l.synced,
		prevEnd: l.prevEnd,
		hard:    f.hard,
		trunc:   f.trunc,
		count:   len(f.entries),
		length:  length,
		flags:   f.flags,
	}
	if h.count > 0 {
		h.first = f.entries[0].Index
	}
	if need := int(h.dataOffset()); cap(l.header) < need {
		l.header = make([]byte, need)
	} else {
		l.header = l.header[:need]
	}
	off := l.end + h.dataOffset()
	for i := range f.entries {
		e := &f.entries[i]
		d := descriptor{term: e.Term, length: uint32(len(e.Data)), checksum: checksum(e.Data), kind: e.Type}
		d.encode(l.header[frameHeaderBytes+i*descriptorBytes:])
		l.locs = append(l.locs, loc{uint32(off), d.length, d.checksum, d.kind})
		off += int64(d.length)
	}
	h.descriptor = checksum(l.header[frameHeaderBytes:])
	h.encode(l.header)
	l.gather = append(l.gather, l.header)
}

// sync makes the active segment durable. writeMu is held.
func (l *Log) sync() error {
	if l.synced == l.end {
		return nil
	}
	start := l.opts.Now()
	if err := l.active.file.Sync(); err != nil {
		return l.fail(fmt.Errorf("sync %s: %w", l.active.name, err))
	}
	took := l.opts.Now().Sub(start)
	l.synced = l.end
	l.noteSync(took)
	return nil
}

func (l *Log) noteSync(took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Syncs++
	l.stats.LastSync = took
	l.stats.SlowestSync = max(l.stats.SlowestSync, took)
}
