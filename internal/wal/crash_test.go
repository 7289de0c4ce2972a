package wal

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"holdfast/internal/vfs"
)

var crashRuns = flag.Int("crash.runs", 200, "runs of TestCrashes, each with many crashes")

// model is what the log should hold.
type model struct {
	entries map[uint64]raftpb.Entry // those before first too, until they are known to be gone
	first   uint64
	last    uint64
	hard    raftpb.HardState
	trunc   uint64 // term of first-1
}

func newModel() *model { return &model{entries: map[uint64]raftpb.Entry{}, first: 1} }

func (m *model) clone() *model {
	c := *m
	c.entries = maps.Clone(m.entries)
	return &c
}

func (m *model) append(entries []raftpb.Entry) {
	for _, e := range entries {
		for i := e.Index; i <= m.last; i++ {
			delete(m.entries, i)
		}
		m.entries[e.Index] = e
		m.last = e.Index
	}
}

func (m *model) reset(index, term uint64) {
	m.entries = map[uint64]raftpb.Entry{index: {Index: index, Term: term}} // only its term is ever asked for
	m.first, m.last, m.trunc = index+1, index, term
	m.hard.Commit = index
	if m.hard.Term < term {
		m.hard = raftpb.HardState{Term: term, Commit: index}
	}
}

// matches says how l differs from m. The beginning of l may be earlier, down to entries that were there.
func (m *model) matches(l *Log) error {
	if l.LastIndex() != m.last {
		return fmt.Errorf("last entry %d, want %d", l.LastIndex(), m.last)
	}
	if l.HardState() != m.hard {
		return fmt.Errorf("hard state %+v, want %+v", l.HardState(), m.hard)
	}
	first := l.FirstIndex()
	if first > m.first {
		return fmt.Errorf("first entry %d, want %d", first, m.first)
	}
	if first <= m.last {
		got, err := l.Entries(first, m.last+1, 1<<62)
		if err != nil {
			return err
		}
		for i, e := range got {
			want, ok := m.entries[first+uint64(i)]
			if !ok || !sameEntry(e, want) {
				return fmt.Errorf("entry %d is not what was appended", first+uint64(i))
			}
		}
	}
	term, err := l.Term(first - 1)
	want := m.trunc
	if first < m.first {
		want = m.entries[first-1].Term
	}
	if err != nil || term != want {
		return fmt.Errorf("Term(%d) = %d, %v, want %d", first-1, term, err, want)
	}
	return nil
}

// crashRun drives a log from a seed. possible are the states that a crash now may leave: the newest durable one, then one for every
// unsynced or unfinished change since.
type crashRun struct {
	t        *testing.T
	rand     *rand.Rand
	fs       *vfs.Sim
	opts     Options
	log      *Log
	now      *model
	possible []*model
	term     uint64
	crashes  int
}

// durable notes that nothing older than now can come back.
func (r *crashRun) durable() { r.possible = []*model{r.now.clone()} }

func (r *crashRun) step() error {
	switch k := r.rand.IntN(20); {
	case k < 11:
		return r.append()
	case k < 15:
		return r.commit()
	case k < 18:
		return r.truncate()
	case k < 19:
		return r.reset()
	default:
		if err := r.log.Close(); err != nil {
			return err
		}
		r.durable()
		defer r.armPowerCut()
		return r.open()
	}
}

func (r *crashRun) armPowerCut() { r.fs.StopAfter(1 + r.rand.IntN(60)) }

func (r *crashRun) append() error {
	first := r.now.last + 1
	if r.rand.IntN(4) == 0 {
		first -= uint64(r.rand.Int64N(int64(r.now.last - max(r.now.hard.Commit, r.now.first-1) + 1)))
		r.term++
	}
	count := 1 + r.rand.IntN(4)
	sizes := 3000
	if r.rand.IntN(8) == 0 {
		count += 10 // more than fits a segment
	}
	if r.rand.IntN(2) == 0 {
		sizes = 30
	}
	var entries []raftpb.Entry
	for i := range count {
		e := entry(first+uint64(i), r.term, r.rand.IntN(sizes))
		for k := range e.Data {
			e.Data[k] = byte(r.rand.Uint32())
		}
		entries = append(entries, e)
	}
	hard := r.now.hard
	if hard.Term != r.term {
		hard.Term, hard.Vote = r.term, r.rand.Uint64N(3)
	}
	base := r.now.clone()
	// A batch in parts may leave a prefix of its entries; and whatever else changes is in every part but the commit index.
	for i := range entries {
		m := base.clone()
		m.append(entries[:i+1])
		m.hard.Term, m.hard.Vote = hard.Term, hard.Vote
		r.possible = append(r.possible, m)
	}
	r.now.append(entries)
	hard.Commit += uint64(r.rand.Int64N(int64(r.now.last - hard.Commit + 1)))
	r.now.hard = hard
	r.possible = append(r.possible, r.now.clone())
	if err := r.log.Append(Batch{Entries: entries, HardState: hard}); err != nil {
		return err
	}
	r.durable()
	return nil
}

func (r *crashRun) commit() error {
	r.now.hard.Commit += uint64(r.rand.Int64N(int64(r.now.last - r.now.hard.Commit + 1)))
	r.possible = append(r.possible, r.now.clone())
	return r.log.Append(Batch{HardState: r.now.hard, NoSync: true})
}

func (r *crashRun) truncate() error {
	if r.now.hard.Commit < r.now.first {
		return nil
	}
	index := r.now.first + uint64(r.rand.Int64N(int64(r.now.hard.Commit-r.now.first+1)))
	r.now.trunc = r.now.entries[index].Term
	r.now.first = index + 1
	for _, m := range r.possible { // where the log begins is checked against the newest
		m.first, m.trunc = r.now.first, r.now.trunc
	}
	return r.log.TruncatePrefix(index)
}

func (r *crashRun) reset() error {
	index := r.now.hard.Commit + uint64(r.rand.IntN(50))
	if index == 0 {
		return nil
	}
	r.term++
	r.now.reset(index, r.term)
	r.possible = append(r.possible, r.now.clone())
	if err := r.log.Reset(index, r.term); err != nil {
		return err
	}
	r.durable()
	return nil
}

// open opens the log, with crashes on the way, until it is open, and checks what it holds.
func (r *crashRun) open() error {
	for {
		if r.rand.IntN(3) == 0 {
			r.fs.StopAfter(1 + r.rand.IntN(12))
		}
		l, err := Open(r.fs, testDir, r.opts)
		if errors.Is(err, vfs.ErrStopped) {
			r.fs.Crash()
			r.crashes++
			continue
		}
		r.fs.StopAfter(0)
		if err != nil {
			return fmt.Errorf("open: %w", err)
		}
		r.log = l
		break
	}
	var why error
	for _, m := range r.possible {
		err := m.matches(r.log)
		if err == nil {
			// Open has made durable what it found.
			r.now = m.clone()
			for i := range r.now.entries {
				if i < r.log.FirstIndex()-1 {
					delete(r.now.entries, i)
				}
			}
			r.durable()
			return nil
		}
		why = errors.Join(why, err)
	}
	return fmt.Errorf("the log is none of the %d possible ones:\n%w", len(r.possible), why)
}

func (r *crashRun) run(crashes int) error {
	r.durable()
	if err := r.open(); err != nil {
		return err
	}
	for r.crashes < crashes {
		r.armPowerCut()
		for !r.fs.Stopped() {
			if err := r.step(); err != nil && !errors.Is(err, vfs.ErrStopped) {
				return err
			}
		}
		r.fs.Crash()
		r.crashes++
		if err := r.open(); err != nil {
			return err
		}
	}
	return nil
}

// TestCrashes appends, commits, truncates and resets at random, cuts the power at random and checks that the log is what it had promised to be.
func TestCrashes(t *testing.T) {
	for seed := range uint64(*crashRuns) {
		fsys := vfs.NewSim(seed)
		fsys.SetTornSectors(seed%3 == 0)
		rnd := newRand(seed)
		opts := testOptions(rnd)
		opts.Spares = int(seed%4) - 1
		r := &crashRun{t: t, rand: rnd, fs: fsys, opts: opts, now: newModel(), term: 1}
		if err := r.run(20); err != nil {
			t.Fatalf("seed %d, crash %d: %v\n%s", seed, r.crashes, err, fsys)
		}
	}
}
