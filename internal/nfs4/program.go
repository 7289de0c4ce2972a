package nfs4

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"

	"holdfast/internal/nfs4/state"
	"holdfast/internal/rpc"
	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

// The numbers of the program and its procedures (RFC 8881 section 16).
const (
	progNFS      = rpc.ProgNFS
	versNFS      = 4
	procNull     = 0
	procCompound = 1
)

// stateKey is this program's number for Tx.Put and Tx.Del.
const stateKey byte = 4

// DefaultLease is the lease time that clients are told: short enough that the locks of a client that died come free soon, long enough that a client survives
// any failover with time to spare.
const DefaultLease = 60 * time.Second

// Config is what a Program needs to know of its volume. All of it must be the same on every replica and never change while clients are there.
type Config struct {
	// Volume and Name, the volume's, identify the server to clients (server owner and scope): what has both in common is one server.
	Volume uint32
	Name   string
	// Lease is the lease_time attribute; zero means DefaultLease.
	Lease time.Duration
	// Limits bound the protocol state; the zero value means state.DefaultLimits.
	Limits state.Limits
}

// Program is NFS version 4, a volume.Program.
type Program struct {
	cfg    Config
	owner  string // server owner and scope
	tables *state.Tables
	// onNotify receives lock waiters that may be granted; set while this replica leads.
	onNotify atomic.Pointer[func([]state.Waiter)]
}

// New returns the program with empty protocol state; Load fills it.
func New(cfg Config) *Program {
	if cfg.Lease == 0 {
		cfg.Lease = DefaultLease
	}
	if cfg.Limits == (state.Limits{}) {
		cfg.Limits = state.DefaultLimits
	}
	p := &Program{cfg: cfg, tables: state.NewTables(cfg.Limits)}
	p.owner = p.serverOwner()
	return p
}

// Number returns program 100003, version 4.
func (p *Program) Number() (prog, vers uint32) { return progNFS, versNFS }

// Execute runs NULL or COMPOUND.
func (p *Program) Execute(tx *volume.Tx, req *volume.Request, reply *xdr.Encoder) rpc.AcceptStat {
	switch req.Call.Proc {
	case procNull:
		return rpc.Success
	case procCompound:
	default:
		return rpc.ProcUnavail
	}
	c := newCompound(p, tx, req, reply)
	defer c.release()
	if tx.ReadOnly() {
		return c.run()
	}
	p.tables.Tick(&c.kv, tx.Now(), graceLeases*int64(p.cfg.Lease))
	defer p.graceOver(tx)
	return c.run()
}

// Load rebuilds the protocol state.
func (p *Program) Load(tx *volume.Tx) error {
	p.tables = state.NewTables(p.cfg.Limits)
	err := p.tables.Load(func(fn func(key, value []byte) error) error { return tx.ScanState(stateKey, fn) })
	if err != nil {
		return fmt.Errorf("nfs4: load protocol state: %w", err)
	}
	return nil
}

// InUse reports whether any client has ino open, or may say so when it reclaims.
func (p *Program) InUse(ino volume.Ino) bool { return p.tables.InGrace() || p.tables.InUse(ino) }

// Restored implements volume.Restorable: all clients are told to start over, and those that had files open may reclaim what they had.
func (p *Program) Restored(tx *volume.Tx, random uint64) {
	dropped := p.tables.Restored(&txKV{tx}, random)
	for _, ino := range dropped.Closed {
		tx.ReleaseOrphan(ino)
	}
}

// graceLeases is how long a grace period lasts, in leases: clients find out within one that the server has lost their state.
const graceLeases = 2

// graceOver lets go, if a grace period has just ended, of the files without a name that nobody has reclaimed.
func (p *Program) graceOver(tx *volume.Tx) {
	if !p.tables.TakeGraceEnded() {
		return
	}
	for _, ino := range tx.Orphans() {
		tx.ReleaseOrphan(ino)
	}
}

// Kinds of Command; part of the log's format.
const (
	commandExpire   = 1 // u64 client id: its lease ran out
	commandEndGrace = 3
)

func expireCommand(id state.ClientID) []byte {
	return binary.BigEndian.AppendUint64([]byte{commandExpire}, uint64(id))
}

// EndGraceCommand is the Command payload that ends the grace period of a restored volume before its time.
func EndGraceCommand() []byte { return []byte{commandEndGrace} }

// Command executes what Front.Expired or EndGraceCommand made. A client that is gone already is no error.
func (p *Program) Command(tx *volume.Tx, payload []byte) error {
	kv := &txKV{tx}
	d := xdr.NewDecoder(payload)
	kind := byte(0)
	if len(payload) > 0 {
		kind = payload[0]
		d.Reset(payload[1:])
	}
	var dropped state.Dropped
	switch kind {
	case commandExpire:
		id := state.ClientID(d.Uint64())
		if d.Err() == nil {
			dropped, _ = p.tables.ExpireClient(kv, id)
		}
	case commandEndGrace:
		p.tables.EndGrace(kv)
	default:
		return fmt.Errorf("nfs4: command of unknown kind %d", kind)
	}
	if d.Err() != nil {
		return fmt.Errorf("nfs4: command of kind %d: %w", kind, d.Err())
	}
	for _, ino := range dropped.Closed {
		tx.ReleaseOrphan(ino)
	}
	p.graceOver(tx)
	p.notifyWaiters(dropped.Notify)
	return nil
}

func (p *Program) notifyWaiters(w []state.Waiter) {
	if fn := p.onNotify.Load(); fn != nil && len(w) > 0 {
		(*fn)(w)
	}
}
