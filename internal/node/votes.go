package node

import (
	"fmt"
	"slices"
	"strings"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/replica"
)

// votes says who decides in the cluster's own group, as far as this node knows: the leader knows who is there.
func (n *Node) votes(state *cluster.State, st *replica.Status) api.ClusterGroup {
	g := api.ClusterGroup{
		Role: st.Role.String(), Term: st.Term, Serving: st.Serving, Changing: st.Joint || len(st.Learners) > 0, Majority: len(st.Voters)/2 + 1,
	}
	for _, v := range st.Voters {
		voter := api.VoterStatus{Node: state.NodeName(v), ID: v, State: api.NodeUnknown}
		switch at := slices.IndexFunc(st.Peers, func(p replica.PeerStatus) bool { return p.ID == v }); {
		case v == n.id.Node:
			voter.State = api.NodeSelf
		case st.Role != replica.RoleLeader || at < 0:
		case st.Peers[at].Active:
			voter.State = api.NodeAnswers
		default:
			voter.State = api.NodeSilent
		}
		g.Voters = append(g.Voters, voter)
	}
	return g
}

// mergeVotes adds what the others said: the leader's view counts. Without a leader it is who answers that can be known.
func mergeVotes(s *api.Status, answers map[uint64]api.Status) {
	leads := func(g *api.ClusterGroup) bool { return g.Role == replica.RoleLeader.String() && g.Serving }
	for _, a := range answers {
		if leads(&a.Group) && (!leads(&s.Group) || a.Group.Term > s.Group.Term) {
			s.Group, s.ClusterLeader = a.Group, a.Node
		}
	}
	if leads(&s.Group) {
		return
	}
	for i := range s.Group.Voters {
		v := &s.Group.Voters[i]
		if v.ID == s.ID {
			continue
		}
		v.State = api.NodeSilent
		if _, ok := answers[v.ID]; ok {
			v.State = api.NodeAnswers
		}
	}
}

// voteWarnings are about the cluster's own group: that it has no majority, or that it would lose it too easily.
func voteWarnings(s *api.Status) (worse, bad []string) {
	g := &s.Group
	var names, silent []string
	for _, v := range g.Voters {
		names = append(names, v.Node)
		if v.State == api.NodeSilent {
			silent = append(silent, v.Node)
		}
	}
	here := len(g.Voters) - len(silent)
	all := strings.Join(names, ", ")
	switch {
	case len(g.Voters) == 0: // the cluster is being made
	case here < g.Majority:
		worse = append(worse, fmt.Sprintf("the cluster's own group has no majority, so nothing can be configured: %d of %s must be up and reach each other, and %s not answer. Volumes whose own nodes are up are served",
			g.Majority, all, verb(silent, "does", "do")))
	case s.ClusterLeader == "":
		worse = append(worse, fmt.Sprintf("the cluster has no leader, so nothing can be configured: %d of %s must be up and reach each other. If they are, they elect one in a moment", g.Majority, all))
	}
	// An even number beyond that survives no fewer losses than one node less, and is nothing to be warned of for ever.
	if len(g.Voters) == 2 && !g.Changing {
		bad = append(bad, fmt.Sprintf("two nodes vote in the cluster's own group, %s: when either is lost nothing can be configured, and no volume moves. Add a third data node (`holdfast node add`) or, beside two data nodes, a witness (`holdfast node add --role witness`)", all))
	}
	return worse, bad
}

// verb lists names with the verb in its number.
func verb(names []string, one, more string) string {
	if len(names) == 1 {
		return names[0] + " " + one
	}
	return strings.Join(names, ", ") + " " + more
}
