package volume

import (
	"net/netip"

	"holdfast/internal/rpc"
)

// Ino is an inode number. Numbers are never used twice within a volume.
type Ino uint64

// RootIno is the root directory of the volume; exports are folders below it.
const RootIno Ino = 1

// FileType is the type of an inode, with the values of nfs_ftype4 (RFC 8881 section 5.8.1.2) and ftype3 (RFC 1813 section 2.6).
type FileType uint8

// The values of FileType.
const (
	TypeFile    FileType = 1
	TypeDir     FileType = 2
	TypeBlock   FileType = 3
	TypeChar    FileType = 4
	TypeSymlink FileType = 5
	TypeSocket  FileType = 6
	TypeFIFO    FileType = 7
)

// Limits of a volume.
const (
	MaxNameBytes    = 255       // NAME_MAX
	MaxSymlinkBytes = 4096      // PATH_MAX
	MaxFileBytes    = 1<<63 - 1 // 8 EiB less one byte: off_t
	MaxLinks        = 1 << 20
	InlineBytes     = 4096 // files up to this size live in the metadata
)

// Inode is one file, directory or special file. An *Inode handed out by a Tx is immutable; only package volume changes inodes, by
// replacing them. Times are nanoseconds since the epoch.
type Inode struct {
	Ino    Ino
	Gen    uint32 // generation: differs between two files of one number, which a restored volume may give out again
	Type   FileType
	Mode   uint32 // permission bits, 07777
	Nlink  uint32
	UID    uint32
	GID    uint32
	Size   uint64
	Used   uint64 // bytes of storage; an estimate from above for sparse files, the same on every replica
	Rdev   uint64 // major<<32 | minor, for block and character devices
	Atime  int64
	Mtime  int64
	Ctime  int64
	Btime  int64
	Change uint64 // index of the log entry that last changed the inode (RFC 8881 section 5.8.1.4)
	Parent Ino    // directories only: "..". The root is its own parent
	// Entries counts a directory's entries ("." and ".." not among them).
	Entries uint64
	Target  string // symbolic links
	Inline  bool   // the content is in the metadata, not in an object
	Sparse  bool   // a hole may be inside Size (affects Used only)
	// Verifier is the create verifier of EXCLUSIVE and EXCLUSIVE4(_1) creates; a retried create with the same verifier finds the file it made.
	Verifier [8]byte
	// HasVerifier tells that Verifier is set; it is cleared by the first SETATTR or WRITE that follows.
	HasVerifier bool

	counted uint64 // what it counts for in state.used; not stored, as it is what the stored inode costs
}

// Cred is whom an operation runs as, after squashing.
type Cred struct {
	UID, GID uint32
	Groups   []uint32
}

// InGroup reports whether the caller belongs to gid.
func (c *Cred) InGroup(gid uint32) bool {
	if c.GID == gid {
		return true
	}
	for _, g := range c.Groups {
		if g == gid {
			return true
		}
	}
	return false
}

// Handle identifies an inode to clients; its encoding is the NFS file handle, fixed for ever: version 1, export, volume, inode, generation (28 bytes).
type Handle struct {
	Volume uint32
	Export uint32 // 0: the pseudo file system above the exports (Ino is then a pseudo node, not an inode)
	Ino    Ino
	Gen    uint32
}

// SquashMode says which callers an export maps to its anonymous user.
type SquashMode uint8

// The values of SquashMode.
const (
	SquashRoot SquashMode = iota // uid 0 and gid 0 only: the default
	SquashNone
	SquashAll
)

// Rule is what one client may do in one export, as the leader decided from the export's client list. It travels in the log entry.
type Rule struct {
	Export           uint32
	ReadOnly         bool
	Squash           SquashMode
	AnonUID, AnonGID uint32
}

// Export is a folder of the volume that clients can mount. The table is replicated; client lists stay with the leader.
type Export struct {
	ID   uint32 // ExportID(Path); never 0
	Path string // absolute and clean, as clients mount it and as it lies in the volume
	Root Ino
}

// Request is one RPC call as an interpreter sees it: everything its outcome may depend on besides the volume's state.
type Request struct {
	Call   rpc.Call
	Client netip.AddrPort
	Time   int64  // nanoseconds since the epoch, stamped by the leader
	Index  uint64 // log index; 0 for a request that only reads
	Rules  []Rule // of the exports that the client may use at all
	Full   bool   // the leader saw a replica below its reserve: growth is refused with ErrNoSpace
	// SeqFlags are the sr_status_flags of SEQUENCE (RFC 8881 section 18.46.3) that only the leader knows.
	SeqFlags uint32
	// Random is entropy drawn by the leader, for confirm verifiers and the like.
	Random uint64
}

// Rule returns the rule for an export, and false if the client has no access to it.
func (r *Request) Rule(export uint32) (Rule, bool) {
	for _, rule := range r.Rules {
		if rule.Export == export {
			return rule, true
		}
	}
	return Rule{}, false
}

// Cred returns whom the request runs as within an export: the AUTH_SYS identity, squashed as the rule says.
func (r *Request) Cred(rule Rule) Cred {
	a := &r.Call.Auth
	if a.Flavor != rpc.AuthSys || rule.Squash == SquashAll {
		return Cred{UID: rule.AnonUID, GID: rule.AnonGID}
	}
	c := Cred{UID: a.UID, GID: a.GID, Groups: a.Groups}
	if rule.Squash == SquashNone {
		return c
	}
	if c.UID == 0 {
		c.UID = rule.AnonUID
	}
	if c.GID == 0 {
		c.GID = rule.AnonGID
	}
	for i, g := range c.Groups {
		if g == 0 {
			c.Groups = append([]uint32(nil), c.Groups...)
			for j := i; j < len(c.Groups); j++ {
				if c.Groups[j] == 0 {
					c.Groups[j] = rule.AnonGID
				}
			}
			break
		}
	}
	return c
}
