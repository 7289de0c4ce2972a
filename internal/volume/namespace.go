package volume

import "strings"

// CreateAttr are the first attributes of a new inode.
type CreateAttr struct {
	SetAttr
	Rdev     uint64
	Target   string
	Verifier *[8]byte
}

// RemoveKind says what a Remove may remove.
type RemoveKind uint8

// The values of RemoveKind.
const (
	RemoveAny  RemoveKind = iota // REMOVE of NFSv4
	RemoveFile                   // REMOVE of NFSv3: anything but a directory
	RemoveDir                    // RMDIR of NFSv3
)

// checkName refuses what cannot be the name of an entry; "." and ".." it lets pass.
func checkName(name string) Errno {
	switch {
	case len(name) > MaxNameBytes:
		return ErrNameTooLong
	case name == "" || strings.ContainsAny(name, "/\x00"):
		return ErrInval
	}
	return OK
}

func isDots(name string) bool { return name == "." || name == ".." }

// directory returns the current state of dir, checked for its type and permissions.
func (tx *Tx) directory(c *Cred, dir *Inode, want uint32) (*Inode, Errno) {
	dir, errno := tx.current(dir)
	if errno != OK {
		return nil, errno
	}
	if dir.Type != TypeDir {
		return nil, ErrNotDir
	}
	return dir, permitted(c, dir, want)
}

// Lookup finds a name in dir; "." and ".." are found as well.
func (tx *Tx) Lookup(c *Cred, dir *Inode, name string) (*Inode, Errno) {
	dir, errno := tx.directory(c, dir, permExec)
	if errno != OK {
		return nil, errno
	}
	if errno := checkName(name); errno != OK {
		return nil, errno
	}
	switch name {
	case ".":
		return dir, OK
	case "..":
		return tx.inode(dir.Parent)
	}
	_, d, found, errno := tx.find(dir.Ino, name)
	if errno != OK {
		return nil, errno
	}
	if !found {
		return nil, ErrNoEnt
	}
	return tx.inode(d.ino)
}

// Parent returns "..".
func (tx *Tx) Parent(c *Cred, dir *Inode) (*Inode, Errno) { return tx.Lookup(c, dir, "..") }

// vacant checks that the caller may add name to dir and that it is not taken. It returns the current dir.
func (tx *Tx) vacant(c *Cred, dir *Inode, name string) (*Inode, Errno) {
	if errno := tx.changeable(); errno != OK {
		return nil, errno
	}
	dir, errno := tx.directory(c, dir, permExec)
	if errno != OK {
		return nil, errno
	}
	if errno := checkName(name); errno != OK {
		return nil, errno
	}
	if isDots(name) {
		return nil, ErrExist
	}
	_, _, found, errno := tx.find(dir.Ino, name)
	switch {
	case errno != OK:
		return nil, errno
	case found:
		return nil, ErrExist
	case tx.full || !tx.room(inodeCost+nameCost):
		return nil, ErrNoSpace
	}
	return dir, permitted(c, dir, permWrite)
}

// addName enters n into dir and stamps the directory.
func (tx *Tx) addName(dir *Inode, name string, n *Inode) Errno {
	if errno := tx.addEntry(dir.Ino, name, n.Ino, n.Type); errno != OK {
		return errno
	}
	d := *dir
	d.Entries++
	if n.Type == TypeDir {
		d.Nlink++
	}
	tx.touchDir(&d)
	return OK
}

// touchDir stamps a change of a directory's entries.
func (tx *Tx) touchDir(d *Inode) {
	d.Mtime = tx.now
	tx.touch(d)
}

// Create makes a regular file, or any other non-directory type. It fails with ErrExist if the name is taken.
func (tx *Tx) Create(c *Cred, dir *Inode, name string, typ FileType, attr CreateAttr) (*Inode, Errno) {
	dir, errno := tx.vacant(c, dir, name)
	if errno != OK {
		return nil, errno
	}
	switch typ {
	case TypeFile, TypeSocket, TypeFIFO:
	case TypeBlock, TypeChar:
		if c != nil && c.UID != 0 {
			return nil, ErrPerm
		}
	case TypeSymlink:
		if attr.Target == "" || strings.Contains(attr.Target, "\x00") {
			return nil, ErrInval
		}
		if len(attr.Target) > MaxSymlinkBytes {
			return nil, ErrNameTooLong
		}
	default:
		return nil, ErrBadType
	}
	if typ == TypeFile && attr.Size != nil && *attr.Size > MaxFileBytes {
		return nil, ErrFBig
	}
	if !tx.room(inodeCost + nameCost + firstUsed(typ, &attr)) {
		return nil, ErrNoSpace
	}
	n := tx.newInode(typ)
	tx.firstAttributes(c, dir, n, &attr.SetAttr, 0o600)
	switch typ {
	case TypeBlock, TypeChar:
		n.Rdev = attr.Rdev
	case TypeSymlink:
		n.Mode = 0o777
		n.Target, n.Size, n.Used = attr.Target, uint64(len(attr.Target)), uint64(len(attr.Target))
	case TypeFile:
		if attr.Verifier != nil {
			n.Verifier, n.HasVerifier = *attr.Verifier, true
		}
	}
	return tx.enter(dir, name, n, &attr.SetAttr)
}

// firstUsed is what Used of a new inode will be, at most.
func firstUsed(typ FileType, attr *CreateAttr) uint64 {
	switch {
	case typ == TypeSymlink:
		return uint64(len(attr.Target))
	case typ == TypeFile && attr.Size != nil:
		return usedAfterResize(&Inode{Inline: true}, *attr.Size)
	}
	return 0
}

// enter gives a new inode its name; if that fails the inode never was.
func (tx *Tx) enter(dir *Inode, name string, n *Inode, attr *SetAttr) (*Inode, Errno) {
	if errno := tx.addName(dir, name, n); errno != OK {
		tx.state.inodes--
		return nil, errno
	}
	if n.Type == TypeFile && attr.Size != nil {
		tx.resize(n, *attr.Size)
	}
	tx.touch(n)
	return n, OK
}

// Mkdir makes a directory.
func (tx *Tx) Mkdir(c *Cred, dir *Inode, name string, attr SetAttr) (*Inode, Errno) {
	dir, errno := tx.vacant(c, dir, name)
	if errno != OK {
		return nil, errno
	}
	if dir.Nlink >= MaxLinks {
		return nil, ErrMLink
	}
	n := tx.newInode(TypeDir)
	n.Nlink, n.Parent = 2, dir.Ino
	tx.firstAttributes(c, dir, n, &attr, 0o700)
	return tx.enter(dir, name, n, &attr)
}

// firstAttributes sets owner, mode and times of a new inode. Owners that the caller may not set are ignored, as NFS servers do: a squashed client sends them in good faith.
func (tx *Tx) firstAttributes(c *Cred, dir, n *Inode, attr *SetAttr, mode uint32) {
	if c != nil {
		n.UID, n.GID = c.UID, c.GID
	}
	privileged := c == nil || c.UID == 0
	if dir.Mode&modeSetGID != 0 {
		n.GID = dir.GID
	}
	if attr.UID != nil && privileged {
		n.UID = *attr.UID
	}
	if attr.GID != nil && (privileged || c.InGroup(*attr.GID)) {
		n.GID = *attr.GID
	}
	if attr.Mode != nil {
		mode = *attr.Mode & modeBits
	}
	if mode&modeSetGID != 0 && !privileged && !c.InGroup(n.GID) {
		mode &^= modeSetGID
	}
	if n.Type == TypeDir {
		mode |= dir.Mode & modeSetGID
	}
	n.Mode = mode
	if attr.Atime != nil {
		n.Atime = *attr.Atime
	}
	if attr.Mtime != nil {
		n.Mtime = *attr.Mtime
	}
}

// Link adds a name.
func (tx *Tx) Link(c *Cred, n, dir *Inode, name string) Errno {
	dir, errno := tx.vacant(c, dir, name)
	if errno != OK {
		return errno
	}
	if n, errno = tx.current(n); errno != OK {
		return errno
	}
	switch {
	case n.Type == TypeDir:
		return ErrIsDir
	case n.Nlink == 0:
		return ErrNoEnt
	case n.Nlink >= MaxLinks:
		return ErrMLink
	}
	if errno := tx.addName(dir, name, n); errno != OK {
		return errno
	}
	m := *n
	m.Nlink++
	tx.touch(&m)
	return OK
}

// Remove takes a name away, and with the last one the inode, unless a program holds it open.
func (tx *Tx) Remove(c *Cred, dir *Inode, name string, kind RemoveKind) Errno {
	if errno := tx.changeable(); errno != OK {
		return errno
	}
	dir, errno := tx.directory(c, dir, permExec)
	if errno != OK {
		return errno
	}
	if errno := checkName(name); errno != OK {
		return errno
	}
	switch {
	case name == ".":
		return ErrInval
	case name == "..":
		return ErrNotEmpty
	}
	cookie, d, found, errno := tx.find(dir.Ino, name)
	if errno != OK {
		return errno
	}
	if !found {
		return ErrNoEnt
	}
	n, errno := tx.inode(d.ino)
	if errno != OK {
		return errno
	}
	if errno := mayRemove(c, dir, n); errno != OK {
		return errno
	}
	switch {
	case kind == RemoveFile && n.Type == TypeDir:
		return ErrIsDir
	case kind == RemoveDir && n.Type != TypeDir:
		return ErrNotDir
	case n.Type == TypeDir && n.Entries > 0:
		return ErrNotEmpty
	case tx.exported(n.Ino):
		return ErrAccess
	}
	return tx.dropName(dir, cookie, n)
}

// dropName takes away the entry of n at cookie and stamps both.
func (tx *Tx) dropName(dir *Inode, cookie uint64, n *Inode) Errno {
	if errno := tx.removeEntry(dir.Ino, cookie); errno != OK {
		return errno
	}
	d := *dir
	d.Entries--
	if n.Type == TypeDir {
		d.Nlink--
	}
	tx.touchDir(&d)
	tx.unlinked(n)
	return OK
}

// exported reports whether ino is the root of an export: its name stays.
func (tx *Tx) exported(ino Ino) bool {
	for i := range tx.exports {
		if tx.exports[i].Root == ino {
			return true
		}
	}
	return false
}
