package nfsclient

import (
	"fmt"
	"strconv"
	"strings"

	"holdfast/internal/xdr"
)

// Operations of version 4 (RFC 8881 section 16.2.1).
const (
	opClose           = 4
	opCommit          = 5
	opCreate          = 6
	opGetAttr         = 9
	opGetFH           = 10
	opLock            = 12
	opLockT           = 13
	opLockU           = 14
	opLookup          = 15
	opOpen            = 18
	opPutFH           = 22
	opPutRootFH       = 24
	opRead            = 25
	opReadDir         = 26
	opRemove          = 28
	opRename          = 29
	opSaveFH          = 32
	opSetAttr         = 34
	opWrite           = 38
	opExchangeID      = 42
	opCreateSession   = 43
	opDestroySession  = 44
	opSequence        = 53
	opDestroyClientID = 57
	opReclaimComplete = 58
)

var opNames = map[uint32]string{
	opClose: "CLOSE", opCommit: "COMMIT", opCreate: "CREATE", opGetAttr: "GETATTR", opGetFH: "GETFH", opLock: "LOCK", opLockT: "LOCKT",
	opLockU: "LOCKU", opLookup: "LOOKUP", opOpen: "OPEN", opPutFH: "PUTFH", opPutRootFH: "PUTROOTFH", opRead: "READ", opReadDir: "READDIR",
	opRemove: "REMOVE", opRename: "RENAME", opSaveFH: "SAVEFH", opSetAttr: "SETATTR", opWrite: "WRITE", opExchangeID: "EXCHANGE_ID",
	opCreateSession: "CREATE_SESSION", opDestroySession: "DESTROY_SESSION", opSequence: "SEQUENCE", opDestroyClientID: "DESTROY_CLIENTID",
	opReclaimComplete: "RECLAIM_COMPLETE",
}

// Sizes of RFC 8881 section 3.
const (
	maxHandleBytes  = 128
	maxNameBytes    = 4096 // component4 has no limit of its own
	maxOpaqueLimit  = 1024 // NFS4_OPAQUE_LIMIT
	sessionIDBytes  = 16
	verifierBytes   = 8
	stateOtherBytes = 12
	maxBitmapWords  = 8
)

// compound builds the arguments of a COMPOUND.
type compound struct {
	*xdr.Encoder
	opsAt int
	ops   uint32
	// main is the index of the operation that must not be executed twice; a DELAY up to it makes the whole compound repeatable.
	main int
}

// newCompound starts a COMPOUND with no operations after what e holds.
func newCompound(e *xdr.Encoder) *compound {
	e.Uint32(0) // tag
	e.Uint32(1) // minor version
	c := &compound{Encoder: e, opsAt: e.Len()}
	e.Uint32(0)
	return c
}

// op starts an operation; its arguments are appended next.
func (c *compound) op(n uint32) {
	c.Uint32(n)
	c.ops++
	c.PutUint32(c.opsAt, c.ops)
}

// mainOp is op for the operation that the compound is made for.
func (c *compound) mainOp(n uint32) {
	c.main = int(c.ops)
	c.op(n)
}

func (c *compound) putFH(h Handle) {
	c.op(opPutFH)
	c.String(string(h))
}

func (c *compound) getAttr(mask bitmap) {
	c.op(opGetAttr)
	mask.encode(c.Encoder)
}

// results walks the answer to a COMPOUND.
type results struct {
	*xdr.Decoder
	left  int // operations left
	index int // of the operation last read
}

// parseCompound reads the head of a COMPOUND's results. The status there is that of the last operation and says nothing more.
func parseCompound(b []byte) *results {
	r := &results{Decoder: xdr.NewDecoder(b), index: -1}
	r.Uint32()
	r.Opaque(maxOpaqueLimit)
	r.left = r.Count(1000, 8)
	return r
}

// op reads the head of the next operation's result, which must be of operation n. The error is an *Error if its status is not OK.
func (r *results) op(n uint32) error {
	if r.Err() == nil && r.left == 0 {
		return fmt.Errorf("nfsclient: the answer ends before %s", opNames[n])
	}
	got, status := r.Uint32(), Status(r.Uint32())
	if err := r.Err(); err != nil {
		return fmt.Errorf("nfsclient: answer to %s: %w", opNames[n], err)
	}
	if got != n {
		return fmt.Errorf("nfsclient: the answer to %s is for operation %d", opNames[n], got)
	}
	r.left--
	r.index++
	if status != OK {
		return &Error{Op: opNames[n], Status: status, index: r.index}
	}
	return nil
}

// skip reads operations whose results are empty.
func (r *results) skip(ops ...uint32) error {
	for _, n := range ops {
		if err := r.op(n); err != nil {
			return err
		}
	}
	return nil
}

// check wraps a decoding error.
func (r *results) check() error {
	if err := r.Err(); err != nil {
		return fmt.Errorf("nfsclient: malformed answer: %w", err)
	}
	return nil
}

func (r *results) getFH() (Handle, error) {
	if err := r.op(opGetFH); err != nil {
		return "", err
	}
	return Handle(r.Opaque(maxHandleBytes)), r.check()
}

func (r *results) getAttr(a *Attr) error {
	if err := r.op(opGetAttr); err != nil {
		return err
	}
	decodeAttr(r.Decoder, a, nil)
	return r.check()
}

// changeInfo skips change_info4.
func (r *results) changeInfo() {
	r.Bool()
	r.Uint64()
	r.Uint64()
}

// bitmap is bitmap4.
type bitmap []uint32

func makeBitmap(bits ...uint32) bitmap {
	var b bitmap
	for _, bit := range bits {
		for int(bit/32) >= len(b) {
			b = append(b, 0)
		}
		b[bit/32] |= 1 << (bit % 32)
	}
	return b
}

func (b bitmap) encode(e *xdr.Encoder) {
	e.Uint32(uint32(len(b)))
	for _, w := range b {
		e.Uint32(w)
	}
}

func decodeBitmap(d *xdr.Decoder) bitmap {
	b := make(bitmap, d.Count(maxBitmapWords, 4))
	for i := range b {
		b[i] = d.Uint32()
	}
	return b
}

// Attributes (RFC 8881 section 5.8).
const (
	attrType       = 1
	attrChange     = 3
	attrSize       = 4
	attrLeaseTime  = 10
	attrRDError    = 11
	attrFileID     = 20
	attrMaxRead    = 30
	attrMaxWrite   = 31
	attrMode       = 33
	attrNumLinks   = 35
	attrOwner      = 36
	attrGroup      = 37
	attrSpaceUsed  = 45
	attrAccess     = 47
	attrAccessSet  = 48
	attrMetadata   = 52
	attrModify     = 53
	attrModifySet  = 54
	setToClientNow = 1 // SET_TO_CLIENT_TIME4: a time follows
)

var (
	attrsFull   = makeBitmap(attrType, attrChange, attrSize, attrFileID, attrMode, attrNumLinks, attrOwner, attrGroup, attrSpaceUsed, attrAccess, attrMetadata, attrModify)
	attrsServer = makeBitmap(attrLeaseTime, attrMaxRead, attrMaxWrite)
	attrsName   = makeBitmap(attrRDError, attrFileID)
	attrsList   = makeBitmap(attrType, attrChange, attrSize, attrRDError, attrFileID, attrMode, attrNumLinks, attrOwner, attrGroup, attrSpaceUsed, attrAccess,
		attrMetadata, attrModify)
)

// serverLimits are what attrsServer asks for.
type serverLimits struct {
	leaseSeconds      uint32
	maxRead, maxWrite uint64
}

// decodeAttr reads a fattr4; limits may be nil. An attribute that was not asked for fails the decoder.
func decodeAttr(d *xdr.Decoder, a *Attr, limits *serverLimits) {
	if limits == nil {
		limits = new(serverLimits)
	}
	mask := decodeBitmap(d)
	values := xdr.NewDecoder(d.Opaque(64 << 10))
	for word, bits := range mask {
		for bit := range uint32(32) {
			if bits&(1<<bit) != 0 {
				decodeOneAttr(values, uint32(word)*32+bit, a, limits)
			}
		}
	}
	if values.Err() != nil {
		d.Fail(values.Err())
	}
}

func decodeOneAttr(d *xdr.Decoder, bit uint32, a *Attr, limits *serverLimits) {
	switch bit {
	case attrType:
		a.Type = FileType(d.Uint32())
	case attrChange:
		a.Change = d.Uint64()
	case attrSize:
		a.Size = d.Uint64()
	case attrLeaseTime:
		limits.leaseSeconds = d.Uint32()
	case attrRDError:
		d.Uint32()
	case attrFileID:
		a.FileID = d.Uint64()
	case attrMaxRead:
		limits.maxRead = d.Uint64()
	case attrMaxWrite:
		limits.maxWrite = d.Uint64()
	case attrMode:
		a.Mode = d.Uint32()
	case attrNumLinks:
		a.Nlink = d.Uint32()
	case attrOwner:
		a.UID = decodeOwner(d)
	case attrGroup:
		a.GID = decodeOwner(d)
	case attrSpaceUsed:
		a.Used = d.Uint64()
	case attrAccess:
		a.Atime = decodeTime(d)
	case attrMetadata:
		a.Ctime = decodeTime(d)
	case attrModify:
		a.Mtime = decodeTime(d)
	default:
		d.Fail(fmt.Errorf("attribute %d was not asked for", bit))
	}
}

func decodeTime(d *xdr.Decoder) int64 {
	s := d.Int64()
	return s*1e9 + int64(d.Uint32())
}

const nobody = 65534

// decodeOwner reads an owner or group: a number, or a name that only root's is known of.
func decodeOwner(d *xdr.Decoder) uint32 {
	s := d.String(maxOpaqueLimit)
	if id, err := strconv.ParseUint(s, 10, 32); err == nil {
		return uint32(id)
	}
	if name, _, _ := strings.Cut(s, "@"); name == "root" {
		return 0
	}
	return nobody
}

// encodeSetAttr appends the fattr4 of what s sets.
func encodeSetAttr(e *xdr.Encoder, s *SetAttr) {
	var bits []uint32
	values := xdr.NewEncoder(make([]byte, 0, 64))
	add := func(bit uint32) { bits = append(bits, bit) }
	if s.Size != nil {
		add(attrSize)
		values.Uint64(*s.Size)
	}
	if s.Mode != nil {
		add(attrMode)
		values.Uint32(*s.Mode)
	}
	if s.UID != nil {
		add(attrOwner)
		values.String(strconv.FormatUint(uint64(*s.UID), 10))
	}
	if s.GID != nil {
		add(attrGroup)
		values.String(strconv.FormatUint(uint64(*s.GID), 10))
	}
	if s.Atime != nil {
		add(attrAccessSet)
		encodeSetTime(values, *s.Atime)
	}
	if s.Mtime != nil {
		add(attrModifySet)
		encodeSetTime(values, *s.Mtime)
	}
	makeBitmap(bits...).encode(e)
	e.Opaque(values.Bytes())
}

func encodeSetTime(e *xdr.Encoder, ns int64) {
	e.Uint32(setToClientNow)
	s := ns / 1e9
	if ns%1e9 < 0 {
		s--
	}
	e.Int64(s)
	e.Uint32(uint32(ns - s*1e9))
}

// stateID is stateid4. The sequence number sent is always 0, "the most recent" (RFC 8881 section 8.2.2), so that calls on one state need not wait for each other.
type stateID [stateOtherBytes]byte

func (s stateID) encode(e *xdr.Encoder) {
	e.Uint32(0)
	e.Fixed(s[:])
}

func decodeStateID(d *xdr.Decoder) (s stateID) {
	d.Uint32()
	copy(s[:], d.Fixed(stateOtherBytes))
	return s
}
