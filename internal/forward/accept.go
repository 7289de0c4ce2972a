package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Back-off of a failing accept, as with too many open files.
const (
	acceptBackoffMin = 5 * time.Millisecond
	acceptBackoffMax = time.Second
)

// accept hands every connection from ln to handle, in a goroutine of its own, until ctx ends; then it closes ln, waits for the goroutines and
// returns nil. It returns an error if ln failed for good.
func accept(ctx context.Context, ln net.Listener, log *slog.Logger, handle func(context.Context, net.Conn)) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	defer ln.Close()
	backoff := acceptBackoffMin
	for {
		nc, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				breakOff(nc)
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("forward: accepting: %w", err)
		case err != nil:
			log.Error("accepting an NFS connection", "addr", ln.Addr().String(), "err", err, "retry", backoff)
			if !pause(ctx, nil, backoff) {
				return nil
			}
			backoff = min(2*backoff, acceptBackoffMax)
			continue
		}
		backoff = acceptBackoffMin
		wg.Go(func() { handle(ctx, nc) })
	}
}

// pause waits for d or until changed is closed, whichever comes first; false: ctx ended before.
func pause(ctx context.Context, changed <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-changed:
	case <-ctx.Done():
		return false
	}
	return true
}

// seldom lets one log line through in ten seconds.
type seldom struct{ next atomic.Int64 }

func (s *seldom) now() bool {
	now, next := time.Now().UnixNano(), s.next.Load()
	return now >= next && s.next.CompareAndSwap(next, now+int64(10*time.Second))
}
