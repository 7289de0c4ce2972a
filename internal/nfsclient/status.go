package nfsclient

import (
	"fmt"
)

// Status is nfsstat4 (RFC 8881 section 15.1) or nfsstat3 (RFC 1813 section 2.6), which agree where both have a number. As an error it is found
// with errors.Is in what the client's methods return.
type Status uint32

// The statuses that callers here tell apart.
const (
	OK               Status = 0
	ErrPerm          Status = 1
	ErrNoEnt         Status = 2
	ErrIO            Status = 5
	ErrAccess        Status = 13
	ErrExist         Status = 17
	ErrNotDir        Status = 20
	ErrIsDir         Status = 21
	ErrInval         Status = 22
	ErrNoSpc         Status = 28
	ErrROFS          Status = 30
	ErrNotEmpty      Status = 66
	ErrStale         Status = 70
	ErrNotSupp       Status = 10004
	ErrServerFault   Status = 10006
	ErrDelay         Status = 10008 // NFS3ERR_JUKEBOX
	ErrDenied        Status = 10010
	ErrExpired       Status = 10011
	ErrLocked        Status = 10012
	ErrGrace         Status = 10013
	ErrShareDenied   Status = 10015
	ErrStaleClientID Status = 10022
	ErrStaleStateID  Status = 10023
	ErrBadStateID    Status = 10025
	ErrLockRange     Status = 10028
	ErrReclaimBad    Status = 10034
	ErrAdminRevoked  Status = 10047
	ErrBadSession    Status = 10052
	ErrBadSlot       Status = 10053
	ErrSeqMisordered Status = 10063
	ErrRetryUncached Status = 10068
	ErrClientIDBusy  Status = 10074
	ErrSeqFalseRetry Status = 10076
	ErrDeadSession   Status = 10078
)

var statusNames = map[Status]string{
	OK: "OK", ErrPerm: "PERM", ErrNoEnt: "NOENT", ErrIO: "IO", ErrAccess: "ACCESS", ErrExist: "EXIST", ErrNotDir: "NOTDIR", ErrIsDir: "ISDIR",
	ErrInval: "INVAL", ErrNoSpc: "NOSPC", ErrROFS: "ROFS", ErrNotEmpty: "NOTEMPTY", ErrStale: "STALE", ErrNotSupp: "NOTSUPP",
	ErrServerFault: "SERVERFAULT", ErrDelay: "DELAY", ErrDenied: "DENIED", ErrExpired: "EXPIRED", ErrLocked: "LOCKED", ErrGrace: "GRACE",
	ErrShareDenied: "SHARE_DENIED", ErrStaleClientID: "STALE_CLIENTID", ErrStaleStateID: "STALE_STATEID", ErrBadStateID: "BAD_STATEID",
	ErrLockRange: "LOCK_RANGE", ErrReclaimBad: "RECLAIM_BAD", ErrAdminRevoked: "ADMIN_REVOKED", ErrBadSession: "BADSESSION", ErrBadSlot: "BADSLOT",
	ErrSeqMisordered: "SEQ_MISORDERED", ErrRetryUncached: "RETRY_UNCACHED_REP",
	ErrClientIDBusy: "CLIENTID_BUSY", ErrSeqFalseRetry: "SEQ_FALSE_RETRY", ErrDeadSession: "DEADSESSION",
}

// Error names the status as the RFC does.
func (s Status) Error() string {
	if name, ok := statusNames[s]; ok {
		return "NFS status " + name
	}
	return fmt.Sprintf("NFS status %d", uint32(s))
}

// lostState reports whether a server that never loses state would not say so to a client that renews its lease.
func (s Status) lostState() bool {
	switch s {
	case ErrStale, ErrExpired, ErrStaleClientID, ErrStaleStateID, ErrBadStateID, ErrAdminRevoked, ErrBadSession, ErrDeadSession,
		ErrSeqMisordered, ErrSeqFalseRetry, ErrReclaimBad:
		return true
	}
	return false
}

// Error is a status other than OK, and what it was the answer to.
type Error struct {
	Op     string // the operation or procedure that failed, as the RFC names it
	Status Status

	index int // of the operation in its compound
}

// Error names the operation and the status.
func (e *Error) Error() string { return "nfsclient: " + e.Op + ": " + e.Status.Error() }

// Unwrap returns the status, for errors.Is.
func (e *Error) Unwrap() error { return e.Status }
