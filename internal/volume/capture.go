package volume

import (
	"context"
	"crypto/sha256"
	"fmt"
)

// Capture is the state at one index, to be digested while the volume goes on.
type Capture struct {
	snap  *Snapshot
	ahead bool // objects may be newer than the metadata
}

// BeginChecksum captures the state at the applied index. Called between two entries, the capture is of exactly that index. Sum must follow.
func (v *Volume) BeginChecksum() (*Capture, error) {
	snap, err := v.Snapshot(0)
	if err != nil {
		return nil, fmt.Errorf("volume %s: checksum: %w", v.name, err)
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	return &Capture{snap, v.ahead > snap.Index}, nil
}

// Sum digests the captured state, as Checksum does, and releases it. stable is false if a file that is kept as an object changed since the capture: file data is not
// captured, so the digest may then be of a mixture and means nothing. So it may be after a crash or a snapshot (NoteAhead).
func (c *Capture) Sum(ctx context.Context) (sum Digest, stable bool, err error) {
	h := sha256.New()
	err = c.snap.hash(ctx, h)
	stable = !c.ahead
	if err == nil && stable {
		err = scanInodes(c.snap.meta, func(n *Inode) error {
			if n.Type == TypeFile && !n.Inline {
				stable = stable && c.snap.v.unchanged(n)
			}
			return ctx.Err()
		})
	}
	if closing := c.snap.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return sum, false, c.snap.v.met(fmt.Errorf("volume %s: checksum: %w", c.snap.v.name, err), false)
	}
	h.Sum(sum[:0])
	return sum, stable, nil
}

// unchanged reports whether the inode is still as it was.
func (v *Volume) unchanged(n *Inode) (same bool) {
	v.View(func(tx *Tx) {
		now, errno := tx.Inode(n.Ino, n.Gen)
		same = errno == OK && now.Change == n.Change
	})
	return same
}
