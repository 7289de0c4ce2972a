package volume

// SetAttr says what to change; a nil pointer or false leaves an attribute as it is.
type SetAttr struct {
	Mode, UID, GID *uint32
	Size           *uint64
	Atime, Mtime   *int64 // explicit times
	AtimeNow       bool   // server time
	MtimeNow       bool
}

func (a *SetAttr) empty() bool { return *a == SetAttr{} }

// SetAttr changes attributes as POSIX chmod, chown, truncate and utimensat allow the caller; canWrite says that an open stateid already proved
// write access (truncate). Either everything is changed or nothing.
func (tx *Tx) SetAttr(c *Cred, n *Inode, attr SetAttr, canWrite bool) (*Inode, Errno) {
	if errno := tx.changeable(); errno != OK {
		return nil, errno
	}
	n, errno := tx.current(n)
	if errno != OK {
		return nil, errno
	}
	if attr.empty() {
		return n, OK
	}
	if errno := tx.maySetAttr(c, n, &attr, canWrite); errno != OK {
		return nil, errno
	}
	if attr.Size != nil && !tx.room(more(n, usedAfterResize(n, *attr.Size))) {
		return nil, ErrNoSpace
	}
	m := *n
	m.HasVerifier, m.Verifier = false, [8]byte{}
	m.Mode = modeAfter(c, n, &attr)
	if attr.UID != nil {
		m.UID = *attr.UID
	}
	if attr.GID != nil {
		m.GID = *attr.GID
	}
	if attr.Size != nil {
		tx.resize(&m, *attr.Size)
		m.Mtime = tx.now
	}
	switch {
	case attr.Atime != nil:
		m.Atime = *attr.Atime
	case attr.AtimeNow:
		m.Atime = tx.now
	}
	switch {
	case attr.Mtime != nil:
		m.Mtime = *attr.Mtime
	case attr.MtimeNow:
		m.Mtime = tx.now
	}
	tx.touch(&m)
	return &m, OK
}

func (tx *Tx) maySetAttr(c *Cred, n *Inode, a *SetAttr, canWrite bool) Errno {
	owner, root := owns(c, n), c == nil || c.UID == 0
	if a.Size != nil {
		switch {
		case n.Type == TypeDir:
			return ErrIsDir
		case n.Type != TypeFile:
			return ErrInval
		case *a.Size > MaxFileBytes:
			return ErrFBig
		}
		if !canWrite {
			if errno := tx.MayOpen(c, n, false, true); errno != OK {
				return errno
			}
		}
	}
	switch {
	case a.Mode != nil && !owner,
		a.UID != nil && !root && !(owner && *a.UID == n.UID),
		a.GID != nil && !root && !(owner && (*a.GID == n.GID || c.InGroup(*a.GID))),
		(a.Atime != nil || a.Mtime != nil) && !owner:
		return ErrPerm
	}
	if (a.AtimeNow || a.MtimeNow) && !owner && !canWrite {
		return permitted(c, n, permWrite)
	}
	return OK
}

// modeAfter applies chmod, and what chown and truncate do to the setuid and setgid bits. As in Linux chown clears them for everybody, the superuser
// included, since NFS clients leave that to the server; truncate clears them for everybody else.
func modeAfter(c *Cred, n *Inode, a *SetAttr) uint32 {
	root := c == nil || c.UID == 0
	mode := n.Mode
	if a.Mode != nil {
		mode = *a.Mode & modeBits
		if !root && !c.InGroup(n.GID) {
			mode &^= modeSetGID
		}
	}
	if n.Type == TypeDir {
		return mode
	}
	if a.UID != nil || a.GID != nil || a.Size != nil && !root {
		mode = withoutPrivileges(mode)
	}
	return mode
}
