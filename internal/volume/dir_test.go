package volume

import (
	"fmt"
	"testing"

	"holdfast/internal/store"
)

func TestHashCollisions(t *testing.T) {
	h := newHarness(t, store.NewMem())
	h.v.hash = func(string) uint64 { return 0 }
	root := h.root()
	name := func(i int) string { return fmt.Sprint("name", i) }
	cookies := map[string]uint64{}
	list := func() (names []string) {
		h.v.View(func(tx *Tx) {
			_, errno := tx.ReadDir(h.inodeIn(tx, RootIno), 0, func(e DirEntry) bool {
				if was, ok := cookies[e.Name]; ok && was != e.Cookie {
					t.Errorf("cookie of %s went from %d to %d", e.Name, was, e.Cookie)
				}
				cookies[e.Name] = e.Cookie
				names = append(names, e.Name)
				return true
			})
			if errno != OK {
				t.Error(errno)
			}
		})
		return names
	}
	h.do(func(tx *Tx) {
		for i := range maxOrdinal + 1 {
			must(t)(tx.Create(nil, root, name(i), TypeFile, CreateAttr{}))
		}
		inodes := tx.state.inodes
		if _, errno := tx.Create(nil, root, "one too many", TypeFile, CreateAttr{}); errno != ErrNoSpace || tx.state.inodes != inodes {
			t.Errorf("%v, %d inodes", errno, tx.state.inodes-inodes)
		}
		// A name that moves within its own hash needs no more room than before only if another ordinal is free.
		if errno := tx.Rename(nil, root, name(0), root, "renamed"); errno != ErrNoSpace {
			t.Errorf("rename: %v", errno)
		}
		if _, errno := tx.Lookup(nil, root, name(0)); errno != OK {
			t.Errorf("after a rename that failed: %v", errno)
		}
	})
	if n := len(list()); n != maxOrdinal+1 {
		t.Fatalf("listed %d", n)
	}
	remove := func(i int) {
		h.do(func(tx *Tx) {
			if errno := tx.Remove(nil, root, name(i), RemoveFile); errno != OK {
				t.Fatal(errno)
			}
		})
	}
	remove(0) // leaves a tombstone
	remove(7)
	if n := len(list()); n != maxOrdinal-1 {
		t.Fatalf("listed %d", n)
	}
	h.do(func(tx *Tx) {
		for i := 1; i < 12; i++ {
			_, errno := tx.Lookup(nil, root, name(i))
			if (errno == OK) != (i != 7) {
				t.Errorf("%s: %v", name(i), errno)
			}
		}
		must(t)(tx.Create(nil, root, "back", TypeFile, CreateAttr{}))
	})
	delete(cookies, name(0))
	list()
	if cookies["back"] != FirstCookie {
		t.Errorf("cookie %d is not the lowest that was free", cookies["back"])
	}
	h.do(func(tx *Tx) {
		if errno := tx.Remove(nil, root, "back", RemoveFile); errno != OK {
			t.Fatal(errno)
		}
	})
	for i := 1; i < maxOrdinal+1; i++ {
		if i != 7 {
			remove(i)
		}
	}
	left := 0
	err := h.store.Scan([]byte{prefixDirent}, []byte{prefixDirent + 1}, func(_, _ []byte) bool { left++; return true })
	if err != nil || left > 0 || h.root().Entries != 0 {
		t.Errorf("%d records left, %d entries, %v", left, h.root().Entries, err)
	}
}

// TestLargeDirectory makes a directory of a million entries (50,000 with -short), lists it in pieces while names come and go, and empties it.
func TestLargeDirectory(t *testing.T) {
	count := 300000
	if testing.Short() || raceEnabled {
		count = 50000
	}
	s, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := newHarness(t, s)
	root := h.root()
	name := func(i int) string { return fmt.Sprint("entry-", i) }
	each := func(n int, fn func(tx *Tx, i int) Errno) {
		t.Helper()
		for i := 0; i < n; {
			h.do(func(tx *Tx) {
				for range 1000 {
					if errno := fn(tx, i); errno != OK {
						t.Fatal(i, errno)
					}
					i++
				}
			})
		}
	}
	each(count, func(tx *Tx, i int) Errno { return second(tx.Create(nil, root, name(i), TypeFile, CreateAttr{})) })
	seen := make(map[string]bool, count)
	cookie := uint64(0)
	for eof, page := false, 0; !eof; page++ {
		h.v.View(func(tx *Tx) {
			n := 0
			var errno Errno
			eof, errno = tx.ReadDir(root, cookie, func(e DirEntry) bool {
				if n == 1000 {
					return false
				}
				n++
				if e.Cookie <= cookie || seen[e.Name] {
					t.Fatalf("%+v after %d", e, cookie)
				}
				cookie, seen[e.Name] = e.Cookie, true
				return true
			})
			if errno != OK {
				t.Fatal(errno)
			}
		})
		if page%10 == 0 {
			h.do(func(tx *Tx) { must(t)(tx.Create(nil, root, fmt.Sprint("new-", page), TypeFile, CreateAttr{})) })
			h.do(func(tx *Tx) {
				if errno := tx.Remove(nil, root, fmt.Sprint("new-", page), RemoveFile); errno != OK {
					t.Fatal(errno)
				}
			})
		}
	}
	for i := range count {
		if !seen[name(i)] {
			t.Fatalf("%s was not listed", name(i))
		}
	}
	if n := h.root(); n.Entries != uint64(count) {
		t.Errorf("%d entries", n.Entries)
	}
	each(count, func(tx *Tx, i int) Errno { return tx.Remove(nil, root, name(i), RemoveFile) })
	if n := h.root(); n.Entries != 0 || h.v.state.inodes != 1 {
		t.Errorf("%d entries, %d inodes left", n.Entries, h.v.state.inodes)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
