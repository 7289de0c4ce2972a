package node

import (
	"fmt"
	"strings"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
)

// namesIn lists the nodes in a state.
func namesIn(s *api.Status, state api.NodeState) []string {
	var names []string
	for i := range s.Nodes {
		if s.Nodes[i].State == state {
			names = append(names, s.Nodes[i].Name)
		}
	}
	return names
}

// self is the node that answers, as a member; an empty one if it is none.
func self(s *api.Status) *api.NodeStatus {
	for i := range s.Nodes {
		if s.Nodes[i].ID == s.ID {
			return &s.Nodes[i]
		}
	}
	return &api.NodeStatus{}
}

// ended reports whether a node's certificate has ended by the clock of the node that answers.
func ended(s *api.Status, n *api.NodeStatus) bool {
	return !n.Expires.IsZero() && s.Time.After(n.Expires)
}

// clockBehind returns the time of the cluster's newest event if this node's clock says that it is yet to come; zero otherwise. Leaders' clocks may have differed a little.
func clockBehind(s *api.Status, state *cluster.State) time.Time {
	if len(state.Events) == 0 {
		return time.Time{}
	}
	if newest := state.Events[len(state.Events)-1].Time; newest.Sub(s.Time) > time.Hour {
		return newest
	}
	return time.Time{}
}

// What to do about clocks that keep nodes apart.
const (
	compareClocks = "compare the clocks of both (`date`)"
	setClock      = "set it (`chronyc tracking`, `timedatectl`)"
)

// trustWarnings are about nodes that do not accept each other's certificates. Clocks are the first suspects: one that is months ahead takes all certificates for ended, and one that
// is behind does not see that its own has to be renewed.
func trustWarnings(s *api.Status, state *cluster.State) []string {
	here, cut := s.Time.Local().Format(time.DateTime), s.CutOff()
	if newest := clockBehind(s, state); cut && !newest.IsZero() {
		return []string{fmt.Sprintf("this node's clock is wrong, and no other node accepts it: it says %s, and the newest event that this node knows of was at %s. If it is not right by itself in a moment, "+setClock,
			here, newest.Local().Format(time.DateTime))}
	}
	if old := namesIn(s, api.NodeExpired); cut && len(old) > 1 {
		return []string{fmt.Sprintf("by this node's clock, which says %s, the certificates of nodes %s have ended, so that it connects to none of them: it is likely that this clock is wrong. Compare it with theirs (`date`), and "+setClock,
			here, strings.Join(old, ", "))}
	}
	var all []string
	own := self(s)
	if refuse := namesIn(s, api.NodeRefuses); len(refuse) > 0 && ended(s, own) {
		w := fmt.Sprintf("the certificate of this node ended on %s by its clock, which says %s, and is refused by %s: compare the clocks (`date`). If they agree, ", own.Expires.Local().Format(time.DateTime), here, strings.Join(refuse, ", "))
		if own.Role == string(cluster.RoleWitness) {
			all = append(all, w+fmt.Sprintf("this node was away for too long: get it a new one (`holdfast node replace %s`)", own.Name))
		} else {
			all = append(all, w+"the log says why it has not renewed its certificate (`journalctl -u holdfast`)")
		}
	}
	for i := range s.Nodes {
		switch n := &s.Nodes[i]; {
		case n.State == api.NodeExpired:
			all = append(all, expiredWarning(s, n))
		case n.State == api.NodeRefuses && ended(s, own): // it was said
		case n.State == api.NodeRefuses && cut:
			all = append(all, fmt.Sprintf("node %s refuses this node's certificate, and no other answers: "+compareClocks+", as one that is months ahead takes certificates for ended. "+
				"If they agree, this node was removed from the cluster, or its certificate was revoked: the log there says so (`journalctl -u holdfast`)", n.Name))
		case n.State == api.NodeRefuses:
			all = append(all, fmt.Sprintf("node %s refuses this node's certificate: "+compareClocks+", as one that is months ahead takes certificates for ended. "+
				"If they agree, the log there says why (`journalctl -u holdfast`)", n.Name))
		}
	}
	return all
}

// expiredWarning is about a node whose certificate has ended as this node's clock says. Only a witness cannot renew its own when it comes back after a long time.
func expiredWarning(s *api.Status, n *api.NodeStatus) string {
	when := "has ended"
	if ended(s, n) {
		when = "ended on " + n.Expires.Local().Format(time.DateTime)
	}
	w := fmt.Sprintf("the certificate of node %s %s by this node's clock, which says %s, so that this node does not connect to it: "+compareClocks, n.Name, when, s.Time.Local().Format(time.DateTime))
	if n.Role == string(cluster.RoleWitness) {
		return w + fmt.Sprintf(". If they agree, node %s was away for too long: get it a new one (`holdfast node replace %s`)", n.Name, n.Name)
	}
	return w + ". If they agree, the log there says why it was not renewed (`journalctl -u holdfast`)"
}
