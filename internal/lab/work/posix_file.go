package work

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

var fileChecks = []check{
	{"create-write-read", "", checkWriteRead},
	{"overwrite", "", checkOverwrite},
	{"append", "", checkAppend},
	{"truncate", "", checkTruncate},
	{"mmap", "", checkMmap},
	{"direct-io", "", checkDirect},
	{"exclusive-create", "", checkExclusive},
	{"create-without-permission", "", checkCreateModeZero},
	{"unlink-while-open", "", checkUnlinkOpen},
	{"rename-over-open", "", checkRenameOverOpen},
}

func checkWriteRead(s *scene) error {
	for i, size := range []int{0, 1, 4095, 4096, 4097, 65536, 1<<20 + 3, 5 << 20} {
		name := s.path(fmt.Sprintf("f%d", size))
		data := pattern(uint64(i), size)
		if err := os.WriteFile(name, data, 0o644); err != nil {
			return err
		}
		if err := sameContent(name, data); err != nil {
			return fmt.Errorf("from the cache: %w", err)
		}
		if err := sameOnServer(name, data); err != nil {
			return fmt.Errorf("from the server: %w", err)
		}
		st, err := stat(name)
		if err != nil {
			return err
		}
		if st.Size != int64(size) || st.Mode != unix.S_IFREG|0o644 || st.Nlink != 1 {
			return fmt.Errorf("%s: size %d, mode %o, nlink %d", name, st.Size, st.Mode, st.Nlink)
		}
	}
	return nil
}

// writeAndOpen makes a file in one go and opens it for what a check does next.
func writeAndOpen(name string, content []byte) (*os.File, error) {
	if err := os.WriteFile(name, content, 0o644); err != nil {
		return nil, err
	}
	return os.OpenFile(name, os.O_RDWR, 0)
}

func checkOverwrite(s *scene) error {
	name := s.path("f")
	want := pattern(1, 300000)
	f, err := writeAndOpen(name, want)
	if err != nil {
		return err
	}
	defer f.Close()
	for i, off := range []int64{0, 4090, 65535, 131072, 299990} {
		piece := pattern(uint64(100+i), 37)
		if _, err := f.WriteAt(piece, off); err != nil {
			return err
		}
		if end := int(off) + len(piece); end > len(want) {
			want = append(want, make([]byte, end-len(want))...)
		}
		copy(want[off:], piece)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return sameOnServer(name, want)
}

func checkAppend(s *scene) error {
	name := s.path("f")
	var files [2]*os.File
	for i := range files {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		files[i] = f
	}
	var want []byte
	for i := range 40 {
		piece := pattern(uint64(i), 100+i)
		if _, err := files[i%2].Write(piece); err != nil {
			return err
		}
		want = append(want, piece...)
	}
	for _, f := range files {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return sameOnServer(name, want)
}

func checkTruncate(s *scene) error {
	name := s.path("f")
	data := pattern(7, 200000)
	if err := os.WriteFile(name, data, 0o644); err != nil {
		return err
	}
	for _, size := range []int{150001, 4096, 4097, 250000, 0, 5000} {
		if err := os.Truncate(name, int64(size)); err != nil {
			return err
		}
		if size <= len(data) {
			data = data[:size:size]
		} else {
			data = append(data, make([]byte, size-len(data))...)
		}
		if err := sameOnServer(name, data); err != nil {
			return fmt.Errorf("after truncating to %d: %w", size, err)
		}
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() != 0 {
		return fmt.Errorf("after O_TRUNC: size %d, %v", st.Size(), err)
	}
	return expect("truncate of a missing file", os.Truncate(s.path("missing"), 1), unix.ENOENT)
}

func checkMmap(s *scene) error {
	name := s.path("f")
	want := pattern(3, 3*4096+100)
	f, err := writeAndOpen(name, want)
	if err != nil {
		return err
	}
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, len(want), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	if err := compare("mapping", m, want); err != nil {
		return err
	}
	piece := pattern(4, 5000)
	copy(m[4000:], piece)
	copy(want[4000:], piece)
	if err := unix.Msync(m, unix.MS_SYNC); err != nil {
		return fmt.Errorf("msync: %w", err)
	}
	if err := unix.Munmap(m); err != nil {
		return err
	}
	return sameOnServer(name, want)
}

func checkDirect(s *scene) error {
	name := s.path("f")
	fd, err := unix.Open(name, unix.O_CREAT|unix.O_RDWR|unix.O_DIRECT, 0o644)
	if err != nil {
		return fmt.Errorf("open with O_DIRECT: %w", err)
	}
	defer unix.Close(fd)
	buf, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(buf)
	want := pattern(5, len(buf))
	copy(buf, want)
	if n, err := unix.Pwrite(fd, buf, 8192); err != nil || n != len(buf) {
		return fmt.Errorf("wrote %d: %w", n, err)
	}
	clear(buf)
	if n, err := unix.Pread(fd, buf, 8192); err != nil || n != len(buf) {
		return fmt.Errorf("read %d: %w", n, err)
	}
	return compare("direct read", buf, want)
}

func checkExclusive(s *scene) error {
	name := s.path("f")
	var won atomic.Int32
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for range cap(errs) {
		wg.Go(func() {
			err := touch(name, 0o600)
			if err == nil {
				won.Add(1)
			} else if err = expect("losing O_EXCL", err, unix.EEXIST); err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
	}
	if won.Load() != 1 {
		return fmt.Errorf("%d of 8 creations with O_EXCL succeeded", won.Load())
	}
	if err := os.Symlink("nowhere", s.path("link")); err != nil {
		return err
	}
	return expect("O_EXCL on a dangling symlink", touch(s.path("link"), 0o600), unix.EEXIST)
}

// checkCreateModeZero: the descriptor of open(O_CREAT) has the access that was asked for, whatever the mode given.
func checkCreateModeZero(s *scene) error {
	return asUser(1000, []int{1000}, func() error {
		for _, excl := range []int{0, os.O_EXCL} {
			name := s.path(fmt.Sprintf("f%d", excl))
			f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|excl, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			if _, err := f.Write([]byte("data")); err != nil {
				return err
			}
			if err := f.Sync(); err != nil {
				return fmt.Errorf("fsync: %w", err)
			}
			if st, err := stat(name); err != nil || st.Mode != unix.S_IFREG || st.Uid != 1000 || st.Gid != 1000 {
				return fmt.Errorf("mode %o, uid %d, gid %d, %v", st.Mode, st.Uid, st.Gid, err)
			}
			_, err = os.ReadFile(name)
			if err := expect("opening it again", err, unix.EACCES); err != nil {
				return err
			}
		}
		return nil
	})
}

func checkUnlinkOpen(s *scene) error {
	name := s.path("f")
	want := pattern(9, 100000)
	f, err := writeAndOpen(name, want)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.Remove(name); err != nil {
		return err
	}
	_, err = os.Stat(name)
	if err := expect("stat after unlink", err, unix.ENOENT); err != nil {
		return err
	}
	more := pattern(10, 70000)
	if _, err := f.WriteAt(more, int64(len(want))); err != nil {
		return fmt.Errorf("write after unlink: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("fsync after unlink: %w", err)
	}
	if err := dropCaches(); err != nil {
		return err
	}
	want = append(want, more...)
	got := make([]byte, len(want))
	if _, err := f.ReadAt(got, 0); err != nil && err != io.EOF {
		return fmt.Errorf("read after unlink: %w", err)
	}
	if err := compare("unlinked file", got, want); err != nil {
		return err
	}
	if err := f.Chmod(0o600); err != nil {
		return fmt.Errorf("fchmod after unlink: %w", err)
	}
	return expect("creating the name again", touch(name, 0o644))
}

func checkRenameOverOpen(s *scene) error {
	oldData, newData := pattern(11, 50000), pattern(12, 60000)
	if err := os.WriteFile(s.path("target"), oldData, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(s.path("source"), newData, 0o644); err != nil {
		return err
	}
	f, err := os.Open(s.path("target"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.Rename(s.path("source"), s.path("target")); err != nil {
		return err
	}
	if err := dropCaches(); err != nil {
		return err
	}
	got, err := io.ReadAll(f)
	if err != nil {
		return fmt.Errorf("reading the replaced file: %w", err)
	}
	if err := compare("replaced file", got, oldData); err != nil {
		return err
	}
	return sameContent(s.path("target"), newData)
}
