package sim

import (
	"container/heap"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"runtime/debug"
	"time"
)

// Units of simulated time, in ns.
const (
	usec = int64(time.Microsecond)
	msec = int64(time.Millisecond)
	sec  = int64(time.Second)
)

// Config says what to run. The zero value of everything but Seed picks a default.
type Config struct {
	// Seed determines the run.
	Seed uint64
	// Nodes is the size of the cluster, 1 to 5. 0: by the seed, mostly 3.
	Nodes int
	// Kind is the sort of cluster.
	Kind Kind
	// Duration is how long clients work and faults strike, in simulated time.
	Duration time.Duration
	// Faults says how often what goes wrong. nil: a mix by the seed.
	Faults *Faults
	// Mutation breaks the system on purpose. One that shows seldom brings a mix of faults.
	Mutation Mutation
	// Ruin takes the disks of most members away at some moment; otherwise it is by the seed whether that happens.
	Ruin bool
	// Endure is how often a node goes when all is well after the faults, while clients work.
	Endure int
	// Only are the numbers of the faults that strike, see Strike; nil: all do.
	Only []int
	// Off are the kinds of fault that do not strike, see FaultNames.
	Off []string
	// Processes are those that work, numbered through the clients, three for each; nil: all do.
	Processes []int
	// From is the cluster version that the volume begins with; 0: by the seed, mostly the newest. If it is an older one, all nodes begin with a program that
	// knows no newer one, and are restarted one after the other with one that does.
	From uint32
	// Lease is that of NFSv4 clients; 0: by the seed, unless there is a mutation or Faults is set.
	Lease time.Duration
	// Operations is how many each process does at most; 0: as many as it can.
	Operations int
	// Log gets a line for everything that happens. nil: none.
	Log io.Writer
}

// Stats counts what happened in a run.
type Stats struct {
	Events     uint64
	Simulated  time.Duration
	Calls      int // answered
	Retries    int // calls sent again
	Entries    uint64
	Leaders    int
	Snapshots  int
	Unknown    int // histories that the checker gave up on
	Checks     int // comparisons of all copies
	Rotten     int // reads that were answered with rotten data
	Unreadable int // calls that a node with rotten metadata could not answer, when nobody could take over from it
	Aside      int // times that a leader with rotten metadata began to hand over
	Endured    int // times that a node went when all was well
	Expired    int // sessions that clients had lost, by their silence
	Outdated   int // starts that a node refused with a disk that it had gone on without
	Void       int // runs that ended because rot had spread to so many copies that nothing is promised
	Faults     [faultKinds]int
	Histories  int
	Operations int
}

// World is one run.
type World struct {
	cfg     Config
	faults  Faults
	now     int64 // true time in ns since the begin
	queue   eventQueue
	seq     uint64
	digest  uint64
	err     error
	class   string // of err
	checks  checks
	version uint32 // that the cluster has agreed on
	regrow  bool   // a copy was thrown away and is to be made anew
	limit   uint64 // of events; 0: none
	stats   Stats

	nodes   []*node // members, and those that are to be or are about to go
	all     []*node // ever
	byID    map[uint64]*node
	first   []uint64 // members of the first configuration
	numbers uint64   // the last that was given to a node
	want    []uint64 // the members that there are to be; nil: those that there are
	net     network
	clients []*client
	oracle  oracle
	chaos   bool // faults strike
	working bool // clients begin new calls
	began   int64
	ordinal int // of the last fault
	strikes []Strike
	// ruinAfter is when most disks are lost, in ns after clients began; 0: never. ruined are the nodes that lost them, nil before.
	ruinAfter int64
	ruined    map[*node]bool
}

type event struct {
	at  int64
	seq uint64
	fn  func()
}

// eventQueue is a heap by time, then by the order in which events were made.
type eventQueue []event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *eventQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*q = old[:len(old)-1]
	return e
}

// New prepares a run.
func New(cfg Config) *World {
	w := &World{cfg: cfg}
	if w.cfg.Duration == 0 {
		w.cfg.Duration = 6 * time.Second
	}
	w.byID = map[uint64]*node{}
	kind := w.drawKind() // which depends on whether the number of nodes is given
	if w.cfg.Nodes == 0 {
		w.cfg.Nodes = []int{3, 3, 3, 3, 2, 5, 1, 3}[w.stream("nodes").IntN(8)]
	}
	if w.cfg.Faults == nil {
		w.cfg.Faults = cfg.Mutation.faults()
	}
	if w.cfg.Faults != nil {
		w.faults = *w.cfg.Faults
	} else {
		w.faults = randomFaults(w.stream("faults"))
		w.faults.suit(w.cfg.Kind, kind)
	}
	w.oracle.init(w)
	w.drawVersion()
	w.drawRuin()
	w.drawLease()
	if w.faults.Weights[faultObjectRot]+w.faults.Weights[faultMetaRot] > 0 {
		w.oracle.beginReference()
	}
	w.net.init(w)
	w.populate()
	return w
}

// Err returns the first violation of a promise, nil if there was none.
func (w *World) Err() error {
	if w.err == errVoid {
		return nil
	}
	return w.err
}

// Digest returns a digest of everything that happened, in order.
func (w *World) Digest() uint64 { return w.digest }

// Stats returns what was counted.
func (w *World) Stats() Stats {
	st := w.stats
	st.Simulated = time.Duration(w.now)
	return st
}

// after schedules fn.
func (w *World) after(d int64, fn func()) {
	w.seq++
	heap.Push(&w.queue, event{w.now + max(d, 0), w.seq, fn})
}

// fail notes a violation. The run ends.
func (w *World) fail(format string, args ...any) {
	if w.err != nil {
		return
	}
	w.class = classOf(format, args)
	w.err = fmt.Errorf("seed %d at %v: %w", w.cfg.Seed, time.Duration(w.now), fmt.Errorf(format, args...))
	if w.cfg.Log != nil {
		fmt.Fprintf(w.cfg.Log, "%12.6f VIOLATION %v\n", float64(w.now)/1e9, w.err)
	}
}

// note adds something that happened to the digest and to the log.
func (w *World) note(what string, args ...uint64) {
	h := fnv.New64a()
	var b [8]byte
	put := func(v uint64) { binary.BigEndian.PutUint64(b[:], v); h.Write(b[:]) }
	put(w.digest)
	put(uint64(w.now))
	io.WriteString(h, what)
	for _, a := range args {
		put(a)
	}
	w.digest = h.Sum64()
	if w.cfg.Log != nil {
		fmt.Fprintf(w.cfg.Log, "%12.6f %s %d\n", float64(w.now)/1e9, what, args)
	}
}

// logf writes to the log only.
func (w *World) logf(format string, args ...any) {
	if w.cfg.Log != nil {
		fmt.Fprintf(w.cfg.Log, "%12.6f %s\n", float64(w.now)/1e9, fmt.Sprintf(format, args...))
	}
}

// step runs the next event, if it is due by end.
func (w *World) step(end int64) bool {
	if w.err != nil || len(w.queue) == 0 || w.queue[0].at > end {
		return false
	}
	e := heap.Pop(&w.queue).(event)
	w.now = e.at
	if w.stats.Events++; w.limit > 0 && w.stats.Events > w.limit {
		w.fail("the run has more events than it may have")
		return false
	}
	e.fn()
	w.oracle.always()
	w.nobodyServes()
	return true
}

// runFor runs for d.
func (w *World) runFor(d int64) {
	end := w.now + d
	for w.step(end) {
	}
	if w.err == nil {
		w.now = end
	}
}

// runUntil runs until ok, at most d, and reports whether ok came true.
func (w *World) runUntil(d int64, ok func() bool) bool {
	end := w.now + d
	next := w.now
	for w.err == nil {
		if w.now >= next {
			if ok() {
				return true
			}
			next = w.now + msec
		}
		if !w.step(end) {
			return w.err == nil && ok()
		}
	}
	return false
}

// Bounds of the phases of a run.
const (
	setupBound  = 20 * sec
	settleBound = 40 * sec
)

// Leases of NFSv4 clients. With the short one a client that is silent for a while, or cut off, finds its session gone.
const (
	longLease  = 4 * time.Second
	shortLease = time.Second
)

// drawLease settles how long leases are.
func (w *World) drawLease() {
	if w.cfg.Lease != 0 {
		return
	}
	w.cfg.Lease = longLease
	if w.cfg.Mutation == NoMutation && w.cfg.Faults == nil && w.stream("lease").chance(1.0/3) {
		w.cfg.Lease = shortLease
	}
}

// Run runs to the end and returns Err. A panic is a violation like any other, and can be run again.
func (w *World) Run() (err error) {
	defer func() {
		if p := recover(); p != nil {
			w.fail("panic: %v\n%s", p, debug.Stack())
		}
		err = w.Err()
	}()
	w.run()
	return nil
}

func (w *World) run() {
	for _, n := range w.nodes {
		w.after(n.rng.between(0, 50*msec), n.start)
	}
	setup := newSetup(w)
	if !w.runUntil(setupBound, setup.ready) {
		w.fail("the cluster was not ready within %v", time.Duration(setupBound))
		return
	}
	w.chaos, w.working = true, true
	w.startClients()
	w.began = w.now
	w.after(0, w.strike)
	if w.ruinAfter > 0 {
		w.after(w.ruinAfter, w.ruin)
	}
	w.runFor(int64(w.cfg.Duration))
	w.settle()
	w.stats.Entries = w.oracle.highest
}

// settle heals everything and expects service to come back, clients to finish and replicas to become equal.
func (w *World) settle() {
	if w.err != nil {
		return
	}
	if w.ruined != nil {
		w.settleRuined()
		return
	}
	w.note("settle")
	w.chaos = false
	w.heal()
	w.endure()
	if w.err != nil {
		return
	}
	w.working = false
	if !w.runUntil(settleBound, w.clientsIdle) {
		w.fail("%d calls were not answered within %v after the last fault: %s", w.waitingCalls(), time.Duration(settleBound), w.describe())
		return
	}
	if !w.runUntil(settleBound, w.sound) {
		w.fail("rotten copies were not found and replaced within %v: %s", time.Duration(settleBound), w.describe())
		return
	}
	w.readBack()
	if !w.runUntil(settleBound, w.clientsIdle) {
		w.fail("the last reads were not answered within %v: %s", time.Duration(settleBound), w.describe())
		return
	}
	if !w.runUntil(settleBound, w.converged) {
		w.fail("the replicas did not come together within %v: %s", time.Duration(settleBound), w.describe())
		return
	}
	w.oracle.final()
}
