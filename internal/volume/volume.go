package volume

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"holdfast/internal/rpc"
	"holdfast/internal/store"
	"holdfast/internal/xdr"
)

// MaxVersion is the newest cluster version that this program understands; see EntryVersion. Version 1 was that before the first release; version 2
// counts what a volume uses, for limits, and knows of restores; version 3 lets times follow a clock that was set back.
const MaxVersion = 3

// formatVersion is the cluster version of a new volume: that of the first release, which all programs know.
const formatVersion = 2

// ErrInvalid is returned when the replica's state is unusable because an Install did not finish; another Install mends it.
var ErrInvalid = errors.New("volume: the state of this replica is incomplete; it needs a snapshot")

// Config is what Open needs.
type Config struct {
	// ID is the volume's number, part of every file handle; it never changes.
	ID       uint32
	Name     string
	Store    store.Store
	Programs []Program
	// Damaged is told each time that the replica's own store could not be read, in a request, a snapshot, a digest or a copy; stops says that it was in work without which the
	// replica cannot go on, and ends. It is called by whoever met the damage, so it must neither wait nor use the volume. Nil: nobody is told.
	Damaged func(err error, stops bool)
}

// Volume is one replica's copy of the state machine.
//
// Locking: mu is held shared by readers and exclusively by apply, per request; it is released around the I/O of file data. Apply, AdvanceTo,
// Redo and Install are called from one goroutine at a time; everything else may be called at any time.
type Volume struct {
	id       uint32
	name     string
	store    store.Store
	programs []numbered
	hash     func(name string) uint64 // of names; tests replace it to provoke collisions
	damaged  func(err error, stops bool)
	failed   atomic.Bool

	// applying is held while an entry is applied, so that who holds it finds objects and metadata as some index has them. It comes before mu.
	applying sync.Mutex
	copy     *Copy // that is being made, or nil; guarded by applying

	// checkpointing serializes Checkpoint and Install.
	checkpointing sync.Mutex

	mu         sync.RWMutex // guards what follows
	valid      bool
	state      state
	checkpoint uint64
	ahead      uint64 // see NoteAhead
	exports    []Export
	space      FSStat // replicated figures: total and free bytes only
	clients    clientSet
	cache      inodeCache
	cuts       cuts
	tx         Tx // of the entry being applied
	waiting    []waiting
}

// Open loads the replica's state. The caller must feed Redo with entries ReplayFrom()..Applied() from the log before the first Apply or Read.
func Open(cfg Config) (*Volume, error) { return open(cfg, false) }

// open is Open; restoring says to take the state for valid whatever it says itself.
func open(cfg Config, restoring bool) (*Volume, error) {
	v := &Volume{id: cfg.ID, name: cfg.Name, store: cfg.Store, hash: hashName, damaged: cfg.Damaged}
	for _, p := range cfg.Programs {
		prog, vers := p.Number()
		v.programs = append(v.programs, numbered{p, prog, vers})
	}
	if err := v.load(restoring); err != nil {
		return nil, fmt.Errorf("volume %s: %w", v.name, err)
	}
	return v, nil
}

// get is Store.Get with nil for a key that is not there.
func get(s store.Store, key []byte) ([]byte, error) {
	b, err := s.Get(key)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return b, err
}

// load reads everything that is kept in memory. Called by Open, and by Install with mu held. restoring says that the state is what it should be
// although it is not marked so yet.
func (v *Volume) load(restoring bool) error {
	v.cache.clear()
	v.state, v.checkpoint, v.valid = state{}, 0, false
	v.exports, v.space, v.clients = nil, FSStat{}, clientSet{}
	b, err := get(v.store, keyValid)
	if err != nil {
		return err
	}
	if len(b) == 1 && b[0] == 0 && !restoring {
		return nil
	}
	if b, err = get(v.store, keyState); err != nil {
		return err
	}
	if b == nil {
		err = v.format()
	} else {
		v.state, err = decodeState(b)
	}
	if err != nil {
		return err
	}
	if err := v.loadRecords(); err != nil {
		return err
	}
	v.valid = true
	tx := v.readTx(0)
	defer v.endRead(tx)
	for _, p := range v.programs {
		if err := p.Load(tx); err != nil {
			return fmt.Errorf("load state of RPC program %d version %d: %w", p.prog, p.vers, err)
		}
	}
	return nil
}

func (v *Volume) loadRecords() error {
	b, err := get(v.store, keyCheckpoint)
	if err != nil {
		return err
	}
	if len(b) == 8 {
		v.checkpoint = binary.BigEndian.Uint64(b)
	}
	if b, err = get(v.store, keyAhead); err != nil {
		return err
	}
	if len(b) == 8 {
		v.ahead = max(v.ahead, binary.BigEndian.Uint64(b))
	}
	if b, err = get(v.store, keySpace); err != nil {
		return err
	}
	if len(b) == 16 {
		v.space = FSStat{TotalBytes: binary.BigEndian.Uint64(b), FreeBytes: binary.BigEndian.Uint64(b[8:])}
	}
	if b, err = get(v.store, keyExports); err != nil {
		return err
	}
	if b != nil {
		if v.exports, err = decodeExportTable(b); err != nil {
			return err
		}
	}
	return v.clients.load(v.store)
}

// format makes the empty file system. It depends on nothing, so that replicas that start empty start equal.
func (v *Volume) format() error {
	root := &Inode{Ino: RootIno, Gen: 1, Type: TypeDir, Mode: 0o755, Nlink: 2, Parent: RootIno}
	v.state = state{nextIno: RootIno + 1, inodes: 1, version: formatVersion, used: root.cost()}
	var b store.Batch
	b.Set(inodeKey(RootIno), encodeInode(root))
	b.Set(keyState, v.state.encode())
	if err := v.store.Commit(&b); err != nil {
		return fmt.Errorf("format: %w", err)
	}
	return nil
}

// ID returns the volume's number.
func (v *Volume) ID() uint32 { return v.id }

// Name returns the volume's name.
func (v *Volume) Name() string { return v.name }

// Valid reports whether the state is usable; it is not after an Install that failed.
func (v *Volume) Valid() bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.valid
}

// Failed reports whether an Apply failed. What it left is half an entry: file data that is cut off although its inode does not say so, protocol state without the files
// that it is about. A reply that was read when Failed is true afterwards must not be sent.
func (v *Volume) Failed() bool { return v.failed.Load() }

// Applied returns the index of the last applied entry; 0 if the state is invalid.
func (v *Volume) Applied() uint64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.state.applied
}

// ReplayFrom returns the first log index whose object writes may be missing after a crash; the log must still hold it if it is at most Applied.
func (v *Volume) ReplayFrom() uint64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.checkpoint + 1
}

// NoteAhead says that objects may be as of any entry up to index: those that the log held when this process began may have been applied by an earlier one, whose metadata went back in a crash.
// Until they are applied again, a digest means nothing.
func (v *Volume) NoteAhead(index uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.ahead = max(v.ahead, index)
}

// Version returns the cluster version.
func (v *Volume) Version() uint32 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.state.version
}

// Exports returns the replicated export table, sorted by path. The slice is never changed.
func (v *Volume) Exports() []Export {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.exports
}

// Clients returns the addresses of the connections that clients hold open as far as the log tells, oldest first.
func (v *Volume) Clients() []netip.AddrPort {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.clients.list()
}

// Read executes a request that does not mutate against the applied state, appending a whole reply record to reply. Safe for concurrent use.
//
// An error means that this replica's own store could not be read. The reply then says so, in the protocol's words, but another replica may have a better one.
func (v *Volume) Read(req *Request, reply *xdr.Encoder) error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if !v.valid {
		rpc.AppendAccepted(reply, req.Call.XID, rpc.SystemErr)
		return nil
	}
	tx := v.readTx(req.Time)
	defer v.endRead(tx)
	v.execute(tx, req, reply)
	return v.met(tx.err, false)
}

// View runs fn with a read-only Tx on the applied state; on an invalid state with one that finds nothing.
func (v *Volume) View(fn func(tx *Tx)) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	tx := v.readTx(0)
	defer v.endRead(tx)
	fn(tx)
	_ = v.met(tx.err, false) // fn has had it
}

// Warm reads what the entry's command will touch, as far as its program can tell, so that Apply does not wait for the disk. Safe for concurrent use.
func (v *Volume) Warm(entry []byte) {
	var e Entry
	var req Request
	if DecodeEntry(entry, &e) != nil || e.Kind != EntryCall || e.Request(0, &req) != nil {
		return
	}
	for i := range v.programs {
		p := &v.programs[i]
		if w, ok := p.Program.(Warmer); ok && p.prog == req.Call.Prog && p.vers == req.Call.Vers {
			v.View(func(tx *Tx) { w.Warm(tx, &req) })
			return
		}
	}
}
