package portmap

import (
	"errors"
	"fmt"
	"net/netip"

	"holdfast/internal/rpc"
	"holdfast/internal/xdr"
)

// Versions of the protocol (RFC 1833): 2 knows IPv4 only.
const (
	versPortmap  = 2
	versRPCBind3 = 3
	versRPCBind4 = 4
)

// Procedures (RFC 1833 sections 2.2.1 and 3.1).
const (
	procNull        = 0
	procSet         = 1
	procUnset       = 2
	procGet         = 3 // GETPORT or GETADDR
	procDump        = 4
	procCallit      = 5 // BCAST in version 4
	procGetVersAddr = 9 // version 4 only, as the following
	procIndirect    = 10
	procGetAddrList = 11
)

// IP protocols, as version 2 names transports.
const (
	protoTCP = 6
	protoUDP = 17
)

// Semantics of a transport in an answer of GETADDRLIST (nc_semantics of netconfig.h).
const (
	semanticsDatagram = 1
	semanticsStream   = 3
)

const (
	maxString = 255 // of the strings of a question; RFC 1833 sets no limit
	owner     = "holdfast"
)

// entry is a program at a port, as the answers have it.
type entry struct {
	prog, vers uint32
	proto      uint32
	port       uint16
}

// netID is the name of a transport in versions 3 and 4 (RFC 5665 section 5.1).
func netID(proto uint32, ip netip.Addr) string {
	name := "tcp"
	if proto == protoUDP {
		name = "udp"
	}
	if ip.Is6() {
		name += "6"
	}
	return name
}

// universal is the universal address (RFC 5665 section 5.2.3) of a port.
func universal(ip netip.Addr, port uint16) string {
	return fmt.Sprintf("%s.%d.%d", ip, port>>8, port&0xff)
}

// question is a call, and where it arrived.
type question struct {
	record  []byte
	local   netip.Addr // the address that was asked
	proto   uint32     // the transport that it was asked by
	entries []entry    // what there is at that address
}

// answer returns the reply to a call; nil if there is none. An error means that the record is no call that can be answered.
func answer(q *question) ([]byte, error) {
	var c rpc.Call
	e := xdr.NewEncoder(make([]byte, 0, 128))
	if err := rpc.ParseCall(q.record, &c); err != nil {
		var reject *rpc.RejectError
		if !errors.As(err, &reject) {
			return nil, err
		}
		rpc.AppendRejected(e, reject)
		return e.Bytes(), nil
	}
	low := uint32(versPortmap)
	if q.local.Is6() {
		low = versRPCBind3
	}
	switch {
	case c.Prog != rpc.ProgPortmap:
		rpc.AppendAccepted(e, c.XID, rpc.ProgUnavail)
	case c.Vers < low || c.Vers > versRPCBind4:
		rpc.AppendAccepted(e, c.XID, rpc.ProgMismatch)
		e.Uint32(low)
		e.Uint32(versRPCBind4)
	case q.proto == protoUDP && (c.Proc == procCallit || c.Vers == versRPCBind4 && c.Proc == procIndirect):
		return nil, nil // an error of these gets no reply (RFC 1833 section 2.2.1)
	default:
		rpc.AppendAccepted(e, c.XID, rpc.Success)
		header := e.Len()
		stat := rpc.Success
		if c.Vers == versPortmap {
			stat = portmapper(e, q, &c)
		} else {
			stat = rpcbind(e, q, &c)
		}
		if q.proto == protoUDP && e.Len() > maxAmplification*len(q.record) {
			stat = rpc.SystemErr
		}
		if stat != rpc.Success {
			e.Truncate(header)
			e.PutUint32(header-4, uint32(stat))
		}
	}
	return e.Bytes(), nil
}

// portmapper executes a call of version 2.
func portmapper(e *xdr.Encoder, q *question, c *rpc.Call) rpc.AcceptStat {
	d := xdr.NewDecoder(c.Args)
	switch c.Proc {
	case procNull:
	case procSet, procUnset:
		e.Bool(false)
	case procGet:
		prog, vers, proto := d.Uint32(), d.Uint32(), d.Uint32()
		d.Uint32() // port, of no meaning here
		if d.Err() != nil {
			return rpc.GarbageArgs
		}
		found, _ := find(q.entries, prog, vers, proto)
		e.Uint32(uint32(found.port))
	case procDump:
		for _, x := range q.entries {
			e.Bool(true)
			e.Uint32(x.prog)
			e.Uint32(x.vers)
			e.Uint32(x.proto)
			e.Uint32(uint32(x.port))
		}
		e.Bool(false)
	default:
		return rpc.ProcUnavail
	}
	return rpc.Success
}

// rpcbind executes a call of version 3 or 4.
func rpcbind(e *xdr.Encoder, q *question, c *rpc.Call) rpc.AcceptStat {
	switch c.Proc {
	case procNull:
		return rpc.Success
	case procSet, procUnset:
		e.Bool(false)
		return rpc.Success
	case procDump:
		for _, x := range q.entries {
			e.Bool(true)
			appendRPCB(e, x.prog, x.vers, netID(x.proto, q.local), universal(q.local, x.port), owner)
		}
		e.Bool(false)
		return rpc.Success
	case procGet:
	case procGetVersAddr, procGetAddrList:
		if c.Vers != versRPCBind4 {
			return rpc.ProcUnavail
		}
	default:
		return rpc.ProcUnavail
	}
	d := xdr.NewDecoder(c.Args)
	prog, vers, transport := d.Uint32(), d.Uint32(), d.String(maxString)
	d.Opaque(maxString) // address
	d.Opaque(maxString) // owner
	if d.Err() != nil {
		return rpc.GarbageArgs
	}
	if c.Proc == procGetAddrList {
		addrList(e, q, prog, vers)
		return rpc.Success
	}
	found, exact := find(q.entries, prog, vers, transportOf(transport, q))
	if found.port == 0 || c.Proc == procGetVersAddr && !exact {
		e.String("")
		return rpc.Success
	}
	e.String(universal(q.local, found.port))
	return rpc.Success
}

// transportOf returns the transport that a question is about: that which it names or, as RFC 1833 section 2.2.1 has it, came by. It is 0 for
// one of another address family, at which there is nothing.
func transportOf(name string, q *question) uint32 {
	switch name {
	case netID(protoTCP, q.local):
		return protoTCP
	case netID(protoUDP, q.local):
		return protoUDP
	case "":
		return q.proto
	}
	return 0
}

// find returns the entry of a program, in another version if there is none in that one: its server will say which versions it has. The port of
// the result is 0 if there is none at all.
func find(entries []entry, prog, vers, proto uint32) (found entry, exact bool) {
	for _, x := range entries {
		if x.prog != prog || x.proto != proto {
			continue
		}
		if x.vers == vers {
			return x, true
		}
		found = x
	}
	return found, false
}

// addrList appends an rpcb_entry_list (RFC 1833 section 2.1).
func addrList(e *xdr.Encoder, q *question, prog, vers uint32) {
	for _, x := range q.entries {
		if x.prog != prog || x.vers != vers {
			continue
		}
		e.Bool(true)
		e.String(universal(q.local, x.port))
		e.String(netID(x.proto, q.local))
		if x.proto == protoUDP {
			e.Uint32(semanticsDatagram)
		} else {
			e.Uint32(semanticsStream)
		}
		if q.local.Is6() {
			e.String("inet6")
		} else {
			e.String("inet")
		}
		e.String(netID(x.proto, netip.IPv4Unspecified())) // the protocol's name has no 6
	}
	e.Bool(false)
}

// appendRPCB appends an rpcb, the argument of most procedures of versions 3 and 4 and an element of DUMP's answer.
func appendRPCB(e *xdr.Encoder, prog, vers uint32, netID, addr, owner string) {
	e.Uint32(prog)
	e.Uint32(vers)
	e.String(netID)
	e.String(addr)
	e.String(owner)
}
