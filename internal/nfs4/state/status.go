package state

import "holdfast/internal/volume"

// Status is an nfsstat4 (RFC 8881 section 15.1), the same type as the filesystem's errors, so that operations handle one kind.
type Status = volume.Errno

// The statuses that protocol state returns.
const (
	OK                         = volume.OK
	ErrPerm                    = volume.ErrPerm
	ErrNoEnt                   = volume.ErrNoEnt
	ErrInval                   = volume.ErrInval
	ErrNoSpace                 = volume.ErrNoSpace
	ErrDelay                   = volume.ErrDelay
	ErrTooSmall         Status = 10005
	ErrDenied           Status = 10010
	ErrLocked           Status = 10012
	ErrGrace            Status = 10013
	ErrShareDenied      Status = 10015
	ErrClientInUse      Status = 10017
	ErrStaleClientID    Status = 10022
	ErrOldStateID       Status = 10024
	ErrBadStateID       Status = 10025
	ErrNotSame          Status = 10027
	ErrNoGrace          Status = 10033
	ErrLocksHeld        Status = 10037
	ErrOpenMode         Status = 10038
	ErrBadSession       Status = 10052
	ErrBadSlot          Status = 10053
	ErrCompleteAlready  Status = 10054
	ErrSeqMisordered    Status = 10063
	ErrRetryUncachedRep Status = 10068
	ErrClientIDBusy     Status = 10074
	ErrSeqFalseRetry    Status = 10076
	ErrBadHighSlot      Status = 10077
)
