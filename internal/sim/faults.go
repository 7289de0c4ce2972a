package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"holdfast/internal/replica"
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
	faultObjectRot                    // a bit of file data flips
	faultMetaRot                      // a block of the metadata cannot be read any more
	faultUpgrade                      // a node is restarted with the newer release
	faultRuin                         // most members lose their disks, once
	faultOldDisk                      // a disk comes back that the node has gone on without
	faultReboot                       // a client's machine starts anew
	faultKinds
)

func (k faultKind) String() string {
	return [...]string{"kill", "crash", "crash-all", "pause", "isolation", "one-way", "bridge", "split", "cut-clients", "heal", "noise",
		"slow-disk", "sync-error", "write-error", "full-disk", "store-error", "log-rot", "replace", "transfer", "wall-clock", "reconnect", "sleep", "members", "object-rot", "meta-rot", "upgrade", "ruin", "old-disk", "reboot"}[k]
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
	// AtLeader is the chance of a fault to strike the leader whoever was drawn; 0: 0.3.
	AtLeader float64
	// Long is the chance of a pause or an absence to be longer than an election takes; 0: 0.3.
	Long float64
	// Noticed is the chance of a lost disk to be noticed at once, so that another member takes the place of the node before that comes back without its files; 0: 0.6.
	Noticed float64
	// KeepClients lets a node that is isolated from the others be reached by clients.
	KeepClients bool
	// RetainBytes of the log are kept for laggards: little makes for many snapshots.
	RetainBytes int64
}

// randomFaults draws a mix: some kinds often, some not at all.
func randomFaults(rng stream) Faults {
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
	// Drawn last, so that these kinds do not change what the others are.
	if rng.chance(0.3) {
		f.Weights[faultObjectRot], f.Weights[faultMetaRot] = 1+rng.IntN(4), 1+rng.IntN(3)
	}
	f.Weights[faultReboot] = []int{0, 0, 1, 2}[rng.IntN(4)]
	return f
}

// suit makes the mix one for a kind of cluster.
func (f *Faults) suit(kind Kind, rng stream) {
	if kind == Fixed {
		return
	}
	f.Weights[faultMembers] = []int{1, 2, 6}[rng.IntN(3)]
	if kind == Witnessed {
		// Damage shows when the node starts next, and the other copy may be behind by then: that is a second loss.
		// Of two copies nobody can say which is the rotten one.
		f.Weights[faultRot], f.Weights[faultObjectRot], f.Weights[faultMetaRot] = 0, 0, 0
	}
}

// fault is one misfortune. Its number and the seed determine it, as far as the cluster is then as it would have been: it draws from a source of its own.
type fault struct {
	w       *World
	ordinal int
	kind    faultKind
	rng     stream
}

// Strike is a fault that struck.
type Strike struct {
	// Ordinal is the fault's number in the run, from 1; see Config.Only.
	Ordinal int
	// Kind is one of FaultNames.
	Kind string
	// At is when, in simulated time since the begin of the run.
	At time.Duration
}

// Strikes returns the faults that struck, in their order.
func (w *World) Strikes() []Strike { return w.strikes }

// strike makes something happen, again and again.
func (w *World) strike() {
	if !w.chaos {
		return
	}
	w.ordinal++
	f := &fault{w: w, ordinal: w.ordinal, rng: w.stream("fault", uint64(w.ordinal))}
	next := int64(f.rng.ExpFloat64() * float64(w.faults.Interval))
	total := 0
	for _, weight := range w.faults.Weights {
		total += weight
	}
	if total > 0 {
		at := f.rng.IntN(total)
		for k, weight := range w.faults.Weights {
			if at -= weight; at < 0 {
				f.kind = faultKind(k)
				break
			}
		}
		if w.cfg.strikes(f) {
			w.inflict(f)
		}
	}
	w.after(next, w.strike)
}

// inflict lets a fault strike a node drawn at random, the leader more often than others.
func (w *World) inflict(f *fault) {
	n := w.nodes[f.rng.IntN(len(w.nodes))]
	atLeader := f.rng.chance(or(w.faults.AtLeader, 0.3))
	if l := w.leader(); l != nil && atLeader {
		n = l.n
	}
	w.strikes = append(w.strikes, Strike{f.ordinal, f.kind.String(), time.Duration(w.now)})
	w.note("fault "+f.kind.String(), uint64(f.ordinal), n.id)
	if !slices.Contains([]faultKind{faultReplace, faultRot, faultMembers, faultObjectRot, faultMetaRot, faultUpgrade, faultReboot}, f.kind) {
		w.stats.Faults[f.kind]++
	}
	switch f.kind {
	case faultKill, faultCrash, faultCrashAll:
		f.down(n)
	case faultPause:
		d := f.rng.between(20*msec, 300*msec)
		if f.rng.chance(or(w.faults.Long, 0.3)) {
			d = f.rng.between(300*msec, 3*sec)
		}
		n.pausedUntil = max(n.pausedUntil, w.now+d)
	case faultIsolate, faultOneWay, faultBridge, faultSplit, faultClients, faultHeal, faultNoise:
		f.partition(n)
	case faultTransfer:
		f.transfer()
	case faultUpgrade:
		f.upgrade()
	case faultMembers:
		f.changeMembers(n)
	case faultWallClock:
		n.wallStep = f.wallStep()
	case faultClientDrop, faultClientSleep, faultReboot:
		f.disturbClient()
	default:
		f.spoil(n)
	}
}

// or returns v, or otherwise if v is 0.
func or(v, otherwise float64) float64 {
	if v == 0 {
		return otherwise
	}
	return v
}

// down ends processes.
func (f *fault) down(n *node) {
	w := f.w
	nodes := []*node{n}
	if f.kind == faultCrashAll {
		nodes = w.nodes
	}
	for _, n := range nodes {
		if f.kind == faultKill {
			if n.up != nil {
				n.stop()
			}
		} else {
			n.crash()
		}
		d := f.rng.between(5*msec, 300*msec)
		if f.rng.chance(or(w.faults.Long, 0.3)) {
			d = f.rng.between(300*msec, 2*sec)
		}
		w.after(d, n.start)
	}
}

// partition changes who reaches whom.
func (f *fault) partition(n *node) {
	w, net := f.w, &f.w.net
	me := station(n.id)
	both := func(a, b station) { net.sever(a, b); net.sever(b, a) }
	other := w.nodes[f.rng.IntN(len(w.nodes))]
	switch f.kind {
	case faultIsolate:
		for _, o := range w.nodes {
			both(me, station(o.id))
		}
		some := []float64{0, 0.5, 1}[f.rng.IntN(3)]
		if w.faults.KeepClients {
			some = 0
		}
		for _, c := range w.clients {
			if f.rng.chance(some) {
				both(me, c.station())
			}
		}
	case faultOneWay:
		for _, o := range w.nodes {
			if f.rng.chance(0.6) {
				net.sever(me, station(o.id))
			} else if f.rng.chance(0.2) {
				net.sever(station(o.id), me)
			}
		}
	case faultBridge:
		both(me, station(other.id))
	case faultSplit:
		side := make([]bool, len(w.nodes))
		for i := range side {
			side[i] = f.rng.chance(0.5)
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
			if f.rng.chance(0.5) {
				net.sever(c.station(), me)
			}
			if f.rng.chance(0.5) {
				net.sever(me, c.station())
			}
		}
	case faultHeal:
		net.heal()
	case faultNoise:
		net.drop, net.dup, net.slow = 0.1*f.rng.Float64(), 0.05*f.rng.Float64(), 0.02*f.rng.Float64()
		net.jitter = []int64{0, 400 * usec, 3 * msec, 20 * msec}[f.rng.IntN(4)]
	}
}

// transfer tells the leader to hand over, sometimes at a bad moment.
func (f *fault) transfer() {
	w := f.w
	l := w.leader()
	if l == nil {
		return
	}
	to := uint64(0)
	if k := f.rng.IntN(len(w.nodes) + 1); k > 0 {
		to = w.nodes[k-1].id
	}
	l.turn(func(core *replica.Core, now int64) { _, _ = core.TransferLeader(now, to) })
	if f.rng.chance(0.3) {
		w.after(f.rng.Int64N(60*msec), func() {
			if w.chaos {
				f.kind = faultIsolate
				f.partition(l.n)
			}
		})
	}
}

// disturbClient does something to a client.
func (f *fault) disturbClient() {
	w := f.w
	if len(w.clients) == 0 {
		return
	}
	c := w.clients[f.rng.IntN(len(w.clients))]
	switch f.kind {
	case faultClientDrop:
		c.drop()
	case faultReboot:
		c.reboot()
	default:
		c.sleep(f.rng.between(sec, 9*sec))
	}
}

// wallStep is by how much a wall clock is wrong: by what clocks differ that are kept, or by as much as they are when nobody keeps them.
func (f *fault) wallStep() int64 {
	most := []int64{2 * sec, 100 * sec, 3600 * sec, 30 * 365 * 24 * 3600 * sec}[f.rng.IntN(4)]
	return f.rng.between(-most, most)
}

// heal ends all faults.
func (w *World) heal() {
	w.net.heal()
	for _, n := range w.nodes {
		n.pausedUntil, n.slowDisk, n.wallStep = 0, 0, 0
		n.disk.SetFree(-1)
		n.store.restart()
		w.after(n.rng.between(0, 100*msec), n.start)
	}
	w.finishUpgrade()
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
		fmt.Fprintf(&b, "node %d: %v term %d leader %d last %d commit %d applied %d serving %v needs snapshot %v recovering %v installing %v phase %d voters %v",
			n.id, st.Role, st.Term, st.Leader, st.Last, st.Commit, st.Applied, st.Serving, st.NeedsSnapshot, st.Recovering, st.Installing, n.up.serve.phase, st.Voters)
		if st.Joint {
			fmt.Fprintf(&b, " outgoing %v", st.Outgoing)
		}
		b.WriteString("; ")
	}
	return b.String()
}
