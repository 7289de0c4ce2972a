package volume

import (
	"encoding/binary"
	"fmt"

	"holdfast/internal/store"
)

// restoring is one restore of the volume: its entries from backup+1 to restored-1 are of a former life, and what a client or a backup knows of them is not of this volume's history.
type restoring struct {
	backup   uint64 // the index that the backup was of
	restored uint64 // the first index afterwards
}

// loadHistory returns the restores that the state stems from, oldest first.
func loadHistory(s store.Store) ([]restoring, error) {
	b, err := get(s, keyHistory)
	if err != nil {
		return nil, err
	}
	if len(b)%16 != 0 {
		return nil, fmt.Errorf("%w: history of %d bytes", errCorrupt, len(b))
	}
	var all []restoring
	for ; len(b) > 0; b = b[16:] {
		all = append(all, restoring{backup: binary.BigEndian.Uint64(b), restored: binary.BigEndian.Uint64(b[8:])})
	}
	return all, nil
}

// restoreVersion is the cluster version from which on volumes can be restored.
const restoreVersion = 2

// lifeBits is how many entries of the log a second may have, as a power of two: far more than any machine can write.
const lifeBits = 24

// restoredIndex returns the index at which a volume restored at now (nanoseconds since the epoch) goes on, in place of applied. Change attributes and generations are taken
// from the index, and clients remember those of the former life, of which nobody may know how far it got; so the index becomes one that no log can have reached until now.
func restoredIndex(applied uint64, now int64) uint64 {
	return max(uint64(max(now, 0))/1e9, applied>>lifeBits+1) << lifeBits
}

// generation returns the generation of inodes made by the entry at index: numbers that were given out after the backup are given out again after a restore.
func generation(index uint64) uint32 { return uint32(index>>lifeBits) + 1 }

// Restorable is a Program that does something when its volume was restored from a backup: clients have to start over, and may reclaim what they had.
type Restorable interface {
	// Restored is called once, in an entry; random differs from one restore to the next.
	Restored(tx *Tx, random uint64)
}

// restored applies an EntryRestored: payload is the index of the backup.
func (tx *Tx) restored(e *Entry) error {
	if len(e.Payload) != 8 {
		return fmt.Errorf("%w: restored with %d bytes", ErrBadEntry, len(e.Payload))
	}
	if err := tx.riseTo(restoreVersion); err != nil {
		return err
	}
	for _, sequence := range tx.v.clients.sequences() {
		tx.dropClient(sequence)
	}
	for i := range tx.v.programs {
		if p, ok := tx.v.programs[i].Program.(Restorable); ok {
			p.Restored(tx, e.Random)
		}
	}
	old, err := get(tx.store, keyHistory)
	if err != nil {
		return err
	}
	tx.batch.Set(keyHistory, binary.BigEndian.AppendUint64(append(old, e.Payload...), tx.index))
	return nil
}
