package work

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

func init() { registry["lock"] = with(lockStep) }

// LockStep is one step of a play between guests about locks. Open files stay open from step to step.
type LockStep struct {
	// File is the path; the file is opened on first use.
	File string
	// Handle tells open files of the same path apart.
	Handle string
	// Do is "fcntl", "test" (F_GETLK), "flock", "write", or "close".
	Do string
	// Kind is 'r', 'w' or 'u': shared, exclusive, unlock.
	Kind string
	// Start and Length are of the range, for fcntl.
	Start, Length int64
	// Wait blocks until the lock is there.
	Wait bool
}

// LockOutcome is how a step went: the errno's name, or empty; for "test" the kind of the lock in the way.
type LockOutcome struct {
	Errno string
	Found string
}

// lockFiles are the files that lock steps have open.
var lockFiles struct {
	sync.Mutex
	open map[string]*os.File
}

func lockFile(s LockStep) (*os.File, error) {
	lockFiles.Lock()
	defer lockFiles.Unlock()
	key := s.Handle + "\x00" + s.File
	if s.Do == "close" {
		f := lockFiles.open[key]
		delete(lockFiles.open, key)
		return f, f.Close()
	}
	if f := lockFiles.open[key]; f != nil {
		return f, nil
	}
	f, err := os.OpenFile(s.File, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, err
	}
	if lockFiles.open == nil {
		lockFiles.open = make(map[string]*os.File)
	}
	lockFiles.open[key] = f
	return f, nil
}

func lockStep(_ context.Context, s LockStep, _ func(any)) (LockOutcome, error) {
	f, err := lockFile(s)
	if err != nil {
		return LockOutcome{}, err
	}
	switch s.Do {
	case "close":
		return LockOutcome{}, nil
	case "write":
		_, err := f.WriteAt([]byte("written under a lock"), s.Start)
		return outcome(err)
	case "flock":
		return outcome(flock(f, s))
	case "fcntl", "test":
		return fcntl(f, s)
	}
	return LockOutcome{}, fmt.Errorf("no lock step %q", s.Do)
}

func flock(f *os.File, s LockStep) error {
	how := map[string]int{"r": unix.LOCK_SH, "w": unix.LOCK_EX, "u": unix.LOCK_UN}[s.Kind]
	if !s.Wait {
		how |= unix.LOCK_NB
	}
	return unix.Flock(int(f.Fd()), how)
}

func fcntl(f *os.File, s LockStep) (LockOutcome, error) {
	kinds := map[string]int16{"r": unix.F_RDLCK, "w": unix.F_WRLCK, "u": unix.F_UNLCK}
	arg := unix.Flock_t{Type: kinds[s.Kind], Start: s.Start, Len: s.Length}
	cmd := unix.F_SETLK
	switch {
	case s.Do == "test":
		cmd = unix.F_GETLK
	case s.Wait:
		cmd = unix.F_SETLKW
	}
	o, err := outcome(unix.FcntlFlock(f.Fd(), cmd, &arg))
	if s.Do == "test" {
		for name, kind := range kinds {
			if kind == arg.Type {
				o.Found = name
			}
		}
	}
	return o, err
}

// outcome tells an errno, which is what a step may expect, from other failures.
func outcome(err error) (LockOutcome, error) {
	name, err := errnoName(err)
	return LockOutcome{Errno: name}, err
}

// errnoName returns the name of an error that is an errno, and other errors as they are.
func errnoName(err error) (string, error) {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno), nil
	}
	return "", err
}
