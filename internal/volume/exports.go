package volume

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"path"
	"sort"
	"strings"
)

// ExportSpec is an export as the configuration states it. Its folder is made with this owner and mode if it does not exist yet.
type ExportSpec struct {
	Path     string
	UID, GID uint32
	Mode     uint32 // 0: 0755
}

// ErrBadExport is returned by CheckExports.
var ErrBadExport = errors.New("volume: bad export")

// maxExports bounds the export table.
const maxExports = 4096

// ExportID returns the number of the export at path, part of its file handles: it depends on the path alone, and is never 0.
func ExportID(path string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(path))
	return max(h.Sum32(), 1)
}

// CheckExports reports why a table of exports cannot be set: a path that is not absolute and clean or too long, a folder given twice, or two paths
// of one ExportID (about one chance in 2^32 per pair; rename one).
func CheckExports(specs []ExportSpec) error {
	if len(specs) > maxExports {
		return fmt.Errorf("%w: %d exports, limit %d", ErrBadExport, len(specs), maxExports)
	}
	seen := map[uint32]string{}
	for _, s := range specs {
		if !strings.HasPrefix(s.Path, "/") || path.Clean(s.Path) != s.Path || strings.Contains(s.Path, "\x00") || len(s.Path) > MaxSymlinkBytes {
			return fmt.Errorf("%w: %q is not an absolute, clean path", ErrBadExport, s.Path)
		}
		for _, name := range strings.Split(s.Path, "/") {
			if len(name) > MaxNameBytes {
				return fmt.Errorf("%w: a name in %q is longer than %d bytes", ErrBadExport, s.Path, MaxNameBytes)
			}
		}
		id := ExportID(s.Path)
		if other, ok := seen[id]; ok {
			return fmt.Errorf("%w: %q and %q have the same number", ErrBadExport, other, s.Path)
		}
		seen[id] = s.Path
	}
	return nil
}

// EncodeExports returns the payload of EntryExports: count u32, then for each export uid u32, gid u32, mode u32, path length u32, path.
func EncodeExports(specs []ExportSpec) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(specs)))
	for _, s := range specs {
		b = binary.BigEndian.AppendUint32(b, s.UID)
		b = binary.BigEndian.AppendUint32(b, s.GID)
		b = binary.BigEndian.AppendUint32(b, s.Mode)
		b = binary.BigEndian.AppendUint32(b, uint32(len(s.Path)))
		b = append(b, s.Path...)
	}
	return b
}

// DecodeExports decodes what EncodeExports wrote.
func DecodeExports(b []byte) ([]ExportSpec, error) {
	bad := func() ([]ExportSpec, error) { return nil, fmt.Errorf("%w: export table", ErrBadEntry) }
	if len(b) < 4 {
		return bad()
	}
	count := binary.BigEndian.Uint32(b)
	b = b[4:]
	if uint64(count)*16 > uint64(len(b)) {
		return bad()
	}
	specs := make([]ExportSpec, count)
	for i := range specs {
		if len(b) < 16 || uint64(binary.BigEndian.Uint32(b[12:])) > uint64(len(b)-16) {
			return bad()
		}
		n := 16 + int(binary.BigEndian.Uint32(b[12:]))
		specs[i] = ExportSpec{
			UID: binary.BigEndian.Uint32(b), GID: binary.BigEndian.Uint32(b[4:]), Mode: binary.BigEndian.Uint32(b[8:]),
			Path: string(b[16:n]),
		}
		b = b[n:]
	}
	if len(b) > 0 {
		return bad()
	}
	return specs, nil
}

// setExports applies an EntryExports. A table that CheckExports refuses changes nothing, and an export whose folder cannot be made (a file
// is in the way) is left out: the entry is in the log already, so every replica must do the same with it.
func (tx *Tx) setExports(payload []byte) error {
	specs, err := DecodeExports(payload)
	if err != nil {
		return err
	}
	if CheckExports(specs) != nil {
		return nil
	}
	sort.Slice(specs, func(i, j int) bool { return specs[i].Path < specs[j].Path })
	// The folder of an export is the operator's to make, however full the volume is.
	limit := tx.state.limit
	tx.state.limit = 0
	defer func() { tx.state.limit = limit }()
	table := make([]Export, 0, len(specs))
	for i := range specs {
		root, errno := tx.exportFolder(&specs[i])
		if tx.err != nil {
			return tx.err
		}
		if errno == OK {
			table = append(table, Export{ID: ExportID(specs[i].Path), Path: specs[i].Path, Root: root.Ino})
		}
	}
	tx.exports = table
	tx.batch.Set(keyExports, encodeExportTable(table))
	return nil
}

// exportFolder finds or makes the folder of an export. Folders above it belong to root.
func (tx *Tx) exportFolder(s *ExportSpec) (*Inode, Errno) {
	dir, errno := tx.inode(RootIno)
	names := strings.Split(strings.Trim(s.Path, "/"), "/")
	for i, name := range names {
		if errno != OK || name == "" {
			break
		}
		var next *Inode
		if next, errno = tx.Lookup(nil, dir, name); errno == ErrNoEnt {
			mode, zero := uint32(0o755), uint32(0)
			attr := SetAttr{Mode: &mode, UID: &zero, GID: &zero}
			if i == len(names)-1 {
				attr.UID, attr.GID = &s.UID, &s.GID
				if s.Mode != 0 {
					attr.Mode = &s.Mode
				}
			}
			next, errno = tx.Mkdir(nil, dir, name, attr)
		}
		dir = next
	}
	if errno == OK && dir.Type != TypeDir {
		return nil, ErrNotDir
	}
	return dir, errno
}

func encodeExportTable(table []Export) []byte {
	var b []byte
	for _, e := range table {
		b = binary.BigEndian.AppendUint32(b, e.ID)
		b = binary.BigEndian.AppendUint64(b, uint64(e.Root))
		b = binary.BigEndian.AppendUint32(b, uint32(len(e.Path)))
		b = append(b, e.Path...)
	}
	return b
}

func decodeExportTable(b []byte) ([]Export, error) {
	var table []Export
	for len(b) > 0 {
		if len(b) < 16 || uint64(binary.BigEndian.Uint32(b[12:])) > uint64(len(b)-16) {
			return nil, fmt.Errorf("%w: export table", errCorrupt)
		}
		n := 16 + int(binary.BigEndian.Uint32(b[12:]))
		table = append(table, Export{
			ID:   binary.BigEndian.Uint32(b),
			Root: Ino(binary.BigEndian.Uint64(b[4:])),
			Path: string(b[16:n]),
		})
		b = b[n:]
	}
	return table, nil
}
