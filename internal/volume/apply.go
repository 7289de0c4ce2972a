package volume

import (
	"encoding/binary"
	"errors"
	"fmt"

	"holdfast/internal/xdr"
)

// ErrUnknownEntry is returned by Apply for an entry that only a newer release understands. The replica must stop: to skip it would be to diverge.
var ErrUnknownEntry = errors.New("volume: log entry of an unknown kind or version; this program is too old")

// Apply executes the entry at Applied()+1 and returns the RPC reply record (nil for entries that are no calls). An error means that this replica cannot go on (disk); it
// never means that the request failed. An empty entry (raft's own) only advances Applied. entry is not kept.
func (v *Volume) Apply(index uint64, entry []byte) (reply []byte, err error) {
	v.applying.Lock()
	defer v.applying.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.valid {
		return nil, fmt.Errorf("volume %s: apply entry %d: %w", v.name, index, ErrInvalid)
	}
	if index != v.state.applied+1 {
		return nil, fmt.Errorf("volume %s: apply entry %d: the last one applied is %d", v.name, index, v.state.applied)
	}
	var e Entry
	if len(entry) > 0 {
		if err := DecodeEntry(entry, &e); err != nil {
			return nil, fmt.Errorf("volume %s: apply entry %d: %w", v.name, index, err)
		}
	}
	tx := &v.tx
	tx.begin(v, index, &e, entry)
	if len(entry) > 0 {
		reply, err = tx.run(&e)
	}
	if err == nil {
		tx.flushObjects()
		err = tx.err
	}
	if err == nil {
		err = tx.publish()
	}
	if err != nil {
		v.failed.Store(true) // before any reader can see what was done of it
	}
	v.cuts.publish()
	if err != nil {
		return nil, v.met(fmt.Errorf("volume %s: apply entry %d: %w", v.name, index, err), true)
	}
	return reply, nil
}

// AdvanceTo notes that the entries up to index are applied although they are not the volume's business (raft configuration changes).
func (v *Volume) AdvanceTo(index uint64) error {
	v.applying.Lock()
	defer v.applying.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.valid {
		return fmt.Errorf("volume %s: advance to %d: %w", v.name, index, ErrInvalid)
	}
	if index <= v.state.applied {
		return nil
	}
	tx := &v.tx
	tx.begin(v, index, &Entry{}, nil)
	if err := tx.publish(); err != nil {
		return v.met(fmt.Errorf("volume %s: advance to %d: %w", v.name, index, err), true)
	}
	return nil
}

// run executes an entry by its kind.
func (tx *Tx) run(e *Entry) ([]byte, error) {
	switch e.Kind {
	case EntryCall:
		return tx.call(e), nil
	case EntryExports:
		return nil, tx.setExports(e.Payload)
	case EntryCommand:
		return nil, tx.command(e.Payload)
	case EntryClient:
		return nil, tx.client(e)
	case EntryVersion:
		return nil, tx.raiseVersion(e.Payload)
	case EntryMark:
		return nil, nil
	case EntrySpace:
		return nil, tx.setSpace(e.Payload)
	case EntryLimit:
		return nil, tx.setLimit(e.Payload)
	case EntryRestored:
		return nil, tx.restored(e)
	}
	return nil, fmt.Errorf("%w: kind %d", ErrUnknownEntry, e.Kind)
}

func (tx *Tx) call(e *Entry) []byte {
	var req Request
	reply := xdr.NewEncoder(make([]byte, 0, 512))
	err := e.Request(tx.index, &req)
	req.Time = tx.now
	if err != nil {
		refuse(e.Payload, err, reply)
	} else {
		tx.v.execute(tx, &req, reply)
	}
	if reply.Len() == 0 {
		return nil
	}
	return reply.Bytes()
}

func (tx *Tx) command(payload []byte) error {
	if len(payload) < 8 {
		return fmt.Errorf("%w: command of %d bytes", ErrBadEntry, len(payload))
	}
	prog, vers := binary.BigEndian.Uint32(payload), binary.BigEndian.Uint32(payload[4:])
	for i := range tx.v.programs {
		if p := &tx.v.programs[i]; p.prog == prog && p.vers == vers {
			if err := p.Command(tx, payload[8:]); err != nil {
				return fmt.Errorf("command of RPC program %d version %d: %w", prog, vers, err)
			}
			return nil
		}
	}
	return fmt.Errorf("%w: command of RPC program %d version %d", ErrUnknownEntry, prog, vers)
}

// CommandPayload returns the payload of an EntryCommand.
func CommandPayload(prog, vers uint32, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, prog)
	return append(binary.BigEndian.AppendUint32(b, vers), payload...)
}

func (tx *Tx) raiseVersion(payload []byte) error {
	if len(payload) != 4 {
		return fmt.Errorf("%w: cluster version of %d bytes", ErrBadEntry, len(payload))
	}
	vers := binary.BigEndian.Uint32(payload)
	if vers > MaxVersion {
		return fmt.Errorf("%w: cluster version %d, known up to %d", ErrUnknownEntry, vers, MaxVersion)
	}
	return tx.riseTo(vers)
}

// riseTo raises the cluster version to vers and brings the state into that version's form.
func (tx *Tx) riseTo(vers uint32) error {
	old := tx.state.version
	tx.state.version = max(old, vers)
	if old < usageVersion && vers >= usageVersion {
		return tx.recount()
	}
	return nil
}

// VersionPayload returns the payload of an EntryVersion.
func VersionPayload(version uint32) []byte { return binary.BigEndian.AppendUint32(nil, version) }

func (tx *Tx) setSpace(payload []byte) error {
	if len(payload) != 16 {
		return fmt.Errorf("%w: space figures of %d bytes", ErrBadEntry, len(payload))
	}
	tx.space = &FSStat{TotalBytes: binary.BigEndian.Uint64(payload), FreeBytes: binary.BigEndian.Uint64(payload[8:])}
	tx.batch.Set(keySpace, payload)
	return nil
}

// SpacePayload returns the payload of an EntrySpace.
func SpacePayload(total, free uint64) []byte { return putSpace(total, free) }

// publish commits the changes of the entry in one batch and lets readers see them. The order of the batch does not matter, as its keys differ.
func (tx *Tx) publish() error {
	b := &tx.batch
	for ino, n := range tx.inodes {
		if n == nil {
			b.Delete(inodeKey(ino))
		} else {
			b.Set(inodeKey(ino), encodeInode(n))
		}
	}
	for id, d := range tx.dirents {
		if d.gone {
			b.Delete(direntKey(id.dir, id.cookie))
		} else {
			b.Set(direntKey(id.dir, id.cookie), d.encode())
		}
	}
	for ino, content := range tx.inline {
		if content == nil {
			b.Delete(inlineKey(ino))
		} else {
			b.Set(inlineKey(ino), content)
		}
	}
	for ino, orphan := range tx.orphans {
		if orphan {
			b.Set(orphanKey(ino), nil)
		} else {
			b.Delete(orphanKey(ino))
		}
	}
	if len(tx.ops) > 0 {
		b.Set(effectsKey(tx.index), encodeEffects(tx.ops, tx.entry))
	}
	b.Set(keyState, tx.state.encode())
	v := tx.v
	if err := v.store.Commit(b); err != nil {
		return fmt.Errorf("commit metadata: %w", err)
	}
	v.state, v.exports = tx.state, tx.exports
	if len(v.waiting) > 0 {
		v.wakeWaiting()
	}
	if tx.space != nil {
		v.space = *tx.space
	}
	for ino, n := range tx.inodes {
		if n == nil {
			v.cache.remove(ino)
		} else {
			v.cache.put(n)
		}
	}
	return nil
}
