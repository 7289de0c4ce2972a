package nfs4

import "holdfast/internal/volume"

// opTestStateid is TEST_STATEID (RFC 8881 section 18.48).
func opTestStateid(c *compound) status {
	c.e.Uint32(uint32(len(c.a.stateids)))
	for _, sid := range c.a.stateids {
		c.e.Uint32(uint32(c.p.tables.TestStateID(c.client, sid)))
	}
	return statusOK
}

// opFreeStateid is FREE_STATEID (RFC 8881 section 18.38).
func opFreeStateid(c *compound) status {
	sid, st := c.stateidArg()
	if st != statusOK {
		return st
	}
	return c.p.tables.FreeStateID(&c.kv, c.client, sid)
}

// opDelegReturn is DELEGRETURN (RFC 8881 section 18.6): no delegation was ever given, so the stateid is not one.
func opDelegReturn(c *compound) status {
	if !c.cur.set {
		return errNoFileHandle
	}
	return errBadStateid
}

// opGetDirDelegation is GET_DIR_DELEGATION (RFC 8881 section 18.39): never available, and no signal will come when it is.
func opGetDirDelegation(c *compound) status {
	const unavailable = 1 // GDD4_UNAVAIL
	if !c.cur.set {
		return errNoFileHandle
	}
	if !c.cur.pseudo() {
		n, st := c.node(&c.cur)
		if st != statusOK {
			return st
		}
		if n.Type != volume.TypeDir {
			return volume.ErrNotDir
		}
	}
	c.e.Uint32(unavailable)
	c.e.Bool(false)
	return statusOK
}
