package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// The stream of MetaSnapshot.WriteTo: magic; frames of length u32, CRC-32C u32 and that many bytes of pairs (uvarint key length, key, uvarint value length, value);
// a last frame of length 0 whose CRC field holds the CRC-32C of the number of pairs (u64), then that number.
const (
	streamMagic      = "HFMETA1\n"
	streamFrameBytes = 64 << 10
	// streamFrameMax bounds what a reader allocates: a frame is flushed once it passes streamFrameBytes, so one pair may stick out.
	streamFrameMax = 64 << 20
)

// ErrBadStream is returned by InstallMeta for a stream that is damaged or cut off.
var ErrBadStream = errors.New("store: metadata stream is damaged")

// streamWriter frames pairs.
type streamWriter struct {
	w     io.Writer
	buf   []byte
	pairs uint64
	n     int64
	err   error
}

func newStreamWriter(w io.Writer) *streamWriter {
	s := &streamWriter{w: w}
	s.write([]byte(streamMagic))
	s.buf = make([]byte, 8, streamFrameBytes+4096)
	return s
}

func (s *streamWriter) write(b []byte) {
	if s.err != nil {
		return
	}
	n, err := s.w.Write(b)
	s.n += int64(n)
	s.err = err
}

// add appends a pair and reports whether to go on.
func (s *streamWriter) add(key, value []byte) bool {
	s.buf = binary.AppendUvarint(s.buf, uint64(len(key)))
	s.buf = append(s.buf, key...)
	s.buf = binary.AppendUvarint(s.buf, uint64(len(value)))
	s.buf = append(s.buf, value...)
	s.pairs++
	if len(s.buf) >= streamFrameBytes {
		s.flush()
	}
	return s.err == nil
}

func (s *streamWriter) flush() {
	body := s.buf[8:]
	if len(body) == 0 {
		return
	}
	binary.BigEndian.PutUint32(s.buf, uint32(len(body)))
	binary.BigEndian.PutUint32(s.buf[4:], crc32.Checksum(body, castagnoli))
	s.write(s.buf)
	s.buf = s.buf[:8]
}

func (s *streamWriter) close() (int64, error) {
	s.flush()
	var end [16]byte
	binary.BigEndian.PutUint64(end[8:], s.pairs)
	binary.BigEndian.PutUint32(end[4:], crc32.Checksum(end[8:], castagnoli))
	s.write(end[:])
	return s.n, s.err
}

// readStream calls fn for every pair of a stream; the slices are valid during the call only.
func readStream(r io.Reader, fn func(key, value []byte) error) error {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return fmt.Errorf("store: read metadata stream: %w", err)
	}
	if string(head[:]) != streamMagic {
		return fmt.Errorf("%w: it starts with %q", ErrBadStream, head[:])
	}
	var body []byte
	var pairs uint64
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return fmt.Errorf("store: read metadata stream: %w", err)
		}
		n, sum := binary.BigEndian.Uint32(head[:]), binary.BigEndian.Uint32(head[4:])
		if n == 0 {
			return readStreamEnd(r, sum, pairs)
		}
		if n > streamFrameMax {
			return fmt.Errorf("%w: frame of %d bytes", ErrBadStream, n)
		}
		var err error
		if body, err = readFrame(r, body, int(n)); err != nil {
			return fmt.Errorf("store: read metadata stream: %w", err)
		}
		if crc32.Checksum(body, castagnoli) != sum {
			return fmt.Errorf("%w: checksum of a frame is wrong", ErrBadStream)
		}
		for rest := body; len(rest) > 0; pairs++ {
			var key, value []byte
			if key, rest, err = takeBytes(rest); err != nil {
				return err
			}
			if value, rest, err = takeBytes(rest); err != nil {
				return err
			}
			if err := fn(key, value); err != nil {
				return err
			}
		}
	}
}

// readFrame reads n bytes into buf, growing it only as bytes arrive, so that a forged length costs no memory.
func readFrame(r io.Reader, buf []byte, n int) ([]byte, error) {
	buf = buf[:0]
	for len(buf) < n {
		part := min(n-len(buf), 1<<20)
		at := len(buf)
		if cap(buf) < at+part {
			grown := make([]byte, at, at+part)
			copy(grown, buf)
			buf = grown
		}
		buf = buf[:at+part]
		if _, err := io.ReadFull(r, buf[at:]); err != nil {
			return buf, err
		}
	}
	return buf, nil
}

func readStreamEnd(r io.Reader, sum uint32, pairs uint64) error {
	var count [8]byte
	if _, err := io.ReadFull(r, count[:]); err != nil {
		return fmt.Errorf("store: read metadata stream: %w", err)
	}
	if crc32.Checksum(count[:], castagnoli) != sum || binary.BigEndian.Uint64(count[:]) != pairs {
		return fmt.Errorf("%w: it does not hold the %d pairs it promises", ErrBadStream, binary.BigEndian.Uint64(count[:]))
	}
	return nil
}

func takeBytes(b []byte) (item, rest []byte, err error) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k) {
		return nil, nil, fmt.Errorf("%w: a pair sticks out of its frame", ErrBadStream)
	}
	return b[k : k+int(n) : k+int(n)], b[k+int(n):], nil
}
