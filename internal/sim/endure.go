package sim

import (
	"slices"
	"time"

	"holdfast/internal/volume"
)

// Endurance: when all is well again, a node goes, and the others go on within a bound; then it comes back, and as soon as the cluster can do without any of its nodes the next one goes.

// endureBound is how soon the others go on: an election, or the decision that a copy is out of sync, and clients that look for the leader.
const endureBound = 5 * sec

// endure lets one node after the other go while clients work. Not where copies may be rotten, as a comparison waits for clients that write, or a log is damaged that nobody has read since.
func (w *World) endure() {
	if w.oracle.reference != nil || w.cfg.Operations > 0 || w.cfg.Processes != nil && len(w.cfg.Processes) == 0 {
		return
	}
	for range w.cfg.Endure {
		if slices.ContainsFunc(w.nodes, func(n *node) bool { return n.damaged }) {
			return
		}
		rng := w.stream("endure", uint64(w.stats.Endured))
		until := w.now + rng.Int64N([]int64{1, 20 * msec, sec}[rng.IntN(3)])
		if !w.runUntil(settleBound, func() bool { return w.now >= until && w.sure() }) {
			w.fail("the nodes did not come together within %v: %s", time.Duration(settleBound), w.describe())
			return
		}
		if len(w.nodes) < 3 {
			return // the membership has changed meanwhile
		}
		n := w.nodes[rng.IntN(len(w.nodes))]
		if l := w.leader(); l != nil && rng.chance(0.5) {
			n = l.n
		}
		w.stats.Endured++
		w.note("endure", n.id)
		if rng.chance(0.5) {
			n.crash()
		} else {
			n.stop()
		}
		gone := w.oracle.highest
		if !w.runUntil(endureBound, func() bool { return w.oracle.acked > gone+3 }) {
			w.fail("no call was executed within %v without node %d: %s", time.Duration(endureBound), n.id, w.describe())
			return
		}
		n.start()
	}
}

// sure reports whether the cluster can do without any of its nodes.
func (w *World) sure() bool {
	l := w.leader()
	if l == nil || w.want != nil || w.cfg.Kind == Witnessed && !l.manual.Core.Status(l.n.clock()).InSync {
		return false
	}
	for _, n := range w.nodes {
		if n.up == nil || n.up.failed != nil || n.bad() || !n.hasAll() || n.up.volume != nil && n.up.volume.Version() < volume.MaxVersion {
			return false
		}
	}
	return true
}
