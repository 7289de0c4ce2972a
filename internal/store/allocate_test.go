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
