package node

import (
	"context"
	"sync"
)

// phase is where a volume stands at this node.
type phase int

const (
	following phase = iota // another node leads, or nobody: clients are sent away
	pausing                // this node leads but may not serve for the moment: clients wait
	serving
)

// phases holds the current phase and lets goroutines wait for it to change.
type phases struct {
	mu      sync.Mutex
	current phase
	changed chan struct{} // closed at the next change
}

func newPhases() *phases { return &phases{changed: make(chan struct{})} }

// set changes the phase and wakes whoever waits.
func (p *phases) set(to phase) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current == to {
		return
	}
	p.current = to
	close(p.changed)
	p.changed = make(chan struct{})
}

// get returns the current phase and a channel that is closed when it changes.
func (p *phases) get() (phase, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current, p.changed
}

// awaitServing waits while the phase is pausing and reports whether it became serving.
func (p *phases) awaitServing(ctx context.Context) bool {
	for {
		now, changed := p.get()
		switch now {
		case serving:
			return true
		case following:
			return false
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}
