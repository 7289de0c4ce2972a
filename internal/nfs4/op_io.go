package nfs4

import (
	"holdfast/internal/nfs4/state"
	"holdfast/internal/volume"
)

// MaxIOBytes is the most data that one READ or WRITE moves (maxread and maxwrite, RFC 8881 sections 5.8.2.20 and 5.8.2.21).
const MaxIOBytes = 1 << 20

// writeVerifier never changes: no acknowledged write is ever lost, so no client need send data again (RFC 8881 section 18.3.3).
var writeVerifier = [8]byte{'h', 'o', 'l', 'd', 'f', 'a', 's', 't'}

const (
	fileSync = 2 // FILE_SYNC4
)

// opRead is READ (RFC 8881 section 18.22). The data is read straight into the reply. Access times are not updated, as with noatime.
func opRead(c *compound) status {
	n, sid, st := c.regularAndStateid()
	if st != statusOK {
		return st
	}
	if st := c.checkIO(n, sid, state.AccessRead); st != statusOK {
		return st
	}
	count := uint64(min(c.a.count, MaxIOBytes))
	if c.a.offset >= n.Size {
		count = 0
	} else {
		count = min(count, n.Size-c.a.offset)
	}
	if !c.room(int(count) + 16) {
		return c.tooBig()
	}
	if count > 0 && !n.Inline && !c.tx.ReadOnly() {
		if st := c.readInApply(); st != statusOK {
			return st
		}
	}
	at := c.e.Len()
	c.e.Bool(c.a.offset+count >= n.Size)
	c.e.Uint32(0)
	if count == 0 {
		return statusOK
	}
	got, eof, st := c.tx.Read(n, c.a.offset, c.e.Extend(int(count)))
	if st != statusOK {
		return st
	}
	c.e.Truncate(at + 8 + got)
	c.e.PadTo(got)
	c.e.PutUint32(at, 0)
	if eof {
		c.e.PutUint32(at, 1)
	}
	c.e.PutUint32(at+4, uint32(got))
	return statusOK
}

// readInApply sees to it that what a READ finds beside mutating operations does not get into the recorded reply: on a replica that catches up after a crash, or after a
// snapshot, the content of a large file may be newer than the entry (volume.Tx.Read), and the replicas' records would differ. A client that insists on the reply being
// recorded is told that it is too big for that, in any state of the file, so that all replicas say the same.
func (c *compound) readInApply() status {
	if c.seq.cache {
		return errRepTooBigToCache
	}
	c.unrepeatable = true
	return statusOK
}

// opWrite is WRITE (RFC 8881 section 18.32). Whatever stability the client asks for, it gets FILE_SYNC4: the reply leaves after the log entry is on a majority of
// disks.
func opWrite(c *compound) status {
	n, st := c.writableFile()
	if st != statusOK {
		return st
	}
	sid, st := c.stateidArg()
	if st != statusOK {
		return st
	}
	if st := c.checkIO(n, sid, state.AccessWrite); st != statusOK {
		return st
	}
	data := c.a.data[:min(len(c.a.data), MaxIOBytes)]
	if len(data) > 0 {
		if _, st := c.tx.Write(c.cred(c.cur.rule), n, c.a.offset, data); st != statusOK {
			return st
		}
	}
	c.e.Uint32(uint32(len(data)))
	c.e.Uint32(fileSync)
	c.e.Fixed(writeVerifier[:])
	return statusOK
}

// opCommit is COMMIT (RFC 8881 section 18.3): there is never anything left to commit.
func opCommit(c *compound) status {
	if _, st := c.regular(); st != statusOK {
		return st
	}
	if c.a.offset+uint64(c.a.count) < c.a.offset {
		return volume.ErrInval
	}
	c.e.Fixed(writeVerifier[:])
	return statusOK
}

// opSeek is SEEK (RFC 7862 section 15.11).
func opSeek(c *compound) status {
	const contentData, contentHole = 0, 1
	n, st := c.regular()
	if st != statusOK {
		return st
	}
	if c.a.typ != contentData && c.a.typ != contentHole {
		return errUnionNotSupp
	}
	sid, st := c.stateidArg()
	if st != statusOK {
		return st
	}
	if st := c.checkIO(n, sid, state.AccessRead); st != statusOK {
		return st
	}
	at, eof, st := c.tx.Seek(n, c.a.offset, c.a.typ == contentHole)
	if st != statusOK {
		return st
	}
	c.e.Bool(eof)
	c.e.Uint64(at)
	return statusOK
}

// opAllocate is ALLOCATE (RFC 7862 section 15.1).
func opAllocate(c *compound) status {
	n, st := c.rangeToWrite()
	if st != statusOK {
		return st
	}
	_, st = c.tx.Allocate(n, c.a.offset, c.a.length)
	return st
}

// opDeallocate is DEALLOCATE (RFC 7862 section 15.4).
func opDeallocate(c *compound) status {
	n, st := c.rangeToWrite()
	if st != statusOK {
		return st
	}
	_, st = c.tx.Deallocate(n, c.a.offset, c.a.length)
	return st
}

// rangeToWrite checks the arguments that ALLOCATE and DEALLOCATE share.
func (c *compound) rangeToWrite() (*volume.Inode, status) {
	n, st := c.writableFile()
	if st != statusOK {
		return nil, st
	}
	if c.a.length == 0 {
		return nil, volume.ErrInval
	}
	if c.a.offset > volume.MaxFileBytes || c.a.length > volume.MaxFileBytes-c.a.offset {
		return nil, volume.ErrFBig
	}
	sid, st := c.stateidArg()
	if st != statusOK {
		return nil, st
	}
	return n, c.checkIO(n, sid, state.AccessWrite)
}

// opIOAdvise is IO_ADVISE (RFC 7862 section 15.5): no hint is honoured, which the empty bitmap says.
func opIOAdvise(c *compound) status {
	if _, st := c.regular(); st != statusOK {
		return st
	}
	bitmap{}.encode(c.e)
	return statusOK
}

// opReadlink is READLINK (RFC 8881 section 18.24).
func opReadlink(c *compound) status {
	if !c.cur.set {
		return errNoFileHandle
	}
	if c.cur.pseudo() {
		return errWrongType
	}
	n, st := c.node(&c.cur)
	if st != statusOK {
		return st
	}
	if n.Type != volume.TypeSymlink {
		return errWrongType
	}
	if !c.room(len(n.Target) + 8) {
		return c.tooBig()
	}
	c.e.String(n.Target)
	return statusOK
}
