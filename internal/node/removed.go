package node

import (
	"fmt"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
)

// removed says what to do if this node is no node of the cluster any more: it knows that it was removed, or several others refuse it and none answers. Usually it does not know, as
// it was none any more when that was decided. It is "" otherwise, and where a wrong clock may be the reason; trustWarnings has more to say then.
func (n *Node) removed(s *api.Status, state *cluster.State) string {
	revoked := state.ID != "" && state.IsRevoked(n.id.Node, n.creds.Self().Serial)
	if !revoked && !looksRemoved(s, state) {
		return ""
	}
	return fmt.Sprintf("the other nodes refuse this node's certificate, as node %s was removed from the cluster, or its certificate was revoked. "+
		"Stop it, and delete its data folder %s, if what is there is not needed any more; to take part again it has to join anew (`holdfast join`), with an empty data folder", n.id.Name, n.local.Data)
}

// looksRemoved reports whether others' refusal can hardly have another reason: that of a single node may be due to its clock, and that of several to this node's.
func looksRemoved(s *api.Status, state *cluster.State) bool {
	return s.CutOff() && len(namesIn(s, api.NodeRefuses)) > 1 && !ended(s, self(s)) && clockBehind(s, state).IsZero()
}
