package sim

import (
	"context"
	"hash/fnv"
	"time"

	"holdfast/internal/volume"
)

// oracle knows what must be true of the cluster, whoever asks.
type oracle struct {
	w *World
	// truth is what was applied at an index somewhere: entry and reply.
	truth map[uint64][2]uint64
	// acked is the highest index whose reply left a server.
	acked   uint64
	highest uint64
	stamped int64             // what the newest entry was stamped with by the leader's clock; 0: no more is known than that
	leaders map[uint64]uint64 // term -> node

	// reference is a replica on a disk that never fails; nil if nothing rots. marks are its digests at the marks of checks.
	reference *volume.Volume
	marks     map[uint64]volume.Digest

	tree  *tree
	setup *process // that made it
	// What clients saw.
	stamp     int64
	values    uint64 // the last value written to a block; all are different
	keys      []string
	histories map[string][]*record
	holders   map[string]*holder            // of the locks, by file handle
	claimed   map[string]map[*process]int64 // by file handle: until when who may have held the lock
	last      bool                          // the last reads are under way
}

func (o *oracle) init(w *World) {
	*o = oracle{w: w, truth: map[uint64][2]uint64{}, leaders: map[uint64]uint64{}, histories: map[string][]*record{}, holders: map[string]*holder{}, claimed: map[string]map[*process]int64{}}
}

func digest(b []byte) uint64 {
	h := fnv.New64a()
	h.Write(b)
	return h.Sum64()
}

// leads: a node is ready to lead a term.
func (o *oracle) leads(node, term uint64) {
	if other, ok := o.leaders[term]; ok && other != node {
		o.w.fail("nodes %d and %d both lead term %d", other, node, term)
	}
	o.leaders[term] = node
}

// applied checks an entry and its reply against what other replicas had.
func (o *oracle) applied(l *life, index uint64, entry, reply []byte) {
	got := [2]uint64{digest(entry), digest(reply)}
	want, known := o.truth[index]
	if !known {
		o.truth[index] = got
		o.noteStamp(index, entry)
		o.highest = max(o.highest, index)
		o.w.note("applied", l.n.id, index, got[0], got[1])
		o.refer(index, entry, reply)
		return
	}
	if got[0] != want[0] {
		o.w.fail("node %d applies another entry at %d than others did", l.n.id, index)
	} else if got[1] != want[1] {
		o.w.fail("node %d replies otherwise to entry %d than others did", l.n.id, index)
	}
}

// acknowledged: the reply to an entry leaves.
func (o *oracle) acknowledged(index uint64) { o.acked = max(o.acked, index) }

// always checks what must be true at every moment.
func (o *oracle) always() {
	var first *life
	for _, n := range o.w.all {
		l := n.up
		if l == nil || l.failed != nil || !l.manual.Core.Serving(n.clock()) {
			continue
		}
		if first != nil {
			o.w.fail("nodes %d and %d both may serve", first.n.id, n.id)
			return
		}
		first = l
		if applied := l.volume.Applied(); applied < o.acked {
			o.w.fail("node %d may serve at index %d, but %d was acknowledged", n.id, applied, o.acked)
		}
	}
}

// leader returns the process that may serve, or nil.
func (w *World) leader() *life {
	for _, n := range w.nodes {
		if l := n.up; l != nil && l.failed == nil && l.manual.Core.Serving(n.clock()) {
			return l
		}
	}
	return nil
}

// converged reports whether all nodes run and have applied the same.
func (w *World) converged() bool {
	lead := w.leader()
	if lead == nil || w.want != nil || w.cfg.Kind == Witnessed && !lead.manual.Core.Status(lead.n.clock()).InSync {
		return false
	}
	last := lead.manual.Core.Status(lead.n.clock()).Last
	for _, n := range w.nodes {
		if n.up == nil || n.up.failed != nil {
			return false
		}
		st := n.up.manual.Core.Status(n.clock())
		if n.up.volume != nil && n.up.volume.Version() < volume.MaxVersion {
			return false
		}
		if st.Last != last || n.up.appliedIndex() != last || st.Recovering || st.Installing {
			return false
		}
	}
	return true
}

// noteStamp keeps the time that the newest entry was stamped with. The one that raises the version is judged by the old one still.
func (o *oracle) noteStamp(index uint64, entry []byte) {
	var e volume.Entry
	if index <= o.highest || len(entry) == 0 || volume.DecodeEntry(entry, &e) != nil || e.Time == 0 {
		return
	}
	o.stamped = e.Time
	if e.Kind == volume.EntryVersion {
		o.stamped = 0
	}
}

// checkTime: the time of the last entry is that of the clock that stamped it, however wrong clocks were before, up to what is between clocks that are right (clockSkew in
// package volume).
func (o *oracle) checkTime(lead *life) {
	var now int64
	lead.volume.View(func(tx *volume.Tx) { now = tx.Now() })
	if ahead := now - o.stamped; o.stamped != 0 && ahead > 60*sec {
		o.w.fail("the last entry's time is %v ahead of the clock that stamped it", time.Duration(ahead))
	}
}

// final compares the replicas and judges what the clients saw.
func (o *oracle) final() {
	w := o.w
	lead := w.leader()
	if lead.volume.Applied() < o.acked {
		w.fail("the log ends at %d, but %d was acknowledged", lead.volume.Applied(), o.acked)
		return
	}
	var want volume.Digest
	for i, n := range w.dataNodes() {
		_, sum, err := n.up.volume.Checksum(context.Background())
		if err != nil {
			w.fail("checksum of node %d: %v", n.id, err)
			return
		}
		if i > 0 && sum != want {
			w.fail("replicas %d and %d differ at index %d", w.nodes[0].id, n.id, n.up.volume.Applied())
			return
		}
		want = sum
	}
	if o.reference != nil && o.referTo(lead.volume.Applied()) != want {
		w.fail("the replicas are equal, and all are wrong")
		return
	}
	w.note("checksum", digest(want[:]))
	o.checkTime(lead)
	o.judge()
}
