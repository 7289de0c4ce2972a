package replica

import (
	"errors"
	"fmt"
	"time"
)

// Timing is how fast a group notices that its leader is gone. All members must use the same values.
type Timing struct {
	// Tick is the interval of heartbeats, and how finely time is looked at.
	Tick time.Duration
	// ElectionTicks is after how many ticks without a leader a follower campaigns; each time it draws a number from here to half as much again.
	ElectionTicks int
	// Lease is for how long a follower that answers a heartbeat promises not to support another leader.
	Lease time.Duration
	// Drift is how much earlier than its followers' promises a leader lets its lease end, for clocks that run at different speeds. Two clocks
	// may differ by Drift over a time of Lease.
	Drift time.Duration
}

// DefaultTiming fails over within a third of a second in a data centre. The lease ends before the shortest election timeout, so that a leader
// that is merely slow is never waited for twice; 10 ms of drift in 160 ms allow clocks that differ by 6 %, where quartz differs by 0.02 %.
func DefaultTiming() Timing {
	return Timing{Tick: 20 * time.Millisecond, ElectionTicks: 10, Lease: 160 * time.Millisecond, Drift: 10 * time.Millisecond}
}

// withDefaults fills in what is zero.
func (t Timing) withDefaults() Timing {
	d := DefaultTiming()
	if t.Tick == 0 {
		t.Tick = d.Tick
	}
	if t.ElectionTicks == 0 {
		t.ElectionTicks = d.ElectionTicks
	}
	if t.Lease == 0 {
		t.Lease = t.Tick * time.Duration(t.ElectionTicks) * 8 / 10
	}
	if t.Drift == 0 {
		t.Drift = t.Lease / 16
	}
	return t
}

var errTiming = errors.New("replica: timing does not fit together")

func (t Timing) validate() error {
	election := t.Tick * time.Duration(t.ElectionTicks)
	switch {
	case t.Tick <= 0 || t.ElectionTicks < 3 || t.Drift < 0:
		return fmt.Errorf("%w: tick %v, %d election ticks, drift %v", errTiming, t.Tick, t.ElectionTicks, t.Drift)
	case t.Lease+t.Drift >= election:
		return fmt.Errorf("%w: a lease of %v plus a drift of %v must be shorter than the election timeout of %v", errTiming, t.Lease, t.Drift, election)
	case t.Lease-t.Drift < 3*t.Tick:
		return fmt.Errorf("%w: a lease of %v less a drift of %v must span three ticks of %v", errTiming, t.Lease, t.Drift, t.Tick)
	}
	return nil
}
