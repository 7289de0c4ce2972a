package nfs4

import (
	"holdfast/internal/nfs4/state"
	"holdfast/internal/volume"
)

// Bits of share_access beside the access itself (RFC 8881 section 18.16.1).
const (
	wantMask       = 0xFF00
	wantNoDeleg    = 0x0400
	wantCancel     = 0x0500
	wantWhenBits   = 0x30000 // SIGNAL_DELEG_WHEN_RESRC_AVAIL, PUSH_DELEG_WHEN_UNCONTENDED
	shareKnownBits = state.AccessBoth | wantMask | wantWhenBits
)

// Result flags: locks are POSIX locks, an open file outlives its name, and a denied lock may be announced by CB_NOTIFY_LOCK.
const openResultFlags = 0x04 | 0x08 | 0x20

// Delegation types and reasons of OPEN4resok.
const (
	delegateNone    = 0
	delegateNoneExt = 3

	whyNotWanted = 0
	whyResource  = 2
	whyCancelled = 7
)

// opening is an OPEN on its way to a file.
type opening struct {
	n       *volume.Inode
	dir     *volume.Inode // as it was; nil for claims by filehandle
	fh      filehandle
	attrset bitmap
	// created: this OPEN made the file, or is the retry of an exclusive one that did; so the caller may use it whatever its mode.
	created  bool
	truncate bool
}

// opOpen is OPEN (RFC 8881 section 18.16).
func opOpen(c *compound) status {
	o := &c.a.open
	if o.access&state.AccessBoth == 0 || o.access&^uint32(shareKnownBits) != 0 || o.deny&^state.DenyBoth != 0 {
		return volume.ErrInval
	}
	if !c.cur.set {
		return errNoFileHandle
	}
	var g opening
	var st status
	switch o.claim {
	case claimNull:
		st = c.openByName(&g)
	case claimFH, claimPrevious:
		st = c.openByHandle(&g)
	case claimDelegateCur, claimDelegCurFH: // no delegation was ever given, so the stateid is not one
		return errBadStateid
	default: // CLAIM_DELEGATE_PREV, CLAIM_DELEG_PREV_FH: section 18.16.3 asks for this when they are not supported
		return volume.ErrNotSupp
	}
	if st != statusOK {
		return st
	}
	sid, st := c.openFile(&g)
	if st != statusOK {
		return st
	}
	c.setCurrent(g.fh)
	c.answerState(sid)
	if g.dir != nil {
		c.changeInfo(g.dir)
	} else {
		c.e.Bool(true)
		c.e.Uint64(0)
		c.e.Uint64(0)
	}
	c.e.Uint32(openResultFlags)
	g.attrset.encode(c.e)
	c.encodeNoDelegation(o.access)
	return statusOK
}

// stateArgs is what the tables need to know of the OPEN of ino.
func (c *compound) stateArgs(ino volume.Ino) *state.OpenArgs {
	o := &c.a.open
	return &state.OpenArgs{
		Client:  c.client,
		Owner:   o.owner,
		Ino:     ino,
		Access:  o.access & state.AccessBoth,
		Deny:    o.deny,
		Reclaim: o.claim == claimPrevious,
	}
}

// openByName finds or makes the file of a CLAIM_NULL.
func (c *compound) openByName(g *opening) status {
	o := &c.a.open
	if st := checkName(o.name); st != statusOK {
		return st
	}
	fh, st := c.lookup(o.name)
	if st != statusOK && (st != volume.ErrNoEnt || !o.create) {
		return st
	}
	if c.cur.pseudo() {
		if st == volume.ErrNoEnt {
			return volume.ErrROFS
		}
		return volume.ErrIsDir
	}
	dir, dirSt := c.node(&c.cur)
	if dirSt != statusOK {
		return dirSt
	}
	g.dir = dir
	if o.create {
		if st := c.decodeCreateAttrs(); st != statusOK {
			return st
		}
	}
	if st == volume.ErrNoEnt {
		return c.createFile(g)
	}
	g.fh = fh
	if g.n, st = c.node(&fh); st != statusOK {
		return st
	}
	if o.create {
		return c.openExisting(g)
	}
	return statusOK
}

// decodeCreateAttrs reads the attributes of createhow4 into c.set. EXCLUSIVE4 has none.
func (c *compound) decodeCreateAttrs() status {
	o := &c.a.open
	allowed := attrsCreatable
	if o.mode == createExclusive41 {
		allowed = exclcreat(c.minor)
	}
	return c.set.decode(o.attrs, c.minor, allowed)
}

// openExisting applies the create mode to a file that is there.
func (c *compound) openExisting(g *opening) status {
	o := &c.a.open
	switch o.mode {
	case createUnchecked: // all attributes are ignored but a size of zero
		g.truncate = c.set.mask.has(attrSize) && c.set.size == 0 && g.n.Type == volume.TypeFile
		if g.truncate {
			g.attrset = bitmapOf(attrSize)
		}
		return statusOK
	case createExclusive, createExclusive41:
		if g.n.Type == volume.TypeFile && g.n.HasVerifier && g.n.Verifier == [8]byte(o.verifier) {
			g.created = true
			g.attrset = c.set.mask
			return statusOK
		}
	}
	return volume.ErrExist
}

// createFile makes the file. The checks of the open itself come first, so that an OPEN that fails leaves no file behind.
func (c *compound) createFile(g *opening) status {
	o := &c.a.open
	if c.cur.rule.ReadOnly {
		return volume.ErrROFS
	}
	if st := c.p.tables.CheckOpen(c.stateArgs(0)); st != statusOK {
		return st
	}
	attr := volume.CreateAttr{SetAttr: c.set.into(0)}
	if o.mode == createExclusive || o.mode == createExclusive41 {
		verifier := [8]byte(o.verifier)
		attr.Verifier = &verifier
	}
	n, st := c.tx.Create(c.cred(c.cur.rule), g.dir, string(o.name), volume.TypeFile, attr)
	if st != statusOK {
		return st
	}
	g.n, g.fh, g.created, g.attrset = n, c.atInode(n, c.cur.rule), true, c.set.mask
	return statusOK
}

// openByHandle takes the current filehandle as the file (CLAIM_FH, CLAIM_PREVIOUS).
func (c *compound) openByHandle(g *opening) status {
	if c.a.open.create {
		return volume.ErrInval
	}
	if c.cur.pseudo() {
		return volume.ErrIsDir
	}
	n, st := c.node(&c.cur)
	g.n, g.fh = n, c.cur
	return st
}

// openFile checks that the file may be opened as asked, truncates it if that was asked, and records the open.
func (c *compound) openFile(g *opening) (state.StateID, status) {
	o := &c.a.open
	switch g.n.Type {
	case volume.TypeFile:
	case volume.TypeDir:
		return state.StateID{}, volume.ErrIsDir
	default:
		// NFS4ERR_WRONG_TYPE would be more exact for devices, but a Linux client turns that into EIO; on this one it opens the special file itself.
		return state.StateID{}, volume.ErrSymlink
	}
	writes := o.access&state.AccessWrite != 0 || g.truncate
	if writes && g.fh.rule.ReadOnly {
		return state.StateID{}, volume.ErrROFS
	}
	if st := c.mayOpen(g, writes); st != statusOK {
		return state.StateID{}, st
	}
	args := c.stateArgs(g.n.Ino)
	if g.truncate {
		if st := c.p.tables.CheckOpen(args); st != statusOK {
			return state.StateID{}, st
		}
		var zero uint64
		if _, st := c.tx.SetAttr(c.cred(g.fh.rule), g.n, volume.SetAttr{Size: &zero}, true); st != statusOK {
			return state.StateID{}, st
		}
	}
	return c.p.tables.Open(&c.kv, args)
}

// mayOpen checks permission bits, for the owner too: an application that opens its own read-only file for writing must get EACCES. Whoever may execute a file may open it for reading, as
// the client cannot execute what it cannot read; clients find out with ACCESS which of the two is meant.
func (c *compound) mayOpen(g *opening, writes bool) status {
	cred := c.cred(g.fh.rule)
	switch c.a.open.claim {
	case claimPrevious: // was checked when it was first opened; modes may have changed since
		return c.tx.MayOpen(cred, g.n, c.a.open.access&state.AccessRead != 0, writes)
	default:
		if g.created {
			return statusOK
		}
	}
	if c.a.open.access&state.AccessRead != 0 && c.tx.Access(cred, g.n, accessRead|accessExecute) == 0 {
		return volume.ErrAccess
	}
	if writes && c.tx.Access(cred, g.n, accessModify) == 0 {
		return volume.ErrAccess
	}
	return statusOK
}

// encodeNoDelegation appends an open_delegation4 that grants none, with the reason if the client spoke of delegations at all (RFC 8881 section 18.16.3).
func (c *compound) encodeNoDelegation(access uint32) {
	switch access & wantMask {
	case 0:
		c.e.Uint32(delegateNone)
	case wantNoDeleg:
		c.e.Uint32(delegateNoneExt)
		c.e.Uint32(whyNotWanted)
	case wantCancel:
		c.e.Uint32(delegateNoneExt)
		c.e.Uint32(whyCancelled)
	default:
		c.e.Uint32(delegateNoneExt)
		c.e.Uint32(whyResource)
		c.e.Bool(false) // ond_server_will_signal_avail
	}
}

// opOpenDowngrade is OPEN_DOWNGRADE (RFC 8881 section 18.18).
func opOpenDowngrade(c *compound) status {
	n, sid, st := c.regularAndStateid()
	if st != statusOK {
		return st
	}
	o := &c.a.open
	if o.access&^uint32(shareKnownBits) != 0 || o.deny&^state.DenyBoth != 0 {
		return volume.ErrInval
	}
	sid, st = c.p.tables.Downgrade(&c.kv, c.client, n.Ino, sid, o.access&state.AccessBoth, o.deny)
	if st != statusOK {
		return st
	}
	c.answerState(sid)
	return statusOK
}

// opClose is CLOSE (RFC 8881 section 18.2).
func opClose(c *compound) status {
	n, sid, st := c.regularAndStateid()
	if st != statusOK {
		return st
	}
	res, st := c.p.tables.Close(&c.kv, c.client, n.Ino, sid)
	if st != statusOK {
		return st
	}
	if res.LastClose {
		c.closed = append(c.closed, n.Ino)
	}
	c.notify = append(c.notify, res.Notify...)
	c.curState, c.curStateSet = state.StateID{}, false
	c.encodeStateid(res.StateID)
	return statusOK
}
