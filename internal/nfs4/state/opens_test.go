package state

import (
	"strings"
	"testing"
)

// RFC 8881 section 9.7: share reservations between owners, of one client or of two.
func TestShareReservations(t *testing.T) {
	const r, w, b = AccessRead, AccessWrite, AccessBoth
	tests := []struct {
		access, deny uint32 // held
		wantA, wantD uint32 // asked for
		st           Status
	}{
		{r, 0, r, 0, OK},
		{b, 0, b, 0, OK},
		{r, DenyWrite, r, 0, OK},
		{r, DenyWrite, w, 0, ErrShareDenied},
		{r, DenyWrite, b, 0, ErrShareDenied},
		{r, DenyRead, r, 0, ErrShareDenied},
		{r, DenyRead, w, 0, OK},
		{w, 0, r, DenyWrite, ErrShareDenied},
		{w, 0, r, DenyRead, OK},
		{b, 0, r, DenyBoth, ErrShareDenied},
		{r, DenyBoth, r, 0, ErrShareDenied},
		{r, DenyWrite, r, DenyWrite, OK},
		{b, DenyBoth, b, DenyBoth, ErrShareDenied},
	}
	for _, tt := range tests {
		w := newWorld(t)
		one, _ := w.client("one")
		two, _ := w.client("two")
		sid := w.open(one, "oo", 7, tt.access, tt.deny)
		args := &OpenArgs{Client: two, Owner: []byte("oo"), Ino: 7, Access: tt.wantA, Deny: tt.wantD}
		w.want("CheckOpen", w.CheckOpen(args), tt.st)
		_, st := w.Open(w.kv, args)
		if st != tt.st {
			t.Errorf("held %d/%d, asked %d/%d: %d, want %d", tt.access, tt.deny, tt.wantA, tt.wantD, st, tt.st)
		}
		if st != OK {
			_, st = w.Close(w.kv, one, 7, sid)
			w.want("Close", st, OK)
			_, st = w.Open(w.kv, args)
			w.want("Open after the other's close", st, OK)
		}
		w.check()
	}
}

func TestOpenArguments(t *testing.T) {
	w := newWorld(t, func(l *Limits) { l.OpensPerClient = 2 })
	id, _ := w.client("a")
	for _, tt := range []struct {
		name string
		args OpenArgs
		st   Status
	}{
		{"no access", OpenArgs{Client: id, Ino: 7}, ErrInval},
		{"access beyond", OpenArgs{Client: id, Ino: 7, Access: 4}, ErrInval},
		{"deny beyond", OpenArgs{Client: id, Ino: 7, Access: 1, Deny: 4}, ErrInval},
		{"long owner", OpenArgs{Client: id, Ino: 7, Access: 1, Owner: []byte(strings.Repeat("x", 1025))}, ErrInval},
		{"no client", OpenArgs{Client: 1, Ino: 7, Access: 1}, ErrStaleClientID},
		{"reclaim without grace", OpenArgs{Client: id, Ino: 7, Access: 1, Reclaim: true}, ErrNoGrace},
		{"empty owner", OpenArgs{Client: id, Ino: 7, Access: 1}, OK},
		{"the limit's last", OpenArgs{Client: id, Ino: 8, Access: 1}, OK},
		{"beyond the limit", OpenArgs{Client: id, Ino: 9, Access: 1}, ErrNoSpace},
		{"an upgrade at the limit", OpenArgs{Client: id, Ino: 8, Access: 2}, OK},
	} {
		_, st := w.Open(w.kv, &tt.args)
		w.want(tt.name, st, tt.st)
	}
	if w.InUse(9) || !w.InUse(8) {
		t.Error("InUse is wrong")
	}
	w.check()
}

// RFC 8881 sections 9.8 and 18.18.3: opens of one owner merge, and a downgrade must name a union of some of them.
func TestUpgradeAndDowngrade(t *testing.T) {
	type share struct{ access, deny uint32 }
	tests := []struct {
		name  string
		opens []share
		to    share
		st    Status
		then  share // another downgrade after a good one
		st2   Status
	}{
		{"back to read", []share{{1, 0}, {2, 0}}, share{1, 0}, OK, share{2, 0}, ErrInval},
		{"to the same", []share{{1, 0}}, share{1, 0}, OK, share{1, 0}, OK},
		{"part of BOTH", []share{{3, 0}}, share{1, 0}, ErrInval, share{}, 0},
		{"read beside BOTH", []share{{1, 0}, {3, 0}}, share{1, 0}, OK, share{3, 0}, ErrInval},
		{"union of two", []share{{1, 0}, {2, 0}, {3, 3}}, share{3, 0}, OK, share{1, 0}, OK},
		{"deny that was never there", []share{{1, 0}, {2, 0}}, share{1, 2}, ErrInval, share{}, 0},
		{"access without its deny", []share{{1, 1}, {2, 0}}, share{1, 0}, ErrInval, share{}, 0},
		{"union of denies", []share{{1, 1}, {1, 2}, {2, 3}}, share{1, 3}, OK, share{1, 2}, OK},
		{"no access", []share{{1, 0}}, share{0, 0}, ErrInval, share{}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			id, _ := w.client("a")
			var sid StateID
			var access uint32
			for i, s := range tt.opens {
				sid = w.open(id, "oo", 7, s.access, s.deny)
				access |= s.access
				if sid.Seqid != uint32(i+1) {
					t.Errorf("open %d has seqid %d", i, sid.Seqid)
				}
			}
			if got, st := w.OpenAccess(id, 7, sid); got != access || st != OK {
				t.Errorf("access %d, %d, want %d", got, st, access)
			}
			next, st := w.Downgrade(w.kv, id, 7, sid, tt.to.access, tt.to.deny)
			w.want("Downgrade", st, tt.st)
			w.check()
			if st != OK {
				return
			}
			if next.Seqid != sid.Seqid+1 || next.Other != sid.Other {
				t.Errorf("stateid %v after %v", next, sid)
			}
			if got, _ := w.OpenAccess(id, 7, next); got != tt.to.access {
				t.Errorf("access %d, want %d", got, tt.to.access)
			}
			_, st = w.Downgrade(w.kv, id, 7, next, tt.then.access, tt.then.deny)
			w.want("second Downgrade", st, tt.st2)
			w.check()
		})
	}
}

// A downgrade gives up what it denied.
func TestDowngradeLetsOthersIn(t *testing.T) {
	w := newWorld(t)
	a, _ := w.client("a")
	b, _ := w.client("b")
	w.open(a, "oo", 7, 1, 0)
	sid := w.open(a, "oo", 7, 3, 2)
	args := &OpenArgs{Client: b, Ino: 7, Access: 2}
	w.want("before", w.CheckOpen(args), ErrShareDenied)
	_, st := w.Downgrade(w.kv, a, 7, sid, 1, 0)
	w.want("Downgrade", st, OK)
	w.want("after", w.CheckOpen(args), OK)
}

func TestClose(t *testing.T) {
	w := newWorld(t)
	a, _ := w.client("a")
	b, _ := w.client("b")
	sa, sb := w.open(a, "oo", 7, 3, 0), w.open(b, "oo", 7, 3, 0)
	lock, st := w.lockNew(a, 7, sa, "lo", LockWrite, 0, 10)
	w.want("Lock", st, OK)
	_, st = w.lockNew(b, 7, sb, "wants", LockReadW, 0, 5)
	w.want("Lock by b", st, ErrDenied)
	_, st = w.Close(w.kv, a, 7, lock.StateID)
	w.want("Close of a lock stateid", st, ErrBadStateID)
	_, st = w.Close(w.kv, b, 7, sa)
	w.want("Close by another client", st, ErrBadStateID)
	_, st = w.Close(w.kv, a, 8, sa)
	w.want("Close of another file", st, ErrBadStateID)
	r, st := w.Close(w.kv, a, 7, sa)
	w.want("Close", st, OK)
	if r.StateID != InvalidStateID || r.LastClose || len(r.Notify) != 1 || r.Notify[0].Client != b || r.Notify[0].Owner != "wants" {
		t.Errorf("Close = %+v", r)
	}
	w.want("the lock stateid after its open", w.TestStateID(a, lock.StateID), ErrBadStateID)
	_, st = w.Close(w.kv, a, 7, sa)
	w.want("Close again", st, ErrBadStateID)
	if r, _ := w.Close(w.kv, b, 7, sb); !r.LastClose || w.InUse(7) {
		t.Error("the last close was not noticed")
	}
	w.check()
}

// RFC 8881 section 8.2.2.
func TestCompareSeqid(t *testing.T) {
	for _, tt := range []struct {
		presented, current uint32
		want               Status
	}{
		{0, 1, OK}, {0, ^uint32(0), OK}, {5, 5, OK}, {4, 5, ErrOldStateID}, {6, 5, ErrBadStateID},
		{^uint32(0), 1, ErrOldStateID}, {1, ^uint32(0), ErrBadStateID}, {2, ^uint32(0) - 3, ErrBadStateID}, {^uint32(0) - 3, 2, ErrOldStateID},
	} {
		if got := compareSeqid(tt.presented, tt.current); got != tt.want {
			t.Errorf("compareSeqid(%d, %d) = %d, want %d", tt.presented, tt.current, got, tt.want)
		}
	}
	if nextSeqid(^uint32(0)) != 1 || nextSeqid(1) != 2 {
		t.Error("nextSeqid does not skip zero")
	}
}

func TestStateIDWraparound(t *testing.T) {
	w := newWorld(t)
	id, _ := w.client("a")
	old := w.open(id, "oo", 7, 1, 0)
	w.opens[stateCounter(old)].seqid = ^uint32(0)
	last := w.open(id, "oo", 7, 1, 0)
	if last.Seqid != 1 {
		t.Fatalf("seqid %d after 2^32-1", last.Seqid)
	}
	before := last
	before.Seqid = ^uint32(0)
	w.want("the one before", w.CheckIO(id, 7, before, AccessRead), ErrOldStateID)
	w.want("the last", w.CheckIO(id, 7, last, AccessRead), OK)
}

// RFC 8881 sections 8.2.3, 9.1.2 and 9.7.
func TestCheckIO(t *testing.T) {
	w := newWorld(t)
	a, _ := w.client("a")
	b, _ := w.client("b")
	ro := w.open(a, "ro", 7, AccessRead, 0)
	wo := w.open(a, "wo", 7, AccessWrite, 0)
	rw := w.open(a, "rw", 7, AccessBoth, 0)
	lock, st := w.lockNew(a, 7, wo, "lo", LockWrite, 0, 1)
	w.want("Lock", st, OK)
	denyW := w.open(b, "dw", 8, AccessRead, DenyWrite)
	w.open(b, "dr", 9, AccessWrite, DenyRead)
	zero := func(s StateID) StateID { s.Seqid = 0; return s }
	ahead := func(s StateID) StateID { s.Seqid++; return s }
	forged := rw
	forged.Other[11] ^= 0x40
	const r, wr = AccessRead, AccessWrite
	tests := []struct {
		name   string
		client ClientID
		ino    int
		sid    StateID
		access uint32
		st     Status
	}{
		{"read by reader", a, 7, ro, r, OK},
		{"write by reader", a, 7, ro, wr, ErrOpenMode},
		{"read by writer", a, 7, wo, r, ErrOpenMode},
		{"write by writer", a, 7, wo, wr, OK},
		{"both", a, 7, rw, r | wr, OK},
		{"seqid 0", a, 7, zero(rw), wr, OK},
		{"seqid ahead", a, 7, ahead(rw), wr, ErrBadStateID},
		{"lock stateid has the open's mode", a, 7, lock.StateID, wr, OK},
		{"lock stateid beyond the open's mode", a, 7, lock.StateID, r, ErrOpenMode},
		{"another's stateid", b, 7, rw, r, ErrBadStateID},
		{"another file's", b, 7, denyW, r, ErrBadStateID},
		{"never given out", a, 7, forged, r, ErrBadStateID},
		{"anonymous", a, 7, AnonymousStateID, r, OK},
		{"anonymous write", a, 7, AnonymousStateID, wr, OK},
		{"anonymous, file not open", a, 70, AnonymousStateID, wr, OK},
		{"anonymous write where denied", a, 8, AnonymousStateID, wr, ErrLocked},
		{"anonymous read where write is denied", a, 8, AnonymousStateID, r, OK},
		{"anonymous read where denied", a, 9, AnonymousStateID, r, ErrLocked},
		{"bypass read where denied", a, 9, BypassStateID, r, OK},
		{"bypass write where denied", a, 8, BypassStateID, wr, ErrLocked},
		{"bypass write where read is denied", a, 9, BypassStateID, wr, OK},
		{"current, unresolved", a, 7, CurrentStateID, r, ErrBadStateID},
		{"invalid", a, 7, InvalidStateID, r, ErrBadStateID},
	}
	for _, tt := range tests {
		if st := w.CheckIO(tt.client, inoOf(tt.ino), tt.sid, tt.access); st != tt.st {
			t.Errorf("%s: %d, want %d", tt.name, st, tt.st)
		}
	}
	newer := w.open(a, "ro", 7, AccessRead, 0)
	w.want("an older seqid", w.CheckIO(a, 7, ro, r), ErrOldStateID)
	w.want("the newer", w.CheckIO(a, 7, newer, r), OK)
}

// RFC 8881 sections 18.48 and 18.38.
func TestTestAndFree(t *testing.T) {
	w := newWorld(t)
	a, _ := w.client("a")
	b, _ := w.client("b")
	o := w.open(a, "oo", 7, 3, 0)
	l, st := w.lockNew(a, 7, o, "lo", LockWrite, 0, 10)
	w.want("Lock", st, OK)
	for _, tt := range []struct {
		name       string
		client     ClientID
		sid        StateID
		test, free Status
	}{
		{"open", a, o, OK, ErrLocksHeld},
		{"lock with locks", a, l.StateID, OK, ErrLocksHeld},
		{"another client's", b, o, ErrBadStateID, ErrBadStateID},
		{"anonymous", a, AnonymousStateID, ErrBadStateID, ErrBadStateID},
		{"bypass", a, BypassStateID, ErrBadStateID, ErrBadStateID},
		{"invalid", a, InvalidStateID, ErrBadStateID, ErrBadStateID},
	} {
		w.want("TEST "+tt.name, w.TestStateID(tt.client, tt.sid), tt.test)
		w.want("FREE "+tt.name, w.FreeStateID(w.kv, tt.client, tt.sid), tt.free)
	}
	sid, _, st := w.Unlock(w.kv, a, 7, l.StateID, 0, toEOF)
	w.want("Unlock", st, OK)
	w.want("TEST the old seqid", w.TestStateID(a, l.StateID), ErrOldStateID)
	w.want("FREE the old seqid", w.FreeStateID(w.kv, a, l.StateID), ErrOldStateID)
	w.want("FREE", w.FreeStateID(w.kv, a, sid), OK)
	w.want("FREE again", w.FreeStateID(w.kv, a, sid), ErrBadStateID)
	w.check()
}
