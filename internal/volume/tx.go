package volume

import (
	"fmt"
	"sync"

	"holdfast/internal/store"
)

// Tx is one request's access to the volume: read-only in Read and View, read-write in Apply. Not for concurrent use.
//
// Methods that take a *Cred check permissions as POSIX asks (uid 0 passes; nil passes everything). Inodes handed out are immutable: a method that changes
// one returns or makes a new one. Methods that take an *Inode use its current state, so an older pointer does.
// While a Tx runs the volume's lock is held, so its holder must not call the methods of Volume that take it (Exports, View, ...).
type Tx struct {
	v        *Volume
	store    store.Store
	writable bool
	now      int64
	index    uint64

	// What follows is used in Apply only: the changes so far, which shadow the published state.
	full    bool
	entry   []byte
	state   state
	inodes  map[Ino]*Inode // nil: gone
	dirents map[direntID]direntChange
	looked  map[direntID]direntChange // records as the store has them: a name is looked up before it is changed
	inline  map[Ino][]byte            // nil: gone
	orphans map[Ino]bool              // false: no longer
	batch   store.Batch               // everything else
	exports []Export
	space   *FSStat
	ops     []objectOp
	started int // ops[:started] have run
	err     error
}

type direntID struct {
	dir    Ino
	cookie uint64
}

type direntChange struct {
	dirent
	gone bool
}

// noStore stands for the state of a volume that has none.
var noStore store.Store = store.NewMem()

var txPool = sync.Pool{New: func() any { return new(Tx) }}

// readTx returns a read-only Tx. mu must be held until endRead.
func (v *Volume) readTx(now int64) *Tx {
	tx := txPool.Get().(*Tx)
	tx.v, tx.store, tx.index, tx.now = v, v.store, v.state.applied, now
	if !v.valid {
		tx.store = noStore
	}
	if now == 0 {
		tx.now = v.state.lastTime
	}
	return tx
}

func (v *Volume) endRead(tx *Tx) {
	*tx = Tx{}
	txPool.Put(tx)
}

// begin readies the Tx of apply for an entry. mu must be held.
func (tx *Tx) begin(v *Volume, index uint64, e *Entry, entry []byte) {
	if tx.inodes == nil {
		tx.inodes, tx.dirents = map[Ino]*Inode{}, map[direntID]direntChange{}
		tx.inline, tx.orphans = map[Ino][]byte{}, map[Ino]bool{}
		tx.looked = map[direntID]direntChange{}
	}
	clear(tx.inodes)
	clear(tx.dirents)
	clear(tx.looked)
	clear(tx.inline)
	clear(tx.orphans)
	clear(tx.ops)
	tx.batch.Reset()
	tx.v, tx.store, tx.writable, tx.index = v, v.store, true, index
	tx.state, tx.full, tx.entry = v.state, e.Full, entry
	tx.state.applied = index
	tx.state.lastTime = tx.state.timeOf(e)
	tx.now = tx.state.lastTime
	tx.exports, tx.space = v.exports, nil
	tx.ops, tx.started, tx.err = tx.ops[:0], 0, nil
}

// fail notes an error of the disk. In Apply it stops the replica; a reader gets ErrIO.
func (tx *Tx) fail(doing string, err error) Errno {
	if tx.err == nil {
		tx.err = fmt.Errorf("%s: %w", doing, err)
	}
	return ErrIO
}

// lock and unlock bracket waits for file data.
func (tx *Tx) lock() {
	if tx.writable {
		tx.v.mu.Lock()
	} else {
		tx.v.mu.RLock()
	}
}

func (tx *Tx) unlock() {
	if tx.writable {
		tx.v.mu.Unlock()
	} else {
		tx.v.mu.RUnlock()
	}
}

// Volume returns the volume that the Tx works on.
func (tx *Tx) Volume() *Volume { return tx.v }

// ReadOnly reports whether the Tx may not change anything.
func (tx *Tx) ReadOnly() bool { return !tx.writable }

// Now returns the time of the request in nanoseconds since the epoch. In Apply a later request has a later one, unless a leader's clock was
// set back by more than clockSkew in between.
func (tx *Tx) Now() int64 { return tx.now }

// Index returns the log index of the entry being applied; in a read Tx the applied index.
func (tx *Tx) Index() uint64 { return tx.index }

// Version returns the cluster version, by which changes of what commands do are gated.
func (tx *Tx) Version() uint32 {
	if tx.writable {
		return tx.state.version
	}
	return tx.v.state.version
}

// Exports returns the replicated export table, sorted by path. It must not be changed.
func (tx *Tx) Exports() []Export {
	if tx.writable {
		return tx.exports
	}
	return tx.v.exports
}

// FSStat is what FSSTAT, FSINFO and the fs-wide attributes report.
type FSStat struct {
	TotalBytes, FreeBytes, AvailBytes uint64
	TotalFiles, FreeFiles             uint64
}

// maxFiles is the nominal number of inodes; what limits them is space.
const maxFiles = 1 << 40

// ReplicatedSpace returns the figures of the last EntrySpace: total and free bytes.
func (tx *Tx) ReplicatedSpace() FSStat { return tx.v.space }

// FSStat returns space figures: those of the volume's limit if it has one, else those of the host: live on a read Tx, the replicated figures of
// the last EntrySpace in Apply.
func (tx *Tx) FSStat() FSStat {
	if tx.writable {
		return tx.state.limited(tx.hostSpace())
	}
	return tx.v.state.limited(tx.hostSpace())
}

func (tx *Tx) hostSpace() FSStat {
	if tx.writable {
		s := tx.v.space
		if tx.space != nil {
			s = *tx.space
		}
		s.AvailBytes = s.FreeBytes
		s.TotalFiles, s.FreeFiles = maxFiles, maxFiles-tx.state.inodes
		return s
	}
	s := FSStat{TotalFiles: maxFiles, FreeFiles: maxFiles - tx.v.state.inodes}
	free, total, err := tx.store.Space()
	if err != nil {
		free, total = tx.v.space.FreeBytes, tx.v.space.TotalBytes
	}
	s.TotalBytes, s.FreeBytes, s.AvailBytes = total, free, free
	return s
}

// changeable fails in a read Tx: the program's Mutates said that the request changes nothing.
func (tx *Tx) changeable() Errno {
	if !tx.writable {
		return ErrROFS
	}
	return OK
}
