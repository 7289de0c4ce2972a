package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Back-off of a failing accept, as with too many open files.
const (
	acceptBackoffMin = 5 * time.Millisecond
	acceptBackoffMax = time.Second
)

// Accept hands every connection from ln to serve, in a goroutine of its own, until ctx ends; then it closes ln, waits for the goroutines and returns nil. serve owns
// the connection and has to return soon after the context that it gets ends. Accept returns an error, and ends that context, if ln failed for good.
func Accept(ctx context.Context, ln net.Listener, log *slog.Logger, serve func(context.Context, net.Conn)) error {
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
		case err == nil:
			backoff = acceptBackoffMin
			wg.Go(func() { serve(ctx, nc) })
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("rpc: accepting: %w", err)
		default:
			log.Error("accepting a connection", "addr", ln.Addr().String(), "err", err, "retry", backoff)
			if !sleep(ctx, backoff) {
				return nil
			}
			backoff = min(2*backoff, acceptBackoffMax)
		}
	}
}

// sleep waits for d; false means that ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
