package work

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// localFsx starts on a local folder whose file system can do everything, or skips.
func localFsx(t *testing.T, dir string, seed uint64) *fsx {
	t.Helper()
	x, err := newFsx(filepath.Join(dir, "f"), seed, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.close() })
	if err := unix.Fallocate(int(x.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 1); errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("the local file system has no holes")
	}
	return x
}

func (x *fsx) run(steps int) error {
	for range steps {
		if err := x.step(); err != nil {
			return err
		}
	}
	return x.finding(x.verify())
}

// TestFsx finds nothing wrong with a local file system, and does every kind of operation.
func TestFsx(t *testing.T) {
	for seed := range uint64(3) {
		dir := t.TempDir()
		x := localFsx(t, dir, seed)
		done := make(map[string]int)
		for range 60 {
			if err := x.run(25); err != nil {
				t.Fatal(err)
			}
			for _, h := range x.history {
				name, _, _ := strings.Cut(strings.Fields(h)[1], "(")
				done[name]++
			}
		}
		for _, op := range fsxOps {
			if done[op.name] == 0 {
				t.Errorf("seed %d: never did %s", seed, op.name)
			}
		}
		if err := verifyFsx(x.path, x.result()); err != nil {
			t.Error(err)
		}
	}
}

// TestFsxSeed: the same seed does the same.
func TestFsxSeed(t *testing.T) {
	var sums []FsxResult
	for _, seed := range []uint64{7, 7, 8} {
		x := localFsx(t, t.TempDir(), seed)
		if err := x.run(300); err != nil {
			t.Fatal(err)
		}
		sums = append(sums, x.result())
	}
	if sums[0] != sums[1] || sums[0] == sums[2] {
		t.Errorf("got %+v", sums)
	}
}

// TestFsxFinds damages the file behind the back of fsx.
func TestFsxFinds(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(path string, size int) error
	}{
		{"a flipped bit", func(path string, size int) error {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			data[size/2] ^= 0x10
			return writeOver(path, data[size/2:size/2+1], size/2)
		}},
		{"a lost tail", func(path string, size int) error { return os.Truncate(path, int64(size-1)) }},
		{"a tail too much", func(path string, size int) error { return os.Truncate(path, int64(size+1)) }},
		{"a page of zeros", func(path string, size int) error { return writeOver(path, make([]byte, 4096), size/2) }},
		{"a page of another place", func(path string, size int) error { return writeOver(path, pattern(99, 4096), size-5000) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := localFsx(t, t.TempDir(), 1)
			if err := x.run(50); err != nil {
				t.Fatal(err)
			}
			if err := x.write(0, 100<<10); err != nil { // something to damage
				t.Fatal(err)
			}
			if err := x.verify(); err != nil {
				t.Fatal(err)
			}
			want := x.result()
			if err := c.damage(x.path, len(x.model)); err != nil {
				t.Fatal(err)
			}
			if err := verifyFsx(x.path, want); err == nil {
				t.Error("not found afterwards")
			}
			if err := x.adopt(); err == nil {
				t.Error("taken over as if the file system had been full")
			}
			if err := x.finding(x.verify()); err == nil || !strings.Contains(err.Error(), "before: ") {
				t.Errorf("not found by verify: %v", err)
			}
		})
	}
}

func writeOver(path string, data []byte, at int) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, int64(at))
	return errors.Join(err, f.Close())
}

// TestFsxFull runs on a file system that is too small: refusals are told apart from damage, and work goes on after them.
func TestFsxFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=96k"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	x := localFsx(t, dir, 5)
	full := 0
	for range 1000 {
		if err := x.step(); errors.Is(err, unix.ENOSPC) {
			full++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if full == 0 {
		t.Error("the file system was never full")
	}
	if err := x.truncate(0); err != nil {
		t.Fatal(err)
	}
	if err := x.verify(); err != nil {
		t.Error(err)
	}
}
