package nfs3

import (
	"errors"

	"holdfast/internal/volume"
)

// errBadUnion is the decoder's error for a discriminant that the protocol does not have.
var errBadUnion = errors.New("nfs3: union discriminant out of range")

// lookup is NFSPROC3_LOOKUP (RFC 1813 section 3.3.3).
func (c *call) lookup() bool {
	arg := c.dirOp()
	if c.d.Err() != nil {
		return false
	}
	var dir object
	st := c.resolveDir(arg.handle, &dir)
	if st == stOK {
		st = checkName(arg.name)
	}
	if st != stOK {
		return c.fail(st, &dir)
	}
	n, errno := c.find(&dir, arg.name)
	if errno != volume.OK {
		return c.fail(statusOf(errno), &dir)
	}
	c.e.Uint32(uint32(stOK))
	h := dir.handleOf(n)
	c.e.Opaque(h[:])
	c.postOp(&dir, n)
	c.postOp(&dir, dir.n)
	return true
}

// find looks up any name, "." and ".." among them. ".." of an export's root is the root itself: no client may leave an export upwards.
func (c *call) find(dir *object, name []byte) (*volume.Inode, volume.Errno) {
	switch string(name) {
	case ".":
		return dir.n, volume.OK
	case "..":
		if c.isExportRoot(dir) {
			return dir.n, volume.OK
		}
		return c.tx.Parent(&dir.cred, dir.n)
	}
	return c.tx.Lookup(&dir.cred, dir.n, string(name))
}

// readlink is NFSPROC3_READLINK (RFC 1813 section 3.3.5).
func (c *call) readlink() bool {
	handle := c.handle()
	if c.d.Err() != nil {
		return false
	}
	var o object
	st := c.resolve(handle, &o)
	if st == stOK && o.n.Type != volume.TypeSymlink {
		st = stInval
	}
	if st != stOK {
		return c.fail(st, &o)
	}
	c.e.Uint32(uint32(stOK))
	c.postOp(&o, o.n)
	c.e.String(o.n.Target)
	return true
}
