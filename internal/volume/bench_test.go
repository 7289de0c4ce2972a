package volume

import (
	"fmt"
	"testing"

	"holdfast/internal/store"
)

// benchHarness is a harness on a disk store with a directory of 1000 files of 8 KiB.
func benchHarness(b *testing.B) (h *harness, dir *Inode, files []*Inode) {
	s, err := store.Open(b.TempDir(), store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	h = newHarness(b, s)
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	root := h.root()
	h.do(func(tx *Tx) { dir = must(b)(tx.Mkdir(nil, root, "dir", SetAttr{})) })
	for i := range 1000 {
		h.do(func(tx *Tx) {
			f := must(b)(tx.Create(nil, dir, fmt.Sprint("file", i), TypeFile, CreateAttr{}))
			files = append(files, must(b)(tx.Write(nil, f, 0, make([]byte, 8192))))
		})
	}
	if _, err := h.v.Checkpoint(b.Context()); err != nil {
		b.Fatal(err)
	}
	dir = h.current(dir)
	b.ReportAllocs()
	b.ResetTimer()
	return h, dir, files
}

func BenchmarkGetAttr(b *testing.B) {
	h, _, files := benchHarness(b)
	for i := range b.N {
		h.v.View(func(tx *Tx) {
			if _, errno := tx.Inode(files[i%len(files)].Ino, 1); errno != OK {
				b.Fatal(errno)
			}
		})
	}
}

func BenchmarkLookup(b *testing.B) {
	h, dir, files := benchHarness(b)
	names := make([]string, len(files))
	for i := range names {
		names[i] = fmt.Sprint("file", i)
	}
	b.ResetTimer()
	for i := range b.N {
		h.v.View(func(tx *Tx) {
			if _, errno := tx.Lookup(rootCred, dir, names[i%len(names)]); errno != OK {
				b.Fatal(errno)
			}
		})
	}
}

func BenchmarkLookupMissing(b *testing.B) {
	h, dir, _ := benchHarness(b)
	for range b.N {
		h.v.View(func(tx *Tx) {
			if _, errno := tx.Lookup(rootCred, dir, "nothing"); errno != ErrNoEnt {
				b.Fatal(errno)
			}
		})
	}
}

func BenchmarkRead4K(b *testing.B) {
	h, _, files := benchHarness(b)
	buf := make([]byte, 4096)
	for i := range b.N {
		h.v.View(func(tx *Tx) {
			if _, _, errno := tx.Read(files[i%len(files)], 4096, buf); errno != OK {
				b.Fatal(errno)
			}
		})
	}
}

func BenchmarkReadDir1000(b *testing.B) {
	h, dir, _ := benchHarness(b)
	for range b.N {
		h.v.View(func(tx *Tx) {
			n := 0
			if _, errno := tx.ReadDir(dir, 0, func(DirEntry) bool { n++; return true }); errno != OK || n != 1000 {
				b.Fatal(errno, n)
			}
		})
	}
}

// benchApply applies the entry that make returns b.N times.
func benchApply(b *testing.B, h *harness, fn func(tx *Tx, i int, payload []byte)) {
	payload := record(harnessProg, 1, 0, make([]byte, 4096))
	e := Entry{Kind: EntryCall, Time: h.now, Payload: payload}
	entry := e.Encode()
	data := entry[len(entry)-4096:]
	i := 0
	h.fn = func(tx *Tx) { fn(tx, i, data) }
	index := h.v.Applied()
	b.ResetTimer()
	for ; i < b.N; i++ {
		index++
		if _, err := h.v.Apply(index, entry); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkApplyWrite4K(b *testing.B) {
	h, _, files := benchHarness(b)
	benchApply(b, h, func(tx *Tx, i int, data []byte) {
		if _, errno := tx.Write(aliceCred, files[i%len(files)], uint64(i%2)*4096, data); errno != OK {
			b.Fatal(errno)
		}
	})
}

func BenchmarkApplyWriteInline(b *testing.B) {
	h, _, _ := benchHarness(b)
	root := h.root()
	var f *Inode
	h.do(func(tx *Tx) { f = must(b)(tx.Create(nil, root, "small", TypeFile, CreateAttr{})) })
	benchApply(b, h, func(tx *Tx, i int, data []byte) {
		if _, errno := tx.Write(aliceCred, f, 0, data[:512]); errno != OK {
			b.Fatal(errno)
		}
	})
}

func BenchmarkApplyCreate(b *testing.B) {
	h, dir, _ := benchHarness(b)
	names := make([]string, b.N)
	for i := range names {
		names[i] = fmt.Sprint("new", i)
	}
	benchApply(b, h, func(tx *Tx, i int, _ []byte) {
		if _, errno := tx.Create(rootCred, dir, names[i], TypeFile, CreateAttr{}); errno != OK {
			b.Fatal(errno)
		}
	})
}

func BenchmarkApplyRename(b *testing.B) {
	h, dir, _ := benchHarness(b)
	names := make([]string, b.N+1)
	for i := range names {
		names[i] = fmt.Sprint("moved", i)
	}
	h.do(func(tx *Tx) { must(b)(tx.Create(nil, dir, names[0], TypeFile, CreateAttr{})) })
	benchApply(b, h, func(tx *Tx, i int, _ []byte) {
		if errno := tx.Rename(rootCred, dir, names[i], dir, names[i+1]); errno != OK {
			b.Fatal(errno)
		}
	})
}
