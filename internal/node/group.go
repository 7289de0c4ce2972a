package node

import (
	"fmt"
	"path/filepath"
	"time"

	"holdfast/internal/cluster"
	"holdfast/internal/config"
	"holdfast/internal/replica"
	"holdfast/internal/replica/transport"
	"holdfast/internal/vfs"
	"holdfast/internal/volume"
)

// openReplica makes the volume's raft group.
func (s *service) openReplica(dir string, v *cluster.Volume) error {
	n := s.node
	link := volumeLink{s: s}
	r, err := n.newReplica(v, dir, replica.Config{
		Log: sparing{s.wal, s}, StateMachine: machine{s.volume, s}, Transport: &link, Applied: s.applied, Event: s.event, Logger: s.log,
		CheckpointBytes: n.tuning.checkpointBytes, RetainBytes: n.tuning.retainBytes, RetainMaxBytes: n.tuning.retainMaxBytes,
	})
	if err != nil {
		return err
	}
	s.replica = r
	link.Group = n.transport.Join(uint64(v.ID), v.MemberID(n.id.Node), receiver{r.Replica, s})
	s.group = link.Group
	return nil
}

// newReplica makes this node's member of a volume's group, and writes down that it has one.
func (n *Node) newReplica(v *cluster.Volume, dir string, cfg replica.Config) (member, error) {
	_, known := n.begun.get(uint64(v.ID))
	cfg.ID, cfg.Peers, cfg.Fresh = v.MemberID(n.id.Node), v.First, !known
	cfg.Timing = timing(n.cluster.state().Timing)
	cfg.Meta = replica.MetaFile{FS: vfs.OS(), Name: filepath.Join(dir, metaFile)}
	cfg.Group, cfg.Incarnations = n.groupName(v), incarnations{n.begun, uint64(v.ID)}
	cfg.Clock, cfg.Fatal = n.clock, n.fail
	cfg.Name = func(member uint64) string { return n.nodeName(transport.NodeOf(member)) }
	r, err := replica.New(cfg)
	if err != nil {
		return member{}, err
	}
	// Only now, as a member that begins has something durable first; and before it starts, because it has something to forget from then on.
	if err := n.begun.add(uint64(v.ID), part{Since: n.cluster.machine.Applied(), Part: v.Parts[n.id.Node]}); err != nil {
		return member{}, fmt.Errorf("begin: %w", err)
	}
	return member{r}, nil
}

// groupName is the name of a volume's group among those of all clusters.
func (n *Node) groupName(v *cluster.Volume) string {
	return fmt.Sprintf("%s/%d", n.cluster.state().ID, v.ID)
}

// groupLink is a group's connection to the other nodes. The replica must exist before it can join; it sends nothing before it is started.
type groupLink struct{ *transport.Group }

// applied is called by the apply worker for each entry that was applied.
func (s *service) applied(index uint64, entry, reply []byte) {
	if len(entry) > 0 && volume.EntryKind(entry[0]) == volume.EntryMark {
		s.digest(index)
	}
	s.gate.Applied(entry, reply)
}

// raft is the gateway's view of the raft group.
type raft struct{ s *service }

func (r raft) ServingTerm() uint64 { return r.s.replica.ServingTerm() }

func (r raft) Propose(entry []byte) error { return r.s.replica.Propose(r.s.ctx, entry) }

// machine is the volume as the raft group takes it.
type machine struct {
	*volume.Volume
	s *service
}

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

// timing converts what the cluster has agreed on.
func timing(t config.Timing) replica.Timing {
	return replica.Timing{Tick: time.Duration(t.Tick), ElectionTicks: t.Election, Lease: time.Duration(t.Lease), Drift: time.Duration(t.Drift)}
}
