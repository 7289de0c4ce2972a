package work

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

var directoryChecks = []check{
	{"folders", "", checkFolders},
	{"readdir-while-changing", "", checkReaddirChanging},
	{"seekdir", "", checkSeekdir},
	{"big-folder", "", checkBigFolder},
}

func checkFolders(s *scene) error {
	nlink := func(want uint64) func() error {
		return func() error {
			st, err := stat(s.dir)
			if err == nil && uint64(st.Nlink) != want {
				err = fmt.Errorf("the folder has %d links, want %d", st.Nlink, want)
			}
			return err
		}
	}
	return steps(
		nlink(2),
		func() error { return os.Mkdir(s.path("d"), 0o751) },
		nlink(3),
		func() error {
			st, err := stat(s.path("d"))
			if err == nil && st.Mode != unix.S_IFDIR|0o751 {
				err = fmt.Errorf("mode %o", st.Mode)
			}
			return err
		},
		func() error { return expect("mkdir again", os.Mkdir(s.path("d"), 0o755), unix.EEXIST) },
		func() error {
			return expect("mkdir below nothing", os.Mkdir(s.path("x/y"), 0o755), unix.ENOENT)
		},
		func() error { return touch(s.path("d/f"), 0o644) },
		func() error { return expect("rmdir with entries", unix.Rmdir(s.path("d")), unix.ENOTEMPTY) },
		func() error { return expect("rmdir of a file", unix.Rmdir(s.path("d/f")), unix.ENOTDIR) },
		func() error {
			return expect("unlink of a folder", unix.Unlink(s.path("d")), unix.EISDIR, unix.EPERM)
		},
		func() error {
			return expect("mkdir below a file", os.Mkdir(s.path("d/f/x"), 0o755), unix.ENOTDIR)
		},
		func() error {
			_, err := os.OpenFile(s.path("d"), os.O_WRONLY, 0)
			return expect("open a folder for writing", err, unix.EISDIR)
		},
		func() error { return unix.Unlink(s.path("d/f")) },
		func() error { return unix.Rmdir(s.path("d")) },
		nlink(2),
		func() error { return expect("rmdir of nothing", unix.Rmdir(s.path("d")), unix.ENOENT) },
	)
}

// entry is one record of getdents64(2).
type entry struct {
	name   string
	cookie int64 // position after it
}

// readEntries reads one buffer of entries from an open folder; none means the end. "." and ".." are left out.
func readEntries(fd int, size int) (entries []entry, end bool, err error) {
	buf := make([]byte, size)
	n, err := unix.Getdents(fd, buf)
	if err != nil {
		return nil, false, fmt.Errorf("getdents: %w", err)
	}
	for rest := buf[:n]; len(rest) > 0; {
		d := (*unix.Dirent)(unsafe.Pointer(&rest[0]))
		name := rest[unsafe.Offsetof(d.Name):d.Reclen]
		if i := strings.IndexByte(string(name), 0); i >= 0 {
			name = name[:i]
		}
		if s := string(name); s != "." && s != ".." {
			entries = append(entries, entry{s, d.Off})
		}
		rest = rest[d.Reclen:]
	}
	return entries, n == 0, nil
}

// fill makes files NAME0..NAMEn-1 with some in flight at once.
func fill(dir, name string, n int) error {
	return parallel(n, func(i int) error { return touch(fmt.Sprintf("%s/%s%d", dir, name, i), 0o644) })
}

// parallel runs f for 0..n-1 on four goroutines and returns what failed.
func parallel(n int, f func(i int) error) error {
	const workers = 4
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil; i += workers {
				errs[w] = f(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// checkReaddirChanging: entries that are there all the time are listed exactly once, whatever comes and goes meanwhile.
func checkReaddirChanging(s *scene) error {
	const stay = 400
	if err := fill(s.dir, "stay-", stay); err != nil {
		return err
	}
	if err := fill(s.dir, "go-", stay); err != nil {
		return err
	}
	if err := dropCaches(); err != nil {
		return err
	}
	fd, err := unix.Open(s.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	seen := make(map[string]int)
	for round := 0; ; round++ {
		entries, end, err := readEntries(fd, 4096)
		if err != nil {
			return err
		}
		if end {
			break
		}
		for _, e := range entries {
			seen[e.name]++
		}
		if round < stay/8 {
			for i := range 8 {
				if err := os.Remove(s.path(fmt.Sprintf("go-%d", round*8+i))); err != nil {
					return err
				}
			}
			if err := touch(s.path(fmt.Sprintf("new-%d", round)), 0o644); err != nil {
				return err
			}
		}
	}
	for i := range stay {
		if name := fmt.Sprintf("stay-%d", i); seen[name] != 1 {
			return fmt.Errorf("%s was listed %d times", name, seen[name])
		}
	}
	for name, n := range seen {
		if n != 1 {
			return fmt.Errorf("%s was listed %d times", name, n)
		}
	}
	return nil
}

// checkSeekdir: a position that was returned once leads to the entry after it again.
func checkSeekdir(s *scene) error {
	if err := fill(s.dir, "f", 300); err != nil {
		return err
	}
	fd, err := unix.Open(s.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var all []entry
	for {
		entries, end, err := readEntries(fd, 2048)
		if err != nil {
			return err
		}
		if end {
			break
		}
		all = append(all, entries...)
	}
	if len(all) != 300 {
		return fmt.Errorf("%d entries of 300", len(all))
	}
	for _, i := range []int{250, 10, 123, 298} {
		if err := dropCaches(); err != nil {
			return err
		}
		if _, err := unix.Seek(fd, all[i].cookie, unix.SEEK_SET); err != nil {
			return fmt.Errorf("seek to entry %d: %w", i+1, err)
		}
		entries, _, err := readEntries(fd, 512)
		if err != nil {
			return err
		}
		if len(entries) == 0 || entries[0].name != all[i+1].name {
			return fmt.Errorf("after seeking to entry %d: got %v, want %s", i+1, entries, all[i+1].name)
		}
	}
	return nil
}

func checkBigFolder(s *scene) error {
	count := s.entries
	if err := fill(s.dir, "entry-with-a-name-of-usual-length-", count); err != nil {
		return err
	}
	if err := dropCaches(); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	seen := make(map[string]bool, count)
	for _, e := range entries {
		seen[e.Name()] = true
	}
	if len(entries) != count || len(seen) != count {
		return fmt.Errorf("%d entries listed, %d different, of %d", len(entries), len(seen), count)
	}
	if err := parallel(count, func(i int) error { return unix.Unlink(s.path(entries[i].Name())) }); err != nil {
		return err
	}
	if entries, err = os.ReadDir(s.dir); err != nil || len(entries) != 0 {
		return fmt.Errorf("%d entries after removing all: %v", len(entries), err)
	}
	return nil
}
