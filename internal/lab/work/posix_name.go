package work

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

var nameChecks = []check{
	{"names", "", checkNames},
	{"symlinks", "", checkSymlinks},
	{"hard-links", "", checkHardLinks},
	{"rename-files", "", checkRenameFiles},
	{"rename-folders", "", checkRenameFolders},
	{"special-files", "", checkSpecial},
}

func checkNames(s *scene) error {
	names := []string{
		strings.Repeat("a", 255), strings.Repeat("ü", 127) + "x", strings.Repeat("語", 85), "a b\tc\nd", `back\slash`, "-rf", "...",
		"*?[]", "caf\u00e9", "cafe\u0301", "\U0001f600", "A", "a", ".hidden", "trailing ", "'\"$(x)",
	}
	if s.version == "3" {
		names = append(names, "\xff\xfe", "latin1-\xe9")
	}
	for i, name := range names {
		if err := os.WriteFile(s.path(name), []byte{byte(i)}, 0o644); err != nil {
			return fmt.Errorf("create %q: %w", name, err)
		}
	}
	if err := dropCaches(); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	if len(entries) != len(names) {
		return fmt.Errorf("%d names listed of %d", len(entries), len(names))
	}
	for i, name := range names {
		if err := sameContent(s.path(name), []byte{byte(i)}); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	return steps(
		func() error {
			return expect("256 bytes", touch(s.path(strings.Repeat("b", 256)), 0o644), unix.ENAMETOOLONG)
		},
		func() error { return expect("empty name", touch(s.dir+"/", 0o644), unix.EISDIR, unix.EEXIST) },
		func() error { return expect("mkdir .", os.Mkdir(s.dir+"/.", 0o755), unix.EEXIST) },
	)
}

func checkSymlinks(s *scene) error {
	target := strings.Repeat("long/", 200) + "end"
	return steps(
		func() error { return os.WriteFile(s.path("f"), []byte("content"), 0o644) },
		func() error { return os.Symlink("f", s.path("short")) },
		func() error { return sameContent(s.path("short"), []byte("content")) },
		func() error { return os.Symlink(target, s.path("long")) },
		dropCaches,
		func() error {
			got, err := os.Readlink(s.path("long"))
			if err == nil && got != target {
				err = fmt.Errorf("read %q", got)
			}
			return err
		},
		func() error {
			st, err := stat(s.path("long"))
			if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFLNK || st.Size != int64(len(target))) {
				err = fmt.Errorf("mode %o, size %d", st.Mode, st.Size)
			}
			return err
		},
		func() error { return os.Symlink("dangling", s.path("nowhere")) },
		func() error {
			_, err := os.Open(s.path("nowhere"))
			return expect("open of a dangling link", err, unix.ENOENT)
		},
		func() error { return os.Symlink("loop", s.path("loop")) },
		func() error {
			_, err := os.Open(s.path("loop"))
			return expect("open of a loop", err, unix.ELOOP)
		},
		func() error {
			return expect("symlink over an entry", os.Symlink("x", s.path("f")), unix.EEXIST)
		},
		func() error {
			_, err := os.Readlink(s.path("f"))
			return expect("readlink of a file", err, unix.EINVAL)
		},
		func() error { return os.Remove(s.path("short")) },
		func() error { return sameContent(s.path("f"), []byte("content")) },
	)
}

func checkHardLinks(s *scene) error {
	a, b := s.path("a"), s.path("sub/b")
	links := func(path string, want uint64) func() error {
		return func() error {
			st, err := stat(path)
			if err == nil && uint64(st.Nlink) != want {
				err = fmt.Errorf("%s has %d links, want %d", path, st.Nlink, want)
			}
			return err
		}
	}
	return steps(
		func() error { return os.Mkdir(s.path("sub"), 0o755) },
		func() error { return os.WriteFile(a, []byte("one"), 0o644) },
		func() error { return os.Link(a, b) },
		links(a, 2), links(b, 2),
		func() error {
			x, err := stat(a)
			y, err2 := stat(b)
			if err != nil || err2 != nil || x.Ino != y.Ino {
				return fmt.Errorf("inodes %d and %d, %v, %v", x.Ino, y.Ino, err, err2)
			}
			return nil
		},
		func() error { return os.WriteFile(b, []byte("two"), 0) },
		func() error { return sameContent(a, []byte("two")) },
		func() error { return expect("link over an entry", os.Link(a, b), unix.EEXIST) },
		func() error {
			return expect("link to a folder", os.Link(s.path("sub"), s.path("c")), unix.EPERM, unix.EISDIR)
		},
		func() error {
			return expect("link of a missing file", os.Link(s.path("x"), s.path("c")), unix.ENOENT)
		},
		func() error { return os.Remove(a) },
		links(b, 1),
		dropCaches,
		func() error { return sameContent(b, []byte("two")) },
	)
}

func checkRenameFiles(s *scene) error {
	write := func(name string) func() error {
		return func() error { return os.WriteFile(s.path(name), []byte(name), 0o644) }
	}
	rename := func(from, to string, want ...unix.Errno) func() error {
		return func() error {
			return expect("rename "+from+" "+to, unix.Rename(s.path(from), s.path(to)), want...)
		}
	}
	holds := func(name, content string) func() error {
		return func() error { return sameContent(s.path(name), []byte(content)) }
	}
	gone := func(name string) func() error {
		return func() error {
			_, err := stat(s.path(name))
			return expect("stat "+name, err, unix.ENOENT)
		}
	}
	return steps(
		write("a"), rename("a", "b"), gone("a"), holds("b", "a"),
		// Over an existing file.
		write("c"), rename("c", "b"), gone("c"), holds("b", "c"),
		// To itself, and between two links of one file: nothing happens.
		rename("b", "b"), holds("b", "c"),
		func() error { return os.Link(s.path("b"), s.path("same")) },
		rename("b", "same"), holds("b", "c"), holds("same", "c"),
		// Between folders.
		func() error { return os.Mkdir(s.path("d"), 0o755) },
		rename("b", "d/b"), gone("b"), holds("d/b", "c"),
		write("e"), rename("e", "d/b"), holds("d/b", "e"),
		// What must fail.
		rename("missing", "x", unix.ENOENT),
		rename("same", "nowhere/x", unix.ENOENT),
		rename("same", "d", unix.EISDIR, unix.EEXIST),
		rename("same", "d/b/x", unix.ENOTDIR),
		// Symlinks are renamed themselves.
		func() error { return os.Symlink("same", s.path("l")) },
		rename("l", "m"), gone("l"), holds("m", "c"),
		dropCaches, holds("d/b", "e"), holds("same", "c"),
	)
}

func checkRenameFolders(s *scene) error {
	mkdir := func(name string) func() error {
		return func() error { return os.Mkdir(s.path(name), 0o755) }
	}
	rename := func(from, to string, want ...unix.Errno) func() error {
		return func() error {
			return expect("rename "+from+" "+to, unix.Rename(s.path(from), s.path(to)), want...)
		}
	}
	inode := func(name string) uint64 {
		st, _ := stat(s.path(name))
		return st.Ino
	}
	return steps(
		mkdir("a"), mkdir("a/sub"), mkdir("p"), mkdir("empty"),
		rename("a", "b"),
		rename("b", "empty"), // over an empty folder
		mkdir("full"),
		func() error { return touch(s.path("full/f"), 0o644) },
		rename("empty", "full", unix.ENOTEMPTY, unix.EEXIST),
		rename("empty", "full/f", unix.ENOTDIR, unix.EEXIST),
		rename("empty", "empty/sub/x", unix.EINVAL),
		rename("empty", "p/moved"),
		dropCaches,
		func() error {
			if up, parent := inode("p/moved/.."), inode("p"); up != parent {
				return fmt.Errorf(".. is inode %d, the parent %d", up, parent)
			}
			return nil
		},
		func() error {
			p, err := stat(s.path("p"))
			if err == nil && p.Nlink != 3 {
				err = fmt.Errorf("the new parent has %d links, want 3", p.Nlink)
			}
			return err
		},
		func() error { _, err := stat(s.path("p/moved/sub")); return err },
		rename("p/moved/sub", "back"),
	)
}

func checkSpecial(s *scene) error {
	for _, c := range []struct {
		name string
		mode uint32
		dev  uint64
	}{
		{"fifo", unix.S_IFIFO | 0o640, 0},
		{"socket", unix.S_IFSOCK | 0o600, 0},
		{"char", unix.S_IFCHR | 0o666, unix.Mkdev(1, 3)},
		{"block", unix.S_IFBLK | 0o660, unix.Mkdev(259, 70000)},
		{"file", unix.S_IFREG | 0o444, 0},
	} {
		if err := unix.Mknod(s.path(c.name), c.mode, int(c.dev)); err != nil {
			return fmt.Errorf("mknod %s: %w", c.name, err)
		}
		if err := dropCaches(); err != nil {
			return err
		}
		st, err := stat(s.path(c.name))
		if err != nil {
			return err
		}
		if st.Mode != c.mode || st.Rdev != c.dev {
			return fmt.Errorf("%s: mode %o, device %#x, want %o, %#x", c.name, st.Mode, st.Rdev, c.mode, c.dev)
		}
	}
	// The device and the FIFO work: they are the client's own.
	if err := os.WriteFile(s.path("char"), []byte("into the void"), 0); err != nil {
		return err
	}
	fd, err := unix.Open(s.path("fifo"), unix.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open FIFO: %w", err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte("x")); err != nil {
		return fmt.Errorf("write FIFO: %w", err)
	}
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(sock)
	return expect("bind a socket", unix.Bind(sock, &unix.SockaddrUnix{Name: s.path("bound")}))
}
