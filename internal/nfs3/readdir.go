package nfs3

import (
	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

// Cookies of the entries that the volume does not store. Its own begin at firstCookie.
const (
	cookieDot    = 1
	cookieDotDot = 2
	firstCookie  = 512
)

// cookieVerifier is constant: a cookie stays good for ever, on every node (RFC 1813 section 3.3.16).
const cookieVerifier = 0

// maxReaddirBytes bounds one reply, whatever the client asks for: a listing holds the volume's lock while it is put together.
const maxReaddirBytes = 128 << 10

// Lengths of what surrounds the entries of a listing.
const (
	listingTailBytes = 8                                                                                  // no further entry, eof
	entryFixedBytes  = 4 + 8 + 4 + 8                                                                      // an entry follows, fileid, name length, cookie
	plusFixedBytes   = entryFixedBytes + 4 + fattrBytes + 4 + 4 + volume.HandleBytes                      // with attributes and handle
	plusBareBytes    = entryFixedBytes + 4 + 4                                                            // without either
	listingHeadBytes = 4 + fattrBytes + 8                                                                 // directory attributes, verifier
	_                = uint(maxReaddirBytes - listingHeadBytes - listingTailBytes - plusFixedBytes - 256) // at least one entry fits
)

// listing is a READDIR or READDIRPLUS reply in the making.
type listing struct {
	c     *call
	dir   *object
	plus  bool
	limit int // offset in the reply that the listing may not exceed
	names int // READDIRPLUS: bytes of names, ids and cookies that may still be added
	count int
	full  bool
}

// readdir is NFSPROC3_READDIR (RFC 1813 section 3.3.16).
func (c *call) readdir() bool {
	handle, cookie := c.handle(), c.d.Uint64()
	c.d.Fixed(8) // verifier: ours is constant, and an old one does no harm
	count := c.d.Uint32()
	if c.d.Err() != nil {
		return false
	}
	return c.list(handle, cookie, count, count, false)
}

// readdirplus is NFSPROC3_READDIRPLUS (RFC 1813 section 3.3.17).
func (c *call) readdirplus() bool {
	handle, cookie := c.handle(), c.d.Uint64()
	c.d.Fixed(8)
	dirCount, maxCount := c.d.Uint32(), c.d.Uint32()
	if c.d.Err() != nil {
		return false
	}
	return c.list(handle, cookie, dirCount, maxCount, true)
}

func (c *call) list(handle []byte, cookie uint64, dirCount, maxCount uint32, plus bool) bool {
	var dir object
	st := c.resolveDir(handle, &dir)
	if st == stOK {
		st = c.mayList(&dir, cookie)
	}
	if st != stOK {
		return c.fail(st, &dir)
	}
	base := c.e.Len()
	c.e.Uint32(uint32(stOK))
	l := listing{
		c: c, dir: &dir, plus: plus,
		limit: c.e.Len() + int(min(maxCount, maxReaddirBytes)) - listingTailBytes,
		names: int(min(dirCount, maxReaddirBytes)),
	}
	c.postOp(&dir, dir.n)
	c.e.Uint64(cookieVerifier)
	eof, errno := l.fill(cookie)
	switch {
	case errno != volume.OK:
		c.e.Truncate(base)
		return c.fail(statusOf(errno), &dir)
	case l.full && l.count == 0:
		c.e.Truncate(base)
		return c.fail(stTooSmall, &dir)
	}
	c.e.Bool(false)
	c.e.Bool(eof && !l.full)
	return true
}

// mayList checks permission and whether the cookie can be one of ours.
func (c *call) mayList(dir *object, cookie uint64) status {
	if c.tx.Access(&dir.cred, dir.n, volume.AccessRead) == 0 {
		return stAccess
	}
	if cookie > cookieDotDot && cookie < firstCookie {
		return stBadCookie
	}
	return stOK
}

// fill adds the entries after cookie until the listing is full.
func (l *listing) fill(cookie uint64) (eof bool, errno volume.Errno) {
	if cookie < cookieDot && !l.add(volume.DirEntry{Name: ".", Ino: l.dir.n.Ino, Cookie: cookieDot}) {
		return false, volume.OK
	}
	if cookie < cookieDotDot {
		parent := l.dir.n.Parent
		if l.c.isExportRoot(l.dir) {
			parent = l.dir.n.Ino
		}
		if !l.add(volume.DirEntry{Name: "..", Ino: parent, Cookie: cookieDotDot}) {
			return false, volume.OK
		}
	}
	if cookie <= cookieDotDot {
		cookie = 0
	}
	return l.c.tx.ReadDir(l.dir.n, cookie, l.add)
}

// add appends one entry, or reports that there is no room for it.
func (l *listing) add(e volume.DirEntry) bool {
	name := len(e.Name) + xdr.Pad(len(e.Name))
	size, info := entryFixedBytes+name, entryFixedBytes+name
	var n *volume.Inode
	if l.plus {
		size = plusBareBytes + name
		var errno volume.Errno
		if n, errno = l.c.tx.Inode(e.Ino, 0); errno == volume.OK {
			size = plusFixedBytes + name
		}
	}
	// The first entry need not fit dircount, which is a hint: the client must be able to get on.
	if l.c.e.Len()+size > l.limit || l.plus && l.count > 0 && info > l.names {
		l.full = true
		return false
	}
	l.names -= info
	l.count++
	l.c.e.Bool(true)
	l.c.e.Uint64(uint64(e.Ino))
	l.c.e.String(e.Name)
	l.c.e.Uint64(e.Cookie)
	if l.plus {
		l.addPlus(n)
	}
	return true
}

func (l *listing) addPlus(n *volume.Inode) {
	if n == nil {
		l.c.e.Bool(false)
		l.c.e.Bool(false)
		return
	}
	l.c.postOp(l.dir, n)
	l.c.postHandle(l.dir, n)
}
