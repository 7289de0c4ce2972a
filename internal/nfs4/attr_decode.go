package nfs4

import (
	"bytes"
	"math"
	"strconv"
	"time"

	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

// setAttrs is a decoded fattr4 of SETATTR, CREATE or OPEN. The volume.SetAttr that into fills points into it.
type setAttrs struct {
	mask         bitmap
	mode         uint32
	modeMask     uint32 // of mode_set_masked; otherwise all bits
	uid, gid     uint32
	size         uint64
	atime, mtime int64
	atimeNow     bool
	mtimeNow     bool
}

// decode reads f, which may hold the attributes of allowed and no others: NFS4ERR_ATTRNOTSUPP for what this minor version does not have, NFS4ERR_INVAL for what
// cannot be set (RFC 8881 section 18.30.3).
func (s *setAttrs) decode(f fattr, minor uint32, allowed bitmap) status {
	*s = setAttrs{mask: f.mask, modeMask: 0o7777}
	if !f.mask.without(supported(minor)).empty() {
		return errAttrNotSupp
	}
	if !f.mask.without(allowed).empty() {
		return volume.ErrInval
	}
	modes := 0
	for _, a := range [...]uint{attrMode, attrModeSetMasked, attrModeUmask} {
		if f.mask.has(a) {
			modes++
		}
	}
	if modes > 1 {
		return volume.ErrInval
	}
	d := xdr.NewDecoder(f.vals)
	st := statusOK
	f.mask.each(func(attr uint) bool {
		st = s.decodeOne(d, attr)
		return st == statusOK && d.Err() == nil
	})
	if st != statusOK {
		return st
	}
	if d.Err() != nil || d.Remaining() != 0 {
		return errBadXDR
	}
	return statusOK
}

func (s *setAttrs) decodeOne(d *xdr.Decoder, attr uint) (st status) {
	switch attr {
	case attrSize:
		if s.size = d.Uint64(); s.size > volume.MaxFileBytes {
			return volume.ErrFBig
		}
	case attrMode:
		s.mode = d.Uint32()
		return checkMode(s.mode)
	case attrModeSetMasked: // RFC 8881 section 6.2.5: value, mask
		s.mode, s.modeMask = d.Uint32(), d.Uint32()
		return checkMode(s.mode | s.modeMask)
	case attrModeUmask: // RFC 8275 section 4: mode, umask. Without inherited ACLs the umask always applies.
		mode, umask := d.Uint32(), d.Uint32()
		s.mode = mode &^ (umask & 0o777)
		if checkMode(umask) != statusOK {
			return volume.ErrInval
		}
		return checkMode(mode)
	case attrOwner:
		s.uid, st = decodeID(d)
	case attrOwnerGroup:
		s.gid, st = decodeID(d)
	case attrTimeAccessSet:
		s.atime, s.atimeNow, st = decodeSetTime(d)
	case attrTimeModifySet:
		s.mtime, s.mtimeNow, st = decodeSetTime(d)
	}
	return st
}

func checkMode(mode uint32) status {
	if mode&^0o7777 != 0 {
		return volume.ErrInval
	}
	return statusOK
}

// into returns what to change on an object whose mode is now mode (0 at creation).
func (s *setAttrs) into(mode uint32) volume.SetAttr {
	var out volume.SetAttr
	if s.mask.has(attrMode) || s.mask.has(attrModeUmask) || s.mask.has(attrModeSetMasked) {
		s.mode = mode&^s.modeMask | s.mode&s.modeMask
		out.Mode = &s.mode
	}
	if s.mask.has(attrOwner) {
		out.UID = &s.uid
	}
	if s.mask.has(attrOwnerGroup) {
		out.GID = &s.gid
	}
	if s.mask.has(attrSize) {
		out.Size = &s.size
	}
	if s.mask.has(attrTimeAccessSet) {
		if out.AtimeNow = s.atimeNow; !s.atimeNow {
			out.Atime = &s.atime
		}
	}
	if s.mask.has(attrTimeModifySet) {
		if out.MtimeNow = s.mtimeNow; !s.mtimeNow {
			out.Mtime = &s.mtime
		}
	}
	return out
}

// maxOwnerBytes bounds "number@domain"; a longer owner is a name that we cannot map anyway.
const maxOwnerBytes = 1024

// decodeID reads an owner: a decimal number, alone or before an '@' (RFC 8881 section 5.9). We map no names: AUTH_SYS carries numbers, and
// clients send them as such.
func decodeID(d *xdr.Decoder) (uint32, status) {
	b := d.Opaque(maxOwnerBytes)
	if d.Err() != nil {
		return 0, errBadXDR
	}
	if i := bytes.IndexByte(b, '@'); i >= 0 {
		b = b[:i]
	}
	// ParseUint takes no sign but underscores never with base 10; a leading zero is no number that a client makes.
	if len(b) == 0 || len(b) > 10 || len(b) > 1 && b[0] == '0' {
		return 0, errBadOwner
	}
	id, err := strconv.ParseUint(string(b), 10, 32)
	if err != nil || id == math.MaxUint32 { // (uid_t)-1 means "unchanged" to every Unix
		return 0, errBadOwner
	}
	return uint32(id), statusOK
}

// decodeSetTime reads a settime4 (RFC 8881 section 5.8.2.37).
func decodeSetTime(d *xdr.Decoder) (ns int64, now bool, st status) {
	switch d.Uint32() {
	case 0: // SET_TO_SERVER_TIME4
		return 0, true, statusOK
	case 1: // SET_TO_CLIENT_TIME4
	default:
		return 0, false, errBadXDR
	}
	sec, nsec := d.Int64(), d.Uint32()
	const limit = math.MaxInt64/int64(time.Second) - 1
	if nsec >= uint32(time.Second) || sec > limit || sec < -limit {
		return 0, false, volume.ErrInval
	}
	return sec*int64(time.Second) + int64(nsec), false, statusOK
}
