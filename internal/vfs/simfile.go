package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"syscall"
)

// simFile is an open file of a Sim.
type simFile struct {
	sim    *Sim
	node   *node
	name   string
	epoch  int
	closed bool
}

// begin checks that the file may be used and that no fault strikes. sim.mu is held.
func (f *simFile) begin(op Op, verb string) error {
	if f.closed {
		return pathError(verb, f.name, fs.ErrClosed)
	}
	if f.epoch != f.sim.epoch {
		return pathError(verb, f.name, ErrCrashed)
	}
	return f.sim.check(op, verb, f.node.name)
}

// ReadAt implements io.ReaderAt.
func (f *simFile) ReadAt(b []byte, off int64) (int, error) {
	f.sim.mu.Lock()
	defer f.sim.mu.Unlock()
	f.sim.counters.Reads++
	if err := f.begin(OpRead, "read"); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, pathError("read", f.name, syscall.EINVAL)
	}
	n := f.node.read(b, off)
	f.sim.counters.BytesRead += int64(n)
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements io.WriterAt.
func (f *simFile) WriteAt(b []byte, off int64) (int, error) {
	n, err := f.WriteVAt([][]byte{b}, off)
	return int(n), err
}

// WriteVAt implements File. A write that a fault or the power cut hits may have been carried out in part.
func (f *simFile) WriteVAt(bufs [][]byte, off int64) (int64, error) {
	f.sim.mu.Lock()
	defer f.sim.mu.Unlock()
	f.sim.counters.Writes++
	err := f.begin(OpWrite, "write")
	if err == nil && off < 0 {
		return 0, pathError("write", f.name, syscall.EINVAL)
	}
	want := total(bufs)
	limit := want
	if err == nil && f.sim.powerFails() {
		err = pathError("write", f.name, ErrStopped)
		limit = f.sim.rand.Int64N(want + 1)
	} else if err != nil {
		if !isFault(err) {
			return 0, err
		}
		limit = f.sim.rand.Int64N(want + 1)
	}
	done := f.write(bufs, off, limit)
	if err != nil {
		return done, err
	}
	if done < want {
		return done, pathError("write", f.name, syscall.ENOSPC)
	}
	return done, nil
}

// write stores the first limit bytes of bufs, or as many as there is space for.
func (f *simFile) write(bufs [][]byte, off, limit int64) int64 {
	var done int64
	for _, b := range bufs {
		b = b[:min(int64(len(b)), limit-done)]
		n := f.node.write(f.sim, b, off+done)
		done += int64(n)
		if n < len(b) {
			break
		}
	}
	f.sim.counters.BytesWritten += done
	return done
}

// Sync implements File.
func (f *simFile) Sync() error {
	f.sim.mu.Lock()
	defer f.sim.mu.Unlock()
	f.sim.counters.Syncs++
	if err := f.begin(OpSync, "sync"); err != nil {
		if isFault(err) {
			f.node.doom()
		}
		return err
	}
	fails := f.sim.powerFails()
	if !fails || f.sim.rand.IntN(2) == 0 {
		f.node.settle()
	}
	if fails {
		return pathError("sync", f.name, ErrStopped)
	}
	return nil
}

// mutate runs fn as an operation of kind OpWrite that happens wholly or not at all.
func (f *simFile) mutate(verb string, fn func() error) error {
	f.sim.mu.Lock()
	defer f.sim.mu.Unlock()
	if err := f.begin(OpWrite, verb); err != nil {
		return err
	}
	fails := f.sim.powerFails()
	if fails && f.sim.rand.IntN(2) == 0 {
		return pathError(verb, f.name, ErrStopped)
	}
	err := fn()
	if fails {
		err = ErrStopped
	}
	if err != nil {
		return pathError(verb, f.name, err)
	}
	return nil
}

// Truncate implements File.
func (f *simFile) Truncate(size int64) error {
	return f.mutate("truncate", func() error {
		if size < 0 {
			return syscall.EINVAL
		}
		f.node.truncate(f.sim, size)
		return nil
	})
}

// Preallocate implements File.
func (f *simFile) Preallocate(off, length int64, keepSize bool) error {
	return f.mutate("fallocate", func() error {
		if off < 0 || length <= 0 {
			return syscall.EINVAL
		}
		if !f.node.reserve(f.sim, off, length) {
			return syscall.ENOSPC
		}
		if !keepSize {
			f.node.setSize(max(f.node.size, off+length))
		}
		return nil
	})
}

// PunchHole implements File.
func (f *simFile) PunchHole(off, length int64) error {
	return f.mutate("punch", func() error {
		if off < 0 || length <= 0 {
			return syscall.EINVAL
		}
		f.node.clearRange(f.sim, off, off+length)
		return nil
	})
}

// SeekData implements File.
func (f *simFile) SeekData(off int64) (int64, error) { return f.seek(off, true) }

// SeekHole implements File.
func (f *simFile) SeekHole(off int64) (int64, error) { return f.seek(off, false) }

func (f *simFile) seek(off int64, data bool) (int64, error) {
	f.sim.mu.Lock()
	defer f.sim.mu.Unlock()
	if err := f.begin(OpRead, "seek"); err != nil {
		return 0, err
	}
	at := f.node.seek(off, data)
	if at < 0 {
		return 0, fmt.Errorf("%s: %w", f.name, ErrNoData)
	}
	return at, nil
}

// Size implements File.
func (f *simFile) Size() (int64, error) {
	f.sim.mu.Lock()
	defer f.sim.mu.Unlock()
	if err := f.begin(OpRead, "stat"); err != nil {
		return 0, err
	}
	return f.node.size, nil
}

// Close implements File.
func (f *simFile) Close() error {
	f.sim.mu.Lock()
	defer f.sim.mu.Unlock()
	if f.closed {
		return pathError("close", f.name, fs.ErrClosed)
	}
	f.closed = true
	if f.epoch == f.sim.epoch {
		f.node.handles--
		f.sim.release(f.node)
	}
	return nil
}
