package state

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"holdfast/internal/volume"
)

// TestExchangeID goes through the cases of RFC 8881 section 18.35.4, numbered as there.
func TestExchangeID(t *testing.T) {
	other := Principal{Flavor: 1, UID: 1000}
	with := func(change func(*ExchangeArgs)) *ExchangeArgs {
		a := exchange("owner", 1)
		change(a)
		return a
	}
	confirmed := func(w *world) ClientID {
		id := w.unconfirmed("owner", 1)
		w.session(id)
		return id
	}
	idle := func(w *world) ClientID { // confirmed, but without state
		id := confirmed(w)
		w.want("DestroySession", w.DestroySession(w.kv, w.clients[id].sessions[0].id), OK)
		return id
	}
	tests := []struct {
		name   string
		before func(w *world) ClientID
		args   *ExchangeArgs
		st     Status
		same   bool // the client id of before comes back
		conf   bool // CONFIRMED_R
		left   int  // records afterwards
	}{
		{"1 new owner", func(*world) ClientID { return 0 }, exchange("owner", 1), OK, false, false, 1},
		{"2 not an update", confirmed, exchange("owner", 1), OK, true, true, 1},
		{"3 collision, state", confirmed, with(func(a *ExchangeArgs) { a.Principal = other }), ErrClientInUse, false, false, 1},
		{"3 collision, another verifier too", confirmed, with(func(a *ExchangeArgs) { a.Principal = other; a.Verifier[0] = 9 }), ErrClientInUse, false, false, 1},
		{"3 collision, no state", idle, with(func(a *ExchangeArgs) { a.Principal = other }), OK, false, false, 1},
		{"4 replace unconfirmed", func(w *world) ClientID { return w.unconfirmed("owner", 1) }, exchange("owner", 1), OK, false, false, 1},
		{"4 replace unconfirmed, other principal and verifier", func(w *world) ClientID { return w.unconfirmed("owner", 1) },
			with(func(a *ExchangeArgs) { a.Principal = other; a.Verifier[0] = 9 }), OK, false, false, 1},
		{"4 replace unconfirmed beside a confirmed one", func(w *world) ClientID { confirmed(w); return w.unconfirmed("owner", 2) },
			exchange("owner", 3), OK, false, false, 2},
		{"5 client restart", confirmed, exchange("owner", 2), OK, false, false, 2},
		{"6 update", confirmed, with(func(a *ExchangeArgs) { a.Update = true; a.Impl = "newer" }), OK, true, true, 1},
		{"7 update, nothing there", func(*world) ClientID { return 0 }, with(func(a *ExchangeArgs) { a.Update = true }), ErrNoEnt, false, false, 0},
		{"7 update, unconfirmed only", func(w *world) ClientID { return w.unconfirmed("owner", 1) },
			with(func(a *ExchangeArgs) { a.Update = true }), ErrNoEnt, false, false, 1},
		{"8 update, wrong verifier", confirmed, with(func(a *ExchangeArgs) { a.Update = true; a.Verifier[0] = 9 }), ErrNotSame, false, false, 1},
		{"8 comes before 9", confirmed, with(func(a *ExchangeArgs) { a.Update = true; a.Verifier[0] = 9; a.Principal = other }), ErrNotSame, false, false, 1},
		{"9 update, wrong principal", confirmed, with(func(a *ExchangeArgs) { a.Update = true; a.Principal = other }), ErrPerm, false, false, 1},
		{"owner too long", func(*world) ClientID { return 0 }, exchange(strings.Repeat("x", 1025), 1), ErrInval, false, false, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			before := tt.before(w)
			r, st := w.ExchangeID(w.kv, tt.args)
			w.want("ExchangeID", st, tt.st)
			if len(w.clients) != tt.left {
				t.Errorf("%d records, want %d", len(w.clients), tt.left)
			}
			if st == OK {
				if (r.Client == before) != tt.same || r.Confirmed != tt.conf {
					t.Errorf("got %+v, before %x", r, before)
				}
				if c := w.clients[r.Client]; c == nil || r.Sequence != c.createSeq+1 {
					t.Errorf("sequence %d does not continue the record's", r.Sequence)
				}
			}
			w.check()
		})
	}
}

func TestUpdateDescribes(t *testing.T) {
	w := newWorld(t)
	id, _ := w.client("owner")
	a := exchange("owner", 1)
	a.Update, a.Impl, a.Addr = true, strings.Repeat("i", 500), "[::1]:1"
	_, st := w.ExchangeID(w.kv, a)
	w.want("ExchangeID", st, OK)
	if c := w.clients[id]; c.addr != "[::1]:1" || len(c.impl) != maxImplBytes {
		t.Errorf("addr %q, impl of %d bytes", c.addr, len(c.impl))
	}
	w.check()
}

// A restarted client's old state goes when, and only when, the new record is confirmed: RFC 8881 sections 18.35.4 item 5 and 18.36.4.
func TestClientRestart(t *testing.T) {
	w := newWorld(t)
	old, oldSession := w.client("owner")
	stay, _ := w.client("another")
	sid := w.open(old, "oo", 7, AccessBoth, 0)
	w.open(old, "oo", 8, AccessRead, 0)
	keep := w.open(stay, "oo", 8, AccessBoth, 0)
	_, st := w.lockNew(old, 8, w.open(old, "oo", 8, AccessRead, 0), "lo", LockRead, 0, 10)
	w.want("Lock", st, OK)
	_, st = w.lockNew(stay, 8, keep, "waiter", LockWriteW, 5, 10)
	w.want("Lock of the waiter", st, ErrDenied)

	id := w.unconfirmed("owner", 2)
	w.want("I/O before the confirmation", w.CheckIO(old, 7, sid, AccessWrite), OK)
	if _, st := w.Slot(oldSession, 0); st != OK {
		t.Fatalf("the old session is gone too early: %d", st)
	}
	// A failing CREATE_SESSION changes no record.
	_, st = w.CreateSession(w.kv, &CreateSessionArgs{Client: id, Principal: root, Fore: ChannelAttrs{MaxRequest: 1}})
	w.want("CreateSession too small", st, ErrTooSmall)
	w.want("I/O after the failure", w.CheckIO(old, 7, sid, AccessWrite), OK)

	r := w.session(id)
	if !slices.Equal(r.Dropped.Closed, []volume.Ino{7}) {
		t.Errorf("closed %v, want inode 7 only", r.Dropped.Closed)
	}
	if len(r.Dropped.Notify) != 1 || r.Dropped.Notify[0].Owner != "waiter" || r.Dropped.Notify[0].Handle != "fh" {
		t.Errorf("notify %v, want the waiter", r.Dropped.Notify)
	}
	if _, st := w.Slot(oldSession, 0); st != ErrBadSession {
		t.Errorf("the old session is still there: %d", st)
	}
	w.want("I/O by the old client id", w.CheckIO(old, 7, sid, AccessWrite), ErrBadStateID)
	_, _, st = w.BeginCreateSession(old, 2)
	w.want("CREATE_SESSION by the old client id", st, ErrStaleClientID)
	if w.InUse(7) || !w.InUse(8) {
		t.Error("inode 7 should be free and 8 in use")
	}
	w.check()
}

// RFC 8881 section 18.50.3.
func TestDestroyClientID(t *testing.T) {
	w := newWorld(t)
	id, s := w.client("owner")
	w.want("with a session", w.DestroyClientID(w.kv, id), ErrClientIDBusy)
	sid := w.open(id, "oo", 7, AccessRead, 0)
	w.want("DestroySession", w.DestroySession(w.kv, s), OK)
	w.want("DestroySession again", w.DestroySession(w.kv, s), ErrBadSession)
	w.want("with an open", w.DestroyClientID(w.kv, id), ErrClientIDBusy)
	_, st := w.Close(w.kv, id, 7, sid)
	w.want("Close", st, OK)
	w.want("idle", w.DestroyClientID(w.kv, id), OK)
	w.want("gone", w.DestroyClientID(w.kv, id), ErrStaleClientID)
	w.want("unconfirmed", w.DestroyClientID(w.kv, w.unconfirmed("x", 1)), OK)
	if len(w.kv.m) != 1 {
		t.Errorf("%d keys left, want only the meta record", len(w.kv.m))
	}
	w.check()
}

func TestExpireClient(t *testing.T) {
	w := newWorld(t)
	a, _ := w.client("a")
	b, sb := w.client("b")
	w.open(a, "1", 10, AccessBoth, 0)
	w.open(a, "2", 10, AccessBoth, 0)
	w.open(a, "1", 5, AccessBoth, DenyBoth)
	bo := w.open(b, "1", 10, AccessBoth, 0)
	l, st := w.lockNew(a, 10, w.open(a, "1", 10, AccessRead, 0), "lo", LockWrite, 0, toEOF)
	w.want("Lock", st, OK)
	for _, owner := range []string{"x", "y"} {
		_, st = w.lockNew(b, 10, bo, owner, LockWriteW, 0, 1)
		w.want("Lock by "+owner, st, ErrDenied)
	}
	_, st = w.lockNew(a, 10, w.open(a, "2", 10, AccessRead, 0), "own waiter", LockWriteW, 0, 1)
	w.want("Lock of the client's own waiter", st, ErrDenied)
	w.Record(w.kv, sb, 0, 1, 0, []byte("reply"))

	d, ok := w.ExpireClient(w.kv, a)
	if !ok || !slices.Equal(d.Closed, []volume.Ino{5}) {
		t.Errorf("ExpireClient = %+v, %v", d, ok)
	}
	if len(d.Notify) != 2 || d.Notify[0].Owner != "x" || d.Notify[1].Owner != "y" {
		t.Errorf("notify %+v, want x and y in order", d.Notify)
	}
	w.want("its lock stateid", w.TestStateID(a, l.StateID), ErrBadStateID)
	if _, ok := w.ExpireClient(w.kv, a); ok {
		t.Error("expired twice")
	}
	w.check()
}

func TestClientLimit(t *testing.T) {
	w := newWorld(t, func(l *Limits) { l.Clients = 3 })
	a, _ := w.client("a")
	first := w.unconfirmed("b", 1)
	second := w.unconfirmed("c", 1)
	third := w.unconfirmed("d", 1)
	if w.clients[first] != nil || w.clients[second] == nil || w.clients[third] == nil || w.clients[a] == nil {
		t.Error("want the oldest unconfirmed record to make room")
	}
	w.session(second)
	w.session(third)
	_, st := w.ExchangeID(w.kv, exchange("e", 1))
	w.want("all confirmed", st, ErrDelay)
	w.check()
}

// Restoring a backup: RFC 8881 section 8.4.2, for the one case where the server lost state.
// TestGraceUnderClockSteps sets the clock during a grace period. Version 3 of volumes lets time go back; see volume.Tx.Now.
func TestGraceUnderClockSteps(t *testing.T) {
	const year = 365 * 24 * 3600 * int64(1e9)
	for _, test := range []struct {
		name  string
		ticks []int64
		grace bool // after them
	}{
		{"it lasts", []int64{year, year + 99, year + 100}, true},
		{"it ends", []int64{year, year + 101}, false},
		{"set back", []int64{year, 1, 101}, true},
		{"set back, and over", []int64{year, 1, 102}, false},
		{"set back by a little", []int64{year, year + 50, year + 40, year + 100}, true},
		{"set back by a little, and over", []int64{year, year + 50, year + 40, year + 101}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			a, _ := w.client("a")
			w.open(a, "oo", 7, AccessBoth, 0)
			w.Restored(w.kv, 99)
			for _, now := range test.ticks {
				w.Tick(w.kv, now, 100)
				w.Tables = checkLoad(t, w.Tables, w.kv)
			}
			if w.InGrace() != test.grace {
				t.Errorf("in grace: %v", w.InGrace())
			}
		})
	}
}

func TestRestoredGrace(t *testing.T) {
	w := newWorld(t)
	a, _ := w.client("a")
	b, _ := w.client("b")
	w.client("idle")
	w.open(a, "oo", 7, AccessBoth, 0)
	w.open(b, "oo", 8, AccessBoth, 0)
	d := w.Restored(w.kv, 99)
	if !slices.Equal(d.Closed, []volume.Ino{7, 8}) || !w.InGrace() || len(w.clients) != 0 {
		t.Fatalf("Restored = %+v, grace %v, %d clients", d, w.InGrace(), len(w.clients))
	}
	w.Tables = checkLoad(t, w.Tables, w.kv)

	a2 := w.unconfirmed("a", 1)
	if a2>>32 == a>>32 {
		t.Error("a restored volume must hand out other client ids")
	}
	w.session(a2)
	reclaim := func(id ClientID, ino volume.Ino, reclaim bool) Status {
		_, st := w.Open(w.kv, &OpenArgs{Client: id, Owner: []byte("oo"), Ino: ino, Access: AccessBoth, Reclaim: reclaim})
		return st
	}
	w.want("new open in grace", reclaim(a2, 9, false), ErrGrace)
	w.want("reclaim", reclaim(a2, 7, true), OK)
	w.want("anonymous I/O in grace", w.CheckIO(a2, 9, AnonymousStateID, AccessRead), ErrGrace)
	_, st := w.TestLock(a2, 7, LockRead, 0, 1, nil)
	w.want("LOCKT in grace", st, ErrGrace)
	c := w.unconfirmed("stranger", 1)
	w.session(c)
	w.want("reclaim by a stranger", reclaim(c, 9, true), ErrNoGrace)
	w.want("ReclaimComplete", w.ReclaimComplete(w.kv, a2), OK)
	w.want("ReclaimComplete twice", w.ReclaimComplete(w.kv, a2), ErrCompleteAlready)
	w.want("reclaim after complete", reclaim(a2, 9, true), ErrNoGrace)
	w.want("new open while others reclaim", reclaim(a2, 9, false), ErrGrace)
	b2 := w.unconfirmed("b", 1)
	w.session(b2)
	w.want("ReclaimComplete", w.ReclaimComplete(w.kv, b2), OK)
	if w.InGrace() {
		t.Fatal("grace goes on after the last RECLAIM_COMPLETE")
	}
	w.want("new open after grace", reclaim(a2, 9, false), OK)
	w.want("new open before RECLAIM_COMPLETE", reclaim(c, 10, false), ErrGrace)
	w.check()

	w.Restored(w.kv, 99)
	w.EndGrace(w.kv)
	if w.InGrace() {
		t.Error("EndGrace did not")
	}
	w.check()
}

func TestViews(t *testing.T) {
	w := newWorld(t)
	a, s := w.client("a")
	b, _ := w.client("b")
	ob := w.open(b, "oo", 7, AccessBoth, 0)
	w.open(a, "oo", 9, AccessRead, DenyWrite)
	_, st := w.lockNew(b, 7, ob, "lo", LockWrite, 100, toEOF)
	w.want("Lock", st, OK)
	_, st = w.lockNew(b, 7, ob, "lo2", LockRead, 10, 20)
	w.want("Lock", st, OK)
	w.Record(w.kv, s, 3, 1, 0, []byte("0123456789"))
	if got := w.Clients(); len(got) != 2 || got[0].ID != a || got[0].Sessions[0].ReplyBytes != 10 || got[1].Locks != 2 || !got[1].Confirmed {
		t.Errorf("Clients = %+v", got)
	}
	if got, want := fmt.Sprint(w.Opens()), fmt.Sprintf("[{%d oo 7 3 0 2} {%d oo 9 1 2 0}]", b, a); got != want {
		t.Errorf("Opens = %v, want %v", got, want)
	}
	want := []LockView{{b, "lo2", 7, LockRead, 10, 20}, {b, "lo", 7, LockWrite, 100, toEOF}}
	if got := w.Locks(); !slices.Equal(got, want) {
		t.Errorf("Locks = %+v, want %+v", got, want)
	}
	if got, want := w.Counts(), (Counts{2, 2, 2, 2, 2}); got != want {
		t.Errorf("Counts = %+v, want %+v", got, want)
	}
}

// toEOF is the length of a lock to the end of file.
const toEOF = ^uint64(0)
