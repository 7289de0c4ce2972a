package nfs4

import (
	"holdfast/internal/nfs4/state"
	"holdfast/internal/volume"
)

// opLock is LOCK (RFC 8881 section 18.10).
func opLock(c *compound) status {
	n, sid, st := c.regularAndStateid()
	if st != statusOK {
		return st
	}
	l := &c.a.lock
	handle := volume.EncodeHandle(c.cur.h)
	res, st := c.p.tables.Lock(&c.kv, &state.LockArgs{
		Client:   c.client,
		Ino:      n.Ino,
		Handle:   handle[:],
		Type:     l.typ,
		Reclaim:  l.reclaim,
		Offset:   c.a.offset,
		Length:   c.a.length,
		NewOwner: l.newOwner,
		StateID:  sid,
		Owner:    l.owner,
	})
	if st == errDenied {
		return c.denied(&res.Denied)
	}
	if st != statusOK {
		return st
	}
	c.notify = append(c.notify, res.Notify...)
	c.answerState(res.StateID)
	return statusOK
}

// denied appends a LOCK4denied.
func (c *compound) denied(d *state.Denied) status {
	c.e.Uint64(d.Offset)
	c.e.Uint64(d.Length)
	c.e.Uint32(uint32(d.Type))
	c.e.Uint64(uint64(d.Client))
	c.e.String(d.Owner)
	c.keepResult = true
	return errDenied
}

// opLockT is LOCKT (RFC 8881 section 18.11).
func opLockT(c *compound) status {
	n, st := c.regular()
	if st != statusOK {
		return st
	}
	d, st := c.p.tables.TestLock(c.client, n.Ino, c.a.lock.typ, c.a.offset, c.a.length, c.a.lock.owner)
	if st == errDenied {
		return c.denied(&d)
	}
	return st
}

// opLockU is LOCKU (RFC 8881 section 18.12).
func opLockU(c *compound) status {
	n, sid, st := c.regularAndStateid()
	if st != statusOK {
		return st
	}
	sid, notify, st := c.p.tables.Unlock(&c.kv, c.client, n.Ino, sid, c.a.offset, c.a.length)
	if st != statusOK {
		return st
	}
	c.notify = append(c.notify, notify...)
	c.answerState(sid)
	return statusOK
}
