package nfs4

import (
	"fmt"

	"holdfast/internal/nfs4/state"
)

// Flags of EXCHANGE_ID (RFC 8881 section 18.35.1).
const (
	exchangeSuppMovedRefer  = 0x00000001
	exchangeSuppMovedMigr   = 0x00000002
	exchangeSuppFenceOps    = 0x00000004 // RFC 7862
	exchangeBindPrinc       = 0x00000100
	exchangeUseNonPNFS      = 0x00010000
	exchangeUsePNFSMDS      = 0x00020000
	exchangeUsePNFSDS       = 0x00040000
	exchangeUpdateConfirmed = 0x40000000
	exchangeConfirmed       = 0x80000000

	exchangeArgFlags = exchangeSuppMovedRefer | exchangeSuppMovedMigr | exchangeSuppFenceOps | exchangeBindPrinc |
		exchangeUseNonPNFS | exchangeUsePNFSMDS | exchangeUsePNFSDS | exchangeUpdateConfirmed
)

// What EXCHANGE_ID says of the server (RFC 8881 section 2.10.4). All of it must be the same on every node and in every release, or clients would take a failover for another server.
const (
	implDomain = "holdfast.invalid"
	implName   = "Holdfast"
)

// serverOwner returns so_major_id and the scope: the volume's, as each volume is a server of its own.
func (p *Program) serverOwner() string {
	return fmt.Sprintf("holdfast/%s/%d", p.cfg.Name, p.cfg.Volume)
}

// opExchangeID is EXCHANGE_ID (RFC 8881 section 18.35).
func opExchangeID(c *compound) status {
	x := &c.a.exchange
	if x.flags&^uint32(exchangeArgFlags) != 0 {
		return errInval
	}
	switch x.protect {
	case protectMachCred: // needs RPCSEC_GSS, which rpc.ParseCall turns away
		return errInval
	case protectSSV:
		return errEncrAlgUnsupp
	}
	c.p.tables.Seed(&c.kv, c.req.Random)
	res, st := c.p.tables.ExchangeID(&c.kv, &state.ExchangeArgs{
		Owner:     x.owner,
		Verifier:  x.verifier,
		Principal: c.principal(),
		Update:    x.flags&exchangeUpdateConfirmed != 0,
		Addr:      c.req.Client.String(),
		Impl:      string(x.implementation),
	})
	if st != statusOK {
		return st
	}
	flags := uint32(exchangeUseNonPNFS)
	if res.Confirmed {
		flags |= exchangeConfirmed
	}
	e := c.e
	e.Uint64(uint64(res.Client))
	e.Uint32(res.Sequence)
	e.Uint32(flags)
	e.Uint32(protectNone)
	e.Uint64(0) // so_minor_id: all nodes are one server, so sessions trunk
	e.String(c.p.owner)
	e.String(c.p.owner) // eir_server_scope
	e.Uint32(1)
	e.String(implDomain)
	e.String(implName)
	e.Int64(0) // nii_date
	e.Uint32(0)
	return statusOK
}

// opDestroyClientID is DESTROY_CLIENTID (RFC 8881 section 18.50).
func opDestroyClientID(c *compound) status {
	id := state.ClientID(c.a.clientID)
	if c.inSession && id == c.client {
		return errClientIDBusy
	}
	return c.p.tables.DestroyClientID(&c.kv, id)
}

// opReclaimComplete is RECLAIM_COMPLETE (RFC 8881 section 18.51). Nothing ever moves to another server, so the one-filesystem form has nothing to do.
func opReclaimComplete(c *compound) status {
	if c.a.flag {
		if !c.cur.set {
			return errNoFileHandle
		}
		return statusOK
	}
	return c.p.tables.ReclaimComplete(&c.kv, c.client)
}
