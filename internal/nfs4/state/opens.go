package state

import (
	"cmp"
	"slices"

	"holdfast/internal/volume"
)

// combo is the bit that stands for one pair of share access and deny in open.combos.
func combo(access, deny uint32) uint16 { return 1 << (access<<2 | deny) }

// union returns the access and deny bits of all pairs in combos together.
func union(combos uint16) (access, deny uint32) {
	for i := uint32(0); i < 16; i++ {
		if combos&(1<<i) != 0 {
			access |= i >> 2
			deny |= i & 3
		}
	}
	return access, deny
}

// within returns the pairs of combos that ask for no more than access and deny.
func within(combos uint16, access, deny uint32) uint16 {
	var out uint16
	for i := uint32(0); i < 16; i++ {
		if (i>>2)&^access == 0 && (i&3)&^deny == 0 {
			out |= combos & (1 << i)
		}
	}
	return out
}

func validShare(access, deny uint32) bool {
	return access >= AccessRead && access <= AccessBoth && deny <= DenyBoth
}

// count adds n for each bit of access and deny to the file's counts.
func (f *file) count(access, deny uint32, n int) {
	for bit := range 2 {
		if access&(1<<bit) != 0 {
			f.access[bit] += n
		}
		if deny&(1<<bit) != 0 {
			f.deny[bit] += n
		}
	}
}

// denies reports whether an open other than except denies any of access.
func (f *file) denies(access uint32, except *open) bool {
	for bit := range 2 {
		n := f.deny[bit]
		if except != nil && except.deny&(1<<bit) != 0 {
			n--
		}
		if access&(1<<bit) != 0 && n > 0 {
			return true
		}
	}
	return false
}

// accessed reports whether an open other than except has any of the access that deny forbids.
func (f *file) accessed(deny uint32, except *open) bool {
	for bit := range 2 {
		n := f.access[bit]
		if except != nil && except.access&(1<<bit) != 0 {
			n--
		}
		if deny&(1<<bit) != 0 && n > 0 {
			return true
		}
	}
	return false
}

// CheckOpen makes the checks of Open and changes nothing, for use before an OPEN truncates.
func (t *Tables) CheckOpen(a *OpenArgs) Status {
	_, _, st := t.checkOpen(a)
	return st
}

// checkOpen also returns the client and the open that the request would add to, if any.
func (t *Tables) checkOpen(a *OpenArgs) (*client, *open, Status) {
	c := t.clients[a.Client]
	if c == nil {
		return nil, nil, ErrStaleClientID
	}
	if !validShare(a.Access, a.Deny) || len(a.Owner) > t.limits.OwnerBytes {
		return nil, nil, ErrInval
	}
	if st := t.mayLock(c, a.Reclaim); st != OK {
		return nil, nil, st
	}
	o := c.opens[openKey{string(a.Owner), a.Ino}]
	// An owner's own earlier open is no obstacle: the two become one (RFC 8881 section 9.8).
	if f := t.files[a.Ino]; f != nil && (f.denies(a.Access, o) || f.accessed(a.Deny, o)) {
		return nil, nil, ErrShareDenied
	}
	if o == nil && (len(c.opens) >= t.limits.OpensPerClient || len(t.opens) >= t.limits.Opens) {
		return nil, nil, ErrNoSpace
	}
	return c, o, OK
}

// Open adds an open, or adds to the owner's open of the same file (RFC 8881 section 18.16.3): NFS4ERR_SHARE_DENIED, NFS4ERR_GRACE (also
// before the client's RECLAIM_COMPLETE), NFS4ERR_NO_GRACE, NFS4ERR_INVAL for bad share bits, NFS4ERR_NOSPC at the limit.
func (t *Tables) Open(kv KV, a *OpenArgs) (StateID, Status) {
	c, o, st := t.checkOpen(a)
	if st != OK {
		return StateID{}, st
	}
	if o == nil {
		o = &open{id: t.take(), client: c, owner: string(a.Owner), seqid: 1, combos: combo(a.Access, a.Deny)}
		t.addOpen(o, a.Ino)
		t.putMeta(kv)
	} else {
		o.seqid = nextSeqid(o.seqid)
		o.reserve(o.combos | combo(a.Access, a.Deny))
	}
	t.putOpen(kv, o)
	return o.stateID(), OK
}

// addOpen enters an open with its combos set into the indexes.
func (t *Tables) addOpen(o *open, ino volume.Ino) {
	o.file = t.fileFor(ino)
	o.file.opens = append(o.file.opens, o)
	o.client.opens[openKey{o.owner, ino}] = o
	t.opens[o.id] = o
	o.reserve(o.combos)
}

// reserve makes combos the share reservations in effect.
func (o *open) reserve(combos uint16) {
	o.file.count(o.access, o.deny, -1)
	o.combos = combos
	o.access, o.deny = union(combos)
	o.file.count(o.access, o.deny, 1)
}

// Downgrade is OPEN_DOWNGRADE: access and deny must be the union of some of the opens in effect, otherwise NFS4ERR_INVAL (RFC 8881
// section 18.18.3). The opens that ask for more are gone then.
func (t *Tables) Downgrade(kv KV, client ClientID, ino volume.Ino, sid StateID, access, deny uint32) (StateID, Status) {
	o, l, st := t.resolve(client, ino, sid)
	switch {
	case st != OK:
		return StateID{}, st
	case l != nil:
		return StateID{}, ErrBadStateID
	case !validShare(access, deny):
		return StateID{}, ErrInval
	}
	left := within(o.combos, access, deny)
	if a, d := union(left); a != access || d != deny {
		return StateID{}, ErrInval
	}
	o.seqid = nextSeqid(o.seqid)
	o.reserve(left)
	t.putOpen(kv, o)
	return o.stateID(), OK
}

// Close is CLOSE (RFC 8881 section 18.2): it frees the open, its lock stateids and their locks.
func (t *Tables) Close(kv KV, client ClientID, ino volume.Ino, sid StateID) (CloseResult, Status) {
	o, l, st := t.resolve(client, ino, sid)
	switch {
	case st != OK:
		return CloseResult{}, st
	case l != nil:
		return CloseResult{}, ErrBadStateID
	}
	notify := t.dropOpen(kv, o)
	return CloseResult{StateID: InvalidStateID, LastClose: !t.InUse(ino), Notify: notify}, OK
}

// dropOpen removes an open and all that hangs on it, and returns whom its locks kept waiting.
func (t *Tables) dropOpen(kv KV, o *open) []Waiter {
	f := o.file
	for len(o.locks) > 0 {
		t.dropLockState(kv, o.locks[len(o.locks)-1])
	}
	f.count(o.access, o.deny, -1)
	i, _ := slices.BinarySearchFunc(f.opens, o.id, func(x *open, id uint64) int { return cmp.Compare(x.id, id) })
	f.opens = slices.Delete(f.opens, i, i+1)
	delete(o.client.opens, openKey{o.owner, f.ino})
	delete(t.opens, o.id)
	kv.Del(t.openKey(o.id))
	if len(f.waiters) > 0 && !o.client.hasOpen(f) {
		t.dismiss(f, func(w Waiter) bool { return w.Client == o.client.id })
	}
	if len(f.opens) == 0 {
		delete(t.files, f.ino)
		return nil
	}
	return t.wake(f)
}
