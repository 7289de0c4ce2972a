package wal

import (
	"sort"

	"go.etcd.io/raft/v3/raftpb"
)

// loc says where in a segment an entry's data is. 16 bytes an entry, so a million entries cost 16 MB; terms are kept in runs.
type loc struct {
	off      uint32
	length   uint32
	checksum uint32
	kind     raftpb.EntryType
}

// termRuns gives the term of each index. A run begins at its first index and ends where the next one begins; terms never go down along the log.
type termRuns []point

// add notes that the entry at index, the next one, has term.
func (t *termRuns) add(index, term uint64) {
	if n := len(*t); n == 0 || (*t)[n-1].term != term {
		*t = append(*t, point{index, term})
	}
}

// cut forgets the entries from index on.
func (t *termRuns) cut(index uint64) {
	n := sort.Search(len(*t), func(i int) bool { return (*t)[i].index >= index })
	*t = (*t)[:n]
}

// forget drops runs that end at or before index.
func (t *termRuns) forget(index uint64) {
	n := sort.Search(len(*t), func(i int) bool { return (*t)[i].index > index+1 })
	if n > 1 {
		*t = append((*t)[:0], (*t)[n-1:]...)
	}
}

// at returns the term of index, which must be in the log.
func (t termRuns) at(index uint64) uint64 {
	n := sort.Search(len(t), func(i int) bool { return t[i].index > index })
	if n == 0 {
		return 0
	}
	return t[n-1].term
}

// truncateLocked forgets the entries from index on. l.mu is held.
func (l *Log) truncateLocked(index uint64) {
	for i := len(l.segs) - 1; i >= 0; i-- {
		s := l.segs[i]
		if len(s.locs) == 0 {
			continue
		}
		if s.first < index {
			s.locs = s.locs[:min(uint64(len(s.locs)), index-s.first)]
			break
		}
		s.locs = nil
	}
	l.terms.cut(index)
	l.cache.cut(index)
	l.last = index - 1
}

// indexLocked adds the entries of a frame in seg to the index. l.mu is held.
func (l *Log) indexLocked(seg *segment, first uint64, locs []loc) {
	if len(seg.locs) == 0 {
		seg.first = first
	}
	seg.locs = append(seg.locs, locs...)
	l.last = first + uint64(len(locs)) - 1
}

// findLocked returns the segment that holds the entry at index, which must be in the log. l.mu is held.
func (l *Log) findLocked(index uint64) *segment {
	for i := len(l.segs) - 1; i >= 0; i-- {
		if s := l.segs[i]; len(s.locs) > 0 && s.first <= index {
			return s
		}
	}
	return nil
}
