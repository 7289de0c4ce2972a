package nfs3

import "holdfast/internal/volume"

// status is nfsstat3 (RFC 1813 section 2.6).
type status uint32

// The values of nfsstat3 that this server returns.
const (
	stOK          status = 0
	stPerm        status = 1
	stNoEnt       status = 2
	stIO          status = 5
	stNXIO        status = 6
	stAccess      status = 13
	stExist       status = 17
	stXDev        status = 18
	stNotDir      status = 20
	stIsDir       status = 21
	stInval       status = 22
	stFBig        status = 27
	stNoSpace     status = 28
	stROFS        status = 30
	stMLink       status = 31
	stNameTooLong status = 63
	stNotEmpty    status = 66
	stDQuot       status = 69
	stStale       status = 70
	stBadHandle   status = 10001
	stNotSync     status = 10002
	stBadCookie   status = 10003
	stNotSupp     status = 10004
	stTooSmall    status = 10005
	stServerFault status = 10006
	stBadType     status = 10007
	stJukebox     status = 10008
)

// statuses maps what the volume returns to what version 3 knows. Errors that only version 4 has become the nearest thing
// that a version 3 client has a meaning for.
var statuses = map[volume.Errno]status{
	volume.OK:             stOK,
	volume.ErrPerm:        stPerm,
	volume.ErrNoEnt:       stNoEnt,
	volume.ErrIO:          stIO,
	volume.ErrNXIO:        stNXIO,
	volume.ErrAccess:      stAccess,
	volume.ErrExist:       stExist,
	volume.ErrXDev:        stXDev,
	volume.ErrNotDir:      stNotDir,
	volume.ErrIsDir:       stIsDir,
	volume.ErrInval:       stInval,
	volume.ErrFBig:        stFBig,
	volume.ErrNoSpace:     stNoSpace,
	volume.ErrROFS:        stROFS,
	volume.ErrMLink:       stMLink,
	volume.ErrNameTooLong: stNameTooLong,
	volume.ErrNotEmpty:    stNotEmpty,
	volume.ErrDQuot:       stDQuot,
	volume.ErrStale:       stStale,
	volume.ErrBadHandle:   stBadHandle,
	volume.ErrBadCookie:   stBadCookie,
	volume.ErrNotSupp:     stNotSupp,
	volume.ErrServerFault: stServerFault,
	volume.ErrBadType:     stBadType,
	volume.ErrDelay:       stJukebox,
	volume.ErrSymlink:     stInval,
	volume.ErrFileOpen:    stAccess,
}

// statusOf returns the version 3 status for an outcome of the volume; one it does not know is NFS3ERR_SERVERFAULT.
func statusOf(e volume.Errno) status {
	if e == volume.OK {
		return stOK
	}
	if st, ok := statuses[e]; ok {
		return st
	}
	return stServerFault
}
