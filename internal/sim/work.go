package sim

import (
	"context"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"holdfast/internal/replica"
)

// writeNext is replica's append worker: everything that is queued goes in one write, which takes its time.
func (l *life) writeNext() {
	if len(l.writing) > 0 || len(l.appends) == 0 {
		return
	}
	l.writing, l.appends = l.appends, nil
	d := l.rng.between(40*usec, 600*usec)
	if l.n.slowDisk > 0 {
		d += l.rng.Int64N(l.n.slowDisk)
	}
	l.after(d, func() {
		if l.failed != nil {
			return
		}
		works := l.writing
		if err := l.store(works); err != nil {
			l.fatal(err)
			return
		}
		l.writing = nil
		l.turn(func(core *replica.Core, now int64) {
			for i := range works {
				core.AppendDone(now, &works[i])
			}
		})
	})
}

func (l *life) store(works []replica.AppendWork) (err error) {
	defer l.catch()
	return l.manual.Append(works)
}

// applyNext is replica's apply worker.
func (l *life) applyNext() {
	if l.applying || len(l.applies) == 0 {
		return
	}
	l.applying = true
	d := l.rng.between(5*usec, 200*usec)
	if l.rng.chance(l.w.faults.SlowApply) {
		d += l.rng.Int64N(100 * msec)
	}
	l.after(d, func() {
		if l.failed != nil {
			return
		}
		work := l.applies[0]
		l.applies = slices.Delete(l.applies, 0, 1)
		l.applying = false
		if err := l.apply(work.Entries); err != nil {
			l.fatal(err)
			return
		}
		l.turn(func(core *replica.Core, now int64) { core.ApplyDone(now, &work) })
	})
}

func (l *life) apply(entries []raftpb.Entry) (err error) {
	defer l.catch()
	return l.manual.Apply(entries)
}

// applied is called for each entry that was applied, with its reply.
func (l *life) applied(index uint64, entry, reply []byte) {
	l.w.oracle.applied(l, index, entry, reply)
	l.understands(index, entry)
	l.serve.applying = index
	l.gate.Applied(entry, reply)
	l.serve.applying = 0
	if isMark(entry) {
		l.digestMark(index)
	}
}

// checkpoint is replica's checkpoint worker.
func (l *life) checkpoint() {
	l.after(l.rng.between(200*msec, 2*sec), l.checkpoint)
	l.checkpointNow()
}

func (l *life) checkpointNow() {
	if l.failed != nil || l.installing() || l.manual.Core.Status(l.n.clock()).Role == replica.RoleBlank {
		return
	}
	defer l.catch()
	l.w.note("checkpoint", l.n.id)
	if err := l.manual.Checkpoint(context.Background(), l.n.clock()); err != nil {
		l.fatal(err)
	}
}

func (l *life) installing() bool { return l.manual.Core.Status(l.n.clock()).Installing }
