package nfs4

import (
	"errors"
	"math"

	"holdfast/internal/nfs4/state"
	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

// args holds the decoded arguments of one operation. It is shared by all of them, so that decoding allocates nothing; only the fields that an operation's decode
// function sets mean anything to its run function. Slices alias the request.
type args struct {
	fh       []byte
	name     []byte // component; the old name of RENAME
	newName  []byte
	link     []byte
	data     []byte
	verifier []byte
	attrs    fattr
	bits     bitmap
	stateid  state.StateID
	offset   uint64
	length   uint64 // also a cookie of READDIR
	count    uint32 // also access bits, direction, style: the one number of an operation that has but one
	dirCount uint32
	clientID uint64
	session  state.SessionID
	flag     bool
	typ      uint32
	rdev     uint64
	seq      sequenceArgs
	open     openArgs
	lock     lockArgs
	exchange exchangeArgs
	create   createSessionArgs
	stateids []state.StateID
}

// fattr is a fattr4 (RFC 8881 section 3.3.10) whose values have not been looked at.
type fattr struct {
	mask bitmap
	vals []byte
}

func decodeFattr(d *xdr.Decoder) fattr {
	return fattr{mask: decodeBitmap(d), vals: d.Opaque(maxAttrBytes)}
}

func decodeStateid(d *xdr.Decoder) state.StateID {
	var s state.StateID
	s.Seqid = d.Uint32()
	copy(s.Other[:], d.Fixed(len(s.Other)))
	return s
}

func decodeSessionID(d *xdr.Decoder) state.SessionID {
	var id state.SessionID
	copy(id[:], d.Fixed(len(id)))
	return id
}

func decodeNothing(*args, *xdr.Decoder)          {}
func decodeName(a *args, d *xdr.Decoder)         { a.name = d.Opaque(maxNameOnWire) }
func decodeCountOnly(a *args, d *xdr.Decoder)    { a.count = d.Uint32() }
func decodeClientIDOnly(a *args, d *xdr.Decoder) { a.clientID = d.Uint64() }
func decodeStateidOnly(a *args, d *xdr.Decoder)  { a.stateid = decodeStateid(d) }
func decodeSessionOnly(a *args, d *xdr.Decoder)  { a.session = decodeSessionID(d) }
func decodeFlagOnly(a *args, d *xdr.Decoder)     { a.flag = d.Bool() }
func decodeAttrsOnly(a *args, d *xdr.Decoder)    { a.attrs = decodeFattr(d) }
func decodeBitsOnly(a *args, d *xdr.Decoder)     { a.bits = decodeBitmap(d) }
func decodePutFH(a *args, d *xdr.Decoder)        { a.fh = d.Opaque(maxHandleBytes) }

func decodeRead(a *args, d *xdr.Decoder) {
	a.stateid = decodeStateid(d)
	a.offset, a.count = d.Uint64(), d.Uint32()
}

func decodeWrite(a *args, d *xdr.Decoder) {
	a.stateid = decodeStateid(d)
	a.offset = d.Uint64()
	if how := d.Uint32(); how > 2 {
		d.Fail(errBadEnum)
	}
	a.data = d.Opaque(maxWriteOnWire)
}

func decodeCommit(a *args, d *xdr.Decoder) { a.offset, a.count = d.Uint64(), d.Uint32() }

func decodeReaddir(a *args, d *xdr.Decoder) {
	a.length = d.Uint64()
	a.verifier = d.Fixed(8)
	a.dirCount, a.count = d.Uint32(), d.Uint32()
	a.bits = decodeBitmap(d)
}

func decodeRename(a *args, d *xdr.Decoder) {
	a.name, a.newName = d.Opaque(maxNameOnWire), d.Opaque(maxNameOnWire)
}

func decodeSetattr(a *args, d *xdr.Decoder) {
	a.stateid = decodeStateid(d)
	a.attrs = decodeFattr(d)
}

func decodeCreate(a *args, d *xdr.Decoder) {
	a.typ = d.Uint32()
	a.link, a.rdev = nil, 0
	switch volume.FileType(a.typ) {
	case volume.TypeSymlink:
		a.link = d.Opaque(maxLinkOnWire)
	case volume.TypeBlock, volume.TypeChar:
		a.rdev = d.Uint64() // specdata1 (major), specdata2 (minor)
	}
	a.name = d.Opaque(maxNameOnWire)
	a.attrs = decodeFattr(d)
}

// Limits of single arguments, for the decoder; what the operation itself allows is less or equal.
const (
	// maxWriteOnWire lets the record's own size be the limit of a WRITE's data.
	maxWriteOnWire = math.MaxInt32
	maxLinkOnWire  = 1 << 16 // longer than MaxSymlinkBytes, so that a long target is NAMETOOLONG
	// maxTestStateids bounds TEST_STATEID; Linux sends one at a time.
	maxTestStateids = 1024
	maxSecParms     = 8
	maxImplIDs      = 1
	maxOIDs         = 64
)

// errBadEnum is a value that an XDR enumeration does not have (RFC 4506 section 4.3); the operation answers NFS4ERR_BADXDR.
var errBadEnum = errors.New("nfs4: value is not in its enumeration")

func decodeIO(a *args, d *xdr.Decoder) { // ALLOCATE, DEALLOCATE
	a.stateid = decodeStateid(d)
	a.offset, a.length = d.Uint64(), d.Uint64()
}

func decodeSeek(a *args, d *xdr.Decoder) {
	a.stateid = decodeStateid(d)
	a.offset, a.typ = d.Uint64(), d.Uint32()
}

func decodeIOAdvise(a *args, d *xdr.Decoder) {
	decodeIO(a, d)
	a.bits = decodeBitmap(d)
}

func decodeSecinfoNoName(a *args, d *xdr.Decoder) {
	if a.count = d.Uint32(); a.count > 1 {
		d.Fail(errBadEnum)
	}
}

func decodeTestStateid(a *args, d *xdr.Decoder) {
	a.stateids = a.stateids[:0]
	for range d.Count(maxTestStateids, 16) {
		a.stateids = append(a.stateids, decodeStateid(d))
	}
}

func decodeGetDirDelegation(a *args, d *xdr.Decoder) {
	a.flag = d.Bool()
	decodeBitmap(d)
	for range 2 {
		d.Int64()
		d.Uint32()
	}
	decodeBitmap(d)
	decodeBitmap(d)
}
