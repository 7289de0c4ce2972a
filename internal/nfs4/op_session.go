package nfs4

import (
	"encoding/binary"
	"hash/crc32"

	"holdfast/internal/nfs4/state"
	"holdfast/internal/rpc"
	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

// opSequence is SEQUENCE (RFC 8881 section 18.46). In apply it asks the tables whether the compound is a retry. On a read-only Tx the slot is not touched: the
// leader's front has judged the number, and running a read twice harms nobody.
func opSequence(c *compound) status {
	c.seq = c.a.seq
	s := &c.seq
	info, st := c.p.tables.Session(s.session)
	if st != statusOK {
		return st
	}
	if s.slot >= info.Fore.MaxRequests {
		return errBadSlot
	}
	if c.ops > info.Fore.MaxOps {
		return errTooManyOps
	}
	if len(c.req.Call.Args) > int(info.Fore.MaxRequest) {
		return errReqTooBig
	}
	if !c.tx.ReadOnly() {
		c.print = c.fingerprint()
		verdict, reply, st := c.p.tables.BeginMutating(s.session, s.slot, s.seqid, c.print)
		if st != statusOK {
			return st
		}
		if verdict == state.Replay {
			c.replay, c.recorded = true, reply
			return statusOK
		}
		c.record = true
	}
	c.inSession, c.client = true, info.Client
	c.limit = int(info.Fore.MaxResponse) - rpcReplyBytes - replySlack
	if cached := int(info.Fore.MaxCached) - rpcReplyBytes - replySlack; s.cache && c.record && cached < c.limit {
		c.limit, c.cache = cached, true
	}
	last := info.Fore.MaxRequests - 1
	c.e.Fixed(s.session[:])
	c.e.Uint32(s.seqid)
	c.e.Uint32(s.slot)
	c.e.Uint32(last) // sr_highest_slotid
	c.e.Uint32(last) // sr_target_highest_slotid
	c.e.Uint32(c.req.SeqFlags)
	return statusOK
}

const (
	// fingerprintBytes is how much of the operations after SEQUENCE the fingerprint covers: all of an ordinary request.
	fingerprintBytes = 512
	// writeOpAt is where an ordinary WRITE's number stands after SEQUENCE: behind PUTFH and its handle; writeDataAt is where its data begins.
	writeOpAt   = 4 + 4 + volume.HandleBytes
	writeDataAt = writeOpAt + 4 + 16 + 8 + 4 + 4
)

// fingerprint is a digest of what all transmissions of one request have in common, to tell a retry from another request that uses its number by mistake (RFC
// 8881 section 2.10.6.1.3.1). SEQUENCE is left out, as sa_highest_slotid may change, and so is the data of a WRITE: a client may send pages again that
// an application has changed meanwhile. It is never 0, which matches anything.
func (c *compound) fingerprint() uint32 {
	rest := c.d.Rest()
	fixed := &c.printed
	binary.BigEndian.PutUint32(fixed[0:], c.ops)
	binary.BigEndian.PutUint32(fixed[4:], uint32(len(rest)))
	binary.BigEndian.PutUint32(fixed[8:], c.req.Call.Auth.UID)
	n := min(len(rest), fingerprintBytes)
	if n >= writeDataAt && binary.BigEndian.Uint32(rest[writeOpAt:]) == opnumWrite {
		n = writeDataAt
	}
	sum := crc32.Update(crc32.Checksum(fixed[:], fingerprintTable), fingerprintTable, rest[:n])
	return max(sum, 1)
}

var fingerprintTable = crc32.MakeTable(crc32.Castagnoli)

// opCreateSession is CREATE_SESSION (RFC 8881 section 18.36). Its retries are recognized by csa_sequence; the whole result is recorded, errors too.
func opCreateSession(c *compound) status {
	const knownFlags = state.SessionPersist | state.SessionBackChan | state.SessionRDMA
	a := &c.a.create
	id := state.ClientID(c.a.clientID)
	verdict, recorded, st := c.p.tables.BeginCreateSession(id, a.sequence)
	if st != statusOK {
		return st
	}
	if verdict == state.Replay {
		d := xdr.NewDecoder(recorded)
		st := status(d.Uint32())
		c.e.Raw(d.Rest())
		return st
	}
	at := c.e.Len()
	if st = errInval; a.flags&^uint32(knownFlags) == 0 {
		st = c.createSession(id)
	}
	if st != errDelay {
		result := append(binary.BigEndian.AppendUint32(nil, uint32(st)), c.e.Bytes()[at:]...)
		c.p.tables.RecordCreateSession(&c.kv, id, a.sequence, result)
	}
	return st
}

func (c *compound) createSession(id state.ClientID) status {
	a := &c.a.create
	flags := a.flags
	if !a.sec.usable {
		flags &^= state.SessionBackChan // none of the offered flavours is one that we can call back with
	}
	res, st := c.p.tables.CreateSession(&c.kv, &state.CreateSessionArgs{
		Client:    id,
		Principal: c.principal(),
		Flags:     flags,
		Fore:      a.fore,
		Back:      a.back,
		CBProgram: a.cbProgram,
		CBSec:     a.sec.encode(c.minor),
	})
	if st != statusOK {
		return st
	}
	c.dropped(&res.Dropped)
	c.e.Fixed(res.Session[:])
	c.e.Uint32(a.sequence)
	c.e.Uint32(res.Flags)
	encodeChannel(c.e, &res.Fore)
	encodeChannel(c.e, &res.Back)
	return statusOK
}

func encodeChannel(e *xdr.Encoder, a *state.ChannelAttrs) {
	e.Uint32(a.HeaderPad)
	e.Uint32(a.MaxRequest)
	e.Uint32(a.MaxResponse)
	e.Uint32(a.MaxCached)
	e.Uint32(a.MaxOps)
	e.Uint32(a.MaxRequests)
	e.Uint32(0) // ca_rdma_ird
}

// encode returns what the tables keep of the callback security: the minor version that callbacks must name, the flavour, then the body of the credential.
func (s *callbackSec) encode(minor uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, minor)
	b = binary.BigEndian.AppendUint32(b, s.flavor)
	return append(b, s.sys...)
}

// decodeCallbackSec is the inverse of encode: the credential is that of calls to the client (RFC 8881 section 2.10.8.3).
func decodeCallbackSec(sec []byte) (minor uint32, a rpc.Auth) {
	d := xdr.NewDecoder(sec)
	minor, a.Flavor = d.Uint32(), d.Uint32()
	if a.Flavor != rpc.AuthSys {
		return minor, a
	}
	d.Uint32() // stamp
	a.Machine = d.String(255)
	a.UID, a.GID = d.Uint32(), d.Uint32()
	for range d.Count(16, 4) {
		a.Groups = append(a.Groups, d.Uint32())
	}
	return minor, a
}

// dropped notes what the end of somebody's state means for others.
func (c *compound) dropped(d *state.Dropped) {
	c.closed = append(c.closed, d.Closed...)
	c.notify = append(c.notify, d.Notify...)
}

func (c *compound) principal() state.Principal {
	a := &c.req.Call.Auth
	if a.Flavor != rpc.AuthSys {
		return state.Principal{Flavor: a.Flavor}
	}
	return state.Principal{Flavor: a.Flavor, UID: a.UID}
}

// opDestroySession is DESTROY_SESSION (RFC 8881 section 18.37). In a compound of the session that it destroys it must come last.
func opDestroySession(c *compound) status {
	if c.inSession && c.a.session == c.seq.session && c.d.Remaining() != 0 {
		return errNotOnlyOp
	}
	return c.p.tables.DestroySession(&c.kv, c.a.session)
}

// Directions of BIND_CONN_TO_SESSION (RFC 8881 section 18.34.1).
const (
	bindFore       = 1
	bindBack       = 2
	bindForeOrBoth = 3
	bindBackOrBoth = 7
)

// opBindConn is BIND_CONN_TO_SESSION (RFC 8881 section 18.34). The binding itself is the leader's front's business: connections are no part of the replicated
// state. Every connection may carry both channels.
func opBindConn(c *compound) status {
	if _, st := c.p.tables.Session(c.a.session); st != statusOK {
		return st
	}
	const both = 3 // CDFS4_BOTH
	granted := uint32(both)
	if c.a.count == bindFore || c.a.count == bindBack {
		granted = c.a.count
	}
	c.e.Fixed(c.a.session[:])
	c.e.Uint32(granted)
	c.e.Bool(false) // RDMA mode
	return statusOK
}

// opBackchannelCtl is BACKCHANNEL_CTL (RFC 8881 section 18.33).
func opBackchannelCtl(c *compound) status {
	sec := &c.a.create.sec
	if sec.offered && !sec.usable {
		return errInval
	}
	return c.p.tables.BackChannel(&c.kv, c.seq.session, c.a.create.cbProgram, sec.encode(c.minor))
}
