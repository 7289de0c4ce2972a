package replica

import (
	"context"
	"sync"
)

// proposals are entries that wait for the run loop. It is open while this replica leads; closing it drops what is in it.
type proposals struct {
	limit int64
	wake  func()

	mu     sync.Mutex
	opened bool
	reason error  // why it is closed; ErrNotLeader if nil
	closed uint64 // counts closings: what waits for room must not slip into a later leadership
	list   [][]byte
	bytes  int64         // accepted and not released, beyond list
	space  chan struct{} // closed, and replaced, when bytes shrinks or the queue closes
}

// add queues data; it waits while the queue is full.
func (p *proposals) add(ctx context.Context, data []byte) error {
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	for {
		p.mu.Lock()
		if !p.opened || p.closed != closed {
			defer p.mu.Unlock()
			if p.reason != nil {
				return p.reason
			}
			return ErrNotLeader
		}
		if p.bytes == 0 || p.bytes+int64(len(data)) <= p.limit {
			p.bytes += int64(len(data))
			p.list = append(p.list, data)
			p.mu.Unlock()
			p.wake()
			return nil
		}
		space := p.space
		p.mu.Unlock()
		select {
		case <-space:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take returns what is queued. Its bytes count until release.
func (p *proposals) take() [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.list
	p.list = nil
	return list
}

// release makes room for n bytes.
func (p *proposals) release(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n > 0 {
		p.bytes -= min(n, p.bytes)
		p.wakeWaitersLocked()
	}
}

func (p *proposals) open() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reason != ErrStopped {
		p.opened, p.reason = true, nil
	}
}

// pause takes no more, but keeps what is queued.
func (p *proposals) pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.opened {
		p.opened, p.reason = false, ErrTransferring
		p.wakeWaitersLocked()
	}
}

// close drops what is queued, and whoever adds gets reason.
func (p *proposals) close(reason error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opened = false
	p.closed++
	if p.reason != ErrStopped {
		p.reason = reason
	}
	p.list, p.bytes = nil, 0
	p.wakeWaitersLocked()
}

func (p *proposals) wakeWaitersLocked() {
	close(p.space)
	p.space = make(chan struct{})
}
