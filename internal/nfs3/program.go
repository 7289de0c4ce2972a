package nfs3

import (
	"errors"
	"sync"

	"holdfast/internal/rpc"
	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

// Version is the version of the NFS program that this package speaks.
const Version = 3

// Procedure numbers (RFC 1813 section 3).
const (
	procNull        = 0
	procGetAttr     = 1
	procSetAttr     = 2
	procLookup      = 3
	procAccess      = 4
	procReadlink    = 5
	procRead        = 6
	procWrite       = 7
	procCreate      = 8
	procMkdir       = 9
	procSymlink     = 10
	procMknod       = 11
	procRemove      = 12
	procRmdir       = 13
	procRename      = 14
	procLink        = 15
	procReaddir     = 16
	procReaddirplus = 17
	procFSStat      = 18
	procFSInfo      = 19
	procPathConf    = 20
	procCommit      = 21
)

// procedure is one row of the procedure table. run appends the results and reports whether the arguments were well-formed.
type procedure struct {
	run     func(c *call) bool
	mutates bool
}

var procedures = [...]procedure{
	procNull:        {run: (*call).null},
	procGetAttr:     {run: (*call).getAttr},
	procSetAttr:     {run: (*call).setAttr, mutates: true},
	procLookup:      {run: (*call).lookup},
	procAccess:      {run: (*call).access},
	procReadlink:    {run: (*call).readlink},
	procRead:        {run: (*call).read},
	procWrite:       {run: (*call).write, mutates: true},
	procCreate:      {run: (*call).create, mutates: true},
	procMkdir:       {run: (*call).mkdir, mutates: true},
	procSymlink:     {run: (*call).symlink, mutates: true},
	procMknod:       {run: (*call).mknod, mutates: true},
	procRemove:      {run: (*call).remove, mutates: true},
	procRmdir:       {run: (*call).rmdir, mutates: true},
	procRename:      {run: (*call).rename, mutates: true},
	procLink:        {run: (*call).link, mutates: true},
	procReaddir:     {run: (*call).readdir},
	procReaddirplus: {run: (*call).readdirplus},
	procFSStat:      {run: (*call).fsStat},
	procFSInfo:      {run: (*call).fsInfo},
	procPathConf:    {run: (*call).pathConf},
	procCommit:      {run: (*call).commit},
}

// Program executes NFSv3 calls against one volume. It implements volume.Program.
type Program struct {
	volumeID uint32
	drc      replyCache
}

var _ volume.Program = (*Program)(nil)

// New returns the NFSv3 program of the volume with the given id (volume.Config.ID).
func New(volumeID uint32) *Program {
	p := &Program{volumeID: volumeID}
	p.drc.reset()
	return p
}

// Number implements volume.Program.
func (p *Program) Number() (prog, vers uint32) { return rpc.ProgNFS, Version }

// Mutates implements volume.Program. A mutating procedure that the request's rules refuse already (no access, read-only, a
// handle that nobody gave out) need not be logged: its answer is an error whatever the state is.
func (p *Program) Mutates(req *volume.Request) bool {
	if int(req.Call.Proc) >= len(procedures) || !procedures[req.Call.Proc].mutates {
		return false
	}
	d := xdr.NewDecoder(req.Call.Args)
	h, errno := volume.DecodeHandle(d.Opaque(maxHandleBytes))
	if errno != volume.OK || h.Volume != p.volumeID {
		return false
	}
	rule, ok := req.Rule(h.Export)
	return ok && !rule.ReadOnly
}

// Execute implements volume.Program.
func (p *Program) Execute(tx *volume.Tx, req *volume.Request, reply *xdr.Encoder) rpc.AcceptStat {
	if int(req.Call.Proc) >= len(procedures) {
		return rpc.ProcUnavail
	}
	proc := &procedures[req.Call.Proc]
	if !proc.mutates || tx.ReadOnly() {
		return p.run(proc, tx, req, reply)
	}
	key := keyOf(req)
	if recorded, ok := p.drc.get(&key); ok {
		reply.Raw(recorded)
		return rpc.Success
	}
	base := reply.Len()
	stat := p.run(proc, tx, req, reply)
	if stat == rpc.Success && worthRecording(reply.Bytes()[base:]) {
		p.drc.add(tx, &key, reply.Bytes()[base:])
	}
	return stat
}

// calls holds *call values for reuse: they escape through the procedure table, and a call should not cost an allocation for it.
var calls = sync.Pool{New: func() any { return new(call) }}

func (p *Program) run(proc *procedure, tx *volume.Tx, req *volume.Request, reply *xdr.Encoder) rpc.AcceptStat {
	c := calls.Get().(*call)
	c.p, c.tx, c.req, c.e = p, tx, req, reply
	c.d.Reset(req.Call.Args)
	ok := proc.run(c)
	*c = call{}
	calls.Put(c)
	if !ok {
		return rpc.GarbageArgs
	}
	return rpc.Success
}

// errNoCommand is returned by Command: the program logs nothing but calls.
var errNoCommand = errors.New("nfs3: the program has no commands of its own")

// Command implements volume.Program.
func (p *Program) Command(*volume.Tx, []byte) error { return errNoCommand }

// Load implements volume.Program.
func (p *Program) Load(tx *volume.Tx) error { return p.drc.load(tx) }

// Restored implements volume.Restorable: what a client sends again now may have been undone since.
func (p *Program) Restored(tx *volume.Tx, _ uint64) { p.drc.drop(tx) }

// InUse implements volume.Program. Version 3 has no open files.
func (p *Program) InUse(volume.Ino) bool { return false }
