package vfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"testing"
)

// each runs a test on every implementation, in a folder of its own.
func each(t *testing.T, test func(t *testing.T, fsys FS, dir string)) {
	t.Run("os", func(t *testing.T) { test(t, OS(), t.TempDir()) })
	t.Run("sim", func(t *testing.T) {
		fsys := NewSim(1)
		if err := fsys.MkdirAll("/tmp/test"); err != nil {
			t.Fatal(err)
		}
		test(t, fsys, "/tmp/test")
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustCreate(t *testing.T, fsys FS, name string) File {
	t.Helper()
	f, err := fsys.Create(name)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func mustWrite(t *testing.T, f File, data string, off int64) {
	t.Helper()
	n, err := f.WriteAt([]byte(data), off)
	if err != nil || n != len(data) {
		t.Fatalf("WriteAt: %d, %v", n, err)
	}
}

func readAll(t *testing.T, fsys FS, name string) string {
	t.Helper()
	b, err := ReadFile(fsys, name)
	must(t, err)
	return string(b)
}

func TestReadWrite(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		f := mustCreate(t, fsys, path.Join(dir, "f"))
		mustWrite(t, f, "hello", 3)
		bufs := [][]byte{[]byte("ab"), nil, []byte("cdef")}
		n, err := f.WriteVAt(bufs, 6)
		if n != 6 || err != nil {
			t.Fatalf("WriteVAt: %d, %v", n, err)
		}
		if string(bufs[0]) != "ab" || string(bufs[2]) != "cdef" {
			t.Errorf("WriteVAt changed its argument: %q", bufs)
		}
		if got, want := readAll(t, fsys, path.Join(dir, "f")), "\x00\x00\x00helabcdef"; got != want {
			t.Errorf("content %q, want %q", got, want)
		}
		b := make([]byte, 10)
		if n, err := f.ReadAt(b, 8); n != 4 || err != io.EOF {
			t.Errorf("short read: %d, %v", n, err)
		}
		must(t, f.Truncate(4))
		must(t, f.Truncate(6))
		if got, want := readAll(t, fsys, path.Join(dir, "f")), "\x00\x00\x00h\x00\x00"; got != want {
			t.Errorf("after truncations %q, want %q", got, want)
		}
		must(t, f.Sync())
		must(t, f.Close())
		if err := f.Sync(); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("Sync after Close: %v", err)
		}
	})
}

func TestWriteVManyBuffers(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		f := mustCreate(t, fsys, path.Join(dir, "f"))
		var bufs [][]byte
		var want []byte
		for i := range 3*maxVectors + 7 {
			b := bytes.Repeat([]byte{byte(i)}, i%5)
			bufs = append(bufs, b)
			want = append(want, b...)
		}
		n, err := f.WriteVAt(bufs, 0)
		if n != int64(len(want)) || err != nil {
			t.Fatalf("WriteVAt: %d, %v", n, err)
		}
		if got := readAll(t, fsys, path.Join(dir, "f")); got != string(want) {
			t.Error("content differs")
		}
	})
}

func TestSkip(t *testing.T) {
	bufs := [][]byte{[]byte("ab"), nil, []byte("cde"), []byte("f")}
	for n, want := range []string{"abcdef", "bcdef", "cdef", "def", "ef", "f"} {
		if got := string(bytes.Join(skip(bufs, int64(n)), nil)); got != want {
			t.Errorf("skip %d: %q, want %q", n, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		must(t, MkdirDurable(fsys, path.Join(dir, "a/b")))
		must(t, MkdirDurable(fsys, path.Join(dir, "a/b")))
		mustWrite(t, mustCreate(t, fsys, path.Join(dir, "a/y")), "y", 0)
		mustWrite(t, mustCreate(t, fsys, path.Join(dir, "a/x")), "x", 0)
		must(t, fsys.Rename(path.Join(dir, "a/x"), path.Join(dir, "a/b/y")))
		must(t, fsys.Rename(path.Join(dir, "a/y"), path.Join(dir, "a/b/y")))
		if names, err := fsys.List(path.Join(dir, "a")); err != nil || !slices.Equal(names, []string{"b"}) {
			t.Errorf("List: %q, %v", names, err)
		}
		if got := readAll(t, fsys, path.Join(dir, "a/b/y")); got != "y" {
			t.Errorf("renamed over: %q", got)
		}
		if err := fsys.Remove(path.Join(dir, "a/b")); err == nil {
			t.Error("removed a folder that is not empty")
		}
		if _, err := fsys.Open(path.Join(dir, "a/x")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Open of what is not there: %v", err)
		}
		must(t, fsys.Remove(path.Join(dir, "a/b/y")))
		must(t, fsys.Remove(path.Join(dir, "a/b")))
		if _, err := fsys.Stat(path.Join(dir, "a/b")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Stat of what is not there: %v", err)
		}
		must(t, WriteFile(fsys, path.Join(dir, "w"), []byte("one")))
		must(t, WriteFile(fsys, path.Join(dir, "w"), []byte("two")))
		if got := readAll(t, fsys, path.Join(dir, "w")); got != "two" {
			t.Errorf("WriteFile: %q", got)
		}
		if info, err := fsys.Stat(path.Join(dir, "w")); err != nil || info.Size != 3 || info.Dir {
			t.Errorf("Stat: %+v, %v", info, err)
		}
		if free, all, err := fsys.Space(dir); err != nil || free > all || all == 0 {
			t.Errorf("Space: %d of %d, %v", free, all, err)
		}
	})
}

func TestHoles(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		f := mustCreate(t, fsys, path.Join(dir, "f"))
		must(t, f.Preallocate(0, 8<<10, false))
		if size, err := f.Size(); size != 8<<10 || err != nil {
			t.Fatalf("Size: %d, %v", size, err)
		}
		must(t, f.Preallocate(0, 16<<10, true))
		if size, err := f.Size(); size != 8<<10 || err != nil {
			t.Fatalf("Size after keepSize: %d, %v", size, err)
		}
		must(t, f.Truncate(64<<10))
		mustWrite(t, f, string(bytes.Repeat([]byte("x"), 12<<10)), 32<<10)
		must(t, f.PunchHole(36<<10, 4<<10))
		b := make([]byte, 12<<10)
		if _, err := f.ReadAt(b, 32<<10); err != nil {
			t.Fatal(err)
		}
		if bytes.Count(b[:4<<10], []byte("x")) != 4<<10 || bytes.Count(b[4<<10:8<<10], []byte{0}) != 4<<10 {
			t.Error("PunchHole hit the wrong bytes")
		}
		if at, err := f.SeekData(40 << 10); at != 40<<10 || err != nil {
			t.Errorf("SeekData: %d, %v", at, err)
		}
		if at, err := f.SeekHole(44<<10 - 1); at != 44<<10 || err != nil {
			t.Errorf("SeekHole: %d, %v", at, err)
		}
		if _, err := f.SeekData(44 << 10); !errors.Is(err, ErrNoData) {
			t.Errorf("SeekData behind the last data: %v", err)
		}
		if _, err := f.SeekHole(64 << 10); !errors.Is(err, ErrNoData) {
			t.Errorf("SeekHole behind the end: %v", err)
		}
	})
}
