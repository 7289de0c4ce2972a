package volume

import (
	"encoding/binary"
	"errors"
	"unsafe"

	"holdfast/internal/store"
)

// blockBytes is the unit in which Used counts the storage of objects.
const blockBytes = 4096

func roundUp(n, unit uint64) uint64 { return (n + unit - 1) / unit * unit }

// blocksOf is the storage that [off, end) touches.
func blocksOf(off, end uint64) uint64 { return roundUp(end, blockBytes) - off/blockBytes*blockBytes }

// account sets Used after the content of an object changed: a file without holes uses what its size needs; for one with holes it adds up what was
// written, which counts twice what was written twice, but never more than the size needs.
func account(n *Inode, added uint64) {
	switch {
	case n.Size == 0:
		n.Used, n.Sparse = 0, false
	case n.Inline:
		n.Used, n.Sparse = roundUp(n.Size, 512), false
	case n.Sparse:
		n.Used = min(n.Used+added, roundUp(n.Size, blockBytes))
	default:
		n.Used = roundUp(n.Size, blockBytes)
	}
}

// content returns what an inline file holds: always Size bytes.
func (tx *Tx) content(n *Inode) ([]byte, Errno) {
	if n.Size == 0 {
		return nil, OK
	}
	if tx.writable {
		if b, ok := tx.inline[n.Ino]; ok {
			return b, OK
		}
	}
	b, err := tx.store.Get(inlineKey(n.Ino))
	if err != nil {
		return nil, tx.fail("read inline content", err)
	}
	return b, OK
}

// setContent replaces the content of an inline file.
func (tx *Tx) setContent(n *Inode, b []byte) {
	if len(b) == 0 {
		b = nil
	}
	if b != nil || n.Size > 0 {
		tx.inline[n.Ino] = b
	}
	n.Size = uint64(len(b))
	account(n, 0)
}

// spill moves the content of an inline file to an object, before the file grows beyond what may be inline.
func (tx *Tx) spill(n *Inode) Errno {
	b, errno := tx.content(n)
	if errno != OK {
		return errno
	}
	if len(b) > 0 {
		tx.object(objectOp{kind: opWrite, ino: n.Ino, data: b})
		tx.inline[n.Ino] = nil
	}
	n.Inline = false
	account(n, 0)
	return OK
}

// Write writes data (aliasing the log entry: it is not kept) at off; c is checked for clearing setuid and setgid only.
func (tx *Tx) Write(c *Cred, n *Inode, off uint64, data []byte) (*Inode, Errno) {
	n, errno := tx.writableFile(n)
	if errno != OK || len(data) == 0 {
		return n, errno
	}
	if off > MaxFileBytes || uint64(len(data)) > MaxFileBytes-off {
		return nil, ErrFBig
	}
	end := off + uint64(len(data))
	if tx.full && (end > n.Size || n.Sparse) || !tx.room(more(n, usedAfterWrite(n, off, end))) {
		return nil, ErrNoSpace
	}
	m := *n
	if m.Inline && end <= InlineBytes {
		errno = tx.writeInline(&m, off, data)
	} else {
		errno = tx.writeObject(&m, off, data)
	}
	if errno != OK {
		return nil, errno
	}
	if c != nil && c.UID != 0 {
		m.Mode = withoutPrivileges(m.Mode)
	}
	tx.written(&m)
	return &m, OK
}

// writableFile returns the current state of n if it may be written in this Tx and is a regular file.
func (tx *Tx) writableFile(n *Inode) (*Inode, Errno) {
	if errno := tx.changeable(); errno != OK {
		return nil, errno
	}
	n, errno := tx.current(n)
	switch {
	case errno != OK:
		return nil, errno
	case n.Type == TypeDir:
		return nil, ErrIsDir
	case n.Type != TypeFile:
		return nil, ErrInval
	}
	return n, OK
}

// written stamps a change of content.
func (tx *Tx) written(n *Inode) {
	n.Mtime = tx.now
	n.HasVerifier, n.Verifier = false, [8]byte{}
	tx.touch(n)
}

func (tx *Tx) writeInline(n *Inode, off uint64, data []byte) Errno {
	old, errno := tx.content(n)
	if errno != OK {
		return errno
	}
	b := make([]byte, max(n.Size, off+uint64(len(data))))
	copy(b, old)
	copy(b[off:], data)
	tx.setContent(n, b)
	return OK
}

func (tx *Tx) writeObject(n *Inode, off uint64, data []byte) Errno {
	if n.Inline {
		if errno := tx.spill(n); errno != OK {
			return errno
		}
	}
	end := off + uint64(len(data))
	if off > roundUp(n.Size, blockBytes) {
		n.Sparse = true
	}
	n.Size = max(n.Size, end)
	tx.object(objectOp{kind: opWrite, ino: n.Ino, off: off, data: data})
	account(n, blocksOf(off, end))
	return OK
}

// resize is truncate. n is a copy that is not published yet.
func (tx *Tx) resize(n *Inode, size uint64) {
	switch {
	case size == n.Size:
	case n.Inline && size <= InlineBytes:
		old, errno := tx.content(n)
		if errno != OK {
			return
		}
		b := make([]byte, size)
		copy(b, old)
		tx.setContent(n, b)
	case n.Inline:
		if tx.spill(n) == OK {
			n.Sparse = n.Sparse || roundUp(n.Size, blockBytes) < size
			n.Size = size
			account(n, 0)
		}
	case size == 0:
		tx.removeObject(n.Ino)
		n.Inline, n.Size = true, 0
		account(n, 0)
	case size < n.Size:
		tx.object(objectOp{kind: opTruncate, ino: n.Ino, off: size})
		n.Size = size
		account(n, 0)
	default:
		// Nothing beyond the old size is in the object, so a hole needs no change of it.
		n.Sparse = n.Sparse || roundUp(n.Size, blockBytes) < size
		n.Size = size
		account(n, 0)
	}
}

// Allocate is ALLOCATE of RFC 7862 section 15.1: it reserves storage and extends the file to the end of the region.
func (tx *Tx) Allocate(n *Inode, off, length uint64) (*Inode, Errno) {
	n, errno := tx.writableFile(n)
	switch {
	case errno != OK:
		return nil, errno
	case length == 0:
		return nil, ErrInval
	case off > MaxFileBytes || length > MaxFileBytes-off:
		return nil, ErrFBig
	case tx.full || length > tx.allocatable():
		return nil, ErrNoSpace
	}
	end := off + length
	if !tx.room(more(n, usedAfterWrite(n, off, end))) {
		return nil, ErrNoSpace
	}
	m := *n
	if m.Inline && end <= InlineBytes {
		if end > m.Size {
			tx.resize(&m, end)
		}
	} else {
		if m.Inline {
			if errno := tx.spill(&m); errno != OK {
				return nil, errno
			}
		}
		tx.object(objectOp{kind: opAllocate, ino: m.Ino, off: off, length: length})
		if off > roundUp(m.Size, blockBytes) {
			m.Sparse = true
		}
		m.Size = max(m.Size, end)
		account(&m, blocksOf(off, end))
	}
	tx.written(&m)
	return &m, OK
}

// allocatable is how much ALLOCATE may ask for: the space that the replicated figures show, so that no client can make a
// replica run out of space by one call; all there is while no figures are known.
func (tx *Tx) allocatable() uint64 {
	s := tx.hostSpace()
	if s.TotalBytes == 0 {
		return MaxFileBytes
	}
	return s.FreeBytes
}

// Deallocate is DEALLOCATE of RFC 7862 section 15.4: it makes a hole; the size stays.
func (tx *Tx) Deallocate(n *Inode, off, length uint64) (*Inode, Errno) {
	n, errno := tx.writableFile(n)
	switch {
	case errno != OK:
		return nil, errno
	case length == 0:
		return nil, ErrInval
	case off > MaxFileBytes || length > MaxFileBytes-off:
		return nil, ErrFBig
	}
	end := min(off+length, n.Size)
	m := *n
	switch {
	case off >= end:
	case m.Inline:
		old, errno := tx.content(&m)
		if errno != OK {
			return nil, errno
		}
		b := append([]byte(nil), old...)
		clear(b[off:end])
		tx.setContent(&m, b)
	default:
		tx.object(objectOp{kind: opPunch, ino: m.Ino, off: off, length: end - off})
		punched(&m, off, end)
	}
	tx.written(&m)
	return &m, OK
}

// punched lowers Used by the blocks that a hole frees. Of a file that had holes already nobody knows which blocks were there.
func punched(n *Inode, off, end uint64) {
	first, last := roundUp(off, blockBytes), end/blockBytes*blockBytes
	if end == n.Size {
		last = roundUp(end, blockBytes)
	}
	switch {
	case last <= first:
		return
	case first == 0 && end == n.Size:
		n.Used = 0
	case !n.Sparse:
		n.Used -= last - first
	}
	n.Sparse = true
}

// Seek is SEEK of RFC 7862 section 15.11: the first offset at or after off that is in a hole, or holds data. eof says that there is none, in
// which case at is the size; off at or beyond the size is ErrNXIO.
//
// Where holes lie is the host's business and may differ between replicas, so in Apply every file is taken to have none but the one at its end.
func (tx *Tx) Seek(n *Inode, off uint64, hole bool) (at uint64, eof bool, errno Errno) {
	n, errno = tx.current(n)
	switch {
	case errno != OK:
		return 0, false, errno
	case n.Type == TypeDir:
		return 0, false, ErrIsDir
	case n.Type != TypeFile:
		return 0, false, ErrInval
	case off >= n.Size:
		return 0, false, ErrNXIO
	}
	if n.Inline || tx.writable {
		if hole {
			return n.Size, true, OK
		}
		return off, false, OK
	}
	tx.unlock()
	found, err := tx.v.store.SeekObject(uint64(n.Ino), int64(off), hole)
	tx.lock()
	switch {
	case errors.Is(err, store.ErrNoData):
		if hole {
			return off, false, OK // beyond the object's end all is a hole
		}
		return n.Size, true, OK
	case err != nil:
		return 0, false, tx.fail("seek", err)
	case uint64(found) >= n.Size:
		return n.Size, true, OK
	}
	return uint64(found), false, OK
}

// offsetIn returns where part, if it is a part of whole, starts in it.
func offsetIn(whole, part []byte) (int, bool) {
	if len(part) == 0 || len(whole) == 0 {
		return 0, false
	}
	at := uintptr(unsafe.Pointer(unsafe.SliceData(part))) - uintptr(unsafe.Pointer(unsafe.SliceData(whole)))
	if at > uintptr(len(whole)) || uintptr(len(part)) > uintptr(len(whole))-at {
		return 0, false
	}
	return int(at), true
}

func putSpace(total, free uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, total), free)
}
