package state

import "encoding/binary"

// slot is the recorded part of a session slot in the form in which it is mirrored, so that recording a reply copies it once:
// sequence number, fingerprint and flags, 4 bytes each, then the reply. It is nil until the slot is first used.
type slot []byte

const (
	slotHeaderBytes = 12
	// slotUncached marks a slot whose reply was too big to keep, or must not be kept.
	slotUncached = 1
	// slotKeepBytes is the size up to which a slot's memory is kept for longer replies to come.
	slotKeepBytes = 1024
)

func (s slot) used() bool    { return s != nil }
func (s slot) seq() uint32   { return binary.BigEndian.Uint32(s) }
func (s slot) print() uint32 { return binary.BigEndian.Uint32(s[4:]) }
func (s slot) flags() uint32 { return binary.BigEndian.Uint32(s[8:]) }

func (s slot) reply() []byte {
	if s == nil {
		return nil
	}
	return s[slotHeaderBytes:]
}

// lateWindow is how far below the recorded number a request counts as overtaken, rather than as new after the number went around. A
// duplicate can stay behind only while it hangs between Front and the log, seconds at most; a slot does not get through a
// million requests in that time. On the other side, a client hits the window by chance only after 2^32 reads in a row on one slot.
const lateWindow = 1 << 20

// late reports whether seq is so little below recorded that its request must be a duplicate overtaken by newer ones.
func late(recorded, seq uint32) bool {
	d := recorded - seq
	return d > 0 && d <= lateWindow
}

// SlotInfo is the recorded part of a slot.
type SlotInfo struct {
	Slots uint32 // of the session
	Seq   uint32 // of the last recorded request
	Used  bool   // a request was recorded
}

// Slot returns what is recorded of a slot, NFS4ERR_BADSESSION or NFS4ERR_BADSLOT: it makes Tables a Recorder.
func (t *Tables) Slot(id SessionID, slot uint32) (SlotInfo, Status) {
	s := t.sessions[id]
	if s == nil {
		return SlotInfo{}, ErrBadSession
	}
	info := SlotInfo{Slots: uint32(len(s.slots))}
	if slot >= info.Slots {
		return info, ErrBadSlot
	}
	if sl := s.slots[slot]; sl.used() {
		info.Seq, info.Used = sl.seq(), true
	}
	return info, OK
}

// BeginMutating decides, inside apply, whether a mutating request is new. print is a fingerprint of the request that every retry of it
// has (of its operations, say, but not of the xid); 0 matches anything.
//
// The rule: the recorded number is a retry and gets the recorded reply, or NFS4ERR_SEQ_FALSE_RETRY if the fingerprints differ, or
// NFS4ERR_RETRY_UNCACHED_REP if the reply was too big to keep; a number a little below the recorded one is a duplicate that was overtaken, and gets
// NFS4ERR_SEQ_MISORDERED; any other is new, as requests that only read may have moved the slot on unseen.
//
// Why overtaken duplicates matter: a client sends number 5, its connection breaks while the server is about to propose it, it retries
// 5 on another connection, has its reply, and goes on to 6. If the first copy of 5 is proposed only now it follows 6 in the log, and
// taking it for new would execute it twice.
func (t *Tables) BeginMutating(id SessionID, slot, seq, print uint32) (v Verdict, reply []byte, st Status) {
	s := t.sessions[id]
	if s == nil {
		return New, nil, ErrBadSession
	}
	if uint64(slot) >= uint64(len(s.slots)) {
		return New, nil, ErrBadSlot
	}
	sl := s.slots[slot]
	switch {
	case !sl.used():
		return New, nil, OK
	case seq != sl.seq():
		if late(sl.seq(), seq) {
			return New, nil, ErrSeqMisordered
		}
		return New, nil, OK
	case print != 0 && sl.print() != 0 && print != sl.print():
		return New, nil, ErrSeqFalseRetry
	case sl.flags()&slotUncached != 0:
		return New, nil, ErrRetryUncachedRep
	}
	return Replay, sl.reply(), OK
}

// Record stores the reply (it is copied) of the request that BeginMutating found new. It does nothing if the request itself ended its session.
// A reply beyond the limits is recorded as too big: its retry gets NFS4ERR_RETRY_UNCACHED_REP from BeginMutating.
func (t *Tables) Record(kv KV, id SessionID, slot, seq, print uint32, reply []byte) {
	t.record(kv, id, slot, seq, print, 0, reply)
}

// RecordUncached is Record for a reply that must not be kept: a retry gets NFS4ERR_RETRY_UNCACHED_REP, as after one that is too big.
func (t *Tables) RecordUncached(kv KV, id SessionID, slot, seq, print uint32) {
	t.record(kv, id, slot, seq, print, slotUncached, nil)
}

func (t *Tables) record(kv KV, id SessionID, slot, seq, print, flags uint32, reply []byte) {
	s := t.sessions[id]
	if s == nil || uint64(slot) >= uint64(len(s.slots)) {
		return
	}
	c := s.client
	sl := s.slots[slot]
	t.countReply(c, -len(sl.reply()))
	if len(reply) > int(t.limits.MaxCached) || c.replyBytes+len(reply) > t.limits.ReplyPerClient || t.replyBytes+len(reply) > t.limits.ReplyBytes {
		flags, reply = slotUncached, nil
	}
	need := slotHeaderBytes + len(reply)
	if cap(sl) < need || cap(sl) > slotKeepBytes && cap(sl) > 2*need {
		// Sixteen bytes of room spare a new buffer for every attribute that is a little longer than the last time.
		sl = make([]byte, 0, need+16)
	}
	sl = binary.BigEndian.AppendUint32(sl[:0], seq)
	sl = binary.BigEndian.AppendUint32(sl, print)
	sl = binary.BigEndian.AppendUint32(sl, flags)
	sl = append(sl, reply...)
	s.slots[slot] = sl
	t.countReply(c, len(reply))
	kv.Put(t.slotKey(id, slot), sl)
}

func (t *Tables) countReply(c *client, n int) {
	c.replyBytes += n
	t.replyBytes += n
}
