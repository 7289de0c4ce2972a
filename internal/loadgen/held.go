package loadgen

import (
	"context"
	"fmt"

	"holdfast/internal/nfsclient"
)

const (
	heldName   = "held"
	heldLocks  = 16  // locks held for the whole run
	heldBytes  = 100 // length of each
	heldStride = 200 // between the starts of two: what lies between is free
	holder     = "holder"
	tester     = "tester"
)

// held is a client that holds locks for the whole run, and another one that tries them: each must be denied, and what lies between them must be free.
type held struct {
	w     *Workload
	mine  Locker // of the client with the locks
	other Locker
	next  int
}

func (w *Workload) newHeld(ctx context.Context) (worker, error) {
	h := &held{w: w}
	for _, side := range []*Locker{&h.mine, &h.other} {
		c, err := w.mount(ctx)
		if err != nil {
			return nil, err
		}
		if *side, err = c.OpenLocker(ctx, w.dir, heldName, nfsclient.OpenOptions{Create: nfsclient.Unchecked}); err != nil {
			return nil, fmt.Errorf("opening %s: %w", heldName, err)
		}
	}
	for i := range heldLocks {
		if err := h.mine.Lock(ctx, holder, nfsclient.WriteLock, uint64(i*heldStride), heldBytes); err != nil {
			return nil, fmt.Errorf("locking %s: %w", heldName, err)
		}
	}
	w.held = h
	return h, nil
}

func (h *held) step(ctx context.Context) error {
	h.next = (h.next + 1) % heldLocks
	if err := h.try(ctx, h.next); err != nil {
		return err
	}
	h.w.did(2, 0)
	h.w.pause(ctx, h.w.cfg.LockInterval)
	return nil
}

// try checks that lock i is held and that what follows it is free.
func (h *held) try(ctx context.Context, i int) error {
	at := uint64(i * heldStride)
	err := h.other.TestLock(ctx, tester, nfsclient.ReadLock, at, heldBytes)
	switch {
	case err == nil:
		h.w.findings.lockLost("bytes %d to %d of %s are locked, and another client could lock them", at, at+heldBytes-1, heldName)
	case !isStatus(err, nfsclient.ErrDenied):
		return fmt.Errorf("testing a lock of %s: %w", heldName, err)
	}
	err = h.other.TestLock(ctx, tester, nfsclient.WriteLock, at+heldBytes, heldStride-heldBytes)
	if err != nil {
		return fmt.Errorf("testing a free range of %s: %w", heldName, err)
	}
	return nil
}

// verify tries every lock once more, checks that the holder can still write, and that its locks can be given up: then they must be free.
func (h *held) verify(ctx context.Context, _ Client) error {
	for i := range heldLocks {
		if err := h.try(ctx, i); err != nil {
			return err
		}
	}
	if err := h.mine.Write(ctx, []byte(holder), 0, nfsclient.FileSync); err != nil {
		h.w.findings.failed(fmt.Errorf("writing to %s through the first open: %w", heldName, err))
	}
	if err := h.mine.Unlock(ctx, holder, 0, heldBytes); err != nil {
		h.w.findings.lockLost("unlocking %s: %v", heldName, err)
		return nil
	}
	if err := h.other.TestLock(ctx, tester, nfsclient.WriteLock, 0, heldBytes); err != nil {
		h.w.findings.failed(fmt.Errorf("testing a lock of %s that was given up: %w", heldName, err))
	}
	if err := h.mine.Lock(ctx, holder, nfsclient.WriteLock, 0, heldBytes); err != nil {
		h.w.findings.failed(fmt.Errorf("locking %s again: %w", heldName, err))
	}
	return nil
}
