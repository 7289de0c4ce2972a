// Package nfsclient is a small NFS client in user space, for version 4.1 (RFC 8881) and version 3 (RFC 1813) over TCP. The demo, the
// benchmarks and the tests drive servers with it; nothing of a server is in it.
//
// After a lost connection it does what the Linux client does: it connects again to the same address and sends the same request again, in the
// same slot with the same sequence number (4.1) or with the same XID (3), until the context ends. So a failover of a server that keeps its state is a
// pause and nothing else. What would mean that the server lost state (a session, an open, a lock, written data) is returned as an error and never repaired.
package nfsclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"holdfast/internal/rpc"
)

// Handle is a file handle; servers choose its content.
type Handle string

// FileType is nfs_ftype4 (RFC 8881 section 3.2), the same numbers as ftype3.
type FileType uint32

// The types that callers here tell apart.
const (
	TypeFile FileType = 1
	TypeDir  FileType = 2
)

// Attr are a file's attributes. Times are nanoseconds since the epoch. What a server leaves out is zero.
type Attr struct {
	Type     FileType
	Mode     uint32
	Nlink    uint32
	UID, GID uint32
	Size     uint64
	Used     uint64
	FileID   uint64
	Change   uint64 // version 4 only
	Atime    int64
	Mtime    int64
	Ctime    int64
}

// SetAttr says which attributes to change; nil leaves one as it is.
type SetAttr struct {
	Mode, UID, GID *uint32
	Size           *uint64
	Atime, Mtime   *int64 // nanoseconds since the epoch
}

// DirEntry is one entry of a directory.
type DirEntry struct {
	Name   string
	Cookie uint64
	FileID uint64
	Attr   Attr // as far as it was asked for and the server gives it
}

// CreateMode says what Open does about a file that is, or is not, there (RFC 8881 section 18.16.1).
type CreateMode uint8

// The values of CreateMode.
const (
	NoCreate  CreateMode = iota // the file must be there
	Unchecked                   // make it unless it is there
	Guarded                     // it must not be there
	Exclusive                   // it must not be there, unless this very call made it (the verifier tells)
)

// OpenOptions say how Open opens. Version 3 has no opens and uses only Create, Mode and Truncate.
type OpenOptions struct {
	Create   CreateMode
	Mode     uint32 // of a new file; 0 stands for 0644
	Truncate bool   // with Unchecked: cut an existing file to nothing
	Read     bool   // access; neither Read nor Write stands for both
	Write    bool
}

// Stability is stable_how (RFC 1813 section 3.3.7).
type Stability uint32

// The values of Stability.
const (
	Unstable Stability = 0
	DataSync Stability = 1
	FileSync Stability = 2
)

// Client is a mounted export. All methods are safe for concurrent use, and all wait out a server that is away, until ctx ends. When
// ctx ends while a call is under way it is unknown whether the call was executed.
type Client interface {
	// Version returns "3" or "4.1".
	Version() string
	// Root is the handle of the export.
	Root() Handle
	// GetAttr returns the attributes of an object.
	GetAttr(ctx context.Context, h Handle) (Attr, error)
	// SetAttr changes those attributes that are set in set.
	SetAttr(ctx context.Context, h Handle, set SetAttr) error
	// Lookup finds a name in a directory.
	Lookup(ctx context.Context, dir Handle, name string) (Handle, Attr, error)
	// Open opens a file, which it makes first if o says so.
	Open(ctx context.Context, dir Handle, name string, o OpenOptions) (File, error)
	// Mkdir makes a directory with the permission bits of mode.
	Mkdir(ctx context.Context, dir Handle, name string, mode uint32) (Handle, error)
	// Remove removes a file.
	Remove(ctx context.Context, dir Handle, name string) error
	// Rmdir removes an empty directory.
	Rmdir(ctx context.Context, dir Handle, name string) error
	// Rename moves a name to another, in place of what had that.
	Rename(ctx context.Context, from Handle, oldName string, to Handle, newName string) error
	// ReadDir calls fn for each entry but "." and ".." until it returns an error, which ReadDir returns too. With attrs, DirEntry.Attr is
	// filled (READDIRPLUS in version 3).
	ReadDir(ctx context.Context, dir Handle, attrs bool, fn func(DirEntry) error) error
	// Stats returns what the client has been through so far.
	Stats() Stats
	// Close ends the client's state on the server, as far as ctx allows, and the connection.
	Close(ctx context.Context) error
}

// File is an open file. All methods are safe for concurrent use.
type File interface {
	// Handle returns the file's handle.
	Handle() Handle
	// Read fills p from off and returns how many bytes there were; fewer than len(p) only before the end of file.
	Read(ctx context.Context, p []byte, off uint64) (n int, eof bool, err error)
	// Write writes all of p at off.
	Write(ctx context.Context, p []byte, off uint64, how Stability) error
	// Commit makes earlier unstable writes stable. It returns ErrVerifierChanged if the server may have lost some.
	Commit(ctx context.Context) error
	// Close ends the open, where the protocol has one.
	Close(ctx context.Context) error
}

// ErrVerifierChanged is returned by Commit when the write verifier differs from that of the writes: the server has lost its memory in
// between (RFC 8881 section 18.3.3) and the writes must be repeated.
var ErrVerifierChanged = errors.New("nfsclient: write verifier changed: unstable writes may be lost")

// ErrClosed is returned for calls on a client that was closed.
var ErrClosed = errors.New("nfsclient: client is closed")

// Config is what Mount needs. Zero values stand for the defaults.
type Config struct {
	// Address is host:port of the server.
	Address string
	// From is the address of this machine to connect from; the kernel chooses if it is zero.
	From netip.Addr
	// MountAddress is where the MOUNT program listens, for version 3; empty: Address.
	MountAddress string
	// Export is the path to mount.
	Export string
	// Version is "3" or "4.1" (also "4"); empty: 4.1.
	Version string
	// Auth is whom calls are made for. nil: root, with AUTH_SYS.
	Auth *rpc.Auth
	// Name makes the client owner (version 4). It must differ between clients; empty: one that does.
	Name string
	// Slots is how many calls may be under way at once, in version 4 as far as the server agrees. Default 32.
	Slots int
	// IOBytes bounds the payload of a READ or WRITE. Default 1 MiB, and not more than the server wants.
	IOBytes int
	// DialTimeout is how long one attempt to connect may take. Default 500 ms: where the address of a server moves, SYNs in between are lost.
	DialTimeout time.Duration
	// ReplyTimeout is how long to wait for a reply before the connection is taken for dead. Default 30 s.
	ReplyTimeout time.Duration
	// Log receives what happens to the connection. nil: nothing is logged.
	Log *slog.Logger
}

// Defaults of Config.
const (
	DefaultSlots        = 32
	DefaultIOBytes      = 1 << 20
	DefaultDialTimeout  = 500 * time.Millisecond
	DefaultReplyTimeout = 30 * time.Second
	DefaultPort         = "2049"
)

func (cfg *Config) setDefaults() {
	if cfg.MountAddress == "" {
		cfg.MountAddress = cfg.Address
	}
	if cfg.Auth == nil {
		cfg.Auth = &rpc.Auth{Flavor: rpc.AuthSys, Machine: "holdfast"}
	}
	if cfg.Slots <= 0 {
		cfg.Slots = DefaultSlots
	}
	if cfg.IOBytes <= 0 {
		cfg.IOBytes = DefaultIOBytes
	}
	if cfg.DialTimeout <= 0 {
		cfg.DialTimeout = DefaultDialTimeout
	}
	if cfg.ReplyTimeout <= 0 {
		cfg.ReplyTimeout = DefaultReplyTimeout
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
}

// ParseTarget splits "host:/export" or "host:port:/export" (IPv6 hosts in brackets) into an address with a port and the path of the export.
func ParseTarget(target string) (address, export string, err error) {
	at := strings.Index(target, ":/")
	if at <= 0 {
		return "", "", fmt.Errorf("nfsclient: %q is not HOST:/EXPORT or HOST:PORT:/EXPORT", target)
	}
	host, export := target[:at], target[at+1:]
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host, export, nil
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), DefaultPort), export, nil
}

// Mount connects to a server and mounts an export. It keeps trying to connect until ctx ends.
func Mount(ctx context.Context, cfg Config) (Client, error) {
	switch cfg.Version {
	case "3":
		return MountV3(ctx, cfg)
	case "", "4", "4.1":
		return MountV4(ctx, cfg)
	}
	return nil, fmt.Errorf("nfsclient: version %q: only 3 and 4.1 are spoken", cfg.Version)
}
