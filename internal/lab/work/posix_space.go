package work

import (
	"bytes"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

var spaceChecks = []check{
	{"holes", "", checkHoles},
	{"seek-hole-data", "4.2", checkSeekHole},
	{"fallocate", "4.2", checkFallocate},
	{"large-offset", "", checkLargeOffset},
	{"copy-range", "", checkCopyRange},
}

// writeIslands makes a file of 2 MiB: data at 0 and at 1 MiB, 64 KiB each, and a hole to the end.
func writeIslands(name string) (*os.File, []byte, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, nil, err
	}
	want := make([]byte, 2<<20)
	for _, off := range []int{0, 1 << 20} {
		copy(want[off:], pattern(uint64(off+1), 64<<10))
		if _, err := f.WriteAt(want[off:off+64<<10], int64(off)); err != nil {
			f.Close()
			return nil, nil, err
		}
	}
	if err := f.Truncate(int64(len(want))); err != nil {
		f.Close()
		return nil, nil, err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, want, dropCaches()
}

func checkHoles(s *scene) error {
	f, want, err := writeIslands(s.path("f"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := sameContent(s.path("f"), want); err != nil {
		return err
	}
	st, err := stat(s.path("f"))
	if err != nil {
		return err
	}
	if st.Blocks*512 >= 1<<20 {
		return fmt.Errorf("a file with 128 KiB of data takes %d KiB", st.Blocks/2)
	}
	return nil
}

func checkSeekHole(s *scene) error {
	f, _, err := writeIslands(s.path("f"))
	if err != nil {
		return err
	}
	defer f.Close()
	fd := int(f.Fd())
	const k, m = 1 << 10, 1 << 20
	for _, c := range []struct {
		from   int64
		whence int
		want   int64
		errno  unix.Errno
	}{
		{0, unix.SEEK_DATA, 0, 0},
		{5, unix.SEEK_DATA, 5, 0},
		{0, unix.SEEK_HOLE, 64 * k, 0},
		{512 * k, unix.SEEK_HOLE, 512 * k, 0},
		{512 * k, unix.SEEK_DATA, m, 0},
		{m, unix.SEEK_HOLE, m + 64*k, 0},
		{m + 512*k, unix.SEEK_DATA, 0, unix.ENXIO},
		{2 * m, unix.SEEK_HOLE, 0, unix.ENXIO},
		{3 * m, unix.SEEK_DATA, 0, unix.ENXIO},
	} {
		got, err := unix.Seek(fd, c.from, c.whence)
		what := fmt.Sprintf("seek(%d, whence %d)", c.from, c.whence)
		if c.errno != 0 {
			if err := expect(what, err, c.errno); err != nil {
				return err
			}
		} else if err != nil || got != c.want {
			return fmt.Errorf("%s: got %d, %v, want %d", what, got, err, c.want)
		}
	}
	return nil
}

func checkFallocate(s *scene) error {
	name := s.path("f")
	want := pattern(21, 256<<10)
	if err := os.WriteFile(name, want, 0o644); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	fd := int(f.Fd())
	if err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 64<<10, 100_000); err != nil {
		return fmt.Errorf("punch: %w", err)
	}
	clear(want[64<<10 : 64<<10+100_000])
	if err := sameOnServer(name, want); err != nil {
		return fmt.Errorf("after punching: %w", err)
	}
	if err := unix.Fallocate(fd, 0, 200<<10, 312<<10); err != nil {
		return fmt.Errorf("allocate: %w", err)
	}
	want = append(want, make([]byte, 512<<10-len(want))...)
	if err := sameOnServer(name, want); err != nil {
		return fmt.Errorf("after allocating: %w", err)
	}
	// Punching beyond the end changes nothing.
	if err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 1<<20, 4096); err != nil {
		return fmt.Errorf("punch beyond the end: %w", err)
	}
	return sameContent(name, want)
}

func checkLargeOffset(s *scene) error {
	const off = 1<<41 + 12345
	f, err := os.OpenFile(s.path("f"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	want := pattern(22, 10_000)
	if _, err := f.WriteAt(want, off); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := dropCaches(); err != nil {
		return err
	}
	got := make([]byte, len(want)+4096)
	if _, err := f.ReadAt(got, off-4096); err != nil {
		return err
	}
	if !bytes.Equal(got[:4096], make([]byte, 4096)) {
		return fmt.Errorf("the hole before the data is not zero")
	}
	if err := compare("data at 2 TiB", got[4096:], want); err != nil {
		return err
	}
	if st, err := f.Stat(); err != nil || st.Size() != off+int64(len(want)) {
		return fmt.Errorf("size %d, %v", st.Size(), err)
	}
	return nil
}

func checkCopyRange(s *scene) error {
	want := pattern(23, 300_000)
	if err := os.WriteFile(s.path("from"), want, 0o644); err != nil {
		return err
	}
	from, err := os.Open(s.path("from"))
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.Create(s.path("to"))
	if err != nil {
		return err
	}
	defer to.Close()
	for left := len(want); left > 0; {
		n, err := unix.CopyFileRange(int(from.Fd()), nil, int(to.Fd()), nil, left, 0)
		if err != nil || n == 0 {
			return fmt.Errorf("copy_file_range with %d bytes to go: %d, %w", left, n, err)
		}
		left -= n
	}
	if err := to.Sync(); err != nil {
		return err
	}
	return sameOnServer(s.path("to"), want)
}
