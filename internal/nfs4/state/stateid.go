package state

import (
	"encoding/binary"

	"holdfast/internal/volume"
)

// stateID makes the stateid of a state: the lower half of the client id, then the counter.
func stateID(c *client, id uint64, seqid uint32) StateID {
	s := StateID{Seqid: seqid}
	binary.BigEndian.PutUint32(s.Other[:], uint32(c.id))
	binary.BigEndian.PutUint64(s.Other[4:], id)
	return s
}

func (o *open) stateID() StateID { return stateID(o.client, o.id, o.seqid) }

func (l *lockState) stateID() StateID { return stateID(l.open.client, l.id, l.seqid) }

// nextSeqid increments the seqid of a stateid, skipping zero (RFC 8881 section 8.2.2).
func nextSeqid(n uint32) uint32 {
	if n++; n == 0 {
		n = 1
	}
	return n
}

// compareSeqid checks the seqid of a presented stateid against the current one: zero asks for the most recent; what lies ahead within
// half the circle was never given out (RFC 8881 section 8.2.2).
func compareSeqid(presented, current uint32) Status {
	switch {
	case presented == 0 || presented == current:
		return OK
	case int32(presented-current) > 0:
		return ErrBadStateID
	}
	return ErrOldStateID
}

// resolve finds the state behind a stateid: an open, or a lock state and its open. A stateid of another client or file is
// NFS4ERR_BAD_STATEID (RFC 8881 section 8.2.4); so is every special one, which the callers that accept them have dealt with before.
//
// Delegation stateids will be a third kind here.
func (t *Tables) resolve(id ClientID, ino volume.Ino, sid StateID) (*open, *lockState, Status) {
	o, l, st := t.find(id, sid)
	if st == OK && o.file.ino != ino {
		return nil, nil, ErrBadStateID
	}
	return o, l, st
}

// find is resolve for a stateid without a file.
func (t *Tables) find(id ClientID, sid StateID) (o *open, l *lockState, st Status) {
	if binary.BigEndian.Uint32(sid.Other[:]) != uint32(id) {
		return nil, nil, ErrBadStateID
	}
	n := binary.BigEndian.Uint64(sid.Other[4:])
	var seqid uint32
	if o = t.opens[n]; o != nil {
		seqid = o.seqid
	} else if l = t.locks[n]; l != nil {
		o, seqid = l.open, l.seqid
	}
	if o == nil || o.client.id != id {
		return nil, nil, ErrBadStateID
	}
	if st := compareSeqid(sid.Seqid, seqid); st != OK {
		return nil, nil, st
	}
	return o, l, OK
}

// TestStateID returns the status of one stateid for TEST_STATEID (RFC 8881 section 18.48).
func (t *Tables) TestStateID(client ClientID, sid StateID) Status {
	_, _, st := t.find(client, sid)
	return st
}

// FreeStateID is FREE_STATEID (RFC 8881 section 18.38): a lock stateid without locks goes; anything else that is valid is NFS4ERR_LOCKS_HELD.
func (t *Tables) FreeStateID(kv KV, client ClientID, sid StateID) Status {
	o, l, st := t.find(client, sid)
	if st != OK {
		return st
	}
	if l == nil || o.file.locks.Held(l.owner) {
		return ErrLocksHeld
	}
	t.dropLockState(kv, l)
	return OK
}

// CheckIO decides whether a READ (AccessRead), WRITE or SETATTR of size (AccessWrite) may go ahead under a stateid (RFC 8881 sections
// 8.2.3 and 9.1.2): OK, NFS4ERR_OPENMODE, NFS4ERR_LOCKED when a special stateid meets a share deny, NFS4ERR_GRACE,
// NFS4ERR_BAD_STATEID, NFS4ERR_OLD_STATEID. Byte-range locks are advisory and play no part.
func (t *Tables) CheckIO(client ClientID, ino volume.Ino, sid StateID, access uint32) Status {
	if !sid.Special() {
		o, _, st := t.resolve(client, ino, sid)
		if st == OK && access&^o.access != 0 {
			return ErrOpenMode
		}
		return st
	}
	if t.grace {
		return ErrGrace // it might conflict with what is yet to be reclaimed
	}
	if sid == BypassStateID && access == AccessRead {
		return OK
	}
	if f := t.files[ino]; f != nil && f.denies(access, nil) {
		return ErrLocked
	}
	return OK
}
