package state

import (
	"encoding/binary"
	"fmt"
	"testing"

	"holdfast/internal/volume"
)

func stateCounter(s StateID) uint64 { return binary.BigEndian.Uint64(s.Other[4:]) }

func inoOf(n int) volume.Ino { return volume.Ino(n) }

// RFC 8881 section 18.10.
func TestLock(t *testing.T) {
	w := newWorld(t)
	a, _ := w.client("a")
	b, _ := w.client("b")
	oa, ob := w.open(a, "oo", 7, 3, 0), w.open(b, "oo", 7, 3, 0)
	ro := w.open(b, "ro", 7, 1, 0)
	wo := w.open(b, "wo", 7, 2, 0)
	la, st := w.lockNew(a, 7, oa, "lo", LockWrite, 100, 50)
	w.want("Lock", st, OK)
	if la.StateID.Seqid != 1 || la.StateID.Other == oa.Other {
		t.Errorf("lock stateid %v", la.StateID)
	}
	for _, tt := range []struct {
		name        string
		typ         LockType
		off, length uint64
		st          Status
	}{
		{"beside", LockWrite, 150, 10, OK},
		{"overlap, write", LockWrite, 149, 1, ErrDenied},
		{"overlap, read", LockRead, 0, 101, ErrDenied},
		{"length 0", LockRead, 0, 0, ErrInval},
		{"beyond 2^64", LockRead, 2, ^uint64(0) - 1, ErrInval},
		{"type 0", 0, 0, 1, ErrInval},
		{"type 5", 5, 0, 1, ErrInval},
	} {
		r, st := w.lockNew(b, 7, ob, "lo", tt.typ, tt.off, tt.length)
		w.want(tt.name, st, tt.st)
		if want := (Denied{100, 50, LockWrite, a, "lo"}); st == ErrDenied && r.Denied != want {
			t.Errorf("%s: denied by %+v, want %+v", tt.name, r.Denied, want)
		}
	}
	_, st = w.lockNew(b, 7, ro, "x", LockWrite, 500, 1)
	w.want("write lock on a read open", st, ErrOpenMode)
	_, st = w.lockNew(b, 7, wo, "x", LockRead, 500, 1)
	w.want("read lock on a write open", st, ErrOpenMode)
	_, st = w.lockNew(b, 7, la.StateID, "x", LockRead, 500, 1)
	w.want("another's stateid", st, ErrBadStateID)
	_, st = w.lockNew(a, 7, la.StateID, "x", LockRead, 500, 1)
	w.want("a lock stateid as open stateid", st, ErrBadStateID)
	_, st = w.lockOld(a, 7, oa, LockRead, 500, 1)
	w.want("an open stateid as lock stateid", st, ErrBadStateID)
	_, st = w.Lock(w.kv, &LockArgs{Client: a, Ino: 7, Type: LockRead, Length: 1, StateID: la.StateID, Reclaim: true})
	w.want("reclaim without grace", st, ErrNoGrace)
	w.check()
}

// A lock owner's own locks are replaced, and its stateid counts up: RFC 8881 sections 9.3 and 18.10.4.
func TestLockUpgradeDowngradeSplit(t *testing.T) {
	w := newWorld(t)
	a, _ := w.client("a")
	b, _ := w.client("b")
	oa, ob := w.open(a, "oo", 7, 3, 0), w.open(b, "oo", 7, 3, 0)
	la, st := w.lockNew(a, 7, oa, "lo", LockRead, 0, 100)
	w.want("Lock", st, OK)
	lb, st := w.lockNew(b, 7, ob, "lo", LockRead, 90, 100)
	w.want("shared Lock", st, OK)
	_, st = w.lockOld(a, 7, la.StateID, LockWrite, 0, 100)
	w.want("upgrade against a reader", st, ErrDenied)
	up, st := w.lockOld(a, 7, la.StateID, LockWrite, 0, 50)
	w.want("upgrade of the free part", st, OK)
	if up.StateID.Seqid != 2 || up.StateID.Other != la.StateID.Other {
		t.Errorf("stateid %v after %v", up.StateID, la.StateID)
	}
	_, st = w.lockOld(a, 7, la.StateID, LockWrite, 0, 50)
	w.want("the old seqid", st, ErrOldStateID)
	// The same owner by open stateid again: the lock stateid is the same.
	again, st := w.lockNew(a, 7, oa, "lo", LockRead, 10, 10)
	w.want("Lock by open stateid again", st, OK)
	if again.StateID.Other != la.StateID.Other || again.StateID.Seqid != 3 {
		t.Errorf("stateid %v", again.StateID)
	}
	if got := ranges(w); got != "a:0-9w a:10-19r a:20-49w a:50-99r b:90-189r" {
		t.Errorf("ranges %s", got)
	}
	sid, _, st := w.Unlock(w.kv, b, 7, lb.StateID, 100, 10)
	w.want("Unlock in the middle", st, OK)
	_, _, st = w.Unlock(w.kv, b, 7, sid, 1000, 10)
	w.want("Unlock of nothing", st, OK)
	if got := ranges(w); got != "a:0-9w a:10-19r a:20-49w a:50-99r b:90-99r b:110-189r" {
		t.Errorf("ranges %s", got)
	}
	_, _, st = w.Unlock(w.kv, b, 7, ob, 0, 1)
	w.want("Unlock by open stateid", st, ErrBadStateID)
	_, _, st = w.Unlock(w.kv, b, 7, lb.StateID, 0, 0)
	w.want("Unlock of length 0", st, ErrInval)
	w.check()
}

// ranges shows the locks of all files by client owner.
func ranges(w *world) string {
	s := ""
	for _, l := range w.Locks() {
		kind := "r"
		if l.Type == LockWrite {
			kind = "w"
		}
		if s != "" {
			s += " "
		}
		s += fmt.Sprintf("%s:%d-%d%s", w.clients[l.Client].owner, l.Offset, l.Offset+l.Length-1, kind)
	}
	return s
}

// RFC 8881 section 18.11.
func TestTestLock(t *testing.T) {
	w := newWorld(t)
	a, _ := w.client("a")
	b, _ := w.client("b")
	_, st := w.lockNew(a, 7, w.open(a, "oo", 7, 3, 0), "lo", LockRead, 10, toEOF)
	w.want("Lock", st, OK)
	for _, tt := range []struct {
		name        string
		client      ClientID
		ino         int
		typ         LockType
		off, length uint64
		owner       string
		st          Status
	}{
		{"own", a, 7, LockWrite, 0, toEOF, "lo", OK},
		{"own client, another owner", a, 7, LockWrite, 0, toEOF, "lo2", ErrDenied},
		{"the same owner name of another client", b, 7, LockWriteW, 1 << 40, 1, "lo", ErrDenied},
		{"shared", b, 7, LockReadW, 0, toEOF, "lo", OK},
		{"before", b, 7, LockWrite, 0, 10, "lo", OK},
		{"not open", b, 8, LockWrite, 0, 10, "lo", OK},
		{"bad range", b, 8, LockWrite, 0, 0, "lo", ErrInval},
		{"bad type", b, 8, 9, 0, 1, "lo", ErrInval},
		{"unknown client", 5, 8, LockRead, 0, 1, "lo", ErrStaleClientID},
	} {
		d, st := w.TestLock(tt.client, inoOf(tt.ino), tt.typ, tt.off, tt.length, []byte(tt.owner))
		w.want(tt.name, st, tt.st)
		if want := (Denied{10, toEOF, LockRead, a, "lo"}); st == ErrDenied && d != want {
			t.Errorf("%s: %+v, want %+v", tt.name, d, want)
		}
	}
	if len(w.Tables.locks) != 1 {
		t.Error("TestLock left state behind")
	}
}

// RFC 8881 sections 9.6 and 20.11: who asked to be told is told when, and only when, the lock may be had.
func TestWaiters(t *testing.T) {
	w := newWorld(t, func(l *Limits) { l.WaitersPerFile = 3 })
	a, _ := w.client("a")
	b, _ := w.client("b")
	oa, ob := w.open(a, "oo", 7, 3, 0), w.open(b, "oo", 7, 3, 0)
	la, st := w.lockNew(a, 7, oa, "holder", LockWrite, 0, 100)
	w.want("Lock", st, OK)
	ask := func(owner string, typ LockType, off, length uint64) {
		t.Helper()
		_, st := w.lockNew(b, 7, ob, owner, typ, off, length)
		w.want("Lock by "+owner, st, ErrDenied)
	}
	names := func(ws []Waiter) string {
		s := ""
		for _, x := range ws {
			s += x.Owner + " "
		}
		return s
	}
	ask("no wait", LockWrite, 0, 1)
	ask("low", LockReadW, 0, 10)
	ask("high", LockWriteW, 50, 10)
	ask("low", LockReadW, 0, 20) // asks again: last in line now, with the new range
	ask("all", LockWriteW, 0, 100)
	ask("one too many", LockWriteW, 0, 100)

	sid, woken, st := w.Unlock(w.kv, a, 7, la.StateID, 0, 15)
	w.want("Unlock", st, OK)
	if len(woken) != 0 {
		t.Errorf("woken %s, though all still conflict", names(woken))
	}
	r, st := w.lockOld(a, 7, sid, LockRead, 15, 10)
	w.want("downgrade", st, OK)
	if names(r.Notify) != "low " {
		t.Errorf("woken %q by the downgrade, want low", names(r.Notify))
	}
	sid, woken, st = w.Unlock(w.kv, a, 7, r.StateID, 50, 50)
	w.want("Unlock", st, OK)
	if names(woken) != "high " || woken[0].Type != LockWriteW || woken[0].Ino != 7 || woken[0].Client != b {
		t.Errorf("woken %+v, want high", woken)
	}
	_, woken, st = w.Unlock(w.kv, a, 7, sid, 0, toEOF)
	w.want("Unlock", st, OK)
	if names(woken) != "all " {
		t.Errorf("woken %q, want all", names(woken))
	}
	// Who got a lock by asking again waits no longer.
	_, st = w.lockNew(a, 7, oa, "holder", LockWrite, 0, 10)
	w.want("Lock", st, OK)
	ask("asks twice", LockWriteW, 0, 5)
	if len(w.files[7].waiters) != 1 {
		t.Errorf("%d waiters, want 1", len(w.files[7].waiters))
	}
	_, st = w.lockNew(b, 7, ob, "asks twice", LockWriteW, 60, 5)
	w.want("Lock elsewhere", st, OK)
	if len(w.files[7].waiters) != 0 {
		t.Errorf("%d waiters, want none", len(w.files[7].waiters))
	}
	w.check()
	// A waiter's client that closes the file waits no longer.
	_, st = w.lockNew(a, 7, oa, "holder", LockWrite, 0, 20)
	w.want("Lock", st, OK)
	ask("gone", LockWriteW, 0, 1)
	_, st = w.Close(w.kv, b, 7, ob)
	w.want("Close", st, OK)
	if n := len(w.files[7].waiters); n != 0 {
		t.Errorf("%d waiters left", n)
	}
	w.check()
}

// One lock owner that came through two opens of a file: the locks last until both are closed.
func TestLockOwnerThroughTwoOpens(t *testing.T) {
	w := newWorld(t)
	a, _ := w.client("a")
	one, two := w.open(a, "one", 7, 3, 0), w.open(a, "two", 7, 3, 0)
	l1, st := w.lockNew(a, 7, one, "lo", LockWrite, 0, 10)
	w.want("Lock", st, OK)
	l2, st := w.lockNew(a, 7, two, "lo", LockWrite, 5, 10)
	w.want("Lock through the other", st, OK)
	if l1.StateID.Other == l2.StateID.Other {
		t.Error("two opens share a lock stateid")
	}
	w.Tables = checkLoad(t, w.Tables, w.kv)
	_, st = w.Close(w.kv, a, 7, one)
	w.want("Close", st, OK)
	if got := ranges(w); got != "a:0-14w" {
		t.Errorf("ranges %s", got)
	}
	w.check()
	_, st = w.Close(w.kv, a, 7, two)
	w.want("Close", st, OK)
	if got := ranges(w); got != "" || len(w.clients[a].lockOwners) != 0 {
		t.Errorf("ranges %s, %d owners", got, len(w.clients[a].lockOwners))
	}
	w.check()
}

func TestLockLimits(t *testing.T) {
	w := newWorld(t, func(l *Limits) { l.LocksPerClient = 4 })
	a, _ := w.client("a")
	o := w.open(a, "oo", 7, 3, 0)
	l, st := w.lockNew(a, 7, o, "lo", LockWrite, 0, 100)
	w.want("Lock", st, OK)
	sid := l.StateID
	for i := range 3 {
		sid, _, st = w.Unlock(w.kv, a, 7, sid, uint64(10+20*i), 5)
		w.want("Unlock", st, OK)
	}
	_, _, st = w.Unlock(w.kv, a, 7, sid, 90, 5)
	w.want("a split beyond the limit", st, ErrDelay)
	_, st = w.lockOld(a, 7, sid, LockWrite, 200, 5)
	w.want("a lock beyond the limit", st, ErrDelay)
	sid, _, st = w.Unlock(w.kv, a, 7, sid, 0, 80)
	w.want("an unlock at the limit", st, OK)
	_, st = w.lockOld(a, 7, sid, LockWrite, 200, 5)
	w.want("a lock after it", st, OK)
	for i := range 3 {
		_, st = w.lockNew(a, 7, o, fmt.Sprint(i), LockRead, 1000, 5)
		want := OK
		if i > 0 {
			want = ErrDelay
		}
		w.want("another owner", st, want)
	}
	w.check()
}
