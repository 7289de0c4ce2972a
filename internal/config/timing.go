package config

import (
	"bytes"
	"fmt"
	"time"
)

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

	minTick       = time.Millisecond
	maxTick       = 10 * time.Second
	minElection   = 4
	maxElection   = 1000
	minLeaseTicks = 3 // a lease survives two lost heartbeats
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

// Validate returns what is wrong with the timing as Errors, or nil. What is zero counts as its default.
func (t *Timing) Validate() error {
	text := bytes.NewBufferString("timing:\n")
	for _, v := range []struct {
		key   string
		value any
		given bool
	}{{"tick", t.Tick, t.Tick != 0}, {"election", t.Election, t.Election != 0}, {"lease", t.Lease, t.Lease != 0}, {"drift", t.Drift, t.Drift != 0}} {
		if v.given {
			fmt.Fprintf(text, "  %s: %v\n", v.key, v.value)
		}
	}
	if *t == (Timing{}) {
		return nil
	}
	var file struct {
		Timing Timing `yaml:"timing"`
	}
	d := newDecoder("", text.Bytes())
	d.placeless = true
	d.parse(text.Bytes(), &file)
	d.timing(&file.Timing)
	return d.result()
}

// timing checks the values of the key "timing" and completes them.
func (d *decoder) timing(t *Timing) {
	switch tick := time.Duration(t.Tick); {
	case !d.usable("timing.tick"):
	case tick < minTick:
		d.failAt("timing.tick", "a tick lasts at least %v", minTick)
	case tick > maxTick:
		d.failAt("timing.tick", "a tick lasts at most %v: nodes would notice the loss of another after minutes only", maxTick)
	}
	if d.usable("timing.election") && (t.Election < minElection || t.Election > maxElection) {
		d.failAt("timing.election", "an election begins after %d to %d ticks", minElection, maxElection)
	}
	if d.bad["timing.tick"] || d.bad["timing.election"] {
		return
	}
	quiet := time.Duration(t.Tick) * time.Duration(t.Election)
	if d.usable("timing.lease") && time.Duration(t.Lease) >= quiet {
		d.failAt("timing.lease", "the lease (%v) must run out before an election can begin (%d ticks of %v: %v)", t.Lease, t.Election, t.Tick, quiet)
	}
	t.Complete()
	if d.usable("timing.drift") && t.Drift >= t.Lease {
		d.failAt("timing.drift", "a drift of %v leaves nothing of the lease of %v", t.Drift, t.Lease)
	}
	if d.bad["timing.lease"] || d.bad["timing.drift"] {
		return
	}
	// Where neither is given, it is the election that decides about both.
	key := "timing.election"
	for _, k := range []string{"timing.drift", "timing.lease"} {
		if d.has(k) {
			key = k
		}
	}
	switch least := minLeaseTicks * time.Duration(t.Tick); {
	case time.Duration(t.Lease+t.Drift) >= quiet:
		d.failAt(key, "the lease (%v) and the drift (%v) must run out before an election can begin (%d ticks of %v: %v)", t.Lease, t.Drift, t.Election, t.Tick, quiet)
	case time.Duration(t.Lease-t.Drift) < least:
		d.failAt(key, "the lease (%v) less the drift (%v) must last for %d ticks of %v at least", t.Lease, t.Drift, minLeaseTicks, t.Tick)
	}
}
