package replica

import (
	"context"
	"io"

	"go.etcd.io/raft/v3/raftpb"
)

// Manual is a Core with its storage and without goroutines: a simulator decides when each piece of work is done, and the code that does it is the one that a
// Replica's workers run. What a Core puts out beyond appends and applies (messages, events, snapshots to send) is the simulator's business. Its methods
// must be called from one goroutine at a time, Install excepted, which may run beside all but Apply and Checkpoint.
type Manual struct {
	// Core is the protocol.
	Core *Core

	r  *Replica
	hs raftpb.HardState // taken over from works that needed no write of their own
}

// NewManual does what New does. Of cfg, Transport, Clock and Event are not used; seed stands for the randomness that New takes from the runtime.
func NewManual(now int64, cfg Config, seed uint64) (*Manual, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	start, err := load(cfg)
	if err != nil {
		return nil, err
	}
	start.Seed = seed
	core, err := NewCore(now, start)
	if err != nil {
		return nil, err
	}
	return &Manual{Core: core, r: newReplica(cfg, core, start)}, nil
}

// Append does works, in one write if it can. AppendDone is to be called for each afterwards.
func (m *Manual) Append(works []AppendWork) error { return m.r.appendAll(works, &m.hs) }

// Apply applies entries. ApplyDone is to be called afterwards.
func (m *Manual) Apply(entries []raftpb.Entry) error { return m.r.apply(entries) }

// Checkpoint checkpoints the state machine and drops the log that is not needed any more.
func (m *Manual) Checkpoint(ctx context.Context, now int64) error {
	return m.r.checkpoint(ctx, func(f func(now int64)) error { f(now); return nil })
}

// LetWitnessesRunAhead breaks the rule that a witness gets nothing that the leader's disk and the data members in sync do not have, to show that checks notice.
func (m *Manual) LetWitnessesRunAhead() { m.Core.ahead = true }

// Install replaces the state machine's state, which was at since when the sender was told, by what stream brings. whole tells afterwards whether the stream came
// whole. EndInstall is to be called afterwards.
func (m *Manual) Install(in SnapshotMeta, since uint64, stream io.Reader, whole func() bool) (*SnapshotMeta, error) {
	return m.r.installStream(in, since, stream, whole)
}

// EndInstall tells the Core what became of an installation; meta is nil if it failed.
func (m *Manual) EndInstall(now int64, from uint64, meta *SnapshotMeta) {
	m.r.endInstallNow(now, from, meta)
}
