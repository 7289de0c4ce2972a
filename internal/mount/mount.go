// Package mount is the MOUNT protocol, version 3 (RFC 1813 appendix I): how an NFSv3 client turns the path of an export into a file
// handle. The server keeps no table of mounts, as it would be wrong after the first client that crashes; nothing here ever changes
// anything.
package mount

import (
	"errors"
	"path"
	"strings"

	"holdfast/internal/rpc"
	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

// Version is the version of the MOUNT program that this package speaks.
const Version = 3

// Procedure numbers (RFC 1813 section 5.2).
const (
	procNull    = 0
	procMnt     = 1
	procDump    = 2
	procUmnt    = 3
	procUmntAll = 4
	procExport  = 5
)

// maxPathBytes is MNTPATHLEN (RFC 1813 section 5.1.4).
const maxPathBytes = 1024

// status is mountstat3 (RFC 1813 section 5.1.5).
type status uint32

// The values of mountstat3 that this server returns.
const (
	stOK          status = 0
	stNoEnt       status = 2
	stIO          status = 5
	stAccess      status = 13
	stNotDir      status = 20
	stInval       status = 22
	stNameTooLong status = 63
	stServerFault status = 10006
)

// Program executes MOUNT calls against one volume. It implements volume.Program.
type Program struct {
	volumeID uint32
}

var _ volume.Program = (*Program)(nil)

// New returns the MOUNT program of the volume with the given id (volume.Config.ID).
func New(volumeID uint32) *Program { return &Program{volumeID: volumeID} }

// Number implements volume.Program.
func (p *Program) Number() (prog, vers uint32) { return rpc.ProgMount, Version }

// Mutates implements volume.Program: no procedure changes anything.
func (p *Program) Mutates(*volume.Request) bool { return false }

// Command implements volume.Program.
func (p *Program) Command(*volume.Tx, []byte) error {
	return errors.New("mount: the program has no commands of its own")
}

// Load implements volume.Program.
func (p *Program) Load(*volume.Tx) error { return nil }

// InUse implements volume.Program.
func (p *Program) InUse(volume.Ino) bool { return false }

// Execute implements volume.Program.
func (p *Program) Execute(tx *volume.Tx, req *volume.Request, reply *xdr.Encoder) rpc.AcceptStat {
	d := xdr.NewDecoder(req.Call.Args)
	switch req.Call.Proc {
	case procNull, procUmntAll:
	case procMnt:
		dir := d.String(maxPathBytes)
		if d.Err() == nil {
			p.mnt(tx, req, dir, reply)
		}
	case procDump:
		reply.Bool(false) // the list of mounts ends here
	case procUmnt:
		d.Opaque(maxPathBytes)
	case procExport:
		exports(tx, reply)
	default:
		return rpc.ProcUnavail
	}
	if d.Err() != nil {
		return rpc.GarbageArgs
	}
	return rpc.Success
}

// mnt is MOUNTPROC3_MNT (RFC 1813 section 5.2.1).
func (p *Program) mnt(tx *volume.Tx, req *volume.Request, dir string, reply *xdr.Encoder) {
	h, st := p.resolve(tx, req, dir)
	reply.Uint32(uint32(st))
	if st != stOK {
		return
	}
	b := volume.EncodeHandle(h)
	reply.Opaque(b[:])
	reply.Uint32(1) // one flavour
	reply.Uint32(rpc.AuthSys)
}

// resolve finds the folder that dir names: the root of an export that the client has a rule for, or a folder below it.
func (p *Program) resolve(tx *volume.Tx, req *volume.Request, dir string) (volume.Handle, status) {
	if !path.IsAbs(dir) || strings.IndexByte(dir, 0) >= 0 {
		return volume.Handle{}, stInval
	}
	export, below, ok := find(tx.Exports(), path.Clean(dir))
	if !ok {
		return volume.Handle{}, stNoEnt
	}
	if _, ok := req.Rule(export.ID); !ok {
		return volume.Handle{}, stAccess
	}
	n, st := walk(tx, export.Root, below)
	if st != stOK {
		return volume.Handle{}, st
	}
	return volume.Handle{Volume: p.volumeID, Export: export.ID, Ino: n.Ino, Gen: n.Gen}, stOK
}

// find returns the export that dir lies in and the path from its root to dir. Of exports within exports the innermost counts.
func find(exports []volume.Export, dir string) (best volume.Export, below string, ok bool) {
	for _, e := range exports {
		rest, inside := strings.CutPrefix(dir, strings.TrimSuffix(e.Path, "/"))
		if !inside || rest != "" && rest[0] != '/' {
			continue
		}
		if !ok || len(e.Path) > len(best.Path) {
			best, below, ok = e, strings.TrimPrefix(rest, "/"), true
		}
	}
	return best, below, ok
}

// walk follows a relative path of folders; symbolic links are not followed. It runs as root whoever mounts, as the mount daemons of
// kernel servers do: what is inside the folder is protected by its own permissions.
func walk(tx *volume.Tx, root volume.Ino, below string) (*volume.Inode, status) {
	n, errno := tx.Inode(root, 0)
	if errno != volume.OK {
		return nil, statusOf(errno)
	}
	for below != "" {
		var name string
		name, below, _ = strings.Cut(below, "/")
		if n, errno = tx.Lookup(&volume.Cred{}, n, name); errno != volume.OK {
			return nil, statusOf(errno)
		}
		if n.Type != volume.TypeDir {
			return nil, stNotDir
		}
	}
	return n, stOK
}

// statusOf returns the mountstat3 for an outcome of the volume.
func statusOf(e volume.Errno) status {
	switch e {
	case volume.OK:
		return stOK
	case volume.ErrNoEnt, volume.ErrStale:
		return stNoEnt
	case volume.ErrIO:
		return stIO
	case volume.ErrAccess, volume.ErrPerm:
		return stAccess
	case volume.ErrNotDir, volume.ErrSymlink:
		return stNotDir
	case volume.ErrInval:
		return stInval
	case volume.ErrNameTooLong:
		return stNameTooLong
	}
	return stServerFault
}

// exports is MOUNTPROC3_EXPORT (RFC 1813 section 5.2.5). Groups are left empty: who may mount is the leader's to decide per request.
func exports(tx *volume.Tx, reply *xdr.Encoder) {
	for _, e := range tx.Exports() {
		reply.Bool(true)
		reply.String(e.Path)
		reply.Bool(false) // no groups
	}
	reply.Bool(false)
}
