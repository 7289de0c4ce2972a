package replica

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// inbox is what the next turn has to look at. Whoever puts something in calls Replica.work, or signal if it does not want to do the work itself.
type inbox struct {
	wake chan struct{} // holds at most one token
	// puts counts what was ever put in, proposals included.
	puts atomic.Uint64

	mu       sync.Mutex
	messages []Message
	bytes    int64 // of messages
	appended []AppendWork
	applied  []ApplyWork
	calls    []func(now int64)
	tick     bool
}

// maxInboxBytes bounds messages that wait for the loop. Those beyond are dropped, as a network would; raft sends again.
const maxInboxBytes = 128 << 20

// signal wakes the run loop.
func (b *inbox) signal() {
	b.puts.Add(1)
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *inbox) call(f func(now int64)) {
	b.mu.Lock()
	b.calls = append(b.calls, f)
	b.mu.Unlock()
	b.puts.Add(1)
}

func (b *inbox) receive(msgs []Message) {
	b.mu.Lock()
	for i := range msgs {
		size := int64(64)
		for j := range msgs[i].Entries {
			size += int64(len(msgs[i].Entries[j].Data)) + 64
		}
		if b.bytes+size > maxInboxBytes {
			continue
		}
		b.bytes += size
		b.messages = append(b.messages, msgs[i])
	}
	b.mu.Unlock()
	b.puts.Add(1)
}

func (b *inbox) appendDone(works []AppendWork) {
	b.mu.Lock()
	b.appended = append(b.appended, works...)
	b.mu.Unlock()
	b.puts.Add(1)
}

func (b *inbox) applyDone(w ApplyWork) {
	b.mu.Lock()
	b.applied = append(b.applied, w)
	b.mu.Unlock()
	b.puts.Add(1)
}

// tickDue notes that a tick is due and reports whether the last one was not looked at yet.
func (b *inbox) tickDue() (missed bool) {
	b.mu.Lock()
	missed = b.tick
	b.tick = true
	b.mu.Unlock()
	b.signal()
	return missed
}

// turn is the content of an inbox.
type turn struct {
	messages []Message
	appended []AppendWork
	applied  []ApplyWork
	calls    []func(now int64)
	tick     bool
}

func (b *inbox) take() turn {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := turn{b.messages, b.appended, b.applied, b.calls, b.tick}
	b.messages, b.appended, b.applied, b.calls, b.tick, b.bytes = nil, nil, nil, nil, false, 0
	return t
}

// queue hands work to a worker, in order. The worker takes all there is at once.
type queue[T any] struct {
	mu    sync.Mutex
	items []T
	wake  chan struct{}
}

func (q *queue[T]) init() { q.wake = make(chan struct{}, 1) }

func (q *queue[T]) put(items []T) {
	if len(items) == 0 {
		return
	}
	q.mu.Lock()
	q.items = append(q.items, items...)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take waits for work. It returns nil when done is closed.
func (q *queue[T]) take(done <-chan struct{}) []T {
	for {
		q.mu.Lock()
		items := q.items
		q.items = nil
		q.mu.Unlock()
		if len(items) > 0 {
			return items
		}
		select {
		case <-q.wake:
		case <-done:
			return nil
		}
	}
}

// catch turns a panic into the end of the replica.
func (r *Replica) catch() {
	if p := recover(); p != nil {
		r.fail(fmt.Errorf("replica: %v\n%s", p, debug.Stack()))
	}
}

// tick wakes the run loop at every tick, from a thread of its own that does nothing else.
func (r *Replica) tick() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	interval := r.cfg.Timing.Tick
	timer := time.NewTicker(interval)
	defer timer.Stop()
	last := r.cfg.Clock.MonotonicNS()
	for {
		select {
		case <-timer.C:
		case <-r.ctx.Done():
			return
		}
		now := r.cfg.Clock.MonotonicNS()
		if late := (now-last)/int64(interval) - 1; late > 0 {
			r.missedTicks.Add(uint64(late))
		}
		last = now
		if r.inbox.tickDue() {
			r.missedTicks.Add(1)
		}
	}
}

// run takes the turns that nobody else takes: those after a tick, and those for what came while somebody else was taking one.
func (r *Replica) run() {
	r.turning.Lock()
	r.open = true
	r.dispatch(r.cfg.Clock.MonotonicNS()) // a group of one has work from the beginning
	r.turning.Unlock()
	for {
		select {
		case <-r.inbox.wake:
		case <-r.ctx.Done():
			return
		}
		r.turning.Lock()
		r.turn()
	}
}

// work takes a turn, unless somebody else is taking one; then the run loop takes another one afterwards. Those who put something into the inbox call it, so
// that a request on its way through this replica does not wait for the run loop to wake up at each step.
func (r *Replica) work() {
	if r.turning.TryLock() {
		r.turn()
	}
}

// turn does what the inbox asks for. It is called with turning held and releases it.
func (r *Replica) turn() {
	seen := r.inbox.puts.Load()
	func() {
		defer r.turning.Unlock()
		defer r.catch()
		if r.open && r.ctx.Err() == nil {
			r.takeTurn()
		}
	}()
	// Who put something in meanwhile did not get turning.
	if r.inbox.puts.Load() != seen {
		r.inbox.signal()
	}
}

func (r *Replica) takeTurn() {
	t := r.inbox.take()
	// The time is read after the messages were taken, so that no promise begins before its heartbeat came.
	now := r.cfg.Clock.MonotonicNS()
	for i := range t.appended {
		r.appending.Add(-1)
		r.core.AppendDone(now, &t.appended[i])
	}
	for i := range t.applied {
		r.core.ApplyDone(now, &t.applied[i])
	}
	for i := range t.messages {
		r.core.Step(now, t.messages[i])
	}
	if t.tick {
		r.core.Tick(now)
	}
	for _, f := range t.calls {
		f(now)
	}
	r.propose(now)
	r.dispatch(now)
}

// call lets a turn run f. It does not wait for that.
func (r *Replica) call(f func(now int64)) {
	r.inbox.call(f)
	r.work()
}

// propose hands proposals to raft as far as it has room.
func (r *Replica) propose(now int64) {
	r.pending = append(r.pending, r.proposals.take()...)
	if len(r.pending) == 0 {
		return
	}
	n, _ := r.core.Propose(now, r.pending) // the error comes as an event, LeaderLost, or the transfer ends and we go on
	var size int64
	for _, d := range r.pending[:n] {
		size += int64(len(d))
	}
	r.proposals.release(size)
	if r.pending = r.pending[n:]; len(r.pending) == 0 {
		r.pending = nil
	}
}

// dispatch publishes what has changed and hands out what there is to do, in this order: nothing that the others learn may be untrue here.
func (r *Replica) dispatch(now int64) {
	out := r.core.Take()
	r.servingTerm.Store(r.core.Term())
	r.servingUntil.Store(r.core.ServingUntil())
	if r.failed.Load() != nil || r.ctx.Err() != nil {
		r.servingUntil.Store(0)
	}
	if r.core.confIndex != r.votersIndex {
		r.publishVoters()
	}
	for _, e := range out.Events {
		switch e.Kind {
		case LeaderReady:
			r.proposals.open()
		case LeaderLost:
			r.proposals.close(ErrNotLeader)
			r.pending = nil
		}
		r.cfg.Logger.Debug("raft", "event", e.Kind.String(), "term", e.Term, "leader", e.Leader)
	}
	r.events.put(out.Events)
	done := r.putAppends(out.Appends)
	r.applies.put(out.Applies)
	if len(out.Messages) > 0 {
		r.cfg.Transport.Send(out.Messages)
	}
	for _, w := range out.Snapshots {
		sent := new(atomic.Int64)
		r.sentBytes[w.To] = sent
		r.goRun(func() { r.sendSnapshot(w, sent) })
	}
	if len(done) > 0 {
		for i := range done {
			r.core.AppendDone(now, &done[i])
		}
		r.dispatch(now)
		return
	}
	if len(r.waiters) > 0 {
		waiting := r.waiters[:0]
		for _, done := range r.waiters {
			if !done() {
				waiting = append(waiting, done)
			}
		}
		r.waiters = waiting
	}
}

// putAppends hands works to the append worker, and returns those that are done already: they only change the commit index, which goes with the next write
// anyway, and the worker has nothing before them.
func (r *Replica) putAppends(works []AppendWork) (done []AppendWork) {
	for len(works) > 0 && works[0].commitOnly() && r.appending.Load() == 0 {
		if hs := works[0].HardState; !raft.IsEmptyHardState(hs) {
			r.commit = hs
		}
		done, works = append(done, works[0]), works[1:]
	}
	if len(works) == 0 {
		return done
	}
	if raft.IsEmptyHardState(works[0].HardState) {
		works[0].HardState = r.commit
	}
	r.commit = raftpb.HardState{}
	r.appending.Add(int64(len(works)))
	r.appends.put(works)
	return done
}

// eventWorker calls Config.Event.
func (r *Replica) eventWorker() {
	for {
		events := r.events.take(r.ctx.Done())
		if events == nil {
			return
		}
		for _, e := range events {
			r.cfg.Event(e)
		}
	}
}

// Receive takes messages from the transport (transport.Handler).
func (r *Replica) Receive(msgs []Message) {
	r.inbox.receive(msgs)
	r.work()
}

// Unreachable takes from the transport that messages to a node were lost.
func (r *Replica) Unreachable(node uint64) {
	r.call(func(now int64) {
		for _, id := range r.core.on(node) {
			r.core.Unreachable(now, id)
		}
	})
}

// PeerGone takes from the transport that a node's process is dead.
func (r *Replica) PeerGone(node uint64) {
	r.cfg.Logger.Info("a member's process is gone", "peer", r.cfg.Name(node))
	r.call(func(now int64) {
		for _, id := range r.core.on(node) {
			r.core.PeerGone(now, id)
		}
	})
}
