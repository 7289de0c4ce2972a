// Package store keeps the durable state of one replica of a volume: metadata in an ordered key-value store, file contents
// ("objects") in one sparse host file each.
//
// Nothing written through a Store is durable before FlushMeta or SyncObjects return: the raft log is the write-ahead log. What a crash leaves
// is, for the metadata, a prefix of the committed batches that holds at least those before the last FlushMeta; for the objects, any subset of the
// writes since the last SyncObjects. The volume repeats the object writes that may be missing (see package volume, effects).
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// ErrNotFound is returned by Get for a key that is not there.
var ErrNotFound = errors.New("store: key not found")

// ErrNoData is returned by SeekObject when there is no data (or no hole) at or after the offset.
var ErrNoData = errors.New("store: no data beyond this offset")

// ErrUnreadable is among the errors of a call that could not read what the store was given: a block has another checksum than when it was written, or the disk gives
// nothing back. Another replica may have it whole.
var ErrUnreadable = errors.New("the disk gave bad data or none")

// unreadable is the error of a read that failed.
func unreadable(doing string, err error) error {
	return fmt.Errorf("store: %s: %w: %w", doing, ErrUnreadable, err)
}

// Store is the durable state of one replica. Open gives one on disk, NewMem one in memory with the same crash semantics.
//
// Get, Scan, Commit and the object calls may run concurrently. Commits are ordered by who calls first; changes of one object must
// come from one goroutine at a time. An error of Commit or of an object call means that the disk failed: the replica stops.
type Store interface {
	// Get returns a copy of the value of key, or ErrNotFound.
	Get(key []byte) ([]byte, error)
	// Scan calls fn for each key in [lo, hi) in order until fn returns false. The slices are valid during the call only.
	Scan(lo, hi []byte, fn func(key, value []byte) bool) error
	// Commit applies b atomically. It does not wait for a disk.
	Commit(b *Batch) error

	// WriteObject writes data at off, creating the object if need be and growing it as pwrite does.
	WriteObject(id uint64, off int64, data []byte) error
	// ReadObject fills buf from off. Bytes in holes, beyond the object's end or of an object that does not exist read as zero; it returns an error only if the disk failed.
	ReadObject(id uint64, off int64, buf []byte) error
	// TruncateObject sets the object's length, as ftruncate does; an object that does not exist is created only if size > 0.
	TruncateObject(id uint64, size int64) error
	// PunchObject makes [off, off+length) a hole without changing the object's length.
	PunchObject(id uint64, off, length int64) error
	// AllocateObject reserves space for [off, off+length) without changing content or, beyond the end, the length that readers see.
	AllocateObject(id uint64, off, length int64) error
	// SeekObject returns the first offset >= off that is in a hole (hole; the object's end counts as one) or holds data (!hole); ErrNoData if
	// off is not before the object's end or no data follows.
	SeekObject(id uint64, off int64, hole bool) (int64, error)
	// RemoveObject deletes the object; it costs a rename, the space comes back in the background. Removing what is not there is no error.
	RemoveObject(id uint64) error
	// ListObjects calls fn with the id of every object, in no particular order.
	ListObjects(fn func(id uint64) bool) error
	// ObjectChecksum returns a CRC-32C of the first size bytes of the object (holes as zeros).
	ObjectChecksum(ctx context.Context, id uint64, size int64) (uint32, error)

	// SyncObjects makes durable every object write that returned before the call.
	SyncObjects(ctx context.Context) error
	// FlushMeta makes durable every batch that was committed before the call.
	FlushMeta(ctx context.Context) error

	// SnapshotMeta captures the metadata as of now, cheaply; the caller closes it.
	SnapshotMeta() (MetaSnapshot, error)
	// InstallMeta replaces all metadata by what r holds (the stream that MetaSnapshot.WriteTo wrote; not a byte beyond it is read), changed by last,
	// and makes that durable. A crash before it returns leaves either the old metadata or the new, never a mixture. No other call may run meanwhile,
	// but snapshots taken before stay usable.
	InstallMeta(r io.Reader, last *Batch) error

	// Space returns free and total bytes of the file system that holds the store.
	Space() (free, total uint64, err error)
	Close() error
}

// MetaSnapshot is a frozen copy of a store's metadata.
type MetaSnapshot interface {
	// Scan is as Store.Scan, on the frozen copy.
	Scan(lo, hi []byte, fn func(key, value []byte) bool) error
	// WriteTo streams all metadata in a form that InstallMeta of any Store reads.
	WriteTo(w io.Writer) (int64, error)
	Close() error
}

// Batch is an ordered list of metadata changes that Commit applies atomically. The zero value is empty and ready for use.
type Batch struct {
	Ops []Op
}

// OpKind tells what an Op does.
type OpKind uint8

// The kinds of Op.
const (
	OpSet OpKind = iota
	OpDelete
	OpDeleteRange // deletes [Key, Value)
)

// Op is one change of a Batch.
type Op struct {
	Kind       OpKind
	Key, Value []byte
}

// Set adds or replaces a key. The slices are kept until Commit returns.
func (b *Batch) Set(key, value []byte) { b.Ops = append(b.Ops, Op{OpSet, key, value}) }

// Delete removes a key; a key that is not there is no error.
func (b *Batch) Delete(key []byte) { b.Ops = append(b.Ops, Op{OpDelete, key, nil}) }

// DeleteRange removes every key in [lo, hi).
func (b *Batch) DeleteRange(lo, hi []byte) { b.Ops = append(b.Ops, Op{OpDeleteRange, lo, hi}) }

// Reset empties the batch for reuse.
func (b *Batch) Reset() { b.Ops = b.Ops[:0] }
