package state

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"holdfast/internal/volume"
)

// randomOps drives tables with operations drawn from a seed, most of them sensible. It remembers what it was given, stale things too.
type randomOps struct {
	*world
	rng      *rand.Rand
	clients  []ClientID
	sessions []SessionID
	sids     []StateID
	log      []string // outcomes, to compare replicas by
}

func pick[T any](r *randomOps, from []T) (v T) {
	if len(from) == 0 {
		return v
	}
	// Mostly the recent ones: the old are likely to be gone.
	return from[max(len(from)-1-r.rng.IntN(12), 0)]
}

func (r *randomOps) note(args ...any) { r.log = append(r.log, fmt.Sprint(args...)) }

func (r *randomOps) keep(sid StateID, st Status) {
	if st == OK {
		r.sids = append(r.sids, sid)
	}
}

func (r *randomOps) exchangeAndCreate() {
	a := exchange(fmt.Sprint("owner", r.rng.IntN(6)), byte(r.rng.IntN(3)))
	a.Update = r.rng.IntN(8) == 0
	a.Principal.UID = uint32(r.rng.IntN(8) / 7)
	x, st := r.ExchangeID(r.kv, a)
	r.note("exchange", x, st)
	if st != OK || r.rng.IntN(4) == 0 {
		return
	}
	r.clients = append(r.clients, x.Client)
	seq := x.Sequence - uint32(r.rng.IntN(5)/4)
	v, _, st := r.BeginCreateSession(x.Client, seq)
	r.note("begin create", v, st)
	if st != OK || v != New {
		return
	}
	attrs := chanAttrs
	attrs.MaxRequests = uint32(1 + r.rng.IntN(5))
	c, st := r.CreateSession(r.kv, &CreateSessionArgs{Client: x.Client, Principal: a.Principal, Flags: uint32(r.rng.IntN(8)), Fore: attrs, Back: attrs, CBProgram: r.rng.Uint32(), CBSec: []byte("x")})
	r.note("create", c, st)
	r.RecordCreateSession(r.kv, x.Client, seq, c.Session[:])
	if st == OK {
		r.sessions = append(r.sessions, c.Session)
	}
	if r.rng.IntN(8) > 0 {
		r.note("complete", r.ReclaimComplete(r.kv, x.Client))
	}
}

func (r *randomOps) slot() {
	id, slot, seq := pick(r, r.sessions), uint32(r.rng.IntN(6)), uint32(r.rng.IntN(40))
	print := uint32(r.rng.IntN(2))
	v, reply, st := r.BeginMutating(id, slot, seq, print)
	r.note("mutating", v, reply, st)
	if v == New && st == OK {
		r.Record(r.kv, id, slot, seq, print, make([]byte, r.rng.IntN(300)))
	}
}

func (r *randomOps) lock() {
	a := &LockArgs{
		Client: pick(r, r.clients), Ino: volume.Ino(r.rng.IntN(5)), Handle: []byte("fh"), Type: LockType(1 + r.rng.IntN(4)),
		Offset: uint64(r.rng.IntN(50)), Length: uint64(1 + r.rng.IntN(20)), NewOwner: r.rng.IntN(3) > 0,
		StateID: pick(r, r.sids), Owner: []byte{byte('a' + r.rng.IntN(4))},
	}
	if r.rng.IntN(10) == 0 {
		a.Length = toEOF
	}
	r.aim(a.StateID, &a.Client, &a.Ino)
	a.StateID.Seqid = 0
	res, st := r.Lock(r.kv, a)
	r.note("lock", res, st)
	r.keep(res.StateID, st)
}

// aim usually corrects client and inode to those of the stateid: otherwise hardly any request would succeed.
func (r *randomOps) aim(sid StateID, id *ClientID, ino *volume.Ino) {
	o := r.Tables.opens[stateCounter(sid)]
	if l := r.Tables.locks[stateCounter(sid)]; l != nil {
		o = l.open
	}
	if o != nil && r.rng.IntN(10) > 0 {
		*id, *ino = o.client.id, o.file.ino
	}
}

func (r *randomOps) step() {
	id, ino, sid := pick(r, r.clients), volume.Ino(r.rng.IntN(5)), pick(r, r.sids)
	switch n := r.rng.IntN(100); {
	case n < 8:
		r.exchangeAndCreate()
	case n < 28:
		r.slot()
	case n < 50:
		s, st := r.Open(r.kv, &OpenArgs{Client: id, Owner: []byte{byte('A' + r.rng.IntN(3))}, Ino: ino,
			Access: uint32(1 + r.rng.IntN(3)), Deny: uint32(r.rng.IntN(12) / 9), Reclaim: r.rng.IntN(20) == 0})
		r.note("open", s, st)
		r.keep(s, st)
	case n < 75:
		r.lock()
	case n < 85:
		r.aim(sid, &id, &ino)
		s, w, st := r.Unlock(r.kv, id, ino, sid, uint64(r.rng.IntN(50)), uint64(1+r.rng.IntN(30)))
		r.note("unlock", s, w, st)
		r.keep(s, st)
	case n < 88:
		r.aim(sid, &id, &ino)
		s, st := r.Downgrade(r.kv, id, ino, sid, uint32(1+r.rng.IntN(3)), 0)
		r.note("downgrade", s, st)
		r.keep(s, st)
	case n < 93:
		r.aim(sid, &id, &ino)
		sid.Seqid = 0
		c, st := r.Close(r.kv, id, ino, sid)
		r.note("close", c, st)
	case n < 96:
		r.note("free", r.FreeStateID(r.kv, id, sid))
	case n < 97:
		r.note("destroy session", r.DestroySession(r.kv, pick(r, r.sessions)))
	case n < 98:
		r.note("destroy client", r.DestroyClientID(r.kv, id))
	case n < 99:
		d, ok := r.ExpireClient(r.kv, id)
		r.note("expire", d, ok)
	default:
		if r.rng.IntN(20) == 0 {
			r.note("restored", r.Restored(r.kv, r.rng.Uint64()))
		} else {
			r.EndGrace(r.kv)
		}
	}
}

func newRandomOps(t *testing.T, seed uint64) *randomOps {
	w := newWorld(t, func(l *Limits) {
		l.Clients, l.SessionsPerClient, l.OpensPerClient, l.LocksPerClient, l.WaitersPerFile, l.ReplyPerClient = 8, 3, 8, 12, 4, 1000
		l.Sessions, l.Opens, l.Locks, l.ReplyBytes, l.Waiters = 12, 25, 40, 3000, 6
	})
	return &randomOps{world: w, rng: rand.New(rand.NewPCG(seed, 7))}
}

// Whatever was done, Load from the mirror gives identical tables; and a replica that goes on from there, or that runs the same operations
// from the start, stays the same to the byte.
func TestReplicasAgree(t *testing.T) {
	done := map[string]int{}
	for seed := range uint64(60) {
		one, two := newRandomOps(t, seed), newRandomOps(t, seed)
		for step := range 400 {
			one.step()
			if step%37 == 36 { // two restarts; its waiters are lost, which only notices show
				two.Tables = checkLoad(t, two.Tables, two.kv)
				for _, f := range one.files {
					f.waiters = nil
				}
				one.waiting = 0
			}
			two.step()
			if got, want := two.log[len(two.log)-1:], one.log[len(one.log)-1:]; fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("seed %d step %d: %v, on the other replica %v", seed, step, want, got)
			}
			if step%20 == 0 {
				if a, b := dump(t, one.Tables), dump(t, two.Tables); a != b {
					t.Fatalf("seed %d step %d: tables differ:\n%s\nand\n%s", seed, step, a, b)
				}
			}
			if t.Failed() {
				t.Fatalf("seed %d step %d: %v", seed, step, one.log[len(one.log)-1])
			}
		}
		if !maps.Equal(one.kv.m, two.kv.m) {
			t.Fatalf("seed %d: mirrors differ", seed)
		}
		checkLoad(t, one.Tables, one.kv)
		c := one.Counts()
		done["opens"] += c.Opens
		done["locks"] += c.LockStates
		done["sessions"] += c.Sessions
	}
	t.Logf("left at the end of all runs: %v", done)
	if done["opens"] == 0 || done["locks"] == 0 || done["sessions"] == 0 {
		t.Error("the operations hardly get anywhere: the test shows nothing")
	}
}

// An emptied volume leaves nothing behind in memory or mirror.
func TestNothingLeaks(t *testing.T) {
	for seed := range uint64(20) {
		r := newRandomOps(t, seed)
		for range 300 {
			r.step()
		}
		for _, c := range r.Clients() {
			r.ExpireClient(r.kv, c.ID)
		}
		r.EndGrace(r.kv)
		if c := r.Counts(); c != (Counts{}) || len(r.owners) != 0 || len(r.kv.m) != 1 {
			t.Fatalf("seed %d: left %+v, %d owners, %d keys", seed, c, len(r.owners), len(r.kv.m))
		}
	}
}
