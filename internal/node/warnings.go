package node

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
)

// certificateMargin is how long before its end a certificate that was not renewed is worth a warning: nodes renew theirs much earlier.
const certificateMargin = 14 * 24 * time.Hour

// warnings are what a person should look at, worst first.
func warnings(s *api.Status, state *cluster.State, local bool) []string {
	var bad, worse []string
	trust := trustWarnings(s, state)
	if s.CutOff() {
		worse = trust // it explains the rest
	} else {
		bad = trust
	}
	for i := range s.Volumes {
		w, b := volumeWarnings(&s.Volumes[i], s, local)
		worse, bad = append(worse, w...), append(bad, b...)
	}
	if state.ID != "" {
		w, b := voteWarnings(s)
		worse, bad = append(worse, w...), append(bad, b...)
	}
	if w, urgent := clockWarning(s); urgent {
		worse = append(worse, w)
	} else if w != "" {
		bad = append(bad, w)
	}
	now := likelyTime(s)
	for i := range s.Nodes {
		n := &s.Nodes[i]
		switch {
		case n.State == api.NodeSilent && n.Leaving:
			bad = append(bad, fmt.Sprintf("node %s does not answer; it is being removed", n.Name))
		case n.State == api.NodeSilent && needed(s, n.Name):
			bad = append(bad, fmt.Sprintf("node %s does not answer at %s: start it, or look at its network. Do not replace it while its disk can be read: volumes wait for what is on it", n.Name, n.Peer))
		case n.State == api.NodeSilent:
			bad = append(bad, fmt.Sprintf("node %s does not answer at %s: start it, look at its network, or replace it (`holdfast node replace %s`)", n.Name, n.Peer, n.Name))
		case n.Standby:
			bad = append(bad, fmt.Sprintf("node %s is in standby and will not serve: `holdfast unstandby %s` when the work is done", n.Name, n.Name))
		}
		if !n.Expires.IsZero() && n.Expires.Sub(now) < certificateMargin && n.State != api.NodeExpired && !s.CutOff() {
			bad = append(bad, fmt.Sprintf("the certificate of node %s ends on %s and was not renewed: the node must be up and reach a data node", n.Name, n.Expires.Local().Format(time.DateTime)))
		}
	}
	if s.Maintenance != "" {
		bad = append(bad, fmt.Sprintf("the cluster is in maintenance (%s): volumes do not move by themselves to nodes that they prefer. `holdfast maintenance off` ends it", s.Maintenance))
	}
	return append(worse, bad...)
}

// needed reports whether a node keeps a volume that nobody serves.
func needed(s *api.Status, node string) bool {
	return slices.ContainsFunc(s.Volumes, func(v api.VolumeStatus) bool { return v.Leader == "" && slices.Contains(v.Members, node) })
}

// newestAway is the data node that a volume with a witness waits for, although the others are most of its nodes: the one that went on alone, as they know. It is nil
// where that is not what is missing.
func newestAway(v *api.VolumeStatus, s *api.Status) *api.NodeStatus {
	var newest *api.NodeStatus
	witness, away := false, 0
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if !slices.Contains(v.Members, n.Name) {
			continue
		}
		witness = witness || n.Role == string(cluster.RoleWitness)
		switch n.State {
		case api.NodeSilent, api.NodeRefuses, api.NodeExpired:
			away++
			if n.Role == string(cluster.RoleData) {
				newest = n
			}
		}
	}
	if !witness || 2*away >= len(v.Members) {
		return nil
	}
	return newest
}

// problemNode is the node that a problem of a volume's copy is on, as people type it.
func problemNode(problem string) string {
	node, _, _ := strings.Cut(strings.TrimPrefix(problem, "node "), ":")
	return node
}

// volumeWarnings are those of one volume, the ones that hurt first.
func volumeWarnings(v *api.VolumeStatus, s *api.Status, local bool) (worse, bad []string) {
	warn := func(list *[]string, format string, args ...any) {
		*list = append(*list, "volume "+v.Name+": "+fmt.Sprintf(format, args...))
	}
	if v.Leader == "" && !(local && v.Role == "none") {
		switch alone := newestAway(v, s); {
		case 2*len(v.Gone) > len(v.Members):
			warn(&worse, "THE FILES OF MOST COPIES ARE GONE, on %s: so the newest data may be, and no node serves the volume. Is a disk not mounted, or a folder moved? Stop holdfast there, bring back what was in volumes/v-%d of the data folders, "+
				"and then start it again: most of %s must have theirs. If it is gone for good, only the newest backup is left: `holdfast restore`", strings.Join(v.Gone, ", "), v.ID, strings.Join(v.Members, ", "))
		case len(v.Gone) > 0:
			warn(&worse, "THE FILES OF A COPY ARE GONE, on %s, and no node serves the volume: all the others of %s must be up and reach each other", strings.Join(v.Gone, ", "), strings.Join(v.Members, ", "))
		case alone == nil:
			warn(&worse, "no node serves it, its clients wait: most of %s must be up and reach each other", strings.Join(v.Members, ", "))
		case alone.State == api.NodeSilent:
			warn(&worse, "no node serves it, its clients wait: node %s, which does not answer, may alone have the newest data: start it", alone.Name)
		default:
			warn(&worse, "no node serves it, its clients wait: node %s, which cannot be reached because of a certificate, may alone have the newest data", alone.Name)
		}
	}
	if v.OneCopy {
		warn(&worse, "THE NEWEST DATA HAS ONE COPY, on node %s: the other data node is lost or behind. Do not stop or delete node %s until it is back in sync", v.Leader, v.Leader)
	}
	for _, p := range v.Problems {
		warn(&worse, "a copy is damaged or cannot be opened, on %s. Where that does not mend by itself, look at the disk, and make the copy anew: `holdfast check %s --repair --wrong %s`", p, v.Name, problemNode(p))
	}
	if v.Leader != "" && len(v.Gone) > 0 {
		warn(&worse, "the files of the copy on %s were gone when it started. If the copy does not come back by itself, make it anew: `holdfast check %s --repair --wrong %s`. Do not put the old files back: what it has promised since is not in them",
			strings.Join(v.Gone, ", "), v.Name, v.Gone[0])
	}
	if v.AddressProblem != "" {
		warn(&worse, "its address is not on node %s, so clients do not reach it: %s", v.Leader, v.AddressProblem)
	}
	if v.Space.Full {
		on := ""
		if len(v.Space.Low) > 0 {
			on = " on " + strings.Join(v.Space.Low, ", ")
		}
		warn(&worse, "it is full: a copy%s is below its reserve, so that growth is refused. Remove files, or enlarge the file system of the data folder%s", on, on)
	}
	for _, why := range v.NoRoom {
		warn(&worse, "there is too little room for a copy: %s. Free space there, enlarge its disk, or let another node keep the copy (`holdfast volume set %s --nodes`)", why, v.Name)
	}
	data := 0
	for _, r := range v.Replicas {
		if !r.Witness {
			data++
		}
		switch {
		case r.Snapshot && slices.ContainsFunc(v.NoRoom, func(why string) bool { return problemNode(why) == r.Node }): // it waits for room
		case r.Learner && r.Snapshot:
			warn(&bad, "node %s is getting its copy", r.Node)
		case r.Learner:
			warn(&bad, "node %s is about to get a copy", r.Node)
		case !r.Active:
			warn(&bad, "node %s does not answer its leader: its copy falls behind", r.Node)
		case !r.InSync && !r.Witness:
			warn(&bad, "the copy on node %s is %d entries behind and catching up", r.Node, r.Lag)
		}
	}
	switch {
	case len(v.Replicas) == 1:
		warn(&worse, "it has one copy: the loss of this node's disk loses it. Add a node: `holdfast node add`")
	case len(v.Replicas) == 2 && data == 2:
		warn(&worse, "it has two copies and no witness: the loss of either node stops it. Add a witness or a third node: `holdfast token create --role witness`")
	case data > 0 && data < v.Copies && !(data == 2 && len(v.Replicas) == 3):
		warn(&bad, "it has %d copies, %d are wanted: add a data node", data, v.Copies)
	}
	if v.SizeBytes > 0 && v.UsedBytes*100 > v.SizeBytes*95 {
		warn(&bad, "it is nearly at its limit: `holdfast volume resize %s SIZE`", v.Name)
	}
	return worse, bad
}
