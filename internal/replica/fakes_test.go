package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"holdfast/internal/wal"
)

var quiet = slog.New(slog.DiscardHandler)

// memLog is a Log in memory: what Append was given is there and durable.
type memLog struct {
	mu      sync.RWMutex
	hs      raftpb.HardState
	trunc   uint64
	term    uint64 // of trunc
	entries []raftpb.Entry
	err     error // what Append returns
}

func (l *memLog) FirstIndex() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.trunc + 1
}

func (l *memLog) LastIndex() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.trunc + uint64(len(l.entries))
}

func (l *memLog) Term(i uint64) (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	switch {
	case i == l.trunc:
		return l.term, nil
	case i < l.trunc:
		return 0, raft.ErrCompacted
	case i > l.trunc+uint64(len(l.entries)):
		return 0, raft.ErrUnavailable
	}
	return l.entries[i-l.trunc-1].Term, nil
}

func (l *memLog) Entries(lo, hi, maxBytes uint64) ([]raftpb.Entry, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if lo <= l.trunc {
		return nil, raft.ErrCompacted
	}
	if hi > l.trunc+uint64(len(l.entries))+1 {
		return nil, raft.ErrUnavailable
	}
	var out []raftpb.Entry
	size := uint64(0)
	for _, e := range l.entries[lo-l.trunc-1 : hi-l.trunc-1] {
		size += uint64(e.Size())
		if size > maxBytes && len(out) > 0 {
			break
		}
		out = append(out, e)
	}
	return out, nil
}

func (l *memLog) HardState() raftpb.HardState {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.hs
}

func (l *memLog) Append(b wal.Batch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	for _, e := range b.Entries {
		if e.Index <= l.trunc || e.Index > l.trunc+uint64(len(l.entries))+1 {
			return fmt.Errorf("entry %d does not follow (%d, %d]", e.Index, l.trunc, l.trunc+uint64(len(l.entries)))
		}
		if keep := e.Index - l.trunc - 1; keep < uint64(len(l.entries)) {
			l.entries = slices.Clip(l.entries[:keep])
		}
		l.entries = append(l.entries, e)
	}
	if b.HardState != (raftpb.HardState{}) {
		if b.HardState.Term < l.hs.Term || (b.HardState.Term == l.hs.Term && l.hs.Vote != 0 && b.HardState.Vote != l.hs.Vote) {
			return fmt.Errorf("hard state %v after %v", b.HardState, l.hs)
		}
		b.HardState.Commit = max(b.HardState.Commit, l.hs.Commit)
		l.hs = b.HardState
	}
	return nil
}

func (l *memLog) Reset(index, term uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if index < l.hs.Commit {
		return fmt.Errorf("reset to %d below commit %d", index, l.hs.Commit)
	}
	l.trunc, l.term, l.entries = index, term, nil
	l.hs.Commit = index
	if l.hs.Term < term {
		l.hs.Term, l.hs.Vote = term, 0
	}
	return nil
}

func (l *memLog) TruncatePrefix(index uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if index <= l.trunc {
		return nil
	}
	l.term = l.entries[index-l.trunc-1].Term
	l.entries = slices.Clone(l.entries[index-l.trunc:])
	l.trunc = index
	return nil
}

// memMeta is a MetaStore in memory.
type memMeta struct {
	mu sync.Mutex
	m  *Meta
}

func (s *memMeta) Load() (*Meta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		return nil, nil
	}
	m := *s.m
	return &m, nil
}

func (s *memMeta) Save(m *Meta) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := *m
	s.m = &c
	return nil
}

// toySM is a state machine whose state is a hash of all entries and a map of the last values of keys. A crash takes it back to the last
// checkpoint, or to anything since.
type toySM struct {
	mu      sync.Mutex
	state   toyState
	durable toyState
	// replay is from where entries must be seen by Redo after a crash.
	redone  int
	padding int // bytes of ballast in a snapshot
	failing error
}

type toyState struct {
	applied uint64
	hash    uint64
	keys    map[string]uint64
}

func (s toyState) clone() toyState {
	s.keys = maps.Clone(s.keys)
	return s
}

func newToySM() *toySM {
	return &toySM{state: toyState{keys: map[string]uint64{}}, durable: toyState{keys: map[string]uint64{}}}
}

func (s *toySM) Applied() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.applied
}

func (s *toySM) ReplayFrom() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.durable.applied + 1
}

func (s *toySM) Redo(uint64, []byte) error { s.redone++; return nil }

func (s *toySM) Apply(index uint64, entry []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing != nil {
		return nil, s.failing
	}
	if index != s.state.applied+1 {
		return nil, fmt.Errorf("apply %d after %d", index, s.state.applied)
	}
	s.advance(index, entry)
	return entry, nil
}

func (s *toySM) advance(index uint64, entry []byte) {
	h := fnv.New64a()
	h.Write(binary.BigEndian.AppendUint64(nil, s.state.hash))
	h.Write(binary.BigEndian.AppendUint64(nil, index))
	h.Write(entry)
	s.state.hash, s.state.applied = h.Sum64(), index
}

func (s *toySM) AdvanceTo(index uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(index, nil)
	return nil
}

func (s *toySM) Checkpoint(context.Context) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.durable = s.state.clone()
	return s.state.applied, nil
}

type toySnapshot struct {
	toyState
	padding int
}

func (s toySnapshot) Index() uint64 { return s.applied }
func (s toySnapshot) Close() error  { return nil }
func (s toySnapshot) WriteTo(w io.Writer) (int64, error) {
	b := binary.BigEndian.AppendUint64(nil, s.applied)
	b = binary.BigEndian.AppendUint64(b, s.hash)
	n, err := w.Write(append(b, make([]byte, s.padding)...))
	return int64(n), err
}

func (s *toySM) Snapshot(uint64) (Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return toySnapshot{s.state.clone(), s.padding}, nil
}

func (s *toySM) Install(r io.Reader) error {
	s.mu.Lock()
	s.state = toyState{keys: map[string]uint64{}}
	s.durable = s.state
	s.mu.Unlock()
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if len(b) < 16 {
		return errors.New("short snapshot")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = toyState{applied: binary.BigEndian.Uint64(b), hash: binary.BigEndian.Uint64(b[8:]), keys: map[string]uint64{}}
	s.durable = s.state.clone()
	return nil
}

func (s *toySM) hash() (applied, hash uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.applied, s.state.hash
}
