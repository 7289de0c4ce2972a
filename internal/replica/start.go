package replica

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/confchange"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"holdfast/internal/wal"
)

var (
	errNoMeta = errors.New("replica: there is a log or a state but no metadata: files are missing from the data folder")
	errNoLog  = errors.New("replica: the log ends before the state machine does: files are missing from the data folder")
	errReplay = errors.New("replica: the log does not hold what the state machine must repeat")
)

// load prepares what a Core starts from, and brings the state machine to what it was.
func load(cfg Config) (CoreConfig, error) {
	sm, log := cfg.StateMachine, cfg.Log
	start := CoreConfig{
		ID: cfg.ID, Peers: cfg.Peers, Timing: cfg.Timing, Log: log, HardState: log.HardState(), Applied: sm.Applied(),
		MessageBytes: cfg.MessageBytes, InflightBytes: cfg.InflightBytes, ApplyBytes: cfg.ApplyBytes, Logger: cfg.Logger,
		FullMembers: cfg.FullMembers, SyncTimeout: cfg.SyncTimeout,
	}
	meta, err := cfg.Meta.Load()
	if err != nil {
		return start, err
	}
	if start.Files, err = known(cfg, meta); err != nil {
		return start, err
	}
	nothing := log.LastIndex() == 0 && raft.IsEmptyHardState(start.HardState) && start.Applied == 0
	switch {
	case nothing && cfg.Fresh:
		return begin(cfg, start)
	case meta == nil && !nothing:
		return start, errNoMeta
	case meta == nil:
		return start, nil
	case nothing:
		// It died on its way in, before the term that it was to enter in was durable; without that it could vote again where it may have voted before
		// it lost its disk. So it is blank still.
		return start, nil
	}
	start.Meta = meta
	if err := noteIncarnation(cfg, meta); err != nil {
		return start, err
	}
	if err := finishInstall(cfg, meta); err != nil {
		return start, err
	}
	start.Invalid = unfinished(sm, meta) && !cfg.isWitness()
	if start.Applied > log.LastIndex() {
		return start, fmt.Errorf("%w: %d < %d", errNoLog, log.LastIndex(), start.Applied)
	}
	// The log's commit index is not always synced; what is applied is committed.
	start.HardState = log.HardState()
	start.HardState.Commit = max(start.HardState.Commit, start.Applied)
	saved := meta.ConfIndex
	if err := catchUpConf(log, meta, start.Applied, cfg.FullMembers); err != nil {
		return start, err
	}
	if meta.ConfIndex > saved {
		// From here on nobody knows that it was the log which said so, and the next checkpoint may let that go.
		if err := cfg.Meta.Save(meta); err != nil {
			return start, err
		}
	}
	return start, redo(cfg)
}

// begin makes a replica that its node has never had (Config.Fresh) a durable one: it has a Meta, and a term, after which it is not blank any more.
func begin(cfg Config, start CoreConfig) (CoreConfig, error) {
	m := Meta{Conf: ConfState{Voters: slices.Sorted(slices.Values(cfg.Peers))}, Files: Files{Group: cfg.Group, Member: cfg.ID}}
	if err := cfg.Meta.Save(&m); err != nil {
		return start, err
	}
	start.HardState = raftpb.HardState{Term: 1}
	if err := cfg.Log.Append(wal.Batch{HardState: start.HardState}); err != nil {
		return start, fmt.Errorf("begin the log: %w", err)
	}
	start.Meta = &m
	return start, nil
}

// finishInstall does what is left to do if the process died after the installation of a snapshot, before the log and the meta knew of it.
func finishInstall(cfg Config, meta *Meta) error {
	in := meta.Installing
	applied := cfg.StateMachine.Applied()
	if in == nil || applied == 0 || applied != in.Index {
		return nil
	}
	if term, err := cfg.Log.Term(in.Index); err != nil || term != in.Term {
		if err := cfg.Log.Reset(in.Index, in.Term); err != nil {
			return fmt.Errorf("reset the log to an installed snapshot: %w", err)
		}
	}
	if in.ConfIndex > meta.ConfIndex {
		meta.Conf, meta.ConfIndex = in.Conf, in.ConfIndex
	}
	meta.Installing = nil
	return cfg.Meta.Save(meta)
}

// unfinished reports whether the state machine is what an installation left that was begun and not finished.
func unfinished(sm StateMachine, meta *Meta) bool { return meta.Installing != nil && sm.Applied() == 0 }

// pageBytes bounds what is read of the log at a time.
const pageBytes = 4 << 20

// scan calls fn with the entries in [lo, hi].
func scan(log LogReader, lo, hi uint64, fn func(e *raftpb.Entry) error) error {
	for lo <= hi {
		entries, err := log.Entries(lo, hi+1, pageBytes)
		if err != nil {
			return fmt.Errorf("read entries from %d: %w", lo, err)
		}
		for i := range entries {
			if err := fn(&entries[i]); err != nil {
				return err
			}
		}
		lo += uint64(len(entries))
	}
	return nil
}

// catchUpConf brings meta's membership up to applied, with the changes that are in the log.
func catchUpConf(log LogReader, meta *Meta, applied uint64, fullMembers bool) error {
	if applied <= meta.ConfIndex {
		return nil
	}
	lo := max(meta.ConfIndex+1, log.FirstIndex()) // entries go from the log only after their changes are in the meta
	return scan(log, lo, applied, func(e *raftpb.Entry) error {
		if e.Type == raftpb.EntryNormal {
			return nil
		}
		cc, err := decodeConfChange(e)
		if err != nil {
			return fmt.Errorf("entry %d: %w", e.Index, err)
		}
		if id, out, ok := syncStep(cc); ok {
			meta.Conf, meta.ConfIndex = meta.Conf.step(id, out), e.Index
			return nil
		}
		cs, err := changeConf(meta.Conf.raft(), cc, e.Index)
		if err != nil {
			return fmt.Errorf("entry %d: %w", e.Index, err)
		}
		meta.Conf, meta.ConfIndex = meta.Conf.become(cs, fullMembers), e.Index
		return nil
	})
}

// changeConf applies a change to a membership as raft does.
func changeConf(cs raftpb.ConfState, cc raftpb.ConfChangeV2, index uint64) (raftpb.ConfState, error) {
	trk := tracker.MakeProgressTracker(1, 0)
	cfg, prs, err := confchange.Restore(confchange.Changer{Tracker: trk, LastIndex: index}, cs)
	if err != nil {
		return cs, fmt.Errorf("restore the membership: %w", err)
	}
	trk.Config, trk.Progress = cfg, prs
	changer := confchange.Changer{Tracker: trk, LastIndex: index}
	if cc.LeaveJoint() {
		cfg, prs, err = changer.LeaveJoint()
	} else if autoLeave, ok := cc.EnterJoint(); ok {
		cfg, prs, err = changer.EnterJoint(autoLeave, cc.Changes...)
	} else {
		cfg, prs, err = changer.Simple(cc.Changes...)
	}
	if err != nil {
		return cs, fmt.Errorf("change the membership: %w", err)
	}
	trk.Config, trk.Progress = cfg, prs
	return trk.ConfState(), nil
}

// redo repeats what a crash may have undone of what is applied.
func redo(cfg Config) error {
	sm, log := cfg.StateMachine, cfg.Log
	lo, hi := sm.ReplayFrom(), sm.Applied()
	if hi == 0 || lo > hi {
		return nil
	}
	if lo < log.FirstIndex() {
		return fmt.Errorf("%w: it begins at %d, needed from %d", errReplay, log.FirstIndex(), lo)
	}
	return scan(log, lo, hi, func(e *raftpb.Entry) error {
		if e.Type != raftpb.EntryNormal || len(e.Data) == 0 {
			return nil
		}
		if err := sm.Redo(e.Index, e.Data); err != nil {
			return fmt.Errorf("redo entry %d: %w", e.Index, err)
		}
		return nil
	})
}
