package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"time"

	"holdfast/internal/gateway"
	"holdfast/internal/mount"
	"holdfast/internal/nfs3"
	"holdfast/internal/nfs4"
	"holdfast/internal/replica"
	"holdfast/internal/replica/transport"
	"holdfast/internal/vfs"
	"holdfast/internal/volume"
	"holdfast/internal/wal"
)

const (
	volumeID   = 7
	exportPath = "/data"
)

var quiet = slog.New(slog.DiscardHandler)

// node is a machine: what outlives the process on it.
type node struct {
	w     *World
	id    uint64
	rng   stream
	disks uint64 // that it had
	disk  *vfs.Sim
	store *simStore
	up    *life // the running process, nil while there is none
	// starting: a start is due.
	lives       int
	pausedUntil int64
	// The clock: offset + rate × true time. wallStep is how far the wall clock is off.
	rate     float64
	offset   int64
	wallStep int64
	// faulty: storage was told to fail, or was damaged, since the last start. armed counts the faults that may still strike. A process may end
	// because of them.
	faulty bool
	armed  int
	// damaged: bits were flipped; if the node refuses to start its disk is replaced.
	damaged bool
	// empty: it came back without its files, under its number, and is to be replaced unless it gets them again.
	empty bool
	// rotten: bits of the store flipped, or came with a snapshot from where they had; a check has not yet said otherwise.
	rotten   bool
	rottenAt int64 // when that began, or happened again
	// marked: a process on it has met damage of its copy, and no check has read all of it since.
	marked bool
	// incarnation is what the node remembers of that. outdated: its disk is one that it has gone on without; newer is the one that it went on with.
	incarnation uint64
	outdated    bool
	newer       disk
	// lost: the disk was replaced and what was on it is not yet back.
	lost bool
	// release is the newest cluster version that the program on it knows, reported what it said of that when it started last.
	release, reported uint32
	// fresh: it has never had the group, and knows it. retired: it is no member any more.
	fresh, retired bool
	// slowDisk makes each write take longer by up to so much.
	slowDisk int64
}

func newNode(w *World, id uint64) *node {
	n := &node{w: w, id: id, rng: w.stream("node", id)}
	n.offset = n.rng.Int64N(1e15)
	// Two clocks may differ by the drift allowed, 1/16; each stays within half of it.
	n.rate = 1 + w.faults.Drift*(2*n.rng.Float64()-1)/32
	n.release = w.newestRelease()
	n.newDisk()
	return n
}

// newDisk puts an empty disk in.
func (n *node) newDisk() {
	n.disks++
	n.disk = vfs.NewSim(n.w.stream("disk", n.id, n.disks).Uint64())
	n.disk.SetTornSectors(false)
	n.fresh = n.disks > 1 && n.w.cfg.Mutation == BeginAnew
	n.store = newStore(n.w, n.rng)
	n.outdated, n.newer = false, disk{}
}

// clock is the node's monotonic clock.
func (n *node) clock() int64 { return n.offset + int64(float64(n.w.now)*n.rate) }

// wall is the node's wall clock.
func (n *node) wall() int64 { return 1_750_000_000*sec + n.w.now + n.wallStep }

// input gives something from outside to the running process, now or when its pause is over.
func (n *node) input(fn func(l *life)) {
	l := n.up
	if l == nil {
		return
	}
	l.after(0, func() { fn(l) })
}

// life is a process: one run of the server on a node.
type life struct {
	n        *node
	w        *World
	started  int64
	manual   *replica.Manual
	log      *wal.Log
	volume   *volume.Volume
	gate     *gateway.Gateway
	rng      stream
	late     stream // of events that are heard of late
	ended    bool
	failed   error // fatal; the process is about to end
	serve    service
	appends  []replica.AppendWork
	applies  []replica.ApplyWork
	writing  []replica.AppendWork // handed to the disk
	applying bool
	events   []replica.Event
	handling bool
	open     bool     // proposals are taken
	stale    bool     // it serves on until it hears of another leader (mutation)
	pending  [][]byte // proposals that raft has no room for yet
	waiters  []func() bool
	stops    []func()  // what to break off when the process ends
	rot      bool      // it has answered, or may have, from a store that rots
	digest   *digested // of the last mark that it applied
	change   *replica.MemberChange
	changeTo []uint64
}

func (n *node) dir() string { return "/volume" }

// start starts the server, if it does not run.
func (n *node) start() {
	if n.up != nil || n.w.err != nil || n.retired {
		return
	}
	n.lives++
	n.w.note("start", n.id)
	n.store.restart()
	l := &life{n: n, w: n.w, started: n.w.now, rng: n.w.stream("life", n.id, uint64(n.lives)), late: n.w.stream("late", n.id, uint64(n.lives)), rot: n.rotten}
	n.up = l
	if err := l.begin(); err != nil {
		n.w.logf("node %d cannot start: %v", n.id, err)
		n.stop()
		n.refused(err)
		return
	}
	n.started()
	if !n.bad() && n.armed == 0 {
		n.faulty = false
	}
	n.reported = n.release
	l.turn(func(*replica.Core, int64) {})
	l.tick()
	l.after(l.rng.between(300*msec, 900*msec), l.checkpoint)
	l.after(500*msec, l.serviceTick)
}

// refused handles that the server did not start. That is right if its disk is damaged; then somebody puts in another.
func (n *node) refused(err error) {
	w := n.w
	if !n.faulty {
		w.fail("node %d does not start although its disk is whole: %v", n.id, err)
		return
	}
	w.note("refused", n.id)
	switch {
	case n.refusedOld(err):
	case n.bad() && w.hopeless():
		w.void()
		return
	case n.bad() && w.cfg.Kind != Fixed && w.mayGo(n):
		w.replace(n)
		return
	case n.bad() && w.cfg.Kind == Fixed && w.mayLoseDisk(n):
		n.replaceDisk()
	case n.bad():
		// Another node is being rebuilt; this one has to wait.
		w.after(200*msec, n.start)
		return
	}
	w.after(n.rng.between(50*msec, 400*msec), n.start)
}

// begin opens everything, as package node does.
func (l *life) begin() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	n := l.n
	if n.w.cfg.Mutation == ForgetReply && n.lives > 1 {
		n.store.forgetReplies()
	}
	fsys := simFS{n.disk, n.w}
	if l.log, err = l.openLog(fsys); err != nil {
		return err
	}
	if n.witness() {
		return l.join(fsys, nil)
	}
	p4 := n.w.nfs4Server()
	programs := programs(p4)
	if err := n.w.format(n.store); err != nil {
		return err
	}
	l.volume, err = volume.Open(volume.Config{ID: volumeID, Name: "sim", Store: n.store, Programs: programs, Damaged: l.metDamage})
	if err != nil {
		return err
	}
	l.volume.NoteAhead(l.log.LastIndex())
	if err := l.join(fsys, machine{l.volume}); err != nil {
		return err
	}
	if n.marked {
		l.after(0, l.stepAside)
	}
	rules := []volume.Rule{{Export: volume.ExportID(exportPath), Squash: volume.SquashNone, AnonUID: 65534, AnonGID: 65534}}
	l.gate = gateway.New(gateway.Config{
		Volume: l.volume, Raft: raft{l}, NFS4: p4, Programs: programs, Clock: processClock{l}, Node: n.id,
		Rules: func(netip.Addr) []volume.Rule { return rules },
		Full:  func() bool { return false },
	})
	return nil
}

func (w *World) nfs4Server() *nfs4.Program {
	return nfs4.New(nfs4.Config{Volume: volumeID, Name: "sim", Lease: w.cfg.Lease})
}

func programs(p4 *nfs4.Program) []volume.Program {
	return []volume.Program{p4, nfs3.New(volumeID), mount.New(volumeID)}
}

// join makes the replica.
func (l *life) join(fsys simFS, sm replica.StateMachine) (err error) {
	n := l.n
	retain := n.w.faults.RetainBytes
	if n.witness() {
		retain = 4 << 10
	}
	l.manual, err = replica.NewManual(n.clock(), replica.Config{
		ID: n.id, Peers: n.w.first, Fresh: n.fresh, Incarnations: incarnations{n}, Log: l.log, Meta: replica.MetaFile{FS: fsys, Name: n.dir() + "/replica.json"}, StateMachine: sm,
		Transport: noTransport{}, Clock: processClock{l}, Applied: l.applied, Fatal: l.fatal, Logger: quiet,
		CheckpointBytes: 64 << 10, RetainBytes: retain, RetainMaxBytes: 2 * retain, MaxEntryBytes: 30 << 10,
		MessageBytes: 16 << 10, InflightBytes: 128 << 10, ApplyBytes: 64 << 10,
	}, l.rng.Uint64())
	if err != nil {
		return err
	}
	n.fresh = false // package node notes that durably before the replica works
	if n.w.cfg.Mutation == WitnessAhead {
		l.manual.LetWitnessesRunAhead()
	}
	return nil
}

// applied is the index up to which the process has applied the log.
func (l *life) appliedIndex() uint64 {
	if l.volume == nil {
		return l.manual.Core.Status(l.n.clock()).Applied
	}
	return l.volume.Applied()
}

func (l *life) openLog(fsys simFS) (*wal.Log, error) {
	opt := wal.Options{
		SegmentBytes: 32 << 10, CacheBytes: 32 << 10, Spares: 3, SyncPrepare: true, Rand: l.rng.Uint64,
		Now: func() time.Time { return time.Unix(0, l.n.clock()) },
	}
	log, err := wal.Open(fsys, l.n.dir()+"/log", opt)
	for tries := 0; err != nil && tries < 20 && l.n.cutLog(err); tries++ {
		log, err = wal.Open(fsys, l.n.dir()+"/log", opt)
	}
	return log, err
}

// after schedules fn in the process: not while it is paused, and not if it has ended.
func (l *life) after(d int64, fn func()) {
	l.w.after(d, func() { l.run(fn) })
}

func (l *life) run(fn func()) {
	if l.ended {
		return
	}
	if wait := l.n.pausedUntil - l.w.now; wait > 0 {
		// What waits for a process that stood still is looked at in no certain order.
		l.after(wait+l.rng.Int64N(2*msec), fn)
		return
	}
	fn()
}

// turn is a turn of replica's run loop. A panic is the end of the process.
func (l *life) turn(fn func(core *replica.Core, now int64)) {
	if l.ended || l.failed != nil {
		return
	}
	defer l.catch()
	fn(l.manual.Core, l.n.clock())
	l.propose()
	l.dispatch()
}

// catch turns a panic into the end of the process, as the run loop's does.
func (l *life) catch() {
	if p := recover(); p != nil {
		l.fatal(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
	}
}

// fatal ends the process: storage failed, or an invariant is broken.
func (l *life) fatal(err error) {
	if l.failed != nil || l.ended {
		return
	}
	l.failed = err
	n := l.n
	l.w.logf("node %d: fatal: %v", n.id, err)
	l.w.note("fatal", n.id)
	if !n.faulty {
		l.w.fail("node %d gives up although its storage works: %v", n.id, err)
		return
	}
	l.w.after(0, func() {
		if !l.ended {
			n.stop()
			if errors.Is(err, errMetaRot) {
				n.refused(err)
				return
			}
			l.w.after(l.rng.between(20*msec, 500*msec), n.start)
		}
	})
}

// propose hands proposals to raft as far as it has room.
func (l *life) propose() {
	if len(l.pending) == 0 {
		return
	}
	taken, _ := l.manual.Core.Propose(l.n.clock(), l.pending)
	l.pending = l.pending[taken:]
}

// dispatch does what Replica.dispatch does.
func (l *life) dispatch() {
	out := l.manual.Core.Take()
	for _, e := range out.Events {
		switch e.Kind {
		case replica.LeaderReady:
			l.open = true
			l.w.oracle.leads(l.n.id, e.Term)
		case replica.LeaderLost:
			l.open, l.pending = false, nil
			l.stale = l.w.cfg.Mutation == ServeAfterLease && l.w.chaos
		}
		l.w.note("event", l.n.id, uint64(e.Kind), e.Term, e.Leader)
	}
	l.events = append(l.events, out.Events...)
	l.handleEvents()
	l.appends = append(l.appends, out.Appends...)
	l.applies = append(l.applies, out.Applies...)
	for _, m := range out.Messages {
		l.w.net.send(m)
	}
	for _, w := range out.Snapshots {
		l.sendSnapshot(w)
	}
	l.writeNext()
	l.applyNext()
	waiting := l.waiters
	l.waiters = nil
	for _, done := range waiting {
		if !done() {
			l.waiters = append(l.waiters, done)
		}
	}
}

// tick ticks for ever.
func (l *life) tick() {
	d := int64(float64(20*msec) / l.n.rate)
	l.after(d+l.rng.Int64N(msec), func() {
		l.turn(func(core *replica.Core, now int64) { core.Tick(now) })
		l.changeMembers()
		l.tick()
	})
}

// stop ends the process, without a power cut.
func (n *node) stop() {
	l := n.up
	if l == nil {
		return
	}
	l.ended = true
	n.up = nil
	for _, stop := range l.stops {
		stop()
	}
	l.serve.processEnded()
	// The host keeps what objects were written; the metadata that was not flushed was in the process.
	_ = n.store.Mem.SyncObjects(context.Background())
	n.store.Crash(n.rng.Rand)
	n.tellPeers()
}

// tellPeers lets some of the others notice that the process is gone by its closed connections.
func (n *node) tellPeers() {
	for _, o := range n.w.nodes {
		if o != n && n.rng.chance(0.6) {
			n.w.after(n.rng.Int64N(20*msec), func() {
				if n.up != nil || n.w.net.blocked(station(n.id), station(o.id)) {
					return
				}
				o.input(func(l *life) {
					if n.up == nil {
						l.turn(func(core *replica.Core, now int64) { core.PeerGone(now, n.id) })
					}
				})
			})
		}
	}
}

// crash cuts the power: some of what was under way is done, in part.
func (n *node) crash() {
	l := n.up
	if l != nil {
		l.ended = true
		n.up = nil
		for _, stop := range l.stops {
			stop()
		}
		l.serve.processEnded()
		n.interrupt(l)
	}
	n.w.note("crash", n.id)
	n.disk.Crash()
	n.store.Crash(n.rng.Rand)
	n.pausedUntil = 0
	if l != nil {
		n.tellPeers()
	}
}

// interrupt does in part what the process has under way when the power goes.
func (n *node) interrupt(l *life) {
	defer func() {
		if p := recover(); p != nil {
			n.w.fail("node %d panics when the power goes: %v\n%s", n.id, p, debug.Stack())
		}
	}()
	if l.manual == nil || l.failed != nil {
		return
	}
	l.failed = errors.New("power cut")
	if len(l.writing) > 0 && n.rng.chance(0.7) {
		n.disk.StopAfter(1 + n.rng.IntN(4))
		_ = l.manual.Append(l.writing)
	} else if n.rng.chance(0.3) && !l.installing() {
		n.store.stopAfter(1 + n.rng.IntN(6))
		n.disk.StopAfter(1 + n.rng.IntN(8))
		_ = l.manual.Checkpoint(context.Background(), n.clock())
	}
}

// bad reports whether something of what the node stored may be lost.
func (n *node) bad() bool { return n.damaged || n.rotten || n.empty || n.outdated }

// replaceDisk puts in an empty disk.
func (n *node) replaceDisk() {
	n.stop()
	n.w.note("replace", n.id)
	n.w.stats.Faults[faultReplace]++
	n.keepOld()
	n.newDisk()
	n.damaged, n.rotten, n.marked, n.lost, n.faulty = false, false, false, true, false
}

// whole reports whether the node has everything that it had before its disk was replaced.
func (n *node) whole() bool {
	if !n.lost || n.w.cfg.Kind != Fixed {
		return true
	}
	if n.up == nil || n.up.manual == nil || !n.hasAll() {
		return false
	}
	n.lost = false
	return true
}

// hasAll reports whether a running member has everything that it had before its disk was lost.
func (n *node) hasAll() bool {
	st := n.up.manual.Core.Status(n.clock())
	return st.Role != replica.RoleBlank && !st.NeedsSnapshot && !st.Recovering
}

// machine is the volume as the raft group takes it.
type machine struct{ *volume.Volume }

func (m machine) Snapshot(since uint64) (replica.Snapshot, error) {
	return nil, errors.New("sim: snapshots are taken by the simulation")
}

// noTransport is for replica.Config; Manual does not use it.
type noTransport struct{}

func (noTransport) Send([]replica.Message) {}
func (noTransport) OpenSnapshot(context.Context, uint64) (transport.Stream, error) {
	return nil, errors.New("sim: no transport")
}

// processClock is a gateway.Clock and a replica.Clock.
type processClock struct{ l *life }

func (c processClock) WallNS() int64      { return c.l.n.wall() }
func (c processClock) MonotonicNS() int64 { return c.l.n.clock() }
func (c processClock) Random() uint64     { return c.l.rng.Uint64() }

// raft is the gateway's view of the raft group.
type raft struct{ l *life }

func (r raft) ServingTerm() uint64 {
	l := r.l
	switch {
	case l.ended || l.failed != nil:
	case l.w.cfg.Mutation == ServeAfterLease && l.w.chaos:
		if l.open || l.stale {
			return l.serve.term
		}
	case l.manual.Core.Serving(l.n.clock()):
		return l.manual.Core.Term()
	}
	return 0
}

func (r raft) Propose(entry []byte) error {
	l := r.l
	if !l.open || l.ended || l.failed != nil {
		return replica.ErrNotLeader
	}
	l.pending = append(l.pending, entry)
	l.after(0, func() { l.turn(func(*replica.Core, int64) {}) })
	return nil
}
