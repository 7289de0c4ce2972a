package node

import (
	"path/filepath"
	"time"

	"holdfast/internal/config"
	"holdfast/internal/replica"
	"holdfast/internal/replica/transport"
	"holdfast/internal/vfs"
	"holdfast/internal/volume"
)

// openReplica makes the volume's raft group.
func (s *service) openReplica(dir string) error {
	n := s.node
	var peers []uint64
	for _, p := range n.cfg.Nodes {
		peers = append(peers, p.ID)
	}
	var link link
	r, err := replica.New(replica.Config{
		ID: n.cfg.Self().ID, Peers: peers, Timing: timing(n.cfg.Timing),
		Log: s.wal, Meta: replica.MetaFile{FS: vfs.OS(), Name: filepath.Join(dir, "replica.json")},
		StateMachine: machine{s.volume}, Transport: &link, Clock: s.clock,
		Applied: s.applied, Event: s.event, Fatal: n.fail, Logger: s.log,
		CheckpointBytes: n.tuning.checkpointBytes, RetainBytes: n.tuning.retainBytes, RetainMaxBytes: n.tuning.retainMaxBytes,
	})
	if err != nil {
		return err
	}
	s.replica = r
	link.Group = n.transport.Join(uint64(s.cfg.ID), r)
	s.group = link.Group
	return nil
}

// link is the group's connection to the other nodes. The replica must exist before it can join; it sends nothing before it is started.
type link struct{ *transport.Group }

// applied is called by the apply worker for each entry that was applied.
func (s *service) applied(index uint64, entry, reply []byte) {
	if len(entry) > 0 && volume.EntryKind(entry[0]) == volume.EntryMark {
		s.digest(index)
	}
	s.gate.Applied(entry, reply)
}

// raft is the gateway's view of the raft group.
type raft struct{ s *service }

func (r raft) Serving() bool { return r.s.replica.Serving() }

func (r raft) Propose(entry []byte) error { return r.s.replica.Propose(r.s.ctx, entry) }

// machine is the volume as the raft group takes it.
type machine struct{ *volume.Volume }

func (m machine) Snapshot(since uint64) (replica.Snapshot, error) {
	s, err := m.Volume.Snapshot(since)
	if err != nil {
		return nil, err
	}
	return snapshot{s}, nil
}

// snapshot is a volume's snapshot as the raft group takes it.
type snapshot struct{ *volume.Snapshot }

func (s snapshot) Index() uint64 { return s.Snapshot.Index }

// timing converts the configured timing.
func timing(t config.Timing) replica.Timing {
	return replica.Timing{Tick: time.Duration(t.Tick), ElectionTicks: t.Election, Lease: time.Duration(t.Lease), Drift: time.Duration(t.Drift)}
}
