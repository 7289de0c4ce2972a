package volume

import (
	"encoding/binary"
	"fmt"
)

// A volume may have a limit in bytes. What counts against it is computed in apply from the inodes alone, so that all replicas refuse the same requests: the
// storage of each file (Inode.Used), and what an inode and a name cost in the metadata. Changes that need nothing more always work, also when the limit was lowered below
// what is used: removal, truncation, renaming, and writing over what a file without holes already has.
//
// Used is an estimate from above for files with holes, which nobody knows block by block, the host's holes being the host's: writing twice to the same
// place may count twice, though never more than a file of that size without holes.

const (
	// usageVersion is the cluster version from which on usage is counted.
	usageVersion = 2
	// inodeCost and nameCost are what an inode and an entry of a directory count for, about what they take in the metadata of one replica.
	inodeCost = 512
	nameCost  = 128
)

// cost is what an inode counts for, the names in it included if it is a directory.
func (n *Inode) cost() uint64 { return inodeCost + n.Used + nameCost*n.Entries }

// count replaces what n counted for by what it costs now.
func (tx *Tx) count(n *Inode) {
	cost := n.cost()
	tx.state.used += cost - n.counted
	n.counted = cost
}

// room reports whether the volume may grow by that many bytes.
func (tx *Tx) room(bytes uint64) bool {
	s := &tx.state
	return s.limit == 0 || bytes == 0 || s.used <= s.limit && bytes <= s.limit-s.used
}

// more is by how much n grows if it comes to use that many bytes.
func more(n *Inode, used uint64) uint64 { return max(used, n.Used) - n.Used }

// usedAfterWrite is at least what Used becomes by a write (or a reservation) of [off, end).
func usedAfterWrite(n *Inode, off, end uint64) uint64 {
	size := max(n.Size, end)
	switch {
	case n.Inline && end <= InlineBytes:
		return roundUp(size, 512)
	case n.Sparse || off > roundUp(n.Size, blockBytes):
		return min(roundUp(n.Used, blockBytes)+blocksOf(off, end), roundUp(size, blockBytes))
	}
	return roundUp(size, blockBytes)
}

// usedAfterResize is at least what Used becomes by a change of the size.
func usedAfterResize(n *Inode, size uint64) uint64 {
	switch {
	case size <= n.Size:
		return n.Used
	case n.Inline && size <= InlineBytes:
		return roundUp(size, 512)
	}
	return roundUp(n.Used, blockBytes) // the rest is a hole
}

// recount adds up the costs of all inodes, for a volume that did not count. No inode may have been changed by the entry yet.
func (tx *Tx) recount() error {
	tx.state.used = 0
	return scanInodes(tx.store, func(n *Inode) error {
		tx.state.used += n.cost()
		return nil
	})
}

// setLimit applies an EntryLimit.
func (tx *Tx) setLimit(payload []byte) error {
	if len(payload) != 8 {
		return fmt.Errorf("%w: limit of %d bytes", ErrBadEntry, len(payload))
	}
	// A program that knows the entry knows the version, and one that does not has stopped by now.
	if err := tx.riseTo(usageVersion); err != nil {
		return err
	}
	tx.state.limit = binary.BigEndian.Uint64(payload)
	return nil
}

// LimitPayload returns the payload of an EntryLimit: how many bytes the volume may use; 0: as many as there are.
func LimitPayload(bytes uint64) []byte { return binary.BigEndian.AppendUint64(nil, bytes) }

// Usage returns how many bytes the volume uses, as they count against its limit, and the limit; 0: it has none. A volume of cluster version 1 does not count: used is 0.
func (v *Volume) Usage() (used, limit uint64) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.state.version < usageVersion {
		return 0, 0
	}
	return v.state.used, v.state.limit
}

// limited returns the figures of a file system as users of a volume with a limit see them: it is as large as the limit, and no more can
// be had than its host has. host.TotalBytes is 0 if nothing is known of the host.
func (s *state) limited(host FSStat) FSStat {
	if s.limit == 0 {
		return host
	}
	free := s.limit - min(s.used, s.limit)
	out := host
	out.TotalBytes, out.FreeBytes, out.AvailBytes = s.limit, free, free
	if host.TotalBytes > 0 {
		out.AvailBytes = min(free, host.AvailBytes)
	}
	return out
}
