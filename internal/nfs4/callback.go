package nfs4

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"holdfast/internal/nfs4/state"
	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

// Numbers of the callback program (RFC 8881 section 20.1).
const (
	callbackVersion = 1
	cbProcCompound  = 1

	opnumCBSequence   = 11
	opnumCBNotifyLock = 13

	errSeqMisordered status = 10063
	errSeqFalseRetry status = 10076
)

const (
	// notifyQueue bounds the notifications that wait to be sent. What does not fit is dropped: CB_NOTIFY_LOCK is a hint, and clients poll as well (RFC 8881 section 20.11.4).
	notifyQueue = 1024
	// callbackWorkers bounds the callbacks in flight, so that a client that does not answer delays few others.
	callbackWorkers = 8
	// callbackTimeout is how long a client may take to answer.
	callbackTimeout = 3 * time.Second
	// maxSeqProbes bounds the search for a callback slot's number after a change of leaders.
	maxSeqProbes = 64
)

var (
	errCallbackBusy    = errors.New("nfs4: a callback of this session is under way")
	errCallbackRefused = errors.New("nfs4: the client answered a callback with an error")
	errNoBackChannel   = errors.New("nfs4: no connection carries the client's back channel")
)

// backSlot is the one slot of a session's back channel that this leader uses. Callbacks of a session are sent one at a time.
type backSlot struct {
	mu   sync.Mutex
	slot uint32
	seq  uint32 // of the next callback; 0: none was sent
}

// Run sends notifications about locks that came free until ctx ends. The node runs it while it leads; without it clients poll.
func (f *Front) Run(ctx context.Context) {
	defer f.p.onNotify.CompareAndSwap(f.enqueueFunc, nil)
	var workers sync.WaitGroup
	for range callbackWorkers {
		workers.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case w := <-f.notify:
					// The waiter polls, so a notification that fails costs it time and nothing else.
					_ = f.notifyLock(ctx, &w)
				}
			}
		})
	}
	workers.Wait()
}

// enqueue takes waiters from apply and must not block it.
func (f *Front) enqueue(waiters []state.Waiter) {
	for _, w := range waiters {
		select {
		case f.notify <- w:
		default:
			return
		}
	}
}

// notifyLock sends one CB_NOTIFY_LOCK (RFC 8881 section 20.11).
func (f *Front) notifyLock(ctx context.Context, w *state.Waiter) error {
	id, conn, ok := f.leases.BackChannelOf(w.Client)
	if !ok {
		return errNoBackChannel
	}
	f.mu.Lock()
	s := f.sessions[id]
	f.mu.Unlock()
	var info state.SessionInfo
	st := state.ErrBadSession
	f.v.View(func(*volume.Tx) {
		if info, st = f.p.tables.Session(id); st == statusOK {
			info.CBSec = append([]byte(nil), info.CBSec...)
		}
	})
	if s == nil || st != statusOK {
		return errNoBackChannel
	}
	op := xdr.NewEncoder(nil)
	op.Uint32(opnumCBNotifyLock)
	op.String(w.Handle)
	op.Uint64(uint64(w.Client))
	op.String(w.Owner)
	ctx, cancel := context.WithTimeout(ctx, callbackTimeout)
	defer cancel()
	return s.back.call(ctx, conn, id, &info, op.Bytes())
}

// call sends a CB_COMPOUND of CB_SEQUENCE and op. An earlier leader may have used the slots, and what number it left them at only the client knows: so the first call goes through the slots
// for one that was never used, and failing that through the numbers of the last slot.
func (b *backSlot) call(ctx context.Context, conn BackChannel, id state.SessionID, info *state.SessionInfo, op []byte) error {
	if !b.mu.TryLock() {
		return errCallbackBusy
	}
	defer b.mu.Unlock()
	if b.seq == 0 {
		b.seq = 1
	}
	for range maxSeqProbes {
		st, err := b.try(ctx, conn, id, info, op)
		if err != nil {
			return err
		}
		switch st {
		case statusOK:
			b.seq++
			return nil
		case errSeqFalseRetry, errRetryUncachedRep: // the last number used, by an earlier leader or by a call whose reply was lost
			b.seq++
		case errSeqMisordered:
			if b.slot+1 < info.Back.MaxRequests {
				b.slot, b.seq = b.slot+1, 1
			} else {
				b.seq++
			}
		default:
			return fmt.Errorf("%w: CB_SEQUENCE: %w", errCallbackRefused, st)
		}
	}
	b.seq = 1
	return fmt.Errorf("%w: no callback slot takes a number", errCallbackRefused)
}

// try sends the compound once and returns the status of its CB_SEQUENCE (RFC 8881 sections 20.2 and 20.9).
func (b *backSlot) try(ctx context.Context, conn BackChannel, id state.SessionID, info *state.SessionInfo, op []byte) (status, error) {
	minor, auth := decodeCallbackSec(info.CBSec)
	e := xdr.NewEncoder(make([]byte, 0, 128+len(op)))
	e.String("") // tag
	e.Uint32(minor)
	e.Uint32(0) // callback_ident
	e.Uint32(2)
	e.Uint32(opnumCBSequence)
	e.Fixed(id[:])
	e.Uint32(b.seq)
	e.Uint32(b.slot)
	e.Uint32(b.slot) // csa_highest_slotid
	e.Bool(false)    // csa_cachethis
	e.Uint32(0)      // csa_referring_call_lists
	e.Raw(op)
	reply, err := conn.Call(ctx, info.CBProgram, callbackVersion, cbProcCompound, &auth, e.Bytes())
	if err != nil {
		return 0, fmt.Errorf("nfs4: callback: %w", err)
	}
	d := xdr.NewDecoder(reply)
	overall := status(d.Uint32())
	d.Opaque(maxTagBytes)
	if n := d.Uint32(); d.Err() == nil && n == 0 {
		return 0, fmt.Errorf("%w: CB_COMPOUND: %w", errCallbackRefused, overall)
	}
	opnum, st := d.Uint32(), status(d.Uint32())
	if d.Err() != nil || opnum != opnumCBSequence {
		return 0, fmt.Errorf("%w: malformed reply", errCallbackRefused)
	}
	if st == statusOK && overall == errRetryUncachedRep { // Linux says so on the operation after CB_SEQUENCE
		st = overall
	}
	return st, nil
}
