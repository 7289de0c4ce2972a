package cluster

import (
	"fmt"
	"slices"

	"holdfast/internal/replica"
)

// Plan returns what the cluster should do next by itself: move copies to nodes that joined or from nodes that leave, forget nodes that keep nothing any more, and
// raise the cluster version. It is a function of the state alone; whoever leads the cluster's group proposes what it returns. inGroup says which nodes are still
// members of the cluster's own raft group.
func (s *State) Plan(inGroup []uint64) []Command {
	var plan []Command
	if s.ID == "" {
		return nil
	}
	for i := range s.Volumes {
		v := &s.Volumes[i]
		if len(v.Former) > 0 && s.Version < versionParts {
			continue
		}
		// A change that is under way may never end, if somebody that was to come is lost: then another takes its place. As members that stay are kept, there is none unless something else
		// was told.
		if want := s.wantMembers(v); len(want) > 0 && !slices.Equal(want, v.Members) {
			plan = append(plan, Command{SetMembers: &SetMembers{Volume: v.ID, Was: v.Members, Members: want, Why: s.why(v, want)}})
		}
	}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.Leaving && !slices.Contains(inGroup, n.Number) && !s.keeps(n.Number) {
			plan = append(plan, Command{ForgetNode: &ForgetNode{Number: n.Number}})
		}
	}
	if to := s.supported(); to > s.Version {
		plan = append(plan, Command{RaiseVersion: &RaiseVersion{To: to}})
	}
	return plan
}

// keeps reports whether a node keeps a part of any volume.
func (s *State) keeps(number uint64) bool {
	return slices.ContainsFunc(s.Volumes, func(v Volume) bool { return slices.Contains(v.Keepers(), number) })
}

// supported is the newest cluster version that all nodes support.
func (s *State) supported() uint32 {
	to := uint32(MaxVersion)
	for i := range s.Nodes {
		to = min(to, s.Nodes[i].MaxVersion)
	}
	return to
}

// why tells people the reason for a change of members.
func (s *State) why(v *Volume, want []uint64) string {
	for _, n := range v.Members {
		if node := s.Node(n); node != nil && node.Leaving && !slices.Contains(want, n) {
			return fmt.Sprintf("node %s is being removed", node.Name)
		}
	}
	for _, n := range v.Rebuild {
		if slices.Contains(v.Members, n) {
			return fmt.Sprintf("the copy on node %s is made anew", s.NodeName(n))
		}
	}
	for _, n := range want {
		if !slices.Contains(v.Members, n) {
			if replica.IsWitness(n) {
				return fmt.Sprintf("two copies need the witness %s", s.NodeName(n))
			}
			return fmt.Sprintf("node %s can hold a copy, and %d are wanted", s.NodeName(n), v.Spec.Copies)
		}
	}
	return "fewer copies are wanted"
}

// Voters are the nodes that shall vote in the cluster's own group: all that are to stay.
func (s *State) Voters() []uint64 {
	var voters []uint64
	for i := range s.Nodes {
		if !s.Nodes[i].Leaving {
			voters = append(voters, s.Nodes[i].Number)
		}
	}
	slices.Sort(voters)
	return voters
}

// wantMembers is who should be the volume's members: nodes that keep it stay, as far as they may; what leaves is replaced; then nodes with the fewest
// volumes are added, from zones that have no copy first, until there are as many copies as wanted. Two copies get the witness. Sorted.
func (s *State) wantMembers(v *Volume) []uint64 {
	var want []uint64
	for _, m := range v.Members {
		n := s.Node(m)
		switch {
		case replica.IsWitness(m):
		case n != nil && s.mayKeep(v, n):
			want = append(want, m)
		case n != nil && n.ReplacedBy != 0:
			if r := s.Node(n.ReplacedBy); r != nil && s.mayKeep(v, r) && !slices.Contains(want, r.Number) {
				want = append(want, r.Number)
			}
		}
	}
	copies := max(v.Spec.Copies, 1)
	for len(want) < copies {
		next := s.bestKeeper(v, want)
		if next == 0 {
			break
		}
		want = append(want, next)
	}
	for len(want) > copies {
		want = slices.Delete(want, s.leastPreferred(v, want), s.leastPreferred(v, want)+1)
	}
	if w := s.witness(); len(want) == 2 && w != nil {
		want = append(want, w.Number)
	}
	slices.Sort(want)
	return want
}

// mayKeep reports whether a node may keep data of a volume.
func (s *State) mayKeep(v *Volume, n *Node) bool {
	// Before everybody knows of parts, one of the first members would come again as what it was.
	if s.Version < versionParts && slices.Contains(v.First, n.Number) && !slices.Contains(v.Members, n.Number) {
		return false
	}
	return n.Role == RoleData && !n.Leaving && !slices.Contains(v.Rebuild, n.Number) && (len(v.Spec.Nodes) == 0 || slices.Contains(v.Spec.Nodes, n.Name))
}

// bestKeeper picks the node that should keep a volume beside those that do, or 0.
func (s *State) bestKeeper(v *Volume, have []uint64) uint64 {
	zones := map[string]bool{}
	for _, m := range have {
		zones[s.Node(m).Zone] = true
	}
	best, bestCost := uint64(0), 0
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if !s.mayKeep(v, n) || slices.Contains(have, n.Number) {
			continue
		}
		const zoneCost, newCost = 1 << 16, 1 << 12 // each more than what counts less, and than there are volumes
		cost := s.load(n.Number)
		if !slices.Contains(v.Former, n.Number) {
			cost += newCost // it has no copy
		}
		if n.Zone != "" && zones[n.Zone] {
			cost += zoneCost
		}
		if best == 0 || cost < bestCost {
			best, bestCost = n.Number, cost
		}
	}
	return best
}

// load counts the volumes that a node keeps.
func (s *State) load(number uint64) int {
	count := 0
	for i := range s.Volumes {
		if slices.Contains(s.Volumes[i].Members, number) {
			count++
		}
	}
	return count
}

// leastPreferred returns the place in have of the node that should go first: the last of the preferences, else the newest.
func (s *State) leastPreferred(v *Volume, have []uint64) int {
	rank := func(m uint64) int {
		if at := slices.Index(v.Spec.Prefer, s.NodeName(m)); at >= 0 {
			return at
		}
		return len(v.Spec.Prefer) + int(m)
	}
	worst := 0
	for i, m := range have {
		if rank(m) > rank(have[worst]) {
			worst = i
		}
	}
	return worst
}
