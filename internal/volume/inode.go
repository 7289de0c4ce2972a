package volume

import (
	"errors"
	"slices"

	"holdfast/internal/store"
)

// Inode returns an inode, or ErrStale if there is none (gen 0 matches any generation).
func (tx *Tx) Inode(ino Ino, gen uint32) (*Inode, Errno) {
	n, errno := tx.inode(ino)
	if errno == OK && gen != 0 && gen != n.Gen {
		return nil, ErrStale
	}
	return n, errno
}

func (tx *Tx) inode(ino Ino) (*Inode, Errno) {
	if tx.writable {
		if n, ok := tx.inodes[ino]; ok {
			if n == nil {
				return nil, ErrStale
			}
			return n, OK
		}
	}
	cached := tx.store != noStore
	if cached {
		if n := tx.v.cache.get(ino); n != nil {
			return n, OK
		}
	}
	b, err := tx.store.Get(inodeKey(ino))
	if errors.Is(err, store.ErrNotFound) {
		return nil, ErrStale
	}
	if err != nil {
		return nil, tx.fail("read inode", err)
	}
	n, err := decodeInode(ino, b)
	if err != nil {
		return nil, tx.fail("read inode", err)
	}
	if cached {
		tx.v.cache.put(n)
	}
	return n, OK
}

// current returns the state of n within the Tx.
func (tx *Tx) current(n *Inode) (*Inode, Errno) {
	if !tx.writable {
		return n, OK
	}
	return tx.inode(n.Ino)
}

// touch stamps the change of n, a copy that nobody else has yet, and makes it current.
func (tx *Tx) touch(n *Inode) {
	n.Ctime = tx.now
	n.Change = tx.index
	tx.count(n)
	tx.inodes[n.Ino] = n
}

// newInode makes an inode without a name.
func (tx *Tx) newInode(typ FileType) *Inode {
	n := &Inode{
		Ino: tx.state.nextIno, Gen: 1, Type: typ, Nlink: 1,
		Atime: tx.now, Mtime: tx.now, Btime: tx.now,
		Inline: typ == TypeFile,
	}
	if tx.state.version >= restoreVersion {
		n.Gen = generation(tx.index)
	}
	tx.state.nextIno++
	tx.state.inodes++
	return n
}

// unlinked takes one name from n and frees it if that was the last and nobody holds it open.
func (tx *Tx) unlinked(n *Inode) {
	m := *n
	m.Nlink--
	if m.Type == TypeDir {
		m.Nlink = 0
	}
	tx.touch(&m)
	if m.Nlink > 0 {
		return
	}
	if m.Type != TypeDir && tx.v.inUse(m.Ino) {
		tx.orphans[m.Ino] = true
		return
	}
	tx.free(&m)
}

func (v *Volume) inUse(ino Ino) bool {
	for _, p := range v.programs {
		if p.InUse(ino) {
			return true
		}
	}
	return false
}

// free drops an inode that has no name.
func (tx *Tx) free(n *Inode) {
	tx.inodes[n.Ino] = nil
	tx.state.inodes--
	tx.state.used -= n.counted
	if n.Type != TypeFile {
		return
	}
	if n.Inline {
		if n.Size > 0 {
			tx.inline[n.Ino] = nil
		}
		return
	}
	tx.removeObject(n.Ino)
}

// ReleaseOrphan frees an inode whose last name is gone if no program holds it open any longer. A program calls it after it dropped an open.
func (tx *Tx) ReleaseOrphan(ino Ino) {
	if tx.changeable() != OK {
		return
	}
	n, errno := tx.inode(ino)
	if errno != OK || n.Nlink > 0 || tx.v.inUse(ino) {
		return
	}
	tx.orphans[ino] = false
	tx.free(n)
}

// Orphans returns the inodes that have no name left but are held open, in order.
func (tx *Tx) Orphans() []Ino {
	var inos []Ino
	err := tx.store.Scan([]byte{prefixOrphan}, []byte{prefixOrphan + 1}, func(key, _ []byte) bool {
		if _, changed := tx.orphans[inoOfKey(key)]; !changed {
			inos = append(inos, inoOfKey(key))
		}
		return true
	})
	if err != nil {
		tx.fail("list orphans", err)
	}
	for ino, orphan := range tx.orphans {
		if orphan {
			inos = append(inos, ino)
		}
	}
	slices.Sort(inos)
	return inos
}
