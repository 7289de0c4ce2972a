package nfs4

import (
	"hash/fnv"
	"slices"
	"strings"

	"holdfast/internal/volume"
)

// The pseudo file system (RFC 8881 section 7.3) is computed, not stored: its nodes are the proper ancestors of the exports that the client has a
// rule for. A node is its clean absolute path; its number in handles and its fileid are a hash of that path, so handles stay valid when
// exports come and go.

const pseudoRoot = "/"

// pseudoIno returns the number of the pseudo node at path: 63 bits, as some clients treat fileids as signed.
func pseudoIno(path string) volume.Ino {
	h := fnv.New64a()
	h.Write([]byte(path))
	return volume.Ino(h.Sum64()>>1 | 1)
}

// isBelow reports whether path lies properly below dir; both are clean.
func isBelow(path, dir string) bool {
	if dir == pseudoRoot {
		return path != pseudoRoot
	}
	return len(path) > len(dir) && path[len(dir)] == '/' && strings.HasPrefix(path, dir)
}

// childOf returns the name of the component of path right below dir.
func childOf(path, dir string) string {
	rest := path[len(dir):]
	rest = strings.TrimPrefix(rest, "/")
	name, _, _ := strings.Cut(rest, "/")
	return name
}

func joinPseudo(dir, name string) string {
	if dir == pseudoRoot {
		return dir + name
	}
	return dir + "/" + name
}

func parentPseudo(path string) string {
	i := strings.LastIndexByte(path, '/')
	if i <= 0 {
		return pseudoRoot
	}
	return path[:i]
}

// usable returns the exports that the client has a rule for, in the table's order (by path).
func (c *compound) usable() []volume.Export {
	if c.usableSet {
		return c.usableExports
	}
	c.usableExports = c.usableExports[:0]
	for _, x := range c.tx.Exports() {
		if _, ok := c.req.Rule(x.ID); ok {
			c.usableExports = append(c.usableExports, x)
		}
	}
	c.usableSet = true
	return c.usableExports
}

// exportAt returns the usable export whose path is path.
func (c *compound) exportAt(path string) (volume.Export, bool) {
	table := c.usable()
	i, ok := slices.BinarySearchFunc(table, path, func(x volume.Export, path string) int { return strings.Compare(x.Path, path) })
	if !ok {
		return volume.Export{}, false
	}
	return table[i], true
}

// nests reports whether a usable export lies within the folder of another.
func (c *compound) nests(export uint32) bool {
	around, ok := exportByID(c.tx.Exports(), export)
	if !ok {
		return false
	}
	for _, x := range c.usable() {
		if isBelow(x.Path, around.Path) {
			return true
		}
	}
	return false
}

// isPseudo reports whether path is a node: the root, which always exists, or an ancestor of a usable export.
func (c *compound) isPseudo(path string) bool {
	if path == pseudoRoot {
		return true
	}
	for _, x := range c.usable() {
		if isBelow(x.Path, path) {
			return true
		}
	}
	return false
}

// pseudoPath returns the path of the node with number ino.
func (c *compound) pseudoPath(ino volume.Ino) (string, bool) {
	if ino == pseudoIno(pseudoRoot) {
		return pseudoRoot, true
	}
	for _, x := range c.usable() {
		for p := parentPseudo(x.Path); p != pseudoRoot; p = parentPseudo(p) {
			if pseudoIno(p) == ino {
				return p, true
			}
		}
	}
	return "", false
}

// enclosing returns the usable export with the longest path that path lies properly below: the one through which a client walks to it.
func (c *compound) enclosing(path string) (volume.Export, bool) {
	var best volume.Export
	found := false
	for _, x := range c.usable() {
		if isBelow(path, x.Path) && (!found || len(x.Path) > len(best.Path)) {
			best, found = x, true
		}
	}
	return best, found
}

// pseudoEntry is a child of a pseudo node.
type pseudoEntry struct {
	name   string
	path   string
	cookie uint64
}

// pseudoCookieBase keeps cookies off 0, 1 and 2, which RFC 8881 section 18.23.3 reserves.
const pseudoCookieBase = 512

// pseudoEntries lists the children of the node at path in the order of their names. Export tables are sorted by path, but "a-b" sorts before "a/b",
// so equal names need not be neighbours.
func (c *compound) pseudoEntries(path string) []pseudoEntry {
	var out []pseudoEntry
	seen := make(map[string]bool)
	for _, x := range c.usable() {
		if !isBelow(x.Path, path) {
			continue
		}
		name := childOf(x.Path, path)
		if seen[name] {
			continue
		}
		seen[name] = true
		out = append(out, pseudoEntry{name: name, path: joinPseudo(path, name)})
	}
	for i := range out {
		// The node's own number is the cookie: it survives other exports coming and going, unlike a position.
		out[i].cookie = uint64(pseudoIno(out[i].path))>>1 | pseudoCookieBase
	}
	sortByCookie(out)
	return out
}

// pseudoChange is the change attribute of a node: a digest of what it lists. It does not count upwards, and the change_attr_type of the pseudo file
// system says so.
func (c *compound) pseudoChange(path string) uint64 {
	h := fnv.New64a()
	for _, e := range c.pseudoEntries(path) {
		h.Write([]byte(e.name))
		h.Write([]byte{0})
		if _, ok := c.exportAt(e.path); ok {
			h.Write([]byte{1})
		}
	}
	return h.Sum64()
}
