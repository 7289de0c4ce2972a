package node

import (
	"sync"
	"time"
)

// hold keeps requests that mutate waiting for a moment, so that what clients never cease to change can be looked at while nobody does. The zero value holds nothing.
type hold struct{ mu sync.RWMutex }

// enter waits while requests are held; leave follows when the request is in the log's hands.
func (h *hold) enter() { h.mu.RLock() }
func (h *hold) leave() { h.mu.RUnlock() }

// take waits until the requests that have entered have left, and holds further ones until release is called, or for as long as most.
func (h *hold) take(most time.Duration) (release func()) {
	h.mu.Lock()
	unlock := sync.OnceFunc(h.mu.Unlock)
	timer := time.AfterFunc(most, unlock)
	return func() {
		timer.Stop()
		unlock()
	}
}
