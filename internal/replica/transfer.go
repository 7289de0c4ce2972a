package replica

import (
	"context"
	"fmt"
)

// Transfer hands leadership to a member, or to the best if to is 0, and returns when that member is known to lead. Propose refuses from now on; what it accepted
// before is applied before. When Transfer fails after the lease was given up, some other member, or this one again, leads soon.
func (r *Replica) Transfer(ctx context.Context, to uint64) error {
	t := &transferCall{r: r, ctx: ctx, to: to, result: make(chan error, 1)}
	err := r.do(func(int64) {
		if !r.leading() {
			t.result <- ErrNotLeader
			return
		}
		r.proposals.pause()
		r.waiters = append(r.waiters, t.advance)
	})
	if err != nil {
		return err
	}
	select {
	case err := <-t.result:
		return err
	case <-ctx.Done():
		return fmt.Errorf("hand over: %w", ctx.Err())
	case <-r.ctx.Done():
		return ErrStopped
	}
}

// leading reports whether this replica may take proposals.
func (r *Replica) leading() bool { return r.core.leads() }

// transferCall is one call of Transfer, as the run loop moves it on.
type transferCall struct {
	r       *Replica
	ctx     context.Context // of the call
	to      uint64
	result  chan error
	started bool
}

// advance does what can be done now, and reports whether that was all.
func (t *transferCall) advance() bool {
	if t.started {
		return t.finish()
	}
	r := t.r
	switch {
	case !r.leading():
		return t.end(ErrNotLeader)
	case t.ctx.Err() != nil:
		return t.end(t.ctx.Err())
	case len(r.pending) > 0:
		return false // accepted, and raft had no room yet
	}
	if _, err := r.core.TransferLeader(r.cfg.Clock.MonotonicNS(), t.to); err != nil {
		return t.end(err)
	}
	t.started = true
	r.inbox.signal() // what this made is for the next turn
	return false
}

// finish ends the call when the transfer has ended.
func (t *transferCall) finish() bool {
	active, err := t.r.core.Transferring()
	lead := t.r.core.state.lead
	switch {
	case active:
		return false
	case err != nil:
		return t.end(err)
	case lead == 0:
		return false
	case lead == t.r.cfg.ID:
		return t.end(ErrNotTakenOver)
	}
	return t.end(nil)
}

// end tells the caller. If this replica leads on, it takes proposals again.
func (t *transferCall) end(err error) bool {
	if active, _ := t.r.core.Transferring(); !active && t.r.leading() {
		t.r.proposals.open()
	}
	t.result <- err
	return true
}
