package wal

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
)

// TruncatePrefix declares the entries up to index unneeded: FirstIndex becomes index+1, and segments without any other entries are given back. The
// term of index stays known. After a crash FirstIndex may be lower again, but only down to entries that are still there.
func (l *Log) TruncatePrefix(index uint64) error {
	if err := l.truncateTo(index); err != nil {
		return err
	}
	return l.recycle()
}

func (l *Log) truncateTo(index uint64) error {
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	if err := l.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	if index <= l.trunc.index {
		l.mu.Unlock()
		return nil
	}
	if index > l.last {
		defer l.mu.Unlock()
		return fmt.Errorf("wal: truncate at %d: the last entry is %d: %w", index, l.last, ErrUnavailable)
	}
	to := point{index, l.terms.at(index)}
	if l.removableLocked(index) == 0 {
		// No entry goes, so nothing depends on this being durable: the next frame tells it.
		l.beginAfterLocked(to)
		l.mu.Unlock()
		return nil
	}
	f := frame{hard: l.hard, trunc: to}
	l.mu.Unlock()
	if _, err := l.write(f); err != nil {
		return err
	}
	if err := l.sync(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.beginAfterLocked(to)
	return nil
}

// beginAfterLocked moves the beginning of the log. l.mu is held.
func (l *Log) beginAfterLocked(to point) {
	l.trunc = to
	l.terms.forget(to.index)
	l.cache.forget(to.index)
}

// removableLocked returns how many of the oldest segments hold no entry behind index. The active one is never among them. l.mu is held.
func (l *Log) removableLocked(index uint64) int {
	n := 0
	for n < len(l.segs)-1 && l.segs[n].lastLocked() <= index {
		n++
	}
	return n
}

// recycle gives back the segments that hold nothing of the log any more.
func (l *Log) recycle() error {
	l.dirMu.Lock()
	defer l.dirMu.Unlock()
	l.mu.Lock()
	if l.failed != nil {
		defer l.mu.Unlock()
		return l.failed
	}
	n := l.removableLocked(l.trunc.index)
	gone := l.segs[:n:n]
	l.segs = append([]*segment(nil), l.segs[n:]...)
	for _, s := range gone {
		s.detached = true
		s.locs = nil
	}
	l.mu.Unlock()
	if n == 0 {
		return nil
	}
	if err := l.retire(gone); err != nil {
		return l.fail(fmt.Errorf("recycle segments: %w", err))
	}
	return nil
}

// Reset drops all entries and makes the log go on after (index, term), the last entry that a snapshot covers. It also raises Commit to index, and Term to
// term, without a vote, if they are lower. It happens wholly or not at all.
func (l *Log) Reset(index, term uint64) error {
	if err := l.resetTo(point{index, term}); err != nil {
		return err
	}
	return l.recycle()
}

func (l *Log) resetTo(to point) error {
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	if err := l.Err(); err != nil {
		return err
	}
	hard := l.HardState()
	if to.index < hard.Commit {
		return fmt.Errorf("wal: reset to %d: entries up to %d are committed", to.index, hard.Commit)
	}
	if first := l.FirstIndex(); to.index+1 < first {
		return fmt.Errorf("wal: reset to %d: the log begins with %d", to.index, first)
	}
	hard.Commit = to.index
	if hard.Term < to.term {
		hard = raftpb.HardState{Term: to.term, Commit: to.index}
	}
	if _, err := l.write(frame{hard: hard, trunc: to, flags: flagReset}); err != nil {
		return err
	}
	if err := l.sync(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.resetLocked(to)
	l.hard = hard
	return nil
}

// resetLocked empties the index. l.mu is held.
func (l *Log) resetLocked(to point) {
	for _, s := range l.segs {
		s.locs = nil
	}
	l.terms = nil
	l.cache.entries, l.cache.bytes = nil, 0
	l.trunc, l.last = to, to.index
}
