package volume

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"sort"

	"holdfast/internal/store"
)

// A directory entry's cookie is hash<<8 | ordinal, where hash is 55 bits of the name's and ordinal tells apart names of one hash. Entries are
// stored in cookie order, so a cookie is a position that no other change of the directory moves. Ordinal 0 stays as a tombstone while
// higher ones live, so one Get finds whether a name can be there at all.
const (
	ordinalBits = 8
	maxOrdinal  = 1<<ordinalBits - 1
	// FirstCookie is the least cookie of an entry; what is below is free for "." and "..".
	FirstCookie = 2 << ordinalBits
	lastHash    = 1<<(63-ordinalBits) - 1
)

// hashName is FNV-1a with the finalizer of MurmurHash3, as FNV's high bits mix badly. It is part of the disk format.
func hashName(name string) uint64 {
	f := fnv.New64a()
	f.Write([]byte(name))
	h := f.Sum64()
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// firstCookie is the cookie of ordinal 0 of a name.
func (v *Volume) firstCookie(name string) uint64 {
	return max(v.hash(name)&lastHash<<ordinalBits, FirstCookie)
}

func cookieOfKey(key []byte) uint64 { return binary.BigEndian.Uint64(key[9:]) }
func inoOfKey(key []byte) Ino       { return Ino(binary.BigEndian.Uint64(key[1:])) }

func (tx *Tx) dirent(dir Ino, cookie uint64) (d dirent, found bool, errno Errno) {
	id := direntID{dir, cookie}
	if tx.writable {
		c, ok := tx.dirents[id]
		if !ok {
			c, ok = tx.looked[id]
		}
		if ok {
			return c.dirent, !c.gone, OK
		}
	}
	b, err := tx.store.Get(direntKey(dir, cookie))
	if found = !errors.Is(err, store.ErrNotFound); !found {
		err = nil
	} else if err == nil {
		d, err = decodeDirent(b)
	}
	if err != nil {
		return dirent{}, false, tx.fail("read directory entry", err)
	}
	if tx.writable {
		tx.looked[id] = direntChange{dirent: d, gone: !found}
	}
	return d, found, OK
}

// scanDir calls fn for the records of dir with cookies in [lo, hi), tombstones included.
func (tx *Tx) scanDir(dir Ino, lo, hi uint64, fn func(cookie uint64, d *dirent) bool) Errno {
	changes := tx.direntChanges(dir, lo, hi)
	stopped := false
	emit := func(cookie uint64, d *dirent) bool {
		if !fn(cookie, d) {
			stopped = true
		}
		return !stopped
	}
	var bad error
	err := tx.store.Scan(direntKey(dir, lo), direntKey(dir, hi), func(key, value []byte) bool {
		cookie := cookieOfKey(key)
		for len(changes) > 0 && changes[0] <= cookie {
			at := changes[0]
			changes = changes[1:]
			if c := tx.dirents[direntID{dir, at}]; !c.gone && !emit(at, &c.dirent) {
				return false
			}
			if at == cookie {
				return true
			}
		}
		d, err := decodeDirent(value)
		if err != nil {
			bad = err
			return false
		}
		return emit(cookie, &d)
	})
	if err == nil {
		err = bad
	}
	if err != nil {
		return tx.fail("read directory", err)
	}
	for _, at := range changes {
		if stopped {
			break
		}
		if c := tx.dirents[direntID{dir, at}]; !c.gone {
			emit(at, &c.dirent)
		}
	}
	return OK
}

// direntChanges returns the cookies in [lo, hi) of dir that the entry being applied has changed, in order.
func (tx *Tx) direntChanges(dir Ino, lo, hi uint64) []uint64 {
	if len(tx.dirents) == 0 {
		return nil
	}
	var cookies []uint64
	for id := range tx.dirents {
		if id.dir == dir && id.cookie >= lo && id.cookie < hi {
			cookies = append(cookies, id.cookie)
		}
	}
	sort.Slice(cookies, func(i, j int) bool { return cookies[i] < cookies[j] })
	return cookies
}

// find looks a name up.
func (tx *Tx) find(dir Ino, name string) (cookie uint64, d dirent, found bool, errno Errno) {
	first := tx.v.firstCookie(name)
	d, ok, errno := tx.dirent(dir, first)
	if !ok {
		return 0, dirent{}, false, errno
	}
	if d.ino != 0 && d.name == name {
		return first, d, true, OK
	}
	if !d.more {
		return 0, dirent{}, false, OK
	}
	errno = tx.scanDir(dir, first+1, first+maxOrdinal+1, func(at uint64, e *dirent) bool {
		if e.name == name {
			cookie, d, found = at, *e, true
		}
		return !found
	})
	return cookie, d, found, errno
}

func (tx *Tx) setDirent(dir Ino, cookie uint64, d dirent) {
	tx.dirents[direntID{dir, cookie}] = direntChange{dirent: d}
}

// addEntry adds a name that find did not find.
func (tx *Tx) addEntry(dir Ino, name string, ino Ino, typ FileType) Errno {
	first := tx.v.firstCookie(name)
	d := dirent{ino: ino, typ: typ, name: name}
	head, ok, errno := tx.dirent(dir, first)
	if errno != OK {
		return errno
	}
	if !ok {
		tx.setDirent(dir, first, d)
		return OK
	}
	if head.ino == 0 {
		d.more = head.more
		tx.setDirent(dir, first, d)
		return OK
	}
	free := first + 1
	errno = tx.scanDir(dir, free, first+maxOrdinal+1, func(at uint64, _ *dirent) bool {
		if at == free {
			free++
			return true
		}
		return false
	})
	if errno != OK {
		return errno
	}
	if free > first+maxOrdinal {
		return ErrNoSpace
	}
	head.more = true
	tx.setDirent(dir, first, head)
	tx.setDirent(dir, free, d)
	return OK
}

// removeEntry takes away the entry at cookie.
func (tx *Tx) removeEntry(dir Ino, cookie uint64) Errno {
	first := cookie &^ maxOrdinal
	head, _, errno := tx.dirent(dir, first)
	if errno != OK {
		return errno
	}
	if cookie == first {
		if head.more {
			tx.setDirent(dir, first, dirent{more: true})
		} else {
			tx.dirents[direntID{dir, first}] = direntChange{gone: true}
		}
		return OK
	}
	tx.dirents[direntID{dir, cookie}] = direntChange{gone: true}
	others := false
	errno = tx.scanDir(dir, first+1, first+maxOrdinal+1, func(uint64, *dirent) bool {
		others = true
		return false
	})
	if others || errno != OK {
		return errno
	}
	head.more = false
	tx.dirents[direntID{dir, first}] = direntChange{dirent: head, gone: head.ino == 0}
	return OK
}

// replaceEntry lets an existing name stand for another inode. The cookie stays: to a reader of the directory it is the same entry.
func (tx *Tx) replaceEntry(dir Ino, cookie uint64, old dirent, ino Ino, typ FileType) {
	old.ino, old.typ = ino, typ
	tx.setDirent(dir, cookie, old)
}

// DirEntry is one entry of a directory listing.
type DirEntry struct {
	Name   string
	Ino    Ino
	Type   FileType
	Cookie uint64 // >= 512, below 1<<63, the same for ever while the entry lives; the same on every replica
}

// ReadDir calls fn for the entries after cookie (0: from the start; "." and ".." are left out) until it returns false. eof reports that the
// end was reached. The caller checks read permission with Access first. fn may use the Tx, but not change anything.
func (tx *Tx) ReadDir(dir *Inode, cookie uint64, fn func(e DirEntry) bool) (eof bool, errno Errno) {
	dir, errno = tx.current(dir)
	if errno != OK {
		return false, errno
	}
	if dir.Type != TypeDir {
		return false, ErrNotDir
	}
	const end = 1 << 63
	if cookie >= end {
		return false, ErrBadCookie
	}
	eof = true
	errno = tx.scanDir(dir.Ino, cookie+1, end, func(at uint64, d *dirent) bool {
		if d.ino == 0 {
			return true
		}
		eof = fn(DirEntry{Name: d.name, Ino: d.ino, Type: d.typ, Cookie: at})
		return eof
	})
	return eof && errno == OK, errno
}
