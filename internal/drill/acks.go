package drill

import (
	"slices"
	"sync"
	"time"
)

// maxAcks bounds what is remembered; a drill ends long before.
const maxAcks = 1 << 20

// ackLog remembers when writes were acknowledged. The zero value is ready for use.
type ackLog struct {
	mu    sync.Mutex // guards the fields below
	times []time.Time
	took  []time.Duration
	more  chan struct{} // closed by the next acknowledgement; nil if nobody waits
}

// add notes a write that began at begin and was acknowledged at end.
func (l *ackLog) add(begin, end time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.times) == maxAcks {
		l.times, l.took = slices.Delete(l.times, 0, maxAcks/2), slices.Delete(l.took, 0, maxAcks/2)
	}
	l.times, l.took = append(l.times, end), append(l.took, end.Sub(begin))
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
}

func (l *ackLog) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.times)
}

// wait returns a channel that is closed by the next acknowledgement.
func (l *ackLog) wait() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.more == nil {
		l.more = make(chan struct{})
	}
	return l.more
}

// gap returns the longest time between two acknowledgements that reaches into the window, or from the last one to the window's end.
func (l *ackLog) gap(from, to time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var longest time.Duration
	last := from
	for _, t := range l.times {
		if !t.After(from) {
			last = t
			continue
		}
		longest = max(longest, t.Sub(last))
		if last = t; !t.Before(to) {
			return longest
		}
	}
	return max(longest, to.Sub(last))
}

// median returns how long a write took, typically.
func (l *ackLog) median() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.took) == 0 {
		return 0
	}
	sorted := slices.Clone(l.took)
	slices.Sort(sorted)
	return sorted[len(sorted)/2]
}
