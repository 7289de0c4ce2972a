package rpc

import (
	"sync"
	"sync/atomic"
)

// shared is what the connections of one server share. A nil *shared has no limits.
type shared struct {
	budget    budget
	maxOutput int64
	output    atomic.Int64 // bytes queued on all connections
}

// addOutput notes n more bytes of queued output and reports whether that is over the limit.
func (s *shared) addOutput(n int) bool {
	return s != nil && s.output.Add(int64(n)) > s.maxOutput
}

func (s *shared) subOutput(n int) {
	if s != nil {
		s.output.Add(-int64(n))
	}
}

// budget is a number of bytes that connections take before they read a record and give back when the call is done. Who does not get
// them waits, first come first served, and meanwhile reads nothing from its peer.
type budget struct {
	mu      sync.Mutex // guards the fields below
	left    int
	waiters []*budgetWaiter
}

type budgetWaiter struct {
	n     int
	ready chan struct{} // closed when the bytes are the waiter's
}

// acquire takes n bytes; false: done was closed first, and nothing was taken. n must not exceed the whole budget.
func (b *budget) acquire(n int, done <-chan struct{}) bool {
	b.mu.Lock()
	if len(b.waiters) == 0 && b.left >= n {
		b.left -= n
		b.mu.Unlock()
		return true
	}
	w := &budgetWaiter{n: n, ready: make(chan struct{})}
	b.waiters = append(b.waiters, w)
	b.mu.Unlock()
	select {
	case <-w.ready:
		return true
	case <-done:
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-w.ready:
		b.left += n
	default:
		for i := range b.waiters {
			if b.waiters[i] == w {
				b.waiters = append(b.waiters[:i], b.waiters[i+1:]...)
				break
			}
		}
	}
	b.wakeLocked()
	return false
}

func (b *budget) release(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left += n
	b.wakeLocked()
}

func (b *budget) wakeLocked() {
	for len(b.waiters) > 0 && b.waiters[0].n <= b.left {
		w := b.waiters[0]
		b.waiters = b.waiters[1:]
		b.left -= w.n
		close(w.ready)
	}
}
