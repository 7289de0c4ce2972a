package volume

import (
	"strings"
	"testing"

	"holdfast/internal/store"
)

var (
	rootCred  = &Cred{}
	aliceCred = &Cred{UID: 100, GID: 100, Groups: []uint32{500}}
	bobCred   = &Cred{UID: 200, GID: 200}
)

// world is a file system for the table tests: /open (0777), /sticky (01777), /shared (02777, group 500), /alice (0755, hers), each file in it hers.
type world struct {
	*harness
	dirs map[string]*Inode
	tx   *Tx
}

func newWorld(t *testing.T) *world {
	w := &world{harness: newHarness(t, store.NewMem()), dirs: map[string]*Inode{"": nil}}
	root := w.root()
	w.dirs["root"] = root
	w.do(func(tx *Tx) {
		mkdir := func(name string, mode, uid, gid uint32) {
			w.dirs[name] = must(t)(tx.Mkdir(nil, root, name, SetAttr{Mode: &mode, UID: &uid, GID: &gid}))
		}
		mkdir("open", 0o777, 0, 0)
		mkdir("sticky", 0o1777, 0, 0)
		mkdir("shared", 0o2777, 0, 500)
		mkdir("alice", 0o755, 100, 100)
		mkdir("closed", 0o700, 0, 0)
		for _, name := range []string{"open", "sticky", "alice", "shared"} {
			must(t)(tx.Create(aliceCred, w.dirs[name], "file", TypeFile, CreateAttr{SetAttr: SetAttr{Mode: ptr(uint32(0o644))}}))
			sub := must(t)(tx.Mkdir(aliceCred, w.dirs[name], "sub", SetAttr{Mode: ptr(uint32(0o755))}))
			must(t)(tx.Create(aliceCred, sub, "leaf", TypeFile, CreateAttr{}))
			must(t)(tx.Mkdir(aliceCred, w.dirs[name], "empty", SetAttr{Mode: ptr(uint32(0o755))}))
		}
	})
	return w
}

// at resolves a path like "open/sub/leaf" in the running Tx.
func (w *world) at(path string) *Inode {
	w.t.Helper()
	n, errno := w.tx.Inode(RootIno, 0)
	for _, name := range strings.Split(path, "/") {
		if errno == OK && name != "root" {
			n, errno = w.tx.Lookup(nil, n, name)
		}
	}
	if errno != OK {
		w.t.Fatalf("%s: %v", path, errno)
	}
	return n
}

func (w *world) run(fn func(tx *Tx)) {
	w.t.Helper()
	w.do(func(tx *Tx) {
		w.tx = tx
		fn(tx)
	})
}

func TestNamespaceRules(t *testing.T) {
	long := strings.Repeat("n", 256)
	create := func(c *Cred, dir, name string) func(w *world, tx *Tx) Errno {
		return func(w *world, tx *Tx) Errno {
			_, errno := tx.Create(c, w.at(dir), name, TypeFile, CreateAttr{})
			return errno
		}
	}
	remove := func(c *Cred, dir, name string, kind RemoveKind) func(w *world, tx *Tx) Errno {
		return func(w *world, tx *Tx) Errno { return tx.Remove(c, w.at(dir), name, kind) }
	}
	rename := func(c *Cred, from, old, to, new string) func(w *world, tx *Tx) Errno {
		return func(w *world, tx *Tx) Errno { return tx.Rename(c, w.at(from), old, w.at(to), new) }
	}
	link := func(c *Cred, what, dir, name string) func(w *world, tx *Tx) Errno {
		return func(w *world, tx *Tx) Errno { return tx.Link(c, w.at(what), w.at(dir), name) }
	}
	tests := []struct {
		name string
		op   func(w *world, tx *Tx) Errno
		want Errno
	}{
		{"create", create(bobCred, "open", "new"), OK},
		{"create the longest name", create(bobCred, "open", long[:255]), OK},
		{"create a name of any bytes", create(bobCred, "open", "\xff\x01"), OK},
		{"create over a file", create(bobCred, "open", "file"), ErrExist},
		{"create over a directory", create(bobCred, "open", "sub"), ErrExist},
		{"create without permission", create(bobCred, "alice", "new"), ErrAccess},
		{"create over a file without permission", create(bobCred, "alice", "file"), ErrExist},
		{"create without search permission", create(bobCred, "closed", "new"), ErrAccess},
		{"create in a file", create(bobCred, "open/file", "new"), ErrNotDir},
		{"create too long a name", create(bobCred, "open", long), ErrNameTooLong},
		{"create no name", create(bobCred, "open", ""), ErrInval},
		{"create a name with a slash", create(bobCred, "open", "a/b"), ErrInval},
		{"create a name with a zero byte", create(bobCred, "open", "a\x00"), ErrInval},
		{"create dot", create(bobCred, "open", "."), ErrExist},
		{"create dot dot", create(bobCred, "open", ".."), ErrExist},

		{"remove a file", remove(bobCred, "open", "file", RemoveFile), OK},
		{"remove a file by any", remove(bobCred, "open", "file", RemoveAny), OK},
		{"remove an empty directory", remove(bobCred, "open", "empty", RemoveDir), OK},
		{"remove an empty directory by any", remove(bobCred, "open", "empty", RemoveAny), OK},
		{"remove a directory as a file", remove(bobCred, "open", "empty", RemoveFile), ErrIsDir},
		{"remove a file as a directory", remove(bobCred, "open", "file", RemoveDir), ErrNotDir},
		{"remove a full directory", remove(bobCred, "open", "sub", RemoveDir), ErrNotEmpty},
		{"remove what is not there", remove(bobCred, "open", "nothing", RemoveAny), ErrNoEnt},
		{"remove without permission", remove(bobCred, "alice", "file", RemoveAny), ErrAccess},
		{"remove another's from a sticky directory", remove(bobCred, "sticky", "file", RemoveAny), ErrPerm},
		{"remove one's own from a sticky directory", remove(aliceCred, "sticky", "file", RemoveAny), OK},
		{"remove anything from a sticky directory as root", remove(rootCred, "sticky", "file", RemoveAny), OK},
		{"remove dot", remove(aliceCred, "open", ".", RemoveDir), ErrInval},
		{"remove dot dot", remove(aliceCred, "open", "..", RemoveDir), ErrNotEmpty},

		{"link", link(bobCred, "open/file", "open", "new"), OK},
		{"link over a file", link(bobCred, "open/file", "sticky", "file"), ErrExist},
		{"link a directory", link(rootCred, "open/sub", "open", "new"), ErrIsDir},
		{"link without permission", link(bobCred, "open/file", "alice", "new"), ErrAccess},

		{"rename", rename(bobCred, "open", "file", "open", "new"), OK},
		{"rename to itself", rename(bobCred, "open", "file", "open", "file"), OK},
		{"rename into another directory", rename(aliceCred, "open", "file", "sticky", "new"), OK},
		{"rename over a file", rename(aliceCred, "open", "file", "sticky", "file"), OK},
		{"rename over another's in a sticky directory", rename(bobCred, "open", "file", "sticky", "file"), ErrPerm},
		{"rename another's out of a sticky directory", rename(bobCred, "sticky", "file", "open", "new"), ErrPerm},
		{"rename what is not there", rename(bobCred, "open", "nothing", "open", "new"), ErrNoEnt},
		{"rename without permission on the old directory", rename(bobCred, "alice", "file", "open", "new"), ErrAccess},
		{"rename without permission on the new directory", rename(bobCred, "open", "file", "alice", "new"), ErrAccess},
		{"rename a directory over a file", rename(aliceCred, "open", "sub", "open", "file"), ErrNotDir},
		{"rename a file over a directory", rename(aliceCred, "open", "file", "open", "empty"), ErrIsDir},
		{"rename a directory over a full one", rename(aliceCred, "open", "empty", "open", "sub"), ErrNotEmpty},
		{"rename a directory over an empty one", rename(aliceCred, "open", "sub", "open", "empty"), OK},
		{"rename a directory into itself", rename(aliceCred, "open", "sub", "open/sub", "new"), ErrInval},
		{"rename a directory below itself", rename(rootCred, "root", "open", "open/sub", "new"), ErrInval},
		{"rename a directory over its parent", rename(rootCred, "open/sub", "leaf", "root", "open"), ErrIsDir},
		{"rename another's directory elsewhere", rename(bobCred, "open", "sub", "shared", "new"), ErrAccess},
		{"rename another's directory in place", rename(bobCred, "open", "sub", "open", "new"), OK},
		{"rename dot", rename(aliceCred, "open", ".", "open", "new"), ErrInval},
		{"rename to dot dot", rename(aliceCred, "open", "file", "open", ".."), ErrInval},

		{"lookup without search permission", func(w *world, tx *Tx) Errno {
			_, errno := tx.Lookup(bobCred, w.at("closed"), "x")
			return errno
		}, ErrAccess},
		{"device as a user", func(w *world, tx *Tx) Errno {
			_, errno := tx.Create(bobCred, w.at("open"), "dev", TypeChar, CreateAttr{Rdev: 5})
			return errno
		}, ErrPerm},
		{"device as root", func(w *world, tx *Tx) Errno {
			n, errno := tx.Create(rootCred, w.at("open"), "dev", TypeBlock, CreateAttr{Rdev: 5})
			if errno == OK && n.Rdev != 5 {
				return ErrServerFault
			}
			return errno
		}, OK},
		{"symlink to nothing", func(w *world, tx *Tx) Errno {
			_, errno := tx.Create(bobCred, w.at("open"), "ln", TypeSymlink, CreateAttr{})
			return errno
		}, ErrInval},
		{"symlink with too long a target", func(w *world, tx *Tx) Errno {
			_, errno := tx.Create(bobCred, w.at("open"), "ln", TypeSymlink, CreateAttr{Target: strings.Repeat("t", 4097)})
			return errno
		}, ErrNameTooLong},
		{"create a directory by Create", func(w *world, tx *Tx) Errno {
			_, errno := tx.Create(bobCred, w.at("open"), "d", TypeDir, CreateAttr{})
			return errno
		}, ErrBadType},
		{"write to a directory", func(w *world, tx *Tx) Errno {
			_, errno := tx.Write(rootCred, w.at("open"), 0, []byte("x"))
			return errno
		}, ErrIsDir},
		{"write beyond the largest file", func(w *world, tx *Tx) Errno {
			_, errno := tx.Write(rootCred, w.at("open/file"), MaxFileBytes, []byte("x"))
			return errno
		}, ErrFBig},
		{"write up to the largest file", func(w *world, tx *Tx) Errno {
			_, errno := tx.Write(rootCred, w.at("open/file"), MaxFileBytes-1, []byte("x"))
			return errno
		}, OK},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.run(func(tx *Tx) {
				if got := test.op(w, tx); got != test.want {
					t.Errorf("%v, want %v", got, test.want)
				}
			})
		})
	}
}

func TestSetAttrRules(t *testing.T) {
	u := func(v uint32) *uint32 { return &v }
	size, when := uint64(5), int64(77)
	tests := []struct {
		name     string
		c        *Cred
		mode     uint32 // of the file, which is alice's
		gid      uint32
		attr     SetAttr
		canWrite bool
		want     Errno
		wantMode uint32
	}{
		{"chmod by the owner", aliceCred, 0o644, 100, SetAttr{Mode: u(0o4755)}, false, OK, 0o4755},
		{"chmod by another", bobCred, 0o666, 100, SetAttr{Mode: u(0o777)}, false, ErrPerm, 0o666},
		{"chmod setgid by a member", aliceCred, 0o644, 500, SetAttr{Mode: u(0o2755)}, false, OK, 0o2755},
		{"chmod setgid by a stranger to the group", aliceCred, 0o644, 900, SetAttr{Mode: u(0o2755)}, false, OK, 0o755},
		{"chmod setgid by root", rootCred, 0o644, 900, SetAttr{Mode: u(0o2755)}, false, OK, 0o2755},
		{"chown by the owner", aliceCred, 0o644, 100, SetAttr{UID: u(200)}, false, ErrPerm, 0o644},
		{"chown to oneself", aliceCred, 0o644, 100, SetAttr{UID: u(100)}, false, OK, 0o644},
		{"chown by root", rootCred, 0o6755, 100, SetAttr{UID: u(200)}, false, OK, 0o755},
		{"chgrp to an own group", aliceCred, 0o6755, 100, SetAttr{GID: u(500)}, false, OK, 0o755},
		{"chgrp keeps setgid without group execution", aliceCred, 0o6745, 100, SetAttr{GID: u(500)}, false, OK, 0o2745},
		{"chgrp to a foreign group", aliceCred, 0o644, 100, SetAttr{GID: u(200)}, false, ErrPerm, 0o644},
		{"chgrp by another", bobCred, 0o644, 100, SetAttr{GID: u(200)}, false, ErrPerm, 0o644},
		{"truncate by the owner of a read-only file", aliceCred, 0o444, 100, SetAttr{Size: &size}, false, OK, 0o444},
		{"truncate by another without permission", bobCred, 0o644, 100, SetAttr{Size: &size}, false, ErrAccess, 0o644},
		{"truncate by another with permission", bobCred, 0o6777, 100, SetAttr{Size: &size}, false, OK, 0o777},
		{"truncate by another with an open", bobCred, 0o644, 100, SetAttr{Size: &size}, true, OK, 0o644},
		{"truncate by root", rootCred, 0o6777, 100, SetAttr{Size: &size}, false, OK, 0o6777},
		{"explicit time by another", bobCred, 0o666, 100, SetAttr{Mtime: &when}, false, ErrPerm, 0o666},
		{"explicit time by the owner", aliceCred, 0o444, 100, SetAttr{Mtime: &when}, false, OK, 0o444},
		{"current time by a writer", bobCred, 0o666, 100, SetAttr{MtimeNow: true, AtimeNow: true}, false, OK, 0o666},
		{"current time by a reader", bobCred, 0o644, 100, SetAttr{MtimeNow: true}, false, ErrAccess, 0o644},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.run(func(tx *Tx) {
				f := must(t)(tx.SetAttr(rootCred, w.at("open/file"), SetAttr{GID: &test.gid}, false))
				f = must(t)(tx.SetAttr(rootCred, f, SetAttr{Mode: &test.mode}, false))
				_, errno := tx.SetAttr(test.c, f, test.attr, test.canWrite)
				if errno != test.want {
					t.Errorf("%v, want %v", errno, test.want)
				}
				if got := w.at("open/file").Mode; got != test.wantMode {
					t.Errorf("mode %o, want %o", got, test.wantMode)
				}
			})
		})
	}
	t.Run("truncate of a directory", func(t *testing.T) {
		w := newWorld(t)
		w.run(func(tx *Tx) {
			if _, errno := tx.SetAttr(rootCred, w.at("open"), SetAttr{Size: &size}, false); errno != ErrIsDir {
				t.Error(errno)
			}
		})
	})
}

func TestNewInodesInherit(t *testing.T) {
	w := newWorld(t)
	w.run(func(tx *Tx) {
		mode := func(m uint32) SetAttr { return SetAttr{Mode: &m} }
		f := must(t)(tx.Create(bobCred, w.at("shared"), "f", TypeFile, CreateAttr{SetAttr: mode(0o2755)}))
		if f.GID != 500 || f.UID != 200 || f.Mode != 0o755 {
			t.Errorf("file in a setgid directory: %+v", f)
		}
		d := must(t)(tx.Mkdir(bobCred, w.at("shared"), "d", mode(0o700)))
		if d.GID != 500 || d.Mode != 0o2700 || d.Parent != w.at("shared").Ino || d.Nlink != 2 {
			t.Errorf("directory in a setgid directory: %+v", d)
		}
		f = must(t)(tx.Create(bobCred, w.at("open"), "f", TypeFile, CreateAttr{SetAttr: SetAttr{Mode: ptr(uint32(0o2755)), UID: ptr(uint32(0)), GID: ptr(uint32(0))}}))
		if f.GID != 200 || f.UID != 200 || f.Mode != 0o2755 {
			t.Errorf("file with owners that the caller may not set: %+v", f)
		}
		f = must(t)(tx.Create(rootCred, w.at("open"), "g", TypeFile, CreateAttr{SetAttr: SetAttr{UID: ptr(uint32(7)), GID: ptr(uint32(8)), Size: ptr(uint64(9000)), Mtime: ptr(int64(5))}}))
		if f.UID != 7 || f.GID != 8 || f.Size != 9000 || f.Mtime != 5 || f.Btime != tx.Now() {
			t.Errorf("file with attributes by root: %+v", f)
		}
	})
}

func TestWriteClearsPrivileges(t *testing.T) {
	w := newWorld(t)
	w.run(func(tx *Tx) {
		for _, test := range []struct {
			c          *Cred
			mode, want uint32
		}{{aliceCred, 0o6755, 0o755}, {aliceCred, 0o6745, 0o2745}, {rootCred, 0o6755, 0o6755}} {
			f := must(t)(tx.SetAttr(rootCred, w.at("open/file"), SetAttr{Mode: &test.mode}, false))
			if f = must(t)(tx.Write(test.c, f, 0, []byte("x"))); f.Mode != test.want {
				t.Errorf("mode %o after a write to %o by %d, want %o", f.Mode, test.mode, test.c.UID, test.want)
			}
		}
	})
}

func TestAccess(t *testing.T) {
	const all = 63
	dir, file := &Inode{Type: TypeDir, UID: 100, GID: 500}, &Inode{Type: TypeFile, UID: 100, GID: 500}
	member := &Cred{UID: 300, Groups: []uint32{500}, GID: 300}
	tests := []struct {
		c    *Cred
		n    *Inode
		mode uint32
		want uint32
	}{
		{aliceCred, file, 0o600, AccessRead | AccessModify | AccessExtend},
		{aliceCred, file, 0o077, 0},
		{member, file, 0o070, AccessRead | AccessModify | AccessExtend | AccessExecute},
		{member, file, 0o707, 0},
		{bobCred, file, 0o005, AccessRead | AccessExecute},
		{rootCred, file, 0, AccessRead | AccessModify | AccessExtend},
		{rootCred, file, 0o001, AccessRead | AccessModify | AccessExtend | AccessExecute},
		{rootCred, dir, 0, AccessRead | AccessLookup | AccessModify | AccessExtend | AccessDelete},
		{bobCred, dir, 0o005, AccessRead | AccessLookup},
		{bobCred, dir, 0o002, 0},
		{bobCred, dir, 0o003, AccessLookup | AccessModify | AccessExtend | AccessDelete},
	}
	w := newWorld(t)
	w.v.View(func(tx *Tx) {
		for _, test := range tests {
			n := *test.n
			n.Mode = test.mode
			if got := tx.Access(test.c, &n, all); got != test.want {
				t.Errorf("uid %d, type %d, mode %o: %b, want %b", test.c.UID, n.Type, n.Mode, got, test.want)
			}
			if test.want&^AccessSupported(n.Type) != 0 {
				t.Errorf("type %d: %b is not among what is supported", n.Type, test.want)
			}
		}
	})
}

func TestOrphans(t *testing.T) {
	w := newWorld(t)
	var f *Inode
	w.run(func(tx *Tx) {
		f = must(t)(tx.Write(nil, w.at("open/file"), 0, make([]byte, 10000)))
		w.inUse[f.Ino] = true
		if errno := tx.Remove(nil, w.at("open"), "file", RemoveAny); errno != OK {
			t.Fatal(errno)
		}
		if errno := tx.Link(nil, f, w.at("open"), "again"); errno != ErrNoEnt {
			t.Errorf("link of an orphan: %v", errno)
		}
	})
	w.open()
	orphans := func() (all []Ino) { w.v.View(func(tx *Tx) { all = tx.Orphans() }); return all }
	if got := orphans(); len(got) != 1 || got[0] != f.Ino {
		t.Fatalf("orphans %v", got)
	}
	w.run(func(tx *Tx) {
		n := must(t)(tx.Write(nil, f, 10000, []byte("more")))
		if n.Nlink != 0 || n.Size != 10004 {
			t.Errorf("%+v", n)
		}
		if count, _, errno := tx.Read(n, 9999, make([]byte, 100)); count != 5 || errno != OK {
			t.Errorf("read of an orphan: %d, %v", count, errno)
		}
		tx.ReleaseOrphan(f.Ino) // still in use
		must(t)(tx.Inode(f.Ino, f.Gen))
	})
	w.run(func(tx *Tx) {
		delete(w.inUse, f.Ino)
		tx.ReleaseOrphan(f.Ino)
		if _, errno := tx.Inode(f.Ino, f.Gen); errno != ErrStale {
			t.Errorf("after the release: %v", errno)
		}
		tx.ReleaseOrphan(f.Ino)
		tx.ReleaseOrphan(RootIno)
	})
	if got := orphans(); len(got) != 0 {
		t.Fatalf("orphans %v", got)
	}
	if err := w.store.ListObjects(func(id uint64) bool { t.Errorf("object %d is left", id); return true }); err != nil {
		t.Fatal(err)
	}
}

func TestTimesAndChange(t *testing.T) {
	w := newWorld(t)
	var before, after *Inode
	w.run(func(tx *Tx) { before = w.at("open/file") })
	w.run(func(tx *Tx) { after = must(t)(tx.Write(nil, before, 0, []byte("x"))) })
	if after.Change != w.v.Applied() || after.Mtime != w.now || after.Ctime != w.now || after.Atime != before.Atime {
		t.Errorf("after a write %+v", after)
	}
	before = after
	w.run(func(tx *Tx) { after = must(t)(tx.Write(nil, before, 0, nil)) })
	if *after != *before {
		t.Errorf("an empty write changed %+v to %+v", before, after)
	}
	w.run(func(tx *Tx) { after = must(t)(tx.SetAttr(nil, before, SetAttr{Mode: ptr(uint32(0o600))}, false)) })
	if after.Ctime != w.now || after.Mtime != before.Mtime || after.Change != w.v.Applied() {
		t.Errorf("after chmod %+v", after)
	}
	dir := w.current(w.dirs["open"])
	w.run(func(tx *Tx) {
		if errno := tx.Remove(nil, dir, "file", RemoveAny); errno != OK {
			t.Fatal(errno)
		}
	})
	if now := w.current(dir); now.Mtime != w.now || now.Change != w.v.Applied() || now.Entries != dir.Entries-1 {
		t.Errorf("directory after a removal %+v", now)
	}
	// The clock of a new leader may be behind.
	w.now -= 1e12
	w.run(func(tx *Tx) {
		if tx.Now() < dir.Mtime {
			t.Error("time went back")
		}
	})
}

func TestExclusiveVerifier(t *testing.T) {
	w := newWorld(t)
	w.run(func(tx *Tx) {
		v := [8]byte{1, 2, 3}
		f := must(t)(tx.Create(aliceCred, w.at("open"), "x", TypeFile, CreateAttr{Verifier: &v}))
		if !f.HasVerifier || f.Verifier != v {
			t.Errorf("%+v", f)
		}
		if f = must(t)(tx.SetAttr(aliceCred, f, SetAttr{Mode: ptr(uint32(0o644))}, false)); f.HasVerifier {
			t.Error("SETATTR keeps the verifier")
		}
	})
}

func TestFullRefusesGrowth(t *testing.T) {
	w := newWorld(t)
	w.run(func(tx *Tx) { must(t)(tx.Write(nil, w.at("open/file"), 0, make([]byte, 9000))) })
	w.full = true
	w.run(func(tx *Tx) {
		f, dir := w.at("open/file"), w.at("open")
		if _, errno := tx.Write(nil, f, 0, make([]byte, 9000)); errno != OK {
			t.Errorf("overwrite: %v", errno)
		}
		for name, errno := range map[string]Errno{
			"write":    second(tx.Write(nil, f, 8000, make([]byte, 1001))),
			"create":   second(tx.Create(nil, dir, "new", TypeFile, CreateAttr{})),
			"mkdir":    second(tx.Mkdir(nil, dir, "new", SetAttr{})),
			"allocate": second(tx.Allocate(f, 0, 10000)),
		} {
			if errno != ErrNoSpace {
				t.Errorf("%s: %v", name, errno)
			}
		}
		if errno := tx.Remove(nil, dir, "file", RemoveAny); errno != OK {
			t.Errorf("remove: %v", errno)
		}
	})
}

func second(_ *Inode, errno Errno) Errno { return errno }

func TestReadTxChangesNothing(t *testing.T) {
	w := newWorld(t)
	sum := func() Digest {
		_, d, err := w.v.Checksum(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	before := sum()
	w.v.View(func(tx *Tx) {
		w.tx = tx
		f, dir := w.at("open/file"), w.at("open")
		for name, errno := range map[string]Errno{
			"write":      second(tx.Write(nil, f, 0, []byte("x"))),
			"create":     second(tx.Create(nil, dir, "new", TypeFile, CreateAttr{})),
			"mkdir":      second(tx.Mkdir(nil, dir, "new", SetAttr{})),
			"setattr":    second(tx.SetAttr(nil, f, SetAttr{AtimeNow: true}, true)),
			"allocate":   second(tx.Allocate(f, 0, 1)),
			"deallocate": second(tx.Deallocate(f, 0, 1)),
			"link":       tx.Link(nil, f, dir, "new"),
			"remove":     tx.Remove(nil, dir, "file", RemoveAny),
			"rename":     tx.Rename(nil, dir, "file", dir, "new"),
		} {
			if errno != ErrROFS {
				t.Errorf("%s in a read-only Tx: %v", name, errno)
			}
		}
		tx.Put(1, []byte("k"), nil)
		tx.Del(1, []byte("k"))
		tx.ReleaseOrphan(f.Ino)
	})
	if sum() != before {
		t.Error("something changed")
	}
}
