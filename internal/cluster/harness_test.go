package cluster

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"holdfast/internal/config"
	"holdfast/internal/vfs"
)

// bench applies commands to a machine on a simulated disk.
type bench struct {
	t     *testing.T
	m     *Machine
	index uint64
	now   time.Time
}

// newBench returns a machine whose cluster has node a.
func newBench(t *testing.T) *bench {
	t.Helper()
	m, err := OpenMachine(vfs.NewSim(1), "state.json", func(*State) {})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, m: m, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	b.must(Command{Init: &Init{ID: "cid", Name: "c", Node: Node{Number: 1, Name: "a", Peer: "10.0.0.1:7420", MaxVersion: MaxVersion}}})
	return b
}

// do applies a command.
func (b *bench) do(cmd Command) Result {
	b.t.Helper()
	cmd.Time, cmd.By = b.now, "test"
	entry, err := cmd.Encode()
	if err != nil {
		b.t.Fatal(err)
	}
	_, r, err := func() (*State, Result, error) {
		decoded, err := DecodeCommand(entry)
		if err != nil {
			return nil, Result{}, err
		}
		return b.m.State().apply(decoded)
	}()
	if err != nil {
		b.t.Fatal(err)
	}
	b.index++
	if _, err := b.m.Apply(b.index, entry); err != nil {
		b.t.Fatal(err)
	}
	return r
}

func (b *bench) must(cmd Command) Result {
	b.t.Helper()
	r := b.do(cmd)
	if r.Error != "" {
		b.t.Fatalf("refused: %s", r.Error)
	}
	return r
}

// refused applies a command that must be refused without changing anything.
func (b *bench) refused(code Code, cmd Command) string {
	b.t.Helper()
	before := b.m.State()
	r := b.do(cmd)
	if r.Code != code {
		b.t.Errorf("%q with code %q, want %q", r.Error, r.Code, code)
	}
	if b.m.State() != before {
		b.t.Error("a refused command has changed the state")
	}
	var e *Error
	if err := r.Err(); err == nil || !errors.As(err, &e) {
		b.t.Errorf("error %v", err)
	}
	return r.Error
}

// join adds a node and returns its number.
func (b *bench) join(name string, role Role) uint64 {
	b.t.Helper()
	b.must(Command{AddToken: &Token{ID: "t" + name, Hash: []byte("h"), Role: role, Expires: b.now.Add(time.Hour)}})
	return b.must(Command{AddNode: &AddNode{Token: "t" + name, Hash: []byte("h"), Node: Node{Name: name, Peer: "10.0.1." + name + ":7420", MaxVersion: MaxVersion}}}).Number
}

// settle executes the cluster's plans until there are none, as if every group had followed them.
func (b *bench) settle() {
	b.t.Helper()
	for range 100 {
		plan := b.m.State().Plan(b.m.State().Voters())
		for _, cmd := range plan {
			b.must(cmd)
		}
		busy := len(plan) > 0
		for _, v := range b.m.State().Volumes {
			if len(v.Former) > 0 {
				b.must(Command{MembersDone: &MembersDone{Volume: v.ID, Members: v.Members, Changes: v.Changes}})
				busy = true
			}
		}
		if !busy {
			return
		}
	}
	b.t.Fatal("the cluster never stops planning")
}

func spec(name, ip string) config.VolumeSpec {
	v := config.NewVolume(name)
	v.Address = config.Address{Kind: config.AddressIP, IP: config.Prefix(netip.MustParsePrefix(ip))}
	v.Complete()
	return v
}
