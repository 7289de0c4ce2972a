package wal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"

	"go.etcd.io/raft/v3/raftpb"
)

const (
	version = 1

	segmentMagic       = "HFastLog"
	segmentHeaderBytes = 4096 // a page of its own: no frame's write touches it
	segmentFieldBytes  = 40

	frameMagic       = 0x4d465348
	frameHeaderBytes = 104
	descriptorBytes  = 24
	frameAlign       = 8
	pageBytes        = 4096
)

// Flags of a frame.
const (
	flagReset  = 1 // everything before is void
	flagClosed = 2 // the log was closed after this frame
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// segmentHeader is what the first page of a segment tells.
type segmentHeader struct {
	seq  uint64
	salt uint64
	size int64
}

func (h *segmentHeader) encode() []byte {
	b := make([]byte, segmentHeaderBytes)
	copy(b, segmentMagic)
	le := binary.LittleEndian
	le.PutUint32(b[8:], version)
	le.PutUint64(b[16:], h.seq)
	le.PutUint64(b[24:], h.salt)
	le.PutUint64(b[32:], uint64(h.size))
	le.PutUint32(b[12:], checksum(b[16:segmentFieldBytes]))
	return b
}

// decodeSegmentHeader returns an error that says what is wrong with b, the first segmentFieldBytes of a segment.
func decodeSegmentHeader(b []byte) (segmentHeader, error) {
	le := binary.LittleEndian
	if string(b[:8]) != segmentMagic {
		return segmentHeader{}, fmt.Errorf("it does not begin with %q", segmentMagic)
	}
	if v := le.Uint32(b[8:]); v != version {
		return segmentHeader{}, &VersionError{Version: v}
	}
	if le.Uint32(b[12:]) != checksum(b[16:segmentFieldBytes]) {
		return segmentHeader{}, fmt.Errorf("the checksum of the segment header does not match")
	}
	h := segmentHeader{seq: le.Uint64(b[16:]), salt: le.Uint64(b[24:]), size: int64(le.Uint64(b[32:]))}
	if h.size < segmentHeaderBytes || h.size > MaxSegmentBytes {
		return segmentHeader{}, fmt.Errorf("a segment cannot have %d bytes", h.size)
	}
	return h, nil
}

// point is a position in the log.
type point struct {
	index, term uint64
}

// frameHeader is a frame without its entries.
type frameHeader struct {
	salt       uint64
	offset     int64
	synced     int64
	prevEnd    int64
	hard       raftpb.HardState
	trunc      point
	first      uint64
	count      int
	length     int64
	descriptor uint32 // checksum of the descriptors
	flags      uint32
}

func (h *frameHeader) encode(b []byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], h.salt)
	le.PutUint64(b[8:], uint64(h.offset))
	le.PutUint32(b[16:], frameMagic)
	le.PutUint64(b[24:], uint64(h.synced))
	le.PutUint64(b[32:], uint64(h.prevEnd))
	le.PutUint64(b[40:], h.hard.Term)
	le.PutUint64(b[48:], h.hard.Vote)
	le.PutUint64(b[56:], h.hard.Commit)
	le.PutUint64(b[64:], h.trunc.index)
	le.PutUint64(b[72:], h.trunc.term)
	le.PutUint64(b[80:], h.first)
	le.PutUint32(b[88:], uint32(h.count))
	le.PutUint32(b[92:], uint32(h.length))
	le.PutUint32(b[96:], h.descriptor)
	le.PutUint32(b[100:], h.flags)
	le.PutUint32(b[20:], frameChecksum(b))
}

func frameChecksum(b []byte) uint32 {
	return crc32.Update(checksum(b[:20]), castagnoli, b[24:frameHeaderBytes])
}

// decodeFrameHeader decodes the frame header b, which was found at offset off of a segment with the given salt whose file has size bytes. It
// reports whether b is a header that was written there.
func decodeFrameHeader(b []byte, salt uint64, off, size int64) (frameHeader, bool) {
	le := binary.LittleEndian
	if len(b) < frameHeaderBytes || le.Uint64(b[0:]) != salt || le.Uint64(b[8:]) != uint64(off) ||
		le.Uint32(b[16:]) != frameMagic || le.Uint32(b[20:]) != frameChecksum(b) {
		return frameHeader{}, false
	}
	h := frameHeader{
		salt:       salt,
		offset:     off,
		synced:     int64(le.Uint64(b[24:])),
		prevEnd:    int64(le.Uint64(b[32:])),
		hard:       raftpb.HardState{Term: le.Uint64(b[40:]), Vote: le.Uint64(b[48:]), Commit: le.Uint64(b[56:])},
		trunc:      point{le.Uint64(b[64:]), le.Uint64(b[72:])},
		first:      le.Uint64(b[80:]),
		count:      int(le.Uint32(b[88:])),
		length:     int64(le.Uint32(b[92:])),
		descriptor: le.Uint32(b[96:]),
		flags:      le.Uint32(b[100:]),
	}
	// The checksum makes the rest true; it is checked so that nothing which follows depends on that for its memory safety.
	ok := h.length >= h.dataOffset() && h.length <= size-off && h.length%frameAlign == 0 &&
		h.first <= math.MaxUint64-uint64(h.count) && h.synced >= 0 && h.synced <= off && h.prevEnd >= 0
	return h, ok
}

// dataOffset returns the offset of the first entry's data in the frame.
func (h *frameHeader) dataOffset() int64 { return frameHeaderBytes + int64(h.count)*descriptorBytes }

// descriptor is what a frame says of one entry.
type descriptor struct {
	term     uint64
	length   uint32
	checksum uint32
	kind     raftpb.EntryType
}

func (d *descriptor) encode(b []byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], d.term)
	le.PutUint32(b[8:], d.length)
	le.PutUint32(b[12:], d.checksum)
	le.PutUint32(b[16:], uint32(d.kind))
	le.PutUint32(b[20:], 0)
}

func decodeDescriptor(b []byte) descriptor {
	le := binary.LittleEndian
	return descriptor{
		term:     le.Uint64(b[0:]),
		length:   le.Uint32(b[8:]),
		checksum: le.Uint32(b[12:]),
		kind:     raftpb.EntryType(le.Uint32(b[16:])),
	}
}

// decodeDescriptors decodes the h.count descriptors in b and reports whether they are those that the frame was written with.
func (h *frameHeader) decodeDescriptors(b []byte) ([]descriptor, bool) {
	if checksum(b) != h.descriptor {
		return nil, false
	}
	ds := make([]descriptor, h.count)
	length := h.dataOffset()
	for i := range ds {
		ds[i] = decodeDescriptor(b[i*descriptorBytes:])
		length += int64(ds[i].length)
	}
	return ds, roundUp(length, frameAlign) == h.length
}

// frameBytes returns the length of a frame of entries.
func frameBytes(entries []raftpb.Entry) int64 {
	n := int64(frameHeaderBytes + len(entries)*descriptorBytes)
	for i := range entries {
		n += int64(len(entries[i].Data))
	}
	return roundUp(n, frameAlign)
}

// roundUp returns the least multiple of unit, a power of two, that is not below n.
func roundUp(n, unit int64) int64 { return (n + unit - 1) &^ (unit - 1) }
