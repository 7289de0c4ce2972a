package work

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

var attributeChecks = []check{
	{"timestamps", "", checkTimestamps},
	{"time-updates", "", checkTimeUpdates},
	{"statfs", "", checkStatfs},
}

func checkTimestamps(s *scene) error {
	name := s.path("f")
	if err := touch(name, 0o644); err != nil {
		return err
	}
	set := func(atime, mtime unix.Timespec) error {
		return unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{atime, mtime}, unix.AT_SYMLINK_NOFOLLOW)
	}
	want := [2]unix.Timespec{{Sec: 1_000_000_007, Nsec: 123_456_789}, {Sec: 1_700_000_001, Nsec: 987_654_321}}
	if err := set(want[0], want[1]); err != nil {
		return fmt.Errorf("utimensat: %w", err)
	}
	verify := func(when string) error {
		if err := dropCaches(); err != nil {
			return err
		}
		st, err := stat(name)
		if err == nil && (st.Atim != want[0] || st.Mtim != want[1]) {
			err = fmt.Errorf("%s: times are %v %v, want %v %v", when, st.Atim, st.Mtim, want[0], want[1])
		}
		return err
	}
	if err := verify("after setting both"); err != nil {
		return err
	}
	want[1] = unix.Timespec{Sec: 5, Nsec: 1}
	if err := set(unix.Timespec{Nsec: unix.UTIME_OMIT}, want[1]); err != nil {
		return err
	}
	if err := verify("after setting the modification time"); err != nil {
		return err
	}
	if err := set(unix.Timespec{Nsec: unix.UTIME_OMIT}, unix.Timespec{Nsec: unix.UTIME_NOW}); err != nil {
		return err
	}
	st, err := stat(name)
	if err != nil {
		return err
	}
	if age := time.Since(time.Unix(st.Mtim.Unix())); age < -time.Minute || age > time.Minute {
		return fmt.Errorf("UTIME_NOW set the time to %v ago", age)
	}
	return nil
}

// checkTimeUpdates: which action moves which time.
func checkTimeUpdates(s *scene) error {
	name := s.path("f")
	if err := touch(name, 0o644); err != nil {
		return err
	}
	actions := []struct {
		what         string
		act          func() error
		path         string
		mtime, ctime bool
	}{
		{"write", func() error { return os.WriteFile(name, []byte("x"), 0) }, name, true, true},
		{"chmod", func() error { return os.Chmod(name, 0o600) }, name, false, true},
		{"chown", func() error { return os.Chown(name, 1, 1) }, name, false, true},
		{"link", func() error { return os.Link(name, s.path("l")) }, name, false, true},
		{"truncate", func() error { return os.Truncate(name, 100) }, name, true, true},
		{"create in folder", func() error { return touch(s.path("g"), 0o644) }, s.dir, true, true},
		{"remove from folder", func() error { return os.Remove(s.path("g")) }, s.dir, true, true},
		{"stat", func() error { _, err := stat(name); return err }, name, false, false},
	}
	for _, a := range actions {
		if err := dropCaches(); err != nil {
			return err
		}
		before, err := stat(a.path)
		if err != nil {
			return err
		}
		// Time stamps may be as coarse as a tick of the server's kernel; the step has to be seen.
		time.Sleep(12 * time.Millisecond)
		if err := a.act(); err != nil {
			return fmt.Errorf("%s: %w", a.what, err)
		}
		if err := dropCaches(); err != nil {
			return err
		}
		after, err := stat(a.path)
		if err != nil {
			return err
		}
		if moved := after.Mtim != before.Mtim; moved != a.mtime {
			return fmt.Errorf("%s: modification time moved: %v, want %v", a.what, moved, a.mtime)
		}
		if moved := after.Ctim != before.Ctim; moved != a.ctime {
			return fmt.Errorf("%s: change time moved: %v, want %v", a.what, moved, a.ctime)
		}
	}
	return nil
}

func checkStatfs(s *scene) error {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return fmt.Errorf("statfs: %w", err)
	}
	if st.Type != unix.NFS_SUPER_MAGIC || st.Namelen != 255 {
		return fmt.Errorf("type %#x, longest name %d", st.Type, st.Namelen)
	}
	if st.Bsize <= 0 || st.Blocks == 0 || st.Bavail == 0 || st.Bavail > st.Blocks || st.Ffree > st.Files || st.Files == 0 {
		return fmt.Errorf("implausible: %+v", st)
	}
	return nil
}
