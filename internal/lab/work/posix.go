package work

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func init() { registry["posix"] = with(posix) }

// PosixArgs chooses what the POSIX exercise does.
type PosixArgs struct {
	Dir     string // on the mount; a folder is made in it for each check
	Version string // of the mount; checks that need a later one are skipped
	Only    string // if not empty, the one check to run
	// Entries is how many the big folder has.
	Entries int
}

// Outcome is how one check went.
type Outcome struct {
	Name    string
	Skipped string `json:",omitempty"` // why it did not run
	Error   string `json:",omitempty"` // empty if it passed
	Millis  int64
}

// check is one named test of what a file system has to do.
type check struct {
	name string
	// since is the first NFS version that can do it, empty for all.
	since string
	run   func(*scene) error
}

// scene is where one check plays: an empty folder of mode 0777.
type scene struct {
	dir     string
	version string
	entries int // of the big folder
}

func (s *scene) path(name string) string { return filepath.Join(s.dir, name) }

// posix runs the checks one after the other and reports all outcomes, each also as an event.
func posix(ctx context.Context, args PosixArgs, emit func(any)) ([]Outcome, error) {
	unix.Umask(0)
	var all []Outcome
	for _, list := range [][]check{fileChecks, attributeChecks, spaceChecks, nameChecks, directoryChecks, permissionChecks} {
		for _, c := range list {
			if ctx.Err() != nil {
				return all, ctx.Err()
			}
			if args.Only != "" && args.Only != c.name {
				continue
			}
			o := perform(c, args)
			emit(o)
			all = append(all, o)
		}
	}
	return all, nil
}

func perform(c check, args PosixArgs) Outcome {
	o := Outcome{Name: c.name}
	if args.Version < c.since {
		o.Skipped = "needs version " + c.since
		return o
	}
	start := time.Now()
	s := &scene{dir: filepath.Join(args.Dir, c.name), version: args.Version, entries: args.Entries}
	err := os.Mkdir(s.dir, 0o777)
	if err == nil {
		err = c.run(s)
	}
	// What a check leaves behind must be removable, which catches open files that the server still believes in.
	if rmErr := os.RemoveAll(s.dir); rmErr != nil {
		err = errors.Join(err, fmt.Errorf("clean up: %w", rmErr))
	}
	if err != nil {
		o.Error = strings.ReplaceAll(err.Error(), s.dir+"/", "")
	}
	o.Millis = time.Since(start).Milliseconds()
	return o
}

// expect turns a wrong outcome into an error: nil is expected if no errno is given, else one of those given.
func expect(what string, err error, want ...unix.Errno) error {
	if len(want) == 0 {
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	}
	for _, w := range want {
		if errors.Is(err, w) {
			return nil
		}
	}
	return fmt.Errorf("%s: got %v, want %v", what, err, want)
}

// steps returns the first error of a series of actions. Each is run only when those before it went well.
func steps(actions ...func() error) error {
	for i, a := range actions {
		if err := a(); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}

// asUser runs f on a thread with the file system identity of an unprivileged user, whose primary group is the first of
// groups. The thread ends with it.
func asUser(uid int, groups []int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread must not be used again
		done <- func() error {
			list := make([]uint32, len(groups))
			for i, g := range groups {
				list[i] = uint32(g)
			}
			if err := setGroups(list); err != nil {
				return fmt.Errorf("setgroups: %w", err)
			}
			if err := unix.Setfsgid(groups[0]); err != nil {
				return fmt.Errorf("setfsgid: %w", err)
			}
			if err := unix.Setfsuid(uid); err != nil {
				return fmt.Errorf("setfsuid: %w", err)
			}
			return f()
		}()
	}()
	return <-done
}

// pattern is n reproducible bytes without a period that a block size would hide.
func pattern(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24), 'l', 'a', 'b'})
	r.Read(b)
	return b
}

// dropCaches makes the kernel forget clean pages, entries and inodes, so that what is read next comes from the server.
func dropCaches() error {
	unix.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}

// sameContent compares a file with what it should hold.
func sameContent(path string, want []byte) error {
	got, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return compare(path, got, want)
}

// sameOnServer is sameContent of the file as the server has it.
func sameOnServer(path string, want []byte) error {
	if err := dropCaches(); err != nil {
		return err
	}
	return sameContent(path, want)
}

func compare(what string, got, want []byte) error {
	if bytes.Equal(got, want) {
		return nil
	}
	if len(got) != len(want) {
		return fmt.Errorf("%s: has %d bytes, want %d", what, len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			return fmt.Errorf("%s: byte %d is %#x, want %#x", what, i, got[i], want[i])
		}
	}
	return nil
}

// stat is lstat(2).
func stat(path string) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	if err != nil {
		err = fmt.Errorf("lstat %s: %w", path, err)
	}
	return st, err
}

// touch makes an empty file.
func touch(path string, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	return f.Close()
}
