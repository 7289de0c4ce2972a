package nfs4

import (
	"cmp"
	"slices"

	"holdfast/internal/volume"
)

// cookieVerifier never changes: cookies are hashes of names and mean the same for ever (RFC 8881 section 18.23.3).
var cookieVerifier [8]byte

// readdir is a READDIR being answered.
type readdir struct {
	c        *compound
	start    int // offset of READDIR4resok in the reply
	limit    int // most bytes of READDIR4resok
	dirLimit int // most bytes of names and cookies; 0: as many as fit
	dirBytes int
	count    int
	full     bool
	failed   status
	space    volume.FSStat
}

// readdirTail is what follows the last entry: no more entries, eof.
const readdirTail = 8

// opReaddir is READDIR (RFC 8881 section 18.23).
func opReaddir(c *compound) status {
	a := &c.a
	if !c.cur.set {
		return errNoFileHandle
	}
	if !a.bits.and(attrsWriteOnly).empty() {
		return volume.ErrInval
	}
	if a.length == 1 || a.length == 2 {
		return volume.ErrBadCookie
	}
	if a.length != 0 && [8]byte(a.verifier) != cookieVerifier {
		return errNotSame
	}
	r := readdir{c: c, start: c.e.Len(), limit: int(min(a.count, MaxIOBytes)), dirLimit: int(min(a.dirCount, MaxIOBytes))}
	r.limit = min(r.limit, c.roomLeft())
	if !a.bits.and(attrsSpace).empty() {
		r.space = c.tx.FSStat()
	}
	c.e.Fixed(cookieVerifier[:])
	eof, st := r.list()
	switch {
	case st != statusOK:
		return st
	case r.failed != statusOK:
		return r.failed
	case r.full && r.count == 0, r.limit < 8+readdirTail:
		return errTooSmall
	}
	c.e.Bool(false)
	c.e.Bool(eof && !r.full)
	return statusOK
}

func (r *readdir) list() (eof bool, st status) {
	c := r.c
	if c.cur.pseudo() {
		r.listPseudo()
		return true, statusOK
	}
	dir, st := c.node(&c.cur)
	if st != statusOK {
		return false, st
	}
	if st := wantDir(dir); st != statusOK {
		return false, st
	}
	if c.tx.Access(c.cred(c.cur.rule), dir, accessRead) == 0 {
		return false, volume.ErrAccess
	}
	if !c.a.bits.without(attrsFromEntry).and(supported(c.minor)).empty() || c.nests(c.cur.rule.Export) {
		return c.tx.ReadDir(dir, c.a.length, r.addInode)
	}
	return c.tx.ReadDir(dir, c.a.length, r.addEntry)
}

// addEntry appends an entry whose attributes the directory itself knows.
func (r *readdir) addEntry(ent volume.DirEntry) bool {
	n := volume.Inode{Ino: ent.Ino, Type: ent.Type}
	fh := r.c.atInode(&n, r.c.cur.rule)
	return r.add(ent.Cookie, ent.Name, &object{fh: &fh, n: &n})
}

// addInode appends an entry with attributes of its inode.
func (r *readdir) addInode(ent volume.DirEntry) bool {
	n, st := r.c.tx.Inode(ent.Ino, 0)
	if st != statusOK {
		return r.addBroken(ent.Cookie, ent.Name, st)
	}
	fh := r.c.below(n, r.c.cur.rule)
	return r.add(ent.Cookie, ent.Name, &object{fh: &fh, n: n, space: r.space})
}

// listPseudo appends the children of a pseudo node.
func (r *readdir) listPseudo() {
	for _, ent := range r.c.pseudoEntries(r.c.cur.path) {
		if ent.cookie <= r.c.a.length {
			continue
		}
		fh, st := r.c.atPath(ent.path)
		if st != statusOK {
			if !r.addBroken(ent.cookie, ent.name, st) {
				return
			}
			continue
		}
		o, st := r.c.object(&fh, r.c.a.bits)
		if st != statusOK || !r.add(ent.cookie, ent.name, &o) {
			return
		}
	}
}

// add appends one entry4 and reports whether it fitted.
func (r *readdir) add(cookie uint64, name string, o *object) bool {
	e := r.c.e
	mark := e.Len()
	r.head(cookie, name)
	r.c.encodeFattr(e, r.c.a.bits, o)
	return r.keep(mark, name)
}

// addBroken appends an entry whose attributes cannot be had: with rdattr_error if the client asked for it, otherwise the whole READDIR fails (RFC 8881 section 5.8.1.12).
func (r *readdir) addBroken(cookie uint64, name string, st status) bool {
	if !r.c.a.bits.has(attrRdattrError) {
		r.failed = st
		return false
	}
	e := r.c.e
	mark := e.Len()
	r.head(cookie, name)
	bitmapOf(attrRdattrError).encode(e)
	e.Uint32(4)
	e.Uint32(uint32(st))
	return r.keep(mark, name)
}

func (r *readdir) head(cookie uint64, name string) {
	e := r.c.e
	e.Bool(true)
	e.Uint64(cookie)
	e.String(name)
}

// keep drops the entry that starts at mark again if it exceeds a limit. dircount is a hint: one entry always passes it.
func (r *readdir) keep(mark int, name string) bool {
	r.dirBytes += 8 + 4 + (len(name)+3)&^3
	tooBig := r.c.e.Len()-r.start+readdirTail > r.limit
	if tooBig || r.dirLimit != 0 && r.dirBytes > r.dirLimit && r.count > 0 {
		r.c.e.Truncate(mark)
		r.full = true
		return false
	}
	r.count++
	return true
}

func sortByCookie(entries []pseudoEntry) {
	slices.SortFunc(entries, func(a, b pseudoEntry) int { return cmp.Compare(a.cookie, b.cookie) })
}
