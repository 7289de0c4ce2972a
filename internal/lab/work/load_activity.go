package work

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// probe writes 4 KiB with O_SYNC every 10 ms and watches the time between acknowledgements.
func (l *load) probe(ctx context.Context) error {
	f, err := os.OpenFile(l.own("probe"), os.O_CREATE|os.O_WRONLY|os.O_SYNC, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	data := pattern(1, probeSize)
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	var beat Beat
	var last time.Time
	sent := time.Now()
	for n := 0; ctx.Err() == nil; n++ {
		err := l.room(ctx, func() error {
			_, err := f.WriteAt(data, int64(n%64)*probeSize)
			return err
		})
		if err != nil {
			return err
		}
		now := time.Now()
		if !last.IsZero() {
			beat.LongestGap = max(beat.LongestGap, now.Sub(last))
		}
		last = now
		beat.OK++
		if now.Sub(sent) >= beatEvery {
			l.emit(beat)
			l.count(func(r *LoadResult) {
				r.Probes += beat.OK
				r.LongestGap = max(r.LongestGap, beat.LongestGap)
			})
			beat, sent = Beat{}, now
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	return nil
}

// record is the content of the seq-th record of a writer: it says what it is, and the rest follows from that.
func record(name string, writer, seq, size int) []byte {
	seed := uint64(seq)*31 + uint64(writer)
	for _, c := range []byte(name) {
		seed = seed*131 + uint64(c)
	}
	b := pattern(seed, size)
	binary.BigEndian.PutUint64(b, uint64(seq))
	binary.BigEndian.PutUint64(b[8:], seed)
	return b
}

// writer writes records one after the other, each followed by fsync, and reads every one back past the cache.
func (l *load) writer(ctx context.Context, i int) error {
	name := l.own(fmt.Sprintf("writer%d", i))
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	direct, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return fmt.Errorf("open with O_DIRECT: %w", err)
	}
	defer unix.Close(direct)
	back, err := unix.Mmap(-1, 0, recordSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(back)
	for ctx.Err() == nil {
		l.mu.Lock()
		seq := l.res.Written[i]
		l.mu.Unlock()
		off := int64(seq%writerRecords) * recordSize
		want := record(l.args.Name, i, seq, recordSize)
		err := l.room(ctx, func() error {
			_, err := f.WriteAt(want, off)
			return orSync(f, err)
		})
		if err != nil {
			return fmt.Errorf("write record %d: %w", seq, err)
		}
		l.count(func(r *LoadResult) { r.Written[i]++ })
		if n, err := unix.Pread(direct, back, off); err != nil || n != recordSize {
			return fmt.Errorf("read record %d back: %d bytes, %v", seq, n, err)
		}
		if err := compare(fmt.Sprintf("record %d read back", seq), back, want); err != nil {
			return err
		}
		pause(ctx, 20*time.Millisecond)
	}
	return nil
}

// orSync is the error of a write, or else that of the fsync after it.
func orSync(f *os.File, err error) error {
	if err != nil {
		return err
	}
	return f.Sync()
}

// appender appends records with O_APPEND and fsync.
func (l *load) appender(ctx context.Context) error {
	f, err := os.OpenFile(l.own("append"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	for ctx.Err() == nil {
		l.mu.Lock()
		seq := l.res.Appended
		l.mu.Unlock()
		refused := false
		err := l.room(ctx, func() error {
			if refused { // the client may count what it could not write as part of the file
				if err := f.Truncate(int64(seq) * appendSize); err != nil {
					return err
				}
			}
			_, err := f.Write(record(l.args.Name, writers, seq, appendSize))
			err = orSync(f, err)
			refused = err != nil
			return err
		})
		if err != nil {
			return fmt.Errorf("append record %d: %w", seq, err)
		}
		l.count(func(r *LoadResult) { r.Appended++ })
		pause(ctx, 20*time.Millisecond)
	}
	return nil
}

// setLock sets or removes a write lock on the first 100 bytes, without waiting.
func setLock(f *os.File, kind int16) error {
	return unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: kind, Len: 100})
}

// counter adds one to a number that all guests share, under a lock.
func (l *load) counter(ctx context.Context) error {
	f, err := os.OpenFile(l.path("counter"), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return err
	}
	defer f.Close()
	for ctx.Err() == nil {
		err := setLock(f, unix.F_WRLCK)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			pause(ctx, 7*time.Millisecond)
			continue
		}
		if err != nil {
			return fmt.Errorf("lock: %w", err)
		}
		var number [8]byte
		if n, err := f.ReadAt(number[:], 0); err != nil && n != 0 {
			return fmt.Errorf("read: %w", err)
		}
		binary.BigEndian.PutUint64(number[:], binary.BigEndian.Uint64(number[:])+1)
		// Unlocking writes back; fsync reports it if that fails.
		err = l.room(ctx, func() error {
			_, err := f.WriteAt(number[:], 0)
			return orSync(f, err)
		})
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		l.count(func(r *LoadResult) { r.Increments++ })
		if err := setLock(f, unix.F_UNLCK); err != nil {
			return fmt.Errorf("unlock: %w", err)
		}
		pause(ctx, 10*time.Millisecond)
	}
	return nil
}

// holder holds a lock from start to end, and uses the file under it: a client that lost its lock gets EIO.
func (l *load) holder(ctx context.Context) error {
	f, err := os.OpenFile(l.path("held"), os.O_CREATE|os.O_RDWR|os.O_SYNC, 0o666)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := setLock(f, unix.F_WRLCK); err != nil {
		return fmt.Errorf("take it: %w", err)
	}
	l.emit(Beat{Holding: true})
	for ctx.Err() == nil {
		err := l.room(ctx, func() error {
			_, err := f.WriteAt([]byte("mine"), 0)
			return err
		})
		if err != nil {
			return fmt.Errorf("use it: %w", err)
		}
		pause(ctx, 100*time.Millisecond)
	}
	return nil
}

// contender tries to take the lock that another guest holds. It starts only after that has it.
func (l *load) contender(ctx context.Context) error {
	f, err := os.OpenFile(l.path("held"), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return err
	}
	defer f.Close()
	for ctx.Err() == nil {
		err := setLock(f, unix.F_WRLCK)
		if err == nil {
			return errors.Join(errors.New("got a lock that another guest holds"), setLock(f, unix.F_UNLCK))
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			return fmt.Errorf("try it: %w", err)
		}
		pause(ctx, 50*time.Millisecond)
	}
	return nil
}

// names does what must not be done twice: a retried request that was executed already would fail.
func (l *load) names(ctx context.Context) error {
	dir := l.own("names")
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	for ctx.Err() == nil {
		l.mu.Lock()
		n := l.res.Named
		l.res.Named++ // before the round: after an error the next round uses new names
		l.mu.Unlock()
		name := func(kind string, n int) string { return fmt.Sprintf("%s/%s%d", dir, kind, n) }
		grow := func(f func() error) func() error { return func() error { return l.room(ctx, f) } }
		err := steps(
			grow(func() error { return touch(name("new", n), 0o644) }),
			grow(func() error { return os.Rename(name("new", n), name("moved", n)) }),
			grow(func() error { return os.Link(name("moved", n), name("link", n)) }),
			func() error { return os.Remove(name("moved", n)) },
			grow(func() error { return os.Mkdir(name("folder", n), 0o755) }),
			grow(func() error { return os.Symlink(name("link", n), name("symlink", n)) }),
		)
		if err == nil && n >= keepNames {
			err = steps(
				func() error { return os.Remove(name("link", n-keepNames)) },
				func() error { return unix.Rmdir(name("folder", n-keepNames)) },
				func() error { return os.Remove(name("symlink", n-keepNames)) },
			)
		}
		if err != nil {
			return fmt.Errorf("round %d: %w", n, err)
		}
		pause(ctx, 20*time.Millisecond)
	}
	return nil
}

// claims creates names with O_EXCL that the other guests want too: each must have one winner.
func (l *load) claims(ctx context.Context) error {
	dir := l.path("claims")
	if err := os.Mkdir(dir, 0o777); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	for ctx.Err() == nil {
		l.mu.Lock()
		n := l.res.Tried
		l.mu.Unlock()
		err := l.room(ctx, func() error { return touch(fmt.Sprintf("%s/%d", dir, n), 0o666) })
		if err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("claim %d: %w", n, err)
		}
		l.count(func(r *LoadResult) {
			r.Tried++
			if err == nil {
				r.Won = append(r.Won, n)
			}
		})
		pause(ctx, 20*time.Millisecond)
	}
	return nil
}
