package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Disk is a small file system of its own, which can be filled. It lies in a sparse file.
type Disk struct {
	// Dir is where it is mounted.
	Dir string
}

// AddDisk makes an ext4 file system of that size and mounts it in the lab's folder.
func (l *Lab) AddDisk(name string, size int64) (*Disk, error) {
	image := filepath.Join(l.Dir, name+".img")
	d := &Disk{Dir: filepath.Join(l.Dir, name)}
	f, err := os.Create(image)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(size), f.Close(), os.Mkdir(d.Dir, 0o755)); err != nil {
		return nil, err
	}
	if err := run("mkfs.ext4", "-q", "-F", "-m", "0", image); err != nil {
		return nil, err
	}
	if err := run("mount", "-o", "loop", image, d.Dir); err != nil {
		return nil, err
	}
	l.onClose(func() error { return run("umount", d.Dir) })
	return d, nil
}

func (d *Disk) ballast() string { return filepath.Join(d.Dir, "ballast") }

// Fill takes all space but so many bytes. Others may take more of it meanwhile.
func (d *Disk) Fill(leave int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(d.Dir, &st); err != nil {
		return fmt.Errorf("space of %s: %w", d.Dir, err)
	}
	size := int64(st.Bavail)*st.Bsize - leave
	if size <= 0 {
		return nil
	}
	f, err := os.Create(d.ballast())
	if err != nil {
		return err
	}
	defer f.Close()
	// What is asked for in one piece may not be there any more, or not without what describes it.
	for off, step := int64(0), size; step >= 4096; {
		err := unix.Fallocate(int(f.Fd()), 0, off, min(step, size-off))
		switch {
		case errors.Is(err, unix.ENOSPC):
			step /= 2
		case err != nil:
			return fmt.Errorf("fill %s: %w", d.Dir, err)
		default:
			if off += step; off >= size {
				return nil
			}
		}
	}
	return nil
}

// Free undoes Fill.
func (d *Disk) Free() error {
	if err := os.Remove(d.ballast()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// unmountStale unmounts what a harness that is gone has left mounted below a folder.
func unmountStale(dir string) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
			unix.Unmount(f[1], unix.MNT_DETACH)
		}
	}
}
