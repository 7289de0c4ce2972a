package volume

import (
	"encoding/binary"
	"fmt"
)

// Effects are the object changes of one log entry, kept with the metadata until a checkpoint has made them durable. After a crash the metadata may be
// newer than the objects; then Redo repeats the changes in log order. It needs no other metadata for that, which would be too new, and no
// copy of the data: that is in the log entry.

type objectOpKind uint8

const (
	opWrite    objectOpKind = 1 // data at off
	opTruncate objectOpKind = 2 // to off
	opPunch    objectOpKind = 3
	opAllocate objectOpKind = 4
	opRemove   objectOpKind = 5

	// In effects only: the data of the write is in the log entry, not in the record.
	opWriteEntry objectOpKind = 6
)

// objectOp is one change of an object.
type objectOp struct {
	kind        objectOpKind
	ino         Ino
	off, length uint64
	data        []byte // opWrite
}

// object adds a change of an object to the entry's.
func (tx *Tx) object(op objectOp) { tx.ops = append(tx.ops, op) }

func (tx *Tx) removeObject(ino Ino) { tx.object(objectOp{kind: opRemove, ino: ino}) }

// flushObjects carries out the object changes so far, with the lock released.
func (tx *Tx) flushObjects() {
	ops := tx.ops[tx.started:]
	if len(ops) == 0 || tx.err != nil {
		return
	}
	tx.started = len(tx.ops)
	for i := range ops {
		if k := ops[i].kind; k == opTruncate || k == opPunch || k == opRemove {
			tx.v.cuts.begin(ops[i].ino)
		}
	}
	tx.unlock()
	var err error
	for i := range ops {
		if err = ops[i].run(tx.v); err != nil {
			err = fmt.Errorf("object %d: %w", ops[i].ino, err)
			break
		}
	}
	if tx.v.copy != nil && err == nil {
		tx.v.copy.observe(ops)
	}
	tx.lock()
	if err != nil {
		tx.fail("change", err)
	}
}

func (op *objectOp) run(v *Volume) error {
	id := uint64(op.ino)
	switch op.kind {
	case opWrite:
		return v.store.WriteObject(id, int64(op.off), op.data)
	case opTruncate:
		return v.store.TruncateObject(id, int64(op.off))
	case opPunch:
		return v.store.PunchObject(id, int64(op.off), int64(op.length))
	case opAllocate:
		return v.store.AllocateObject(id, int64(op.off), int64(op.length))
	case opRemove:
		return v.store.RemoveObject(id)
	}
	return fmt.Errorf("%w: object change %d", errCorrupt, op.kind)
}

// encodeEffects writes ops: each is kind u8 and uvarints inode, offset, length; after opWrite follow that many bytes, after opWriteEntry the
// uvarint offset of the data in the entry.
func encodeEffects(ops []objectOp, entry []byte) []byte {
	b := make([]byte, 0, 32*len(ops))
	for i := range ops {
		op := &ops[i]
		kind, length := op.kind, op.length
		at, inEntry := 0, false
		if kind == opWrite {
			length = uint64(len(op.data))
			if at, inEntry = offsetIn(entry, op.data); inEntry {
				kind = opWriteEntry
			}
		}
		b = append(b, byte(kind))
		b = binary.AppendUvarint(b, uint64(op.ino))
		b = binary.AppendUvarint(b, op.off)
		b = binary.AppendUvarint(b, length)
		switch {
		case inEntry:
			b = binary.AppendUvarint(b, uint64(at))
		case kind == opWrite:
			b = append(b, op.data...)
		}
	}
	return b
}

// decodeEffects calls fn for each change in b, with the data that it takes from entry.
func decodeEffects(b, entry []byte, fn func(op *objectOp) error) error {
	bad := func(what string) error { return fmt.Errorf("%w: effects: %s", errCorrupt, what) }
	for len(b) > 0 {
		op := objectOp{kind: objectOpKind(b[0])}
		b = b[1:]
		var fields [4]uint64
		wanted := 3
		if op.kind == opWriteEntry {
			wanted = 4
		}
		for i := range wanted {
			v, k := binary.Uvarint(b)
			if k <= 0 {
				return bad("cut off")
			}
			fields[i], b = v, b[k:]
		}
		op.ino, op.off, op.length = Ino(fields[0]), fields[1], fields[2]
		switch op.kind {
		case opWrite:
			if op.length > uint64(len(b)) {
				return bad("data cut off")
			}
			op.data, b = b[:op.length], b[op.length:]
		case opWriteEntry:
			at := fields[3]
			if at > uint64(len(entry)) || op.length > uint64(len(entry))-at {
				return bad("data lies outside the log entry; is this another entry?")
			}
			op.kind, op.data = opWrite, entry[at:at+op.length]
		}
		if op.off > MaxFileBytes || op.length > MaxFileBytes-op.off {
			return bad("beyond the largest file")
		}
		if err := fn(&op); err != nil {
			return err
		}
	}
	return nil
}

// Redo repeats the object writes of an entry at index <= Applied(). Entries must come in order, from ReplayFrom on.
func (v *Volume) Redo(index uint64, entry []byte) error {
	if applied := v.Applied(); index > applied {
		return fmt.Errorf("volume %s: redo entry %d: only %d are applied", v.name, index, applied)
	}
	b, err := get(v.store, effectsKey(index))
	if err == nil {
		err = decodeEffects(b, entry, func(op *objectOp) error { return op.run(v) })
	}
	if err != nil {
		return v.met(fmt.Errorf("volume %s: redo entry %d: %w", v.name, index, err), true)
	}
	return nil
}
