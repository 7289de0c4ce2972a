package sim

import (
	"errors"
	"slices"

	"holdfast/internal/replica"
	"holdfast/internal/vfs"
)

// Old disks: a node that lost its disk and went on without gets it back, as when a file system is mounted again that had not been. What is on it is older than what the node has promised since: it
// may not start with that. If it had not taken part yet, it has to.

// oldDiskChance is how many of the disks that were lost are found again.
const oldDiskChance = 0.6

// disk is what a node stores its files on.
type disk struct {
	files *vfs.Sim
	store *simStore
}

// keepOld keeps the disk that the node is about to lose, and brings it back some time later, if what is on it is right.
func (n *node) keepOld() {
	w := n.w
	rng := w.stream("old disk", n.id, n.disks)
	chance, latest := oldDiskChance, 2500*msec
	if w.cfg.Mutation == ForgetIncarnation {
		chance, latest = 1, sec
	}
	if n.bad() || n.marked || !rng.chance(chance) || slices.Contains(w.cfg.Off, faultOldDisk.String()) {
		return
	}
	old, incarnation, number := disk{n.disk, n.store}, n.incarnation, n.disks+1
	n.disk.Crash()
	var try func()
	try = func() {
		switch {
		case !w.chaos || n.retired || n.disks != number || w.ruined != nil:
		case w.mayLoseDisk(n):
			n.bringBack(old, incarnation)
		default:
			w.after(20*msec, try)
		}
	}
	w.after(rng.between(10*msec, latest), try)
}

// bringBack puts a disk in again with which the node was in an incarnation.
func (n *node) bringBack(old disk, incarnation uint64) {
	w := n.w
	w.note("old disk", n.id, n.incarnation-incarnation)
	w.stats.Faults[faultOldDisk]++
	n.crash()
	n.newer = disk{n.disk, n.store}
	n.disk, n.store = old.files, old.store
	n.disks++
	n.outdated = n.incarnation > incarnation
	n.faulty = true // or it could not refuse to start
	if !n.outdated {
		n.empty = false
	}
	w.after(n.rng.between(10*msec, 300*msec), n.start)
}

// started checks that the files that a node has started with are those that it has to go on with.
func (n *node) started() {
	if n.outdated && n.w.cfg.Mutation != ForgetIncarnation {
		n.w.fail("node %d starts with files that it went on without", n.id)
	}
	n.outdated, n.newer = false, disk{}
}

// refusedOld handles that the node does not start with an old disk, if that is why: mostly somebody finds the newer one. It reports whether they did.
func (n *node) refusedOld(err error) bool {
	if !n.outdated || !errors.Is(err, replica.ErrOldFiles) {
		return false
	}
	n.w.stats.Outdated++
	if !n.rng.chance(0.6) {
		return false
	}
	n.w.note("newer disk", n.id)
	n.disk, n.store = n.newer.files, n.newer.store
	n.disks++
	n.outdated, n.newer = false, disk{}
	return true
}

// incarnations is package node's: what a node remembers elsewhere than on the disk that it loses.
type incarnations struct{ n *node }

func (i incarnations) Incarnation() uint64 {
	if i.n.w.cfg.Mutation == ForgetIncarnation {
		return 0
	}
	return i.n.incarnation
}

func (i incarnations) SetIncarnation(n uint64) error {
	i.n.incarnation = n
	return nil
}
