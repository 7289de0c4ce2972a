package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"time"

	"holdfast/internal/volume"
)

// Reader reads backups that follow each other in one stream, and checks them.
type Reader struct {
	r       *bufio.Reader
	sum     hash.Hash
	buf     []byte
	summary Summary
	bytes   int64
	pieces  uint64
	reading bool // between header and end
}

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReaderSize(r, 256<<10)} }

// Begin reads the header of the next backup. io.EOF says that there is none.
func (r *Reader) Begin() (Header, error) {
	if r.reading {
		return Header{}, errors.New("backup: the one before was not read to its end")
	}
	r.sum, r.summary, r.bytes, r.pieces = sha256.New(), Summary{}, 0, 0
	first := make([]byte, len(magic))
	n, err := io.ReadFull(r.r, first)
	switch {
	case err == io.EOF:
		return Header{}, io.EOF
	case !bytes.HasPrefix([]byte(magic), first[:n]):
		return Header{}, fmt.Errorf("%w: it begins with %q", ErrNotBackup, first[:n])
	case err != nil:
		return Header{}, cutOff(err)
	}
	r.took(first)
	kind, body, err := r.record(maxHeaderBytes)
	if err != nil {
		return Header{}, err
	}
	h := &r.summary.Header
	if kind != kindHeader || json.Unmarshal(body, h) != nil {
		return Header{}, fmt.Errorf("%w: it has no header", ErrDamaged)
	}
	if h.Format != formatVersion {
		return Header{}, fmt.Errorf("%w: it is of format %d, this release knows %d", ErrTooNew, h.Format, formatVersion)
	}
	r.reading = true
	return *h, nil
}

func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrTruncated
	}
	return fmt.Errorf("backup: read: %w", err)
}

func (r *Reader) took(b []byte) {
	r.sum.Write(b)
	r.bytes += int64(len(b))
}

// record reads a record, whose body is valid until the next call. That of the end does not count to the sum.
func (r *Reader) record(limit uint32) (kind byte, body []byte, err error) {
	var head [recordHeadBytes]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return 0, nil, cutOff(err)
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > limit {
		return 0, nil, fmt.Errorf("%w: a record of %d bytes at byte %d", ErrDamaged, n, r.bytes)
	}
	if err := r.fill(int(n)); err != nil {
		return 0, nil, err
	}
	if crc32.Update(crc32.Checksum(head[:5], castagnoli), castagnoli, r.buf) != binary.BigEndian.Uint32(head[5:]) {
		return 0, nil, fmt.Errorf("%w: the checksum of the record at byte %d is wrong", ErrDamaged, r.bytes)
	}
	if head[0] == kindEnd {
		r.bytes += int64(recordHeadBytes + len(r.buf))
	} else {
		r.took(head[:])
		r.took(r.buf)
	}
	return head[0], r.buf, nil
}

// fill reads n bytes into buf, which grows only as bytes arrive, so that a forged length costs no memory.
func (r *Reader) fill(n int) error {
	r.buf = r.buf[:0]
	for len(r.buf) < n {
		at, part := len(r.buf), min(n-len(r.buf), 1<<20)
		if cap(r.buf) < at+part {
			r.buf = append(make([]byte, 0, min(n, 2*at+part)), r.buf...)
		}
		r.buf = r.buf[:at+part]
		if _, err := io.ReadFull(r.r, r.buf[at:]); err != nil {
			return cutOff(err)
		}
	}
	return nil
}

// Next reads a piece, which is valid until the next call. io.EOF says that the backup has ended, and was whole; Summary tells of it then.
func (r *Reader) Next(p *volume.Piece) error {
	if !r.reading {
		return errors.New("backup: no backup was begun")
	}
	kind, body, err := r.record(maxRecordBytes)
	if err != nil {
		return err
	}
	if kind != kindEnd {
		r.pieces++
		return decodePiece(kind, body, p)
	}
	if len(body) != endBytes {
		return fmt.Errorf("%w: the end is of %d bytes", ErrDamaged, len(body))
	}
	r.sum.Write(body[:endFieldBytes])
	s := &r.summary
	parseEnd(body, s)
	if !bytes.Equal(r.sum.Sum(nil), body[endFieldBytes:]) || s.Pieces != r.pieces || s.Index <= s.Since {
		return fmt.Errorf("%w: the checksum of the whole is wrong", ErrDamaged)
	}
	s.Bytes = r.bytes
	r.reading = false
	return io.EOF
}

func parseEnd(body []byte, s *Summary) {
	s.Index = binary.BigEndian.Uint64(body)
	s.Ended = time.Unix(0, int64(binary.BigEndian.Uint64(body[8:]))).UTC()
	s.Pieces = binary.BigEndian.Uint64(body[16:])
}

// Summary tells of the backup that ended last.
func (r *Reader) Summary() Summary { return r.summary }

// Verify reads a backup to its end and checks it.
func Verify(r io.Reader) (Summary, error) { return NewReader(r).verify() }

func (r *Reader) verify() (Summary, error) {
	if _, err := r.Begin(); err != nil {
		if err == io.EOF {
			err = ErrTruncated
		}
		return Summary{}, err
	}
	for {
		var p volume.Piece
		if err := r.Next(&p); err == io.EOF {
			return r.Summary(), nil
		} else if err != nil {
			return Summary{}, err
		}
	}
}

// Inspect reads header and end of a backup, and believes what is between them.
func Inspect(r io.ReaderAt, size int64) (Summary, error) {
	in := NewReader(io.NewSectionReader(r, 0, size))
	if _, err := in.Begin(); err != nil {
		if err == io.EOF {
			err = ErrTruncated
		}
		return Summary{}, err
	}
	s := in.summary
	const tail = recordHeadBytes + endBytes
	if size < in.bytes+tail {
		return Summary{}, ErrTruncated
	}
	last := NewReader(io.NewSectionReader(r, size-tail, tail))
	last.sum = sha256.New()
	kind, body, err := last.record(endBytes)
	if err != nil || kind != kindEnd || len(body) != endBytes {
		return Summary{}, ErrTruncated
	}
	parseEnd(body, &s)
	if s.Index <= s.Since {
		return Summary{}, fmt.Errorf("%w: it ends at %d and continues %d", ErrDamaged, s.Index, s.Since)
	}
	s.Bytes = size
	return s, nil
}
