package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"holdfast/internal/config"
	"holdfast/internal/replica"
	"holdfast/internal/vfs"
)

func TestTokens(t *testing.T) {
	b := newBench(t)
	token := Token{ID: "t", Hash: []byte("h"), Role: RoleData, Expires: b.now.Add(time.Hour)}
	b.must(Command{AddToken: &token})
	b.refused(CodeConflict, Command{AddToken: &token})
	b.refused(CodeInvalid, Command{AddToken: &Token{ID: "u", Hash: []byte("h"), Role: "king", Expires: b.now.Add(time.Hour)}})
	b.refused(CodeInvalid, Command{AddToken: &Token{ID: "u", Hash: []byte("h"), Role: RoleData, Expires: b.now}})
	b.refused(CodeNotFound, Command{AddToken: &Token{ID: "u", Hash: []byte("h"), Role: RoleData, Expires: b.now.Add(time.Hour), Replaces: "z"}})
	node := Node{Name: "b", Peer: "10.0.0.2:7420", MaxVersion: MaxVersion}
	b.refused(CodeDenied, Command{AddNode: &AddNode{Token: "x", Hash: []byte("h"), Node: node}})
	b.refused(CodeDenied, Command{AddNode: &AddNode{Token: "t", Hash: []byte("wrong"), Node: node}})
	b.now = b.now.Add(2 * time.Hour)
	if msg := b.refused(CodeDenied, Command{AddNode: &AddNode{Token: "t", Hash: []byte("h"), Node: node}}); !strings.Contains(msg, "expired") {
		t.Error(msg)
	}
	b.must(Command{AddToken: &Token{ID: "v", Hash: []byte("h"), Role: RoleData, Expires: b.now.Add(time.Hour)}})
	if b.m.State().Token("t") != nil {
		t.Error("an expired token is kept")
	}
	old := node
	old.MaxVersion = 0
	b.refused(CodeConflict, Command{AddNode: &AddNode{Token: "v", Hash: []byte("h"), Node: old}})
	twin := node
	twin.Name = "a"
	b.refused(CodeConflict, Command{AddNode: &AddNode{Token: "v", Hash: []byte("h"), Node: twin}})
	twin = node
	twin.Peer = "10.0.0.1:7420"
	b.refused(CodeConflict, Command{AddNode: &AddNode{Token: "v", Hash: []byte("h"), Node: twin}})
	if r := b.must(Command{AddNode: &AddNode{Token: "v", Hash: []byte("h"), Node: node}}); r.Number != 2 {
		t.Errorf("number %d", r.Number)
	}
	b.refused(CodeDenied, Command{AddNode: &AddNode{Token: "v", Hash: []byte("h"), Node: node}}) // it lets one node in
	b.must(Command{AddToken: &token2})
	b.must(Command{RemoveToken: &RemoveToken{ID: token2.ID}})
	b.refused(CodeNotFound, Command{RemoveToken: &RemoveToken{ID: token2.ID}})
}

var token2 = Token{ID: "w", Hash: []byte("h"), Role: RoleWitness, Expires: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)}

func members(b *bench, volume string) []uint64 { return b.m.State().Volume(volume).Members }

// TestGrowth brings a cluster from one node to three, by way of two with a witness.
func TestGrowth(t *testing.T) {
	b := newBench(t)
	b.must(Command{AddVolume: &AddVolume{Spec: spec("v", "10.0.0.100/24")}})
	check := func(want ...uint64) {
		t.Helper()
		b.settle()
		if got := members(b, "v"); !slices.Equal(got, want) {
			t.Fatalf("members %v, want %v", got, want)
		}
	}
	check(1)
	two := b.join("2", RoleData)
	check(1, two)
	w := b.join("3", RoleWitness)
	if !replica.IsWitness(w) {
		t.Fatalf("the witness has the number %d", w)
	}
	check(1, two, w)
	four := b.join("4", RoleData)
	check(1, two, four) // three copies need no witness
	five := b.join("5", RoleData)
	check(1, two, four)
	if first := b.m.State().Volume("v").First; !slices.Equal(first, []uint64{1}) {
		t.Errorf("the first configuration has become %v", first)
	}
	// A removed node's place is taken by one that is free.
	b.must(Command{RemoveNode: &RemoveNode{Name: "2"}})
	check(1, four, five)
	if b.m.State().NodeNamed("2") != nil || !b.m.State().IsRevoked(two, "") {
		t.Error("the removed node is not forgotten, or still let in")
	}
	// The witness makes up for the third copy.
	b.must(Command{RemoveNode: &RemoveNode{Name: "4"}})
	check(1, five, w)
	// With nobody to take the place, a person has to insist.
	b.refused(CodeConflict, Command{RemoveNode: &RemoveNode{Name: "5"}})
	b.must(Command{RemoveNode: &RemoveNode{Name: "5", Force: true}})
	check(1)
	b.refused(CodeConflict, Command{RemoveNode: &RemoveNode{Name: "a", Force: true}})
}

func TestReplace(t *testing.T) {
	b := newBench(t)
	two, three := b.join("2", RoleData), b.join("3", RoleData)
	b.must(Command{AddVolume: &AddVolume{Spec: spec("v", "10.0.0.100/24")}})
	if got := members(b, "v"); !slices.Equal(got, []uint64{1, two, three}) {
		t.Fatal(got)
	}
	b.must(Command{AddToken: &Token{ID: "r", Hash: []byte("h"), Role: RoleData, Expires: b.now.Add(time.Hour), Replaces: "2"}})
	// The new machine may have the name and the address of the old.
	old := b.m.State().NodeNamed("2")
	four := b.must(Command{AddNode: &AddNode{Token: "r", Hash: []byte("h"), Node: Node{Name: "2", Peer: old.Peer, MaxVersion: MaxVersion}}}).Number
	b.settle()
	if got := members(b, "v"); !slices.Equal(got, []uint64{1, three, four}) {
		t.Errorf("members %v", got)
	}
	if n := b.m.State().NodeNamed("2"); n == nil || n.Number != four || b.m.State().Node(two) != nil {
		t.Error("the old node is still there, or the new one is not")
	}
}

// TestPinned removes and replaces nodes that volumes are for.
func TestPinned(t *testing.T) {
	for _, tt := range []struct {
		name    string
		nodes   []string // that the volume is for; a, b, c and d are there
		remove  string
		force   bool
		replace string // the node's replacement has this name; it is not removed
		refused string
		left    []string
		members []uint64
	}{
		{name: "for others", nodes: []string{"a", "b"}, remove: "c", left: []string{"a", "b"}, members: []uint64{1, 2}},
		{name: "one of two", nodes: []string{"a", "b"}, remove: "b", refused: "--nodes NAMES"},
		{name: "one of two, by force", nodes: []string{"a", "b"}, remove: "b", force: true, left: []string{"a"}, members: []uint64{1}},
		{name: "one of three, by force", nodes: []string{"c", "b", "a"}, remove: "b", force: true, left: []string{"c", "a"}, members: []uint64{1, 3}},
		{name: "the only one", nodes: []string{"b"}, remove: "b", refused: "is for b only"},
		{name: "the only one, by force", nodes: []string{"b"}, remove: "b", force: true, refused: "is for b only"},
		{name: "replaced", nodes: []string{"a", "b"}, remove: "b", replace: "e", left: []string{"a", "e"}, members: []uint64{1, 5}},
		{name: "replaced under its own name", nodes: []string{"b"}, remove: "b", replace: "b", left: []string{"b"}, members: []uint64{5}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			for _, name := range []string{"b", "c", "d"} {
				b.join(name, RoleData)
			}
			pinned := spec("v", "10.0.0.100/24")
			pinned.Nodes, pinned.Copies, pinned.Prefer = tt.nodes, len(tt.nodes), []string{"b", "a"}
			b.must(Command{AddVolume: &AddVolume{Spec: pinned}})
			cmd := Command{RemoveNode: &RemoveNode{Name: tt.remove, Force: tt.force}}
			if tt.replace != "" {
				b.must(Command{AddToken: &Token{ID: "r", Hash: []byte("h"), Role: RoleData, Expires: b.now.Add(time.Hour), Replaces: tt.remove}})
				cmd = Command{AddNode: &AddNode{Token: "r", Hash: []byte("h"), Node: Node{Name: tt.replace, Peer: "10.0.0.9:7420", MaxVersion: MaxVersion}}}
			}
			if tt.refused != "" {
				if msg := b.refused(CodeConflict, cmd); !strings.Contains(msg, tt.refused) {
					t.Error(msg)
				}
				return
			}
			before := b.m.State().Volume("v").Spec
			b.must(cmd)
			b.settle()
			v := b.m.State().Volume("v")
			if !slices.Equal(v.Spec.Nodes, tt.left) || v.Spec.Copies != len(tt.left) || !slices.Equal(v.Members, tt.members) {
				t.Errorf("the volume is for %v with %d copies, and on %v", v.Spec.Nodes, v.Spec.Copies, v.Members)
			}
			if !slices.Equal(before.Nodes, tt.nodes) || !slices.Equal(before.Prefer, []string{"b", "a"}) {
				t.Errorf("the former state has changed: %+v", before)
			}
			if n := b.m.State().NodeNamed(tt.remove); n != nil && tt.replace != tt.remove {
				t.Errorf("node %s is still there", n.Name)
			}
			again := v.Spec
			again.Size = 1 << 40
			b.must(Command{SetVolume: &SetVolume{Spec: again}}) // it names nobody who is gone
		})
	}
}

// TestPinnedToFive wants to be told whom four of five nodes shall be.
func TestPinnedToFive(t *testing.T) {
	b := newBench(t)
	names := []string{"a", "b", "c", "d", "e"}
	for _, name := range names[1:] {
		b.join(name, RoleData)
	}
	pinned := spec("v", "10.0.0.100/24")
	pinned.Nodes, pinned.Copies = names, len(names)
	b.must(Command{AddVolume: &AddVolume{Spec: pinned}})
	if msg := b.refused(CodeConflict, Command{RemoveNode: &RemoveNode{Name: "b", Force: true}}); !strings.Contains(msg, "there cannot be four copies") {
		t.Error(msg)
	}
}

// TestRebuild has a copy thrown away and made anew.
func TestRebuild(t *testing.T) {
	b := newBench(t)
	b.must(Command{AddVolume: &AddVolume{Spec: spec("v", "10.0.0.100/24")}})
	b.refused(CodeConflict, Command{RebuildCopy: &RebuildCopy{Volume: "v", Node: "a"}}) // the only one
	two, three := b.join("2", RoleData), b.join("3", RoleData)
	b.settle()
	b.refused(CodeNotFound, Command{RebuildCopy: &RebuildCopy{Volume: "x", Node: "a"}})
	b.refused(CodeNotFound, Command{RebuildCopy: &RebuildCopy{Volume: "v", Node: "z"}})
	b.must(Command{RebuildCopy: &RebuildCopy{Volume: "v", Node: "2"}})
	b.refused(CodeConflict, Command{RebuildCopy: &RebuildCopy{Volume: "v", Node: "3"}}) // one at a time
	id := b.m.State().Volume("v").ID
	b.refused(CodeConflict, Command{CopyDropped: &CopyDropped{Volume: id, Node: two}})
	b.settle()
	if got := members(b, "v"); !slices.Equal(got, []uint64{1, three}) {
		t.Fatalf("members %v: the copy does not go, or comes back before it is dropped", got)
	}
	b.must(Command{CopyDropped: &CopyDropped{Volume: id, Node: two}})
	b.settle()
	if got := members(b, "v"); !slices.Equal(got, []uint64{1, two, three}) {
		t.Errorf("members %v", got)
	}
}

func TestVolumes(t *testing.T) {
	b := newBench(t)
	b.must(Command{AddVolume: &AddVolume{Spec: spec("v", "10.0.0.100/24")}})
	b.refused(CodeConflict, Command{AddVolume: &AddVolume{Spec: spec("v", "10.0.0.101/24")}})
	b.refused(CodeConflict, Command{AddVolume: &AddVolume{Spec: spec("w", "10.0.0.100/24")}})
	if msg := b.refused(CodeConflict, Command{AddVolume: &AddVolume{Spec: spec("w", "10.0.0.1/24")}}); !strings.Contains(msg, "own address of node a") {
		t.Error(msg)
	}
	pinned := spec("w", "10.0.0.101/24")
	pinned.Nodes = []string{"z"}
	b.refused(CodeNotFound, Command{AddVolume: &AddVolume{Spec: pinned}})
	changed := spec("v", "10.0.0.100/24")
	changed.Size = 1 << 40
	b.refused(CodeConflict, Command{SetVolume: &SetVolume{Base: b.m.State().Revision + 1, Spec: changed}})
	before := b.m.State().Revision
	b.must(Command{SetVolume: &SetVolume{Base: before, Spec: changed}})
	if v := b.m.State().Volume("v"); v.Spec.Size != 1<<40 || b.m.State().Revision != before+1 {
		t.Errorf("size %v, revision %d after %d", v.Spec.Size, b.m.State().Revision, before)
	}
	b.must(Command{SetVolume: &SetVolume{Spec: changed}})
	if b.m.State().Revision != before+1 {
		t.Error("a change of nothing counts as one")
	}
	b.must(Command{RemoveVolume: &RemoveVolume{Name: "v"}})
	b.refused(CodeNotFound, Command{RemoveVolume: &RemoveVolume{Name: "v"}})
	if r := b.must(Command{AddVolume: &AddVolume{Spec: spec("v", "10.0.0.100/24")}}); r.Number != 2 {
		t.Errorf("the number %d: numbers must not be used again", r.Number)
	}
}

func TestApplySpec(t *testing.T) {
	b := newBench(t)
	b.must(Command{AddVolume: &AddVolume{Spec: spec("v", "10.0.0.100/24")}})
	b.must(Command{AddVolume: &AddVolume{Spec: spec("w", "10.0.0.101/24")}})
	want := config.Spec{Cluster: "c", Nodes: []config.NodeSpec{{Name: "a", Zone: "z1"}}, Volumes: []config.VolumeSpec{spec("w", "10.0.0.100/24"), spec("v", "10.0.0.101/24")}}
	apply := func(base uint64, s config.Spec, del bool) Command {
		return Command{ApplySpec: &ApplySpec{Base: base, Spec: s, Delete: del}}
	}
	b.refused(CodeConflict, apply(b.m.State().Revision-1, want, false))
	b.must(apply(b.m.State().Revision, want, false)) // the volumes exchange their addresses
	if got := b.m.State().Volume("v").Spec.MountAddr().String(); got != "10.0.0.101:2049" {
		t.Error(got)
	}
	if b.m.State().Node(1).Zone != "z1" {
		t.Error("the zone is not set")
	}
	other := want
	other.Cluster = "d"
	b.refused(CodeConflict, apply(b.m.State().Revision, other, false))
	less := want
	less.Volumes = want.Volumes[:1]
	b.refused(CodeConflict, apply(b.m.State().Revision, less, false))
	b.must(apply(b.m.State().Revision, less, true))
	if len(b.m.State().Volumes) != 1 {
		t.Errorf("%d volumes", len(b.m.State().Volumes))
	}
	if diff := cmp.Diff(config.Diff(b.m.State().Spec(), &less), []config.Change(nil)); diff != "" {
		t.Errorf("after apply there is a difference: %s", diff)
	}
}

// randomCommand is a command as people and nodes send them, senseless ones among them.
func randomCommand(r *rand.Rand, s *State) Command {
	node := func() string { return fmt.Sprintf("n%d", r.IntN(6)) }
	volume := func() string { return fmt.Sprintf("v%d", r.IntN(4)) }
	on := r.IntN(2) == 0
	role := RoleData
	if r.IntN(4) == 0 {
		role = RoleWitness
	}
	switch r.IntN(10) {
	case 0:
		return Command{AddToken: &Token{ID: fmt.Sprint(r.IntN(10)), Hash: []byte("h"), Role: role, Expires: time.Unix(int64(r.IntN(3e9)), 0).UTC()}}
	case 1, 2:
		return Command{AddNode: &AddNode{Token: fmt.Sprint(r.IntN(10)), Hash: []byte("h"), Node: Node{Name: node(), Peer: node() + ":7420", MaxVersion: MaxVersion}}}
	case 3:
		return Command{RemoveNode: &RemoveNode{Name: node(), Force: on}}
	case 4, 5:
		return Command{AddVolume: &AddVolume{Spec: spec(volume(), fmt.Sprintf("10.0.0.%d/24", 1+r.IntN(9)))}}
	case 6:
		return Command{RemoveVolume: &RemoveVolume{Name: volume()}}
	case 7:
		return Command{SetNode: &SetNode{Name: node(), Standby: &on}}
	case 8:
		return Command{SetMaintenance: &SetMaintenance{On: on}}
	}
	if plan := s.Plan(s.Voters()); len(plan) > 0 {
		return plan[r.IntN(len(plan))]
	}
	if len(s.Volumes) > 0 {
		v := s.Volumes[r.IntN(len(s.Volumes))]
		return Command{MembersDone: &MembersDone{Volume: v.ID, Members: v.Members}}
	}
	return Command{}
}

// TestDeterminism applies random commands to two machines, one of which is restarted and installed all the time, and wants them to hold the same bytes.
func TestDeterminism(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 7))
		b := newBench(t)
		fsys := vfs.NewSim(seed)
		open := func() *Machine {
			m, err := OpenMachine(fsys, "state.json", func(*State) {})
			if err != nil {
				t.Fatal(err)
			}
			return m
		}
		var log [][]byte // entries, the first of which is Init's
		other := open()
		first := Command{Time: b.now, By: "test", Init: &Init{ID: "cid", Name: "c", Node: Node{Number: 1, Name: "a", Peer: "10.0.0.1:7420", MaxVersion: MaxVersion}}}
		push := func(cmd Command) {
			entry, err := cmd.Encode()
			if err != nil {
				t.Fatal(err)
			}
			log = append(log, entry)
		}
		push(first)
		for range 200 {
			cmd := randomCommand(r, b.m.State())
			if cmd == (Command{}) {
				continue
			}
			cmd.Time, cmd.By = b.now, "test"
			push(cmd)
			b.index++
			if _, err := b.m.Apply(b.index, log[b.index-1]); err != nil {
				t.Fatal(err)
			}
			switch r.IntN(10) {
			case 0:
				if _, err := other.Checkpoint(t.Context()); err != nil {
					t.Fatal(err)
				}
			case 1:
				fsys.Crash()
				other = open()
			case 2:
				snap, err := b.m.Snapshot(0)
				if err != nil {
					t.Fatal(err)
				}
				var buf strings.Builder
				if _, err := snap.WriteTo(&buf); err != nil {
					t.Fatal(err)
				}
				if err := other.Install(strings.NewReader(buf.String())); err != nil {
					t.Fatal(err)
				}
			}
			for other.Applied() < b.index {
				next := other.Applied() + 1
				if _, err := other.Apply(next, log[next-1]); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(written(t, b.m), written(t, other)); diff != "" {
				t.Fatalf("seed %d, entry %d: %s", seed, b.index, diff)
			}
		}
	}
}

// written is what a machine would write to its disk.
func written(t *testing.T, m *Machine) string {
	t.Helper()
	b, err := encodeDocument(m.State(), m.Applied())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func FuzzDecodeCommand(f *testing.F) {
	f.Add([]byte(`{"time":"2026-01-02T03:04:05Z","add_token":{"id":"t","hash":"aA==","role":"data","expires":"2027-01-02T03:04:05Z"}}`))
	f.Add([]byte(`{"apply_spec":{"base":1,"spec":{"volumes":[{"name":"v"}]}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		cmd, err := DecodeCommand(b)
		if err != nil {
			return
		}
		s := &State{ID: "c", Revision: 1, NextNode: 2, NextVolume: 1, Version: 1, Nodes: []Node{{Number: 1, Name: "a", Role: RoleData, MaxVersion: 1}}}
		next, result, err := s.apply(cmd)
		if err == nil && result.Error != "" && next != s {
			t.Error("a refused command has changed the state")
		}
	})
}
