package nfs3

import "holdfast/internal/volume"

// How CREATE treats a name that is taken (createmode3, RFC 1813 section 3.3.8).
const (
	createUnchecked = 0
	createGuarded   = 1
	createExclusive = 2
)

// Modes of new objects whose creator names none. The mode of an exclusive CREATE comes in the SETATTR that follows it; until then
// nobody but the owner can use the file.
const (
	defaultFileMode      = 0o644
	defaultDirMode       = 0o755
	defaultSymlinkMode   = 0o777
	defaultExclusiveMode = 0
)

// orMode sets the mode of a new object if its creator named none.
func orMode(a *volume.SetAttr, mode uint32) {
	if a.Mode == nil {
		a.Mode = &mode
	}
}

// makeObject executes a procedure that makes an object; bad is what was wrong with its attributes.
func (c *call) makeObject(arg dirOp, bad status, create func(dir *object, name string) (*volume.Inode, volume.Errno)) bool {
	if c.d.Err() != nil {
		return false
	}
	var dir object
	st := c.resolveDirForChange(arg.handle, &dir)
	if st == stOK {
		st = checkNewName(arg.name)
	}
	if st == stOK {
		st = bad
	}
	if st != stOK {
		return c.failWcc(st, &dir)
	}
	n, errno := create(&dir, string(arg.name))
	if errno != volume.OK {
		return c.failWcc(statusOf(errno), &dir)
	}
	c.e.Uint32(uint32(stOK))
	c.postHandle(&dir, n)
	c.postOp(&dir, n)
	c.wcc(&dir)
	return true
}

// create is NFSPROC3_CREATE (RFC 1813 section 3.3.8).
func (c *call) create() bool {
	var attr volume.CreateAttr
	var bad status
	arg := c.dirOp()
	how := c.d.Uint32()
	switch how {
	case createUnchecked, createGuarded:
		bad = c.sattr(&attr.SetAttr)
	case createExclusive:
		attr.Verifier = new([8]byte)
		copy(attr.Verifier[:], c.d.Fixed(8))
	default:
		return false
	}
	return c.makeObject(arg, bad, func(dir *object, name string) (*volume.Inode, volume.Errno) {
		return c.openOrCreate(dir, name, how, attr)
	})
}

// openOrCreate makes a file, or takes the one that is there if how allows.
func (c *call) openOrCreate(dir *object, name string, how uint32, attr volume.CreateAttr) (*volume.Inode, volume.Errno) {
	n, errno := c.tx.Lookup(&dir.cred, dir.n, name)
	switch {
	case errno == volume.ErrNoEnt:
		if how == createExclusive {
			orMode(&attr.SetAttr, defaultExclusiveMode)
		}
		orMode(&attr.SetAttr, defaultFileMode)
		return c.tx.Create(&dir.cred, dir.n, name, volume.TypeFile, attr)
	case errno != volume.OK:
		return nil, errno
	case n.Type != volume.TypeFile:
		return nil, volume.ErrExist
	case how == createUnchecked && attr.Size != nil:
		// Only the size counts for a file that exists: open with O_CREAT and O_TRUNC.
		return c.applyAttr(dir, n, volume.SetAttr{Size: attr.Size})
	case how == createUnchecked:
		return n, volume.OK
	case how == createExclusive && n.HasVerifier && n.Verifier == *attr.Verifier:
		return n, volume.OK
	}
	return nil, volume.ErrExist
}

// mkdir is NFSPROC3_MKDIR (RFC 1813 section 3.3.9).
func (c *call) mkdir() bool {
	var attr volume.SetAttr
	arg := c.dirOp()
	bad := c.sattr(&attr)
	attr.Size = nil
	orMode(&attr, defaultDirMode)
	return c.makeObject(arg, bad, func(dir *object, name string) (*volume.Inode, volume.Errno) {
		return c.tx.Mkdir(&dir.cred, dir.n, name, attr)
	})
}

// symlink is NFSPROC3_SYMLINK (RFC 1813 section 3.3.10).
func (c *call) symlink() bool {
	var attr volume.CreateAttr
	arg := c.dirOp()
	bad := c.sattr(&attr.SetAttr)
	target := c.text()
	if bad == stOK {
		bad = checkTarget(target)
	}
	attr.Size = nil
	orMode(&attr.SetAttr, defaultSymlinkMode)
	attr.Target = string(target)
	return c.makeObject(arg, bad, func(dir *object, name string) (*volume.Inode, volume.Errno) {
		return c.tx.Create(&dir.cred, dir.n, name, volume.TypeSymlink, attr)
	})
}

func checkTarget(target []byte) status {
	switch {
	case len(target) == 0:
		return stInval
	case len(target) > volume.MaxSymlinkBytes:
		return stNameTooLong
	}
	return stOK
}

// mknod is NFSPROC3_MKNOD (RFC 1813 section 3.3.11).
func (c *call) mknod() bool {
	var attr volume.CreateAttr
	var bad status
	arg := c.dirOp()
	typ := c.d.Uint32()
	switch typ {
	case uint32(volume.TypeChar), uint32(volume.TypeBlock):
		bad = c.sattr(&attr.SetAttr)
		attr.Rdev = c.d.Uint64() // specdata3: major, minor
	case uint32(volume.TypeSocket), uint32(volume.TypeFIFO):
		bad = c.sattr(&attr.SetAttr)
	default:
		bad = stBadType // the protocol's union has nothing to read for the other types
	}
	attr.Size = nil
	orMode(&attr.SetAttr, defaultFileMode)
	return c.makeObject(arg, bad, func(dir *object, name string) (*volume.Inode, volume.Errno) {
		return c.tx.Create(&dir.cred, dir.n, name, volume.FileType(typ), attr)
	})
}
