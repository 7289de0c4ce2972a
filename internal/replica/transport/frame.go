package transport

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"holdfast/internal/link"
)

// readFrame reads one frame and returns its content in a buffer of its own.
func readFrame(r *bufio.Reader, limit int) ([]byte, error) {
	var head [frameHeaderBytes]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if int64(size) > int64(limit) {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrBadFrame, size, limit)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("read a frame: %w", err)
	}
	if crc32.Checksum(b, castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return nil, fmt.Errorf("%w: checksum does not match", ErrBadFrame)
	}
	return b, nil
}

// Stream carries the frames of a snapshot, in both directions. Send and Receive may be called at the same time by two goroutines; Close by any.
type Stream interface {
	// Send sends one frame of at most MaxStreamFrameBytes. b may be used again afterwards.
	Send(b []byte) error
	// Receive returns the next frame in a buffer of its own; io.EOF after the last.
	Receive() ([]byte, error)
	Close() error
}

// MaxStreamFrameBytes bounds a frame of a Stream.
const MaxStreamFrameBytes = 1 << 20

type stream struct {
	w     *link.Conn
	r     *bufio.Reader
	close func() error
}

func newStream(conn *link.Conn, r *bufio.Reader) *stream {
	return &stream{w: conn, r: r, close: sync.OnceValue(conn.Close)}
}

func (s *stream) Send(b []byte) error {
	if len(b) > MaxStreamFrameBytes {
		return fmt.Errorf("transport: snapshot frame of %d bytes", len(b))
	}
	var head [frameHeaderBytes]byte
	binary.BigEndian.PutUint32(head[:], uint32(len(b)))
	binary.BigEndian.PutUint32(head[4:], crc32.Checksum(b, castagnoli))
	return s.w.WriteBuffers([][]byte{head[:], b})
}

func (s *stream) Receive() ([]byte, error) { return readFrame(s.r, MaxStreamFrameBytes) }

func (s *stream) Close() error { return s.close() }
