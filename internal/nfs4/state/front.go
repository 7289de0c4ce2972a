package state

import "sync"

// SequenceArgs are the parts of SEQUENCE that Front judges (RFC 8881 section 18.46.1).
type SequenceArgs struct {
	Session SessionID
	Slot    uint32
	Highest uint32 // sa_highest_slotid
	Seq     uint32
}

// Recorder tells what the replicated state knows of a slot. Tables is one; who calls Admit without the volume's lock wraps it in a View.
type Recorder interface {
	// Slot returns what is recorded of a slot, or why there is none.
	Slot(id SessionID, slot uint32) (SlotInfo, Status)
}

// DefaultLease is the lease_time attribute, in nanoseconds.
const DefaultLease int64 = 60e9

// FrontConfig sets the timers of a Front, in nanoseconds.
type FrontConfig struct {
	Lease int64 // the lease_time attribute; 0 means DefaultLease
}

// Front is the leader's volatile view of sessions. C identifies a connection. All methods may be called concurrently.
type Front[C comparable] struct {
	lease int64
	next  uint64 // sessions with this counter or a later one were born under this front

	mu        sync.Mutex
	sessions  map[SessionID]*frontSession[C]
	clients   map[ClientID]*frontClient
	conns     map[C][]SessionID // back channels
	lastSweep int64
}

type frontSession[C comparable] struct {
	client *frontClient
	slots  []frontSlot
	conns  []C // with the back channel, latest last
}

type frontClient struct {
	renewed  int64
	lapsed   bool // Expired has returned it: its end may be applied at any moment
	sessions []SessionID
}

// renew renews the lease, unless it has lapsed.
func (c *frontClient) renew(now int64) Status {
	if c.lapsed {
		return ErrDelay
	}
	c.renewed = now
	return OK
}

// frontSlot is what this leader saw of a slot.
type frontSlot struct {
	last uint32
	seen slotSeen
	// adopted says that the first number was taken as it came. It may have been a copy that lay in a socket since an earlier leadership, and
	// so may the next, so jumps ahead stay allowed; going back is what must not be, and is not.
	adopted bool
}

type slotSeen uint8

const (
	seenNothing  slotSeen = iota // ask the Recorder
	seenBirth                    // the session is new and the slot was never used: its first number is 1
	seenRead                     // last was a request that only reads
	seenMutating                 // last was a request that mutates
)

// maxBackConns bounds the connections kept for one session's back channel.
const maxBackConns = 16

// NewFront returns the front of a leader whose tables have handed out all counters below next (Tables.NextCounter): sessions with later
// ones are known from their first request on. now is monotonic time in nanoseconds; every lease starts afresh.
func NewFront[C comparable](cfg FrontConfig, next uint64, now int64) *Front[C] {
	if cfg.Lease == 0 {
		cfg.Lease = DefaultLease
	}
	return &Front[C]{
		lease:     cfg.Lease,
		next:      next,
		sessions:  make(map[SessionID]*frontSession[C]),
		clients:   make(map[ClientID]*frontClient),
		conns:     make(map[C][]SessionID),
		lastSweep: now,
	}
}

// Admit judges a SEQUENCE, moves the slot on and renews the client's lease: OK, NFS4ERR_SEQ_MISORDERED, NFS4ERR_SEQ_FALSE_RETRY,
// NFS4ERR_BADSESSION, NFS4ERR_BADSLOT, NFS4ERR_DELAY or NFS4ERR_BAD_HIGH_SLOT. OK for a mutating request means that it may be proposed;
// whether it is a retry is decided where it is applied.
//
// rec is asked on the first use of a slot and in rare doubt, never under Front's own lock. A session that was destroyed since may still be
// admitted; executing the request finds that out. A client whose lease has lapsed, see Expired, gets NFS4ERR_DELAY.
//
// The rules (RFC 8881 section 2.10.6.1):
//   - The number after the last seen is new.
//   - The last seen again is a retry if it is of the same kind: reads run again, mutating requests are proposed again. If it is of the other
//     kind it is a different request under a used number, which the client learns by NFS4ERR_SEQ_FALSE_RETRY: the Linux client
//     probes slots of interrupted calls so, with a lone SEQUENCE, and steps on.
//   - On a slot that this leader has not seen, after a change of leaders, any number may be right, as its predecessor's reads left no trace: it
//     is accepted and adopted, unless it is late (see BeginMutating). Jumps ahead are accepted from then on, as the number adopted may have
//     been an old copy's. A read with the recorded number is not called a false retry:
//     it is a probe, or the number went around; to run it harms nobody, and to reject it might.
func (f *Front[C]) Admit(rec Recorder, a SequenceArgs, now int64, mutating bool) Status {
	f.mu.Lock()
	s := f.sessions[a.Session]
	if s == nil || uint64(a.Slot) < uint64(len(s.slots)) && s.slots[a.Slot].seen == seenNothing || len(s.slots) == 0 {
		f.mu.Unlock()
		info, st := rec.Slot(a.Session, a.Slot)
		if st != OK {
			return st
		}
		f.mu.Lock()
		s = f.learn(a, info, now)
		if sl := &s.slots[a.Slot]; sl.seen == seenNothing {
			defer f.mu.Unlock()
			if st := s.client.renew(now); st != OK {
				return st
			}
			return sl.adopt(a, info, mutating)
		}
	}
	if st := s.client.renew(now); st != OK {
		f.mu.Unlock()
		if _, gone := rec.Slot(a.Session, a.Slot); gone != OK {
			return gone
		}
		return st
	}
	st, doubt := s.judge(a, mutating)
	f.mu.Unlock()
	if !doubt {
		return st
	}
	// The last request seen was a read, and now a mutating one comes with its number. If that is the recorded number, the read was a
	// probe that this leader let through, and this is a late retry; apply answers it from the record.
	if info, st := rec.Slot(a.Session, a.Slot); st == OK && info.Used && info.Seq == a.Seq {
		return OK
	}
	return ErrSeqFalseRetry
}

// learn returns the session's entry, made or completed from what the tables know. f.mu is held.
func (f *Front[C]) learn(a SequenceArgs, info SlotInfo, now int64) *frontSession[C] {
	s := f.session(a.Session, now)
	if len(s.slots) == 0 {
		s.slots = make([]frontSlot, info.Slots)
		if a.Session.counter() >= f.next {
			for i := range s.slots {
				s.slots[i].seen = seenBirth
			}
		}
	}
	return s
}

// session returns the session's entry, making an empty one. f.mu is held.
func (f *Front[C]) session(id SessionID, now int64) *frontSession[C] {
	s := f.sessions[id]
	if s == nil {
		c := f.client(id.Client(), now)
		c.sessions = append(c.sessions, id)
		s = &frontSession[C]{client: c}
		f.sessions[id] = s
	}
	return s
}

// client returns the client's entry, making one whose lease starts now. f.mu is held.
func (f *Front[C]) client(id ClientID, now int64) *frontClient {
	c := f.clients[id]
	if c == nil {
		c = &frontClient{renewed: now}
		f.clients[id] = c
	}
	return c
}

// adopt takes the first number that this leader sees on a slot of an older session.
func (sl *frontSlot) adopt(a SequenceArgs, info SlotInfo, mutating bool) Status {
	if a.Highest >= info.Slots {
		return ErrBadHighSlot
	}
	if info.Used && late(info.Seq, a.Seq) {
		return ErrSeqMisordered
	}
	sl.see(a.Seq, mutating)
	sl.adopted = true
	return OK
}

func (sl *frontSlot) see(seq uint32, mutating bool) {
	sl.last, sl.seen = seq, seenRead
	if mutating {
		sl.seen = seenMutating
	}
}

// judge compares a number with the last seen. doubt asks the caller to look at the record.
func (s *frontSession[C]) judge(a SequenceArgs, mutating bool) (st Status, doubt bool) {
	if uint64(a.Slot) >= uint64(len(s.slots)) {
		return ErrBadSlot, false
	}
	if uint64(a.Highest) >= uint64(len(s.slots)) {
		return ErrBadHighSlot, false
	}
	sl := &s.slots[a.Slot]
	switch {
	case a.Seq == sl.last+1, sl.adopted && int32(a.Seq-sl.last) > 0:
		sl.see(a.Seq, mutating)
		return OK, false
	case a.Seq != sl.last || sl.seen == seenBirth:
		return ErrSeqMisordered, false
	case sl.seen == seenMutating && !mutating:
		return ErrSeqFalseRetry, false
	}
	return OK, sl.seen == seenRead && mutating
}

// Renew renews a client's lease before a CREATE_SESSION. NFS4ERR_DELAY: it has lapsed, see Expired, and the request must not be executed.
func (f *Front[C]) Renew(id ClientID, now int64) Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.client(id, now).renew(now)
}
