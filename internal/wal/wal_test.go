package wal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"holdfast/internal/vfs"
)

const testDir = "/data/log"

// testOptions make small segments and everything deterministic.
func testOptions(r *rand.Rand) Options {
	return Options{SegmentBytes: MinSegmentBytes, SyncPrepare: true, Rand: r.Uint64, CacheBytes: 8 << 10}
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

func mustOpen(t *testing.T, fsys vfs.FS, opts Options) *Log {
	t.Helper()
	l, err := Open(fsys, testDir, opts)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// entry returns an entry whose data follow from its index and term.
func entry(index, term uint64, size int) raftpb.Entry {
	return raftpb.Entry{Index: index, Term: term, Data: bytes.Repeat([]byte{byte(index), byte(term), 7}, size/3+1)[:size]}
}

func span(first, last, term uint64, size int) []raftpb.Entry {
	var out []raftpb.Entry
	for i := first; i <= last; i++ {
		out = append(out, entry(i, term, size))
	}
	return out
}

func sameEntry(a, b raftpb.Entry) bool {
	return a.Index == b.Index && a.Term == b.Term && a.Type == b.Type && bytes.Equal(a.Data, b.Data)
}

// wantLog checks that the log holds exactly want, which begins at first.
func wantLog(t *testing.T, l *Log, first uint64, want []raftpb.Entry) {
	t.Helper()
	last := first + uint64(len(want)) - 1
	if l.FirstIndex() != first || l.LastIndex() != last {
		t.Fatalf("log holds %d to %d, want %d to %d", l.FirstIndex(), l.LastIndex(), first, last)
	}
	got, err := l.Entries(first, last+1, 1<<62)
	must(t, err)
	if !slices.EqualFunc(got, want, sameEntry) {
		t.Fatalf("entries differ: got %d, want %d", len(got), len(want))
	}
	for _, e := range want {
		if term, err := l.Term(e.Index); term != e.Term || err != nil {
			t.Fatalf("Term(%d) = %d, %v, want %d", e.Index, term, err, e.Term)
		}
	}
}

func TestAppendAndReopen(t *testing.T) {
	fsys := vfs.NewSim(1)
	opts := testOptions(newRand(1))
	l := mustOpen(t, fsys, opts)
	wantLog(t, l, 1, nil)
	hs := raftpb.HardState{Term: 3, Vote: 2, Commit: 4}
	must(t, l.Append(Batch{Entries: span(1, 5, 1, 1000), HardState: raftpb.HardState{Term: 1}}))
	must(t, l.Append(Batch{Entries: []raftpb.Entry{entry(4, 2, 10), {Index: 5, Term: 3, Type: raftpb.EntryConfChange}}, HardState: hs}))
	want := append(span(1, 3, 1, 1000), entry(4, 2, 10), raftpb.Entry{Index: 5, Term: 3, Type: raftpb.EntryConfChange})
	wantLog(t, l, 1, want)
	must(t, l.Close())
	if err := l.Append(Batch{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Append after Close: %v", err)
	}
	fsys.Crash()
	l = mustOpen(t, fsys, opts)
	wantLog(t, l, 1, want)
	if l.HardState() != hs {
		t.Errorf("hard state %+v, want %+v", l.HardState(), hs)
	}
	if _, err := l.Term(6); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Term(6): %v", err)
	}
	if _, err := l.Entries(1, 7, 1); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Entries(1, 7): %v", err)
	}
}

func TestOneWriteAndOneSync(t *testing.T) {
	fsys := vfs.NewSim(1)
	l := mustOpen(t, fsys, testOptions(newRand(1)))
	before := fsys.Counters()
	must(t, l.Append(Batch{Entries: span(1, 20, 1, 100), HardState: raftpb.HardState{Term: 1, Vote: 1}}))
	after := fsys.Counters()
	if after.Writes-before.Writes != 1 || after.Syncs-before.Syncs != 1 || after.DirSyncs != before.DirSyncs {
		t.Errorf("one Append: %+v, before it %+v", after, before)
	}
	must(t, l.Append(Batch{HardState: raftpb.HardState{Term: 1, Vote: 1, Commit: 2}, NoSync: true}))
	if c := fsys.Counters(); c.Syncs != after.Syncs || c.Writes != after.Writes+1 {
		t.Errorf("unsynced commit: %+v, before it %+v", c, after)
	}
	must(t, l.Append(Batch{HardState: raftpb.HardState{Term: 2, Commit: 2}, NoSync: true}))
	if c := fsys.Counters(); c.Syncs != after.Syncs+1 {
		t.Error("NoSync left a new term unsynced")
	}
	must(t, l.Append(Batch{HardState: raftpb.HardState{Term: 2, Commit: 3}, NoSync: true}))
	must(t, l.Append(Batch{}))
	must(t, l.Append(Batch{}))
	if c := fsys.Counters(); c.Syncs != after.Syncs+2 {
		t.Errorf("%d syncs, want the first empty batch to make one", c.Syncs-after.Syncs-1)
	}
}

func TestAppendRefuses(t *testing.T) {
	l := mustOpen(t, vfs.NewSim(1), testOptions(newRand(1)))
	must(t, l.Append(Batch{Entries: span(1, 10, 2, 10), HardState: raftpb.HardState{Term: 2, Vote: 1, Commit: 5}}))
	must(t, l.TruncatePrefix(3))
	tests := []struct {
		name  string
		batch Batch
		is    error
	}{
		{"gap", Batch{Entries: span(12, 12, 2, 1)}, nil},
		{"gap inside", Batch{Entries: []raftpb.Entry{entry(11, 2, 1), entry(13, 2, 1)}}, nil},
		{"committed", Batch{Entries: span(5, 6, 3, 1)}, nil},
		{"truncated", Batch{Entries: span(3, 4, 3, 1)}, ErrCompacted},
		{"commit beyond the end", Batch{HardState: raftpb.HardState{Term: 2, Vote: 1, Commit: 11}}, nil},
		{"older term", Batch{HardState: raftpb.HardState{Term: 1, Vote: 1}}, nil},
		{"second vote", Batch{HardState: raftpb.HardState{Term: 2, Vote: 3}}, nil},
		{"huge", Batch{Entries: span(11, 11, 2, MinSegmentBytes)}, ErrTooLarge},
		{"huge after a small one", Batch{Entries: []raftpb.Entry{entry(11, 2, 1), entry(12, 2, MinSegmentBytes)}}, ErrTooLarge},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := l.Append(test.batch)
			if err == nil || test.is != nil && !errors.Is(err, test.is) || errors.Is(err, ErrFailed) {
				t.Errorf("Append: %v", err)
			}
			wantLog(t, l, 4, span(4, 10, 2, 10))
		})
	}
	must(t, l.Append(Batch{Entries: span(11, 11, 2, 1), HardState: raftpb.HardState{Term: 2, Vote: 1, Commit: 4}}))
	if c := l.HardState().Commit; c != 5 {
		t.Errorf("commit index went back to %d", c)
	}
}

func TestMergedBatch(t *testing.T) {
	l := mustOpen(t, vfs.NewSim(1), testOptions(newRand(1)))
	batch := append(span(1, 5, 1, 10), span(3, 4, 2, 10)...)
	batch = append(batch, span(4, 6, 3, 10)...)
	must(t, l.Append(Batch{Entries: batch}))
	want := append(span(1, 2, 1, 10), entry(3, 2, 10))
	wantLog(t, l, 1, append(want, span(4, 6, 3, 10)...))
	must(t, l.Append(Batch{Entries: append(span(6, 7, 4, 10), span(5, 5, 5, 10)...)}))
	wantLog(t, l, 1, append(want, entry(4, 3, 10), entry(5, 5, 10)))
}

func TestBatchLargerThanSegment(t *testing.T) {
	fsys := vfs.NewSim(1)
	opts := testOptions(newRand(1))
	l := mustOpen(t, fsys, opts)
	want := span(1, 50, 1, 3000)
	must(t, l.Append(Batch{Entries: want, HardState: raftpb.HardState{Term: 1, Commit: 50}}))
	wantLog(t, l, 1, want)
	fsys.Crash()
	l = mustOpen(t, fsys, opts)
	wantLog(t, l, 1, want)
	if s := l.Stats(); s.Segments < 10 || s.SegmentBytes != int64(s.Segments)*MinSegmentBytes {
		t.Errorf("stats %+v", s)
	}
}

func TestEntriesLimit(t *testing.T) {
	for _, cacheBytes := range []int64{-1, 3000, 1 << 20} {
		t.Run(fmt.Sprint(cacheBytes), func(t *testing.T) {
			opts := testOptions(newRand(1))
			opts.CacheBytes = cacheBytes
			l := mustOpen(t, vfs.NewSim(1), opts)
			want := span(1, 60, 1, 1000)
			for i := range want {
				must(t, l.Append(Batch{Entries: want[i : i+1]}))
			}
			for lo := uint64(1); lo <= 60; lo++ {
				for n, limit := range []uint64{0, 1, 2500, 5300} {
					got, err := l.Entries(lo, 61, limit)
					must(t, err)
					count := min([]int{1, 1, 2, 5}[n], int(61-lo))
					if !slices.EqualFunc(got, want[lo-1:int(lo)-1+count], sameEntry) {
						t.Fatalf("Entries(%d, 61, %d): %d entries, want %d", lo, limit, len(got), count)
					}
				}
			}
			if got, err := l.Entries(5, 5, 100); len(got) != 0 || err != nil {
				t.Errorf("empty range: %v, %v", got, err)
			}
			if s := l.Stats(); s.CacheBytes > max(cacheBytes, 0) {
				t.Errorf("cache holds %d bytes of %d", s.CacheBytes, cacheBytes)
			}
		})
	}
}

func TestTruncateAndRecycle(t *testing.T) {
	fsys := vfs.NewSim(1)
	opts := testOptions(newRand(1))
	l := mustOpen(t, fsys, opts)
	index := uint64(0)
	grow := func(n uint64) {
		for range n {
			index++
			must(t, l.Append(Batch{Entries: span(index, index, 1+index/100, 1000)}))
		}
	}
	grow(150)
	must(t, l.TruncatePrefix(120))
	if s := l.Stats(); s.FirstIndex != 121 || s.Segments > 5 || s.Spares < 5 {
		t.Errorf("after truncation: %+v", s)
	}
	if _, err := l.Entries(120, 122, 1); !errors.Is(err, ErrCompacted) {
		t.Errorf("Entries of what was truncated: %v", err)
	}
	if term, err := l.Term(120); term != 2 || err != nil {
		t.Errorf("Term(120): %d, %v", term, err)
	}
	if _, err := l.Term(119); !errors.Is(err, ErrCompacted) {
		t.Errorf("Term(119): %v", err)
	}
	if err := l.TruncatePrefix(151); !errors.Is(err, ErrUnavailable) {
		t.Errorf("TruncatePrefix beyond the end: %v", err)
	}
	must(t, l.TruncatePrefix(100))
	spares := l.Stats().Spares
	files, err := fsys.List(testDir)
	must(t, err)
	grow(30)
	if s := l.Stats(); s.Spares >= spares {
		t.Errorf("spares were not used: %d before, %d after", spares, s.Spares)
	}
	if now, err := fsys.List(testDir); err != nil || len(now) > len(files) {
		t.Errorf("files were added though there are spares: %q", now)
	}
	must(t, l.TruncatePrefix(index))
	wantLog(t, l, index+1, nil)
	for range 2 {
		fsys.Crash()
		l = mustOpen(t, fsys, opts)
		wantLog(t, l, index+1, nil)
		if term, err := l.Term(index); term != 2 || err != nil {
			t.Errorf("Term(%d): %d, %v", index, term, err)
		}
	}
	grow(1)
	wantLog(t, l, index, span(index, index, 2, 1000))
}

func TestReset(t *testing.T) {
	fsys := vfs.NewSim(1)
	opts := testOptions(newRand(1))
	l := mustOpen(t, fsys, opts)
	must(t, l.Append(Batch{Entries: span(1, 60, 1, 1000), HardState: raftpb.HardState{Term: 2, Vote: 1, Commit: 10}}))
	if err := l.Reset(9, 1); err == nil {
		t.Error("Reset below the commit index went through")
	}
	must(t, l.Reset(500, 7))
	check := func(want []raftpb.Entry) {
		t.Helper()
		wantLog(t, l, 501, want)
		if term, err := l.Term(500); term != 7 || err != nil {
			t.Errorf("Term(500): %d, %v", term, err)
		}
		if hs := l.HardState(); hs != (raftpb.HardState{Term: 7, Commit: 500}) {
			t.Errorf("hard state %+v", hs)
		}
	}
	check(nil)
	fsys.Crash()
	l = mustOpen(t, fsys, opts)
	check(nil)
	must(t, l.Append(Batch{Entries: span(501, 540, 7, 1000)}))
	fsys.Crash()
	l = mustOpen(t, fsys, opts)
	check(span(501, 540, 7, 1000))
	must(t, l.Reset(520, 7)) // a snapshot may also end within the log
	wantLog(t, l, 521, nil)
}

func TestFailedSyncEndsLog(t *testing.T) {
	fsys := vfs.NewSim(1)
	opts := testOptions(newRand(1))
	l := mustOpen(t, fsys, opts)
	must(t, l.Append(Batch{Entries: span(1, 1, 1, 10)}))
	fsys.AddFault(vfs.Fault{Ops: vfs.OpSync, Name: "*.seg", Times: 1})
	if err := l.Append(Batch{Entries: span(2, 2, 1, 10)}); !errors.Is(err, ErrFailed) {
		t.Fatalf("Append with a failing sync: %v", err)
	}
	_, readErr := l.Entries(1, 2, 1)
	_, termErr := l.Term(1)
	for name, err := range map[string]error{
		"Append": l.Append(Batch{}), "Entries": readErr, "Term": termErr, "TruncatePrefix": l.TruncatePrefix(1), "Reset": l.Reset(9, 9), "Err": l.Err(),
	} {
		if !errors.Is(err, ErrFailed) {
			t.Errorf("%s after a failed sync: %v", name, err)
		}
	}
	must(t, l.Close())
}

// TestOpenAfterFailedSync finds what a failed sync left in the page cache, and must not believe in it before it has written it itself.
func TestOpenAfterFailedSync(t *testing.T) {
	for seed := range uint64(30) {
		fsys := vfs.NewSim(seed)
		opts := testOptions(newRand(seed))
		l := mustOpen(t, fsys, opts)
		must(t, l.Append(Batch{Entries: span(1, 1, 1, 10)}))
		fsys.AddFault(vfs.Fault{Ops: vfs.OpSync, Name: "*.seg", Times: 1})
		if err := l.Append(Batch{Entries: span(2, 2, 1, 10)}); err == nil {
			t.Fatal("Append with a failing sync went through")
		}
		must(t, l.Close())
		l = mustOpen(t, fsys, opts)
		wantLog(t, l, 1, span(1, 2, 1, 10))
		fsys.Crash()
		l = mustOpen(t, fsys, opts)
		wantLog(t, l, 1, span(1, 2, 1, 10))
	}
}

func TestFailedWriteEndsLog(t *testing.T) {
	fsys := vfs.NewSim(1)
	l := mustOpen(t, fsys, testOptions(newRand(1)))
	fsys.AddFault(vfs.Fault{Ops: vfs.OpWrite, Name: "*.seg", Times: 1})
	if err := l.Append(Batch{Entries: span(1, 1, 1, 10)}); !errors.Is(err, ErrFailed) {
		t.Fatalf("Append with a failing write: %v", err)
	}
	if err := l.Append(Batch{Entries: span(1, 1, 1, 10)}); !errors.Is(err, ErrFailed) {
		t.Fatalf("Append after a failed write: %v", err)
	}
}

func TestFullDiskIsSurvived(t *testing.T) {
	for _, sync := range []bool{true, false} {
		fsys := vfs.NewSim(1)
		opts := testOptions(newRand(1))
		opts.SyncPrepare = sync
		l := mustOpen(t, fsys, opts)
		fsys.SetFree(MinSegmentBytes + 100)
		index := uint64(0)
		var err error
		for err == nil && index < 1000 {
			index++
			err = l.Append(Batch{Entries: span(index, index, 1, 1000)})
		}
		if err == nil || errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "no space") {
			t.Fatalf("Append on a full disk: %v", err)
		}
		wantLog(t, l, 1, span(1, index-1, 1, 1000))
		fsys.SetFree(-1)
		for {
			// With a goroutine, what it met while the disk was full may have to be fetched first.
			if err = l.Append(Batch{Entries: span(index, index, 1, 1000)}); err == nil {
				break
			}
			if sync {
				t.Fatal(err)
			}
			sync = true
		}
		wantLog(t, l, 1, span(1, index, 1, 1000))
		must(t, l.Close())
	}
}

// TestFullDiskIsForgotten lets a segment that is prepared ahead of need meet a full disk: there may be space by the time that it is needed.
func TestFullDiskIsForgotten(t *testing.T) {
	fsys := vfs.NewSim(1)
	opts := testOptions(newRand(1))
	opts.SyncPrepare = false
	l := mustOpen(t, fsys, opts)
	index := uint64(0)
	fillTo := func(segments int) {
		t.Helper()
		for l.Stats().Segments < segments {
			index++
			must(t, l.Append(Batch{Entries: span(index, index, 1, 1000)}))
		}
	}
	prepared := func() { l.prepared <- <-l.prepared } // waits, and leaves it there
	prepared()                                        // the second
	fsys.SetFree(2000)
	fillTo(2)
	prepared() // the third, or why not
	fsys.SetFree(-1)
	fillTo(3)
	wantLog(t, l, 1, span(1, index, 1, 1000))
	must(t, l.Close())
}

// TestReadersAndRecycling lets readers run against an appender that truncates: they see what was written or ErrCompacted, nothing else.
func TestReadersAndRecycling(t *testing.T) {
	l, err := Open(vfs.OS(), t.TempDir(), Options{SegmentBytes: 64 << 10, CacheBytes: 16 << 10})
	must(t, err)
	must(t, l.Append(Batch{Entries: span(1, 1, 1, 1000)}))
	done := make(chan struct{})
	var wg sync.WaitGroup
	for n := range uint64(3) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				select {
				case <-done:
					return
				default:
				}
				first, last := l.FirstIndex(), l.LastIndex()
				if last < first {
					continue
				}
				lo := first + n*(last-first)/3
				got, err := l.Entries(lo, last+1, 20000)
				if errors.Is(err, ErrCompacted) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				for i, e := range got {
					if !sameEntry(e, entry(lo+uint64(i), e.Term, 1000)) {
						t.Errorf("entry %d has other data", e.Index)
						return
					}
				}
			}
		}()
	}
	for i := uint64(2); i < 500; i++ {
		must(t, l.Append(Batch{Entries: span(i, i+2, i, 1000)})) // replaces two of the batch before
		if i%50 == 0 {
			must(t, l.TruncatePrefix(i-20))
		}
	}
	close(done)
	wg.Wait()
	must(t, l.Close())
}
