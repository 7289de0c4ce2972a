package cluster

import (
	"fmt"
	"slices"
	"time"

	"holdfast/internal/config"
)

// Observed is what the leader of a volume sees.
type Observed struct {
	Leader uint64
	// Able are the members that could take over now: in sync, answering, and not on a node in standby only if there is no other.
	Able []uint64
	// Stable is since when each of Able has been able without a break.
	Stable map[uint64]time.Time
	Now    time.Time
}

// Placement is where a volume should be led, and why.
type Placement struct {
	Leader uint64 // 0: where it is
	Why    string
	// At is when the answer may change although nothing else does; zero if it does not.
	At time.Time
}

// Place says who should lead a volume. A leader stays where it is unless its node is in standby or leaving, or a more preferred node has been able for long enough
// and the volume's failback is automatic.
func (s *State) Place(v *Volume, o Observed) Placement {
	leader := s.Node(o.Leader)
	others := slices.DeleteFunc(s.ranked(v, o.Able), func(n uint64) bool { return n == o.Leader })
	best := uint64(0)
	for _, n := range others {
		if node := s.Node(n); node != nil && !node.Standby && !node.Leaving {
			best = n
			break
		}
	}
	if leader != nil && (leader.Standby || leader.Leaving || !slices.Contains(v.Members, o.Leader)) {
		why := "is in standby"
		switch {
		case leader.Leaving:
			why = "is being removed"
		case !slices.Contains(v.Members, o.Leader):
			why = "is not to keep the volume any more"
		}
		if best == 0 {
			return Placement{Why: fmt.Sprintf("node %s %s, but no other node is able to lead", leader.Name, why)}
		}
		return Placement{Leader: best, Why: fmt.Sprintf("node %s %s", leader.Name, why)}
	}
	name := s.NodeName(o.Leader)
	if best == 0 || s.rank(v, best) >= s.rank(v, o.Leader) {
		return Placement{Why: fmt.Sprintf("no node that is able to lead is preferred to %s", name)}
	}
	preferred := s.NodeName(best)
	if v.Spec.Failback.Policy != config.FailbackAuto {
		return Placement{Why: fmt.Sprintf("%s is preferred to %s, but failback is manual: `holdfast move %s --to %s`", preferred, name, v.Spec.Name, preferred)}
	}
	if m := s.Maintenance; m != nil && (m.Until.IsZero() || o.Now.Before(m.Until)) {
		return Placement{Why: fmt.Sprintf("%s is preferred to %s, but the cluster is in maintenance", preferred, name), At: m.Until}
	}
	ready := o.Stable[best].Add(time.Duration(v.Spec.Failback.After))
	if o.Now.Before(ready) {
		return Placement{Why: fmt.Sprintf("%s is preferred to %s and takes over when it has been able for %v", preferred, name, v.Spec.Failback.After), At: ready}
	}
	return Placement{Leader: best, Why: fmt.Sprintf("node %s is preferred to %s and has been able for %v", preferred, name, v.Spec.Failback.After)}
}

// Home is the data member that should lead a volume at first: the one that it prefers most, or else each volume another one, so that they spread over the nodes.
func (s *State) Home(v *Volume) uint64 {
	members := v.DataMembers()
	for _, name := range v.Spec.Prefer {
		if n := s.NodeNamed(name); n != nil && slices.Contains(members, n.Number) {
			return n.Number
		}
	}
	if len(members) == 0 {
		return 0
	}
	slices.Sort(members)
	return members[int(v.ID-1)%len(members)]
}

// rank orders nodes by the volume's preferences, the best first; those that are not among them come last, all alike.
func (s *State) rank(v *Volume, number uint64) int {
	if at := slices.Index(v.Spec.Prefer, s.NodeName(number)); at >= 0 {
		return at
	}
	return len(v.Spec.Prefer)
}

// ranked sorts nodes by rank.
func (s *State) ranked(v *Volume, nodes []uint64) []uint64 {
	sorted := slices.Clone(nodes)
	slices.Sort(sorted)
	slices.SortStableFunc(sorted, func(a, b uint64) int { return s.rank(v, a) - s.rank(v, b) })
	return sorted
}
