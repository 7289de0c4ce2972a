package wal

import (
	"encoding/binary"
	"errors"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"holdfast/internal/vfs"
)

func FuzzDecodeFrameHeader(f *testing.F) {
	h := frameHeader{salt: 5, offset: 4096, synced: 4096, prevEnd: 8000, hard: raftpb.HardState{Term: 3, Vote: 2, Commit: 1},
		trunc: point{1, 2}, first: 7, count: 1, length: 136, flags: flagReset}
	b := make([]byte, frameHeaderBytes)
	h.encode(b)
	f.Add(b, uint64(5), int64(4096), int64(MinSegmentBytes))
	f.Fuzz(func(t *testing.T, b []byte, salt uint64, off, size int64) {
		h, ok := decodeFrameHeader(b, salt, off, size)
		if !ok {
			return
		}
		if h.length > size-off || h.dataOffset() > h.length {
			t.Errorf("accepted %+v in a segment of %d bytes", h, size)
		}
		again := make([]byte, frameHeaderBytes)
		h.encode(again)
		if string(again) != string(b[:frameHeaderBytes]) {
			t.Errorf("%x decodes and encodes as %x", b[:frameHeaderBytes], again)
		}
	})
}

// fuzzSegment makes a segment of frames with right checksums whose fields come from spec, 12 bytes a frame, and with raw bytes behind.
func fuzzSegment(spec, raw []byte) []byte {
	const salt = 0x1122334455667788
	seg := (&segmentHeader{seq: 1, salt: salt, size: MinSegmentBytes}).encode()
	for len(spec) >= 12 {
		count := int(spec[0] % 5)
		size := uint32(spec[1])
		off := int64(len(seg))
		h := frameHeader{salt: salt, offset: off, synced: off - int64(spec[2]%3)*8, prevEnd: int64(spec[3] % 2),
			hard:  raftpb.HardState{Term: uint64(spec[4]), Vote: uint64(spec[5]), Commit: uint64(spec[6])},
			trunc: point{uint64(spec[7]), uint64(spec[8])}, first: uint64(spec[9]) - uint64(spec[10]%2)*2, count: count, flags: uint32(spec[11] % 4)}
		h.length = roundUp(h.dataOffset()+int64(count)*int64(size), frameAlign)
		frame := make([]byte, h.length)
		for i := range count {
			d := descriptor{term: uint64(spec[4]), length: size, checksum: checksum(make([]byte, size))}
			d.encode(frame[frameHeaderBytes+i*descriptorBytes:])
		}
		h.descriptor = checksum(frame[frameHeaderBytes:h.dataOffset()])
		h.encode(frame)
		seg = append(seg, frame...)
		spec = spec[12:]
	}
	seg = append(seg, raw...)
	if len(seg) < MinSegmentBytes {
		seg = append(seg, make([]byte, MinSegmentBytes-len(seg))...)
	}
	return seg
}

// FuzzOpen opens a log whose only segment is made up: Open returns an error or a log that holds together.
func FuzzOpen(f *testing.F) {
	f.Add([]byte{2, 100, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 1, 50, 0, 0, 1, 1, 2, 0, 0, 3, 0, 0}, []byte(nil))
	f.Add([]byte{0, 0, 0, 0, 1, 1, 9, 9, 1, 0, 0, 1, 1, 50, 0, 0, 1, 1, 9, 9, 1, 10, 0, 0}, []byte("rest"))
	f.Add([]byte{}, binary.LittleEndian.AppendUint64(nil, 0x1122334455667788))
	f.Add([]byte("2\x0f@\xf9d\u0398\x0f@\x00\x00\x05\xff\xff\x05\x00\x01\x01\x02\x00\x00\x00\x03\x00\x01"), []byte(nil)) // a truncation that goes back
	f.Fuzz(func(t *testing.T, spec, raw []byte) {
		fsys := vfs.NewSim(1)
		must(t, fsys.MkdirAll(testDir))
		must(t, overwrite(fsys, testDir+"/0000000000000001.seg", 0, fuzzSegment(spec, raw)))
		opts := testOptions(newRand(1))
		l, err := Open(fsys, testDir, opts)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("Open: %v", err)
			}
			return
		}
		first, last := l.FirstIndex(), l.LastIndex()
		if l.HardState().Commit > last || first > last+1 {
			t.Fatalf("log holds %d to %d, commit index %d", first, last, l.HardState().Commit)
		}
		if _, err := l.Entries(first, last+1, 1<<62); err != nil {
			t.Fatalf("Entries: %v", err)
		}
		must(t, l.Append(Batch{Entries: span(last+1, last+1, 300, 10)}))
		l = mustOpen(t, fsys, opts)
		if l.LastIndex() != last+1 {
			t.Fatalf("last entry %d after a reopen, want %d", l.LastIndex(), last+1)
		}
	})
}
