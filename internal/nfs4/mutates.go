package nfs4

import (
	"sync"

	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

// walker decodes compounds without executing them.
type walker struct {
	d xdr.Decoder
	a args
}

var walkerPool = sync.Pool{New: func() any { return new(walker) }}

func (w *walker) release() {
	ids := w.a.stateids[:0]
	*w = walker{}
	w.a.stateids = ids
	walkerPool.Put(w)
}

// walk calls fn for each operation that Execute would come to if none failed for what the volume's state is; it ends early when fn returns false or
// where Execute must fail: at an operation that is out of place, malformed, illegal or never supported. fn runs after the arguments are decoded.
func (w *walker) walk(req *volume.Request, fn func(op uint32, info *opInfo, a *args) bool) {
	if req.Call.Proc != procCompound {
		return
	}
	w.d.Reset(req.Call.Args)
	h, ok := decodeHeader(&w.d)
	if !ok || !servedMinor(h.minor) {
		return
	}
	for i := range h.ops {
		op := w.d.Uint32()
		info := opOf(op, h.minor)
		if w.d.Err() != nil || info.flags&opRefused != 0 || place(info, op, i, h.ops) != statusOK {
			return
		}
		info.decode(&w.a, &w.d)
		if w.d.Err() != nil || !fn(op, info, &w.a) {
			return
		}
	}
}

// Mutates reports whether the compound holds an operation that may change something and that Execute may come to. It decodes with the functions that
// Execute uses, so a compound that it calls harmless cannot reach a mutating operation; Execute fails if it ever did.
func (p *Program) Mutates(req *volume.Request) bool {
	w := walkerPool.Get().(*walker)
	defer w.release()
	mutates := false
	w.walk(req, func(_ uint32, info *opInfo, _ *args) bool {
		mutates = info.flags&opMutates != 0
		return !mutates
	})
	return mutates
}

// Warm looks up what the compound will touch: the inodes of its filehandles, and the names below them (volume.Warmer).
func (p *Program) Warm(tx *volume.Tx, req *volume.Request) {
	w := walkerPool.Get().(*walker)
	defer w.release()
	var cur, saved *volume.Inode
	w.walk(req, func(op uint32, _ *opInfo, a *args) bool {
		switch op {
		case opnumPutFH:
			cur = warmHandle(tx, a.fh)
		case opnumSaveFH:
			saved = cur
		case opnumRestoreFH:
			cur = saved
		case opnumLookup:
			cur = warmName(tx, cur, a.name)
		case opnumOpen:
			cur = warmOpen(tx, cur, &a.open)
		case opnumCreate, opnumRemove, opnumLink:
			warmName(tx, cur, a.name)
		case opnumRename:
			warmName(tx, saved, a.name)
			warmName(tx, cur, a.newName)
		}
		return true
	})
}

func warmHandle(tx *volume.Tx, b []byte) *volume.Inode {
	h, errno := volume.DecodeHandle(b)
	if errno != volume.OK || h.Export == 0 {
		return nil
	}
	n, _ := tx.Inode(h.Ino, h.Gen)
	return n
}

func warmName(tx *volume.Tx, dir *volume.Inode, name []byte) *volume.Inode {
	if dir == nil || dir.Type != volume.TypeDir || checkName(name) != statusOK {
		return nil
	}
	n, _ := tx.Lookup(nil, dir, string(name))
	return n
}

func warmOpen(tx *volume.Tx, cur *volume.Inode, o *openArgs) *volume.Inode {
	if o.claim == claimNull {
		return warmName(tx, cur, o.name)
	}
	return cur
}
