package nfs4

import "holdfast/internal/volume"

// status is nfsstat4 (RFC 8881 section 15.1). volume.Errno has the same values, so errors of the file system need no translation.
type status = volume.Errno

// The statuses that package volume does not know.
const (
	statusOK                    = volume.OK
	errInval                    = volume.ErrInval
	errNotSupp                  = volume.ErrNotSupp
	errStale                    = volume.ErrStale
	errDelay                    = volume.ErrDelay
	errTooSmall          status = 10005
	errSame              status = 10009
	errDenied            status = 10010
	errShareDenied       status = 10015
	errNoFileHandle      status = 10020
	errMinorVersMismatch status = 10021
	errOldStateid        status = 10024
	errBadStateid        status = 10025
	errNotSame           status = 10027
	errRestoreFH         status = 10030
	errAttrNotSupp       status = 10032
	errNoGrace           status = 10033
	errBadXDR            status = 10036
	errOpenMode          status = 10038
	errBadOwner          status = 10039
	errBadChar           status = 10040
	errBadName           status = 10041
	errOpIllegal         status = 10044
	errBadSession        status = 10052
	errBadSlot           status = 10053
	errLayoutUnavailable status = 10059
	errSequencePos       status = 10064
	errReqTooBig         status = 10065
	errRepTooBig         status = 10066
	errRepTooBigToCache  status = 10067
	errRetryUncachedRep  status = 10068
	errTooManyOps        status = 10070
	errOpNotInSession    status = 10071
	errClientIDBusy      status = 10074
	errEncrAlgUnsupp     status = 10079
	errNotOnlyOp         status = 10081
	errWrongType         status = 10083
	errUnionNotSupp      status = 10090
)
