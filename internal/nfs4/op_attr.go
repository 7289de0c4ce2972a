package nfs4

import (
	"bytes"

	"holdfast/internal/nfs4/state"
	"holdfast/internal/volume"
)

// ACCESS4_* bits (RFC 8881 section 18.1.1).
const (
	accessRead    = 0x01
	accessLookup  = 0x02
	accessModify  = 0x04
	accessExtend  = 0x08
	accessDelete  = 0x10
	accessExecute = 0x20

	accessDirBits   = accessRead | accessLookup | accessModify | accessExtend | accessDelete
	accessFileBits  = accessRead | accessModify | accessExtend | accessExecute
	accessWriteBits = accessModify | accessExtend | accessDelete
)

// opAccess is ACCESS (RFC 8881 section 18.1).
func opAccess(c *compound) status {
	if !c.cur.set {
		return errNoFileHandle
	}
	want := c.a.count
	if c.cur.pseudo() {
		c.e.Uint32(want & accessDirBits)
		c.e.Uint32(want & (accessRead | accessLookup))
		return statusOK
	}
	n, st := c.node(&c.cur)
	if st != statusOK {
		return st
	}
	want &= accessFileBits
	if n.Type == volume.TypeDir {
		want = c.a.count & accessDirBits
	}
	granted := c.tx.Access(c.cred(c.cur.rule), n, want) & want
	if c.cur.rule.ReadOnly {
		granted &^= accessWriteBits
	}
	c.e.Uint32(want)
	c.e.Uint32(granted)
	return statusOK
}

// opGetattr is GETATTR (RFC 8881 section 18.7).
func opGetattr(c *compound) status {
	want := c.a.bits
	if !want.and(attrsWriteOnly).empty() {
		return volume.ErrInval
	}
	o, st := c.object(&c.cur, want)
	if st != statusOK {
		return st
	}
	c.encodeFattr(c.e, want, &o)
	return statusOK
}

// opSetattr is SETATTR (RFC 8881 section 18.30). The result always carries the attributes that were set: all of them or none.
func opSetattr(c *compound) status {
	if !c.cur.set {
		return errNoFileHandle
	}
	if c.cur.pseudo() || c.cur.rule.ReadOnly {
		return volume.ErrROFS
	}
	n, st := c.node(&c.cur)
	if st != statusOK {
		return st
	}
	if st := c.set.decode(c.a.attrs, c.minor, attrsSettable); st != statusOK {
		return st
	}
	canWrite := false
	if c.set.mask.has(attrSize) {
		if n.Type == volume.TypeDir {
			return volume.ErrIsDir
		}
		if n.Type != volume.TypeFile {
			return volume.ErrInval
		}
		if canWrite, st = c.checkWriteStateid(n); st != statusOK {
			return st
		}
	}
	if _, st := c.tx.SetAttr(c.cred(c.cur.rule), n, c.set.into(n.Mode), canWrite); st != statusOK {
		return st
	}
	c.set.mask.encode(c.e)
	return statusOK
}

// checkWriteStateid validates the stateid of a SETATTR of the size and reports whether it proves write access; if not, permission bits decide.
func (c *compound) checkWriteStateid(n *volume.Inode) (bool, status) {
	sid, st := c.stateidArg()
	if st != statusOK {
		return false, st
	}
	if st := c.checkIO(n, sid, state.AccessWrite); st != statusOK {
		return false, st
	}
	return !sid.Special(), statusOK
}

// opVerify is VERIFY (RFC 8881 section 18.31).
func opVerify(c *compound) status {
	same, st := c.sameAttrs()
	if st == statusOK && !same {
		return errNotSame
	}
	return st
}

// opNverify is NVERIFY (RFC 8881 section 18.15).
func opNverify(c *compound) status {
	same, st := c.sameAttrs()
	if st == statusOK && same {
		return errSame
	}
	return st
}

// sameAttrs compares the given attributes with the object's by their encoding, which is unique.
func (c *compound) sameAttrs() (bool, status) {
	mask := c.a.attrs.mask
	if !mask.without(supported(c.minor)).empty() {
		return false, errAttrNotSupp
	}
	if !mask.and(attrsWriteOnly.or(bitmapOf(attrRdattrError))).empty() {
		return false, volume.ErrInval
	}
	o, st := c.object(&c.cur, mask)
	if st != statusOK {
		return false, st
	}
	at := c.e.Len()
	c.encodeAttrs(c.e, mask, &o)
	same := bytes.Equal(c.e.Bytes()[at:], c.a.attrs.vals)
	c.e.Truncate(at)
	return same, statusOK
}
