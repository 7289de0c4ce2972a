package nfs4

import (
	"holdfast/internal/volume"
)

// changeInfo appends a change_info4 (RFC 8881 section 3.3.3): always atomic, as a compound in apply has the volume to itself.
func (c *compound) changeInfo(before *volume.Inode) {
	after := before.Change
	if n, st := c.tx.Inode(before.Ino, before.Gen); st == statusOK {
		after = n.Change
	}
	c.e.Bool(true)
	c.e.Uint64(before.Change)
	c.e.Uint64(after)
}

// opCreate is CREATE (RFC 8881 section 18.4): anything but regular files.
func opCreate(c *compound) status {
	dir, st := c.writableDir(&c.cur)
	if st != statusOK {
		return st
	}
	typ, ok := createType(c.a.typ)
	if !ok {
		return volume.ErrBadType
	}
	if st := checkName(c.a.name); st != statusOK {
		return st
	}
	if typ == volume.TypeSymlink {
		if st := checkTarget(c.a.link); st != statusOK {
			return st
		}
	}
	if st := c.set.decode(c.a.attrs, c.minor, attrsCreatable); st != statusOK {
		return st
	}
	if c.set.mask.has(attrSize) {
		return volume.ErrInval
	}
	cred := c.cred(c.cur.rule)
	var n *volume.Inode
	if typ == volume.TypeDir {
		n, st = c.tx.Mkdir(cred, dir, string(c.a.name), c.set.into(0))
	} else {
		n, st = c.tx.Create(cred, dir, string(c.a.name), typ, volume.CreateAttr{SetAttr: c.set.into(0), Rdev: c.a.rdev, Target: string(c.a.link)})
	}
	if st != statusOK {
		return st
	}
	c.changeInfo(dir)
	c.set.mask.encode(c.e)
	c.setCurrent(c.atInode(n, c.cur.rule))
	return statusOK
}

func createType(t uint32) (volume.FileType, bool) {
	switch typ := volume.FileType(t); typ {
	case volume.TypeDir, volume.TypeBlock, volume.TypeChar, volume.TypeSymlink, volume.TypeSocket, volume.TypeFIFO:
		return typ, t < 256
	}
	return 0, false
}

// checkTarget checks a symbolic link's text, which is opaque to the server but for NUL, which no client could use.
func checkTarget(b []byte) status {
	switch {
	case len(b) == 0:
		return volume.ErrInval
	case len(b) > volume.MaxSymlinkBytes:
		return volume.ErrNameTooLong
	}
	for _, ch := range b {
		if ch == 0 {
			return errBadChar
		}
	}
	return statusOK
}

// opRemove is REMOVE (RFC 8881 section 18.25).
func opRemove(c *compound) status {
	dir, st := c.writableDir(&c.cur)
	if st != statusOK {
		return st
	}
	if st := checkName(c.a.name); st != statusOK {
		return st
	}
	if st := c.tx.Remove(c.cred(c.cur.rule), dir, string(c.a.name), volume.RemoveAny); st != statusOK {
		return st
	}
	c.changeInfo(dir)
	return statusOK
}

// opRename is RENAME (RFC 8881 section 18.26): from the saved directory to the current one.
func opRename(c *compound) status {
	if !c.saved.set || !c.cur.set {
		return errNoFileHandle
	}
	from, st := c.writableDir(&c.saved)
	if st != statusOK {
		return st
	}
	to, st := c.writableDir(&c.cur)
	if st != statusOK {
		return st
	}
	if c.saved.h.Export != c.cur.h.Export {
		return volume.ErrXDev
	}
	if st := checkName(c.a.name); st != statusOK {
		return st
	}
	if st := checkName(c.a.newName); st != statusOK {
		return st
	}
	if st := c.tx.Rename(c.cred(c.cur.rule), from, string(c.a.name), to, string(c.a.newName)); st != statusOK {
		return st
	}
	c.changeInfo(from)
	c.changeInfo(to)
	return statusOK
}

// opLink is LINK (RFC 8881 section 18.9): the saved object gets a name in the current directory.
func opLink(c *compound) status {
	if !c.saved.set || !c.cur.set {
		return errNoFileHandle
	}
	dir, st := c.writableDir(&c.cur)
	if st != statusOK {
		return st
	}
	if c.saved.h.Export != c.cur.h.Export {
		return volume.ErrXDev
	}
	n, st := c.node(&c.saved)
	if st != statusOK {
		return st
	}
	if n.Type == volume.TypeDir {
		return volume.ErrIsDir
	}
	if st := checkName(c.a.name); st != statusOK {
		return st
	}
	if st := c.tx.Link(c.cred(c.cur.rule), n, dir, string(c.a.name)); st != statusOK {
		return st
	}
	c.changeInfo(dir)
	return statusOK
}
