package xdr

import (
	"bytes"
	"errors"
	"testing"
)

// TestRoundTrip writes one of each item and reads it back.
func TestRoundTrip(t *testing.T) {
	var e Encoder
	e.Uint32(0xdeadbeef)
	e.Uint64(1<<63 + 5)
	e.Int64(-3)
	e.Bool(true)
	e.Bool(false)
	e.Opaque([]byte("abcde"))
	e.String("ñandú")
	e.Fixed([]byte{1, 2, 3})
	e.Raw([]byte{0, 0, 0, 9})
	if e.Len()%4 != 0 {
		t.Fatalf("%d bytes: not a multiple of four", e.Len())
	}
	d := NewDecoder(e.Bytes())
	if v := d.Uint32(); v != 0xdeadbeef {
		t.Errorf("Uint32: %x", v)
	}
	if v := d.Uint64(); v != 1<<63+5 {
		t.Errorf("Uint64: %d", v)
	}
	if v := d.Int64(); v != -3 {
		t.Errorf("Int64: %d", v)
	}
	if !d.Bool() || d.Bool() {
		t.Error("Bool")
	}
	if v := d.Opaque(5); string(v) != "abcde" {
		t.Errorf("Opaque: %q", v)
	}
	if v := d.String(100); v != "ñandú" {
		t.Errorf("String: %q", v)
	}
	if v := d.Fixed(3); !bytes.Equal(v, []byte{1, 2, 3}) {
		t.Errorf("Fixed: %v", v)
	}
	if v := d.Uint32(); v != 9 {
		t.Errorf("after Raw: %d", v)
	}
	if d.Err() != nil || d.Remaining() != 0 {
		t.Errorf("end: err %v, %d bytes left", d.Err(), d.Remaining())
	}
}

// TestErrors reads what is too short, too long or no value at all. The first error must stick, and nothing may be read after it.
func TestErrors(t *testing.T) {
	tests := []struct {
		name string
		in   []byte
		read func(d *Decoder)
		want error
	}{
		{"uint32 of three bytes", []byte{0, 0, 0}, func(d *Decoder) { d.Uint32() }, ErrShort},
		{"uint64 of seven bytes", make([]byte, 7), func(d *Decoder) { d.Uint64() }, ErrShort},
		{"bool 2", []byte{0, 0, 0, 2}, func(d *Decoder) { d.Bool() }, ErrBadBool},
		{"opaque without its padding", []byte{0, 0, 0, 1, 7}, func(d *Decoder) { d.Opaque(10) }, ErrShort},
		{"opaque longer than the input", []byte{0, 0, 0, 9, 1, 2, 3, 4}, func(d *Decoder) { d.Opaque(100) }, ErrShort},
		{"opaque over the limit", []byte{0, 0, 0, 4, 1, 2, 3, 4}, func(d *Decoder) { d.Opaque(3) }, ErrTooLong},
		{"opaque of 4 GiB", []byte{255, 255, 255, 255, 1, 2, 3, 4}, func(d *Decoder) { d.Opaque(^uint32(0)) }, ErrShort},
		{"array over the limit", []byte{0, 0, 0, 3}, func(d *Decoder) { d.Count(2, 4) }, ErrTooLong},
		{"array that cannot be there", []byte{0, 0, 0, 3, 0, 0, 0, 0}, func(d *Decoder) { d.Count(1000, 4) }, ErrShort},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := NewDecoder(tt.in)
			tt.read(d)
			if !errors.Is(d.Err(), tt.want) {
				t.Fatalf("error %v, want %v", d.Err(), tt.want)
			}
			first := d.Err()
			d.Fail(errors.New("another"))
			if d.Uint32() != 0 || d.Opaque(1000) != nil || d.Err() != first {
				t.Errorf("something was read after the error, or it changed to %v", d.Err())
			}
		})
	}
}

// TestOpaqueAliases proves that payloads are not copied, and that appending to one cannot overwrite what follows it.
func TestOpaqueAliases(t *testing.T) {
	in := []byte{0, 0, 0, 4, 1, 2, 3, 4, 9, 9, 9, 9}
	p := NewDecoder(in).Opaque(4)
	in[4] = 77
	if p[0] != 77 {
		t.Error("the payload is a copy")
	}
	if _ = append(p, 5); in[8] != 9 {
		t.Error("an append to the payload reached the bytes behind it")
	}
}

// TestExtend fills room in the middle of a growing buffer.
func TestExtend(t *testing.T) {
	e := NewEncoder(make([]byte, 0, 8))
	e.Uint32(1)
	at := e.Len()
	e.Uint32(0)
	copy(e.Extend(5), "hello")
	e.PadTo(5)
	e.PutUint32(at, 5)
	e.Uint32(2)
	d := NewDecoder(e.Bytes())
	if a, s, b := d.Uint32(), d.String(10), d.Uint32(); a != 1 || s != "hello" || b != 2 || d.Err() != nil {
		t.Errorf("got %d %q %d %v", a, s, b, d.Err())
	}
	e.Truncate(at)
	if e.Len() != 4 {
		t.Errorf("%d bytes after Truncate", e.Len())
	}
}

// FuzzDecoder drives a decoder with a script of reads: it must not panic, must not read past the end, and what it read must encode to the same bytes.
func FuzzDecoder(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5}, []byte{0, 0, 0, 1, 0, 0, 0, 2, 'h', 'i', 0, 0, 0, 0, 0, 1})
	f.Add([]byte{4, 4, 6}, []byte{255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, script, in []byte) {
		d := NewDecoder(in)
		var e Encoder
		for _, op := range script {
			end := e.Len()
			switch op % 7 {
			case 0:
				e.Uint32(d.Uint32())
			case 1:
				e.Uint64(d.Uint64())
			case 2:
				e.Bool(d.Bool())
			case 3:
				e.Opaque(d.Opaque(64))
			case 4:
				e.String(d.String(^uint32(0)))
			case 5:
				e.Fixed(d.Fixed(int(op) / 7))
			case 6:
				if n := d.Count(1<<20, 4); 4*n > d.Remaining() {
					t.Fatalf("Count let %d elements pass with %d bytes left", n, d.Remaining())
				} else {
					e.Uint32(uint32(n))
				}
			}
			if d.Err() != nil {
				e.Truncate(end)
				break
			}
		}
		if d.Offset() > len(in) {
			t.Fatalf("read %d of %d bytes", d.Offset(), len(in))
		}
		if d.Err() == nil && d.Offset() != e.Len() {
			t.Fatalf("read %d bytes, which encode to %d", d.Offset(), e.Len())
		}
		if got, want := e.Bytes(), clearPadding(script, in[:min(e.Len(), len(in))]); d.Err() == nil && !bytes.Equal(got, want) {
			t.Fatalf("encoded to %x, was %x", got, want)
		}
	})
}

// clearPadding returns in with the padding of its opaque items zeroed, as a reader ignores what it holds.
func clearPadding(script, in []byte) []byte {
	out := bytes.Clone(in)
	d := NewDecoder(out)
	zero := func(n int) {
		for i := range Pad(n) {
			out[d.Offset()-1-i] = 0
		}
	}
	for _, op := range script {
		switch op % 7 {
		case 0, 2, 6:
			d.Uint32()
		case 1:
			d.Uint64()
		case 3, 4:
			zero(len(d.Opaque(^uint32(0))))
		case 5:
			zero(len(d.Fixed(int(op) / 7)))
		}
	}
	return out
}

func BenchmarkDecodeWrite(b *testing.B) {
	var e Encoder
	e.Uint32(22)
	e.Fixed(make([]byte, 16))
	e.Uint64(4096)
	e.Opaque(make([]byte, 4096))
	in := e.Bytes()
	b.ReportAllocs()
	for b.Loop() {
		var d Decoder
		d.Reset(in)
		d.Uint32()
		d.Fixed(16)
		d.Uint64()
		if d.Opaque(1<<20) == nil {
			b.Fatal(d.Err())
		}
	}
}
