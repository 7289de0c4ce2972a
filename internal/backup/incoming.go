package backup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// incomingPrefix begins the names of files that are being written; digits follow.
const incomingPrefix = ".incoming-"

// incoming is a file that is being written, and gets its name once it is whole. Who writes it holds a lock on it (flock), which ends with the process: so others can tell what a killed one
// left from what is being written. Where the filesystem knows no locks, nothing is taken for left.
type incoming struct {
	*os.File
}

// receive begins a file in a folder, after it removed what is left there of backups that were killed.
func receive(folder string) (*incoming, error) {
	removeLeft(folder)
	for {
		f, err := os.CreateTemp(folder, incomingPrefix)
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("backup: there is no folder %s: if a disk should be mounted there, mount it; otherwise make the folder", folder)
		}
		if err != nil {
			return nil, fmt.Errorf("backup: %w", err)
		}
		in := &incoming{f}
		err = lock(f)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) {
			// Before it was locked another backup may have taken it for left, and removed it.
			named, nameErr := os.Stat(f.Name())
			mine, err := f.Stat()
			if err != nil {
				return nil, errors.Join(fmt.Errorf("backup: %w", err), in.discard())
			}
			if nameErr == nil && os.SameFile(named, mine) {
				return in, nil
			}
		}
		if err := f.Close(); err != nil {
			return nil, fmt.Errorf("backup: %w", err)
		}
	}
}

// finish brings the file to the disk and gives it its name.
func (in *incoming) finish(name string) error {
	if err := in.Sync(); err != nil {
		return fmt.Errorf("backup: sync: %w", err)
	}
	// It stays open until it has its name: without the lock it could be taken for left.
	if err := os.Rename(in.Name(), name); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if err := in.Close(); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return syncFolder(filepath.Dir(name))
}

// discard removes the file.
func (in *incoming) discard() error {
	err := os.Remove(in.Name())
	if errors.Is(err, os.ErrNotExist) {
		err = nil // it has its name
	}
	if closed := in.Close(); !errors.Is(closed, os.ErrClosed) {
		err = errors.Join(err, closed)
	}
	return err
}

// removeLeft removes the files of backups whose processes are gone. What cannot be removed stays: it hurts no backup.
func removeLeft(folder string) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return // who writes there will say so
	}
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), incomingPrefix)
		if ok && digits != "" && strings.Trim(digits, "0123456789") == "" && e.Type().IsRegular() {
			removeIfLeft(filepath.Join(folder, e.Name()))
		}
	}
}

func removeIfLeft(name string) {
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }() // nothing was written
	if lock(f) == nil && begunByUs(f) {
		_ = os.Remove(name) // see removeLeft
	}
}

// begunByUs reports whether a file has the beginning of a backup, and not that of something else that happens to have such a name.
func begunByUs(f *os.File) bool {
	head := make([]byte, len(magic))
	n, err := f.ReadAt(head, 0)
	return (err == nil || err == io.EOF) && strings.HasPrefix(magic, string(head[:n]))
}

// lock takes the lock of a file, or returns at once with unix.EWOULDBLOCK if another process has it.
func lock(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func syncFolder(folder string) error {
	d, err := os.Open(folder)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("backup: sync %s: %w", folder, err)
	}
	return nil
}
