package sim

import (
	"errors"
	"io"
	"iter"

	"holdfast/internal/replica"
)

var errTransferCut = errors.New("sim: the snapshot's connection is gone")

// transfer is a snapshot on its way from one process to another. Sending and installing are coroutines, so that both nodes go on applying meanwhile as they
// do in reality.
type transfer struct {
	w        *World
	from, to *life
	work     replica.SnapshotWork
	begun    bool // the receiver's core knows
	ended    bool
	since    uint64
	offer    replica.SnapshotMeta
	snap     snapshot
	next     func() ([]byte, bool) // next chunk
	unread   bool                  // the sender could not read on
	stopSend func()

	// The receiving coroutine takes from buffer; it yields when it is empty.
	buffer   []byte
	whole    bool // nothing more comes
	cut      bool // the connection is gone
	resume   func() (struct{}, bool)
	stopTake func()
	meta     *replica.SnapshotMeta
}

// snapshot is a volume's, or one for a witness.
type snapshot interface {
	io.WriterTo
	Close() error
}

// snapshotChunk is how much goes in one message.
const snapshotChunk = 8 << 10

// sendSnapshot does a SnapshotWork.
func (l *life) sendSnapshot(work replica.SnapshotWork) {
	t := &transfer{w: l.w, from: l, work: work}
	l.w.note("snapshot", l.n.id, work.To, work.Index)
	l.stops = append(l.stops, t.fromEnded)
	t.hop(func() { t.arriveOffer() })
}

// hop lets something happen after a message's time if both ends still live and reach each other.
func (t *transfer) hop(fn func()) {
	a, b := station(t.from.n.id), station(t.work.To)
	t.w.after(t.w.net.delay(a, b), func() {
		if t.ended {
			return
		}
		net := &t.w.net
		if net.blocked(a, b) || net.blocked(b, a) {
			t.abort()
			return
		}
		fn()
	})
}

// arriveOffer is the receiver's beginning.
func (t *transfer) arriveOffer() {
	to := t.w.byID[t.work.To].up
	if to == nil || to.failed != nil {
		t.abort()
		return
	}
	t.to = to
	to.stops = append(to.stops, t.toEnded)
	to.run(func() {
		if t.ended {
			return // while the receiver stood still
		}
		to.turn(func(core *replica.Core, now int64) {
			if err := core.BeginInstall(now, t.from.n.id, t.work.Term, t.work.Index); err != nil {
				t.w.after(0, t.abort)
				return
			}
			t.begun = true
			to.waiters = append(to.waiters, func() bool {
				if t.ended {
					return true
				}
				if !core.Installable() {
					return false
				}
				t.since = to.appliedIndex()
				t.hop(t.accepted)
				return true
			})
		})
	})
}

// accepted is the sender's taking of the snapshot.
func (t *transfer) accepted() {
	t.from.run(func() {
		if t.ended {
			return
		}
		index, err := t.capture()
		if err != nil {
			t.abort()
			return
		}
		t.from.waiters = append(t.from.waiters, func() bool {
			if t.ended {
				return true
			}
			core := t.from.manual.Core
			if core.Status(t.from.n.clock()).Applied < index {
				return false
			}
			meta, err := core.SnapshotMeta(index)
			if err != nil {
				t.w.after(0, t.abort)
				return true
			}
			t.offer = meta
			t.next, t.stopSend = iter.Pull(t.chunks())
			t.w.after(0, func() { t.hop(t.install) })
			return true
		})
		t.from.turn(func(*replica.Core, int64) {})
	})
}

// capture takes the snapshot and returns its index.
func (t *transfer) capture() (uint64, error) {
	if replica.IsWitness(t.work.To) {
		t.snap = replica.SnapshotForWitness(t.work.Index)
		return t.work.Index, nil
	}
	snap, err := t.from.volume.Snapshot(t.since)
	if err != nil {
		return 0, err
	}
	t.snap = snap
	return snap.Index, nil
}

// chunks streams the snapshot. Between two chunks the sender goes on applying.
func (t *transfer) chunks() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		w := &chunkWriter{yield: yield}
		_, err := t.snap.WriteTo(w)
		t.unread = err != nil
		if err == nil && len(w.buf) > 0 {
			yield(w.buf)
		}
	}
}

type chunkWriter struct {
	yield func([]byte) bool
	buf   []byte
}

func (c *chunkWriter) Write(p []byte) (int, error) {
	c.buf = append(c.buf, p...)
	for len(c.buf) >= snapshotChunk {
		if !c.yield(c.buf[:snapshotChunk:snapshotChunk]) {
			return 0, errTransferCut
		}
		c.buf = c.buf[snapshotChunk:]
	}
	return len(p), nil
}

// install begins the receiver's installation.
func (t *transfer) install() {
	t.resume, t.stopTake = iter.Pull(func(yield func(struct{}) bool) {
		defer t.to.catch()
		meta, err := t.to.manual.Install(t.offer, t.since, &chunkReader{t: t, yield: yield}, func() bool { return !t.cut })
		if err == nil {
			t.meta = meta
		}
	})
	t.take()
}

// chunkReader is what the receiver reads from.
type chunkReader struct {
	t     *transfer
	yield func(struct{}) bool
}

func (r *chunkReader) Read(p []byte) (int, error) {
	for len(r.t.buffer) == 0 {
		switch {
		case r.t.cut:
			return 0, errTransferCut
		case r.t.whole:
			return 0, io.EOF
		}
		if !r.yield(struct{}{}) {
			r.t.cut = true
		}
	}
	n := copy(p, r.t.buffer)
	r.t.buffer = r.t.buffer[n:]
	return n, nil
}

// take lets the receiver install what has arrived, and asks for more.
func (t *transfer) take() {
	t.to.run(func() {
		if t.ended {
			return
		}
		if _, more := t.resume(); more {
			t.hop(t.sendChunk)
			return
		}
		t.done(t.meta != nil)
	})
}

// sendChunk is the sender's next step.
func (t *transfer) sendChunk() {
	t.from.run(func() {
		if t.ended {
			return
		}
		t.from.n.store.cutting = t.w.cfg.Mutation == CutSnapshot
		chunk, more := t.next()
		t.from.n.store.cutting = false
		if t.unread {
			t.abort()
			return
		}
		t.hop(func() {
			t.buffer = append(t.buffer, chunk...)
			t.whole = !more
			t.take()
		})
	})
}

// abort ends a transfer that does not go on.
func (t *transfer) abort() { t.done(false) }

// done ends the transfer and tells both cores.
func (t *transfer) done(ok bool) {
	if t.ended {
		return
	}
	t.ended = true
	t.breakOff()
	t.w.note("snapshot done", t.from.n.id, t.work.To, uint64(len(t.buffer)), boolean(ok))
	if ok {
		t.w.stats.Snapshots++
		if t.from.n.rotten && !t.to.n.rotten {
			t.to.n.rotten, t.to.n.rottenAt, t.to.n.faulty, t.to.rot = true, t.w.now, true, true
			t.w.check()
		}
	}
	t.tellReceiver()
	if !t.from.ended {
		from := t.from
		from.after(t.w.net.delay(station(t.work.To), station(from.n.id)), func() {
			from.turn(func(core *replica.Core, now int64) { core.SnapshotDone(now, t.work.To, ok) })
		})
	}
}

func (t *transfer) tellReceiver() {
	if t.begun && !t.to.ended {
		to, meta := t.to, t.meta
		to.after(0, func() {
			to.turn(func(_ *replica.Core, now int64) { to.manual.EndInstall(now, t.from.n.id, meta) })
		})
	}
}

// breakOff ends the coroutines.
func (t *transfer) breakOff() {
	if t.stopTake != nil {
		t.cut = true
		t.stopTake()
	}
	if t.stopSend != nil {
		t.stopSend()
	}
	if t.snap != nil {
		_ = t.snap.Close()
	}
}

// fromEnded: the sender's process ended.
func (t *transfer) fromEnded() { t.done(false) }

// toEnded: the receiver's process ended. What it was writing is broken off now.
func (t *transfer) toEnded() { t.done(false) }

func boolean(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
