package volume

import (
	"bytes"
	"sync"
	"sync/atomic"
	"testing"

	"holdfast/internal/store"
)

func TestSparseFiles(t *testing.T) {
	for _, s := range []store.Store{store.NewMem(), openDisk(t, t.TempDir())} {
		h := newHarness(t, s)
		root := h.root()
		var f *Inode
		const far = 1 << 62
		h.do(func(tx *Tx) {
			f = must(t)(tx.Create(nil, root, "f", TypeFile, CreateAttr{}))
			f = must(t)(tx.Write(nil, f, 0, bytes.Repeat([]byte{1}, 10000)))
			f = must(t)(tx.Write(nil, f, far, []byte("far")))
		})
		if f.Size != far+3 || f.Used != 4*blockBytes {
			t.Errorf("size %d, used %d", f.Size, f.Used)
		}
		seek := func(off uint64, hole bool) (at uint64, eof bool, errno Errno) {
			h.v.View(func(tx *Tx) { at, eof, errno = tx.Seek(h.inodeIn(tx, f.Ino), off, hole) })
			return at, eof, errno
		}
		if at, eof, errno := seek(0, true); errno != OK || eof || at < 10000 || at > 12288 {
			t.Errorf("hole at %d, %v, %v", at, eof, errno)
		}
		if at, eof, errno := seek(20000, false); errno != OK || eof || at > far || at < far-1<<20 {
			t.Errorf("data at %d, %v, %v", at, eof, errno)
		}
		if at, eof, errno := seek(far, true); errno != OK || !eof || at != far+3 {
			t.Errorf("hole at the end: %d, %v, %v", at, eof, errno)
		}
		if _, _, errno := seek(far+3, false); errno != ErrNXIO {
			t.Errorf("seek beyond the end: %v", errno)
		}
		buf := make([]byte, 100)
		h.v.View(func(tx *Tx) {
			n, eof, errno := tx.Read(f, far-10, buf)
			if n != 13 || !eof || errno != OK || string(buf[10:13]) != "far" || !bytes.Equal(buf[:10], make([]byte, 10)) {
				t.Errorf("read %d, %v, %v: %q", n, eof, errno, buf)
			}
		})
		h.do(func(tx *Tx) { f = must(t)(tx.Deallocate(f, 0, 5000)) })
		if f.Size != far+3 || f.Used != 4*blockBytes {
			t.Errorf("after a deallocation size %d, used %d", f.Size, f.Used)
		}
		h.v.View(func(tx *Tx) {
			n, _, errno := tx.Read(f, 4950, buf)
			if n != 100 || errno != OK || buf[49] != 0 || buf[50] != 1 {
				t.Errorf("read after deallocation: %d, %v, %v", n, errno, buf)
			}
		})
		h.do(func(tx *Tx) { f = must(t)(tx.SetAttr(nil, f, SetAttr{Size: ptr(uint64(0))}, false)) })
		if f.Size != 0 || f.Used != 0 || !f.Inline || f.Sparse {
			t.Errorf("after truncation %+v", f)
		}
		if err := s.ListObjects(func(id uint64) bool { t.Errorf("object %d is left", id); return true }); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func (h *harness) inodeIn(tx *Tx, ino Ino) *Inode {
	h.t.Helper()
	return must(h.t)(tx.Inode(ino, 0))
}

func TestUsed(t *testing.T) {
	h := newHarness(t, store.NewMem())
	root := h.root()
	h.do(func(tx *Tx) {
		f := must(t)(tx.Create(nil, root, "f", TypeFile, CreateAttr{}))
		step := func(what string, n *Inode, errno Errno, want uint64) {
			t.Helper()
			f = must(t)(n, errno)
			if f.Used != want {
				t.Errorf("%s: used %d, want %d", what, f.Used, want)
			}
		}
		n, errno := tx.Write(nil, f, 0, make([]byte, 100))
		step("inline", n, errno, 512)
		n, errno = tx.Write(nil, f, 100, make([]byte, 9000))
		step("object", n, errno, 12288)
		n, errno = tx.Deallocate(f, 0, 8192)
		step("hole of two blocks", n, errno, 4096)
		n, errno = tx.Write(nil, f, 0, make([]byte, 10))
		step("written again", n, errno, 8192)
		n, errno = tx.Allocate(f, 0, 8192)
		step("allocated", n, errno, 12288)
		n, errno = tx.SetAttr(nil, f, SetAttr{Size: ptr(uint64(1 << 40))}, false)
		step("grown", n, errno, 12288)
		n, errno = tx.SetAttr(nil, f, SetAttr{Size: ptr(uint64(5000))}, false)
		step("cut", n, errno, 8192)
		n, errno = tx.Deallocate(f, 0, 1<<30)
		step("all a hole", n, errno, 0)
	})
}

func TestManyOpsOfOneEntry(t *testing.T) {
	h := newHarness(t, store.NewMem())
	root := h.root()
	var f *Inode
	h.do(func(tx *Tx) {
		f = must(t)(tx.Create(nil, root, "f", TypeFile, CreateAttr{}))
		f = must(t)(tx.Write(nil, f, 0, bytes.Repeat([]byte{1}, 5000)))
		f = must(t)(tx.SetAttr(nil, f, SetAttr{Size: ptr(uint64(100))}, false))
		f = must(t)(tx.Write(nil, f, 8000, []byte{2}))
		buf := make([]byte, 9000)
		if n, eof, errno := tx.Read(f, 0, buf); n != 8001 || !eof || errno != OK || buf[99] != 1 || buf[100] != 0 || buf[8000] != 2 {
			t.Errorf("read in the same entry: %d, %v, %v", n, eof, errno)
		}
		f = must(t)(tx.SetAttr(nil, f, SetAttr{Size: ptr(uint64(0))}, false))
		f = must(t)(tx.Write(nil, f, 0, []byte("short")))
	})
	h.v.View(func(tx *Tx) {
		buf := make([]byte, 10)
		if n, eof, errno := tx.Read(f, 0, buf); n != 5 || !eof || errno != OK || string(buf[:5]) != "short" {
			t.Errorf("read %d, %v, %v: %q", n, eof, errno, buf)
		}
	})
}

// TestReadersSeeWholeFiles writes a file and cuts it again while readers look: what is read is all of one byte value, as it was written, never the zeros of
// a cut that the inode does not show yet.
func TestReadersSeeWholeFiles(t *testing.T) {
	for _, s := range []store.Store{store.NewMem(), openDisk(t, t.TempDir())} {
		h := newHarness(t, s)
		root := h.root()
		const size = 64 << 10
		var f *Inode
		h.do(func(tx *Tx) {
			f = must(t)(tx.Create(nil, root, "f", TypeFile, CreateAttr{}))
			f = must(t)(tx.Write(nil, f, 0, bytes.Repeat([]byte{1}, size)))
		})
		var stop atomic.Bool
		var reads atomic.Int64
		var wg sync.WaitGroup
		for range 3 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				buf := make([]byte, size)
				for !stop.Load() {
					h.v.View(func(tx *Tx) {
						n, errno := tx.Inode(f.Ino, 0)
						if errno != OK {
							t.Error(errno)
							return
						}
						count, _, errno := tx.Read(n, 0, buf)
						if errno != OK {
							t.Error(errno)
						}
						if at := bytes.IndexByte(buf[:count], 0); at >= 0 {
							t.Errorf("zero at %d of %d", at, count)
							stop.Store(true)
						}
					})
					reads.Add(1)
				}
			}()
		}
		for i := 0; i < 300 || reads.Load() < 300; i++ {
			if stop.Load() {
				break
			}
			h.do(func(tx *Tx) {
				cut := uint64(i%2) * 5000
				f = must(t)(tx.SetAttr(nil, f, SetAttr{Size: &cut}, false))
			})
			h.do(func(tx *Tx) {
				f = must(t)(tx.Write(nil, f, f.Size, bytes.Repeat([]byte{byte(1 + i%250)}, size-int(f.Size))))
			})
		}
		stop.Store(true)
		wg.Wait()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReadOfRemovedFile(t *testing.T) {
	h := newHarness(t, store.NewMem())
	root := h.root()
	var f *Inode
	h.do(func(tx *Tx) {
		f = must(t)(tx.Create(nil, root, "f", TypeFile, CreateAttr{}))
		f = must(t)(tx.Write(nil, f, 0, bytes.Repeat([]byte{1}, 10000)))
	})
	slow := &slowStore{Store: h.store}
	h.v.store = slow
	slow.during = func() {
		slow.during = nil
		h.do(func(tx *Tx) {
			if errno := tx.Remove(nil, root, "f", RemoveAny); errno != OK {
				t.Error(errno)
			}
		})
	}
	h.v.View(func(tx *Tx) {
		if n, _, errno := tx.Read(f, 0, make([]byte, 100)); errno != ErrStale {
			t.Errorf("read of a file that is removed meanwhile: %d, %v", n, errno)
		}
	})
}

// slowStore calls during before it reads an object.
type slowStore struct {
	store.Store
	during func()
}

func (s *slowStore) ReadObject(id uint64, off int64, buf []byte) error {
	if s.during != nil {
		s.during()
	}
	return s.Store.ReadObject(id, off, buf)
}
