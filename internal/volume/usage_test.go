package volume

import (
	"strings"
	"testing"

	"holdfast/internal/store"
)

// checkUsage compares what the state says is used with what its inodes cost. Nothing may be pending in tx.
func checkUsage(t *testing.T, tx *Tx) {
	t.Helper()
	want := uint64(0)
	if err := scanInodes(tx.store, func(n *Inode) error { want += n.cost(); return nil }); err != nil {
		t.Fatal(err)
	}
	if got := tx.v.state.used; got != want {
		t.Fatalf("%d bytes are used, want %d", got, want)
	}
}

func (h *harness) setLimit(bytes uint64) {
	h.t.Helper()
	h.mustApply(Entry{Kind: EntryLimit, Payload: LimitPayload(bytes)})
}

// expect runs fn as an entry and fails the test unless it ends in want.
func (h *harness) expect(what string, want Errno, fn func(tx *Tx) Errno) {
	h.t.Helper()
	var got Errno
	h.do(func(tx *Tx) { got = fn(tx) })
	if got != want {
		h.t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestLimit(t *testing.T) {
	h := newHarness(t, store.NewMem())
	root := h.root()
	var small, large, sparse *Inode
	h.do(func(tx *Tx) {
		small = must(t)(tx.Create(nil, root, "small", TypeFile, CreateAttr{}))
		small = must(t)(tx.Write(nil, small, 0, make([]byte, 500)))
		large = must(t)(tx.Create(nil, root, "large", TypeFile, CreateAttr{}))
		large = must(t)(tx.Write(nil, large, 0, make([]byte, 64<<10)))
		sparse = must(t)(tx.Create(nil, root, "sparse", TypeFile, CreateAttr{}))
		sparse = must(t)(tx.Write(nil, sparse, 1<<30, make([]byte, 4096)))
	})
	used, limit := h.v.Usage()
	if want := uint64(4*inodeCost + 3*nameCost + 512 + 64<<10 + 4096); used != want || limit != 0 {
		t.Fatalf("uses %d of %d, want %d of 0", used, limit, want)
	}
	write := func(n *Inode, off uint64, length int) func(tx *Tx) Errno {
		return func(tx *Tx) Errno { _, errno := tx.Write(nil, n, off, make([]byte, length)); return errno }
	}
	resize := func(n *Inode, size uint64) func(tx *Tx) Errno {
		return func(tx *Tx) Errno { _, errno := tx.SetAttr(nil, n, SetAttr{Size: &size}, true); return errno }
	}
	allocate := func(n *Inode, off, length uint64) func(tx *Tx) Errno {
		return func(tx *Tx) Errno { _, errno := tx.Allocate(n, off, length); return errno }
	}
	create := func(name string, typ FileType, attr CreateAttr) func(tx *Tx) Errno {
		return func(tx *Tx) Errno { _, errno := tx.Create(nil, root, name, typ, attr); return errno }
	}
	remove := func(name string) func(tx *Tx) Errno {
		return func(tx *Tx) Errno { return tx.Remove(nil, root, name, RemoveAny) }
	}

	h.setLimit(used)
	h.expect("write over", OK, write(large, 0, 64<<10))
	h.expect("write over a small file", OK, write(small, 100, 400))
	h.expect("append within the last block", OK, write(small, 500, 12))
	h.expect("append", ErrNoSpace, write(large, 64<<10, 1))
	h.expect("append to a small file", ErrNoSpace, write(small, 512, 1))
	h.expect("write that turns a small file into a large one", ErrNoSpace, write(small, 4096, 1))
	h.expect("write into a hole", ErrNoSpace, write(sparse, 0, 1))
	h.expect("extend by a hole", OK, resize(sparse, 2<<30))
	h.expect("extend a small file", ErrNoSpace, resize(small, 2000))
	h.expect("extend a small file beyond inline", ErrNoSpace, resize(small, 1<<20))
	h.expect("allocate", ErrNoSpace, allocate(large, 64<<10, 4096))
	h.expect("allocate what is there", OK, allocate(large, 0, 64<<10))
	h.expect("create", ErrNoSpace, create("new", TypeFile, CreateAttr{}))
	h.expect("link", ErrNoSpace, func(tx *Tx) Errno { return tx.Link(nil, large, root, "link") })
	h.expect("mkdir", ErrNoSpace, func(tx *Tx) Errno { _, errno := tx.Mkdir(nil, root, "dir", SetAttr{}); return errno })
	h.expect("rename", OK, func(tx *Tx) Errno { return tx.Rename(nil, root, "large", root, "big") })
	h.mustApply(Entry{Kind: EntryExports, Payload: EncodeExports([]ExportSpec{{Path: "/export"}})})
	if len(h.v.Exports()) != 1 {
		t.Error("an export of a full volume was not made")
	}

	// Room for a name, but not for what would come with it.
	used, _ = h.v.Usage()
	h.setLimit(used + inodeCost + nameCost + 100)
	h.expect("long symlink", ErrNoSpace, create("s", TypeSymlink, CreateAttr{Target: strings.Repeat("x", 101)}))
	h.expect("create with a size", ErrNoSpace, create("s", TypeFile, CreateAttr{SetAttr: SetAttr{Size: ptr(uint64(4000))}}))
	h.expect("short symlink", OK, create("s", TypeSymlink, CreateAttr{Target: "x"}))

	h.setLimit(1)
	h.expect("write over beyond the limit", OK, write(large, 0, 100))
	h.expect("append beyond the limit", ErrNoSpace, write(large, 64<<10, 1))
	h.expect("truncate beyond the limit", OK, resize(large, 4096))
	h.expect("punch beyond the limit", OK, func(tx *Tx) Errno { _, errno := tx.Deallocate(sparse, 0, 1<<31); return errno })
	h.expect("remove beyond the limit", OK, remove("big"))
	for _, name := range []string{"small", "sparse", "s", "export"} {
		want := OK
		if name == "export" {
			want = ErrAccess
		}
		h.expect("remove "+name, want, remove(name))
	}
	if used, limit := h.v.Usage(); used != 2*inodeCost+nameCost || limit != 1 {
		t.Errorf("an empty volume uses %d of %d", used, limit)
	}
	h.setLimit(0)
	h.expect("create without a limit", OK, create("new", TypeFile, CreateAttr{}))
	h.open()
	if used, limit := h.v.Usage(); used != 3*inodeCost+2*nameCost || limit != 0 {
		t.Errorf("after reopening it uses %d of %d", used, limit)
	}
	h.v.View(func(tx *Tx) { checkUsage(t, tx) })
}

// TestLimitIsNeverPassed lets random operations run into limits.
func TestLimitIsNeverPassed(t *testing.T) {
	for seed := range uint64(8) {
		r, g := newReplica(t, store.NewMem()), newRandomOps(seed)
		refused := 0
		for i := range 800 {
			if i%100 == 50 {
				used, _ := r.v.Usage()
				r.apply((&Entry{Kind: EntryLimit, Payload: LimitPayload(used + uint64(i)*40)}).Encode())
			}
			c := g.next()
			res := decodeResult(t, c.kind, r.apply(c.entry(int64(i))))
			g.seen(res)
			if res.errno == ErrNoSpace {
				refused++
			}
			if used, limit := r.v.Usage(); limit > 0 && used > limit {
				t.Fatalf("seed %d, step %d: %v: uses %d of %d", seed, i, c, used, limit)
			}
		}
		if refused == 0 {
			t.Errorf("seed %d: no operation met the limit", seed)
		}
		r.v.View(func(tx *Tx) { checkUsage(t, tx) })
	}
}

func TestSpaceOfALimitedVolume(t *testing.T) {
	h := newHarness(t, store.NewMem())
	used, _ := h.v.Usage()
	host, _, err := h.store.Space()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ limit, total, free, avail uint64 }{
		{10000, 10000, 10000 - used, 10000 - used},
		{1, 1, 0, 0},
		{host * 8, host * 8, host*8 - used, host},
	} {
		h.setLimit(test.limit)
		want := FSStat{TotalBytes: test.total, FreeBytes: test.free, AvailBytes: test.avail, TotalFiles: maxFiles, FreeFiles: maxFiles - 1}
		h.v.View(func(tx *Tx) {
			if got := tx.FSStat(); got != want {
				t.Errorf("limit %d: %+v, want %+v", test.limit, got, want)
			}
		})
	}
	// In apply only what is replicated counts.
	h.mustApply(Entry{Kind: EntrySpace, Payload: SpacePayload(1000, 400)})
	h.do(func(tx *Tx) {
		if s := tx.FSStat(); s.TotalBytes != host*8 || s.FreeBytes != host*8-used || s.AvailBytes != 400 {
			t.Errorf("in apply: %+v", s)
		}
	})
}

// TestCountingBegins raises a volume that does not count to the version that does.
func TestCountingBegins(t *testing.T) {
	for _, e := range []Entry{
		{Kind: EntryVersion, Payload: VersionPayload(usageVersion)},
		{Kind: EntryLimit, Payload: LimitPayload(1 << 30)},
	} {
		s := store.NewMem()
		var b store.Batch
		old := state{nextIno: RootIno + 1, inodes: 1, version: 1}
		b.Set(inodeKey(RootIno), encodeInode(&Inode{Ino: RootIno, Gen: 1, Type: TypeDir, Mode: 0o755, Nlink: 2, Parent: RootIno}))
		b.Set(keyState, old.encode())
		if err := s.Commit(&b); err != nil {
			t.Fatal(err)
		}
		h := newHarness(t, s)
		root := h.root()
		h.do(func(tx *Tx) {
			f := must(t)(tx.Create(nil, root, "f", TypeFile, CreateAttr{}))
			must(t)(tx.Write(nil, f, 0, make([]byte, 10000)))
		})
		if stored, err := s.Get(keyState); err != nil || len(stored) != stateBytes {
			t.Fatalf("a state record of version 1 with %d bytes, %v", len(stored), err)
		}
		h.open()
		if used, limit := h.v.Usage(); used != 0 || limit != 0 || h.v.Version() != 1 {
			t.Fatalf("version %d uses %d of %d", h.v.Version(), used, limit)
		}
		h.do(func(tx *Tx) { must(t)(tx.Create(nil, root, "g", TypeFile, CreateAttr{})) })
		h.mustApply(e)
		if used, _ := h.v.Usage(); used != 3*inodeCost+2*nameCost+12288 || h.v.Version() != usageVersion {
			t.Errorf("version %d uses %d", h.v.Version(), used)
		}
		h.open()
		h.v.View(func(tx *Tx) { checkUsage(t, tx) })
	}
}

func TestStateRecords(t *testing.T) {
	good := state{applied: 1, version: 2, used: 3, limit: 4}
	for _, test := range []struct {
		name string
		b    []byte
		ok   bool
	}{
		{"version 2", good.encode(), true},
		{"version 1", (&state{version: 1}).encode(), true},
		{"cut off", good.encode()[:stateBytes], false},
		{"too long", append(good.encode(), 0), false},
		{"version 1 with usage", append((&state{version: 1}).encode(), make([]byte, stateUsageBytes)...), false},
		{"of the future", (&state{version: MaxVersion + 1}).encode(), false},
		{"empty", nil, false},
	} {
		if _, err := decodeState(test.b); (err == nil) != test.ok {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if got, err := decodeState(good.encode()); err != nil || got != good {
		t.Errorf("%+v, %v", got, err)
	}
}
