package volume

import "fmt"

// Errno is the outcome of a filesystem operation, with the values of nfsstat4 (RFC 8881 section 15.1), which nfsstat3 shares for those it has.
type Errno uint32

// The errors that the filesystem returns.
const (
	OK             Errno = 0
	ErrPerm        Errno = 1
	ErrNoEnt       Errno = 2
	ErrIO          Errno = 5
	ErrNXIO        Errno = 6
	ErrAccess      Errno = 13
	ErrExist       Errno = 17
	ErrXDev        Errno = 18
	ErrNotDir      Errno = 20
	ErrIsDir       Errno = 21
	ErrInval       Errno = 22
	ErrFBig        Errno = 27
	ErrNoSpace     Errno = 28
	ErrROFS        Errno = 30
	ErrMLink       Errno = 31
	ErrNameTooLong Errno = 63
	ErrNotEmpty    Errno = 66
	ErrDQuot       Errno = 69
	ErrStale       Errno = 70
	ErrBadHandle   Errno = 10001
	ErrBadCookie   Errno = 10003
	ErrNotSupp     Errno = 10004
	ErrServerFault Errno = 10006
	ErrBadType     Errno = 10007
	ErrDelay       Errno = 10008
	ErrSymlink     Errno = 10029
	ErrFileOpen    Errno = 10046
)

func (e Errno) Error() string { return fmt.Sprintf("nfs status %d", uint32(e)) }
