package replica

import (
	"cmp"
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"holdfast/internal/wal"
)

// appendWorker writes to the log: everything that is queued in one write and one sync (group commit).
func (r *Replica) appendWorker() {
	var hs raftpb.HardState // taken over from works that needed no write of their own
	for {
		works := r.appends.take(r.ctx.Done())
		if works == nil {
			return
		}
		if err := r.appendAll(works, &hs); err != nil {
			r.fail(fmt.Errorf("replica: log: %w", err))
			return
		}
		r.inbox.appendDone(works)
		r.work()
	}
}

// appendAll does works in order. A change of the commit index alone is not written: it goes with the next write, and a replica that
// restarts before learns it from the leader.
func (r *Replica) appendAll(works []AppendWork, hs *raftpb.HardState) error {
	var entries []raftpb.Entry
	sync := false
	var entered *Meta
	flush := func() error {
		if !sync {
			return nil
		}
		b := wal.Batch{Entries: entries, HardState: *hs}
		if err := r.cfg.Log.Append(b); err != nil {
			return fmt.Errorf("append: %w", err)
		}
		r.noteAppended(entries)
		entries, *hs, sync = nil, raftpb.HardState{}, false
		return nil
	}
	for i := range works {
		w := &works[i]
		if w.Meta != nil || w.Snapshot != nil {
			if err := flush(); err != nil {
				return err
			}
			if err := r.prepareAppend(w); err != nil {
				return err
			}
			entered = cmp.Or(w.Meta, entered)
		}
		if !raft.IsEmptyHardState(w.HardState) {
			*hs = w.HardState
		}
		if entries == nil {
			entries = w.Entries[:len(w.Entries):len(w.Entries)]
		} else {
			entries = append(entries, w.Entries...)
		}
		sync = sync || w.Sync
	}
	if err := flush(); err != nil || entered == nil {
		return err
	}
	return noteIncarnation(r.cfg, entered) // before it takes part
}

// prepareAppend does those parts of a work that come before the append.
func (r *Replica) prepareAppend(w *AppendWork) error {
	if w.Meta != nil {
		if err := r.meta.update(func(m *Meta) { *m = *w.Meta }); err != nil {
			return err
		}
	}
	if s := w.Snapshot; s != nil {
		if err := r.cfg.Log.Reset(s.Index, s.Term); err != nil {
			return fmt.Errorf("reset to snapshot %d: %w", s.Index, err)
		}
		r.sizes.reset(s.Index)
		return r.meta.update(func(m *Meta) {
			m.Conf, m.ConfIndex, m.Installing = s.Conf, s.ConfIndex, nil
		})
	}
	return nil
}

// noteAppended counts what was logged, for checkpoints and for what to keep.
func (r *Replica) noteAppended(entries []raftpb.Entry) {
	if len(entries) == 0 {
		return
	}
	var n int64
	for i := range entries {
		n += int64(len(entries[i].Data)) + entryOverhead
	}
	r.sizes.add(entries[len(entries)-1].Index, n)
	if r.uncheckpointed.Add(n) >= r.cfg.CheckpointBytes {
		select {
		case r.checkpointNow <- struct{}{}:
		default:
		}
	}
}

// applyWorker applies committed entries.
func (r *Replica) applyWorker() {
	for {
		works := r.applies.take(r.ctx.Done())
		for i := range works {
			if err := r.apply(works[i].Entries); err != nil {
				r.fail(fmt.Errorf("replica: apply: %w", err))
				return
			}
			r.inbox.applyDone(works[i])
		}
		if works == nil {
			return
		}
		r.work()
	}
}

func (r *Replica) apply(entries []raftpb.Entry) error {
	sm := r.cfg.StateMachine
	have := sm.Applied()
	for i := range entries {
		e := &entries[i]
		if e.Index <= have {
			continue // an installed snapshot contains it
		}
		if e.Type != raftpb.EntryNormal {
			if err := sm.AdvanceTo(e.Index); err != nil {
				return fmt.Errorf("entry %d: %w", e.Index, err)
			}
			continue
		}
		reply, err := sm.Apply(e.Index, e.Data)
		if err != nil {
			return fmt.Errorf("entry %d: %w", e.Index, err)
		}
		if len(e.Data) > 0 {
			r.cfg.Applied(e.Index, e.Data, reply)
		}
	}
	return nil
}
