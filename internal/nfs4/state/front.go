package state

// SequenceArgs are the parts of SEQUENCE that Front judges (RFC 8881 section 18.46.1).
type SequenceArgs struct {
	Session SessionID
	Slot    uint32
	Highest uint32 // sa_highest_slotid
	Seq     uint32
}

// Recorder tells what the replicated state knows of a slot. Tables is one; who calls Admit without the volume's lock wraps it in a View.
type Recorder interface {
	Slot(id SessionID, slot uint32) (SlotInfo, Status)
}

// Flags of SEQUENCE's sr_status_flags that Front decides (RFC 8881 section 18.46.3).
const (
	StatusCBPathDown        uint32 = 0x00000001
	StatusCBPathDownSession uint32 = 0x00000200
)

// FrontConfig sets the timers of a Front, in nanoseconds.
type FrontConfig struct {
	Lease int64 // the lease_time attribute
}

// Front is the leader's volatile view of sessions. C identifies a connection.
type Front[C comparable] struct{}

// NewFront returns the front of a leader whose tables have handed out all counters below next (Tables.NextCounter): sessions with later
// ones are known from their first request on. now is monotonic time in nanoseconds; every lease starts afresh.
func NewFront[C comparable](cfg FrontConfig, next uint64, now int64) *Front[C] {
	panic("state: to come")
}

// Admit judges a SEQUENCE, moves the slot on and renews the client's lease: OK, NFS4ERR_SEQ_MISORDERED, NFS4ERR_SEQ_FALSE_RETRY,
// NFS4ERR_BADSESSION, NFS4ERR_BADSLOT or NFS4ERR_BAD_HIGH_SLOT. OK for a mutating request means that it may be proposed;
// whether it is a retry is decided where it is applied. rec is asked on the first use of a slot only.
func (f *Front[C]) Admit(rec Recorder, a SequenceArgs, now int64, mutating bool) Status {
	panic("state: to come")
}

// Renew renews a client's lease outside of SEQUENCE (EXCHANGE_ID, CREATE_SESSION).
func (f *Front[C]) Renew(id ClientID, now int64) { panic("state: to come") }

// Expired returns the clients whose lease ran out: no renewal for one and a half lease times, or since this front first saw them. The
// caller holds the volume's lock shared and proposes the expiry. It also forgets sessions and clients that the tables no longer have; call it every few seconds.
func (f *Front[C]) Expired(t *Tables, now int64) []ClientID { panic("state: to come") }

// Bind notes that conn carries the session's back channel too (CREATE_SESSION with CONN_BACK_CHAN, BIND_CONN_TO_SESSION).
func (f *Front[C]) Bind(id SessionID, conn C) { panic("state: to come") }

// Unbind forgets a connection that was closed.
func (f *Front[C]) Unbind(conn C) { panic("state: to come") }

// BackChannel returns a connection on which the session can be called back.
func (f *Front[C]) BackChannel(id SessionID) (conn C, ok bool) { panic("state: to come") }

// BackChannelOf returns a connection on which any of the client's sessions can be called back.
func (f *Front[C]) BackChannelOf(id ClientID) (session SessionID, conn C, ok bool) {
	panic("state: to come")
}

// StatusFlags returns the callback path flags for a SEQUENCE reply. wantsBack is whether the session was created with a back channel.
func (f *Front[C]) StatusFlags(id SessionID, wantsBack bool) uint32 { panic("state: to come") }
