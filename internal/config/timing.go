package config

import "time"

// Timing is how fast failures are noticed. It is chosen when a cluster is made and kept in the cluster's state.
type Timing struct {
	Tick Duration `yaml:"tick" json:"tick"`
	// Election is how many ticks without a word from the leader pass, at least, before a node campaigns.
	Election int `yaml:"election" json:"election"`
	// Lease is how long a leader serves reads after a majority heard from it; it must run out before an election can begin.
	Lease Duration `yaml:"lease" json:"lease"`
	// Drift is how far clocks may drift apart during a lease; the leader cuts its own lease short by it.
	Drift Duration `yaml:"drift" json:"drift"`
}

const (
	defaultTick     = 20 * time.Millisecond
	defaultElection = 10
	// The lease ends this many ticks before the first election can begin.
	leaseMarginTicks = 1
	// Drift is this part of the lease unless given: crystals differ by far less than one part in a hundred.
	driftPart = 100
)

func (t *Timing) setDefaults() { t.Tick, t.Election = Duration(defaultTick), defaultElection }

// Complete gives what is zero its default. Lease and drift follow from tick and election.
func (t *Timing) Complete() {
	if t.Tick == 0 {
		t.Tick = Duration(defaultTick)
	}
	if t.Election == 0 {
		t.Election = defaultElection
	}
	if t.Lease == 0 {
		t.Lease = t.Tick * Duration(t.Election-leaseMarginTicks)
	}
	if t.Drift == 0 {
		t.Drift = t.Lease / driftPart
	}
}
