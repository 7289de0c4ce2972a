package volume

import (
	"context"
	"encoding/binary"
	"fmt"

	"holdfast/internal/store"
)

// Checkpoint makes everything applied so far durable and returns the index up to which (inclusive) the log may be dropped. Apply may go on meanwhile.
//
// The order matters: the effects up to an index may only be dropped when the objects are durable, in whatever state a crash leaves the metadata, and the
// log only when it is certain that the dropped effects will not come back.
func (v *Volume) Checkpoint(ctx context.Context) (index uint64, err error) {
	v.checkpointing.Lock()
	defer v.checkpointing.Unlock()
	v.mu.RLock()
	valid, last := v.valid, v.checkpoint
	index = v.state.applied // all its object writes have returned
	v.mu.RUnlock()
	if !valid {
		return 0, fmt.Errorf("volume %s: checkpoint: %w", v.name, ErrInvalid)
	}
	if index == last {
		return index, nil
	}
	if err := v.store.SyncObjects(ctx); err != nil {
		return 0, v.met(fmt.Errorf("volume %s: checkpoint: %w", v.name, err), true)
	}
	var b store.Batch
	b.Set(keyCheckpoint, binary.BigEndian.AppendUint64(nil, index))
	b.DeleteRange(effectsKey(last), effectsKey(index+1))
	if err := v.store.Commit(&b); err != nil {
		return 0, v.met(fmt.Errorf("volume %s: checkpoint: %w", v.name, err), true)
	}
	if err := v.store.FlushMeta(ctx); err != nil {
		return 0, v.met(fmt.Errorf("volume %s: checkpoint: %w", v.name, err), true)
	}
	v.mu.Lock()
	v.checkpoint = index
	v.mu.Unlock()
	return index, nil
}
