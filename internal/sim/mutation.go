package sim

import (
	"errors"
	"path"
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"holdfast/internal/replica"
	"holdfast/internal/wal"
)

// Mutation is one way to break the system on purpose, to show that the checks notice.
type Mutation uint8

// The mutations.
const (
	// NoMutation leaves the system as it is.
	NoMutation Mutation = iota
	// AckBeforeMajority counts an entry as stored by a follower before its disk has it.
	AckBeforeMajority
	// SkipLogSync skips every other sync of the log.
	SkipLogSync
	// SkipObjectSync leaves out the sync of objects in checkpoints.
	SkipObjectSync
	// ServeAfterLease lets a leader answer although its lease has run out, until it hears of another leader.
	ServeAfterLease
	// ForgetReply loses recorded replies when a replica restarts.
	ForgetReply
	// ApplyTwice executes a call again that was executed before.
	ApplyTwice
	// CutSnapshot leaves out the end of objects in snapshots.
	CutSnapshot
	// IgnoreDamage takes any record that is damaged for one that was torn, and the log for one that ends before it.
	IgnoreDamage
	// WitnessAhead lets a leader send to the witness what neither its own disk nor the other copy has.
	WitnessAhead
	// BeginAnew lets a node that lost its disk take itself for a new member.
	BeginAnew
	// ForgetIncarnation lets a node start with files that it has gone on without.
	ForgetIncarnation
	mutations
)

func (m Mutation) String() string {
	names := [...]string{"none", "ack-before-majority", "skip-log-sync", "skip-object-sync", "serve-after-lease", "forget-reply", "apply-twice", "cut-snapshot", "ignore-damage", "witness-ahead", "begin-anew", "forget-incarnation"}
	if int(m) < len(names) {
		return names[m]
	}
	return "?"
}

// Mutations returns all mutations but NoMutation.
func Mutations() []Mutation {
	var all []Mutation
	for m := NoMutation + 1; m < mutations; m++ {
		all = append(all, m)
	}
	return all
}

// ParseMutation returns the mutation of a name.
func ParseMutation(name string) (Mutation, bool) {
	i := slices.IndexFunc(append([]Mutation{NoMutation}, Mutations()...), func(m Mutation) bool { return m.String() == name })
	return Mutation(max(i, 0)), i >= 0
}

// forgeAck makes the answer of a follower to entries that have not reached it (AckBeforeMajority).
func forgeAck(m replica.Message) (replica.Message, bool) {
	if m.Type != raftpb.MsgApp || len(m.Entries) == 0 {
		return m, false
	}
	return replica.Message{Type: raftpb.MsgAppResp, From: m.To, To: m.From, Term: m.Term, Index: m.Entries[len(m.Entries)-1].Index}, true
}

// cutLog removes what follows a damaged place of the log and reports whether it did (IgnoreDamage).
func (n *node) cutLog(err error) bool {
	var damage *wal.CorruptError
	if n.w.cfg.Mutation != IgnoreDamage || !errors.As(err, &damage) {
		return false
	}
	f, err := n.disk.Open(damage.File)
	if err != nil {
		return false
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil || f.PunchHole(damage.Offset, size-damage.Offset) != nil || f.Sync() != nil {
		return false
	}
	names, _ := n.disk.List(path.Dir(damage.File))
	for _, name := range names {
		if path.Ext(name) == ".seg" && name > path.Base(damage.File) {
			_ = n.disk.Remove(path.Join(path.Dir(damage.File), name))
		}
	}
	n.store = newStore(n.w, n.rng) // it may be ahead of the log now
	n.damaged = false
	return true
}

// faults is a mix in which the mutation shows early; nil: any.
func (m Mutation) faults() *Faults {
	f := &Faults{RetainBytes: 64 << 10}
	switch m {
	case WitnessAhead:
		// Crashes of the only copy after the other was lost for good, and disks that are slower than the network.
		f.Interval, f.Noticed = 60*time.Millisecond, 1
		f.Weights[faultSlowDisk], f.Weights[faultCrash], f.Weights[faultReplace], f.Weights[faultHeal] = 4, 4, 4, 1
	case ServeAfterLease:
		// Leaders that do not hear that there is another one, and clients that stay with them.
		f.Interval, f.AtLeader, f.KeepClients = 250*time.Millisecond, 1, true
		f.Weights[faultIsolate], f.Weights[faultHeal], f.Weights[faultClientDrop] = 2, 1, 1
	case IgnoreDamage:
		// Damage that shows soon, when others are away.
		f.Interval = 60 * time.Millisecond
		f.Weights[faultRot], f.Weights[faultKill], f.Weights[faultIsolate], f.Weights[faultHeal] = 4, 6, 3, 3
	case ForgetIncarnation:
		// Disks that are lost and found, while others are away.
		f.Interval, f.AtLeader = 250*time.Millisecond, 0.8
		f.Weights[faultReplace], f.Weights[faultIsolate], f.Weights[faultKill], f.Weights[faultHeal] = 2, 2, 2, 6
	default:
		return nil
	}
	return f
}
