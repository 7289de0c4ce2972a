package volume

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"holdfast/internal/store"
)

// The stream of a snapshot: a header (magic, index u64, since u64, CRC-32C u32), the metadata as the store streams it, then frames: kind u8, inode u64,
// offset u64, length u32, CRC-32C u32 of the rest of the frame, data.
const (
	snapshotMagic       = "HFSNAP1\n"
	snapshotHeaderBytes = len(snapshotMagic) + 20
	frameHeaderBytes    = 25
	frameDataBytes      = 256 << 10

	frameObject = 1 // an object starts, empty
	frameData   = 2
	frameEnd    = 3 // offset: how many objects there were; inode: the index of an entry of which the objects may be already (0 of an older release, which does not say)
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrBadSnapshot is returned by Install for a stream that is damaged or cut off.
var ErrBadSnapshot = errors.New("volume: snapshot is damaged")

// Snapshot is a fuzzy snapshot: metadata at Index exactly, objects at some state between Index and the end of WriteTo. Replaying the log
// from Index+1 mends that: whatever an object has too early is written again by an entry that follows.
type Snapshot struct {
	Index uint64

	v     *Volume
	since uint64
	meta  store.MetaSnapshot
}

// Snapshot captures the volume at its applied index for a replica that has everything up to since (0: it has nothing). A replica whose object writes may be missing after
// a crash has less than it applied: ReplayFrom()-1 is always a safe since.
func (v *Volume) Snapshot(since uint64) (*Snapshot, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if !v.valid {
		return nil, fmt.Errorf("volume %s: snapshot: %w", v.name, ErrInvalid)
	}
	meta, err := v.store.SnapshotMeta()
	if err != nil {
		return nil, fmt.Errorf("volume %s: snapshot: %w", v.name, err)
	}
	return &Snapshot{Index: v.state.applied, v: v, since: since, meta: meta}, nil
}

// Close releases the snapshot.
func (s *Snapshot) Close() error { return s.meta.Close() }

// WriteTo streams the snapshot: metadata first, then the objects that changed after since.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) {
	head := append(make([]byte, 0, snapshotHeaderBytes), snapshotMagic...)
	head = binary.BigEndian.AppendUint64(head, s.Index)
	head = binary.BigEndian.AppendUint64(head, s.since)
	head = binary.BigEndian.AppendUint32(head, crc32.Checksum(head, castagnoli))
	out := &frameWriter{w: w}
	out.write(head)
	if out.err != nil {
		return out.n, out.err
	}
	n, err := s.meta.WriteTo(w)
	out.n += n
	if err != nil {
		return out.n, s.v.met(fmt.Errorf("volume %s: send metadata: %w", s.v.name, err), false)
	}
	objects := uint64(0)
	err = scanInodes(s.meta, func(n *Inode) error {
		if n.Type != TypeFile || n.Inline || n.Change <= s.since {
			return nil
		}
		objects++
		return s.writeObject(out, n)
	})
	if err != nil {
		return out.n, s.v.met(fmt.Errorf("volume %s: send objects: %w", s.v.name, err), false)
	}
	// One more than is applied may be in the objects already.
	out.frame(frameEnd, Ino(s.v.Applied()+1), objects, nil)
	return out.n, out.err
}

// scanner is a Store or a MetaSnapshot.
type scanner interface {
	Scan(lo, hi []byte, fn func(key, value []byte) bool) error
}

// scanInodes calls fn for every inode in order until it fails.
func scanInodes(s scanner, fn func(n *Inode) error) error {
	var failed error
	err := s.Scan([]byte{prefixInode}, []byte{prefixInode + 1}, func(key, value []byte) bool {
		n, err := decodeInode(inoOfKey(key), value)
		if err == nil {
			err = fn(n)
		}
		failed = err
		return err == nil
	})
	return errors.Join(failed, err)
}

// writeObject sends what an object holds within the size that the metadata gives it; what lies beyond is written again by replay.
func (s *Snapshot) writeObject(out *frameWriter, n *Inode) error {
	out.frame(frameObject, n.Ino, 0, nil)
	buf := make([]byte, min(n.Size, frameDataBytes))
	err := readExtents(s.v.store, n, buf, func(off uint64, data []byte) error {
		out.frame(frameData, n.Ino, off, data)
		return out.err
	})
	if err == nil {
		err = out.err
	}
	return err
}

// readExtents calls fn for what an object holds within the inode's size, a buf at a time; holes are left out. The object may change meanwhile.
func readExtents(st store.Store, n *Inode, buf []byte, fn func(off uint64, data []byte) error) error {
	id, size := uint64(n.Ino), int64(n.Size)
	for off := int64(0); off < size; {
		data, err := st.SeekObject(id, off, false)
		if errors.Is(err, store.ErrNoData) {
			return nil
		}
		if err != nil {
			return err
		}
		end, err := st.SeekObject(id, data, true)
		if errors.Is(err, store.ErrNoData) { // cut meanwhile
			end, err = data, nil
		}
		if err != nil {
			return err
		}
		for off, end = data, min(end, size); off < end; {
			part := buf[:min(int64(len(buf)), end-off)]
			if err := st.ReadObject(id, off, part); err != nil {
				return err
			}
			if err := fn(uint64(off), part); err != nil {
				return err
			}
			off += int64(len(part))
		}
	}
	return nil
}

// frameWriter writes frames; its first error sticks.
type frameWriter struct {
	w   io.Writer
	n   int64
	err error
}

func (f *frameWriter) write(b []byte) {
	if f.err != nil || len(b) == 0 {
		return
	}
	n, err := f.w.Write(b)
	f.n += int64(n)
	if err != nil {
		f.err = fmt.Errorf("volume: write snapshot: %w", err)
	}
}

func (f *frameWriter) frame(kind byte, ino Ino, off uint64, data []byte) {
	head := make([]byte, 0, frameHeaderBytes)
	head = append(head, kind)
	head = binary.BigEndian.AppendUint64(head, uint64(ino))
	head = binary.BigEndian.AppendUint64(head, off)
	head = binary.BigEndian.AppendUint32(head, uint32(len(data)))
	sum := crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, data)
	f.write(binary.BigEndian.AppendUint32(head, sum))
	f.write(data)
}

// Install replaces this replica's state by the snapshot that r holds, and may read beyond its end. After an error or a crash the state is invalid until
// another Install succeeds: Valid reports false, Applied 0. Only a stream that does not even start as a snapshot leaves the state as it is.
func (v *Volume) Install(r io.Reader) error {
	v.checkpointing.Lock()
	defer v.checkpointing.Unlock()
	in := bufio.NewReaderSize(r, frameDataBytes)
	index, err := readSnapshotHeader(in)
	if err == nil {
		err = v.invalidate()
	}
	if err == nil {
		// Neither the sender's effects nor its word that the state is valid are ours.
		var last store.Batch
		last.DeleteRange([]byte{prefixEffects}, []byte{prefixEffects + 1})
		last.DeleteRange([]byte{prefixLocal}, []byte{prefixLocal + 1})
		last.Set(keyValid, []byte{0})
		last.Set(keyCheckpoint, binary.BigEndian.AppendUint64(nil, index))
		err = v.store.InstallMeta(in, &last)
	}
	ahead := uint64(0)
	if err == nil {
		ahead, err = v.installObjects(in)
	}
	if err == nil {
		err = v.removeStrayObjects()
	}
	if err == nil {
		err = v.validate(index, ahead)
	}
	if err != nil {
		return fmt.Errorf("volume %s: install snapshot: %w", v.name, err)
	}
	return nil
}

func readSnapshotHeader(r io.Reader) (index uint64, err error) {
	head := make([]byte, snapshotHeaderBytes)
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, err
	}
	body, sum := head[:len(head)-4], binary.BigEndian.Uint32(head[len(head)-4:])
	if string(head[:len(snapshotMagic)]) != snapshotMagic || crc32.Checksum(body, castagnoli) != sum {
		return 0, fmt.Errorf("%w: header", ErrBadSnapshot)
	}
	return binary.BigEndian.Uint64(head[len(snapshotMagic):]), nil
}

// invalidate notes, durably, that the state is in pieces, and drops what is in memory.
func (v *Volume) invalidate() error {
	v.applying.Lock()
	defer v.applying.Unlock()
	v.loseCopy()
	v.mu.Lock()
	defer v.mu.Unlock()
	var b store.Batch
	b.Set(keyValid, []byte{0})
	if err := v.store.Commit(&b); err != nil {
		return err
	}
	if err := v.store.FlushMeta(context.Background()); err != nil {
		return err
	}
	return v.load(false)
}

// validate notes that the state is whole, but for objects that may be as of ahead, and loads it.
func (v *Volume) validate(index, ahead uint64) error {
	if err := v.store.SyncObjects(context.Background()); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	stored, err := get(v.store, keyState)
	if err != nil {
		return err
	}
	st, err := decodeState(stored)
	if err != nil {
		return err
	}
	if st.applied != index {
		return fmt.Errorf("%w: metadata of index %d, promised was %d", ErrBadSnapshot, st.applied, index)
	}
	var b store.Batch
	b.Delete(keyValid)
	b.Set(keyAhead, binary.BigEndian.AppendUint64(nil, ahead))
	if err := v.store.Commit(&b); err != nil {
		return err
	}
	if err := v.store.FlushMeta(context.Background()); err != nil {
		return err
	}
	if err := v.load(false); err != nil {
		return err
	}
	v.wakeWaiting()
	return nil
}

// installObjects reads the frames. It returns the index of which the objects may be.
func (v *Volume) installObjects(r io.Reader) (ahead uint64, err error) {
	buf := make([]byte, frameDataBytes)
	current, objects := uint64(0), uint64(0)
	for {
		var head [frameHeaderBytes]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return 0, err
		}
		ino, off := binary.BigEndian.Uint64(head[1:]), binary.BigEndian.Uint64(head[9:])
		length := binary.BigEndian.Uint32(head[17:])
		if length > frameDataBytes {
			return 0, fmt.Errorf("%w: frame of %d bytes", ErrBadSnapshot, length)
		}
		data := buf[:length]
		if _, err := io.ReadFull(r, data); err != nil {
			return 0, err
		}
		sum := crc32.Update(crc32.Checksum(head[:frameHeaderBytes-4], castagnoli), castagnoli, data)
		if sum != binary.BigEndian.Uint32(head[frameHeaderBytes-4:]) {
			return 0, fmt.Errorf("%w: checksum of a frame", ErrBadSnapshot)
		}
		var err error
		switch kind := head[0]; {
		case kind == frameObject:
			current = ino
			objects++
			err = v.store.RemoveObject(ino)
		case kind == frameData && ino == current && off <= MaxFileBytes-uint64(length):
			err = v.store.WriteObject(ino, int64(off), data)
		case kind == frameEnd && off == objects:
			return ino, nil
		default:
			err = fmt.Errorf("%w: frame %d of object %d at %d", ErrBadSnapshot, kind, ino, off)
		}
		if err != nil {
			return 0, err
		}
	}
}

// removeStrayObjects removes the objects that the metadata does not know.
func (v *Volume) removeStrayObjects() error {
	var failed error
	err := v.store.ListObjects(func(id uint64) bool {
		b, err := get(v.store, inodeKey(Ino(id)))
		var n *Inode
		if err == nil && b != nil {
			n, err = decodeInode(Ino(id), b)
		}
		if err == nil && (n == nil || n.Type != TypeFile || n.Inline) {
			err = v.store.RemoveObject(id)
		}
		failed = err
		return err == nil
	})
	return errors.Join(failed, err)
}
