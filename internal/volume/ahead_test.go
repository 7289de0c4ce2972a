package volume

import (
	"bytes"
	"context"
	"testing"

	"holdfast/internal/store"
)

// TestDigestAhead digests a state whose objects may be newer than its metadata: after a crash, and after a snapshot that was sent while more was applied.
func TestDigestAhead(t *testing.T) {
	log, _, want := randomLog(t, 2, 200)
	stable := func(r *replica) bool {
		t.Helper()
		c, err := r.v.BeginChecksum()
		check(t, err)
		_, stable, err := c.Sum(context.Background())
		check(t, err)
		return stable
	}
	expect := func(what string, r *replica, until uint64) {
		t.Helper()
		for {
			if got, applied := stable(r), r.v.Applied(); got != (applied >= until) {
				t.Fatalf("%s, a digest at %d is stable: %t, objects may be as of %d", what, applied, got, until)
			}
			if r.v.Applied() > until {
				break
			}
			r.apply(log[r.v.Applied()])
		}
	}
	crashed := newReplica(t, store.NewMem())
	for _, entry := range log[:50] {
		crashed.apply(entry)
	}
	crashed.v.NoteAhead(60)
	expect("after a crash", crashed, 60)

	sender := newReplica(t, store.NewMem())
	for _, entry := range log[:100] {
		sender.apply(entry)
	}
	snap, err := sender.v.Snapshot(0)
	check(t, err)
	for _, entry := range log[100:120] {
		sender.apply(entry)
	}
	var b bytes.Buffer
	_, err = snap.WriteTo(&b)
	check(t, err)
	check(t, snap.Close())
	receiver := newReplica(t, store.NewMem())
	check(t, receiver.v.Install(&b))
	receiver.reopen() // it is remembered
	expect("after a snapshot", receiver, 121)
	for _, entry := range log[receiver.v.Applied():] {
		receiver.apply(entry)
	}
	if receiver.checksum() != want.checksum() {
		t.Error("the replicas differ")
	}
}
