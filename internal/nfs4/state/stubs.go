package state

import "holdfast/internal/volume"

// Tables is the replicated protocol state of one volume.
type Tables struct{ limits Limits }

// NewTables returns empty tables.
func NewTables(limits Limits) *Tables { return &Tables{limits: limits} }

// Load rebuilds the tables from what a KV holds. scan calls its argument for every key and value; the slices need not outlive the call.
func (t *Tables) Load(scan func(fn func(key, value []byte) error) error) error {
	panic("state: to come")
}

// Seed gives the volume's protocol state its instance number, the upper half of all client ids, when it has none yet; otherwise it does
// nothing. Call it before ExchangeID with the entry's random number.
func (t *Tables) Seed(kv KV, random uint64) { panic("state: to come") }

// ExchangeID creates, finds or updates a client record: the cases of RFC 8881 section 18.35.4.
func (t *Tables) ExchangeID(kv KV, a *ExchangeArgs) (ExchangeResult, Status) { panic("state: to come") }

// BeginCreateSession is phases 1 and 2 of CREATE_SESSION (RFC 8881 section 18.36.4): it finds the record and compares the sequence
// number. On Replay the recorded result is returned. On New the caller calls CreateSession, then, whatever came of it except
// NFS4ERR_DELAY, RecordCreateSession.
func (t *Tables) BeginCreateSession(id ClientID, seq uint32) (Verdict, []byte, Status) {
	panic("state: to come")
}

// CreateSession is phases 3 and 4: it confirms the client if need be, ending its former incarnation, and makes the session.
func (t *Tables) CreateSession(kv KV, a *CreateSessionArgs) (CreateSessionResult, Status) {
	panic("state: to come")
}

// RecordCreateSession stores the encoded result for a retry (it is copied) and moves the sequence number on.
func (t *Tables) RecordCreateSession(kv KV, id ClientID, seq uint32, result []byte) {
	panic("state: to come")
}

// DestroySession ends a session; the client and its opens and locks stay (RFC 8881 section 18.37).
func (t *Tables) DestroySession(kv KV, id SessionID) Status { panic("state: to come") }

// DestroyClientID is RFC 8881 section 18.50: NFS4ERR_CLIENTID_BUSY while the client has sessions, opens or locks.
func (t *Tables) DestroyClientID(kv KV, id ClientID) Status { panic("state: to come") }

// ReclaimComplete is RFC 8881 section 18.51 with rca_one_fs false.
func (t *Tables) ReclaimComplete(kv KV, id ClientID) Status { panic("state: to come") }

// ExpireClient drops a client, confirmed or not, with everything it holds. It reports false if there is no such client.
func (t *Tables) ExpireClient(kv KV, id ClientID) (Dropped, bool) { panic("state: to come") }

// Session describes a session, or says NFS4ERR_BADSESSION.
func (t *Tables) Session(id SessionID) (SessionInfo, Status) { panic("state: to come") }

// SessionInfo is what a SEQUENCE needs to know of its session.
type SessionInfo struct {
	Client     ClientID
	Flags      uint32
	Fore, Back ChannelAttrs
	CBProgram  uint32
	CBSec      []byte
	Principal  Principal // of the client
}

// BackChannel replaces the callback program and security of a session (BACKCHANNEL_CTL, RFC 8881 section 18.33).
func (t *Tables) BackChannel(kv KV, id SessionID, program uint32, sec []byte) Status {
	panic("state: to come")
}

// Slot returns what is recorded of a slot: it makes Tables a Recorder.
func (t *Tables) Slot(id SessionID, slot uint32) (SlotInfo, Status) { panic("state: to come") }

// SlotInfo is the recorded part of a slot.
type SlotInfo struct {
	Slots uint32 // of the session
	Seq   uint32 // of the last recorded request
	Used  bool   // a request was recorded
}

// BeginMutating decides, inside apply, whether a mutating request is new. print is a fingerprint of the request that every retry of it
// has (of its operations, say, but not of the xid); 0 matches anything.
//
// The rule: the recorded number is a retry and gets the recorded reply, or NFS4ERR_SEQ_FALSE_RETRY if the fingerprints differ; a
// number a little below the recorded one is a duplicate that was overtaken, and gets NFS4ERR_SEQ_MISORDERED; any other is new, as
// requests that only read may have moved the slot on unseen.
func (t *Tables) BeginMutating(id SessionID, slot, seq, print uint32) (v Verdict, reply []byte, st Status) {
	panic("state: to come")
}

// Record stores the reply (it is copied) of the request that BeginMutating found new. It does nothing if the request itself ended its session.
// A reply beyond the limits is recorded as too big: its retry gets NFS4ERR_RETRY_UNCACHED_REP from BeginMutating.
func (t *Tables) Record(kv KV, id SessionID, slot, seq, print uint32, reply []byte) {
	panic("state: to come")
}

// CheckOpen makes the checks of Open and changes nothing, for use before an OPEN truncates.
func (t *Tables) CheckOpen(a *OpenArgs) Status { panic("state: to come") }

// Open adds an open, or adds to the owner's open of the same file (RFC 8881 section 18.16.3): NFS4ERR_SHARE_DENIED, NFS4ERR_GRACE,
// NFS4ERR_NO_GRACE, NFS4ERR_INVAL for bad share bits, NFS4ERR_NOSPC at the limit.
func (t *Tables) Open(kv KV, a *OpenArgs) (StateID, Status) { panic("state: to come") }

// Downgrade is OPEN_DOWNGRADE (RFC 8881 section 18.18).
func (t *Tables) Downgrade(kv KV, client ClientID, ino volume.Ino, sid StateID, access, deny uint32) (StateID, Status) {
	panic("state: to come")
}

// Close is CLOSE (RFC 8881 section 18.2): it frees the open, its lock stateids and their locks.
func (t *Tables) Close(kv KV, client ClientID, ino volume.Ino, sid StateID) (CloseResult, Status) {
	panic("state: to come")
}

// Lock is LOCK (RFC 8881 section 18.10).
func (t *Tables) Lock(kv KV, a *LockArgs) (LockResult, Status) { panic("state: to come") }

// TestLock is LOCKT (RFC 8881 section 18.11): ErrDenied and the conflicting lock, or OK.
func (t *Tables) TestLock(client ClientID, ino volume.Ino, typ LockType, offset, length uint64, owner []byte) (Denied, Status) {
	panic("state: to come")
}

// Unlock is LOCKU (RFC 8881 section 18.12).
func (t *Tables) Unlock(kv KV, client ClientID, ino volume.Ino, sid StateID, offset, length uint64) (StateID, []Waiter, Status) {
	panic("state: to come")
}

// TestStateID returns the status of one stateid for TEST_STATEID (RFC 8881 section 18.48).
func (t *Tables) TestStateID(client ClientID, sid StateID) Status { panic("state: to come") }

// FreeStateID is FREE_STATEID (RFC 8881 section 18.38).
func (t *Tables) FreeStateID(kv KV, client ClientID, sid StateID) Status { panic("state: to come") }

// CheckIO decides whether a READ (AccessRead), WRITE or SETATTR of size (AccessWrite) may go ahead under a stateid (RFC 8881 sections
// 8.2.3 and 9.1.2): nil error, NFS4ERR_OPENMODE, NFS4ERR_LOCKED when a special stateid meets a share deny, NFS4ERR_GRACE,
// NFS4ERR_BAD_STATEID, NFS4ERR_OLD_STATEID.
func (t *Tables) CheckIO(client ClientID, ino volume.Ino, sid StateID, access uint32) Status {
	panic("state: to come")
}

// OpenAccess returns the share access of the open behind an open or lock stateid of the file.
func (t *Tables) OpenAccess(client ClientID, ino volume.Ino, sid StateID) (access uint32, st Status) {
	panic("state: to come")
}

// InUse reports whether anybody has the inode open.
func (t *Tables) InUse(ino volume.Ino) bool { panic("state: to come") }

// Restored is for a volume that was restored from a backup: it drops all clients, takes a new instance number, and, if any client held
// opens, starts a grace period in which just those clients may reclaim. It ends when they all have sent RECLAIM_COMPLETE, or by EndGrace.
func (t *Tables) Restored(kv KV, random uint64) Dropped { panic("state: to come") }

// InGrace reports whether a grace period is on.
func (t *Tables) InGrace() bool { panic("state: to come") }

// EndGrace ends the grace period.
func (t *Tables) EndGrace(kv KV) { panic("state: to come") }
