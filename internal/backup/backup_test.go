package backup

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"testing"

	"holdfast/internal/store"
	"holdfast/internal/volume"
)

func openDisk(t *testing.T, dir string) store.Store {
	t.Helper()
	s, err := store.Open(dir, store.Options{CacheBytes: 1 << 20, MemTableBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// pacing lets some entries be applied whenever something is written.
type pacing struct {
	w    io.Writer
	pace func(n int)
}

func (p pacing) Write(b []byte) (int, error) {
	p.pace(25)
	return p.w.Write(b)
}

// TestChainWhileWriting takes backups into a folder while entries are applied without a pause, and compares what they restore with a replica that stopped there.
func TestChainWhileWriting(t *testing.T) {
	for _, test := range []struct {
		name  string
		store func() store.Store
	}{
		{"memory", func() store.Store { return store.NewMem() }},
		{"disk", func() store.Store { return openDisk(t, t.TempDir()) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := test.store()
			m := newMember(t, s, 3)
			m.advance(300)
			tokens := make(chan struct{}, 200)
			var writer sync.WaitGroup
			writer.Go(func() {
				for range tokens {
					m.advance(1)
				}
			})
			pace := func(n int) {
				for range n {
					select {
					case tokens <- struct{}{}:
					default:
					}
				}
			}
			folder := Folder(t.TempDir())
			var files []File
			since := uint64(0)
			for range 4 {
				r, w := io.Pipe()
				after := m.v.Applied() + 5
				pace(50)
				var sent Summary
				var sending sync.WaitGroup
				sending.Go(func() {
					var err error
					sent, err = Write(t.Context(), m.v, pacing{w, pace}, Options{Cluster: "c", Since: since, After: after, SpoolDir: t.TempDir()})
					w.CloseWithError(err)
				})
				file, err := folder.Save(r)
				_ = r.CloseWithError(err) // never fails
				sending.Wait()
				if err != nil {
					t.Fatal(err)
				}
				if file.Summary != sent || file.Since != since || file.Index <= since || file.Volume != "home" || file.VolumeID != testVolume {
					t.Fatalf("saved %+v, sent %+v", file.Summary, sent)
				}
				since = file.Index
				files = append(files, file)
			}
			close(tokens)
			writer.Wait()

			var chain [][]byte
			var indexes []uint64
			for _, file := range files {
				b, err := os.ReadFile(file.Path)
				if err != nil {
					t.Fatal(err)
				}
				chain, indexes = append(chain, b), append(indexes, file.Index)
			}
			want := m.digests(indexes...)
			if got := restoredDigests(t, chain...); !slices.Equal(got, want) {
				t.Fatalf("backups at %v restore something else", indexes)
			}

			// All the way, into a folder.
			dir := t.TempDir()
			to := openDisk(t, dir)
			const now = 1_800_000_000e9
			v, last, err := Restore(t.Context(), Target{Config: config(to), Now: now, Random: 1}, bytes.NewReader(slices.Concat(chain...)))
			if err != nil {
				t.Fatal(err)
			}
			if !v.Valid() || v.Applied() != now/1e9<<24 || last.Index != since {
				t.Errorf("valid %v at %d, of %v", v.Valid(), v.Applied(), &last)
			}
			if err := errors.Join(to.Close(), s.Close()); err != nil {
				t.Fatal(err)
			}
			to = openDisk(t, dir)
			again := newMember(t, to, 4)
			if again.v.Applied() != v.Applied() || !again.v.Valid() {
				t.Errorf("after a restart it is at %d", again.v.Applied())
			}
			if err := to.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestChainEqualsFull: an unchanged volume gives, by a chain and by a full backup, the same.
func TestChainEqualsFull(t *testing.T) {
	m := newMember(t, store.NewMem(), 1)
	var chain [][]byte
	since := uint64(0)
	for range 5 {
		m.advance(120)
		b, s := m.backup(since)
		chain, since = append(chain, b), s.Index
	}
	full, s := m.backup(0)
	if s.Index != since {
		t.Fatalf("backups at %d and %d", since, s.Index)
	}
	a, b := restoredDigests(t, chain...), restoredDigests(t, full)
	if a[4] != b[0] || a[4] != m.digests(since)[0] || a[3] == a[4] {
		t.Error("they restore different things")
	}
	m.advance(1)
	if small, _ := m.backup(since); len(small) > len(full)/2 {
		t.Errorf("one change makes a backup of %d bytes, a full one has %d", len(small), len(full))
	}
	if _, err := Write(t.Context(), m.v, io.Discard, Options{Since: m.v.Applied()}); !errors.Is(err, ErrNothing) {
		t.Errorf("a backup of nothing: %v", err)
	}
}

// slowTaker applies entries whenever something is taken.
type slowTaker struct {
	m     *member
	n     int
	taken bytes.Buffer
}

func (s *slowTaker) Write(p []byte) (int, error) {
	s.m.advance(s.n)
	return s.taken.Write(p)
}

func TestSlowTaker(t *testing.T) {
	dir := t.TempDir()
	m := newMember(t, store.NewMem(), 5)
	m.advance(600)
	// More than 256 KiB of files, so that some is taken while objects are read.
	slow := &slowTaker{m: m, n: 60}
	s, err := Write(t.Context(), m.v, slow, Options{SpoolDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if s.Index < 700 {
		t.Errorf("the backup at %d was hardly overtaken", s.Index)
	}
	if s.Bytes != int64(slow.taken.Len()) {
		t.Errorf("%d bytes of %d", slow.taken.Len(), s.Bytes)
	}
	if got := restoredDigests(t, slow.taken.Bytes()); got[0] != m.digests(s.Index)[0] {
		t.Error("it restores something else")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("spools are left: %v, %v", left, err)
	}
	if _, err := Write(t.Context(), m.v, &slowTaker{m: m, n: 500}, Options{SpoolDir: dir, SpoolBytes: 1}); !errors.Is(err, ErrTooSlow) {
		t.Errorf("a spool that is too small: %v", err)
	}
	if _, err := Write(t.Context(), m.v, io.Discard, Options{SpoolDir: dir}); err != nil {
		t.Errorf("a backup after one that failed: %v", err)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestWriteFailures(t *testing.T) {
	m := newMember(t, store.NewMem(), 6)
	m.advance(100)
	if _, err := Write(t.Context(), m.v, brokenWriter{}, Options{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a writer that fails: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if _, err := Write(ctx, m.v, io.Discard, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := Write(ctx, m.v, io.Discard, Options{After: 1000}); err == nil {
		t.Error("did not wait")
	}
	if _, err := Write(t.Context(), m.v, io.Discard, Options{Since: 1000}); !errors.Is(err, volume.ErrNotInHistory) {
		t.Errorf("a backup that continues the future: %v", err)
	}
}

// wantNothing checks that a store holds no volume, and that another restore succeeds.
func wantNothing(t *testing.T, what string, s store.Store, good []byte) {
	t.Helper()
	v, err := volume.Open(config(s))
	if err != nil {
		t.Fatal(err)
	}
	if v.Valid() || v.Applied() != 0 {
		t.Errorf("%s: the store holds a volume at %d", what, v.Applied())
	}
	if v, _, err = Restore(context.Background(), Target{Config: config(s), Now: 1e18}, bytes.NewReader(good)); err != nil || !v.Valid() {
		t.Errorf("%s: another restore: %v", what, err)
	}
}
