package node

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/replica"
)

// Status implements api.Backend.
func (n *Node) Status(context.Context) api.Status {
	s := api.Status{
		Cluster: n.cfg.Cluster.Name, Node: n.cfg.Node, ID: n.cfg.Self().ID, Version: n.version, Started: n.started, RSSBytes: residentBytes(),
	}
	states := map[uint64]api.NodeState{}
	for _, svc := range n.services {
		st := svc.replica.Status()
		noteStates(states, st)
		v := svc.status(n, st)
		s.Volumes = append(s.Volumes, v)
		s.Warnings = append(s.Warnings, warnings(n, v, st)...)
	}
	states[s.ID] = api.NodeSelf
	for _, p := range n.cfg.Nodes {
		state, ok := states[p.ID]
		if !ok {
			state = api.NodeUnknown
		}
		s.Nodes = append(s.Nodes, api.NodeStatus{Name: p.Name, ID: p.ID, Peer: p.Peer, State: state})
	}
	return s
}

// noteStates adds what one group knows of its members.
func noteStates(states map[uint64]api.NodeState, st replica.Status) {
	leads := st.Role == replica.RoleLeader
	for _, p := range st.Peers {
		switch {
		case p.Active:
			states[p.ID] = api.NodeAnswers
		case leads && states[p.ID] != api.NodeAnswers:
			states[p.ID] = api.NodeSilent
		}
	}
}

// nodeName returns a member's name, empty for 0.
func (n *Node) nodeName(id uint64) string {
	for _, p := range n.cfg.Nodes {
		if p.ID == id {
			return p.Name
		}
	}
	return ""
}

func (s *service) status(n *Node, st replica.Status) api.VolumeStatus {
	v := api.VolumeStatus{
		Name: s.cfg.Name, ID: s.cfg.ID, Address: s.cfg.MountAddr().String(), Role: st.Role.String(), Leader: n.nodeName(st.Leader),
		Term: st.Term, Commit: st.Commit, Applied: st.Applied, First: st.First, Last: st.Last,
		Serving: s.isServing(), LeaseMS: st.LeaseNS / int64(time.Millisecond), MissedTicks: st.MissedTicks,
	}
	for _, e := range s.exports.Exports() {
		v.Exports = append(v.Exports, e.Path)
	}
	if free, total, err := s.store.Space(); err == nil {
		v.Space = api.SpaceStatus{FreeBytes: free, TotalBytes: total, Full: s.full.Load()}
	}
	l := s.wal.Stats()
	v.Log = api.LogStatus{Segments: l.Segments, Bytes: uint64(l.SegmentBytes), LastSyncUS: l.LastSync.Microseconds()}
	if st.Role != replica.RoleLeader {
		return v
	}
	self := n.cfg.Self()
	v.Replicas = append(v.Replicas, api.ReplicaStatus{Node: self.Name, ID: self.ID, Role: "leader", Match: st.Last, Active: true, InSync: true})
	for _, p := range st.Peers {
		v.Replicas = append(v.Replicas, api.ReplicaStatus{
			Node: n.nodeName(p.ID), ID: p.ID, Role: "follower", Match: p.Match, Lag: p.Lag, Active: p.Active, InSync: p.InSync, Snapshot: p.Snapshot,
		})
	}
	v.Clients = s.clients()
	return v
}

// warnings are what a person should look at, of one volume.
func warnings(n *Node, v api.VolumeStatus, st replica.Status) []string {
	var w []string
	if st.Leader == 0 {
		w = append(w, fmt.Sprintf("volume %s has no leader: clients wait. A majority of the %d nodes must be up and reach each other", v.Name, len(n.cfg.Nodes)))
	}
	if len(n.cfg.Nodes) == 1 {
		w = append(w, fmt.Sprintf("volume %s has one copy: the loss of this node's disk loses it", v.Name))
	}
	if st.NeedsSnapshot {
		w = append(w, fmt.Sprintf("volume %s: this node's copy is being rebuilt from the leader's; it does not count as a copy yet", v.Name))
	}
	for _, r := range v.Replicas {
		switch {
		case !r.Active:
			w = append(w, fmt.Sprintf("volume %s: node %s does not answer: its copy falls behind. Start it, or look at its network", v.Name, r.Node))
		case !r.InSync:
			w = append(w, fmt.Sprintf("volume %s: the copy on node %s is %d entries behind and catching up", v.Name, r.Node, r.Lag))
		}
	}
	if v.Space.Full {
		w = append(w, fmt.Sprintf("volume %s is full: a replica is below its reserve, growth is refused. Remove files, or enlarge the file system of %s", v.Name, n.cfg.Data))
	}
	return w
}

// Transfer implements api.Backend.
func (n *Node) Transfer(ctx context.Context, volume, to string) (api.TransferResult, error) {
	s, err := n.service(volume)
	if err != nil {
		return api.TransferResult{}, err
	}
	if err := n.mustLead(s); err != nil {
		return api.TransferResult{}, err
	}
	var id uint64
	if to != "" {
		p := n.cfg.NodeByName(to)
		if p == nil {
			return api.TransferResult{}, api.Errorf(http.StatusBadRequest, "there is no node %q in the configuration", to)
		}
		id = p.ID
	}
	start := time.Now()
	if err := s.replica.Transfer(ctx, id); err != nil {
		return api.TransferResult{}, fmt.Errorf("volume %s: %w", volume, err)
	}
	return api.TransferResult{Volume: volume, From: n.cfg.Node, To: n.nodeName(s.replica.Status().Leader), Seconds: time.Since(start).Seconds()}, nil
}

// service finds a volume's service.
func (n *Node) service(volume string) (*service, error) {
	for _, s := range n.services {
		if s.cfg.Name == volume {
			return s, nil
		}
	}
	return nil, api.Errorf(http.StatusNotFound, "there is no volume %q on this node", volume)
}

// mustLead says where to go if this node does not lead the volume.
func (n *Node) mustLead(s *service) error {
	st := s.replica.Status()
	switch {
	case st.Role == replica.RoleLeader:
		return nil
	case st.Leader == 0:
		return api.Errorf(http.StatusServiceUnavailable, "volume %s has no leader at the moment", s.cfg.Name)
	}
	return api.Errorf(http.StatusConflict, "volume %s is led by node %s: ask there", s.cfg.Name, n.nodeName(st.Leader))
}

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
