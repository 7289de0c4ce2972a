package volume

// cuts lets readers of file data notice that content was taken away under them: truncated, punched or removed. Apply does that without the
// volume's lock and before the inode shows it. Guarded by Volume.mu.
type cuts struct {
	count   uint64           // of cuts ever begun
	running map[Ino]struct{} // begun by the entry that is being applied
	done    chan struct{}    // closed when that entry is published
}

// begin notes a cut that is about to start.
func (c *cuts) begin(ino Ino) {
	c.count++
	if c.running == nil {
		c.running = map[Ino]struct{}{}
	}
	if len(c.running) == 0 {
		c.done = make(chan struct{})
	}
	c.running[ino] = struct{}{}
}

// publish ends all running cuts.
func (c *cuts) publish() {
	if len(c.running) > 0 {
		clear(c.running)
		close(c.done)
	}
}

// readTries is how often a reader reads without the lock before it shuts out cuts by keeping it.
const readTries = 3

// Read fills buf from off and returns how many bytes lie before the end of file and whether the end was reached.
//
// The volume's lock is released while the disk is read, so in a read Tx the data may be newer than n, never older. In Apply the count and eof
// are the same on every replica, but on one that is catching up after a crash or from a snapshot, data of files larger than InlineBytes
// may be newer than the entry: it must not find its way into replicated state (a recorded reply).
func (tx *Tx) Read(n *Inode, off uint64, buf []byte) (count int, eof bool, errno Errno) {
	n, errno = tx.current(n)
	if errno != OK {
		return 0, false, errno
	}
	for try := 1; ; try++ {
		switch n.Type {
		case TypeFile:
		case TypeDir:
			return 0, false, ErrIsDir
		default:
			return 0, false, ErrInval
		}
		if off >= n.Size {
			return 0, true, OK
		}
		part := buf[:min(uint64(len(buf)), n.Size-off)]
		eof = off+uint64(len(part)) == n.Size
		if n.Inline {
			b, errno := tx.content(n)
			if errno != OK {
				return 0, false, errno
			}
			return copy(part, b[off:]), eof, OK
		}
		if len(part) == 0 {
			return 0, eof, OK
		}
		var whole bool
		if n, whole, errno = tx.readObject(n, off, part, try); errno != OK {
			return 0, false, errno
		}
		if whole {
			return len(part), eof, OK
		}
	}
}

// readObject reads an object with the lock released and reports whether what it read is whole; if not it was cut meanwhile, and the
// inode to try again with is returned.
func (tx *Tx) readObject(n *Inode, off uint64, buf []byte, try int) (*Inode, bool, Errno) {
	c := &tx.v.cuts
	if tx.writable {
		// The changes so far must be in the object. Nobody else changes it.
		if tx.flushObjects(); tx.err != nil {
			return nil, false, ErrIO
		}
	} else if _, cutting := c.running[n.Ino]; cutting {
		done := c.done
		tx.unlock()
		<-done
		tx.lock()
		n, errno := tx.inode(n.Ino)
		return n, false, errno
	}
	before := c.count
	keepLock := try > readTries && !tx.writable
	if !keepLock {
		tx.unlock()
	}
	err := tx.store.ReadObject(uint64(n.Ino), int64(off), buf)
	if !keepLock {
		tx.lock()
	}
	if err != nil {
		return nil, false, tx.fail("read object", err)
	}
	if tx.writable || c.count == before {
		return n, true, OK
	}
	if _, cutting := c.running[n.Ino]; cutting {
		return n, false, OK
	}
	now, errno := tx.inode(n.Ino)
	return now, errno == OK && now.Change == n.Change, errno
}
