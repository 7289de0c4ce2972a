package node

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/replica"
)

// Status implements api.Backend.
func (n *Node) Status(ctx context.Context, local bool) api.Status {
	state := n.cluster.state()
	var others *asked
	if !local {
		others = n.askAll(ctx, state)
	}
	// The node's own view last, so that it is not older than the others' when a node has not answered.
	s := n.localStatus(ctx, state)
	if !local {
		others.merge(&s)
	}
	s.Time = n.now()
	s.Warnings = warnings(&s, state, local)
	if s.Removed = n.removed(&s, state); s.Removed != "" {
		// That the others do not answer, as it looks from here, is not what is wrong.
		s.Warnings = []string{s.Removed}
	}
	return s
}

// localStatus is what this node knows by itself.
func (n *Node) localStatus(ctx context.Context, state *cluster.State) api.Status {
	q := n.inquire(ctx, state)
	group := q.known(n.cluster.replica)
	s := api.Status{
		Cluster: n.id.ClusterName, ClusterID: n.id.ClusterID, Node: n.id.Name, ID: n.id.Node, Role: string(n.id.Role), Release: n.release, Started: n.started,
		ClusterVersion: state.Version, Revision: state.Revision, ClusterLeader: state.NodeName(group.Leader), Group: n.votes(state, &group), RSSBytes: residentBytes(),
	}
	if free, total, err := n.space(); err == nil {
		s.DiskFreeBytes, s.DiskTotalBytes = free, total
	}
	if m := state.Maintenance; m != nil && (m.Until.IsZero() || time.Now().Before(m.Until)) {
		s.Maintenance = cmp.Or(m.Why, "no reason was given")
		if !m.Until.IsZero() {
			s.Maintenance += ", until " + m.Until.Local().Format(time.DateTime)
		}
	}
	for i := range state.Nodes {
		m := &state.Nodes[i]
		ns := api.NodeStatus{
			Name: m.Name, ID: m.Number, Role: string(m.Role), Peer: m.Peer, Zone: m.Zone, State: api.NodeUnknown, Release: m.Release,
			Standby: m.Standby, Leaving: m.Leaving, Expires: m.Expires,
		}
		if m.Number == n.id.Node {
			ns.State, ns.Release, ns.Started, ns.Expires = api.NodeSelf, n.release, n.started, n.creds.Certificate().NotAfter
		}
		s.Nodes = append(s.Nodes, ns)
	}
	for i := range state.Volumes {
		s.Volumes = append(s.Volumes, n.volumeStatus(state, &state.Volumes[i], q, s.DiskTotalBytes))
	}
	return s
}

// volumeStatus is what this node, whose disk has that many bytes, knows of a volume.
func (n *Node) volumeStatus(state *cluster.State, v *cluster.Volume, q inquiry, disk uint64) api.VolumeStatus {
	vs := api.VolumeStatus{
		Name: v.Spec.Name, ID: v.ID, Address: v.Spec.MountAddr().String(), Copies: v.Spec.Copies, Prefer: v.Spec.Prefer,
		SizeBytes: uint64(v.Spec.Size), Exports: []string{}, Safety: api.SafetyDown,
	}
	for i := range v.Spec.Exports {
		vs.Exports = append(vs.Exports, v.Spec.Exports[i].Path)
	}
	for _, m := range v.Members {
		vs.Members = append(vs.Members, state.NodeName(m))
	}
	n.mu.Lock()
	g, broken, cramped := n.groups[v.ID], n.broken[v.ID], n.cramped[v.ID]
	n.mu.Unlock()
	if why := cmp.Or(cramped, n.short.waits(v.ID, disk)); why != "" {
		vs.NoRoom = []string{"node " + n.id.Name + ": " + why}
	}
	if g == nil {
		vs.Role = "none"
		switch {
		case errors.Is(broken, replica.ErrFilesGone):
			vs.Gone = []string{n.id.Name}
		case broken != nil:
			vs.Problems = []string{"node " + n.id.Name + ": " + broken.Error()}
		}
		return vs
	}
	st := q.known(g.raft())
	vs.Role, vs.Leader, vs.Term = st.Role.String(), state.NodeName(st.Leader), st.Term
	vs.Commit, vs.Applied, vs.First, vs.Last, vs.MissedTicks = st.Commit, st.Applied, st.First, st.Last, st.MissedTicks
	if st.Role == replica.RoleBlank || st.Recovering {
		vs.Gone = []string{n.id.Name}
	}
	if s, ok := g.(*service); ok {
		s.describe(&vs, state, v, &st)
	} else {
		vs.Role = "witness"
	}
	return vs
}

// describe adds what the volume's copy at this node knows.
func (s *service) describe(vs *api.VolumeStatus, state *cluster.State, v *cluster.Volume, st *replica.Status) {
	if s.scarce.now.Load() {
		vs.NoRoom = []string{"node " + s.node.id.Name + ": its disk is nearly full, and the copy waits for more room"}
	}
	vs.Serving, vs.LeaseMS, vs.Problems = s.isServing(), st.LeaseNS/int64(time.Millisecond), s.problems()
	vs.UsedBytes, vs.SizeBytes = s.volume.Usage()
	for _, e := range s.volume.Exports() {
		vs.Published = append(vs.Published, e.Path)
	}
	slices.Sort(vs.Published)
	if free, total, err := s.node.space(); err == nil {
		vs.Space = api.SpaceStatus{FreeBytes: free, TotalBytes: total, Full: s.full.Load()}
	}
	l := s.wal.Stats()
	vs.Log = api.LogStatus{Segments: l.Segments, Bytes: uint64(l.SegmentBytes), LastSyncUS: l.LastSync.Microseconds()}
	if st.Role != replica.RoleLeader {
		return
	}
	vs.AddressProblem, vs.NoRoom = s.door.trouble(), s.cramped.list()
	if text := s.checking.Load(); text != nil {
		vs.Check = *text
	}
	if vs.Space.Full {
		vs.Space.Low = s.belowReserve(st.Peers)
	}
	vs.OneCopy, vs.Changing = st.OneCopy, st.Joint || len(st.Learners) > 0
	if p := s.placement.Load(); p != nil {
		vs.Placement = p.Why
	}
	vs.Replicas = append(vs.Replicas, api.ReplicaStatus{Node: s.node.id.Name, ID: s.node.id.Node, Role: "leader", Match: st.Last, Active: true, InSync: true})
	for _, p := range st.Peers {
		vs.Replicas = append(vs.Replicas, s.replicaStatus(state, &p, vs.UsedBytes))
	}
	vs.Clients = s.clients()
	vs.Safety = safety(vs, v)
}

// replicaStatus is one other copy, as the leader sees it.
func (s *service) replicaStatus(state *cluster.State, p *replica.PeerStatus, used uint64) api.ReplicaStatus {
	r := api.ReplicaStatus{
		Node: state.NodeName(p.ID), ID: p.ID, Role: "follower", Match: p.Match, Lag: p.Lag, Active: p.Active, InSync: p.InSync,
		Learner: p.Learner, Witness: replica.IsWitness(p.ID), Snapshot: p.Snapshot,
	}
	switch {
	case r.Witness:
		r.Role = "witness"
	case p.Learner:
		r.Role = "learner"
	}
	if p.Snapshot {
		r.SentBytes = p.SnapshotBytes
		r.Rate, r.Remaining = s.progress.note(p.ID, p.SnapshotBytes, used)
	}
	return r
}

// safety is how many more losses the volume survives.
func safety(vs *api.VolumeStatus, v *cluster.Volume) api.Safety {
	voters, up, copies := 0, 0, 0
	for _, r := range vs.Replicas {
		if r.Learner {
			continue
		}
		voters++
		if r.Active && (r.InSync || r.Witness) {
			up++
			if !r.Witness {
				copies++
			}
		}
	}
	majority := voters/2 + 1
	switch {
	case !vs.Serving:
		return api.SafetyDown
	case vs.OneCopy, up-1 < majority, copies < 2:
		return api.SafetyNone
	case vs.Changing, up < voters, len(v.DataMembers()) < vs.Copies && len(v.Members) < vs.Copies:
		return api.SafetyReduced
	}
	return api.SafetyFull
}

// nodeName returns a member's name, empty for 0.
func (n *Node) nodeName(number uint64) string { return n.cluster.state().NodeName(number) }

// residentBytes returns how much memory the process holds, 0 if the kernel does not say.
func residentBytes() uint64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(b)
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseUint(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize())
}

// progress measures how fast snapshots go over.
type progress struct {
	mu    sync.Mutex
	peers map[uint64]sample
}

type sample struct {
	began time.Time
	first int64
	last  int64
}

// note takes how many bytes of a snapshot were sent to a member, and returns the rate since it began, in bytes a second, and the seconds that are left.
func (p *progress) note(id uint64, sent int64, total uint64) (rate, remaining float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	s, ok := p.peers[id]
	if !ok || sent < s.last {
		s = sample{began: now, first: sent}
	}
	s.last = sent
	if p.peers == nil {
		p.peers = map[uint64]sample{}
	}
	p.peers[id] = s
	if d := now.Sub(s.began).Seconds(); d > 0 {
		rate = float64(sent-s.first) / d
	}
	if left := float64(total) - float64(sent); rate > 0 && left > 0 {
		remaining = left / rate
	}
	return rate, remaining
}
