package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"holdfast/internal/gateway"
	"holdfast/internal/replica"
	"holdfast/internal/store"
	"holdfast/internal/volume"
)

// Rot of what a replica stores. Metadata has checksums: what cannot be read ends the replica if an entry needs it; otherwise the leader hands over to one that can read it, and what was asked
// for comes from there. File data has none: reads answer with what is there, until somebody has the copies compared. Then the rotten one, and no other, differs from most, and is made anew.

// errMetaRot is what Pebble's checksum of a block comes to.
var errMetaRot = fmt.Errorf("sim: a block of the metadata has another checksum than when it was written: %w", store.ErrUnreadable)

// errVoid ends a run in which rot has spread so far that nothing is promised.
var errVoid = errors.New("sim: half of the copies or more are rotten")

// rotObject flips a bit of file data.
func (f *fault) rotObject(n *node) {
	var ids []uint64
	_ = n.store.Mem.ListObjects(func(id uint64) bool { ids = append(ids, id); return true })
	if len(ids) == 0 {
		return
	}
	id := ids[f.rng.IntN(len(ids))]
	end, err := n.store.Mem.SeekObject(id, 0, true)
	if err != nil || end == 0 {
		return
	}
	off := f.rng.Int64N(end)
	if n.store.FlipObject(id, off, uint(f.rng.IntN(8))) {
		f.w.logf("object %d of node %d rots at %d", id, n.id, off)
		f.rots(n)
	}
}

// metaBlock is how many keys become unreadable together.
const metaBlock = 8

// rotMeta makes a block of the metadata unreadable.
func (f *fault) rotMeta(n *node) {
	var keys [][]byte
	_ = n.store.Mem.Scan([]byte{0}, []byte{0xff}, func(key, _ []byte) bool { keys = append(keys, bytes.Clone(key)); return true })
	if len(keys) == 0 {
		return
	}
	at := f.rng.IntN(len(keys))
	n.store.rotten = [2][]byte{keys[at], append(keys[min(at+metaBlock, len(keys))-1], 0)}
	f.w.logf("metadata of node %d rot from %x to %x", n.id, n.store.rotten[0], n.store.rotten[1])
	f.rots(n)
}

// rots notes that a node's store rots. Somebody has the copies compared some time later.
func (f *fault) rots(n *node) {
	w := f.w
	w.stats.Faults[f.kind]++
	n.rotten, n.rottenAt, n.faulty = true, w.now, true
	if n.up != nil {
		n.up.rot = true
	}
	w.after(f.rng.between(10*msec, sec), w.check)
}

// unreadable reports whether [lo, hi) touches what cannot be read.
func (st *simStore) unreadable(lo, hi []byte) bool {
	return st.rotten[0] != nil && bytes.Compare(lo, st.rotten[1]) < 0 && bytes.Compare(st.rotten[0], hi) < 0
}

func (st *simStore) Get(key []byte) ([]byte, error) {
	if st.unreadable(key, append(bytes.Clone(key), 0)) {
		return nil, errMetaRot
	}
	return st.Mem.Get(key)
}

func (st *simStore) Scan(lo, hi []byte, fn func(key, value []byte) bool) error {
	return st.scan(st.Mem, lo, hi, fn)
}

// scan scans until it meets what cannot be read.
func (st *simStore) scan(from interface {
	Scan(lo, hi []byte, fn func(key, value []byte) bool) error
}, lo, hi []byte, fn func(key, value []byte) bool) error {
	var failed error
	err := from.Scan(lo, hi, func(key, value []byte) bool {
		if st.unreadable(key, append(bytes.Clone(key), 0)) {
			failed = errMetaRot
			return false
		}
		return fn(key, value)
	})
	return errors.Join(failed, err)
}

func (st *simStore) SnapshotMeta() (store.MetaSnapshot, error) {
	snap, err := st.Mem.SnapshotMeta()
	if err != nil || st.rotten[0] == nil {
		return snap, err
	}
	return rottenSnapshot{snap, st}, nil
}

// rottenSnapshot is one of a store whose metadata rot.
type rottenSnapshot struct {
	store.MetaSnapshot
	st *simStore
}

func (s rottenSnapshot) Scan(lo, hi []byte, fn func(key, value []byte) bool) error {
	return s.st.scan(s.MetaSnapshot, lo, hi, fn)
}

// WriteTo implements store.MetaSnapshot: the sender meets what it cannot read.
func (s rottenSnapshot) WriteTo(w io.Writer) (int64, error) {
	if err := s.Scan([]byte{0}, []byte{0xff}, func(_, _ []byte) bool { return true }); err != nil {
		return 0, err
	}
	return s.MetaSnapshot.WriteTo(w)
}

// metDamage is package node's: the process learns that its copy is damaged.
func (l *life) metDamage(_ error, stops bool) {
	if stops || l.n.marked {
		return
	}
	l.n.marked = true
	l.w.note("damaged", l.n.id)
	l.after(l.rng.between(0, msec), l.stepAside)
}

// mark says whether the process's copy is known to be damaged, which makes it reluctant to lead.
func (l *life) mark(damaged bool) {
	l.n.marked = damaged
	l.turn(func(core *replica.Core, _ int64) { core.SetReluctant(damaged) })
}

// asideRetry is how long a leader with a damaged copy waits until it tries again to hand over.
const asideRetry = 50 * msec

// stepAside hands over while the copy is damaged and another could lead.
func (l *life) stepAside() {
	if !l.n.marked || l.failed != nil {
		return
	}
	l.mark(true)
	if to := l.successor(); to != 0 {
		l.turn(func(core *replica.Core, now int64) {
			if _, err := core.TransferLeader(now, to); err == nil {
				l.w.stats.Aside++
				l.w.note("aside", l.n.id, to)
			}
		})
	}
	l.after(asideRetry, l.stepAside)
}

// successor returns who could lead instead of this process, 0 if nobody could.
func (l *life) successor() uint64 {
	for _, p := range l.manual.Core.Status(l.n.clock()).Peers {
		if p.Voter && p.Active && p.InSync && !p.NeedsSnapshot && !p.Recovering && !p.Reluctant && !replica.IsWitness(p.ID) {
			return p.ID
		}
	}
	return 0
}

// escapes reports whether the answer to a request is left to another leader, because this one's copy is damaged. Otherwise the client gets to know.
func (l *life) escapes(err error) bool {
	if !errors.Is(err, gateway.ErrDamaged) {
		return true
	}
	return l.successor() != 0
}

// checks is the state of `holdfast check --repair`.
type checks struct {
	running bool
	floor   uint64 // the mark is beyond this index
	until   int64  // when this try is given up
}

// digested is a replica's digest at a mark.
type digested struct {
	index  uint64
	began  int64
	sum    volume.Digest
	stable bool
	err    error
}

func isMark(entry []byte) bool {
	var e volume.Entry
	return len(entry) > 0 && volume.DecodeEntry(entry, &e) == nil && e.Kind == volume.EntryMark
}

// digestMark digests the state at a mark, as package node does.
func (l *life) digestMark(index uint64) {
	d := &digested{index: index, began: l.w.now}
	c, err := l.volume.BeginChecksum()
	if err != nil {
		d.err = err
		l.digest = d
		return
	}
	l.after([]int64{0, msec, 20 * msec}[l.rng.IntN(3)], func() {
		d.sum, d.stable, d.err = c.Sum(context.Background())
		l.digest = d
		if d.err == nil && l.n.marked {
			l.mark(false)
		}
	})
}

// sound reports whether no copy may be rotten, and has the copies compared otherwise.
func (w *World) sound() bool {
	if slices.ContainsFunc(w.nodes, func(n *node) bool { return n.rotten }) {
		w.check()
		return false
	}
	return true
}

// checkRetry is how long a check waits that could not be done.
const checkRetry = 100 * msec

// check has all copies compared until that succeeds.
func (w *World) check() {
	if !w.checks.running {
		w.checks.running = true
		w.mark()
	}
}

// mark begins a comparison.
func (w *World) mark() {
	l := w.leader()
	if !slices.ContainsFunc(w.nodes, func(n *node) bool { return n.rotten }) {
		w.checks.running = false
		return
	}
	if l == nil || l.gate.Command(volume.EntryMark, netip.AddrPort{}, nil) != nil {
		w.after(checkRetry, w.mark)
		return
	}
	w.checks.floor, w.checks.until = l.volume.Applied(), w.now+sec
	w.after(20*msec, w.collect)
}

// collect waits for the digests.
func (w *World) collect() {
	var all []*digested
	nodes := w.dataNodes()
	for _, n := range nodes {
		if n.up != nil && n.up.digest != nil && n.up.digest.index > w.checks.floor {
			all = append(all, n.up.digest)
		}
	}
	busy := slices.ContainsFunc(all, func(d *digested) bool { return !d.stable && d.err == nil || d.index != all[0].index })
	switch {
	case len(all) < len(nodes) && w.now < w.checks.until:
		w.after(20*msec, w.collect)
	case len(all) < len(nodes) && w.hopeless():
		w.void()
	case len(all) < len(nodes) || busy || w.want != nil:
		w.after(checkRetry, w.mark)
	default:
		w.compare(nodes, all)
	}
}

// hopeless reports whether half of the copies or more are bad, and a comparison does not come about for that: the leader cannot read its copy and nobody can take over, or a node does not
// start with its own, or with its log when there are no faults any more.
func (w *World) hopeless() bool {
	nodes, marked, bad, down := w.dataNodes(), 0, 0, false
	for _, n := range nodes {
		if n.marked {
			marked++
		}
		if n.rotten || n.damaged && !w.chaos {
			bad++
			down = down || n.up == nil
		}
	}
	if down && 2*bad >= len(nodes) {
		return true
	}
	l := w.leader()
	return l != nil && l.n.marked && l.successor() == 0 && 2*marked >= len(nodes)
}

// void ends a run in which nothing is promised any more.
func (w *World) void() {
	w.stats.Void++
	w.err = errVoid
}

// compare does what `holdfast check --repair` does with the digests: a copy that differs from most is made anew. Those must be the ones that are wrong.
func (w *World) compare(nodes []*node, all []*digested) {
	w.stats.Checks++
	right := w.oracle.marks[all[0].index]
	count := map[volume.Digest]int{}
	for _, d := range all {
		if d.err == nil {
			count[d.sum]++
		}
	}
	var named, wrong []*node
	for i, n := range nodes {
		if all[i].err != nil || 2*count[all[i].sum] <= len(all) {
			named = append(named, n)
		}
		if all[i].err != nil || all[i].sum != right {
			wrong = append(wrong, n)
			if !n.rotten {
				w.fail("replica %d differs at index %d although its disk is whole: %v", n.id, all[i].index, all[i].err)
				return
			}
		}
	}
	w.note("check", all[0].index, uint64(len(wrong)))
	if 2*len(wrong) >= len(nodes) {
		w.void()
		return
	}
	if !slices.Equal(named, wrong) {
		w.fail("a check at index %d names %d of the %d rotten copies, or others", all[0].index, len(named), len(wrong))
		return
	}
	for i, n := range nodes {
		n.rotten = n.rotten && (slices.Contains(wrong, n) || n.rottenAt >= all[i].began)
	}
	rebuilt := false
	for _, n := range wrong {
		if rebuilt = w.mayLoseDisk(n); rebuilt {
			w.rebuild(n)
			break // the next when this one is whole again
		}
	}
	// Another log may be damaged where nobody has looked yet.
	if bad := slices.DeleteFunc(slices.Clone(nodes), func(n *node) bool { return !n.bad() }); len(wrong) > 0 && !rebuilt && !w.chaos && 2*len(bad) >= len(nodes) {
		w.void()
		return
	}
	w.after(checkRetry, w.mark)
}

// rebuild makes a copy anew from the others.
func (w *World) rebuild(n *node) {
	if w.cfg.Kind == Fixed {
		n.replaceDisk()
		w.after(n.rng.between(10*msec, 500*msec), n.start)
		return
	}
	w.note("rebuild", n.id)
	w.regrow = true
	w.wantMembers(n)
}

// beginReference makes the reference.
func (o *oracle) beginReference() {
	st := newStore(o.w, o.w.stream("reference"))
	err := o.w.format(st)
	if err != nil {
		panic(fmt.Sprintf("sim: format the reference: %v", err))
	}
	v, err := volume.Open(volume.Config{ID: volumeID, Name: "sim", Store: st, Programs: programs(o.w.nfs4Server())})
	if err != nil {
		panic(fmt.Sprintf("sim: the reference does not start: %v", err)) // nothing can be wrong with an empty store in memory
	}
	o.reference, o.marks = v, map[uint64]volume.Digest{}
}

// refer applies an entry to the reference.
func (o *oracle) refer(index uint64, entry, reply []byte) {
	if o.reference == nil || index <= o.reference.Applied() {
		return
	}
	o.advance(index - 1)
	got, err := o.reference.Apply(index, entry)
	if err != nil {
		o.w.fail("the reference does not apply entry %d: %v", index, err)
	} else if !bytes.Equal(got, reply) {
		o.w.fail("the reference replies otherwise to entry %d than the nodes did", index)
	}
	if isMark(entry) {
		o.marks[index] = o.referTo(index)
	}
}

// advance passes over what is no entry of the volume.
func (o *oracle) advance(index uint64) {
	if err := o.reference.AdvanceTo(index); err != nil {
		o.w.fail("the reference does not go on to %d: %v", index, err)
	}
}

// referTo returns the digest of the reference at an index.
func (o *oracle) referTo(index uint64) volume.Digest {
	o.advance(index)
	_, sum, err := o.reference.Checksum(context.Background())
	if err != nil {
		o.w.fail("the reference cannot be digested: %v", err)
	}
	return sum
}
