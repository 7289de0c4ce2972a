package node

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/replica"
	"holdfast/internal/replica/transport"
)

const (
	// fitAsk is how often a node that has no part in a volume's group yet is asked for its room, and fitForget how long what was found counts.
	fitAsk    = 2 * time.Second
	fitForget = 10 * time.Second
	// fitPatience is how long a snapshot waits for room at its receiver before that counts as an attempt that failed, and fitPoll how often the leader looks.
	fitPatience = 30 * time.Second
	fitPoll     = 500 * time.Millisecond
	// reportPatience is how long a member is waited for that has not reported yet, and reportPoll how often the leader looks.
	reportPatience = 2 * time.Second
	reportPoll     = 20 * time.Millisecond
)

// cramped are the nodes that have no room for the copy that they should get, as the volume's leader sees it.
type cramped struct {
	mu    sync.Mutex
	nodes map[uint64]finding
	// sending: a snapshot waits for its receiver to have room. One at a time does, so that others can be sent.
	sending sync.Mutex
}

// finding is what was found out about a node's room.
type finding struct {
	at  time.Time
	why string // "" if it has room, or nothing is known of it
}

// note remembers what was found out, and reports whether the node had room until now and has none any more.
func (c *cramped) note(node uint64, why string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.nodes[node]
	if c.nodes == nil {
		c.nodes = map[uint64]finding{}
	}
	c.nodes[node] = finding{at: time.Now(), why: why}
	return why != "" && (was.why == "" || time.Since(was.at) > fitForget)
}

// get returns what was found out about a node; asked tells whether that was a moment ago.
func (c *cramped) get(node uint64) (why string, asked bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.nodes[node]
	age := time.Since(f.at)
	if age > fitForget {
		return "", false
	}
	return f.why, age < fitAsk
}

// list says of each node that has no room why that is so.
func (c *cramped) list() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []string
	for _, f := range c.nodes {
		if f.why != "" && time.Since(f.at) < fitForget {
			all = append(all, f.why)
		}
	}
	slices.Sort(all)
	return all
}

// tooLittle says that a node has not enough room for a copy, and for a log as it is here unless it has begun its own; "" if it has.
func (s *service) tooLittle(node, free uint64, begun bool) string {
	used, _ := s.volume.Usage()
	rest := max(uint64(s.spec.Load().Reserve), roomLeft)
	with := ""
	if !begun {
		// It may get the log rather than a snapshot.
		l := s.wal.Stats()
		log := uint64(l.SegmentBytes) / uint64(max(l.Segments, 1)) * uint64(l.Segments+l.Spares)
		rest, with = rest+log, fmt.Sprintf("its log, %s, ", bytesText(log))
	}
	if free >= used+rest {
		return ""
	}
	return fmt.Sprintf("node %s: %s are free, and a copy needs %s: what the volume uses, %s, %sand what stays free",
		s.node.nodeName(node), bytesText(free), bytesText(used+rest), bytesText(used), with)
}

// lacksRoom says why a member's node has no room for the snapshot that it needs, "" if it has, or nothing is known of it.
func (s *service) lacksRoom(p *replica.PeerStatus) string {
	r, ok := decodeReport(p.Report)
	switch {
	case !ok || !p.Active:
		return ""
	case r.NoRoom:
		return fmt.Sprintf("node %s: what it was sent does not fit, %s are free now; it gets another try later", s.node.nodeName(p.ID), bytesText(r.Free))
	case p.Applied == 0:
		return s.tooLittle(p.ID, r.Free, true)
	}
	// What it has of the volume goes, bit by bit; how much that is nobody knows but itself, and it stops in time.
	return s.tooLittle(p.ID, r.Total, true)
}

// askRoom asks a node that is not a member of the group yet whether it has room for a copy.
func (s *service) askRoom(ctx context.Context, node uint64) string {
	c, err := s.node.peers.client(node, "")
	if err != nil {
		return ""
	}
	limited, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	st, err := c.Status(limited, true)
	if err != nil {
		return "" // it is waited for, as a member that does not answer is
	}
	at := slices.IndexFunc(st.Volumes, func(v api.VolumeStatus) bool { return v.ID == s.number })
	if at >= 0 && st.Volumes[at].Role != "none" && len(st.Volumes[at].NoRoom) > 0 {
		return st.Volumes[at].NoRoom[0]
	}
	if at >= 0 && st.Volumes[at].Applied > 0 {
		return "" // it has been a member
	}
	if st.DiskTotalBytes > 0 {
		if why := s.tooLittle(node, st.DiskFreeBytes, at >= 0 && st.Volumes[at].Role != "none"); why != "" {
			return why
		}
	}
	if at >= 0 && len(st.Volumes[at].NoRoom) > 0 {
		return st.Volumes[at].NoRoom[0]
	}
	return ""
}

// foundRoom notes what was found out about a node's room, and tells everybody when it has none.
func (s *service) foundRoom(node uint64, why string) {
	if !s.cramped.note(node, why) {
		return
	}
	s.log.Warn("a node has too little room for its copy: it gets none before it has", "node", s.node.nodeName(node), "why", why)
	s.node.note(cluster.Event{Kind: cluster.EventMember, Volume: s.name, Node: s.node.nodeName(node), Text: "no copy is begun: " + why})
}

// fitting returns the members that the group can have now: those that are wanted, and, while nodes that are to come have no room for a copy, those that it has in their stead.
func (s *service) fitting(ctx context.Context, st *replica.Status, want []uint64) []uint64 {
	var lacking []uint64
	for _, id := range want {
		node := transport.NodeOf(id)
		if slices.Contains(st.Voters, id) || replica.IsWitness(node) || node == s.node.id.Node {
			continue
		}
		why, asked := s.cramped.get(node)
		// Of a learner that takes part the sending of the snapshot finds it out.
		for _, p := range st.Peers {
			if r, ok := decodeReport(p.Report); ok && p.ID == id && p.Learner && p.Active && r.NoRoom {
				p.ID = node
				why = s.lacksRoom(&p)
				s.foundRoom(node, why)
			}
		}
		takesPart := slices.ContainsFunc(st.Peers, func(p replica.PeerStatus) bool { return p.ID == id && p.Active })
		if !asked && !takesPart {
			why = s.askRoom(ctx, node)
			s.foundRoom(node, why)
		}
		if why != "" {
			lacking = append(lacking, id)
		}
	}
	return withRoom(st.Voters, want, lacking)
}

// withRoom returns the members of want that are not lacking, and those of have that must stay because of that: all of them. Both are sorted, and so is the result.
func withRoom(have, want, lacking []uint64) []uint64 {
	if len(lacking) == 0 {
		return want
	}
	var fit []uint64
	for _, id := range want {
		// A witness would be of no use yet: it stands beside two copies.
		if !slices.Contains(lacking, id) && (slices.Contains(have, id) || !replica.IsWitness(transport.NodeOf(id))) {
			fit = append(fit, id)
		}
	}
	nodes := nodesOf(fit)
	for _, id := range have {
		if !slices.Contains(nodes, transport.NodeOf(id)) {
			fit = append(fit, id)
		}
	}
	slices.Sort(fit)
	return fit
}

// volumeLink is a volume's connection to the other nodes: it does not begin to send a copy where that has no room.
type volumeLink struct {
	groupLink
	s *service
}

// OpenSnapshot implements replica.Transport.
func (l *volumeLink) OpenSnapshot(ctx context.Context, to uint64) (transport.Stream, error) {
	if err := l.s.awaitRoom(ctx, to); err != nil {
		return nil, err
	}
	return l.groupLink.OpenSnapshot(ctx, to)
}

// awaitRoom waits, for a while, until a member has room for a snapshot, while this node leads and it is a member.
func (s *service) awaitRoom(ctx context.Context, to uint64) error {
	if replica.IsWitness(transport.NodeOf(to)) {
		return nil
	}
	end, waiting := time.Now().Add(fitPatience), false
	for {
		st := s.replica.Replica.Status()
		at := slices.IndexFunc(st.Peers, func(p replica.PeerStatus) bool { return p.ID == to })
		if at < 0 {
			return fmt.Errorf("%d is no member any more", to)
		}
		p := st.Peers[at]
		if len(p.Report) == 0 && time.Until(end) > fitPatience-reportPatience {
			// It has just started: its report is on its way.
			if pause(ctx, reportPoll); ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		p.ID = transport.NodeOf(to)
		why := s.lacksRoom(&p)
		s.foundRoom(p.ID, why)
		if why == "" {
			return nil
		}
		s.kick() // one that has no vote yet need not be a member meanwhile
		if !waiting && !s.cramped.sending.TryLock() || st.Role != replica.RoleLeader || time.Now().After(end) {
			return fmt.Errorf("%w: %s", errNoRoom, why)
		}
		if !waiting {
			waiting = true
			defer s.cramped.sending.Unlock()
		}
		if pause(ctx, fitPoll); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
