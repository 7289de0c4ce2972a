package volume

import (
	"context"
	"io"
)

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

// Digest is a SHA-256 of a replica state.
type Digest [32]byte
