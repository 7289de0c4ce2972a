package rpc

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// readBufferBytes is the size of a connection's read buffer: many pipelined small records arrive in one system call, and what is
// at least this long is read past the buffer, straight into its record.
const readBufferBytes = 16 << 10

// recordReader takes records out of a stream (RFC 5531 section 11).
type recordReader struct {
	br   *bufio.Reader
	conn *Conn
}

const lastFragment = 1 << 31

// How the PROXY headers of TCP balancers begin (HAProxy's PROXY protocol, versions 1 and 2). As record marks they would be of records larger than any server takes.
const (
	proxyHeader1 = 'P'<<24 | 'R'<<16 | 'O'<<8 | 'X'
	proxyHeader2 = '\r'<<24 | '\n'<<16 | '\r'<<8 | '\n'
)

// next reads one record into a buffer of its own, behind the headroom. The bytes of the record are taken from the shared budget.
// io.EOF means that the stream ended between records.
func (r *recordReader) next() ([]byte, error) {
	var buf []byte
	headroom := r.conn.cfg.Headroom
	taken := 0 // bytes of the budget
	fail := func(err error) ([]byte, error) {
		r.conn.releaseBudget(taken)
		return nil, err
	}
	for first := true; ; first = false {
		size, last, err := r.mark(first)
		if err != nil {
			return fail(err)
		}
		if taken+size > r.conn.cfg.MaxRecord {
			return fail(fmt.Errorf("%w: %d bytes, limit %d", ErrTooLarge, taken+size, r.conn.cfg.MaxRecord))
		}
		if err := r.conn.acquireBudget(size); err != nil {
			return fail(err)
		}
		taken += size
		buf = r.grow(buf, headroom+taken)
		if err := r.fill(buf[headroom+taken-size:]); err != nil {
			return fail(err)
		}
		if last {
			return buf, nil
		}
	}
}

// mark reads one record mark.
func (r *recordReader) mark(first bool) (size int, last bool, err error) {
	b, err := r.br.Peek(4)
	if err != nil {
		if err == io.EOF && (len(b) > 0 || !first) {
			err = io.ErrUnexpectedEOF
		}
		return 0, false, err
	}
	m := binary.BigEndian.Uint32(b)
	if m == proxyHeader1 || m == proxyHeader2 {
		return 0, false, fmt.Errorf("%w: this is the PROXY header of a balancer, and those of this peer are not believed: list it under `balancers` if they should be", ErrBadMark)
	}
	size, last = int(m&^lastFragment), m&lastFragment != 0
	if size == 0 {
		// A record of nothing is no message, and fragments of nothing would let a peer keep us busy with a record that never grows.
		return 0, false, fmt.Errorf("%w: empty fragment", ErrBadMark)
	}
	_, err = r.br.Discard(4)
	return size, last, err
}

// grow returns buf extended to n bytes. The first fragment gets exactly what it needs, as nearly all records have but one.
func (r *recordReader) grow(buf []byte, n int) []byte {
	if buf == nil {
		return r.conn.cfg.Alloc(n)
	}
	if n <= cap(buf) {
		return buf[:n]
	}
	bigger := r.conn.cfg.Alloc(min(max(n, 2*len(buf)), r.conn.cfg.Headroom+r.conn.cfg.MaxRecord))
	copy(bigger, buf)
	return bigger[:n]
}

// fill reads all of p. A peer that stops in the middle of a record is given up on after ReadTimeout.
func (r *recordReader) fill(p []byte) error {
	if r.br.Buffered() < len(p) {
		if err := r.conn.nc.SetReadDeadline(time.Now().Add(r.conn.cfg.ReadTimeout)); err != nil {
			return err
		}
		defer func() { _ = r.conn.nc.SetReadDeadline(time.Time{}) }()
	}
	if _, err := io.ReadFull(r.br, p); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("rpc: reading a record: %w", err)
	}
	return nil
}
