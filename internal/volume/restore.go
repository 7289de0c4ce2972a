package volume

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"holdfast/internal/store"
)

// Restorer makes a volume's state in a store out of the pieces of a full Copy and those that continue it. Until Finish has returned the state is invalid, and stays so if the
// process dies: Open says so, and another Restorer begins from nothing.
type Restorer struct {
	store store.Store
	batch store.Batch
	bytes int
	index uint64 // of the last part
}

// ErrBadPiece is returned by a Restorer for a piece that is not of any Copy.
var ErrBadPiece = errors.New("volume: the copy holds something that is not of a volume")

// ErrOccupied is returned by NewRestorer for a store that holds a volume.
var ErrOccupied = errors.New("volume: there is a volume already")

// restoreBatchBytes is how much metadata is committed at once.
const restoreBatchBytes = 256 << 10

// NewRestorer begins a restore into a store that holds nothing but the remains of another restore.
func NewRestorer(s store.Store) (*Restorer, error) {
	valid, err := get(s, keyValid)
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	if len(valid) != 1 || valid[0] != 0 {
		some, err := get(s, keyState)
		if err != nil {
			return nil, fmt.Errorf("restore: %w", err)
		}
		if some != nil {
			return nil, fmt.Errorf("%w: restore into an empty folder", ErrOccupied)
		}
	}
	r := &Restorer{store: s}
	r.batch.DeleteRange([]byte{0}, []byte{0xff})
	r.batch.Set(keyValid, []byte{0})
	if err := r.commit(); err != nil {
		return nil, err
	}
	if err := s.FlushMeta(context.Background()); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	var failed error
	err = s.ListObjects(func(id uint64) bool {
		failed = s.RemoveObject(id)
		return failed == nil
	})
	if err = errors.Join(failed, err); err != nil {
		return nil, fmt.Errorf("restore: remove the remains of another restore: %w", err)
	}
	return r, nil
}

func (r *Restorer) commit() error {
	if err := r.store.Commit(&r.batch); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	r.batch.Reset()
	r.bytes = 0
	return nil
}

// Put takes a piece, which it does not keep.
func (r *Restorer) Put(p *Piece) error {
	var err error
	id := uint64(p.Ino)
	if p.Off > MaxFileBytes || p.Kind == PiecePunch && p.Length > MaxFileBytes-p.Off || uint64(len(p.Data)) > MaxFileBytes-p.Off {
		return fmt.Errorf("%w: beyond the largest file", ErrBadPiece)
	}
	switch p.Kind {
	case PieceClear:
		err = r.store.RemoveObject(id)
	case PieceData:
		err = r.store.WriteObject(id, int64(p.Off), p.Data)
	case PieceTruncate:
		err = r.store.TruncateObject(id, int64(p.Off))
	case PiecePunch:
		err = r.store.PunchObject(id, int64(p.Off), int64(p.Length))
	case PieceSet, PieceDelete:
		return r.putMeta(p)
	case PieceGone:
		return r.gone(p.Ino, p.Length)
	default:
		return fmt.Errorf("%w: kind %d", ErrBadPiece, p.Kind)
	}
	if err != nil {
		return fmt.Errorf("restore object %d: %w", p.Ino, err)
	}
	return nil
}

// replicated reports whether a key is of what all replicas have.
func replicated(key []byte) bool {
	if len(key) == 0 {
		return false
	}
	switch key[0] {
	case prefixClient, prefixDirent, prefixInline, prefixInode, prefixMeta, prefixOrphan, prefixProgram:
		return true
	}
	return false
}

func (r *Restorer) putMeta(p *Piece) error {
	if !replicated(p.Key) {
		return fmt.Errorf("%w: key %x", ErrBadPiece, p.Key)
	}
	key := append([]byte(nil), p.Key...)
	value := append([]byte(nil), p.Data...)
	if p.Kind == PieceSet {
		r.batch.Set(key, value)
	} else {
		if len(value) == 0 || value[0] > key[0]+1 || value[0] == key[0]+1 && len(value) > 1 {
			return fmt.Errorf("%w: deletes from %x to %x", ErrBadPiece, key, value)
		}
		r.batch.DeleteRange(key, value)
	}
	if r.bytes += len(key) + len(value); r.bytes < restoreBatchBytes {
		return nil
	}
	return r.commit()
}

// gone removes inodes that earlier parts made. The pieces of this part name none of them.
func (r *Restorer) gone(first Ino, count uint64) error {
	if count > ^uint64(0)-uint64(first) {
		return fmt.Errorf("%w: %d inodes from %d", ErrBadPiece, count, first)
	}
	var inos []Ino
	for from, end := first, first+Ino(count); ; {
		inos = inos[:0]
		err := r.store.Scan(inodeKey(from), inodeKey(end), func(key, _ []byte) bool {
			inos = append(inos, inoOfKey(key))
			return len(inos) < copyPage
		})
		if err != nil {
			return fmt.Errorf("restore: %w", err)
		}
		for _, ino := range inos {
			r.batch.Delete(inodeKey(ino))
			r.batch.Delete(inlineKey(ino))
			r.batch.DeleteRange(direntKey(ino, 0), direntKey(ino, ^uint64(0)))
		}
		if err := r.commit(); err != nil {
			return err
		}
		if len(inos) < copyPage {
			return nil
		}
		from = inos[len(inos)-1] + 1
	}
}

// EndPart ends the pieces of one Copy, which was of index.
func (r *Restorer) EndPart(index uint64) error {
	if err := r.commit(); err != nil {
		return err
	}
	b, err := get(r.store, keyState)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	s, err := decodeState(b)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if s.applied != index || index <= r.index {
		return fmt.Errorf("%w: the state is of entry %d, promised was %d, and it follows %d", ErrBadPiece, s.applied, index, r.index)
	}
	r.index = index
	return nil
}

// Checksum digests the state as Volume.Checksum did at the index of the last part.
func (r *Restorer) Checksum(ctx context.Context) (sum Digest, err error) {
	meta, err := r.store.SnapshotMeta()
	if err != nil {
		return sum, fmt.Errorf("restore: checksum: %w", err)
	}
	h := sha256.New()
	err = (&Snapshot{v: &Volume{store: r.store}, meta: meta}).hash(ctx, h)
	if err = errors.Join(err, meta.Close()); err != nil {
		return sum, fmt.Errorf("restore: checksum: %w", err)
	}
	h.Sum(sum[:0])
	return sum, nil
}

// Finish makes the restored state one that a volume can begin from, and durable: clients have to start over, and may reclaim what they had. now is the time in nanoseconds since
// the epoch, random differs from one restore to the next. It returns the volume, whose Applied is the index of which the log of its replicas must begin.
func (r *Restorer) Finish(cfg Config, now int64, random uint64) (*Volume, error) {
	if r.index == 0 {
		return nil, fmt.Errorf("%w: no part is whole", ErrBadPiece)
	}
	cfg.Store = r.store
	v, err := open(cfg, true)
	if err != nil {
		return nil, err
	}
	index := restoredIndex(r.index, now)
	err = v.removeStrayObjects()
	if err == nil {
		err = v.AdvanceTo(index - 1)
	}
	if err == nil {
		e := Entry{Kind: EntryRestored, Time: now, Random: random, Payload: binary.BigEndian.AppendUint64(nil, r.index)}
		_, err = v.Apply(index, e.Encode())
	}
	if err == nil {
		_, err = v.Checkpoint(context.Background())
	}
	if err == nil {
		err = v.validate(index, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("volume %s: restore: %w", v.name, err)
	}
	return v, nil
}
