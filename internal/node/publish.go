package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"holdfast/internal/cluster"
	"holdfast/internal/gateway"
	"holdfast/internal/volume"
)

const (
	// publishTimeout is how long a new leader waits for its export table, and publishPoll how often it looks. Usually the table is as it should be.
	publishTimeout = 5 * time.Second
	publishPoll    = time.Millisecond
)

// exportTable is what the replicated export table should be.
func (s *service) exportTable() []volume.ExportSpec {
	var want []volume.ExportSpec
	for _, e := range s.exports.Exports() {
		want = append(want, volume.ExportSpec{Path: e.Path, UID: e.UID, GID: e.GID, Mode: e.Mode})
	}
	slices.SortFunc(want, func(a, b volume.ExportSpec) int { return cmp.Compare(a.Path, b.Path) })
	return want
}

// publishExports makes the replicated export table say what the configuration says, and waits until it does or this node leads no more.
func (s *service) publishExports(term uint64) error {
	want := s.exportTable()
	if s.published(want) {
		return nil
	}
	limited, cancel := context.WithTimeout(s.ctx, publishTimeout)
	defer cancel()
	for proposed := false; ; {
		if !proposed {
			// It fails while the lease is interrupted.
			err := s.gate.Command(volume.EntryExports, netip.AddrPort{}, volume.EncodeExports(want))
			if err != nil && !errors.Is(err, gateway.ErrNotServing) {
				return fmt.Errorf("propose the export table: %w", err)
			}
			proposed = err == nil
		}
		pause(limited, publishPoll)
		switch {
		case s.published(want):
			return nil
		case limited.Err() != nil:
			return fmt.Errorf("wait for the export table: %w", limited.Err())
		case !s.leads(term):
			return fmt.Errorf("publish the export table: %w", gateway.ErrNotServing)
		}
	}
}

// published reports whether the replicated export table has the paths of want, which are sorted.
func (s *service) published(want []volume.ExportSpec) bool {
	var paths []string
	for _, e := range s.volume.Exports() {
		paths = append(paths, e.Path)
	}
	slices.Sort(paths)
	return slices.EqualFunc(want, paths, func(w volume.ExportSpec, p string) bool { return w.Path == p })
}

// publishLimit makes the replicated limit what is configured.
func (s *service) publishLimit() error {
	want := uint64(s.spec.Load().Size)
	if _, limit := s.volume.Usage(); limit == want {
		return nil
	}
	return s.gate.Command(volume.EntryLimit, netip.AddrPort{}, volume.LimitPayload(want))
}

// publishVersion makes the volume's entries mean what the cluster has agreed on.
func (s *service) publishVersion() error {
	want := min(s.node.cluster.state().Version, volume.MaxVersion)
	if s.volume.Version() >= want {
		return nil
	}
	return s.gate.Command(volume.EntryVersion, netip.AddrPort{}, volume.VersionPayload(want))
}

// governEvery is how often the leader of a volume looks whether everything is as it should be.
const governEvery = 500 * time.Millisecond

// govern does what the leader of a volume has to do beside serving: it publishes what is configured, brings the group to the members that it should have, and gives the
// lead to a node that should have it.
func (s *service) govern(ctx context.Context, term uint64) {
	t := time.NewTicker(governEvery)
	defer t.Stop()
	stable := map[uint64]time.Time{}
	for ctx.Err() == nil {
		if s.replica.Serving() {
			if err := s.governOnce(ctx, term, stable); err != nil && ctx.Err() == nil {
				s.log.Info("the volume is not yet as it is configured; trying on", "err", err)
			}
		}
		select {
		case <-s.kicked:
		case <-t.C:
		case <-ctx.Done():
		}
	}
}

func (s *service) governOnce(ctx context.Context, term uint64, stable map[uint64]time.Time) error {
	state := s.node.cluster.state()
	v := state.VolumeByID(s.number)
	if v == nil {
		return nil // it is being deleted
	}
	err := errors.Join(s.publishExports(term), s.publishLimit(), s.publishVersion())
	if wait, aside := s.stepAside(v); wait {
		return errors.Join(err, aside)
	}
	if err := errors.Join(err, s.fitMembers(ctx, state, v)); err != nil {
		return err
	}
	return s.place(state, v, stable)
}

// fitMembers brings the raft group to the members that the cluster has decided on.
func (s *service) fitMembers(ctx context.Context, state *cluster.State, v *cluster.Volume) error {
	st := s.replica.Replica.Status()
	have := slices.Sorted(slices.Values(st.Voters))
	want := v.MemberIDs()
	if slices.Equal(have, want) && !st.Joint && len(st.Learners) == 0 {
		if len(v.Former) == 0 {
			return nil
		}
		_, err := s.node.cluster.do(ctx, "volume "+s.name, cluster.Command{MembersDone: &cluster.MembersDone{Volume: v.ID, Members: v.Members, Changes: v.Changes}})
		return err
	}
	if !slices.Equal(have, want) {
		want = s.fitting(ctx, &st, want)
	}
	if s.changing != nil && s.changing.goesOn(want) {
		return nil
	}
	if slices.Equal(have, want) && !st.Joint && len(st.Learners) == 0 {
		return nil // those that are to come have no room yet
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	s.changing = &memberChange{want: want, cancel: cancel, done: done}
	s.leading.Go(func() {
		defer close(done)
		defer cancel()
		s.log.Info("the volume's members change", "from", s.node.names(have), "to", s.node.names(want))
		if err := s.replica.SetMembers(ctx, want); err != nil && ctx.Err() == nil {
			s.log.Info("the volume's members are not yet as they should be; trying on", "err", err)
		}
		s.kick()
	})
	return nil
}

// memberChange is a change of the group's members that is being done, and may take long.
type memberChange struct {
	want   []uint64
	cancel context.CancelFunc
	done   chan struct{}
}

// goesOn reports whether it is still being done. If want is another by now, it is ended, and whoever leads goes on to that from where the group is.
func (m *memberChange) goesOn(want []uint64) bool {
	select {
	case <-m.done:
		return false
	default:
	}
	if !slices.Equal(m.want, want) {
		m.cancel()
	}
	return true
}

// place gives the lead to another node, if the cluster's rules say so.
func (s *service) place(state *cluster.State, v *cluster.Volume, stable map[uint64]time.Time) error {
	now := time.Now()
	o := cluster.Observed{Leader: s.node.id.Node, Stable: stable, Now: now}
	able := map[uint64]bool{}
	for _, p := range s.replica.Status().Peers {
		if canLead(&p) {
			able[p.ID] = true
			o.Able = append(o.Able, p.ID)
			if _, ok := stable[p.ID]; !ok {
				stable[p.ID] = now
			}
		}
	}
	for id := range stable {
		if !able[id] {
			delete(stable, id)
		}
	}
	p := state.Place(v, o)
	s.placement.Store(&p)
	if p.Leader == 0 {
		return nil
	}
	return s.move(p.Leader, p.Why)
}

// move transfers the lead and tells everybody why.
func (s *service) move(to uint64, why string) error {
	// Not the leadership's context, which ends on the way.
	limited, cancel := context.WithTimeout(s.ctx, handOverTimeout)
	defer cancel()
	began := time.Now()
	if err := s.replica.Transfer(limited, to); err != nil {
		return fmt.Errorf("move to node %s, because %s: %w", s.node.nodeName(to), why, err)
	}
	s.noteMove(s.node.nodeName(to), time.Since(began), why)
	return nil
}

// noteMove writes an event about a move, in the background: this leadership is over.
func (s *service) noteMove(to string, took time.Duration, why string) {
	n := s.node
	note := cluster.Event{Kind: cluster.EventMove, Volume: s.name, Node: to, Text: fmt.Sprintf("moved here from %s in %v: %s", n.id.Name, took.Round(time.Millisecond), why)}
	n.work.Go(func() {
		limited, cancel := context.WithTimeout(n.ctx, leaderPatience)
		defer cancel()
		if _, err := n.cluster.do(limited, n.id.Name, cluster.Command{Note: &note}); err != nil {
			n.log.Info("a move could not be written down", "volume", s.name, "err", err)
		}
	})
}
