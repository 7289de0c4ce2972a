package nfs4

import (
	"math/bits"

	"holdfast/internal/xdr"
)

// Limits on what a client may send; anything beyond is NFS4ERR_BADXDR.
const (
	maxBitmapWords = 8    // bitmap4: attributes end in the third word today
	maxTagBytes    = 1024 // COMPOUND tag
	maxAttrBytes   = 8192 // fattr4 values of a SETATTR, CREATE, OPEN or VERIFY
	maxHandleBytes = 128  // NFS4_FHSIZE
	maxOpaqueBytes = 1024 // NFS4_OPAQUE_LIMIT: owners
	maxNameOnWire  = 4096 // component4; longer than MaxNameBytes, so that a long name is NAMETOOLONG and not BADXDR
)

// attrUnknown marks a bitmap that had bits beyond the third word set. No attribute has the number, so it is unsupported by construction.
const attrUnknown = 95

// bitmap is a bitmap4 (RFC 8881 section 3.2) of attribute numbers.
type bitmap [3]uint32

func bitmapOf(attrs ...uint) bitmap {
	var b bitmap
	for _, a := range attrs {
		b.set(a)
	}
	return b
}

func (b *bitmap) set(attr uint)     { b[attr/32] |= 1 << (attr % 32) }
func (b bitmap) has(attr uint) bool { return b[attr/32]&(1<<(attr%32)) != 0 }
func (b bitmap) empty() bool        { return b == bitmap{} }

func (b bitmap) and(o bitmap) bitmap     { return bitmap{b[0] & o[0], b[1] & o[1], b[2] & o[2]} }
func (b bitmap) or(o bitmap) bitmap      { return bitmap{b[0] | o[0], b[1] | o[1], b[2] | o[2]} }
func (b bitmap) without(o bitmap) bitmap { return bitmap{b[0] &^ o[0], b[1] &^ o[1], b[2] &^ o[2]} }

// each calls fn for each number in ascending order, the order of attribute values on the wire.
func (b bitmap) each(fn func(attr uint) bool) {
	for w, word := range b {
		for word != 0 {
			i := uint(bits.TrailingZeros32(word))
			word &= word - 1
			if !fn(uint(w)*32 + i) {
				return
			}
		}
	}
}

func decodeBitmap(d *xdr.Decoder) bitmap {
	var b bitmap
	for i := range d.Count(maxBitmapWords, 4) {
		word := d.Uint32()
		if i < len(b) {
			b[i] |= word
		} else if word != 0 {
			b.set(attrUnknown)
		}
	}
	return b
}

func (b bitmap) encode(e *xdr.Encoder) {
	n := len(b)
	for n > 0 && b[n-1] == 0 {
		n--
	}
	e.Uint32(uint32(n))
	for _, word := range b[:n] {
		e.Uint32(word)
	}
}
