package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// metaKeeper guards the Meta. Workers update it, never the run loop: update holds mu while it writes.
type metaKeeper struct {
	mu      sync.Mutex
	store   MetaStore
	current Meta
}

func (k *metaKeeper) update(change func(m *Meta)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	next := k.current
	change(&next)
	if err := k.store.Save(&next); err != nil {
		return err
	}
	k.current = next
	return nil
}

func (k *metaKeeper) confIndex() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.current.ConfIndex
}

// installing reports whether an installation was begun and its end is not yet noted.
func (k *metaKeeper) installing() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.current.Installing != nil
}

// logSizes knows roughly how many bytes of log lie behind an index.
type logSizes struct {
	// every is how far apart marks are, in bytes; 0: sizeMarkBytes. It is set once.
	every int64

	mu    sync.Mutex
	marks []sizeMark
	total int64
}

type sizeMark struct {
	index uint64
	total int64 // bytes up to index
}

// sizeMarkBytes is the most that marks are apart; logs that keep little have a finer scale.
const sizeMarkBytes = 1 << 20

// start begins to count at the end of a log; what is before counts as nothing.
func (s *logSizes) start(last uint64) { s.reset(last) }

func (s *logSizes) reset(last uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marks = []sizeMark{{last, s.total}}
}

func (s *logSizes) add(last uint64, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total += bytes
	for n := len(s.marks); n > 0 && s.marks[n-1].index > last; n-- {
		s.marks = s.marks[:n-1] // entries were replaced
	}
	if n := len(s.marks); n == 0 || s.total-s.marks[n-1].total >= cmp.Or(s.every, sizeMarkBytes) {
		s.marks = append(s.marks, sizeMark{last, s.total})
	}
}

// before returns an index such that about the given number of bytes were logged after it; 0 if fewer were since start.
func (s *logSizes) before(bytes int64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, _ := slices.BinarySearchFunc(s.marks, s.total-bytes, func(m sizeMark, t int64) int {
		if m.total > t {
			return 1
		}
		return -1
	})
	if i == 0 {
		return 0
	}
	return s.marks[i-1].index
}

// forget drops marks that lie before index, but one.
func (s *logSizes) forget(index uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for n+1 < len(s.marks) && s.marks[n+1].index <= index {
		n++
	}
	s.marks = slices.Clone(s.marks[n:])
}

// checkpointWorker lets the state machine make itself durable now and then, and drops the log that is not needed any more.
func (r *Replica) checkpointWorker() {
	timer := time.NewTicker(r.cfg.CheckpointInterval)
	defer timer.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-r.checkpointNow:
		case <-timer.C:
			if r.uncheckpointed.Load() == 0 {
				continue
			}
		}
		if err := r.checkpoint(r.ctx, r.do); err != nil {
			if r.ctx.Err() != nil && errors.Is(err, context.Canceled) {
				return
			}
			r.fail(fmt.Errorf("replica: checkpoint: %w", err))
			return
		}
	}
}

// checkpoint checkpoints the state machine and drops the log that is not needed any more. do runs a function where the Core may be used.
func (r *Replica) checkpoint(ctx context.Context, do func(func(now int64)) error) error {
	logged := r.uncheckpointed.Load()
	index, err := r.checkpointState(ctx)
	if err != nil || index == 0 {
		return err
	}
	r.uncheckpointed.Add(-logged)
	var keep uint64
	var meta Meta
	laggards := r.sizes.before(r.cfg.RetainMaxBytes)
	err = do(func(int64) {
		keep = r.core.KeepFrom(index, laggards)
		meta = r.core.meta()
	})
	if err != nil {
		return nil // closing
	}
	upTo := min(index, keep-1, r.sizes.before(r.cfg.RetainBytes))
	if upTo < r.cfg.Log.FirstIndex() {
		return nil
	}
	if meta.ConfIndex > r.meta.confIndex() {
		// The entries that changed the membership are about to go from the log.
		err := r.meta.update(func(m *Meta) { m.Conf, m.ConfIndex = meta.Conf, meta.ConfIndex })
		if err != nil {
			return err
		}
	}
	if err := r.cfg.Log.TruncatePrefix(upTo); err != nil {
		return fmt.Errorf("truncate the log at %d: %w", upTo, err)
	}
	r.sizes.forget(upTo)
	r.cfg.Logger.Debug("checkpoint", "index", index, "log from", upTo+1)
	return nil
}

// checkpointState checkpoints the state machine, unless it is empty or invalid (0).
func (r *Replica) checkpointState(ctx context.Context) (uint64, error) {
	r.exclusive.Lock()
	defer r.exclusive.Unlock()
	if r.cfg.StateMachine.Applied() == 0 {
		return 0, nil
	}
	return r.cfg.StateMachine.Checkpoint(ctx)
}
