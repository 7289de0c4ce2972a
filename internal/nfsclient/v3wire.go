package nfsclient

import (
	"holdfast/internal/xdr"
)

// Procedures of version 3 (RFC 1813 section 3) and of MOUNT version 3 (appendix I).
const (
	proc3GetAttr     = 1
	proc3SetAttr     = 2
	proc3Lookup      = 3
	proc3Read        = 6
	proc3Write       = 7
	proc3Create      = 8
	proc3Mkdir       = 9
	proc3Remove      = 12
	proc3Rmdir       = 13
	proc3Rename      = 14
	proc3ReadDir     = 16
	proc3ReadDirPlus = 17
	proc3FSInfo      = 19
	proc3Commit      = 21

	mountVersion = 3
	procMnt      = 1
)

var procNames = map[uint32]string{
	proc3GetAttr: "GETATTR", proc3SetAttr: "SETATTR", proc3Lookup: "LOOKUP", proc3Read: "READ", proc3Write: "WRITE", proc3Create: "CREATE",
	proc3Mkdir: "MKDIR", proc3Remove: "REMOVE", proc3Rmdir: "RMDIR", proc3Rename: "RENAME", proc3ReadDir: "READDIR",
	proc3ReadDirPlus: "READDIRPLUS", proc3FSInfo: "FSINFO", proc3Commit: "COMMIT",
}

const maxHandle3 = 64

// decodeHandle3 reads a nfs_fh3.
func decodeHandle3(d *xdr.Decoder) Handle { return Handle(d.Opaque(maxHandle3)) }

// decodeFattr3 reads a fattr3.
func decodeFattr3(d *xdr.Decoder, a *Attr) {
	a.Type = FileType(d.Uint32())
	a.Mode = d.Uint32()
	a.Nlink = d.Uint32()
	a.UID, a.GID = d.Uint32(), d.Uint32()
	a.Size, a.Used = d.Uint64(), d.Uint64()
	d.Uint64() // rdev
	d.Uint64() // fsid
	a.FileID = d.Uint64()
	a.Atime, a.Mtime, a.Ctime = decodeTime3(d), decodeTime3(d), decodeTime3(d)
}

func decodeTime3(d *xdr.Decoder) int64 {
	s := int64(d.Uint32())
	return s*1e9 + int64(d.Uint32())
}

// decodePostAttr reads a post_op_attr.
func decodePostAttr(d *xdr.Decoder, a *Attr) (present bool) {
	if present = d.Bool(); present {
		decodeFattr3(d, a)
	}
	return present
}

// skipWCC skips a wcc_data.
func skipWCC(d *xdr.Decoder) {
	if d.Bool() {
		d.Uint64()
		d.Uint64()
		d.Uint64()
	}
	decodePostAttr(d, new(Attr))
}

// encodeSattr3 appends a sattr3.
func encodeSattr3(e *xdr.Encoder, s *SetAttr) {
	for _, v := range []*uint32{s.Mode, s.UID, s.GID} {
		e.Bool(v != nil)
		if v != nil {
			e.Uint32(*v)
		}
	}
	e.Bool(s.Size != nil)
	if s.Size != nil {
		e.Uint64(*s.Size)
	}
	for _, v := range []*int64{s.Atime, s.Mtime} {
		if v == nil {
			e.Uint32(0) // DONT_CHANGE
			continue
		}
		e.Uint32(2) // SET_TO_CLIENT_TIME
		e.Uint32(uint32(*v / 1e9))
		e.Uint32(uint32(*v % 1e9))
	}
}
