package wal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"holdfast/internal/vfs"
)

// windowBytes is how much of a segment a scanner reads at once.
const windowBytes = 1 << 20

// scanner reads frames of a segment from front to back.
type scanner struct {
	file vfs.File
	size int64
	salt uint64
	buf  []byte // bytes of the file from at on
	at   int64
}

// bytes returns n bytes of the file from off. They are valid until the next call.
func (s *scanner) bytes(off, n int64) ([]byte, error) {
	if off >= s.at && off+n <= s.at+int64(len(s.buf)) {
		return s.buf[off-s.at:][:n], nil
	}
	if off+n > s.size {
		return nil, io.ErrUnexpectedEOF
	}
	want := min(max(n, windowBytes), s.size-off)
	if int64(cap(s.buf)) < want {
		s.buf = make([]byte, want)
	}
	s.buf, s.at = s.buf[:want], off
	if k, err := s.file.ReadAt(s.buf, off); int64(k) < want {
		s.buf = s.buf[:0]
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read %d bytes at %d: %w", want, off, err)
	}
	return s.buf[:n], nil
}

// frame returns the frame at off and reports whether there is a whole one. The error is that of a failed read.
func (s *scanner) frame(off int64) (h frameHeader, ds []descriptor, ok bool, err error) {
	if off+frameHeaderBytes > s.size {
		return h, nil, false, nil
	}
	b, err := s.bytes(off, frameHeaderBytes)
	if err != nil {
		return h, nil, false, err
	}
	if h, ok = decodeFrameHeader(b, s.salt, off, s.size); !ok {
		return h, nil, false, nil
	}
	b, err = s.bytes(off+frameHeaderBytes, h.dataOffset()-frameHeaderBytes)
	if err != nil {
		return h, nil, false, err
	}
	if ds, ok = h.decodeDescriptors(b); !ok {
		return h, nil, false, nil
	}
	data := off + h.dataOffset()
	for _, d := range ds {
		sum, err := s.checksum(data, int64(d.length))
		if err != nil || sum != d.checksum {
			return h, nil, false, err
		}
		data += int64(d.length)
	}
	return h, ds, true, nil
}

func (s *scanner) checksum(off, n int64) (uint32, error) {
	var sum uint32
	for n > 0 {
		b, err := s.bytes(off, min(n, windowBytes))
		if err != nil {
			return 0, err
		}
		sum = crc32.Update(sum, castagnoli, b)
		off, n = off+int64(len(b)), n-int64(len(b))
	}
	return sum, nil
}

// find returns the first frame header at or behind off, whole frame or not, and reports whether there is one.
func (s *scanner) find(off int64) (frameHeader, bool, error) {
	salt := binary.LittleEndian.AppendUint64(nil, s.salt)
	off = roundUp(off, frameAlign)
	for off+frameHeaderBytes <= s.size {
		n := min(windowBytes, s.size-off)
		b, err := s.bytes(off, n)
		if err != nil {
			return frameHeader{}, false, err
		}
		for i := 0; i+frameHeaderBytes <= len(b); i += frameAlign {
			k := bytes.Index(b[i:], salt)
			if k < 0 {
				break
			}
			if i += k; i%frameAlign != 0 {
				i -= i % frameAlign
				continue
			}
			if i+frameHeaderBytes > len(b) {
				break
			}
			if h, ok := decodeFrameHeader(b[i:i+frameHeaderBytes], s.salt, off+int64(i), s.size); ok {
				return h, true, nil
			}
		}
		if off+n == s.size {
			break
		}
		off += n - roundUp(frameHeaderBytes, frameAlign) // a header may lie across the end of the window
	}
	return frameHeader{}, false, nil
}
