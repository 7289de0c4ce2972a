package sim

import "slices"

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
	// ServeAfterLease lets a leader answer although its lease has run out.
	ServeAfterLease
	// ForgetReply loses recorded replies when a replica restarts.
	ForgetReply
	// ApplyTwice executes a call again that was executed before.
	ApplyTwice
	// CutSnapshot leaves out the end of objects in snapshots.
	CutSnapshot
	// IgnoreTornRecord takes a log whose tail is damaged for one that is whole, without its last entries.
	IgnoreTornRecord
	mutations
)

func (m Mutation) String() string {
	names := [...]string{"none", "ack-before-majority", "skip-log-sync", "skip-object-sync", "serve-after-lease", "forget-reply", "apply-twice", "cut-snapshot", "ignore-torn-record"}
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
