package nfsclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// The tests here run against any server: HOLDFAST_NFS_TARGET=HOST:PORT:/EXPORT (and HOLDFAST_MOUNT_ADDRESS=HOST:PORT where MOUNT listens elsewhere).
// The export must be writable by root.

func liveClient(t *testing.T, version string) Client {
	t.Helper()
	target := os.Getenv("HOLDFAST_NFS_TARGET")
	if target == "" {
		t.Skip("HOLDFAST_NFS_TARGET is not set")
	}
	address, export, err := ParseTarget(target)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := Mount(ctx, Config{Address: address, MountAddress: os.Getenv("HOLDFAST_MOUNT_ADDRESS"), Export: export, Version: version})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
		if lost := c.Stats().LostState; lost != 0 {
			t.Errorf("state was lost %d times", lost)
		}
	})
	return c
}

func TestLive(t *testing.T) {
	for _, version := range []string{"4.1", "3"} {
		t.Run(version, func(t *testing.T) { exercise(t, liveClient(t, version)) })
	}
}

// exercise does a little of everything in a directory of its own.
func exercise(t *testing.T, c Client) {
	ctx := t.Context()
	name := fmt.Sprintf("live-%d", time.Now().UnixNano())
	dir, err := c.Mkdir(ctx, c.Root(), name, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Mkdir(ctx, c.Root(), name, 0o755); !errors.Is(err, ErrExist) {
		t.Errorf("second Mkdir: %v", err)
	}
	exerciseFile(t, c, dir)
	exerciseNames(t, c, dir)
	if err := c.Rmdir(ctx, c.Root(), name); err != nil {
		t.Errorf("Rmdir: %v", err)
	}
}

func exerciseFile(t *testing.T, c Client, dir Handle) {
	ctx := t.Context()
	f, err := c.Open(ctx, dir, "file", OpenOptions{Create: Guarded, Mode: 0o640})
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []CreateMode{Guarded, Exclusive} {
		if _, err := c.Open(ctx, dir, "file", OpenOptions{Create: mode}); !errors.Is(err, ErrExist) {
			t.Errorf("create mode %d of what exists: %v", mode, err)
		}
	}
	data := make([]byte, 2500<<10)
	for i := range data {
		data[i] = byte(i * i >> 7)
	}
	if err := f.Write(ctx, data, 0, Unstable); err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(ctx); err != nil {
		t.Errorf("Commit: %v", err)
	}
	if err := f.Write(ctx, []byte("hello"), 10, FileSync); err != nil {
		t.Errorf("Write: %v", err)
	}
	copy(data[10:], "hello")
	got := make([]byte, len(data)+100)
	n, eof, err := f.Read(ctx, got, 0)
	if err != nil || !eof || n != len(data) || !bytes.Equal(got[:n], data) {
		t.Errorf("Read: %d bytes, eof %v, %v", n, eof, err)
	}
	size, mode, mtime := uint64(1000), uint32(0o600), int64(1234567890123456789)
	if err := c.SetAttr(ctx, f.Handle(), SetAttr{Size: &size, Mode: &mode, Mtime: &mtime}); err != nil {
		t.Errorf("SetAttr: %v", err)
	}
	a, err := c.GetAttr(ctx, f.Handle())
	if err != nil || a.Size != size || a.Mode != mode || a.Mtime != mtime || a.Type != TypeFile || a.Nlink != 1 {
		t.Errorf("GetAttr: %+v, %v", a, err)
	}
	if err := f.Close(ctx); err != nil {
		t.Errorf("Close: %v", err)
	}
	g, err := c.Open(ctx, dir, "file", OpenOptions{Create: Unchecked, Truncate: true})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := c.GetAttr(ctx, g.Handle()); err != nil || a.Size != 0 {
		t.Errorf("after truncation: %+v, %v", a, err)
	}
	if err := g.Close(ctx); err != nil {
		t.Errorf("Close: %v", err)
	}
	x, err := c.Open(ctx, dir, "exclusive", OpenOptions{Create: Exclusive, Mode: 0o600})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := c.GetAttr(ctx, x.Handle()); err != nil || a.Mode != 0o600 {
		t.Errorf("exclusively created: %+v, %v", a, err)
	}
	if err := x.Close(ctx); err != nil {
		t.Errorf("Close: %v", err)
	}
	for _, name := range []string{"file", "exclusive"} {
		if err := c.Remove(ctx, dir, name); err != nil {
			t.Errorf("Remove: %v", err)
		}
	}
	if _, _, err := c.Lookup(ctx, dir, "file"); !errors.Is(err, ErrNoEnt) {
		t.Errorf("Lookup of what is removed: %v", err)
	}
}

func exerciseNames(t *testing.T, c Client, dir Handle) {
	ctx := t.Context()
	const files = 2000
	var want []string
	var wg sync.WaitGroup
	for w := range 8 {
		for i := w; i < files; i += 8 {
			want = append(want, fmt.Sprintf("name-%05d", i))
		}
		wg.Go(func() {
			for i := w; i < files; i += 8 {
				f, err := c.Open(ctx, dir, fmt.Sprintf("name-%05d", i), OpenOptions{Create: Guarded})
				if err == nil {
					err = f.Close(ctx)
				}
				if err != nil {
					t.Errorf("creating %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	slices.Sort(want)
	for _, attrs := range []bool{false, true} {
		var got []string
		err := c.ReadDir(ctx, dir, attrs, func(e DirEntry) error {
			got = append(got, e.Name)
			if e.FileID == 0 || attrs && e.Attr.Type != TypeFile {
				t.Errorf("entry %+v", e)
			}
			return nil
		})
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("ReadDir: %d names of %d, %v", len(got), len(want), err)
		}
	}
	if err := c.Rename(ctx, dir, want[0], dir, want[1]); err != nil {
		t.Errorf("Rename: %v", err)
	}
	for _, name := range want[1:] {
		if err := c.Remove(ctx, dir, name); err != nil {
			t.Errorf("Remove: %v", err)
		}
	}
}

func TestLiveLocks(t *testing.T) {
	a, b := liveClient(t, "4.1").(*V4), liveClient(t, "4.1").(*V4)
	ctx := t.Context()
	name := fmt.Sprintf("locks-%d", time.Now().UnixNano())
	fa, err := a.OpenFile(ctx, a.Root(), name, OpenOptions{Create: Unchecked})
	if err != nil {
		t.Fatal(err)
	}
	fb, err := b.OpenFile(ctx, b.Root(), name, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		name string
		do   func() error
		want error
	}{
		{"a locks", func() error { return fa.Lock(ctx, "a", WriteLock, 0, 10) }, nil},
		{"a locks more", func() error { return fa.Lock(ctx, "a", WriteLock, 10, ToEnd) }, nil},
		{"b tests", func() error { return fb.TestLock(ctx, "b", ReadLock, 5, 1) }, ErrDenied},
		{"b locks", func() error { return fb.Lock(ctx, "b", WriteLock, 100, 1) }, ErrDenied},
		{"another owner of a", func() error { return fa.Lock(ctx, "other", WriteLock, 5, 1) }, ErrDenied},
		{"a unlocks some", func() error { return fa.Unlock(ctx, "a", 10, ToEnd) }, nil},
		{"b locks what is free", func() error { return fb.Lock(ctx, "b", WriteLock, 100, 1) }, nil},
		{"b tests what is not", func() error { return fb.TestLock(ctx, "b", WriteLock, 0, 1) }, ErrDenied},
		{"a unlocks", func() error { return fa.Unlock(ctx, "a", 0, 10) }, nil},
		{"b unlocks", func() error { return fb.Unlock(ctx, "b", 100, 1) }, nil},
		{"a closes", func() error { return fa.Close(ctx) }, nil},
		{"b closes", func() error { return fb.Close(ctx) }, nil},
		{"a removes", func() error { return a.Remove(ctx, a.Root(), name) }, nil},
	}
	for _, s := range steps {
		if err := s.do(); !errors.Is(err, s.want) {
			t.Fatalf("%s: %v, want %v", s.name, err, s.want)
		}
	}
}

// TestLiveCancel checks that a slot whose caller gave up is used again, and in step.
func TestLiveCancel(t *testing.T) {
	c := liveClient(t, "4.1").(*V4)
	for range 200 {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Microsecond)
		_, _ = c.GetAttr(ctx, c.Root())
		cancel()
	}
	for range 200 {
		if _, err := c.GetAttr(t.Context(), c.Root()); err != nil {
			t.Fatal(err)
		}
	}
}
