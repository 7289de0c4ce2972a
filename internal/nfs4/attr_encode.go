package nfs4

import (
	"strconv"
	"time"

	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

// object is what attributes are read from: an inode, or a pseudo node when n is nil.
type object struct {
	fh *filehandle
	n  *volume.Inode
	// space holds the volume's figures if the request asked for any of them.
	space volume.FSStat
}

// object returns the current filehandle's object for attributes.
func (c *compound) object(fh *filehandle, want bitmap) (object, status) {
	if !fh.set {
		return object{}, errNoFileHandle
	}
	o := object{fh: fh}
	if !want.and(attrsSpace).empty() {
		o.space = c.tx.FSStat()
	}
	if fh.pseudo() {
		return o, statusOK
	}
	n, st := c.node(fh)
	o.n = n
	return o, st
}

// encodeFattr appends the fattr4 of o: those of want that this minor version supports.
func (c *compound) encodeFattr(e *xdr.Encoder, want bitmap, o *object) {
	mask := want.and(supported(c.minor)).without(attrsWriteOnly)
	mask.encode(e)
	lengthAt := e.Len()
	e.Uint32(0)
	c.encodeAttrs(e, mask, o)
	e.PutUint32(lengthAt, uint32(e.Len()-lengthAt-4))
}

func (c *compound) encodeAttrs(e *xdr.Encoder, mask bitmap, o *object) {
	mask.each(func(attr uint) bool {
		switch {
		case c.encodeServerAttr(e, attr, o):
		case o.n == nil:
			c.encodePseudoAttr(e, attr, o.fh.path)
		default:
			c.encodeInodeAttr(e, attr, o)
		}
		return true
	})
}

// encodeServerAttr appends an attribute that is the same for every object of the server or of the volume, and reports whether attr is one.
func (c *compound) encodeServerAttr(e *xdr.Encoder, attr uint, o *object) bool {
	switch attr {
	case attrSupportedAttrs:
		supported(c.minor).encode(e)
	case attrSuppattrExclcreat:
		exclcreat(c.minor).encode(e)
	case attrFHExpireType:
		e.Uint32(fhPersistent)
	case attrLinkSupport, attrSymlinkSupport, attrUniqueHandles, attrCanSetTime, attrCasePreserving, attrChownRestricted, attrHomogeneous, attrNoTrunc:
		e.Bool(true)
	case attrNamedAttr, attrCaseInsensitive:
		e.Bool(false)
	case attrLeaseTime:
		e.Uint32(uint32(c.p.cfg.Lease / time.Second))
	case attrRdattrError:
		e.Uint32(uint32(statusOK))
	case attrACLSupport, attrFSLayoutTypes: // no ACL type; an empty list
		e.Uint32(0)
	case attrFilehandle:
		b := volume.EncodeHandle(o.fh.h)
		e.Opaque(b[:])
	case attrFSID:
		e.Uint64(uint64(c.p.cfg.Volume))
		e.Uint64(uint64(o.fh.h.Export))
	case attrMaxFileSize:
		e.Uint64(volume.MaxFileBytes)
	case attrMaxLink:
		e.Uint32(volume.MaxLinks)
	case attrMaxName:
		e.Uint32(volume.MaxNameBytes)
	case attrMaxRead, attrMaxWrite:
		e.Uint64(MaxIOBytes)
	case attrTimeDelta:
		encodeTime(e, 1)
	case attrFSCharsetCap:
		e.Uint32(charsetContainsNonUTF8)
	default:
		return encodeSpaceAttr(e, attr, &o.space)
	}
	return true
}

func encodeSpaceAttr(e *xdr.Encoder, attr uint, s *volume.FSStat) bool {
	switch attr {
	case attrFilesAvail, attrFilesFree:
		e.Uint64(s.FreeFiles)
	case attrFilesTotal:
		e.Uint64(s.TotalFiles)
	case attrSpaceAvail:
		e.Uint64(s.AvailBytes)
	case attrSpaceFree:
		e.Uint64(s.FreeBytes)
	case attrSpaceTotal:
		e.Uint64(s.TotalBytes)
	default:
		return false
	}
	return true
}

func (c *compound) encodeInodeAttr(e *xdr.Encoder, attr uint, o *object) {
	n := o.n
	switch attr {
	case attrType:
		e.Uint32(uint32(n.Type))
	case attrChange:
		e.Uint64(n.Change)
	case attrSize:
		e.Uint64(n.Size)
	case attrFileID:
		e.Uint64(uint64(n.Ino))
	case attrMountedOnFileID:
		e.Uint64(uint64(c.mountedOn(n.Ino, o.fh)))
	case attrMode:
		e.Uint32(n.Mode & 0o7777)
	case attrNumLinks:
		e.Uint32(n.Nlink)
	case attrOwner:
		encodeID(e, n.UID)
	case attrOwnerGroup:
		encodeID(e, n.GID)
	case attrRawDev:
		e.Uint64(n.Rdev) // specdata4: major, minor
	case attrSpaceUsed:
		e.Uint64(n.Used)
	case attrTimeAccess:
		encodeTime(e, n.Atime)
	case attrTimeCreate:
		encodeTime(e, n.Btime)
	case attrTimeMetadata:
		encodeTime(e, n.Ctime)
	case attrTimeModify:
		encodeTime(e, n.Mtime)
	case attrChangeAttrType:
		e.Uint32(changeMonotonic)
	}
}

// pseudoDirBytes is the size that a pseudo node shows: one block, as small directories do.
const pseudoDirBytes = 4096

func (c *compound) encodePseudoAttr(e *xdr.Encoder, attr uint, path string) {
	switch attr {
	case attrType:
		e.Uint32(uint32(volume.TypeDir))
	case attrChange:
		e.Uint64(c.pseudoChange(path))
	case attrSize, attrSpaceUsed:
		e.Uint64(pseudoDirBytes)
	case attrFileID, attrMountedOnFileID:
		e.Uint64(uint64(pseudoIno(path)))
	case attrMode:
		e.Uint32(0o555)
	case attrNumLinks:
		e.Uint32(uint32(2 + len(c.pseudoEntries(path))))
	case attrOwner, attrOwnerGroup:
		encodeID(e, 0)
	case attrRawDev:
		e.Uint64(0)
	case attrTimeAccess, attrTimeCreate, attrTimeMetadata, attrTimeModify:
		encodeTime(e, 0)
	case attrChangeAttrType:
		e.Uint32(changeUndefined)
	}
}

// mountedOn returns mounted_on_fileid (RFC 8881 section 5.8.2.20): for an export's root the number of what it covers, a pseudo node or, when the export lies in
// another one that the client walks through, the same folder there.
func (c *compound) mountedOn(ino volume.Ino, fh *filehandle) volume.Ino {
	x, ok := exportByID(c.tx.Exports(), fh.h.Export)
	if !ok || x.Root != ino || x.Path == pseudoRoot {
		return ino
	}
	if _, nested := c.enclosing(x.Path); nested {
		return ino
	}
	return pseudoIno(x.Path)
}

// encodeID appends a numeric user or group (RFC 8881 section 5.9).
func encodeID(e *xdr.Encoder, id uint32) {
	var buf [10]byte
	e.Opaque(strconv.AppendUint(buf[:0], uint64(id), 10))
}

// encodeTime appends an nfstime4 (RFC 8881 section 3.3.1): nanoseconds count upwards from seconds also before the epoch.
func encodeTime(e *xdr.Encoder, ns int64) {
	sec, nsec := ns/int64(time.Second), ns%int64(time.Second)
	if nsec < 0 {
		sec, nsec = sec-1, nsec+int64(time.Second)
	}
	e.Int64(sec)
	e.Uint32(uint32(nsec))
}
