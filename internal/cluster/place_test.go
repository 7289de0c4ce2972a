package cluster

import (
	"slices"
	"testing"
	"time"

	"holdfast/internal/config"
	"holdfast/internal/replica/transport"
)

func TestPlace(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	base := func() (*State, *Volume) {
		s := &State{ID: "c", Nodes: []Node{{Number: 1, Name: "a", Role: RoleData}, {Number: 2, Name: "b", Role: RoleData}, {Number: 3, Name: "c", Role: RoleData}}}
		s.Volumes = []Volume{{ID: 1, Members: []uint64{1, 2, 3}, Spec: config.VolumeSpec{Name: "v"}}}
		return s, &s.Volumes[0]
	}
	able := map[uint64]time.Time{1: now.Add(-time.Minute), 2: now.Add(-time.Minute), 3: now.Add(-time.Minute)}
	for _, tt := range []struct {
		name   string
		change func(s *State, v *Volume)
		leader uint64
		able   []uint64
		want   uint64
		at     time.Duration
	}{
		{"stays", func(*State, *Volume) {}, 2, []uint64{1, 3}, 0, 0},
		{"standby", func(s *State, _ *Volume) { s.Nodes[1].Standby = true }, 2, []uint64{1, 3}, 1, 0},
		{"standby, nobody else", func(s *State, _ *Volume) { s.Nodes[1].Standby = true }, 2, nil, 0, 0},
		{"standby, others too", func(s *State, _ *Volume) { s.Nodes[0].Standby, s.Nodes[1].Standby = true, true }, 2, []uint64{1}, 0, 0},
		{"standby, by preference", func(s *State, v *Volume) { s.Nodes[1].Standby, v.Spec.Prefer = true, []string{"c"} }, 2, []uint64{1, 3}, 3, 0},
		{"leaving", func(s *State, _ *Volume) { s.Nodes[1].Leaving = true }, 2, []uint64{1, 3}, 1, 0},
		{"no member any more", func(_ *State, v *Volume) { v.Members = []uint64{1, 3} }, 2, []uint64{1, 3}, 1, 0},
		{"manual failback", func(_ *State, v *Volume) { v.Spec.Prefer = []string{"a"} }, 2, []uint64{1, 3}, 0, 0},
		{"failback", func(_ *State, v *Volume) {
			v.Spec.Prefer, v.Spec.Failback = []string{"a"}, config.Failback{Policy: config.FailbackAuto, After: config.Duration(time.Minute)}
		}, 2, []uint64{1, 3}, 1, 0},
		{"failback later", func(_ *State, v *Volume) {
			v.Spec.Prefer, v.Spec.Failback = []string{"a"}, config.Failback{Policy: config.FailbackAuto, After: config.Duration(2 * time.Minute)}
		}, 2, []uint64{1, 3}, 0, time.Minute},
		{"failback in maintenance", func(s *State, v *Volume) {
			s.Maintenance = &Maintenance{}
			v.Spec.Prefer, v.Spec.Failback = []string{"a"}, config.Failback{Policy: config.FailbackAuto}
		}, 2, []uint64{1, 3}, 0, 0},
		{"standby in maintenance", func(s *State, _ *Volume) { s.Maintenance, s.Nodes[1].Standby = &Maintenance{}, true }, 2, []uint64{1}, 1, 0},
		{"the preferred one is not able", func(_ *State, v *Volume) {
			v.Spec.Prefer, v.Spec.Failback = []string{"a"}, config.Failback{Policy: config.FailbackAuto}
		}, 2, []uint64{3}, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, v := base()
			tt.change(s, v)
			p := s.Place(v, Observed{Leader: tt.leader, Able: tt.able, Stable: able, Now: now})
			if p.Leader != tt.want || p.Why == "" {
				t.Errorf("leader %d (%s), want %d", p.Leader, p.Why, tt.want)
			}
			if tt.at != 0 && !p.At.Equal(now.Add(tt.at)) {
				t.Errorf("at %v", p.At)
			}
		})
	}
}

func TestHome(t *testing.T) {
	s := &State{Nodes: []Node{{Number: 1, Name: "a"}, {Number: 2, Name: "b"}, {Number: 3, Name: "c"}}}
	led := map[uint64]int{}
	for id := range uint32(6) {
		led[s.Home(&Volume{ID: id + 1, Members: []uint64{1, 2, 3}})]++
	}
	if led[1] != 2 || led[2] != 2 || led[3] != 2 {
		t.Errorf("six volumes are led by %v", led)
	}
	v := &Volume{ID: 1, Members: []uint64{1, 2, 1<<32 | 4}, Spec: config.VolumeSpec{Prefer: []string{"c", "b"}}}
	if home := s.Home(v); home != 2 {
		t.Errorf("the volume that prefers b, and c which has no copy, begins at %d", home)
	}
	v.Spec.Prefer = nil
	for id := range uint32(6) {
		if v.ID = id + 1; s.Home(v)>>32 != 0 {
			t.Error("a volume begins at its witness")
		}
	}
}

// TestParts: a node that comes again to a volume is another member to the group, and what is said of an earlier time does not count.
func TestParts(t *testing.T) {
	b := newBench(t)
	two := b.join("2", RoleData)
	b.must(Command{AddVolume: &AddVolume{Spec: spec("v", "10.1.0.1/24")}})
	volume := func() *Volume { return b.m.State().Volume("v") }
	move := func(members ...uint64) {
		t.Helper()
		v := volume()
		b.must(Command{SetMembers: &SetMembers{Volume: v.ID, Was: v.Members, Members: members}})
	}
	done := func(v *Volume) Command {
		return Command{MembersDone: &MembersDone{Volume: v.ID, Members: v.Members, Changes: v.Changes}}
	}
	if got := volume().MemberIDs(); !slices.Equal(got, []uint64{1, two}) {
		t.Fatalf("a new volume's members are %d", got)
	}
	seen := map[uint64]bool{two: true}
	var stale Command
	for range 3 {
		move(1)
		if v := volume(); !seen[v.MemberID(two)] || !slices.Equal(v.Former, []uint64{two}) {
			t.Fatalf("the member that goes is %d", v.MemberID(two))
		}
		b.must(done(volume()))
		move(1, two)
		stale = done(volume())
		id := volume().MemberID(two)
		if seen[id] || transport.NodeOf(id) != two {
			t.Fatalf("node %d comes as member %d, which it was before", two, id)
		}
		seen[id] = true
		if ids := volume().MemberIDs(); !slices.Equal(ids, []uint64{1, id}) {
			t.Fatalf("the members are %d", ids)
		}
	}
	move(two)
	b.must(done(volume()))
	move(1, two)
	if id := volume().MemberID(1); id == 1 {
		t.Error("the only member of the first configuration comes again as itself")
	}
	move(two)
	b.refused(CodeConflict, stale)
	b.must(done(volume()))
	move(1, two)
	b.must(Command{SetMembers: &SetMembers{Volume: volume().ID, Was: volume().Members, Members: []uint64{1, two}}})
	b.refused(CodeConflict, stale)
}

// TestMoveTakenBack: a change of members gives way to another, as one of those that were to come may be lost; who has not been let go yet comes back as what it is.
func TestMoveTakenBack(t *testing.T) {
	b := newBench(t)
	b.join("2", RoleData)
	four, five := b.join("4", RoleData), b.join("5", RoleData)
	nodes := func(names ...string) {
		t.Helper()
		v := spec("v", "10.1.0.1/24")
		v.Nodes = names
		v.Complete()
		if b.m.State().Volume("v") == nil {
			b.must(Command{AddVolume: &AddVolume{Spec: v}})
		} else {
			b.must(Command{SetVolume: &SetVolume{Spec: v}})
		}
		for _, cmd := range b.m.State().Plan(b.m.State().Voters()) {
			b.must(cmd)
		}
	}
	volume := func() *Volume { return b.m.State().Volume("v") }
	nodes("a", "2")
	was := volume().MemberIDs()
	nodes("a", "4")
	if v := volume(); !slices.Equal(v.Members, []uint64{1, four}) || !slices.Equal(v.Former, []uint64{2}) {
		t.Fatalf("moved to %v, from %v", v.Members, v.Former)
	}
	late := Command{MembersDone: &MembersDone{Volume: volume().ID, Members: volume().Members, Changes: volume().Changes}}
	nodes("a", "5")
	if v := volume(); !slices.Equal(v.Members, []uint64{1, five}) || !slices.Equal(v.Former, []uint64{2, four}) {
		t.Fatalf("moved to %v, from %v", v.Members, v.Former)
	}
	b.refused(CodeConflict, late)
	nodes("a", "2")
	if v := volume(); !slices.Equal(v.MemberIDs(), was) || !slices.Equal(v.Former, []uint64{four, five}) {
		t.Fatalf("back on %v, from %v", v.MemberIDs(), v.Former)
	}
	b.must(Command{MembersDone: &MembersDone{Volume: volume().ID, Members: volume().Members, Changes: volume().Changes}})
	if v := volume(); len(v.Former) > 0 || len(v.Parts) > 0 {
		t.Errorf("in the end there are %v and %v", v.Former, v.Parts)
	}
}
