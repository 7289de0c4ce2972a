package sim

import (
	"fmt"
	"slices"
	"strings"

	"holdfast/internal/replica"
)

// Ruin: most members lose their disks at once, or their logs are damaged. Something may have been acknowledged then that is on no disk any more, so nobody may serve, for ever, and who has lost something says so.

// ruinChance is how many of the seeds are of a ruin, among those that draw their faults.
const ruinChance = 0.08

// ruinBound is how long a ruined cluster is watched after the last fault.
const ruinBound = 10 * sec

// drawRuin settles whether and when the run comes to a ruin. Nothing else is lost in it.
func (w *World) drawRuin() {
	rng := w.stream("ruin")
	drawn := rng.chance(ruinChance) && w.cfg.Mutation == NoMutation && w.cfg.Faults == nil
	if !drawn && !w.cfg.Ruin && w.cfg.Mutation != BeginAnew || slices.Contains(w.cfg.Off, faultRuin.String()) {
		return
	}
	w.ruinAfter = rng.between(0, int64(w.cfg.Duration)*9/10)
	for _, k := range []faultKind{faultRot, faultReplace, faultObjectRot, faultMetaRot} {
		w.faults.Weights[k] = 0
	}
}

// ruinedLogs is how many of those that lose something keep their disks, with a damaged log.
const ruinedLogs = 0.3

// ruin takes the disks of most members away, with the power of all.
func (w *World) ruin() {
	if !w.chaos {
		return
	}
	if w.want != nil { // who the members are is being decided
		w.after(50*msec, w.ruin)
		return
	}
	rng := w.stream("ruined")
	gone := len(w.nodes)/2 + 1
	gone += rng.IntN(len(w.nodes) - gone + 1)
	w.ruined = map[*node]bool{}
	w.stats.Faults[faultRuin]++
	w.faults.Weights[faultMembers] = 0
	for _, n := range w.nodes {
		n.crash()
	}
	for _, i := range rng.Perm(len(w.nodes))[:gone] {
		n := w.nodes[i]
		w.note("ruin", n.id)
		if !rng.chance(ruinedLogs) || w.cfg.Mutation != NoMutation || !n.damageLog(rng) {
			n.newDisk()
		}
		n.faulty = true // or it could not refuse to start
		w.ruined[n] = true
	}
	for _, n := range w.nodes {
		w.after(n.rng.between(10*msec, 500*msec), n.start)
	}
}

// A segment begins with a page, then come frames, the first with a header of so many bytes at least (package wal).
const (
	segmentPage = 4096
	frameHeader = 104
)

// damageLog flips a bit in the first frame of some sealed segments of the log, which nothing hides. It reports whether there are any.
func (n *node) damageLog(rng stream) bool {
	sealed := n.sealed()
	if len(sealed) < 2 {
		return false
	}
	sealed = sealed[:len(sealed)-1] // the last may be the one that is being written, with one prepared behind it
	for _, i := range rng.Perm(len(sealed))[:1+rng.IntN(len(sealed))] {
		if err := n.disk.FlipBit(sealed[i], segmentPage+rng.Int64N(frameHeader), uint(rng.IntN(8))); err != nil {
			n.w.fail("damage a log: %v", err)
		}
		n.w.logf("%s is damaged", sealed[i])
	}
	n.w.stats.Faults[faultRot]++
	return true
}

// settleRuined heals what can be healed, and expects that nobody serves, that each member that has lost something says so, and that clients were told nothing wrong.
func (w *World) settleRuined() {
	w.note("settle ruined")
	w.chaos, w.working = false, false
	w.heal()
	w.runFor(ruinBound)
	if w.err != nil {
		return
	}
	for _, n := range w.nodes {
		if w.ruined[n] && !n.tellsOfLoss() {
			w.fail("node %d has lost its disk and takes part as if it had not", n.id)
			return
		}
	}
	w.oracle.judge()
}

// tellsOfLoss reports whether a person can see that the node has lost its disk: its server does not start, or its status says so.
func (n *node) tellsOfLoss() bool {
	if n.up == nil {
		return true // it refuses to start; everything else is over
	}
	st := n.up.manual.Core.Status(n.clock())
	return st.Role == replica.RoleBlank || st.Recovering
}

// nobodyServes checks that a ruined cluster does not.
func (w *World) nobodyServes() {
	if l := w.leader(); l != nil && w.ruined != nil {
		var ids []string
		for _, n := range w.nodes {
			if w.ruined[n] {
				ids = append(ids, fmt.Sprint(n.id))
			}
		}
		w.fail("node %d may serve although nodes %s lost their disks", l.n.id, strings.Join(ids, ", "))
	}
}
