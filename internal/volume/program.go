package volume

import (
	"errors"

	"holdfast/internal/rpc"
	"holdfast/internal/xdr"
)

// Program is one RPC program and version whose calls the volume executes. A Program keeps its state in memory for speed and
// mirrors every change with Tx.Put and Tx.Del, so that Load finds it again; memory and Put must always agree.
type Program interface {
	// Number returns the RPC program and version.
	Number() (prog, vers uint32)
	// Mutates reports whether the call may change the volume and so must be logged. It sees only the request (no state) and may run concurrently.
	Mutates(req *Request) bool
	// Execute runs the call and appends the results (what follows the accepted-reply header) to reply. When it returns another status than
	// Success, what it appended is dropped; what it changed is not, so it decodes before it acts.
	Execute(tx *Tx, req *Request, reply *xdr.Encoder) rpc.AcceptStat
	// Command runs a logged command of the program's own (payload from its leader side), such as the expiry of a client. An error stops the
	// replica: a command that merely came too late must be ignored instead.
	Command(tx *Tx, payload []byte) error
	// Load rebuilds the program's memory from the volume's metadata, dropping what it had; called before any Execute, and again after Install.
	Load(tx *Tx) error
	// InUse reports whether the program holds ino open, so that its content must outlive its last name.
	InUse(ino Ino) bool
}

// Warmer is a Program that can tell what a call will touch. Warm looks it up in tx, a read-only Tx, so that Apply finds it in memory; it runs
// concurrently with everything but Apply and must not change anything.
type Warmer interface {
	Warm(tx *Tx, req *Request)
}

// execute appends the whole reply record of req to reply.
func (v *Volume) execute(tx *Tx, req *Request, reply *xdr.Encoder) {
	at := reply.Len()
	low, high, known := uint32(0), uint32(0), false
	for i := range v.programs {
		p := &v.programs[i]
		if p.prog != req.Call.Prog {
			continue
		}
		if p.vers == req.Call.Vers {
			rpc.AppendAccepted(reply, req.Call.XID, rpc.Success)
			if stat := p.Execute(tx, req, reply); stat != rpc.Success {
				reply.Truncate(at)
				rpc.AppendAccepted(reply, req.Call.XID, stat)
			}
			return
		}
		if !known || p.vers < low {
			low = p.vers
		}
		high, known = max(high, p.vers), true
	}
	if !known {
		rpc.AppendAccepted(reply, req.Call.XID, rpc.ProgUnavail)
		return
	}
	rpc.AppendAccepted(reply, req.Call.XID, rpc.ProgMismatch)
	reply.Uint32(low)
	reply.Uint32(high)
}

// refuse appends the reply to a record that could not be parsed as a call, if there is one.
func refuse(record []byte, err error, reply *xdr.Encoder) {
	var reject *rpc.RejectError
	switch {
	case errors.As(err, &reject):
		rpc.AppendRejected(reply, reject)
	case errors.Is(err, rpc.ErrNotCall) || len(record) < 8:
	default:
		rpc.AppendAccepted(reply, xdr.NewDecoder(record).Uint32(), rpc.GarbageArgs)
	}
}

// numbered is a Program with its numbers at hand.
type numbered struct {
	Program
	prog, vers uint32
}
