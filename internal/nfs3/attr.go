package nfs3

import (
	"encoding/binary"

	"holdfast/internal/volume"
)

// fattrBytes is the length of an encoded fattr3 (RFC 1813 section 2.6).
const fattrBytes = 84

// second is a second in the volume's unit of time.
const second = 1_000_000_000

// putTime encodes nanoseconds since the epoch as nfstime3. Seconds are unsigned there; times before 1970 and after 2106 wrap, as
// they do with every server.
func putTime(b []byte, ns int64) {
	sec, rest := ns/second, ns%second
	if rest < 0 {
		sec, rest = sec-1, rest+second
	}
	binary.BigEndian.PutUint32(b, uint32(sec))
	binary.BigEndian.PutUint32(b[4:], uint32(rest))
}

// fattr appends fattr3. The file system id names volume and export, so that clients keep two exports apart.
func (c *call) fattr(o *object, n *volume.Inode) {
	b := c.e.Extend(fattrBytes)
	binary.BigEndian.PutUint32(b[0:], uint32(n.Type))
	binary.BigEndian.PutUint32(b[4:], n.Mode)
	binary.BigEndian.PutUint32(b[8:], n.Nlink)
	binary.BigEndian.PutUint32(b[12:], n.UID)
	binary.BigEndian.PutUint32(b[16:], n.GID)
	binary.BigEndian.PutUint64(b[20:], n.Size)
	binary.BigEndian.PutUint64(b[28:], n.Used)
	binary.BigEndian.PutUint64(b[36:], n.Rdev)
	binary.BigEndian.PutUint32(b[44:], o.h.Volume)
	binary.BigEndian.PutUint32(b[48:], o.h.Export)
	binary.BigEndian.PutUint64(b[52:], uint64(n.Ino))
	putTime(b[60:], n.Atime)
	putTime(b[68:], n.Mtime)
	putTime(b[76:], n.Ctime)
}

// postOp appends post_op_attr: the attributes of n, or none if n is nil.
func (c *call) postOp(o *object, n *volume.Inode) {
	c.e.Bool(n != nil)
	if n != nil {
		c.fattr(o, n)
	}
}

// postHandle appends post_op_fh3 for an object that the call made.
func (c *call) postHandle(o *object, n *volume.Inode) {
	c.e.Bool(true)
	h := o.handleOf(n)
	c.e.Opaque(h[:])
}

// wcc appends wcc_data for o, whose inode is still the one from before the call. Calls are applied one after another, so before and
// after are exact, and a client may keep what it cached.
func (c *call) wcc(o *object) {
	if o.n == nil {
		c.e.Bool(false)
		c.e.Bool(false)
		return
	}
	c.wccAfter(o, c.latest(o.n))
}

// wccAfter is wcc for a caller that knows the inode after the call.
func (c *call) wccAfter(o *object, after *volume.Inode) {
	c.e.Bool(true)
	b := c.e.Extend(24)
	binary.BigEndian.PutUint64(b, o.n.Size)
	putTime(b[8:], o.n.Mtime)
	putTime(b[16:], o.n.Ctime)
	c.postOp(o, after)
}

// fail appends a status other than OK and the attributes that follow it in most procedures.
func (c *call) fail(st status, o *object) bool {
	c.e.Uint32(uint32(st))
	c.postOp(o, o.n)
	return true
}

// failWcc appends a status other than OK and wcc_data.
func (c *call) failWcc(st status, o *object) bool {
	c.e.Uint32(uint32(st))
	c.wcc(o)
	return true
}

// How a time shall be set (time_how, RFC 1813 section 2.6).
const (
	timeDontChange = 0
	timeServer     = 1
	timeClient     = 2
)

// sattr reads sattr3. It fails the decoder for values that the protocol does not have; st is NFS3ERR_INVAL for a time that is none.
func (c *call) sattr(a *volume.SetAttr) (st status) {
	if mode := c.optional32(); mode != nil {
		*mode &= 0o7777
		a.Mode = mode
	}
	a.UID = c.optional32()
	a.GID = c.optional32()
	if c.d.Bool() {
		size := c.d.Uint64()
		a.Size = &size
	}
	a.AtimeNow, a.Atime, st = c.setTime(st)
	a.MtimeNow, a.Mtime, st = c.setTime(st)
	return st
}

func (c *call) optional32() *uint32 {
	if !c.d.Bool() {
		return nil
	}
	v := c.d.Uint32()
	return &v
}

func (c *call) setTime(before status) (now bool, at *int64, st status) {
	switch c.d.Uint32() {
	case timeDontChange:
		return false, nil, before
	case timeServer:
		return true, nil, before
	case timeClient:
		sec, nsec := c.d.Uint32(), c.d.Uint32()
		if nsec >= second {
			return false, nil, stInval
		}
		ns := int64(sec)*second + int64(nsec)
		return false, &ns, before
	}
	c.d.Fail(errBadUnion)
	return false, nil, before
}

// getAttr is NFSPROC3_GETATTR (RFC 1813 section 3.3.1).
func (c *call) getAttr() bool {
	handle := c.handle()
	if c.d.Err() != nil {
		return false
	}
	var o object
	st := c.resolve(handle, &o)
	c.e.Uint32(uint32(st))
	if st == stOK {
		c.fattr(&o, o.n)
	}
	return true
}

// setAttr is NFSPROC3_SETATTR (RFC 1813 section 3.3.2).
func (c *call) setAttr() bool {
	var attr volume.SetAttr
	var guard [8]byte
	handle := c.handle()
	bad := c.sattr(&attr)
	guarded := c.d.Bool()
	if guarded {
		copy(guard[:], c.d.Fixed(8))
	}
	if c.d.Err() != nil {
		return false
	}
	var o object
	if st := c.resolveForChange(handle, &o); st != stOK {
		return c.failWcc(st, &o)
	}
	if bad != stOK {
		return c.failWcc(bad, &o)
	}
	if guarded {
		var ctime [8]byte
		putTime(ctime[:], o.n.Ctime)
		if ctime != guard {
			return c.failWcc(stNotSync, &o)
		}
	}
	after, errno := c.applyAttr(&o, o.n, attr)
	if errno != volume.OK {
		return c.failWcc(statusOf(errno), &o)
	}
	c.e.Uint32(uint32(stOK))
	c.wccAfter(&o, after)
	return true
}

// applyAttr sets attributes of n. The owner of a file may truncate it whatever its mode says: version 3 has no open that could have
// proved the permission earlier, as with WRITE.
func (c *call) applyAttr(o *object, n *volume.Inode, attr volume.SetAttr) (*volume.Inode, volume.Errno) {
	if attr.Size != nil {
		if n.Type != volume.TypeFile {
			return nil, volume.ErrInval
		}
		if errno := c.tx.MayOpen(&o.cred, n, false, true); errno != volume.OK {
			return nil, errno
		}
	}
	return c.tx.SetAttr(&o.cred, n, attr, attr.Size != nil)
}

// accessChanges are the bits of ACCESS that a read-only export never grants.
const accessChanges = volume.AccessModify | volume.AccessExtend | volume.AccessDelete

// accessAll are the bits of ACCESS that version 3 has (RFC 1813 section 3.3.4).
const accessAll = volume.AccessRead | volume.AccessLookup | accessChanges | volume.AccessExecute

// access is NFSPROC3_ACCESS (RFC 1813 section 3.3.4).
func (c *call) access() bool {
	handle, want := c.handle(), c.d.Uint32()
	if c.d.Err() != nil {
		return false
	}
	var o object
	if st := c.resolve(handle, &o); st != stOK {
		return c.fail(st, &o)
	}
	want &= accessAll
	if o.rule.ReadOnly {
		want &^= accessChanges
	}
	c.e.Uint32(uint32(stOK))
	c.postOp(&o, o.n)
	c.e.Uint32(c.tx.Access(&o.cred, o.n, want))
	return true
}
