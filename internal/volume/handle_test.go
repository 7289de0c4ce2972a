package volume

import "testing"

func TestHandleRoundTrip(t *testing.T) {
	for _, h := range []Handle{
		{},
		{Volume: 1, Export: 2, Ino: 3, Gen: 4},
		{Volume: 1<<32 - 1, Export: 1<<32 - 1, Ino: 1<<64 - 1, Gen: 1<<32 - 1},
	} {
		b := EncodeHandle(h)
		got, errno := DecodeHandle(b[:])
		if errno != OK || got != h {
			t.Errorf("DecodeHandle(EncodeHandle(%+v)) = %+v, %v", h, got, errno)
		}
	}
}

// The bytes of a handle may never change: clients hold them across upgrades.
func TestHandleBytesAreFixed(t *testing.T) {
	got := EncodeHandle(Handle{Volume: 7, Export: 0x01020304, Ino: 0x1122334455667788, Gen: 9})
	want := [24]byte{1, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 7, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0, 0, 0, 9}
	if [24]byte(got[:24]) != want {
		t.Errorf("handle is % x, want % x", got[:24], want)
	}
}

func TestHandleRejectsDamage(t *testing.T) {
	good := EncodeHandle(Handle{Volume: 1, Export: 2, Ino: 3, Gen: 4})
	for i := range good {
		bad := good
		bad[i] ^= 0x10
		if _, errno := DecodeHandle(bad[:]); errno != ErrBadHandle {
			t.Errorf("byte %d flipped: errno %v, want ErrBadHandle", i, errno)
		}
	}
	for n := range len(good) {
		if _, errno := DecodeHandle(good[:n]); errno != ErrBadHandle {
			t.Errorf("%d bytes: errno %v, want ErrBadHandle", n, errno)
		}
	}
}

func FuzzDecodeHandle(f *testing.F) {
	b := EncodeHandle(Handle{Volume: 1, Export: 2, Ino: 3, Gen: 4})
	f.Add(b[:])
	f.Fuzz(func(t *testing.T, in []byte) {
		h, errno := DecodeHandle(in)
		if errno != OK {
			return
		}
		if out := EncodeHandle(h); string(out[:]) != string(in) {
			t.Errorf("% x decodes to %+v, which encodes to % x", in, h, out)
		}
	})
}
