package nfs4

import (
	"holdfast/internal/nfs4/state"
	"holdfast/internal/rpc"
	"holdfast/internal/volume"
)

// setCurrent makes fh the current filehandle; an operation that changes it and returns no stateid leaves none current (RFC 8881 section 16.2.3.1.2).
func (c *compound) setCurrent(fh filehandle) {
	c.cur = fh
	c.curState, c.curStateSet = state.StateID{}, false
}

// opPutFH is PUTFH (RFC 8881 section 18.19).
func opPutFH(c *compound) status {
	fh, st := c.resolve(c.a.fh)
	if st == statusOK {
		c.setCurrent(fh)
	}
	return st
}

// opPutRootFH is PUTROOTFH and PUTPUBFH (RFC 8881 sections 18.21 and 18.20): the public filehandle is the root.
func opPutRootFH(c *compound) status {
	fh, st := c.atPath(pseudoRoot)
	if st == statusOK {
		c.setCurrent(fh)
	}
	return st
}

// opGetFH is GETFH (RFC 8881 section 18.8).
func opGetFH(c *compound) status {
	if !c.cur.set {
		return errNoFileHandle
	}
	b := volume.EncodeHandle(c.cur.h)
	c.e.Opaque(b[:])
	return statusOK
}

// opSaveFH is SAVEFH (RFC 8881 section 18.28).
func opSaveFH(c *compound) status {
	if !c.cur.set {
		return errNoFileHandle
	}
	c.saved, c.savedState, c.savedStateSet = c.cur, c.curState, c.curStateSet
	return statusOK
}

// opRestoreFH is RESTOREFH (RFC 8881 section 18.27).
func opRestoreFH(c *compound) status {
	if !c.saved.set {
		return errRestoreFH
	}
	c.cur, c.curState, c.curStateSet = c.saved, c.savedState, c.savedStateSet
	return statusOK
}

// opLookup is LOOKUP (RFC 8881 section 18.13).
func opLookup(c *compound) status {
	fh, st := c.lookup(c.a.name)
	if st == statusOK {
		c.setCurrent(fh)
	}
	return st
}

// lookup finds name in the current directory, which may be a pseudo node.
func (c *compound) lookup(name []byte) (filehandle, status) {
	if !c.cur.set {
		return filehandle{}, errNoFileHandle
	}
	if c.cur.pseudo() {
		if st := checkName(name); st != statusOK {
			return filehandle{}, st
		}
		path := joinPseudo(c.cur.path, string(name))
		if _, ok := c.exportAt(path); !ok && !c.isPseudo(path) {
			return filehandle{}, volume.ErrNoEnt
		}
		return c.atPath(path)
	}
	dir, st := c.node(&c.cur)
	if st != statusOK {
		return filehandle{}, st
	}
	if st := wantDir(dir); st != statusOK {
		return filehandle{}, st
	}
	if st := checkName(name); st != statusOK {
		return filehandle{}, st
	}
	n, st := c.tx.Lookup(c.cred(c.cur.rule), dir, string(name))
	if st != statusOK {
		return filehandle{}, st
	}
	return c.below(n, c.cur.rule), statusOK
}

// opLookupP is LOOKUPP (RFC 8881 section 18.14).
func opLookupP(c *compound) status {
	fh, st := c.parent()
	if st == statusOK {
		c.setCurrent(fh)
	}
	return st
}

// parent returns the directory above the current one. From the root of an export it leads to the export around it or to the pseudo file system.
func (c *compound) parent() (filehandle, status) {
	if !c.cur.set {
		return filehandle{}, errNoFileHandle
	}
	if c.cur.pseudo() {
		if c.cur.path == pseudoRoot {
			return filehandle{}, volume.ErrNoEnt
		}
		return c.atPath(parentPseudo(c.cur.path))
	}
	dir, st := c.node(&c.cur)
	if st != statusOK {
		return filehandle{}, st
	}
	if st := wantDir(dir); st != statusOK {
		return filehandle{}, st
	}
	rule := c.cur.rule
	if x, ok := exportByID(c.tx.Exports(), rule.Export); ok && x.Root == dir.Ino {
		if x.Path == pseudoRoot {
			return filehandle{}, volume.ErrNoEnt
		}
		around, nested := c.enclosing(x.Path)
		if !nested {
			return c.atPath(parentPseudo(x.Path))
		}
		rule, _ = c.req.Rule(around.ID)
	}
	up, st := c.tx.Parent(c.cred(rule), dir)
	if st != statusOK {
		return filehandle{}, st
	}
	return c.below(up, rule), statusOK
}

// opSecinfo is SECINFO (RFC 8881 section 18.29). The name must exist; the current filehandle is consumed.
func opSecinfo(c *compound) status {
	if _, st := c.lookup(c.a.name); st != statusOK {
		return st
	}
	return c.secinfo()
}

// opSecinfoNoName is SECINFO_NO_NAME (RFC 8881 section 18.45).
func opSecinfoNoName(c *compound) status {
	const styleParent = 1
	if !c.cur.set {
		return errNoFileHandle
	}
	if c.a.count == styleParent {
		if _, st := c.parent(); st != statusOK {
			return st
		}
	}
	return c.secinfo()
}

// secinfo answers with the flavours of every export, the preferred one first.
func (c *compound) secinfo() status {
	c.e.Uint32(2)
	c.e.Uint32(rpc.AuthSys)
	c.e.Uint32(rpc.AuthNone)
	c.setCurrent(filehandle{})
	return statusOK
}
