package work

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

var permissionChecks = []check{
	{"permission-bits", "", checkModeBits},
	{"chmod-chown", "", checkChmodChown},
	{"setid-cleared", "", checkSetidCleared},
	{"setid-cleared-by-truncate", "", checkTruncateClears},
	{"setgid-folder", "", checkSetgidFolder},
	{"sticky-folder", "", checkSticky},
	{"search-permission", "", checkSearch},
	{"set-times-permission", "", checkTimesPermission},
	{"umask", "", checkUmask},
}

// Users of the checks: ann and bob share the group team, ann's own group is hers alone.
const (
	annUID, annGID = 1000, 1000
	bobUID, bobGID = 1001, 1001
	teamGID        = 2000
)

func asAnn(f func() error) func() error {
	return func() error { return asUser(annUID, []int{annGID, teamGID}, f) }
}

func asBob(f func() error) func() error {
	return func() error { return asUser(bobUID, []int{bobGID, teamGID}, f) }
}

// asStranger is nobody's friend.
func asStranger(f func() error) func() error {
	return func() error { return asUser(1002, []int{1002}, f) }
}

// attributes checks owner, group and all mode bits as the server has them.
func attributes(path string, mode uint32, uid, gid uint32) func() error {
	return func() error {
		if err := dropCaches(); err != nil {
			return err
		}
		st, err := stat(path)
		if err == nil && (st.Mode&0o7777 != mode || st.Uid != uid || st.Gid != gid) {
			err = fmt.Errorf("%s: mode %o, owner %d:%d, want %o, %d:%d", path, st.Mode&0o7777, st.Uid, st.Gid, mode, uid, gid)
		}
		return err
	}
}

func checkModeBits(s *scene) error {
	name := s.path("f")
	open := func(flags int, want ...unix.Errno) func() error {
		return func() error {
			fd, err := unix.Open(name, flags, 0)
			if err == nil {
				unix.Close(fd)
			}
			return expect(fmt.Sprintf("open with flags %#o", flags), err, want...)
		}
	}
	return steps(
		asAnn(func() error { return touch(name, 0o640) }),
		attributes(name, 0o640, annUID, annGID),
		func() error { return os.Chown(name, annUID, teamGID) },
		asAnn(open(unix.O_RDWR)),
		asBob(open(unix.O_RDONLY)),
		asBob(open(unix.O_WRONLY, unix.EACCES)),
		asStranger(open(unix.O_RDONLY, unix.EACCES)),
		func() error { return os.Chmod(name, 0o006) },
		asStranger(open(unix.O_RDWR)),
		asAnn(open(unix.O_RDONLY, unix.EACCES)), // the owner's bits come first
		asBob(open(unix.O_RDONLY, unix.EACCES)), // then the group's
		open(unix.O_RDWR),                       // root may, without squashing
	)
}

func checkChmodChown(s *scene) error {
	name := s.path("f")
	chmod := func(mode uint32, want ...unix.Errno) func() error {
		return func() error { return expect(fmt.Sprintf("chmod %o", mode), unix.Chmod(name, mode), want...) }
	}
	chown := func(uid, gid int, want ...unix.Errno) func() error {
		return func() error {
			return expect(fmt.Sprintf("chown %d:%d", uid, gid), unix.Lchown(name, uid, gid), want...)
		}
	}
	return steps(
		asAnn(func() error { return touch(name, 0o644) }),
		asAnn(chmod(0o751)), attributes(name, 0o751, annUID, annGID),
		asBob(chmod(0o777, unix.EPERM)),
		asAnn(chown(-1, teamGID)), attributes(name, 0o751, annUID, teamGID),
		asAnn(chown(-1, bobGID, unix.EPERM)), // not in that group
		asAnn(chown(bobUID, -1, unix.EPERM)), // no giving away
		asBob(chown(bobUID, -1, unix.EPERM)),
		chown(bobUID, 77777), attributes(name, 0o751, bobUID, 77777),
		// The set-group-id bit needs membership, and is silently left out otherwise.
		asBob(chmod(0o2755)), attributes(name, 0o755, bobUID, 77777),
		chown(bobUID, teamGID), asBob(chmod(0o6755)), attributes(name, 0o6755, bobUID, teamGID),
		chown(4000000000, 4000000001), attributes(name, 0o755, 4000000000, 4000000001),
	)
}

// checkSetidCleared: writing or giving away a program by someone without privilege takes its special bits.
func checkSetidCleared(s *scene) error {
	name := s.path("f")
	set := func(mode uint32) func() error { return func() error { return unix.Chmod(name, mode) } }
	write := func() error {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		if _, err := f.WriteString("changed"); err != nil {
			f.Close()
			return err
		}
		return f.Close()
	}
	return steps(
		asAnn(func() error { return touch(name, 0o777) }),
		func() error { return os.Chown(name, annUID, teamGID) },
		set(0o6777), asBob(write), attributes(name, 0o777, annUID, teamGID),
		set(0o6777), asAnn(write), attributes(name, 0o777, annUID, teamGID),
		set(0o6777), write, attributes(name, 0o6777, annUID, teamGID), // root keeps them
		set(0o6777), asAnn(func() error { return unix.Lchown(name, -1, annGID) }), attributes(name, 0o777, annUID, annGID),
	)
}

func checkTruncateClears(s *scene) error {
	name := s.path("f")
	return steps(
		asAnn(func() error { return touch(name, 0o777) }),
		func() error { return unix.Chmod(name, 0o6777) },
		asBob(func() error { return os.Truncate(name, 3) }),
		attributes(name, 0o777, annUID, annGID),
	)
}

func checkSetgidFolder(s *scene) error {
	dir := s.path("d")
	return steps(
		func() error { return os.Mkdir(dir, 0o777) },
		func() error { return os.Chown(dir, 0, teamGID) },
		func() error { return unix.Chmod(dir, 0o2777) },
		attributes(dir, 0o2777, 0, teamGID),
		asStranger(func() error { return touch(dir+"/f", 0o664) }),
		attributes(dir+"/f", 0o664, 1002, teamGID),
		asStranger(func() error { return os.Mkdir(dir+"/sub", 0o755) }),
		attributes(dir+"/sub", 0o2755, 1002, teamGID),
		asStranger(func() error { return os.Symlink("x", dir+"/l") }),
		func() error {
			st, err := stat(dir + "/l")
			if err == nil && st.Gid != teamGID {
				err = fmt.Errorf("the symlink's group is %d", st.Gid)
			}
			return err
		},
	)
}

func checkSticky(s *scene) error {
	dir := s.path("d")
	a, b := dir+"/ann", dir+"/bob"
	return steps(
		func() error { return os.Mkdir(dir, 0o777) },
		func() error { return unix.Chmod(dir, 0o1777) },
		asAnn(func() error { return touch(a, 0o666) }),
		asBob(func() error { return touch(b, 0o666) }),
		asBob(func() error { return expect("unlink", unix.Unlink(a), unix.EPERM, unix.EACCES) }),
		asBob(func() error { return expect("rename", unix.Rename(a, dir+"/x"), unix.EPERM, unix.EACCES) }),
		asBob(func() error { return expect("rename over", unix.Rename(b, a), unix.EPERM, unix.EACCES) }),
		asAnn(func() error { return unix.Rename(a, dir+"/x") }),
		asAnn(func() error { return unix.Unlink(dir + "/x") }),
		func() error { return os.Chown(dir, annUID, annGID) },
		asAnn(func() error { return unix.Unlink(b) }), // the folder's owner may
	)
}

func checkSearch(s *scene) error {
	dir := s.path("d")
	list := func() error { _, err := os.ReadDir(dir); return err }
	look := func() error { _, err := stat(dir + "/f"); return err }
	create := func() error { return touch(dir+"/new", 0o644) }
	return steps(
		asAnn(func() error { return os.Mkdir(dir, 0o755) }),
		asAnn(func() error { return touch(dir+"/f", 0o644) }),
		asBob(list), asBob(look),
		asBob(func() error { return expect("create without w", create(), unix.EACCES) }),
		asBob(func() error { return expect("unlink without w", unix.Unlink(dir+"/f"), unix.EACCES) }),
		asAnn(func() error { return unix.Chmod(dir, 0o711) }),
		asBob(func() error { return expect("list without r", list(), unix.EACCES) }), asBob(look),
		asAnn(func() error { return unix.Chmod(dir, 0o766) }),
		asBob(func() error { return expect("lookup without x", look(), unix.EACCES) }),
		asBob(func() error { return expect("create without x", create(), unix.EACCES) }),
		asAnn(func() error { return unix.Chmod(dir, 0o773) }),
		asBob(create), asBob(func() error { return unix.Unlink(dir + "/f") }),
	)
}

func checkTimesPermission(s *scene) error {
	name := s.path("f")
	set := func(t unix.Timespec) func() error {
		return func() error {
			return unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
		}
	}
	now, then := set(unix.Timespec{Nsec: unix.UTIME_NOW}), set(unix.Timespec{Sec: 1_000_000_000})
	return steps(
		asAnn(func() error { return touch(name, 0o666) }),
		asAnn(then), asAnn(now),
		asBob(now), // who may write may say "now"
		asBob(func() error { return expect("utimes by another", then(), unix.EPERM) }),
		asAnn(func() error { return unix.Chmod(name, 0o644) }),
		asBob(func() error { return expect("now without w", now(), unix.EACCES) }),
		asAnn(func() error { return unix.Chmod(name, 0o444) }),
		asAnn(now), // the owner always may
	)
}

func checkUmask(s *scene) error {
	unix.Umask(0o027)
	defer unix.Umask(0)
	return steps(
		func() error { return touch(s.path("f"), 0o666) }, attributes(s.path("f"), 0o640, 0, 0),
		func() error { return os.Mkdir(s.path("d"), 0o777) }, attributes(s.path("d"), 0o750, 0, 0),
		func() error { return unix.Mkfifo(s.path("p"), 0o666) }, attributes(s.path("p"), 0o640, 0, 0),
	)
}
