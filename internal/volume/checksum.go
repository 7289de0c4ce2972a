package volume

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
)

// Digest is a SHA-256 of a replica state.
type Digest [32]byte

// Checksum returns a digest of the whole state at the applied index, equal on replicas that are equal; file data is included.
//
// The metadata is that at index. The objects are read afterwards, while apply may go on, so digests can be compared only if
// nothing was applied until Checksum returned (Applied still is index), on either replica; who finds them different otherwise tries again.
func (v *Volume) Checksum(ctx context.Context) (index uint64, sum Digest, err error) {
	snap, err := v.Snapshot(0)
	if err != nil {
		return 0, sum, err
	}
	h := sha256.New()
	err = snap.hash(ctx, h)
	if closing := snap.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return 0, sum, v.met(fmt.Errorf("volume %s: checksum: %w", v.name, err), false)
	}
	h.Sum(sum[:0])
	return snap.Index, sum, nil
}

// hash feeds all keys and values but the local ones to h, then the checksums of the objects.
func (s *Snapshot) hash(ctx context.Context, h hash.Hash) error {
	var size [8]byte
	add := func(b []byte) {
		binary.BigEndian.PutUint64(size[:], uint64(len(b)))
		h.Write(size[:])
		h.Write(b)
	}
	err := s.meta.Scan([]byte{0}, []byte{0xff}, func(key, value []byte) bool {
		if key[0] != prefixEffects && key[0] != prefixLocal {
			add(key)
			add(value)
		}
		return ctx.Err() == nil
	})
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	return scanInodes(s.meta, func(n *Inode) error {
		if n.Type != TypeFile || n.Inline {
			return nil
		}
		crc, err := s.v.store.ObjectChecksum(ctx, uint64(n.Ino), int64(n.Size))
		add(binary.BigEndian.AppendUint32(nil, crc))
		return err
	})
}
