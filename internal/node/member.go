package node

import (
	"context"
	"slices"

	"holdfast/internal/replica"
	"holdfast/internal/replica/transport"
)

// member is this node's part in a volume's group. To the group a node that comes again is another member (transport.MemberID); everywhere else people and programs
// mean nodes, so this speaks of members by the numbers of their nodes.
type member struct{ *replica.Replica }

// Status is the replica's, with the numbers of nodes.
func (m member) Status() replica.Status {
	s := m.Replica.Status()
	s.ID, s.Leader = transport.NodeOf(s.ID), transport.NodeOf(s.Leader)
	for i := range s.Peers {
		s.Peers[i].ID = transport.NodeOf(s.Peers[i].ID)
	}
	s.Voters, s.Outgoing, s.Learners, s.Out = nodesOf(s.Voters), nodesOf(s.Outgoing), nodesOf(s.Learners), nodesOf(s.Out)
	return s
}

// Transfer hands leadership to a node, or to the best if it is 0; see replica.Replica.Transfer.
func (m member) Transfer(ctx context.Context, node uint64) error {
	for _, id := range m.Voters() {
		if transport.NodeOf(id) == node {
			node = id
			break
		}
	}
	return m.Replica.Transfer(ctx, node)
}

// names returns the names of members' nodes.
func (n *Node) names(members []uint64) []string {
	var names []string
	for _, id := range members {
		names = append(names, n.nodeName(transport.NodeOf(id)))
	}
	return names
}

// nodesOf returns the nodes of members.
func nodesOf(members []uint64) []uint64 {
	nodes := slices.Clone(members)
	for i := range nodes {
		nodes[i] = transport.NodeOf(nodes[i])
	}
	return nodes
}
