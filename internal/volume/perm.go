package volume

// Permission bits of a mode.
const (
	modeSetUID = 0o4000
	modeSetGID = 0o2000
	modeSticky = 0o1000
	modeGroupX = 0o010
	modeBits   = 0o7777

	permRead  = 4
	permWrite = 2
	permExec  = 1
)

// The bits of ACCESS (RFC 8881 section 18.1.1, RFC 1813 section 3.3.4).
const (
	AccessRead    = 1
	AccessLookup  = 2
	AccessModify  = 4
	AccessExtend  = 8
	AccessDelete  = 16
	AccessExecute = 32
)

// perms returns the permissions (permRead...) that the caller has.
func perms(c *Cred, n *Inode) uint32 {
	switch {
	case c == nil:
		return permRead | permWrite | permExec
	case c.UID == 0:
		// The superuser may do everything, but execute only what somebody may.
		if n.Type == TypeDir || n.Mode&0o111 != 0 {
			return permRead | permWrite | permExec
		}
		return permRead | permWrite
	case c.UID == n.UID:
		return n.Mode >> 6 & 7
	case c.InGroup(n.GID):
		return n.Mode >> 3 & 7
	}
	return n.Mode & 7
}

func permitted(c *Cred, n *Inode, want uint32) Errno {
	if perms(c, n)&want != want {
		return ErrAccess
	}
	return OK
}

// owns reports whether the caller may do what is the owner's to do.
func owns(c *Cred, n *Inode) bool { return c == nil || c.UID == 0 || c.UID == n.UID }

// AccessSupported returns the ACCESS bits that mean something for a type: DELETE and LOOKUP only for directories, EXECUTE only for the others.
func AccessSupported(t FileType) uint32 {
	if t == TypeDir {
		return AccessRead | AccessLookup | AccessModify | AccessExtend | AccessDelete
	}
	return AccessRead | AccessModify | AccessExtend | AccessExecute
}

// Access returns which of the ACCESS4_* bits in want (RFC 8881 section 18.1: READ 1, LOOKUP 2, MODIFY 4, EXTEND 8, DELETE 16, EXECUTE 32) the caller has.
func (tx *Tx) Access(c *Cred, n *Inode, want uint32) uint32 {
	p := perms(c, n)
	var have uint32
	if p&permRead != 0 {
		have |= AccessRead
	}
	if n.Type == TypeDir {
		if p&permExec != 0 {
			have |= AccessLookup
			if p&permWrite != 0 {
				have |= AccessModify | AccessExtend | AccessDelete
			}
		}
	} else {
		if p&permWrite != 0 {
			have |= AccessModify | AccessExtend
		}
		if p&permExec != 0 {
			have |= AccessExecute
		}
	}
	return have & want
}

// MayOpen checks read and write permission of an open; the owner passes always, as NFS servers do (a file stays usable for its creator after chmod 0),
// and who may execute may read, since the client must read what it runs.
func (tx *Tx) MayOpen(c *Cred, n *Inode, read, write bool) Errno {
	if owns(c, n) {
		return OK
	}
	p := perms(c, n)
	if read && p&(permRead|permExec) == 0 || write && p&permWrite == 0 {
		return ErrAccess
	}
	return OK
}

// mayRemove checks the sticky rule: in a sticky directory only the owner of the entry or of the directory may remove or rename it.
func mayRemove(c *Cred, dir, n *Inode) Errno {
	if errno := permitted(c, dir, permWrite|permExec); errno != OK {
		return errno
	}
	if dir.Mode&modeSticky != 0 && !owns(c, dir) && !owns(c, n) {
		return ErrPerm
	}
	return OK
}

// withoutPrivileges is the mode after somebody but the superuser changed the content: setuid goes, and setgid where it means execution as the group.
func withoutPrivileges(mode uint32) uint32 {
	mode &^= modeSetUID
	if mode&modeGroupX != 0 {
		mode &^= modeSetGID
	}
	return mode
}
