// Package xdr reads and writes External Data Representation (RFC 4506) without reflection and without copying.
//
// A Decoder walks a byte slice and hands out sub-slices of it: a WRITE's payload is never copied. Its first error sticks, so a
// decoder of a whole structure checks once, at its end. An Encoder appends to one byte slice; Extend gives the caller room
// to read file data straight into the reply.
package xdr

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// ErrShort is returned when the input ends before the item does.
var ErrShort = errors.New("xdr: input ends inside an item")

// ErrTooLong is returned when a variable-length item exceeds the limit its protocol sets.
var ErrTooLong = errors.New("xdr: item is longer than its protocol allows")

// ErrBadBool is returned when a boolean is neither 0 nor 1 (RFC 4506 section 4.4).
var ErrBadBool = errors.New("xdr: boolean is neither 0 nor 1")

// Pad returns the number of zero bytes that follow n opaque bytes (RFC 4506 section 4.9).
func Pad(n int) int { return -n & 3 }

// Decoder reads XDR items from a byte slice. The zero value reads from an empty input.
type Decoder struct {
	buf []byte
	off int
	err error
}

// NewDecoder returns a Decoder that reads buf. Opaque items returned by it alias buf.
func NewDecoder(buf []byte) *Decoder { return &Decoder{buf: buf} }

// Reset makes d read buf from its start, with no error.
func (d *Decoder) Reset(buf []byte) { d.buf, d.off, d.err = buf, 0, nil }

// Err returns the first error met, or nil.
func (d *Decoder) Err() error { return d.err }

// Fail records err unless an earlier error is there already.
func (d *Decoder) Fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

// Offset returns how many bytes have been read.
func (d *Decoder) Offset() int { return d.off }

// Remaining returns how many bytes are left.
func (d *Decoder) Remaining() int { return len(d.buf) - d.off }

// Rest returns the bytes that are left, without consuming them.
func (d *Decoder) Rest() []byte { return d.buf[d.off:] }

func (d *Decoder) take(n int) []byte {
	if d.err != nil {
		return nil
	}
	if n < 0 || n > len(d.buf)-d.off {
		d.err = ErrShort
		return nil
	}
	b := d.buf[d.off : d.off+n : d.off+n]
	d.off += n
	return b
}

// Uint32 reads an unsigned integer (RFC 4506 section 4.2). After an error it returns 0.
func (d *Decoder) Uint32() uint32 {
	if b := d.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// Uint64 reads an unsigned hyper integer (RFC 4506 section 4.5).
func (d *Decoder) Uint64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// Int64 reads a hyper integer (RFC 4506 section 4.5).
func (d *Decoder) Int64() int64 { return int64(d.Uint64()) }

// Bool reads a boolean (RFC 4506 section 4.4).
func (d *Decoder) Bool() bool {
	switch d.Uint32() {
	case 0:
		return false
	case 1:
		return true
	}
	d.Fail(ErrBadBool)
	return false
}

// Fixed reads n opaque bytes and their padding (RFC 4506 section 4.9). The result aliases the input.
func (d *Decoder) Fixed(n int) []byte {
	b := d.take(n)
	if p := Pad(n); p != 0 {
		d.take(p)
	}
	if d.err != nil {
		return nil
	}
	return b
}

// Opaque reads variable-length opaque data of at most max bytes (RFC 4506 section 4.10). The result aliases the input.
func (d *Decoder) Opaque(max uint32) []byte {
	n := d.Uint32()
	if d.err != nil {
		return nil
	}
	if n > max {
		d.err = fmt.Errorf("%w: %d bytes, limit %d", ErrTooLong, n, max)
		return nil
	}
	if uint64(n) > uint64(math.MaxInt32) {
		d.err = ErrShort
		return nil
	}
	return d.Fixed(int(n))
}

// String reads a string of at most max bytes (RFC 4506 section 4.11). Any byte value is accepted.
func (d *Decoder) String(max uint32) string { return string(d.Opaque(max)) }

// Count reads the length of a variable-length array whose elements take at least elemBytes each, and fails when that many
// cannot be in what is left of the input; so a caller may allocate the array without fear of a forged length.
func (d *Decoder) Count(max uint32, elemBytes int) int {
	n := d.Uint32()
	if d.err != nil {
		return 0
	}
	if n > max {
		d.err = fmt.Errorf("%w: %d elements, limit %d", ErrTooLong, n, max)
		return 0
	}
	if uint64(n)*uint64(elemBytes) > uint64(d.Remaining()) {
		d.err = ErrShort
		return 0
	}
	return int(n)
}

// Encoder appends XDR items to a byte slice. The zero value is ready for use.
type Encoder struct{ buf []byte }

// NewEncoder returns an Encoder that appends to buf[:0]'s end, that is, after what buf already holds.
func NewEncoder(buf []byte) *Encoder { return &Encoder{buf: buf} }

// Reset makes e append to buf.
func (e *Encoder) Reset(buf []byte) { e.buf = buf }

// Bytes returns everything appended so far.
func (e *Encoder) Bytes() []byte { return e.buf }

// Len returns the number of bytes appended so far.
func (e *Encoder) Len() int { return len(e.buf) }

// Truncate drops everything after the first n bytes.
func (e *Encoder) Truncate(n int) { e.buf = e.buf[:n] }

// Uint32 appends an unsigned integer.
func (e *Encoder) Uint32(v uint32) { e.buf = binary.BigEndian.AppendUint32(e.buf, v) }

// Uint64 appends an unsigned hyper integer.
func (e *Encoder) Uint64(v uint64) { e.buf = binary.BigEndian.AppendUint64(e.buf, v) }

// Int64 appends a hyper integer.
func (e *Encoder) Int64(v int64) { e.Uint64(uint64(v)) }

// Bool appends a boolean.
func (e *Encoder) Bool(v bool) {
	if v {
		e.Uint32(1)
		return
	}
	e.Uint32(0)
}

// Fixed appends opaque bytes of a length both sides know, with padding.
func (e *Encoder) Fixed(b []byte) {
	e.buf = append(e.buf, b...)
	e.pad(len(b))
}

// Opaque appends variable-length opaque data: its length, the bytes, the padding.
func (e *Encoder) Opaque(b []byte) {
	e.Uint32(uint32(len(b)))
	e.Fixed(b)
}

// String appends a string.
func (e *Encoder) String(s string) {
	e.Uint32(uint32(len(s)))
	e.buf = append(e.buf, s...)
	e.pad(len(s))
}

// Raw appends bytes that are XDR already.
func (e *Encoder) Raw(b []byte) { e.buf = append(e.buf, b...) }

// PutUint32 overwrites the four bytes at offset at, which must have been appended before.
func (e *Encoder) PutUint32(at int, v uint32) { binary.BigEndian.PutUint32(e.buf[at:at+4], v) }

// Extend appends n bytes of unspecified content and returns them for the caller to fill. The slice is valid until the next append.
func (e *Encoder) Extend(n int) []byte {
	at := len(e.buf)
	if cap(e.buf)-at < n {
		grown := make([]byte, at, max(2*cap(e.buf), at+n+256))
		copy(grown, e.buf)
		e.buf = grown
	}
	e.buf = e.buf[:at+n]
	return e.buf[at:]
}

// PadTo appends the zero bytes that follow n opaque bytes.
func (e *Encoder) PadTo(n int) { e.pad(n) }

func (e *Encoder) pad(n int) {
	for range Pad(n) {
		e.buf = append(e.buf, 0)
	}
}
