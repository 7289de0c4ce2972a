package volume

// renaming is what Rename has found out.
type renaming struct {
	from, to   *Inode // the directories
	cookie     uint64 // of the old name
	n          *Inode // what moves
	toCookie   uint64 // of the entry that is replaced
	toEntry    dirent
	replaced   *Inode // nil: the new name is free
	newName    string
	crossesDir bool // a directory gets another parent
}

// Rename gives an entry another name, replacing what had it as POSIX rename does: directories replace empty directories only, and move nowhere below
// themselves; if both names are links of one file, nothing happens.
func (tx *Tx) Rename(c *Cred, from *Inode, oldName string, to *Inode, newName string) Errno {
	if errno := tx.changeable(); errno != OK {
		return errno
	}
	r := renaming{newName: newName}
	var errno Errno
	if r.from, errno = tx.directory(c, from, permExec); errno != OK {
		return errno
	}
	if r.to, errno = tx.directory(c, to, permExec); errno != OK {
		return errno
	}
	for _, name := range [2]string{oldName, newName} {
		if errno := checkName(name); errno != OK {
			return errno
		}
		if isDots(name) {
			return ErrInval
		}
	}
	if errno := tx.findRenaming(&r, oldName); errno != OK {
		return errno
	}
	if r.replaced != nil && r.replaced.Ino == r.n.Ino {
		return OK
	}
	if errno := tx.checkRename(c, &r); errno != OK {
		return errno
	}
	return tx.rename(&r)
}

func (tx *Tx) findRenaming(r *renaming, oldName string) Errno {
	cookie, d, found, errno := tx.find(r.from.Ino, oldName)
	if errno != OK {
		return errno
	}
	if !found {
		return ErrNoEnt
	}
	r.cookie = cookie
	if r.n, errno = tx.inode(d.ino); errno != OK {
		return errno
	}
	r.crossesDir = r.n.Type == TypeDir && r.from.Ino != r.to.Ino
	if r.toCookie, r.toEntry, found, errno = tx.find(r.to.Ino, r.newName); errno != OK || !found {
		return errno
	}
	r.replaced, errno = tx.inode(r.toEntry.ino)
	return errno
}

func (tx *Tx) checkRename(c *Cred, r *renaming) Errno {
	if errno := mayRemove(c, r.from, r.n); errno != OK {
		return errno
	}
	if r.crossesDir {
		if errno := tx.checkNotBelow(r.n.Ino, r.to); errno != OK {
			return errno
		}
		// Its ".." changes.
		if errno := permitted(c, r.n, permWrite); errno != OK {
			return errno
		}
		if r.replaced == nil && r.to.Nlink >= MaxLinks {
			return ErrMLink
		}
	}
	if tx.exported(r.n.Ino) {
		return ErrAccess
	}
	if r.replaced == nil {
		return permitted(c, r.to, permWrite|permExec)
	}
	if errno := mayRemove(c, r.to, r.replaced); errno != OK {
		return errno
	}
	switch {
	case r.n.Type == TypeDir && r.replaced.Type != TypeDir:
		return ErrNotDir
	case r.n.Type != TypeDir && r.replaced.Type == TypeDir:
		return ErrIsDir
	case r.replaced.Entries > 0:
		return ErrNotEmpty
	case tx.exported(r.replaced.Ino):
		return ErrAccess
	}
	return OK
}

// checkNotBelow fails if dir is ino or lies below it.
func (tx *Tx) checkNotBelow(ino Ino, dir *Inode) Errno {
	for {
		if dir.Ino == ino {
			return ErrInval
		}
		if dir.Ino == RootIno {
			return OK
		}
		parent, errno := tx.inode(dir.Parent)
		if errno != OK {
			return errno
		}
		dir = parent
	}
}

// rename carries out what was checked. It adds before it removes, as only adding can fail.
func (tx *Tx) rename(r *renaming) Errno {
	if r.replaced != nil {
		tx.replaceEntry(r.to.Ino, r.toCookie, r.toEntry, r.n.Ino, r.n.Type)
	} else if errno := tx.addEntry(r.to.Ino, r.newName, r.n.Ino, r.n.Type); errno != OK {
		return errno
	}
	if errno := tx.removeEntry(r.from.Ino, r.cookie); errno != OK {
		return errno
	}
	from := *r.from
	to := &from
	if r.to.Ino != r.from.Ino {
		copied := *r.to
		to = &copied
	}
	from.Entries--
	if r.replaced == nil {
		to.Entries++
	}
	n := *r.n
	if n.Type == TypeDir {
		n.Parent = to.Ino
		from.Nlink--
		if r.replaced == nil {
			to.Nlink++
		}
	}
	tx.touchDir(&from)
	tx.touchDir(to)
	tx.touch(&n)
	if r.replaced != nil {
		tx.unlinked(r.replaced)
	}
	return OK
}
