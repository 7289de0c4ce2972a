package volume

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"holdfast/internal/rpc"
	"holdfast/internal/store"
	"holdfast/internal/xdr"
)

func (h *harness) applyEntry(e Entry) ([]byte, error) {
	return h.v.Apply(h.v.Applied()+1, e.Encode())
}

func (h *harness) mustApply(e Entry) []byte {
	h.t.Helper()
	reply, err := h.applyEntry(e)
	if err != nil {
		h.t.Fatal(err)
	}
	return reply
}

func TestCallsThatCannotRun(t *testing.T) {
	reply := func(fn func(e *xdr.Encoder)) []byte {
		var e xdr.Encoder
		fn(&e)
		return e.Bytes()
	}
	badVersion := record(harnessProg, 1, 0, nil)
	badVersion[11] = 3
	gss := record(harnessProg, 1, 0, nil)
	gss[27] = rpc.AuthGSS
	isReply := record(harnessProg, 1, 0, nil)
	isReply[7] = 1
	tests := []struct {
		name   string
		record []byte
		want   []byte
	}{
		{"unknown program", record(1, 1, 0, nil), reply(func(e *xdr.Encoder) { rpc.AppendAccepted(e, 99, rpc.ProgUnavail) })},
		{"unknown version", record(harnessProg, 9, 0, nil), reply(func(e *xdr.Encoder) {
			rpc.AppendAccepted(e, 99, rpc.ProgMismatch)
			e.Uint32(1)
			e.Uint32(1)
		})},
		{"RPC version", badVersion, reply(func(e *xdr.Encoder) { rpc.AppendRejected(e, &rpc.RejectError{XID: 99, Mismatch: true}) })},
		{"flavour", gss, reply(func(e *xdr.Encoder) {
			rpc.AppendRejected(e, &rpc.RejectError{XID: 99, AuthStat: rpc.AuthRejected})
		})},
		{"cut off", record(harnessProg, 1, 0, nil)[:30], reply(func(e *xdr.Encoder) { rpc.AppendAccepted(e, 99, rpc.GarbageArgs) })},
		{"a reply", isReply, nil},
		{"four bytes", []byte{0, 0, 0, 1}, nil},
		{"nothing", nil, nil},
	}
	h := newHarness(t, store.NewMem())
	h.fn = func(*Tx) { t.Error("executed") }
	for _, test := range tests {
		if got := h.mustApply(Entry{Kind: EntryCall, Payload: test.record}); !bytes.Equal(got, test.want) {
			t.Errorf("%s: reply %x, want %x", test.name, got, test.want)
		}
	}
}

func TestEntriesThatStopTheReplica(t *testing.T) {
	h := newHarness(t, store.NewMem())
	for _, test := range []struct {
		name string
		e    Entry
		want error
	}{
		{"unknown kind", Entry{Kind: 77}, ErrUnknownEntry},
		{"version of the future", Entry{Kind: EntryVersion, Payload: VersionPayload(MaxVersion + 1)}, ErrUnknownEntry},
		{"command of an unknown program", Entry{Kind: EntryCommand, Payload: CommandPayload(1, 2, nil)}, ErrUnknownEntry},
		{"short command", Entry{Kind: EntryCommand, Payload: []byte{1}}, ErrBadEntry},
		{"bad exports", Entry{Kind: EntryExports, Payload: []byte{1}}, ErrBadEntry},
		{"bad space", Entry{Kind: EntrySpace}, ErrBadEntry},
		{"bad limit", Entry{Kind: EntryLimit, Payload: []byte{1}}, ErrBadEntry},
		{"bad client", Entry{Kind: EntryClient}, ErrBadEntry},
	} {
		if _, err := h.applyEntry(test.e); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
	if _, err := h.v.Apply(1, []byte("rubbish")); !errors.Is(err, ErrBadEntry) {
		t.Errorf("rubbish: %v", err)
	}
	if _, err := h.v.Apply(5, nil); err == nil {
		t.Error("applied an entry out of order")
	}
	if h.v.Applied() != 0 {
		t.Errorf("applied %d", h.v.Applied())
	}
}

func TestAdvanceTo(t *testing.T) {
	h := newHarness(t, store.NewMem())
	if err := h.v.AdvanceTo(5); err != nil {
		t.Fatal(err)
	}
	if err := h.v.AdvanceTo(3); err != nil {
		t.Fatal(err)
	}
	if _, err := h.v.Apply(6, nil); err != nil {
		t.Fatal(err)
	}
	h.open()
	if h.v.Applied() != 6 {
		t.Errorf("applied %d, want 6", h.v.Applied())
	}
}

func TestVersionAndSpace(t *testing.T) {
	h := newHarness(t, store.NewMem())
	h.mustApply(Entry{Kind: EntryVersion, Payload: VersionPayload(1)})
	h.mustApply(Entry{Kind: EntrySpace, Payload: SpacePayload(1000, 400)})
	h.open()
	h.do(func(tx *Tx) {
		if s := tx.FSStat(); s.TotalBytes != 1000 || s.FreeBytes != 400 || s.AvailBytes != 400 || s.TotalFiles-s.FreeFiles != 1 {
			t.Errorf("space in apply %+v", s)
		}
		if tx.Version() != formatVersion {
			t.Errorf("version %d", tx.Version())
		}
	})
	h.v.View(func(tx *Tx) {
		if s := tx.FSStat(); s.TotalBytes < 1<<30 {
			t.Errorf("space of a read %+v", s)
		}
	})
}

func TestClients(t *testing.T) {
	h := newHarness(t, store.NewMem())
	addr := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), uint16(i))
	}
	entry := func(i int, payload []byte) { h.mustApply(Entry{Kind: EntryClient, Client: addr(i), Payload: payload}) }
	for i := range 5 {
		entry(i, ClientOpened)
	}
	entry(1, ClientOpened) // again: stays where it is
	entry(3, ClientClosed)
	entry(4000, ClientClosed) // unknown
	want := []netip.AddrPort{addr(0), addr(1), addr(2), addr(4)}
	for range 2 {
		if got := h.v.Clients(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("clients %v, want %v", got, want)
		}
		h.open()
	}
	for i := range maxClients {
		entry(100+i, ClientOpened)
	}
	if got := h.v.Clients(); len(got) != maxClients || got[0] != addr(100) {
		t.Errorf("%d clients from %v", len(got), got[0])
	}
}

func TestExports(t *testing.T) {
	h := newHarness(t, store.NewMem())
	root := h.root()
	h.do(func(tx *Tx) { must(t)(tx.Create(nil, root, "file", TypeFile, CreateAttr{})) })
	set := func(specs ...ExportSpec) {
		h.mustApply(Entry{Kind: EntryExports, Payload: EncodeExports(specs)})
	}
	set(ExportSpec{Path: "/b/deep", UID: 5, GID: 6, Mode: 0o2770}, ExportSpec{Path: "/a"}, ExportSpec{Path: "/file/x"}, ExportSpec{Path: "/file"})
	for range 2 {
		table := h.v.Exports()
		if len(table) != 2 || table[0].Path != "/a" || table[1].Path != "/b/deep" {
			t.Fatalf("exports %+v", table)
		}
		for _, e := range table {
			if e.ID != ExportID(e.Path) || e.ID == 0 {
				t.Errorf("export %+v", e)
			}
		}
		if n := h.inode(table[0].Root); n.Mode != 0o755 || n.UID != 0 {
			t.Errorf("/a is %+v", n)
		}
		if n := h.inode(table[1].Root); n.Mode != 0o2770 || n.UID != 5 || n.GID != 6 {
			t.Errorf("/b/deep is %+v", n)
		}
		h.open()
	}
	h.do(func(tx *Tx) {
		if errno := tx.Remove(nil, root, "a", RemoveAny); errno != ErrAccess {
			t.Errorf("removed the root of an export: %v", errno)
		}
		if errno := tx.Rename(nil, root, "a", root, "z"); errno != ErrAccess {
			t.Errorf("renamed the root of an export: %v", errno)
		}
	})
	set(ExportSpec{Path: "relative"})
	if len(h.v.Exports()) != 2 {
		t.Error("a table that cannot be was set")
	}
	set(ExportSpec{Path: "/"}, ExportSpec{Path: "/a", Mode: 0o700})
	if table := h.v.Exports(); len(table) != 2 || table[0].Root != RootIno || h.inode(table[1].Root).Mode != 0o755 {
		t.Errorf("exports %+v", table)
	}
	set()
	h.open()
	if table := h.v.Exports(); len(table) != 0 {
		t.Errorf("exports %+v", table)
	}
}

func TestCheckExports(t *testing.T) {
	for _, path := range []string{"", "a", "/a/", "/a/../b", "//a", "/a\x00"} {
		if err := CheckExports([]ExportSpec{{Path: path}}); !errors.Is(err, ErrBadExport) {
			t.Errorf("%q: %v", path, err)
		}
	}
	if err := CheckExports([]ExportSpec{{Path: "/a"}, {Path: "/a"}}); !errors.Is(err, ErrBadExport) {
		t.Errorf("twice the same: %v", err)
	}
	if err := CheckExports([]ExportSpec{{Path: "/"}, {Path: "/a b/ä"}}); err != nil {
		t.Error(err)
	}
}

func TestEntryRoundTrip(t *testing.T) {
	e := Entry{
		Kind: EntryCall, Proposal: 7<<48 | 9, Time: 1e18, Client: netip.MustParseAddrPort("10.1.2.3:700"), Full: true, SeqFlags: 3, Random: 1 << 63,
		Rules: []Rule{{Export: 5, ReadOnly: true, Squash: SquashAll, AnonUID: 1, AnonGID: 2}, {Export: 6}}, Payload: []byte("payload"),
	}
	var got Entry
	if err := DecodeEntry(e.Encode(), &got); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", e) {
		t.Errorf("%+v, want %+v", got, e)
	}
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add((&Entry{Kind: EntryCall, Rules: []Rule{{Export: 5}}, Payload: record(1, 2, 3, nil)}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		var e, again Entry
		if DecodeEntry(b, &e) != nil {
			return
		}
		if err := DecodeEntry(e.Encode(), &again); err != nil || fmt.Sprintf("%+v", e) != fmt.Sprintf("%+v", again) {
			t.Fatalf("%+v became %+v, %v", e, again, err)
		}
	})
}

func FuzzDecodeExports(f *testing.F) {
	f.Add(EncodeExports([]ExportSpec{{Path: "/a", UID: 1}, {Path: "/b/c"}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if specs, err := DecodeExports(b); err == nil && !bytes.Equal(EncodeExports(specs), b) {
			t.Fatalf("%x became %x", b, EncodeExports(specs))
		}
	})
}

func FuzzDecodeEffects(f *testing.F) {
	entry := make([]byte, 100)
	f.Add(encodeEffects([]objectOp{
		{kind: opWrite, ino: 5, off: 9, data: entry[50:60]}, {kind: opWrite, ino: 6, data: []byte("own")},
		{kind: opTruncate, ino: 7, off: 3}, {kind: opPunch, ino: 8, off: 1, length: 2}, {kind: opRemove, ino: 9},
	}, entry))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = decodeEffects(b, entry, func(op *objectOp) error {
			if op.off+uint64(len(op.data)) > MaxFileBytes || len(op.data) > len(b)+len(entry) {
				t.Fatalf("%+v", op)
			}
			return nil
		})
	})
}

func FuzzInstall(f *testing.F) {
	_, _, r := randomLog(f, 1, 100)
	snap, err := r.v.Snapshot(0)
	if err != nil {
		f.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := snap.WriteTo(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(b.Bytes()[:binary.Size(uint64(0))*5])
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newReplica(t, store.NewMem())
		if err := r.v.Install(bytes.NewReader(b)); err == nil && !r.v.Valid() {
			t.Fatal("installed without an error but invalid")
		}
	})
}
