package loadgen

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"holdfast/internal/nfsclient"
)

// denyPause is how long to wait for a lock that somebody has.
const denyPause = time.Millisecond

// counter has two clients that increment one number in one file, each under a byte-range lock. The number must be the sum of the
// increments: more means that a write was executed without its lock or a stale value was read; so does less.
type counter struct {
	w     *Workload
	sides [2]*counterSide
	both  sync.WaitGroup
}

type counterSide struct {
	file    Locker
	owner   string
	acked   uint64 // increments acknowledged
	unknown uint64 // increments whose outcome is unknown, as ctx ended
	last    uint64 // value seen last
	locked  bool   // the lock is ours: a step failed after taking it
}

const counterName = "counter"

func (w *Workload) newCounter(ctx context.Context) (worker, error) {
	c := &counter{w: w}
	for i := range c.sides {
		client, err := w.mount(ctx)
		if err != nil {
			return nil, err
		}
		f, err := client.OpenLocker(ctx, w.dir, counterName, nfsclient.OpenOptions{Create: nfsclient.Unchecked})
		if err != nil {
			return nil, fmt.Errorf("opening %s: %w", counterName, err)
		}
		if i == 0 {
			if err := f.Write(ctx, make([]byte, 8), 0, nfsclient.FileSync); err != nil {
				return nil, fmt.Errorf("writing %s: %w", counterName, err)
			}
		}
		c.sides[i] = &counterSide{file: f, owner: fmt.Sprintf("counter-%d", i)}
	}
	return c, nil
}

// step makes both sides increment at once, so that one waits for the other's lock.
func (c *counter) step(ctx context.Context) error {
	errs := make([]error, len(c.sides))
	for i, s := range c.sides {
		c.both.Go(func() { errs[i] = c.increment(ctx, s) })
	}
	c.both.Wait()
	for _, err := range errs {
		if err != nil {
			return fmt.Errorf("incrementing %s: %w", counterName, err)
		}
	}
	return nil
}

func (c *counter) increment(ctx context.Context, s *counterSide) error {
	for !s.locked {
		err := s.file.Lock(ctx, s.owner, nfsclient.WriteLock, 0, 8)
		if err != nil && !isStatus(err, nfsclient.ErrDenied) {
			return err
		}
		if s.locked = err == nil; !s.locked {
			c.w.pause(ctx, denyPause)
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	b := make([]byte, 8)
	n, _, err := s.file.Read(ctx, b, 0)
	if err != nil {
		return err
	}
	if n != len(b) {
		c.w.findings.lost(uint64(len(b)-n), "%s has only %d bytes", counterName, n)
	}
	value := binary.BigEndian.Uint64(b)
	if value < s.last {
		c.w.findings.lost(s.last-value, "%s went back from %d to %d", counterName, s.last, value)
	}
	binary.BigEndian.PutUint64(b, value+1)
	if err := s.file.Write(ctx, b, 0, nfsclient.FileSync); err != nil {
		s.unknown++
		return err
	}
	s.acked++
	s.last = value + 1
	if err := s.file.Unlock(ctx, s.owner, 0, 8); err != nil {
		return err
	}
	s.locked = false
	c.w.did(4, 0)
	return nil
}

func (c *counter) verify(ctx context.Context, fresh Client) error {
	f, err := fresh.Open(ctx, c.w.dir, counterName, nfsclient.OpenOptions{Read: true})
	if err != nil {
		return fmt.Errorf("opening %s: %w", counterName, err)
	}
	b := make([]byte, 8)
	if _, _, err := f.Read(ctx, b, 0); err != nil {
		return fmt.Errorf("reading %s: %w", counterName, err)
	}
	var acked, unknown uint64
	for _, s := range c.sides {
		acked += s.acked
		unknown += s.unknown
	}
	switch got := binary.BigEndian.Uint64(b); {
	case got < acked:
		c.w.findings.lost(acked-got, "%s is %d after %d increments", counterName, got, acked)
	case got > acked+unknown:
		c.w.findings.doubled(got-acked-unknown, "%s is %d after %d increments", counterName, got, acked)
	}
	return f.Close(ctx)
}
