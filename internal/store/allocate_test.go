package store

import "testing"

// TestAllocateLeavesSpace asks for more than there is: the disk, which holds the log too, must not fill up, and no files must be made for it.
func TestAllocateLeavesSpace(t *testing.T) {
	d := openDisk(t, t.TempDir())
	before, total, err := d.Space()
	check(t, err)
	for _, length := range []int64{1<<63 - 1, 1 << 50, int64(before)} {
		check(t, d.AllocateObject(1, 0, length))
	}
	check(t, d.ListObjects(func(id uint64) bool {
		t.Errorf("object %d was made", id)
		return true
	}))
	if after, _, err := d.Space(); err != nil || after < before/2 {
		t.Errorf("%d of %d bytes are free, %d were (%v)", after, total, before, err)
	}
	check(t, d.AllocateObject(1, 0, 4096))
	check(t, d.Close())
}

// TestPunchOfHugeHole punches almost all that an object can have.
func TestPunchOfHugeHole(t *testing.T) {
	d := openDisk(t, t.TempDir())
	const last = 1<<63 - 2
	for _, off := range []int64{0, 4096, 5 * chunkBytes, last} {
		check(t, d.WriteObject(1, off, []byte{1}))
	}
	check(t, d.PunchObject(1, 1, last-1))
	for off, want := range map[int64]byte{0: 1, 4096: 0, 5 * chunkBytes: 0, last: 1} {
		b := []byte{9}
		check(t, d.ReadObject(1, off, b))
		if b[0] != want {
			t.Errorf("byte %d is %d, want %d", off, b[0], want)
		}
	}
	check(t, d.Close())
}
