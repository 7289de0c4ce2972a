package nfs3

import "holdfast/internal/volume"

// remove is NFSPROC3_REMOVE (RFC 1813 section 3.3.12).
func (c *call) remove() bool { return c.removeKind(volume.RemoveFile) }

// rmdir is NFSPROC3_RMDIR (RFC 1813 section 3.3.13).
func (c *call) rmdir() bool { return c.removeKind(volume.RemoveDir) }

func (c *call) removeKind(kind volume.RemoveKind) bool {
	arg := c.dirOp()
	if c.d.Err() != nil {
		return false
	}
	var dir object
	st := c.resolveDirForChange(arg.handle, &dir)
	if st == stOK {
		st = checkRemoveName(arg.name, kind)
	}
	if st == stOK {
		st = statusOf(c.tx.Remove(&dir.cred, dir.n, string(arg.name), kind))
	}
	return c.failWcc(st, &dir) // success looks the same
}

// checkRemoveName is checkName with the statuses that RFC 1813 section 3.3.13 asks for "." and "..".
func checkRemoveName(name []byte, kind volume.RemoveKind) status {
	switch {
	case !isDots(name):
		return checkName(name)
	case kind == volume.RemoveFile:
		return stIsDir
	case len(name) == 1:
		return stInval
	}
	return stExist
}

// rename is NFSPROC3_RENAME (RFC 1813 section 3.3.14).
func (c *call) rename() bool {
	oldArg, newArg := c.dirOp(), c.dirOp()
	if c.d.Err() != nil {
		return false
	}
	var from, to object
	st := c.resolveDirForChange(oldArg.handle, &from)
	if st2 := c.resolveDirForChange(newArg.handle, &to); st == stOK {
		st = st2
	}
	if st == stOK {
		st = checkRename(&from, &to, oldArg.name, newArg.name)
	}
	if st == stOK {
		st = statusOf(c.tx.Rename(&from.cred, from.n, string(oldArg.name), to.n, string(newArg.name)))
	}
	c.e.Uint32(uint32(st))
	c.wcc(&from)
	c.wcc(&to)
	return true
}

// checkRename refuses what no directory allows. An export is a file system of its own to its clients.
func checkRename(from, to *object, oldName, newName []byte) status {
	if from.h.Export != to.h.Export {
		return stXDev
	}
	if isDots(oldName) || isDots(newName) {
		return stInval
	}
	if st := checkName(oldName); st != stOK {
		return st
	}
	return checkName(newName)
}

// link is NFSPROC3_LINK (RFC 1813 section 3.3.15).
func (c *call) link() bool {
	handle := c.handle()
	arg := c.dirOp()
	if c.d.Err() != nil {
		return false
	}
	var file, dir object
	st := c.resolveForChange(handle, &file)
	if st2 := c.resolveDirForChange(arg.handle, &dir); st == stOK {
		st = st2
	}
	if st == stOK && file.h.Export != dir.h.Export {
		st = stXDev
	}
	if st == stOK {
		st = checkNewName(arg.name)
	}
	if st == stOK {
		st = statusOf(c.tx.Link(&dir.cred, file.n, dir.n, string(arg.name)))
	}
	c.e.Uint32(uint32(st))
	var after *volume.Inode
	if file.n != nil {
		after = c.latest(file.n)
	}
	c.postOp(&file, after)
	c.wcc(&dir)
	return true
}
