package sim

import (
	"path"
	"slices"
	"strings"
	"syscall"

	"holdfast/internal/vfs"
)

// spoil does something to a node's storage.
func (f *fault) spoil(n *node) {
	w := f.w
	once := func(op vfs.Op, err error) {
		remove := n.disk.AddFault(vfs.Fault{Ops: op, Nth: 1 + f.rng.IntN(4), Times: 1, Err: err})
		n.arm(f.rng.between(msec, 300*msec), remove)
	}
	switch f.kind {
	case faultSlowDisk:
		n.slowDisk = []int64{0, 5 * msec, 50 * msec, 400 * msec}[f.rng.IntN(4)]
		w.after(f.rng.between(10*msec, sec), func() { n.slowDisk = 0 })
	case faultSyncError:
		once(vfs.OpSync|vfs.OpSyncDir, syscall.EIO)
	case faultWriteError:
		once(vfs.OpWrite, syscall.EIO)
	case faultFull:
		n.disk.SetFree(f.rng.Int64N(64 << 10))
		disk := n.disk
		n.arm(f.rng.between(100*msec, sec), func() { disk.SetFree(-1) })
	case faultStoreError:
		n.faulty = true
		n.store.stopAfter(1 + f.rng.IntN(20))
	case faultRot:
		if w.mayLoseDisk(n) {
			f.rot(n)
		}
	case faultObjectRot:
		if len(w.nodes) >= 3 && w.mayLoseDisk(n) {
			f.rotObject(n)
		}
	case faultMetaRot:
		if len(w.nodes) >= 3 && w.mayLoseDisk(n) {
			f.rotMeta(n)
		}
	case faultReplace:
		if w.mayLoseDisk(n) && w.cfg.Kind != Fixed {
			f.emptyDisk(n)
		} else if w.mayLoseDisk(n) {
			n.replaceDisk()
			w.after(f.rng.between(10*msec, 500*msec), n.start)
		}
	}
}

// emptyDisk takes a member's disk away. Mostly a new node takes its place at once; otherwise the old one comes back without its files first, and nobody has noticed yet.
func (f *fault) emptyDisk(n *node) {
	w := f.w
	if f.rng.chance(or(w.faults.Noticed, 0.6)) {
		w.replace(n)
		return
	}
	w.note("files gone", n.id)
	n.stop()
	n.keepOld()
	n.newDisk()
	n.empty, n.faulty = true, true
	w.after(f.rng.between(10*msec, 200*msec), n.start)
	w.after(f.rng.between(300*msec, 3*sec), func() { w.replaceEmpty(n) })
}

// replaceEmpty puts a new node in the place of one that has lost its files, as soon as somebody leads who can let it in.
func (w *World) replaceEmpty(n *node) {
	switch {
	case n.retired || !n.empty: // it has the files again that it had
	case n.up != nil && n.up.failed == nil && n.hasAll():
		n.empty = false // nobody has noticed, and it has everything again
		w.stats.Faults[faultReplace]++
	case w.want == nil && w.leader() != nil:
		w.replace(n)
	default:
		w.after(200*msec, func() { w.replaceEmpty(n) })
	}
}

// arm notes that storage may fail for a time, after which disarm is called.
func (n *node) arm(d int64, disarm func()) {
	n.faulty = true
	n.armed++
	n.w.after(d, func() { n.armed--; disarm() })
}

// mayLoseDisk reports whether the cluster can do without what is on this disk: a majority of others is whole.
func (w *World) mayLoseDisk(n *node) bool {
	if w.cfg.Kind != Fixed {
		return w.now >= 2*sec && w.mayGo(n)
	}
	if w.now < 2*sec || n.lost && !n.whole() {
		return false
	}
	return w.minority(n, func(o *node) bool { return !o.whole() || o.bad() })
}

// rot flips a bit in the log, in the part that was written a while ago: what only the last sync made durable, and rots in the crash that hides it, looks torn
// to anybody.
func (f *fault) rot(n *node) {
	w := f.w
	sealed := n.sealed()
	if len(sealed) == 0 {
		return
	}
	name := sealed[f.rng.IntN(len(sealed))]
	info, err := n.disk.Stat(name)
	if err != nil || info.Size == 0 {
		return
	}
	off := f.rng.Int64N(info.Size)
	if n.disk.FlipBit(name, off, uint(f.rng.IntN(8))) != nil {
		return
	}
	w.stats.Faults[faultRot]++
	w.logf("bit rot in %s at %d", name, off)
	n.damaged, n.faulty = true, true
}

// sealed returns the segments of the log but the one that is being written.
func (n *node) sealed() []string {
	dir := n.dir() + "/log"
	names, err := n.disk.List(dir)
	if err != nil {
		return nil
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasSuffix(name, ".seg") })
	for i := range names {
		names[i] = path.Join(dir, names[i])
	}
	return names[:max(len(names)-1, 0)]
}
