package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"holdfast/internal/lab/control"
	"holdfast/internal/lab/work"
)

// Load is a load that runs on a guest, see work.LoadArgs.
type Load struct {
	guest *Guest
	task  *control.Task

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each event
	beats   []beat
	full    []time.Time // when refusals for lack of space were reported
	errors  []string
	holding bool
}

// beat is a work.Beat and when it arrived.
type beat struct {
	work.Beat
	at time.Time
}

// StartLoad starts a load and waits for its first beat, and for its lock if it holds one.
func (g *Guest) StartLoad(ctx context.Context, args work.LoadArgs) (*Load, error) {
	if args.Name == "" {
		args.Name = g.Name
	}
	l := &Load{guest: g, changed: make(chan struct{})}
	task, err := g.Start(ctx, "load", args, l.event)
	if err != nil {
		return nil, err
	}
	l.task = task
	return l, l.await(ctx, func() bool { return len(l.beats) > 0 && (l.holding || !args.Holds) })
}

func (l *Load) event(raw json.RawMessage) {
	var b work.Beat
	err := json.Unmarshal(raw, &b)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
		l.errors = append(l.errors, "event: "+err.Error())
	case b.Error != "":
		l.errors = append(l.errors, b.Error)
	case b.Full:
		l.full = append(l.full, time.Now())
	case b.Holding:
		l.holding = true
	default:
		l.beats = append(l.beats, beat{b, time.Now()})
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// await waits until a condition on the load, whose mutex it holds, is met.
func (l *Load) await(ctx context.Context, met func() bool) error {
	for {
		l.mu.Lock()
		ok, changed := met(), l.changed
		errs := l.errors
		l.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-l.task.Done():
			return fmt.Errorf("the load ended: %w", l.task.Wait(nil))
		case <-ctx.Done():
			return fmt.Errorf("wait for the load: %w; its errors: %q; its guest:\n%s", ctx.Err(), errs, l.guest.diagnose())
		}
	}
}

// AwaitBeats waits until the probe has sent a number of beats after a time.
func (l *Load) AwaitBeats(ctx context.Context, after time.Time, count int) error {
	return l.await(ctx, func() bool {
		n := 0
		for i := len(l.beats) - 1; i >= 0 && l.beats[i].at.After(after); i-- {
			n++
		}
		return n >= count
	})
}

// LongestGap is the longest time without an acknowledged write in what arrived after a time.
func (l *Load) LongestGap(after time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var gap time.Duration
	for _, b := range l.beats {
		if b.at.After(after) {
			gap = max(gap, b.LongestGap)
		}
	}
	return gap
}

// Errors are the errors so far.
func (l *Load) Errors() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.errors...)
}

// Refusals are the times at which the guest reported a refusal for lack of space.
func (l *Load) Refusals() []time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]time.Time(nil), l.full...)
}

// Stop ends the load and returns what it did.
func (l *Load) Stop() (work.LoadResult, error) {
	var r work.LoadResult
	l.task.Stop()
	return r, l.task.Wait(&r)
}
