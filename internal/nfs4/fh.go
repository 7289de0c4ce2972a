package nfs4

import (
	"holdfast/internal/volume"
)

// filehandle is the current or saved filehandle of a compound (RFC 8881 section 16.2.3.1), resolved as far as its export; the inode is
// looked up by each operation, as another request may replace it while file data is being read.
type filehandle struct {
	set  bool
	path string // of a pseudo node; "" otherwise
	h    volume.Handle
	rule volume.Rule
}

func (f *filehandle) pseudo() bool { return f.path != "" }

// resolve turns the handle of a PUTFH into a filehandle. The export decides first: a client without a rule learns nothing about inodes.
func (c *compound) resolve(b []byte) (filehandle, status) {
	h, errno := volume.DecodeHandle(b)
	if errno != volume.OK {
		return filehandle{}, errno
	}
	if h.Volume != c.p.cfg.Volume {
		return filehandle{}, volume.ErrStale
	}
	if h.Export == 0 {
		path, ok := c.pseudoPath(h.Ino)
		if !ok {
			return filehandle{}, volume.ErrStale
		}
		return c.atPseudo(path), statusOK
	}
	rule, ok := c.req.Rule(h.Export)
	if !ok {
		if _, exists := exportByID(c.tx.Exports(), h.Export); exists {
			return filehandle{}, volume.ErrAccess
		}
		return filehandle{}, volume.ErrStale
	}
	if _, exists := exportByID(c.tx.Exports(), h.Export); !exists {
		return filehandle{}, volume.ErrStale
	}
	if _, errno := c.tx.Inode(h.Ino, h.Gen); errno != volume.OK {
		return filehandle{}, errno
	}
	return filehandle{set: true, h: h, rule: rule}, statusOK
}

func exportByID(table []volume.Export, id uint32) (volume.Export, bool) {
	for _, x := range table {
		if x.ID == id {
			return x, true
		}
	}
	return volume.Export{}, false
}

// atPath returns the filehandle of a path of the pseudo file system: an export's root if there is a usable one, a pseudo node otherwise.
func (c *compound) atPath(path string) (filehandle, status) {
	x, ok := c.exportAt(path)
	if !ok {
		return c.atPseudo(path), statusOK
	}
	root, errno := c.tx.Inode(x.Root, 0)
	if errno != volume.OK {
		return filehandle{}, errno
	}
	rule, _ := c.req.Rule(x.ID)
	return c.atInode(root, rule), statusOK
}

func (c *compound) atPseudo(path string) filehandle {
	return filehandle{set: true, path: path, h: volume.Handle{Volume: c.p.cfg.Volume, Ino: pseudoIno(path)}}
}

func (c *compound) atInode(n *volume.Inode, rule volume.Rule) filehandle {
	return filehandle{set: true, rule: rule, h: volume.Handle{Volume: c.p.cfg.Volume, Export: rule.Export, Ino: n.Ino, Gen: n.Gen}}
}

// below returns the filehandle of n, found in a directory under rule. A folder that is itself a usable export is entered as that export, so that its own rule applies
// however it was reached.
func (c *compound) below(n *volume.Inode, rule volume.Rule) filehandle {
	if n.Type == volume.TypeDir && len(c.req.Rules) > 1 {
		for _, x := range c.usable() {
			if x.Root == n.Ino {
				rule, _ = c.req.Rule(x.ID)
				break
			}
		}
	}
	return c.atInode(n, rule)
}

// node returns the inode of fh, which must not be a pseudo node.
func (c *compound) node(fh *filehandle) (*volume.Inode, status) {
	if !fh.set {
		return nil, errNoFileHandle
	}
	return c.tx.Inode(fh.h.Ino, fh.h.Gen)
}

// writableDir returns the directory fh for an operation that changes it.
func (c *compound) writableDir(fh *filehandle) (*volume.Inode, status) {
	if !fh.set {
		return nil, errNoFileHandle
	}
	if fh.pseudo() {
		return nil, volume.ErrROFS
	}
	n, st := c.node(fh)
	if st != statusOK {
		return nil, st
	}
	if st := wantDir(n); st != statusOK {
		return nil, st
	}
	if fh.rule.ReadOnly {
		return nil, volume.ErrROFS
	}
	return n, statusOK
}

// regular returns the regular file that is the current filehandle. The errors for other types are those of RFC 8881 sections 18.22.3 and 18.32.3.
func (c *compound) regular() (*volume.Inode, status) {
	if !c.cur.set {
		return nil, errNoFileHandle
	}
	if c.cur.pseudo() {
		return nil, volume.ErrIsDir
	}
	n, st := c.node(&c.cur)
	if st != statusOK {
		return nil, st
	}
	return n, wantFile(n)
}

// writableFile is regular for an operation that changes the file's content.
func (c *compound) writableFile() (*volume.Inode, status) {
	n, st := c.regular()
	if st == statusOK && c.cur.rule.ReadOnly {
		st = volume.ErrROFS
	}
	return n, st
}

func wantDir(n *volume.Inode) status {
	switch n.Type {
	case volume.TypeDir:
		return statusOK
	case volume.TypeSymlink:
		return volume.ErrSymlink
	}
	return volume.ErrNotDir
}

func wantFile(n *volume.Inode) status {
	switch n.Type {
	case volume.TypeFile:
		return statusOK
	case volume.TypeDir:
		return volume.ErrIsDir
	case volume.TypeSymlink:
		return volume.ErrSymlink
	}
	return errWrongType
}

// cred returns whom the request runs as under rule. The result is valid until the next call.
func (c *compound) cred(rule volume.Rule) *volume.Cred {
	if !c.credSet || c.credRule != rule {
		c.credBuf, c.credRule, c.credSet = c.req.Cred(rule), rule, true
	}
	return &c.credBuf
}

// checkName applies the rules for a component (RFC 8881 section 14.5): doc.go says why bytes that are not UTF-8 pass.
func checkName(b []byte) status {
	switch {
	case len(b) == 0:
		return volume.ErrInval
	case len(b) > volume.MaxNameBytes:
		return volume.ErrNameTooLong
	case string(b) == "." || string(b) == "..":
		return errBadName
	}
	for _, ch := range b {
		if ch == 0 || ch == '/' {
			return errBadChar
		}
	}
	return statusOK
}
