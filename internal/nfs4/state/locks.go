package state

import (
	"slices"

	"holdfast/internal/rangelock"
	"holdfast/internal/volume"
)

// maxHandleBytes is NFS4_FHSIZE.
const maxHandleBytes = 128

// Lock is LOCK (RFC 8881 section 18.10): NFS4ERR_DENIED with the lock in the way, NFS4ERR_INVAL for a bad type or range,
// NFS4ERR_OPENMODE, NFS4ERR_GRACE, NFS4ERR_NO_GRACE, NFS4ERR_DELAY at the limits, and the stateid errors.
func (t *Tables) Lock(kv KV, a *LockArgs) (LockResult, Status) {
	r, ok := rangelock.FromOffset(a.Offset, a.Length)
	if !ok || !a.Type.Valid() || a.NewOwner && len(a.Owner) > t.limits.OwnerBytes {
		return LockResult{}, ErrInval
	}
	o, l, st := t.resolve(a.Client, a.Ino, a.StateID)
	if st != OK {
		return LockResult{}, st
	}
	if a.NewOwner != (l == nil) {
		return LockResult{}, ErrBadStateID // an open stateid for a lock stateid, or the other way round
	}
	if st := t.mayLock(o.client, a.Reclaim); st != OK {
		return LockResult{}, st
	}
	if need := lockNeeds(a.Type); need&^o.access != 0 {
		return LockResult{}, ErrOpenMode
	}
	var owner *lockOwner
	name := string(a.Owner)
	if l != nil {
		owner, name = l.owner, l.owner.owner
	} else if owner = o.client.lockOwners[name]; owner != nil {
		// The owner may be known from this open already: RFC 8881 section 9.5 has the client say new_lock_owner again, harmlessly.
		l = o.lockStateOf(owner)
	}
	if held, ok := o.file.locks.Conflict(orNobody(owner), r, a.Type.write()); ok {
		if a.Type.waits() {
			t.wait(o.file, o.client, name, a)
		}
		return LockResult{Denied: denied(held)}, ErrDenied
	}
	c := o.client
	if l == nil && (c.lockStates >= t.limits.LocksPerClient || len(t.locks) >= t.limits.Locks) || !t.roomForRanges(c, 2) {
		return LockResult{}, ErrDelay
	}
	if l == nil {
		l = t.newLockState(kv, o, owner, name)
	} else {
		l.seqid = nextSeqid(l.seqid)
	}
	t.putLockState(kv, l)
	t.changes.Reset()
	o.file.locks.Lock(l.owner, r, a.Type.write(), &t.changes)
	shrunk := len(t.changes.Removed) > 0
	t.mirrorRanges(kv, o.file, c)
	t.forget(o.file, c.id, name)
	res := LockResult{StateID: l.stateID()}
	if shrunk { // a downgrade lets others in
		res.Notify = t.wake(o.file)
	}
	return res, OK
}

// lockNeeds returns the share access that the open behind a lock must have (RFC 8881 section 18.10.3).
func lockNeeds(typ LockType) uint32 {
	if typ.write() {
		return AccessWrite
	}
	return AccessRead
}

func orNobody(o *lockOwner) *lockOwner {
	if o == nil {
		return nobody
	}
	return o
}

func denied(l rangelock.Lock[*lockOwner]) Denied {
	typ := LockRead
	if l.Write {
		typ = LockWrite
	}
	return Denied{Offset: l.Start, Length: l.Length(), Type: typ, Client: l.Owner.client.id, Owner: l.Owner.owner}
}

// TestLock is LOCKT (RFC 8881 section 18.11): ErrDenied and the conflicting lock, or OK.
func (t *Tables) TestLock(client ClientID, ino volume.Ino, typ LockType, offset, length uint64, owner []byte) (Denied, Status) {
	r, ok := rangelock.FromOffset(offset, length)
	if !ok || !typ.Valid() || len(owner) > t.limits.OwnerBytes {
		return Denied{}, ErrInval
	}
	c := t.clients[client]
	if c == nil {
		return Denied{}, ErrStaleClientID
	}
	if t.grace {
		return Denied{}, ErrGrace
	}
	f := t.files[ino]
	if f == nil {
		return Denied{}, OK
	}
	if held, ok := f.locks.Conflict(orNobody(c.lockOwners[string(owner)]), r, typ.write()); ok {
		return denied(held), ErrDenied
	}
	return Denied{}, OK
}

// Unlock is LOCKU (RFC 8881 section 18.12). Unlocking what is not locked is no error. NFS4ERR_DELAY is for a split beyond the limit.
func (t *Tables) Unlock(kv KV, client ClientID, ino volume.Ino, sid StateID, offset, length uint64) (StateID, []Waiter, Status) {
	r, ok := rangelock.FromOffset(offset, length)
	if !ok {
		return StateID{}, nil, ErrInval
	}
	o, l, st := t.resolve(client, ino, sid)
	if st != OK {
		return StateID{}, nil, st
	}
	if l == nil {
		return StateID{}, nil, ErrBadStateID
	}
	if !t.roomForRanges(o.client, 1) && o.file.locks.Splits(l.owner, r) {
		return StateID{}, nil, ErrDelay
	}
	l.seqid = nextSeqid(l.seqid)
	t.putLockState(kv, l)
	t.changes.Reset()
	o.file.locks.Unlock(l.owner, r, &t.changes)
	t.mirrorRanges(kv, o.file, o.client)
	return l.stateID(), t.wake(o.file), OK
}

// lockStateOf returns the owner's lock state on this open, or nil.
func (o *open) lockStateOf(owner *lockOwner) *lockState {
	for _, l := range owner.states {
		if l.open == o {
			return l
		}
	}
	return nil
}

// newLockState makes a lock state, and its owner if that is nil.
func (t *Tables) newLockState(kv KV, o *open, owner *lockOwner, name string) *lockState {
	if owner == nil {
		owner = &lockOwner{id: t.take(), client: o.client, owner: name}
	}
	l := &lockState{id: t.take(), open: o, owner: owner, seqid: 1}
	t.addLockState(l)
	t.putMeta(kv)
	return l
}

// addLockState enters a lock state and its owner into the indexes.
func (t *Tables) addLockState(l *lockState) {
	c := l.open.client
	c.lockOwners[l.owner.owner] = l.owner
	c.lockStates++
	l.owner.states = append(l.owner.states, l)
	l.open.locks = append(l.open.locks, l)
	t.locks[l.id] = l
}

// dropLockState removes a lock state and the owner's locks on the file. Where the owner has another lock state on the same file, through
// another open, the locks stay for that one: nobody can tell through which they were made, and a lock kept too long excludes, one
// lost too early corrupts.
func (t *Tables) dropLockState(kv KV, l *lockState) {
	o, owner, c := l.open, l.owner, l.open.client
	same := func(x *lockState) bool { return x == l }
	owner.states = slices.DeleteFunc(owner.states, same)
	o.locks = slices.DeleteFunc(o.locks, same)
	c.lockStates--
	delete(t.locks, l.id)
	kv.Del(t.lockKey(l.id))
	if !slices.ContainsFunc(owner.states, func(x *lockState) bool { return x.open.file == o.file }) {
		t.changes.Reset()
		o.file.locks.Drop(owner, &t.changes)
		t.mirrorRanges(kv, o.file, c)
	}
	if len(owner.states) == 0 {
		delete(c.lockOwners, owner.owner)
	}
}

// mirrorRanges writes t.changes, all of one client, to the KV.
func (t *Tables) mirrorRanges(kv KV, f *file, c *client) {
	for _, l := range t.changes.Removed {
		kv.Del(t.rangeKey(f.ino, l.Owner.id, l.Start))
	}
	for _, l := range t.changes.Added {
		t.putRange(kv, f.ino, l)
	}
	t.countRanges(c, len(t.changes.Added)-len(t.changes.Removed))
}

func (t *Tables) countRanges(c *client, n int) {
	c.ranges += n
	t.ranges += n
}

func (t *Tables) roomForRanges(c *client, n int) bool {
	return c.ranges+n <= t.limits.LocksPerClient && t.ranges+n <= t.limits.Locks
}

// wait remembers a denied request that asked to be told. A full list, or the same request again, adds nothing.
func (t *Tables) wait(f *file, c *client, owner string, a *LockArgs) {
	t.forget(f, c.id, owner)
	if len(f.waiters) >= t.limits.WaitersPerFile || t.waiting >= t.limits.Waiters || len(a.Handle) > maxHandleBytes {
		return
	}
	r, _ := rangelock.FromOffset(a.Offset, a.Length)
	t.waiting++
	f.waiters = append(f.waiters, Waiter{Client: c.id, Ino: f.ino, Handle: string(a.Handle), Owner: owner, Type: a.Type, wants: r})
}

// forget removes the waiting request of a lock owner, who has at most one per file.
func (t *Tables) forget(f *file, id ClientID, owner string) {
	if len(f.waiters) > 0 {
		t.dismiss(f, func(w Waiter) bool { return w.Client == id && w.Owner == owner })
	}
}

// dismiss removes waiters of a file.
func (t *Tables) dismiss(f *file, which func(w Waiter) bool) {
	before := len(f.waiters)
	f.waiters = slices.DeleteFunc(f.waiters, which)
	t.waiting -= before - len(f.waiters)
}

// wake takes out and returns the waiters that nothing stands against any longer, first come first. Each on its own could have its lock;
// who asks first gets it, and the others wait again.
func (t *Tables) wake(f *file) []Waiter {
	var woken []Waiter
	t.dismiss(f, func(w Waiter) bool {
		owner := orNobody(nil)
		if c := t.clients[w.Client]; c != nil {
			owner = orNobody(c.lockOwners[w.Owner])
		}
		if _, ok := f.locks.Conflict(owner, w.wants, w.Type.write()); ok {
			return false
		}
		woken = append(woken, w)
		return true
	})
	return woken
}
