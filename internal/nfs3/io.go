package nfs3

import (
	"encoding/binary"

	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

// maxIOBytes is rtmax and wtmax of FSINFO: the most that one READ returns. A WRITE may carry as much as the record layer lets through.
const maxIOBytes = 1 << 20

// fileSync is FILE_SYNC of stable_how, the only answer to WRITE: the data is on a majority of disks before the reply leaves
// (RFC 1813 section 3.3.7).
const fileSync = 2

// writeVerifier never changes, on any node and across every failover: no write that was answered is ever lost, so no client ever needs
// to send data again.
const writeVerifier = 0x686f6c6466617374 // "holdfast"

// read is NFSPROC3_READ (RFC 1813 section 3.3.6). The data goes from the volume straight into the reply.
func (c *call) read() bool {
	handle, off, count := c.handle(), c.d.Uint64(), c.d.Uint32()
	if c.d.Err() != nil {
		return false
	}
	var o object
	st := c.resolve(handle, &o)
	if st == stOK {
		st = c.mayRead(&o)
	}
	if st != stOK {
		return c.fail(st, &o)
	}
	base := c.e.Len()
	c.e.Uint32(uint32(stOK))
	c.postOp(&o, o.n)
	// count, eof and the length of the data come before the data, but are known after it.
	at := c.e.Len()
	c.e.Extend(12)
	got, eof := 0, off >= o.n.Size
	if n := readable(o.n.Size, off, count); n > 0 {
		var errno volume.Errno
		got, eof, errno = c.tx.Read(o.n, off, c.e.Extend(n))
		if errno != volume.OK {
			c.e.Truncate(base)
			return c.fail(statusOf(errno), &o)
		}
	}
	head := c.e.Bytes()[at:]
	binary.BigEndian.PutUint32(head, uint32(got))
	binary.BigEndian.PutUint32(head[4:], 0)
	if eof {
		head[7] = 1
	}
	binary.BigEndian.PutUint32(head[8:], uint32(got))
	c.e.Truncate(at + 12 + got)
	c.e.PadTo(got)
	return true
}

// readable returns how many of count bytes from off are before the end of a file of the given size, as far as one READ goes.
func readable(size, off uint64, count uint32) int {
	if off >= size {
		return 0
	}
	return int(min(size-off, uint64(count), maxIOBytes))
}

// mayRead checks that o is a file that the caller may read. Execute permission is enough, as a client must read a program to
// run it and version 3 has no way to say so (RFC 1813 section 4.4); the volume sees to that.
func (c *call) mayRead(o *object) status {
	if o.n.Type != volume.TypeFile {
		return stInval
	}
	return statusOf(c.tx.MayOpen(&o.cred, o.n, true, false))
}

// write is NFSPROC3_WRITE (RFC 1813 section 3.3.7). The data aliases the request's record.
func (c *call) write() bool {
	handle, off, count := c.handle(), c.d.Uint64(), c.d.Uint32()
	stable := c.d.Uint32()
	data := c.d.Opaque(^uint32(0))
	if c.d.Err() != nil || stable > fileSync {
		return false
	}
	var o object
	st := c.resolveForChange(handle, &o)
	if st == stOK {
		st = c.mayWrite(&o, off, count, data)
	}
	if st != stOK {
		return c.failWcc(st, &o)
	}
	after := o.n
	if len(data) > 0 {
		var errno volume.Errno
		if after, errno = c.tx.Write(&o.cred, o.n, off, data); errno != volume.OK {
			return c.failWcc(statusOf(errno), &o)
		}
	}
	c.e.Uint32(uint32(stOK))
	c.wccAfter(&o, after)
	c.e.Uint32(count)
	c.e.Uint32(fileSync)
	c.e.Uint64(writeVerifier)
	return true
}

func (c *call) mayWrite(o *object, off uint64, count uint32, data []byte) status {
	switch {
	case o.n.Type != volume.TypeFile, uint64(count) != uint64(len(data)):
		return stInval
	case off > volume.MaxFileBytes || uint64(len(data)) > volume.MaxFileBytes-off:
		return stFBig
	}
	return statusOf(c.tx.MayOpen(&o.cred, o.n, false, true))
}

// commit is NFSPROC3_COMMIT (RFC 1813 section 3.3.21). There is nothing left to do: every WRITE was stable.
func (c *call) commit() bool {
	handle := c.handle()
	c.d.Uint64() // offset
	c.d.Uint32() // count
	if c.d.Err() != nil {
		return false
	}
	var o object
	st := c.resolve(handle, &o)
	if st == stOK && o.n.Type != volume.TypeFile {
		st = stInval
	}
	if st != stOK {
		return c.failWcc(st, &o)
	}
	c.e.Uint32(uint32(stOK))
	c.wccAfter(&o, o.n)
	c.e.Uint64(writeVerifier)
	return true
}

// statusBytes is the length of the status that every reply begins with.
const statusBytes = 4

// worthRecording reports whether a duplicate of the call must get this reply. NFS3ERR_JUKEBOX asks the client to try again, and nothing was changed.
func worthRecording(reply []byte) bool {
	return len(reply) >= statusBytes && status(xdr.NewDecoder(reply).Uint32()) != stJukebox
}
