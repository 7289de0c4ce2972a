package nfs3

import (
	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

// maxHandleBytes is NFS3_FHSIZE (RFC 1813 section 2.4).
const maxHandleBytes = 64

// call is one procedure call in execution.
type call struct {
	p   *Program
	tx  *volume.Tx
	req *volume.Request
	d   xdr.Decoder
	e   *xdr.Encoder
}

// object is what a file handle in the arguments stands for, and whom the call runs as there.
type object struct {
	h    volume.Handle
	rule volume.Rule
	cred volume.Cred
	n    *volume.Inode // nil if the handle could not be resolved
}

// null is NFSPROC3_NULL (RFC 1813 section 3.3.0).
func (c *call) null() bool { return true }

// handle reads an nfs_fh3. The bytes alias the request.
func (c *call) handle() []byte { return c.d.Opaque(maxHandleBytes) }

// dirOp is diropargs3 (RFC 1813 section 2.6).
type dirOp struct {
	handle []byte
	name   []byte
}

func (c *call) dirOp() dirOp { return dirOp{handle: c.handle(), name: c.text()} }

// text reads a filename3 or nfspath3. Neither has a limit in the protocol: one that is too long for us is answered with a
// status, not taken for garbage. The record bounds it.
func (c *call) text() []byte { return c.d.Opaque(^uint32(0)) }

// resolve finds the object for a handle, for a procedure that changes nothing.
func (c *call) resolve(handle []byte, o *object) status {
	h, errno := volume.DecodeHandle(handle)
	if errno != volume.OK {
		return statusOf(errno)
	}
	if h.Volume != c.p.volumeID {
		return stStale
	}
	rule, ok := c.req.Rule(h.Export)
	if !ok {
		return c.refuse(h.Export)
	}
	n, errno := c.tx.Inode(h.Ino, h.Gen)
	if errno != volume.OK {
		return statusOf(errno)
	}
	*o = object{h: h, rule: rule, cred: c.req.Cred(rule), n: n}
	return stOK
}

// resolveForChange is resolve for a procedure that changes something. When the export is read-only, o is filled all the same, for the
// attributes in the reply.
func (c *call) resolveForChange(handle []byte, o *object) status {
	if st := c.resolve(handle, o); st != stOK {
		return st
	}
	switch {
	case o.rule.ReadOnly:
		return stROFS
	case c.tx.ReadOnly():
		return stServerFault // Mutates and Execute disagree: change nothing
	}
	return stOK
}

// resolveDir is resolve for a directory.
func (c *call) resolveDir(handle []byte, o *object) status {
	return wantDir(c.resolve(handle, o), o)
}

// resolveDirForChange is resolveForChange for a directory.
func (c *call) resolveDirForChange(handle []byte, o *object) status {
	return wantDir(c.resolveForChange(handle, o), o)
}

func wantDir(st status, o *object) status {
	if st == stOK && o.n.Type != volume.TypeDir {
		return stNotDir
	}
	return st
}

// refuse tells a client without a rule for an export that it has no access, or that the export is gone.
func (c *call) refuse(export uint32) status {
	for _, e := range c.tx.Exports() {
		if e.ID == export {
			return stAccess
		}
	}
	return stStale
}

// isExportRoot reports whether o is the root of the export that its handle belongs to.
func (c *call) isExportRoot(o *object) bool {
	for _, e := range c.tx.Exports() {
		if e.ID == o.h.Export {
			return e.Root == o.n.Ino
		}
	}
	return false
}

// handleOf returns the file handle of n within the export that o belongs to.
func (o *object) handleOf(n *volume.Inode) [volume.HandleBytes]byte {
	return volume.EncodeHandle(volume.Handle{Volume: o.h.Volume, Export: o.h.Export, Ino: n.Ino, Gen: n.Gen})
}

// latest returns the inode as it is now, or nil if it is gone.
func (c *call) latest(n *volume.Inode) *volume.Inode {
	if now, errno := c.tx.Inode(n.Ino, n.Gen); errno == volume.OK {
		return now
	}
	return nil
}

// checkName refuses names that no directory entry can have. Any other bytes are a name.
func checkName(name []byte) status {
	if len(name) > volume.MaxNameBytes {
		return stNameTooLong
	}
	if len(name) == 0 {
		return stInval
	}
	for _, b := range name {
		if b == '/' || b == 0 {
			return stInval
		}
	}
	return stOK
}

// isDots reports whether name is "." or "..", which only LOOKUP takes.
func isDots(name []byte) bool {
	return string(name) == "." || string(name) == ".."
}

// checkNewName is checkName for a name that shall be made.
func checkNewName(name []byte) status {
	if isDots(name) {
		return stExist
	}
	return checkName(name)
}
