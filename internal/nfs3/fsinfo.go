package nfs3

import "holdfast/internal/volume"

// Properties of FSINFO (RFC 1813 section 3.3.19).
const (
	fsfLink        = 0x01
	fsfSymlink     = 0x02
	fsfHomogeneous = 0x08
	fsfCanSetTime  = 0x10
)

// What FSINFO says about sizes. The multiple is a page: anything else makes the host read before it writes.
const (
	ioMultiple     = 4096
	preferredDirIO = 64 << 10
)

// fsStat is NFSPROC3_FSSTAT (RFC 1813 section 3.3.18).
func (c *call) fsStat() bool {
	var o object
	if ok, done := c.beginInfo(&o); done {
		return ok
	}
	s := c.tx.FSStat()
	c.e.Uint64(s.TotalBytes)
	c.e.Uint64(s.FreeBytes)
	c.e.Uint64(s.AvailBytes)
	c.e.Uint64(s.TotalFiles)
	c.e.Uint64(s.FreeFiles)
	c.e.Uint64(s.FreeFiles) // available to the caller: nobody has reserved any
	c.e.Uint32(0)           // invarsec: may change at any time
	return true
}

// fsInfo is NFSPROC3_FSINFO (RFC 1813 section 3.3.19).
func (c *call) fsInfo() bool {
	var o object
	if ok, done := c.beginInfo(&o); done {
		return ok
	}
	c.e.Uint32(maxIOBytes) // rtmax
	c.e.Uint32(maxIOBytes) // rtpref
	c.e.Uint32(ioMultiple) // rtmult
	c.e.Uint32(maxIOBytes) // wtmax
	c.e.Uint32(maxIOBytes) // wtpref
	c.e.Uint32(ioMultiple) // wtmult
	c.e.Uint32(preferredDirIO)
	c.e.Uint64(volume.MaxFileBytes)
	c.e.Uint32(0) // time_delta: one nanosecond
	c.e.Uint32(1)
	c.e.Uint32(fsfLink | fsfSymlink | fsfHomogeneous | fsfCanSetTime)
	return true
}

// pathConf is NFSPROC3_PATHCONF (RFC 1813 section 3.3.20).
func (c *call) pathConf() bool {
	var o object
	if ok, done := c.beginInfo(&o); done {
		return ok
	}
	c.e.Uint32(volume.MaxLinks)
	c.e.Uint32(volume.MaxNameBytes)
	c.e.Bool(true)  // no_trunc: a name too long is an error
	c.e.Bool(true)  // chown_restricted
	c.e.Bool(false) // case_insensitive
	c.e.Bool(true)  // case_preserving
	return true
}

// beginInfo reads the handle that is all of the arguments and appends status and attributes. When done, the reply is complete.
func (c *call) beginInfo(o *object) (ok, done bool) {
	handle := c.handle()
	if c.d.Err() != nil {
		return false, true
	}
	if st := c.resolve(handle, o); st != stOK {
		return c.fail(st, o), true
	}
	c.e.Uint32(uint32(stOK))
	c.postOp(o, o.n)
	return true, false
}
