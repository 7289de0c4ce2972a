package sim

import (
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"holdfast/internal/replica"
	"holdfast/internal/vfs"
)

// faultKind is a kind of misfortune.
type faultKind int

const (
	faultKill        faultKind = iota // the process dies, the host stays
	faultCrash                        // the power of a node goes
	faultCrashAll                     // the power of all nodes goes
	faultPause                        // a process stands still
	faultIsolate                      // a node reaches nobody
	faultOneWay                       // a link works in one direction
	faultBridge                       // two nodes reach each other only through a third
	faultSplit                        // two groups of nodes
	faultClients                      // clients do not reach a node
	faultHeal                         // the network works again
	faultNoise                        // messages get lost, doubled, late
	faultSlowDisk                     // writes take long
	faultSyncError                    // a sync fails
	faultWriteError                   // a write fails
	faultFull                         // the disk is full
	faultStoreError                   // the store's disk fails
	faultRot                          // bits of the log flip
	faultReplace                      // a node gets an empty disk
	faultTransfer                     // leadership is handed over
	faultWallClock                    // the wall clock steps
	faultClientDrop                   // a client loses its connection
	faultClientSleep                  // a client is silent beyond its lease
	faultMembers                      // a node comes, goes, or takes another's place
	faultKinds
)

func (k faultKind) String() string {
	return [...]string{"kill", "crash", "crash of all", "pause", "isolation", "one-way cut", "bridge", "split", "clients cut off", "heal", "message noise",
		"slow disk", "sync error", "write error", "full disk", "store error", "bit rot", "disk replaced", "transfer", "wall clock step", "reconnect", "client sleep", "membership change"}[k]
}

// FaultNames returns the names of the kinds of fault, in the order of Stats.Faults.
func FaultNames() []string {
	var names []string
	for k := range faultKinds {
		names = append(names, k.String())
	}
	return names
}

// Faults says how often what goes wrong.
type Faults struct {
	// Interval is the mean time between two faults.
	Interval time.Duration
	// Weights of the kinds of fault.
	Weights [faultKinds]int
	// Drift is how much of the allowed difference of clocks is used, 0 to 1.
	Drift float64
	// SlowApply is the chance of an apply to take long.
	SlowApply float64
	// RetainBytes of the log are kept for laggards: little makes for many snapshots.
	RetainBytes int64
}

// randomFaults draws a mix: some kinds often, some not at all.
func randomFaults(rng *rand.Rand) Faults {
	f := Faults{
		Interval:    time.Duration([]int64{60, 120, 250, 500}[rng.IntN(4)]) * time.Millisecond,
		Drift:       []float64{0, 0.5, 1, 1}[rng.IntN(4)],
		SlowApply:   []float64{0, 0.001, 0.01}[rng.IntN(3)],
		RetainBytes: []int64{4 << 10, 16 << 10, 64 << 10}[rng.IntN(3)],
	}
	for k := range faultMembers {
		f.Weights[k] = []int{0, 1, 1, 2, 6}[rng.IntN(5)]
	}
	f.Weights[faultHeal] = 4 + rng.IntN(8)
	f.Weights[faultCrashAll] = min(f.Weights[faultCrashAll], 1)
	f.Weights[faultClientSleep] = min(f.Weights[faultClientSleep], 1)
	return f
}

// suit makes the mix one for a kind of cluster.
func (f *Faults) suit(kind Kind, rng *rand.Rand) {
	if kind == Fixed {
		return
	}
	f.Weights[faultMembers] = []int{1, 2, 6}[rng.IntN(3)]
	if kind == Witnessed {
		// Damage shows when the node starts next, and the other copy may be behind by then: that is a second loss.
		f.Weights[faultRot] = 0
	}
}

// strike makes something happen, again and again.
func (w *World) strike() {
	if !w.chaos {
		return
	}
	total := 0
	for _, weight := range w.faults.Weights {
		total += weight
	}
	if total > 0 {
		at := w.rng.IntN(total)
		for k, weight := range w.faults.Weights {
			if at -= weight; at < 0 {
				w.inflict(faultKind(k))
				break
			}
		}
	}
	w.after(int64(w.rng.ExpFloat64()*float64(w.faults.Interval)), w.strike)
}

// inflict lets one fault strike a node drawn at random, the leader more often than others.
func (w *World) inflict(k faultKind) {
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	if l := w.leader(); l != nil && w.chance(0.3) {
		n = l.n
	}
	w.note("fault "+k.String(), n.id)
	if k != faultReplace && k != faultRot && k != faultMembers {
		w.stats.Faults[k]++
	}
	switch k {
	case faultKill, faultCrash, faultCrashAll:
		w.down(k, n)
	case faultPause:
		d := w.between(20*msec, 300*msec)
		if w.chance(0.3) {
			d = w.between(300*msec, 3*sec)
		}
		n.pausedUntil = w.now + d
	case faultIsolate, faultOneWay, faultBridge, faultSplit, faultClients, faultHeal, faultNoise:
		w.partition(k, n)
	case faultTransfer:
		w.transfer()
	case faultMembers:
		w.changeMembers(n)
	case faultWallClock:
		n.wallStep = w.between(-3600*sec, 3600*sec)
	case faultClientDrop, faultClientSleep:
		w.disturbClient(k)
	default:
		w.spoil(k, n)
	}
}

// down ends processes.
func (w *World) down(k faultKind, n *node) {
	nodes := []*node{n}
	if k == faultCrashAll {
		nodes = w.nodes
	}
	for _, n := range nodes {
		if k == faultKill {
			if n.up != nil {
				n.stop()
			}
		} else {
			n.crash()
		}
		d := w.between(5*msec, 300*msec)
		if w.chance(0.3) {
			d = w.between(300*msec, 2*sec)
		}
		w.after(d, n.start)
	}
}

// partition changes who reaches whom.
func (w *World) partition(k faultKind, n *node) {
	net := &w.net
	me := station(n.id)
	both := func(a, b station) { net.sever(a, b); net.sever(b, a) }
	other := w.nodes[w.rng.IntN(len(w.nodes))]
	switch k {
	case faultIsolate:
		for _, o := range w.nodes {
			both(me, station(o.id))
		}
		some := []float64{0, 0.5, 1}[w.rng.IntN(3)]
		for _, c := range w.clients {
			if w.chance(some) {
				both(me, c.station())
			}
		}
	case faultOneWay:
		for _, o := range w.nodes {
			if w.chance(0.6) {
				net.sever(me, station(o.id))
			} else if w.chance(0.2) {
				net.sever(station(o.id), me)
			}
		}
	case faultBridge:
		both(me, station(other.id))
	case faultSplit:
		side := make([]bool, len(w.nodes))
		for i := range side {
			side[i] = w.chance(0.5)
		}
		for i, a := range w.nodes {
			for j, b := range w.nodes {
				if side[i] != side[j] {
					net.sever(station(a.id), station(b.id))
				}
			}
		}
	case faultClients:
		for _, c := range w.clients {
			if w.chance(0.5) {
				net.sever(c.station(), me)
			}
			if w.chance(0.5) {
				net.sever(me, c.station())
			}
		}
	case faultHeal:
		net.heal()
	case faultNoise:
		net.drop, net.dup, net.slow = 0.1*w.rng.Float64(), 0.05*w.rng.Float64(), 0.02*w.rng.Float64()
		net.jitter = []int64{0, 400 * usec, 3 * msec, 20 * msec}[w.rng.IntN(4)]
	}
}

// transfer tells the leader to hand over, sometimes at a bad moment.
func (w *World) transfer() {
	l := w.leader()
	if l == nil {
		return
	}
	to := uint64(0)
	if k := w.rng.IntN(len(w.nodes) + 1); k > 0 {
		to = w.nodes[k-1].id
	}
	l.turn(func(core *replica.Core, now int64) { _, _ = core.TransferLeader(now, to) })
	if w.chance(0.3) {
		w.after(w.rng.Int64N(60*msec), func() {
			if w.chaos {
				w.partition(faultIsolate, l.n)
			}
		})
	}
}

// spoil does something to a node's storage.
func (w *World) spoil(k faultKind, n *node) {
	once := func(op vfs.Op, err error) {
		remove := n.disk.AddFault(vfs.Fault{Ops: op, Nth: 1 + w.rng.IntN(4), Times: 1, Err: err})
		n.arm(w.between(msec, 300*msec), remove)
	}
	switch k {
	case faultSlowDisk:
		n.slowDisk = []int64{0, 5 * msec, 50 * msec, 400 * msec}[w.rng.IntN(4)]
		w.after(w.between(10*msec, sec), func() { n.slowDisk = 0 })
	case faultSyncError:
		once(vfs.OpSync|vfs.OpSyncDir, syscall.EIO)
	case faultWriteError:
		once(vfs.OpWrite, syscall.EIO)
	case faultFull:
		n.disk.SetFree(w.rng.Int64N(64 << 10))
		disk := n.disk
		n.arm(w.between(100*msec, sec), func() { disk.SetFree(-1) })
	case faultStoreError:
		n.faulty = true
		n.store.stopAfter(1 + w.rng.IntN(20))
	case faultRot:
		if w.mayLoseDisk(n) {
			w.rot(n)
		}
	case faultReplace:
		if w.mayLoseDisk(n) && w.cfg.Kind != Fixed {
			w.replace(n)
		} else if w.mayLoseDisk(n) {
			n.replaceDisk()
			w.after(w.between(10*msec, 500*msec), n.start)
		}
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
	bad := 1
	for _, o := range w.nodes {
		if o != n && (!o.whole() || o.damaged) {
			bad++
		}
	}
	return bad <= (len(w.nodes)-1)/2
}

// rot flips a bit in the log, in the part that was written a while ago: what only the last sync made durable, and rots in the crash that hides it, looks torn
// to anybody.
func (w *World) rot(n *node) {
	dir := n.dir() + "/log"
	names, err := n.disk.List(dir)
	if err != nil {
		return
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasSuffix(name, ".seg") })
	if len(names) < 2 {
		return
	}
	name := path.Join(dir, names[w.rng.IntN(len(names)-1)]) // not the one that is being written
	info, err := n.disk.Stat(name)
	if err != nil || info.Size == 0 {
		return
	}
	off := w.rng.Int64N(info.Size)
	if n.disk.FlipBit(name, off, uint(w.rng.IntN(8))) != nil {
		return
	}
	w.stats.Faults[faultRot]++
	w.logf("bit rot in %s at %d", name, off)
	n.damaged, n.faulty = true, true
}

// disturbClient does something to a client.
func (w *World) disturbClient(k faultKind) {
	if len(w.clients) == 0 {
		return
	}
	c := w.clients[w.rng.IntN(len(w.clients))]
	if k == faultClientDrop {
		c.drop()
		return
	}
	c.sleep(w.between(sec, 9*sec))
}

// heal ends all faults.
func (w *World) heal() {
	w.net.heal()
	for _, n := range w.nodes {
		n.pausedUntil, n.slowDisk, n.wallStep = 0, 0, 0
		n.disk.SetFree(-1)
		n.store.restart()
		w.after(w.between(0, 100*msec), n.start)
	}
	for _, c := range w.clients {
		c.sleeping = false
	}
}

// describe says what the nodes are doing.
func (w *World) describe() string {
	var b strings.Builder
	for _, n := range w.nodes {
		if n.up == nil {
			fmt.Fprintf(&b, "node %d is down; ", n.id)
			continue
		}
		st := n.up.manual.Core.Status(n.clock())
		fmt.Fprintf(&b, "node %d: %v term %d leader %d last %d commit %d applied %d serving %v needs snapshot %v recovering %v installing %v phase %d; ",
			n.id, st.Role, st.Term, st.Leader, st.Last, st.Commit, st.Applied, st.Serving, st.NeedsSnapshot, st.Recovering, st.Installing, n.up.serve.phase)
	}
	return b.String()
}
