package nfs3

import (
	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

var _ volume.Warmer = (*Program)(nil)

// Warm implements volume.Warmer: it looks up the inodes and names that the call will touch.
func (p *Program) Warm(tx *volume.Tx, req *volume.Request) {
	d := xdr.NewDecoder(req.Call.Args)
	switch req.Call.Proc {
	case procSetAttr, procWrite:
		p.warmHandle(tx, d)
	case procCreate, procMkdir, procSymlink, procMknod, procRemove, procRmdir:
		p.warmName(tx, d)
	case procRename:
		p.warmName(tx, d)
		p.warmName(tx, d)
	case procLink:
		p.warmHandle(tx, d)
		p.warmName(tx, d)
	}
}

func (p *Program) warmHandle(tx *volume.Tx, d *xdr.Decoder) *volume.Inode {
	h, errno := volume.DecodeHandle(d.Opaque(maxHandleBytes))
	if errno != volume.OK || h.Volume != p.volumeID {
		return nil
	}
	n, errno := tx.Inode(h.Ino, h.Gen)
	if errno != volume.OK {
		return nil
	}
	return n
}

func (p *Program) warmName(tx *volume.Tx, d *xdr.Decoder) {
	dir := p.warmHandle(tx, d)
	name := d.Opaque(volume.MaxNameBytes)
	if dir != nil && d.Err() == nil && dir.Type == volume.TypeDir {
		tx.Lookup(nil, dir, string(name)) // for the sake of what it caches
	}
}
