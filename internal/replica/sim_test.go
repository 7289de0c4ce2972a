package replica

import (
	"bytes"
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"holdfast/internal/wal"
)

// sim is a whole group in one goroutine: Cores with toy state machines, a network that delays, loses and repeats, disks that take their time,
// clocks that drift, nodes that crash and lose their disks; all from one seed. It checks at every step that
//
//   - no two nodes may serve at the same moment,
//   - whoever may serve has applied everything that was ever acknowledged,
//   - all nodes apply the same entries, and nothing acknowledged is ever missing.
type sim struct {
	t     *testing.T
	rng   *rand.Rand
	now   int64 // real time
	queue eventQueue
	seq   int
	nodes []*simNode
	trace uint64 // digest of everything that happened

	timing Timing
	// truth is the content of the log as applied somewhere: hash after each index.
	truth map[uint64]uint64
	acked uint64 // highest index whose proposer was told
	count uint64 // proposals

	drop, dup float64
	slow      float64            // of messages that take very long
	cut       map[[2]uint64]bool // from, to
	ready     map[uint64]uint64  // term of LeaderReady -> node
	stats     struct{ readies, transfers, snapshots, wipes, crashes, applied int }
	chaos     bool
	wiped     uint64 // node that lost its disk and has not recovered
	lastReady int64
	byID      map[uint64]*simNode
	first     []uint64 // members of the first configuration
	// changing: the membership changes at random; want is what it is to be, nil if it is; members what it was then.
	changing      bool
	want, members []uint64
	changes       int
	ahead         bool // witnesses run ahead, on purpose
}

type simNode struct {
	s        *sim
	id       uint64
	core     *Core // nil while down
	life     int   // counts starts
	log      *memLog
	meta     *memMeta
	sm       *toySM
	witness  *WitnessStateMachine // instead of sm; it is a new one in each life
	rate     float64              // of its clock
	offset   int64
	appends  []AppendWork
	applies  []ApplyWork
	writing  bool
	applying bool
	commit   raftpb.HardState
	proposed map[uint64]bool // numbers proposed in this life
	onInstal func()
	fresh    bool  // never had the group
	lost     bool  // for good
	outs     int   // OutOfSync events
	paused   int64 // until when it stands still
	change   *MemberChange
	slow     int64 // how long it takes to apply, at least
	unread   bool  // its state cannot be read, so there are no snapshots of it
}

type simEvent struct {
	at  int64
	seq int
	fn  func()
}

type eventQueue []simEvent

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(simEvent)) }
func (q *eventQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

const simMS = int64(time.Millisecond)

func newSim(t *testing.T, seed uint64, n int) *sim {
	s := &sim{t: t, rng: rand.New(rand.NewPCG(seed, 7)), timing: DefaultTiming(), truth: map[uint64]uint64{0: 0}, cut: map[[2]uint64]bool{}, ready: map[uint64]uint64{}, byID: map[uint64]*simNode{}}
	for i := 1; i <= n; i++ {
		s.add(uint64(i)).fresh = true
		s.first = append(s.first, uint64(i))
	}
	return s.begin()
}

// begin starts the nodes that there are.
func (s *sim) begin() *sim {
	s.members = s.first
	for _, node := range s.nodes {
		s.after(s.rng.Int64N(50*simMS), node.start)
	}
	return s
}

// add makes a node, which is not started.
func (s *sim) add(id uint64) *simNode {
	node := &simNode{s: s, id: id, log: &memLog{}, meta: &memMeta{}, sm: newToySM(), offset: s.rng.Int64N(1e15)}
	// The drift allowed is 10 ms in 160 ms: two clocks may differ by 6 %.
	node.rate = 1 + 0.03*(2*s.rng.Float64()-1)
	s.nodes = append(s.nodes, node)
	s.byID[id] = node
	return node
}

func (s *sim) after(d int64, fn func()) {
	s.seq++
	heap.Push(&s.queue, simEvent{s.now + d, s.seq, fn})
}

func (s *sim) note(parts ...uint64) {
	h := fnv.New64a()
	for _, p := range append(parts, s.trace, uint64(s.now)) {
		h.Write(binary.BigEndian.AppendUint64(nil, p))
	}
	s.trace = h.Sum64()
}

// run runs for d of real time.
func (s *sim) run(d time.Duration) {
	end := s.now + int64(d)
	for len(s.queue) > 0 && s.queue[0].at <= end && !s.t.Failed() {
		e := heap.Pop(&s.queue).(simEvent)
		s.now = e.at
		e.fn()
		s.check()
	}
	s.now = end
}

// until runs until ok, at most d.
func (s *sim) until(d time.Duration, ok func() bool) bool {
	for end := s.now + int64(d); s.now < end; {
		if ok() {
			return true
		}
		s.run(time.Millisecond)
	}
	return ok()
}

// check looks at what must always be true.
func (s *sim) check() {
	var serving *simNode
	for _, n := range s.nodes {
		if n.core == nil || !n.core.Serving(n.clock()) {
			continue
		}
		if serving != nil {
			s.t.Fatalf("%v: nodes %d (term %d) and %d (term %d) both serve", time.Duration(s.now), serving.id, serving.core.state.term, n.id, n.core.state.term)
		}
		serving = n
		if a := n.sm.Applied(); a < s.acked {
			s.t.Fatalf("%v: node %d serves at %d, but %d was acknowledged", time.Duration(s.now), n.id, a, s.acked)
		}
	}
}

func (s *sim) leader() *simNode {
	for _, n := range s.nodes {
		if n.core != nil && n.core.Serving(n.clock()) {
			return n
		}
	}
	return nil
}

func (n *simNode) clock() int64 { return n.offset + int64(float64(n.s.now)*n.rate) }

func (n *simNode) start() {
	if n.core != nil || n.lost {
		return
	}
	s := n.s
	n.life++
	if IsWitness(n.id) {
		n.witness = NewWitnessStateMachine(n.log)
	}
	cfg, err := load(Config{ID: n.id, Peers: s.first, Fresh: n.fresh, Timing: s.timing, Log: n.log, Meta: n.meta, StateMachine: n.machine(), Logger: quiet, MessageBytes: 512, InflightBytes: 4096, ApplyBytes: 1024})
	if err != nil {
		s.t.Fatalf("node %d: %v", n.id, err)
	}
	cfg.Seed = s.rng.Uint64()
	if n.core, err = NewCore(n.clock(), cfg); err != nil {
		s.t.Fatalf("node %d: %v", n.id, err)
	}
	n.core.ahead = s.ahead
	n.appends, n.applies, n.writing, n.applying, n.commit, n.onInstal = nil, nil, false, false, raftpb.HardState{}, nil
	n.proposed, n.change, n.fresh = map[uint64]bool{}, nil, false
	s.note(1, n.id)
	n.flush()
	n.tick(n.life)
}

// machine is the node's state machine.
func (n *simNode) machine() StateMachine {
	if n.witness != nil {
		return n.witness
	}
	return n.sm
}

// guarded runs fn later if the node still lives the same life.
func (n *simNode) guarded(d int64, fn func()) {
	life := n.life
	n.s.after(d, func() {
		switch {
		case n.core == nil || n.life != life:
		case n.s.now < n.paused:
			n.guarded(n.paused-n.s.now+n.s.rng.Int64N(2*simMS), fn)
		default:
			fn()
		}
	})
}

func (n *simNode) tick(int) {
	d := int64(float64(n.s.timing.Tick) / n.rate)
	if n.s.chaos && n.s.rng.IntN(500) == 0 {
		d += n.s.rng.Int64N(400 * simMS) // the process stands still; so do its other inputs, roughly
	}
	n.guarded(d, func() {
		n.core.Tick(n.clock())
		n.flush()
		n.changeMembers()
		n.tick(0)
	})
}

// crash loses what is not durable: some of the works under way are done, some not.
func (n *simNode) crash() {
	s := n.s
	if n.core == nil {
		return
	}
	s.stats.crashes++
	s.note(2, n.id)
	n.core = nil
	n.life++
	for i := range n.appends {
		if s.rng.IntN(2) == 0 {
			break
		}
		n.write(&n.appends[i])
	}
	n.appends = nil
	if n.witness == nil && n.sm.state.applied > n.sm.durable.applied && s.rng.IntN(2) == 0 {
		n.sm.state = n.sm.durable.clone()
	}
	for _, o := range s.nodes {
		if o != n && o.core != nil && s.rng.IntN(2) == 0 {
			o := o
			o.guarded(s.rng.Int64N(20*simMS), func() {
				if n.core == nil {
					o.core.PeerGone(o.clock(), n.id)
					o.flush()
				}
			})
		}
	}
}

// wipe loses the disk.
func (n *simNode) wipe() {
	n.crash()
	n.s.note(3, n.id)
	n.s.stats.wipes++
	n.log, n.meta, n.sm = &memLog{}, &memMeta{}, newToySM()
}

func (n *simNode) write(w *AppendWork) {
	fail := func(err error) {
		if err != nil {
			n.s.t.Fatalf("node %d: %v", n.id, err)
		}
	}
	if w.Meta != nil {
		fail(n.meta.Save(w.Meta))
	}
	if w.Snapshot != nil {
		fail(n.log.Reset(w.Snapshot.Index, w.Snapshot.Term))
		m, _ := n.meta.Load()
		m.Conf, m.ConfIndex, m.Installing = w.Snapshot.Conf, w.Snapshot.ConfIndex, nil
		fail(n.meta.Save(m))
	}
	if w.HardState != (raftpb.HardState{}) {
		n.commit = w.HardState
	}
	if w.Sync {
		fail(n.log.Append(wal.Batch{Entries: w.Entries, HardState: n.commit}))
		n.commit = raftpb.HardState{}
	} else if len(w.Entries) > 0 {
		n.s.t.Fatalf("entries without a sync")
	}
}

// flush does what the core wants.
func (n *simNode) flush() {
	s := n.s
	for _, e := range n.core.out.Events {
		if e.Kind == OutOfSync {
			n.outs++
		}
		if e.Kind == LeaderReady {
			if other, ok := s.ready[e.Term]; ok && other != n.id {
				s.t.Fatalf("nodes %d and %d both lead term %d", other, n.id, e.Term)
			}
			s.ready[e.Term] = n.id
			s.stats.readies++
			s.lastReady = s.now
		}
	}
	out := n.core.Take()
	for _, m := range out.Messages {
		s.send(m)
	}
	n.appends = append(n.appends, out.Appends...)
	n.applies = append(n.applies, out.Applies...)
	for _, w := range out.Snapshots {
		n.sendSnapshot(w)
	}
	n.pump()
	if n.onInstal != nil && n.core.Installable() {
		f := n.onInstal
		n.onInstal = nil
		f()
	}
}

// pump keeps the two workers busy.
func (n *simNode) pump() {
	s := n.s
	if !n.writing && len(n.appends) > 0 {
		n.writing = true
		batch := 1 + s.rng.IntN(len(n.appends))
		d := 50000 + s.rng.Int64N(2*simMS)
		if s.rng.IntN(200) == 0 {
			d += s.rng.Int64N(100 * simMS)
		}
		n.guarded(d, func() {
			works := slices.Clone(n.appends[:batch])
			n.appends = n.appends[batch:]
			n.writing = false
			for i := range works {
				n.write(&works[i])
			}
			for i := range works {
				n.core.AppendDone(n.clock(), &works[i])
			}
			n.flush()
		})
	}
	if !n.applying && len(n.applies) > 0 {
		n.applying = true
		n.guarded(n.slow+s.rng.Int64N(simMS), func() {
			w := n.applies[0]
			n.applies = n.applies[1:]
			n.applying = false
			n.apply(w.Entries)
			n.core.ApplyDone(n.clock(), &w)
			n.flush()
		})
	}
}

func (n *simNode) apply(entries []raftpb.Entry) {
	s := n.s
	have := n.machine().Applied()
	for _, e := range entries {
		if e.Index <= have {
			continue
		}
		var err error
		if e.Type == raftpb.EntryNormal {
			_, err = n.machine().Apply(e.Index, e.Data)
		} else {
			err = n.machine().AdvanceTo(e.Index)
		}
		if err != nil {
			s.t.Fatalf("node %d: %v", n.id, err)
		}
		if n.witness != nil {
			if e.Type == raftpb.EntryNormal && len(e.Data) > 0 {
				s.t.Fatalf("witness %d was sent what entry %d holds", n.id, e.Index)
			}
			continue
		}
		_, hash := n.sm.hash()
		if want, ok := s.truth[e.Index]; ok && want != hash {
			s.t.Fatalf("%v: node %d applied another entry at %d", time.Duration(s.now), n.id, e.Index)
		}
		s.truth[e.Index] = hash
		s.stats.applied++
		if len(e.Data) >= 8 && n.proposed[binary.BigEndian.Uint64(e.Data)] {
			// The client gets its reply now.
			s.acked = max(s.acked, e.Index)
		}
	}
}

func (s *sim) send(m Message) {
	s.note(4, m.From, m.To, uint64(m.Type), m.Index)
	if s.cut[[2]uint64{m.From, m.To}] || s.rng.Float64() < s.drop {
		return
	}
	copies := 1
	if s.rng.Float64() < s.dup {
		copies = 2
	}
	for range copies {
		d := 100000 + s.rng.Int64N(2*simMS)
		if s.rng.Float64() < s.slow {
			d += s.rng.Int64N(500 * simMS)
		}
		s.after(d, func() {
			to := s.byID[m.To]
			if to.core == nil {
				return
			}
			c := m
			c.Context = slices.Clone(m.Context)
			c.Entries = slices.Clone(m.Entries)
			take := func() {
				to.core.Step(to.clock(), c)
				to.flush()
			}
			if s.now < to.paused {
				to.guarded(0, take)
				return
			}
			take()
		})
	}
}

func (n *simNode) sendSnapshot(w SnapshotWork) {
	s := n.s
	s.stats.snapshots++
	life := n.life
	done := func(ok bool) {
		if n.core != nil && n.life == life {
			n.core.SnapshotDone(n.clock(), w.To, ok)
			n.flush()
		}
	}
	s.after(s.rng.Int64N(5*simMS), func() {
		to := s.byID[w.To]
		if to.core == nil || n.unread || s.cut[[2]uint64{n.id, w.To}] || to.core.BeginInstall(to.clock(), n.id, w.Term, w.Index) != nil {
			done(false)
			return
		}
		toLife := to.life
		to.onInstal = func() {
			if n.core == nil || n.life != life {
				to.core.EndInstall(to.clock(), n.id, nil, to.machine().Applied(), false)
				to.flush()
				return
			}
			snap, _ := n.machine().Snapshot(to.machine().Applied())
			if to.witness != nil {
				snap = SnapshotForWitness(w.Index)
			}
			s.awaitMeta(n, life, snap, func(meta SnapshotMeta, ok bool) { s.install(n, to, toLife, snap, meta, ok, done) })
		}
		to.flush()
	})
}

// awaitMeta waits until the sender's core knows that the snapshot's index is applied.
func (s *sim) awaitMeta(n *simNode, life int, snap Snapshot, then func(SnapshotMeta, bool)) {
	if n.core == nil || n.life != life {
		then(SnapshotMeta{}, false)
		return
	}
	meta, err := n.core.SnapshotMeta(snap.Index())
	if err == nil {
		then(meta, true)
		return
	}
	if snap.Index() <= n.core.applied {
		then(SnapshotMeta{}, false)
		return
	}
	s.after(simMS, func() { s.awaitMeta(n, life, snap, then) })
}

func (s *sim) install(n, to *simNode, toLife int, snap Snapshot, meta SnapshotMeta, ok bool, done func(bool)) {
	if to.core == nil || to.life != toLife {
		done(false)
		return
	}
	if ok && meta.Index > to.machine().Applied() && meta.Conf.has(to.id) {
		m, _ := to.meta.Load()
		m.Installing = &meta
		_ = to.meta.Save(m)
		// From here on the state is invalid until the installation is complete.
		if to.witness == nil {
			to.sm.state, to.sm.durable = newToySM().state, newToySM().state
		}
	} else {
		ok = false
	}
	s.after(s.rng.Int64N(300*simMS), func() {
		if to.core == nil || to.life != toLife {
			done(false)
			return
		}
		if ok && s.rng.IntN(5) > 0 {
			var b bytes.Buffer
			_, _ = snap.WriteTo(&b)
			if err := to.machine().Install(&b); err != nil {
				s.t.Fatal(err)
			}
			to.core.EndInstall(to.clock(), n.id, &meta, to.machine().Applied(), false)
			to.flush()
			done(true)
			return
		}
		to.core.EndInstall(to.clock(), n.id, nil, to.machine().Applied(), false)
		to.flush()
		done(false)
	})
}

// propose proposes something on whoever serves.
func (s *sim) propose() {
	n := s.leader()
	if n == nil {
		return
	}
	var batch [][]byte
	for range 1 + s.rng.IntN(4) {
		s.count++
		batch = append(batch, append(binary.BigEndian.AppendUint64(nil, s.count), make([]byte, s.rng.IntN(300))...))
	}
	taken, err := n.core.Propose(n.clock(), batch)
	if err != nil && !errors.Is(err, ErrTransferring) && !errors.Is(err, ErrNotLeader) {
		s.t.Fatal(err)
	}
	for _, d := range batch[:taken] {
		n.proposed[binary.BigEndian.Uint64(d)] = true
	}
	n.flush()
}

func (n *simNode) checkpoint() {
	s := n.s
	if n.core == nil || n.core.rn == nil || n.core.install.active || n.machine().Applied() == 0 {
		return
	}
	index, _ := n.machine().Checkpoint(context.Background())
	laggards := uint64(0)
	if index > 40 {
		laggards = index - 40
	}
	upTo := min(index, n.core.KeepFrom(index, laggards)-1)
	if upTo < n.log.FirstIndex() {
		return
	}
	meta := n.core.meta()
	m, _ := n.meta.Load()
	if meta.ConfIndex > m.ConfIndex {
		m.Conf, m.ConfIndex = meta.Conf, meta.ConfIndex
		_ = n.meta.Save(m)
	}
	if err := n.log.TruncatePrefix(upTo); err != nil {
		s.t.Fatal(err)
	}
}

// misfortune makes something happen, again and again.
func (s *sim) misfortune() {
	if !s.chaos {
		return
	}
	n := s.nodes[s.rng.IntN(len(s.nodes))]
	if s.wiped != 0 {
		w := s.byID[s.wiped]
		if w.core != nil && w.core.rn != nil && w.core.recover == 0 && !w.core.install.needed {
			s.wiped = 0
		}
	}
	switch s.rng.IntN(14) {
	case 0, 1:
		n.crash()
		s.after(s.rng.Int64N(1500*simMS), n.start)
	case 2:
		for _, o := range s.nodes {
			s.cut[[2]uint64{n.id, o.id}] = s.rng.IntN(3) > 0
			s.cut[[2]uint64{o.id, n.id}] = s.rng.IntN(3) > 0
		}
	case 3, 4, 5:
		clear(s.cut)
	case 6, 7:
		if l := s.leader(); l != nil {
			to := uint64(0)
			if k := s.rng.IntN(len(s.nodes) + 1); k > 0 {
				to = s.nodes[k-1].id
			}
			if _, err := l.core.TransferLeader(l.clock(), to); err == nil {
				s.stats.transfers++
				if s.rng.IntN(2) == 0 {
					s.after(s.rng.Int64N(60*simMS), func() { s.isolate(l) }) // the worst moment
				}
			}
			l.flush()
		}
	case 8, 9:
		n.checkpoint()
	case 10:
		s.drop, s.dup, s.slow = 0.1*s.rng.Float64(), 0.05*s.rng.Float64(), 0.02*s.rng.Float64()
	case 12, 13:
		// Two do not hear each other, but the others hear both.
		clear(s.cut)
		if l := s.leader(); l != nil && l != n {
			s.cut[[2]uint64{n.id, l.id}] = true
			s.cut[[2]uint64{l.id, n.id}] = true
		}
	case 11:
		if s.changing {
			s.newMembers()
		} else if len(s.byID) == len(s.first) && (len(s.first) == 0 || !IsWitness(s.first[len(s.first)-1])) && len(s.nodes) > 1 && s.wiped == 0 && s.now > 3000*simMS && n.core != nil && n.core.rn != nil {
			s.wiped = n.id
			n.wipe()
			s.after(s.rng.Int64N(500*simMS), n.start)
		}
	}
	s.after(s.rng.Int64N(300*simMS), s.misfortune)
}

func (s *sim) isolate(n *simNode) {
	if !s.chaos {
		return
	}
	for _, o := range s.nodes {
		s.cut[[2]uint64{n.id, o.id}] = true
		s.cut[[2]uint64{o.id, n.id}] = true
	}
}

func (s *sim) load() {
	if !s.chaos {
		return
	}
	s.propose()
	pause := s.rng.Int64N(20 * simMS)
	if s.rng.IntN(50) == 0 {
		pause += s.rng.Int64N(1500 * simMS) // long enough for one who was cut off to be up to date
	}
	s.after(pause, s.load)
}

// settle heals everything and expects the group to come together.
func (s *sim) settle() {
	s.chaos = false
	s.drop, s.dup, s.slow = 0, 0, 0
	clear(s.cut)
	for _, n := range s.nodes {
		n.start()
	}
	agreed := func() bool {
		l := s.leader()
		if l == nil || s.want != nil {
			return false
		}
		want, _ := l.sm.hash()
		for _, n := range s.nodes {
			if !slices.Contains(s.members, n.id) {
				continue
			}
			if n.witness != nil {
				if n.witness.Applied() != want {
					return false
				}
				continue
			}
			if got, _ := n.sm.hash(); got != want || n.core.last != l.core.last || n.core.recover != 0 {
				return false
			}
		}
		return want >= s.acked
	}
	if !s.until(20*time.Second, agreed) && !s.t.Failed() {
		for _, n := range s.nodes {
			if n.core != nil {
				s.t.Logf("%+v", n.core.Status(n.clock()))
			}
		}
		s.t.Fatalf("the group does not come together; members %v, wanted %v", s.members, s.want)
	}
	if a := s.leader().sm.Applied(); a < s.acked {
		s.t.Fatalf("applied %d, but %d was acknowledged", a, s.acked)
	}
}

func runChaos(t *testing.T, seed uint64, n int, d time.Duration) *sim {
	s := newSim(t, seed, n)
	s.chaos = true
	s.after(0, s.load)
	s.after(simMS*500, s.misfortune)
	s.run(d)
	s.settle()
	return s
}

// firstSeed lets a long run try other seeds.
var firstSeed = flag.Uint64("sim.first", 0, "the first seed of simulations")

// seeds is how many histories a test tries, a tenth of all if it is to be short.
func seeds(all uint64) uint64 {
	if testing.Short() {
		return all / 10
	}
	return all
}

func TestSimulation(t *testing.T) {
	total := 0
	for seed := *firstSeed; seed < *firstSeed+seeds(100); seed++ {
		n := []int{3, 3, 5, 2, 1}[seed%5]
		t.Run(fmt.Sprintf("seed=%d,nodes=%d", seed, n), func(t *testing.T) {
			s := runChaos(t, seed, n, 15*time.Second)
			total += s.stats.applied
			if testing.Verbose() {
				t.Logf("%+v acked %d", s.stats, s.acked)
			}
		})
	}
	if total == 0 {
		t.Error("nothing was ever applied")
	}
}

func TestSimulationIsDeterministic(t *testing.T) {
	a := runChaos(t, 42, 3, 5*time.Second)
	b := runChaos(t, 42, 3, 5*time.Second)
	if a.trace != b.trace {
		t.Error("two runs of one seed differ")
	}
}
