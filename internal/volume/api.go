package volume

import (
	"context"
	"io"

	"holdfast/internal/rpc"
	"holdfast/internal/store"
	"holdfast/internal/xdr"
)

// Program is one RPC program and version whose calls the volume executes. A Program keeps its state in memory for speed and
// mirrors every change with Tx.Put and Tx.Delete, so that Load finds it again; memory and Put must always agree.
type Program interface {
	// Number returns the RPC program and version.
	Number() (prog, vers uint32)
	// Mutates reports whether the call may change the volume and so must be logged. It sees only the request (no state) and may run concurrently.
	Mutates(req *Request) bool
	// Execute runs the call and appends the results (what follows the accepted-reply header) to reply. When it returns another status than Success, what it appended is dropped.
	Execute(tx *Tx, req *Request, reply *xdr.Encoder) rpc.AcceptStat
	// Command runs a logged command of the program's own (payload from its leader side), such as the expiry of a client.
	Command(tx *Tx, payload []byte) error
	// Load rebuilds the program's memory from the volume's metadata; called once before any Execute.
	Load(tx *Tx) error
	// InUse reports whether the program holds ino open, so that its content must outlive its last name.
	InUse(ino Ino) bool
}

// Config is what Open needs.
type Config struct {
	// ID is the volume's number, part of every file handle; it never changes.
	ID       uint32
	Name     string
	Store    store.Store
	Programs []Program
}

// Volume is one replica's copy of the state machine.
//
// Locking: mu is held shared by readers and exclusively by apply, per request; Tx methods that move file data release it around the I/O.
type Volume struct{}

// Open loads the replica's state. The caller must feed Redo with entries ReplayFrom()..Applied() from the log before the first Apply or Read.
func Open(cfg Config) (*Volume, error) { panic("volume: to come") }

// Applied returns the index of the last applied entry.
func (v *Volume) Applied() uint64 { panic("volume: to come") }

// ReplayFrom returns the first log index whose object writes may be missing after a crash; the log must still hold it.
func (v *Volume) ReplayFrom() uint64 { panic("volume: to come") }

// Redo repeats the object writes of an entry at index <= Applied().
func (v *Volume) Redo(index uint64, entry []byte) error { panic("volume: to come") }

// Apply executes the entry at Applied()+1 and returns the RPC reply record (nil for entries that are no calls). An error means that this replica cannot go on (disk); it
// never means that the request failed. An empty entry (raft's own) only advances Applied.
func (v *Volume) Apply(index uint64, entry []byte) (reply []byte, err error) {
	panic("volume: to come")
}

// AdvanceTo notes that the entries up to index are applied although they are not the volume's business (raft configuration changes).
func (v *Volume) AdvanceTo(index uint64) error { panic("volume: to come") }

// Read executes a request that does not mutate against the applied state, appending a whole reply record to reply. Safe for concurrent use.
func (v *Volume) Read(req *Request, reply *xdr.Encoder) { panic("volume: to come") }

// Checkpoint makes everything applied so far durable and returns the index up to which (inclusive) the log may be dropped.
func (v *Volume) Checkpoint(ctx context.Context) (index uint64, err error) { panic("volume: to come") }

// Snapshot captures the volume at its applied index for a replica whose own applied index is since (0: it has nothing).
func (v *Volume) Snapshot(since uint64) (*Snapshot, error) { panic("volume: to come") }

// Snapshot is a fuzzy snapshot: metadata at Index exactly, objects at some state between Index and the end of WriteTo.
type Snapshot struct{ Index uint64 }

// WriteTo streams the snapshot: metadata first, then the objects that changed after since.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) { panic("volume: to come") }

// Close releases the snapshot.
func (s *Snapshot) Close() error { panic("volume: to come") }

// Install replaces this replica's state by the snapshot that r holds. After an error or a crash the state is invalid until another Install succeeds:
// Valid reports false, Applied 0.
func (v *Volume) Install(r io.Reader) error { panic("volume: to come") }

// Checksum returns a digest of the whole state at the applied index, equal on replicas that are equal; file data is included.
func (v *Volume) Checksum(ctx context.Context) (index uint64, sum Digest, err error) {
	panic("volume: to come")
}

// View runs fn with a read-only Tx on the applied state.
func (v *Volume) View(fn func(tx *Tx)) { panic("volume: to come") }

// SetAttr says what to change; a nil pointer or false leaves an attribute as it is.
type SetAttr struct {
	Mode, UID, GID *uint32
	Size           *uint64
	Atime, Mtime   *int64 // explicit times
	AtimeNow       bool   // server time
	MtimeNow       bool
}

// DirEntry is one entry of a directory listing.
type DirEntry struct {
	Name   string
	Ino    Ino
	Type   FileType
	Cookie uint64 // >= 512, below 1<<63, the same for ever while the entry lives; the same on every replica
}

// Tx is one request's access to the volume: read-only in Read and View, read-write in Apply. Not for concurrent use.
// Methods that take a *Cred check permissions as POSIX asks (uid 0 passes); all return Errno values as errors of type Errno (OK is nil: use errors.As or Errno comparison).
type Tx struct{}

func (tx *Tx) Volume() *Volume { panic("volume: to come") }

// ReadOnly reports whether the Tx may not change anything.
func (tx *Tx) ReadOnly() bool { panic("volume: to come") }

// Now returns the time of the request: monotonic over the log in Apply.
func (tx *Tx) Now() int64 { panic("volume: to come") }

// Index returns the log index of the entry being applied; in a read Tx the applied index.
func (tx *Tx) Index() uint64 { panic("volume: to come") }

// Exports returns the replicated export table, sorted by path.
func (tx *Tx) Exports() []Export { panic("volume: to come") }

// Inode returns an inode, or ErrStale if there is none (gen 0 matches any generation).
func (tx *Tx) Inode(ino Ino, gen uint32) (*Inode, Errno) { panic("volume: to come") }

// Access returns which of the ACCESS4_* bits in want (RFC 8881 section 18.1: READ 1, LOOKUP 2, MODIFY 4, EXTEND 8, DELETE 16, EXECUTE 32) the caller has.
func (tx *Tx) Access(c *Cred, n *Inode, want uint32) uint32 { panic("volume: to come") }

// MayOpen checks read and write permission of an open; the owner passes always, as NFS servers do (a file stays usable for its creator after chmod 0).
func (tx *Tx) MayOpen(c *Cred, n *Inode, read, write bool) Errno { panic("volume: to come") }

func (tx *Tx) Lookup(c *Cred, dir *Inode, name string) (*Inode, Errno) { panic("volume: to come") }

// Parent returns "..".
func (tx *Tx) Parent(c *Cred, dir *Inode) (*Inode, Errno) { panic("volume: to come") }

// ReadDir calls fn for the entries after cookie (0: from the start; "." and ".." are left out) until it returns false. eof reports that the end was reached. The caller checks read permission with Access first.
func (tx *Tx) ReadDir(dir *Inode, cookie uint64, fn func(e DirEntry) bool) (eof bool, err Errno) {
	panic("volume: to come")
}

// Create makes a regular file, or any other non-directory type. It fails with ErrExist if the name is taken.
func (tx *Tx) Create(c *Cred, dir *Inode, name string, typ FileType, attr CreateAttr) (*Inode, Errno) {
	panic("volume: to come")
}

// CreateAttr are the first attributes of a new inode.
type CreateAttr struct {
	SetAttr
	Rdev     uint64
	Target   string
	Verifier *[8]byte
}

func (tx *Tx) Mkdir(c *Cred, dir *Inode, name string, attr SetAttr) (*Inode, Errno) {
	panic("volume: to come")
}

// Link adds a name; Remove takes one away (dirOnly: RMDIR; fileOnly: REMOVE of v3; neither: REMOVE of v4); Rename replaces as POSIX rename does.
func (tx *Tx) Link(c *Cred, n, dir *Inode, name string) Errno { panic("volume: to come") }

func (tx *Tx) Remove(c *Cred, dir *Inode, name string, kind RemoveKind) Errno {
	panic("volume: to come")
}

func (tx *Tx) Rename(c *Cred, from *Inode, oldName string, to *Inode, newName string) Errno {
	panic("volume: to come")
}

// RemoveKind says what a Remove may remove.
type RemoveKind uint8

const (
	RemoveAny RemoveKind = iota
	RemoveFile
	RemoveDir
)

// SetAttr changes attributes as POSIX chmod, chown, truncate and utimensat allow the caller; canWrite says that an open stateid already proved write access (truncate).
func (tx *Tx) SetAttr(c *Cred, n *Inode, attr SetAttr, canWrite bool) (*Inode, Errno) {
	panic("volume: to come")
}

// Read fills buf from off and returns how many bytes lie before the end of file and whether the end was reached.
func (tx *Tx) Read(n *Inode, off uint64, buf []byte) (count int, eof bool, err Errno) {
	panic("volume: to come")
}

// Write writes data (aliasing the log entry: it is not kept) at off; c is checked for clearing setuid and setgid only.
func (tx *Tx) Write(c *Cred, n *Inode, off uint64, data []byte) (*Inode, Errno) {
	panic("volume: to come")
}

func (tx *Tx) Allocate(n *Inode, off, length uint64) (*Inode, Errno) { panic("volume: to come") }

func (tx *Tx) Deallocate(n *Inode, off, length uint64) (*Inode, Errno) { panic("volume: to come") }

// Seek is SEEK of RFC 7862 section 15.11.
func (tx *Tx) Seek(n *Inode, off uint64, hole bool) (at uint64, eof bool, err Errno) {
	panic("volume: to come")
}

// ReleaseOrphan frees an inode whose last name is gone if no program holds it open any longer.
func (tx *Tx) ReleaseOrphan(ino Ino) { panic("volume: to come") }

// FSStat is what FSSTAT, FSINFO and the fs-wide attributes report.
type FSStat struct {
	TotalBytes, FreeBytes, AvailBytes uint64
	TotalFiles, FreeFiles             uint64
}

// FSStat returns space figures: live on a read Tx, the replicated figures in Apply.
func (tx *Tx) FSStat() FSStat { panic("volume: to come") }

// Put, Delete, Get and Scan keep a Program's state; keys are private to prog (a small number the program picks: nfs4 4, nfs3 3). Scan is used by Load.
func (tx *Tx) Put(prog byte, key, value []byte) { panic("volume: to come") }

func (tx *Tx) Del(prog byte, key []byte) { panic("volume: to come") }

func (tx *Tx) ScanState(prog byte, fn func(key, value []byte) error) error { panic("volume: to come") }

// Digest is a SHA-256 of a replica state.
type Digest [32]byte
