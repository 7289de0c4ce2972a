package nfs4

import (
	"holdfast/internal/nfs4/state"
	"holdfast/internal/rpc"
	"holdfast/internal/xdr"
)

// sequenceArgs is SEQUENCE4args (RFC 8881 section 18.46.1).
type sequenceArgs struct {
	session state.SessionID
	seqid   uint32
	slot    uint32
	highest uint32
	cache   bool
}

func (s *sequenceArgs) decode(d *xdr.Decoder) {
	s.session = decodeSessionID(d)
	s.seqid, s.slot, s.highest = d.Uint32(), d.Uint32(), d.Uint32()
	s.cache = d.Bool()
}

func decodeSequence(a *args, d *xdr.Decoder) { a.seq.decode(d) }

// Values of OPEN4args (RFC 8881 section 18.16.1).
const (
	openNoCreate = 0
	openCreate   = 1

	createUnchecked   = 0
	createGuarded     = 1
	createExclusive   = 2
	createExclusive41 = 3

	claimNull         = 0
	claimPrevious     = 1
	claimDelegateCur  = 2
	claimDelegatePrev = 3
	claimFH           = 4
	claimDelegCurFH   = 5
	claimDelegPrevFH  = 6
)

// openArgs is OPEN4args. The seqid and the owner's client id mean nothing in NFSv4.1 (section 18.16.3).
type openArgs struct {
	access, deny uint32
	owner        []byte
	create       bool
	mode         uint32 // createmode4
	attrs        fattr
	verifier     []byte
	claim        uint32
	name         []byte
	delegType    uint32
	delegation   state.StateID
}

func decodeOpen(a *args, d *xdr.Decoder) {
	o := &a.open
	*o = openArgs{}
	d.Uint32() // seqid
	o.access, o.deny = d.Uint32(), d.Uint32()
	o.owner = decodeOwner(d)
	switch d.Uint32() {
	case openNoCreate:
	case openCreate:
		o.create = true
		o.decodeHow(d)
	default:
		d.Fail(errBadEnum)
	}
	o.claim = d.Uint32()
	switch o.claim {
	case claimNull, claimDelegatePrev:
		o.name = d.Opaque(maxNameOnWire)
	case claimPrevious:
		o.delegType = d.Uint32()
	case claimDelegateCur:
		o.delegation = decodeStateid(d)
		o.name = d.Opaque(maxNameOnWire)
	case claimFH, claimDelegPrevFH:
	case claimDelegCurFH:
		o.delegation = decodeStateid(d)
	default:
		d.Fail(errBadEnum)
	}
}

func (o *openArgs) decodeHow(d *xdr.Decoder) {
	o.mode = d.Uint32()
	switch o.mode {
	case createUnchecked, createGuarded:
		o.attrs = decodeFattr(d)
	case createExclusive:
		o.verifier = d.Fixed(8)
	case createExclusive41:
		o.verifier = d.Fixed(8)
		o.attrs = decodeFattr(d)
	default:
		d.Fail(errBadEnum)
	}
}

// decodeOwner reads a state_owner4 and drops its client id: in NFSv4.1 it is the session's (RFC 8881 section 2.4, 18.10.3, 18.16.3).
func decodeOwner(d *xdr.Decoder) []byte {
	d.Uint64()
	return d.Opaque(maxOpaqueBytes)
}

func decodeOpenDowngrade(a *args, d *xdr.Decoder) {
	a.stateid = decodeStateid(d)
	d.Uint32() // seqid
	a.open.access, a.open.deny = d.Uint32(), d.Uint32()
}

func decodeClose(a *args, d *xdr.Decoder) {
	d.Uint32() // seqid
	a.stateid = decodeStateid(d)
}

// lockArgs are the arguments of LOCK, LOCKT and LOCKU (RFC 8881 sections 18.10 to 18.12).
type lockArgs struct {
	typ      state.LockType
	reclaim  bool
	newOwner bool
	owner    []byte
}

func (l *lockArgs) decodeType(d *xdr.Decoder) {
	if l.typ = state.LockType(d.Uint32()); !l.typ.Valid() {
		d.Fail(errBadEnum)
	}
}

func decodeLock(a *args, d *xdr.Decoder) {
	l := &a.lock
	l.decodeType(d)
	l.reclaim = d.Bool()
	a.offset, a.length = d.Uint64(), d.Uint64()
	l.owner = nil
	if l.newOwner = d.Bool(); l.newOwner {
		d.Uint32() // open_seqid
		a.stateid = decodeStateid(d)
		d.Uint32() // lock_seqid
		l.owner = decodeOwner(d)
		return
	}
	a.stateid = decodeStateid(d)
	d.Uint32() // lock_seqid
}

func decodeLockt(a *args, d *xdr.Decoder) {
	a.lock.decodeType(d)
	a.offset, a.length = d.Uint64(), d.Uint64()
	a.lock.owner = decodeOwner(d)
}

func decodeLocku(a *args, d *xdr.Decoder) {
	a.lock.decodeType(d)
	d.Uint32() // seqid
	a.stateid = decodeStateid(d)
	a.offset, a.length = d.Uint64(), d.Uint64()
}

// State protection of EXCHANGE_ID (RFC 8881 section 18.35.1).
const (
	protectNone     = 0
	protectMachCred = 1
	protectSSV      = 2
)

// exchangeArgs is EXCHANGE_ID4args.
type exchangeArgs struct {
	verifier       [8]byte
	owner          []byte
	flags          uint32
	protect        uint32
	implementation []byte // nii_name
}

func decodeExchangeID(a *args, d *xdr.Decoder) {
	x := &a.exchange
	*x = exchangeArgs{}
	copy(x.verifier[:], d.Fixed(8))
	x.owner = d.Opaque(maxOpaqueBytes)
	x.flags = d.Uint32()
	x.protect = d.Uint32()
	switch x.protect {
	case protectNone:
	case protectMachCred:
		decodeBitmap(d)
		decodeBitmap(d)
	case protectSSV:
		decodeBitmap(d)
		decodeBitmap(d)
		for range 2 {
			for range d.Count(maxOIDs, 4) {
				d.Opaque(maxOpaqueBytes)
			}
		}
		d.Uint32()
		d.Uint32()
	default:
		d.Fail(errBadEnum)
	}
	for range d.Count(maxImplIDs, 20) {
		d.Opaque(maxOpaqueBytes)
		x.implementation = d.Opaque(maxOpaqueBytes)
		d.Int64()
		d.Uint32()
	}
}

// createSessionArgs is CREATE_SESSION4args (RFC 8881 section 18.36.1).
type createSessionArgs struct {
	sequence   uint32
	flags      uint32
	fore, back state.ChannelAttrs
	cbProgram  uint32
	sec        callbackSec
}

func decodeCreateSession(a *args, d *xdr.Decoder) {
	s := &a.create
	*s = createSessionArgs{}
	a.clientID = d.Uint64()
	s.sequence, s.flags = d.Uint32(), d.Uint32()
	s.fore, s.back = decodeChannel(d), decodeChannel(d)
	s.cbProgram = d.Uint32()
	s.sec.decode(d)
}

func decodeBackchannelCtl(a *args, d *xdr.Decoder) {
	a.create.cbProgram = d.Uint32()
	a.create.sec.decode(d)
}

func decodeChannel(d *xdr.Decoder) state.ChannelAttrs {
	c := state.ChannelAttrs{
		HeaderPad:   d.Uint32(),
		MaxRequest:  d.Uint32(),
		MaxResponse: d.Uint32(),
		MaxCached:   d.Uint32(),
		MaxOps:      d.Uint32(),
		MaxRequests: d.Uint32(),
	}
	for range d.Count(1, 4) {
		d.Uint32() // ca_rdma_ird
	}
	return c
}

// callbackSec is what the client offers for its back channel: callback_sec_parms4<> (RFC 8881 section 18.36.1), cut down to the first offer that we can use.
type callbackSec struct {
	offered bool
	usable  bool
	flavor  uint32
	sys     []byte // the body of an AUTH_SYS credential, as a call's header carries it
}

func (s *callbackSec) decode(d *xdr.Decoder) {
	*s = callbackSec{}
	for range d.Count(maxSecParms, 4) {
		s.offered = true
		flavor := d.Uint32()
		var body []byte
		switch flavor {
		case rpc.AuthNone:
		case rpc.AuthSys:
			body = decodeAuthSys(d)
		case rpc.AuthGSS:
			d.Uint32()
			d.Opaque(maxOpaqueBytes)
			d.Opaque(maxOpaqueBytes)
			continue
		default:
			d.Fail(errBadEnum)
			return
		}
		if !s.usable {
			s.usable, s.flavor, s.sys = true, flavor, body
		}
	}
}

// decodeAuthSys returns the bytes of an authsys_parms (RFC 5531 appendix A), checked.
func decodeAuthSys(d *xdr.Decoder) []byte {
	rest, start := d.Rest(), d.Offset()
	d.Uint32()    // stamp
	d.Opaque(255) // machine name
	d.Uint32()    // uid
	d.Uint32()    // gid
	for range d.Count(16, 4) {
		d.Uint32()
	}
	if d.Err() != nil {
		return nil
	}
	return rest[:d.Offset()-start]
}

func decodeBindConn(a *args, d *xdr.Decoder) {
	a.session = decodeSessionID(d)
	a.count = d.Uint32()
	switch a.count {
	case bindFore, bindBack, bindForeOrBoth, bindBackOrBoth:
	default:
		d.Fail(errBadEnum)
	}
	a.flag = d.Bool()
}
