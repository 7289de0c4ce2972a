package sim

import (
	"errors"
	"slices"

	"holdfast/internal/replica"
)

// Kind is what sort of cluster a World is.
type Kind uint8

// The kinds of cluster.
const (
	// AnyKind: by the seed.
	AnyKind Kind = iota
	// Fixed: the membership never changes, and a node that lost its disk comes back as a blank one under its number.
	Fixed
	// Elastic: nodes come and go, and one that lost its disk is replaced by a new one under a new number.
	Elastic
	// Witnessed: two nodes with data and a witness; each may be replaced.
	Witnessed
	kinds
)

func (k Kind) String() string { return [...]string{"any", "fixed", "elastic", "witnessed"}[k%kinds] }

// ParseKind returns the kind of a name.
func ParseKind(name string) (Kind, bool) {
	for k := range kinds {
		if k.String() == name {
			return k, true
		}
	}
	return AnyKind, false
}

// maxMembers is how large an elastic cluster grows.
const maxMembers = 5

// drawKind settles what the configuration leaves open. It draws from a source of its own, so that what else a seed means does not depend on it.
func (w *World) drawKind() stream {
	rng := w.stream("kind")
	drawn := []Kind{Fixed, Fixed, Elastic, Witnessed}[rng.IntN(4)]
	switch {
	case w.cfg.Mutation == WitnessAhead:
		w.cfg.Kind = Witnessed
	case w.cfg.Kind != AnyKind:
	case w.cfg.Nodes != 0 || w.cfg.Mutation != NoMutation:
		w.cfg.Kind = Fixed
	default:
		w.cfg.Kind = drawn
	}
	return rng
}

// populate makes the first nodes.
func (w *World) populate() {
	if w.cfg.Kind == Witnessed {
		w.cfg.Nodes = 2
	}
	for range w.cfg.Nodes {
		w.first = append(w.first, w.newNumber(false))
	}
	if w.cfg.Kind == Witnessed {
		w.first = append(w.first, w.newNumber(true))
	}
	for _, id := range w.first {
		w.addNode(id)
	}
}

// newNumber returns a number that no node ever had.
func (w *World) newNumber(witness bool) uint64 {
	w.numbers++
	if witness {
		return w.numbers | replica.WitnessBit
	}
	return w.numbers
}

func (w *World) addNode(id uint64) *node {
	n := newNode(w, id)
	n.fresh = true
	w.nodes = append(w.nodes, n)
	w.byID[id] = n
	w.all = append(w.all, n)
	return n
}

// dataNodes are the nodes that clients talk to.
func (w *World) dataNodes() []*node {
	return slices.DeleteFunc(slices.Clone(w.nodes), func(n *node) bool { return n.witness() })
}

func (n *node) witness() bool { return replica.IsWitness(n.id) }

// wantMembers begins a change to the present nodes without gone, and with fresh ones in its place.
func (w *World) wantMembers(gone *node, fresh ...*node) {
	w.want = nil
	for _, n := range w.nodes {
		if n != gone {
			w.want = append(w.want, n.id)
		}
	}
	slices.Sort(w.want)
	w.note("members", w.want...)
	for _, n := range fresh {
		w.after(n.rng.between(0, 500*msec), n.start)
	}
}

// settled reports whether nothing is changing and no disk is damaged, so that another member may go.
func (w *World) settled() bool {
	return w.want == nil && !slices.ContainsFunc(w.nodes, func(n *node) bool { return n.bad() })
}

// minority reports whether n and the others that are bad are fewer than half of the members.
func (w *World) minority(n *node, bad func(o *node) bool) bool {
	count := 1
	for _, o := range w.nodes {
		if o != n && bad(o) {
			count++
		}
	}
	return count <= (len(w.nodes)-1)/2
}

// mayGo reports whether the cluster can do without what only n has, for good: a majority of others has it. Of two copies, the other must be complete.
func (w *World) mayGo(n *node) bool {
	if !w.settled() && !(n.bad() && w.want == nil && w.minority(n, (*node).bad)) {
		return false
	}
	if w.cfg.Kind != Witnessed {
		return len(w.nodes) >= 3
	}
	l := w.leader()
	return n.witness() || l != nil && l.manual.Core.Status(l.n.clock()).InSync
}

// replace puts a new node in the place of one that is gone for good.
func (w *World) replace(n *node) {
	n.stop()
	w.note("replace", n.id)
	w.stats.Faults[faultReplace]++
	w.retire(n)
	w.wantMembers(nil, w.addNode(w.newNumber(n.witness())))
}

// retire takes a node away: it is not started again.
func (w *World) retire(n *node) {
	w.nodes = slices.DeleteFunc(w.nodes, func(o *node) bool { return o == n })
	n.retired = true
}

// changeMembers decides on another membership while all is well.
func (f *fault) changeMembers(n *node) {
	w := f.w
	if !w.settled() || w.now < sec {
		return
	}
	w.stats.Faults[faultMembers]++
	grow, shrink := len(w.nodes) < maxMembers, len(w.nodes) > 1
	switch k := f.rng.IntN(3); {
	case w.cfg.Kind == Witnessed || k == 0 || !grow || !shrink:
		w.wantMembers(n, w.addNode(w.newNumber(n.witness())))
	case k == 1:
		w.wantMembers(nil, w.addNode(w.newNumber(false)))
	default:
		w.wantMembers(n)
	}
}

// changeMembers moves the change of membership on if this process leads.
func (l *life) changeMembers() {
	w := l.w
	if w.want == nil || l.ended || l.failed != nil {
		l.change = nil
		return
	}
	l.turn(func(core *replica.Core, now int64) {
		if l.change == nil || !slices.Equal(l.changeTo, w.want) {
			l.changeTo = w.want
			var err error
			if l.change, err = core.NewMemberChange(w.want); err != nil {
				if !errors.Is(err, replica.ErrNotLeader) {
					w.fail("node %d cannot change the members to %v: %v", l.n.id, w.want, err)
				}
				return
			}
		}
		state, err := l.change.Advance(now)
		switch {
		case err != nil:
			l.change = nil // another leads, or will
		case state.HandTo != 0:
			_, _ = core.TransferLeader(now, state.HandTo)
		case state.Done:
			w.changed(core.Status(now).Voters)
		}
	})
}

// changed ends a change of membership. Nodes that are no members any more are switched off, or run on for all that anybody cares.
func (w *World) changed(voters []uint64) {
	if !slices.Equal(voters, w.want) {
		w.fail("the members are %v, wanted were %v", voters, w.want)
	}
	w.note("members changed", voters...)
	w.want = nil
	for _, n := range slices.Clone(w.nodes) {
		if slices.Contains(voters, n.id) {
			continue
		}
		w.retire(n)
		if n.rng.chance(0.5) {
			w.after(0, n.stop)
		}
	}
	if w.regrow {
		w.regrow = false
		w.wantMembers(nil, w.addNode(w.newNumber(false)))
	}
}
