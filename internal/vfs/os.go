package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// OS returns the operating system's file system. Files are created with mode 0600 and folders with 0700: a replica's data is nobody
// else's business.
func OS() FS { return osFS{} }

type osFS struct{}

func (osFS) Open(name string) (File, error)   { return openOS(name, os.O_RDWR) }
func (osFS) Create(name string) (File, error) { return openOS(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC) }
func (osFS) OpenOrCreate(name string) (File, error) {
	return openOS(name, os.O_RDWR|os.O_CREATE)
}
func (osFS) Rename(oldName, newName string) error { return os.Rename(oldName, newName) }
func (osFS) Remove(name string) error             { return os.Remove(name) }
func (osFS) MkdirAll(dir string) error            { return os.MkdirAll(dir, 0o700) }

func (osFS) List(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	if err := errors.Join(err, d.Close()); err != nil {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

func (osFS) Stat(name string) (Info, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return Info{}, err
	}
	info := Info{Dir: fi.IsDir(), Size: fi.Size()}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		info.Allocated = st.Blocks * 512
	}
	return info, nil
}

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (osFS) Space(dir string) (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := ignoringEINTR(func() error { return unix.Statfs(dir, &st) }); err != nil {
		return 0, 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}

// osFile goes through os.File for what that offers and through its raw connection for the rest, so that a concurrent Close can never
// make a call hit another file that got the same descriptor.
type osFile struct {
	*os.File
	raw syscall.RawConn
}

func openOS(name string, flag int) (File, error) {
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &osFile{File: f, raw: raw}, nil
}

// control runs fn on the descriptor, again while a signal interrupts it.
func (f *osFile) control(op string, fn func(fd int) error) error {
	var inner error
	err := f.raw.Control(func(fd uintptr) {
		inner = ignoringEINTR(func() error { return fn(int(fd)) })
	})
	if err != nil {
		err = fs.ErrClosed // the only reason for Control itself to fail
	} else {
		err = inner
	}
	if err != nil {
		return &fs.PathError{Op: op, Path: f.Name(), Err: err}
	}
	return nil
}

func ignoringEINTR(fn func() error) error {
	for {
		if err := fn(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// maxVectors is the most buffers that Linux takes in one pwritev (UIO_MAXIOV).
const maxVectors = 1024

func (f *osFile) WriteVAt(bufs [][]byte, off int64) (int64, error) {
	var written int64
	for len(bufs) > 0 {
		batch := bufs[:min(len(bufs), maxVectors)]
		n, err := f.writev(batch, off+written)
		written += n
		if err != nil {
			return written, err
		}
		bufs = bufs[len(batch):]
	}
	return written, nil
}

// writev writes all of bufs, which fit one system call, in more calls only if the kernel stops short.
func (f *osFile) writev(bufs [][]byte, off int64) (int64, error) {
	var written int64
	for want := total(bufs); written < want; {
		var n int
		err := f.control("pwritev", func(fd int) (err error) {
			n, err = unix.Pwritev(fd, skip(bufs, written), off+written)
			return err
		})
		if err != nil {
			return written, err
		}
		if n == 0 {
			return written, &fs.PathError{Op: "pwritev", Path: f.Name(), Err: io.ErrShortWrite}
		}
		written += int64(n)
	}
	return written, nil
}

// skip returns bufs without their first n bytes, leaving the argument alone.
func skip(bufs [][]byte, n int64) [][]byte {
	if n == 0 {
		return bufs
	}
	for n >= int64(len(bufs[0])) {
		n -= int64(len(bufs[0]))
		bufs = bufs[1:]
	}
	rest := slices.Clone(bufs)
	rest[0] = rest[0][n:]
	return rest
}

func (f *osFile) Sync() error { return f.control("fdatasync", unix.Fdatasync) }

func (f *osFile) Preallocate(off, length int64, keepSize bool) error {
	var mode uint32
	if keepSize {
		mode = unix.FALLOC_FL_KEEP_SIZE
	}
	err := f.control("fallocate", func(fd int) error { return unix.Fallocate(fd, mode, off, length) })
	if !errors.Is(err, unix.EOPNOTSUPP) || keepSize {
		return ignoreUnsupported(err)
	}
	size, err := f.Size()
	if err != nil || size >= off+length {
		return err
	}
	return f.Truncate(off + length)
}

// ignoreUnsupported lets a file system get away without fallocate: reserving space is a service, not a promise.
func ignoreUnsupported(err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

func (f *osFile) PunchHole(off, length int64) error {
	err := f.control("fallocate", func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, length)
	})
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	return f.zero(off, length)
}

// zero writes zeros over what lies before the end of the file.
func (f *osFile) zero(off, length int64) error {
	size, err := f.Size()
	if err != nil {
		return err
	}
	zeros := make([]byte, 64<<10)
	for end := min(off+length, size); off < end; {
		n, err := f.WriteAt(zeros[:min(int64(len(zeros)), end-off)], off)
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

func (f *osFile) SeekData(off int64) (int64, error) { return f.seek(off, unix.SEEK_DATA) }
func (f *osFile) SeekHole(off int64) (int64, error) { return f.seek(off, unix.SEEK_HOLE) }

// seek moves the descriptor's file position, which nobody uses.
func (f *osFile) seek(off int64, whence int) (int64, error) {
	var at int64
	err := f.control("lseek", func(fd int) (err error) {
		at, err = unix.Seek(fd, off, whence)
		return err
	})
	if errors.Is(err, unix.ENXIO) {
		return 0, fmt.Errorf("%s: %w", f.Name(), ErrNoData)
	}
	return at, err
}

func (f *osFile) Size() (int64, error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}
