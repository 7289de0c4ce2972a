package volume

import (
	"testing"

	"holdfast/internal/rpc"
	"holdfast/internal/store"
	"holdfast/internal/xdr"
)

// harness drives one volume by closures: each run of do is one log entry, whose command is the closure.
type harness struct {
	t     testing.TB
	store store.Store
	v     *Volume
	fn    func(tx *Tx)
	inUse map[Ino]bool
	now   int64
	full  bool
}

const harnessProg = 0x20000001

func (h *harness) Number() (uint32, uint32)  { return harnessProg, 1 }
func (h *harness) Mutates(*Request) bool     { return true }
func (h *harness) Command(*Tx, []byte) error { return nil }
func (h *harness) Load(*Tx) error            { return nil }
func (h *harness) InUse(ino Ino) bool        { return h.inUse[ino] }
func (h *harness) inode(ino Ino) (n *Inode) {
	h.v.View(func(tx *Tx) { n, _ = tx.Inode(ino, 0) })
	return n
}
func (h *harness) current(n *Inode) *Inode { h.t.Helper(); return must(h.t)(h.stat(n.Ino)) }
func (h *harness) stat(ino Ino) (*Inode, Errno) {
	n := h.inode(ino)
	if n == nil {
		return nil, ErrStale
	}
	return n, OK
}

func (h *harness) Execute(tx *Tx, _ *Request, reply *xdr.Encoder) rpc.AcceptStat {
	h.fn(tx)
	reply.Uint32(1)
	return rpc.Success
}

func newHarness(t testing.TB, s store.Store) *harness {
	t.Helper()
	h := &harness{t: t, store: s, inUse: map[Ino]bool{}, now: 1e18}
	h.open()
	return h
}

func (h *harness) open() {
	h.t.Helper()
	v, err := Open(Config{ID: 7, Name: "test", Store: h.store, Programs: []Program{h}})
	if err != nil {
		h.t.Fatal(err)
	}
	h.v = v
}

// record is a call record of AUTH_NONE.
func record(prog, vers, proc uint32, args []byte) []byte {
	var e xdr.Encoder
	for _, v := range []uint32{99, 0, 2, prog, vers, proc, 0, 0, 0, 0} {
		e.Uint32(v)
	}
	e.Raw(args)
	return e.Bytes()
}

// do runs fn as the next entry, with data at the entry's end.
func (h *harness) do(fn func(tx *Tx)) {
	h.t.Helper()
	h.now += 1e9
	h.fn = fn
	e := Entry{Kind: EntryCall, Time: h.now, Full: h.full, Payload: record(harnessProg, 1, 0, nil)}
	if _, err := h.v.Apply(h.v.Applied()+1, e.Encode()); err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) root() *Inode { return h.inode(RootIno) }

// must returns a function that fails the test unless the error is OK.
func must(t testing.TB) func(n *Inode, errno Errno) *Inode {
	return func(n *Inode, errno Errno) *Inode {
		t.Helper()
		if errno != OK {
			t.Fatal(errno)
		}
		return n
	}
}

func ptr[T any](v T) *T { return &v }

func TestSmoke(t *testing.T) {
	h := newHarness(t, store.NewMem())
	var f *Inode
	root := h.root()
	h.do(func(tx *Tx) {
		d := must(t)(tx.Mkdir(nil, root, "d", SetAttr{}))
		f = must(t)(tx.Create(nil, d, "f", TypeFile, CreateAttr{}))
		f = must(t)(tx.Write(nil, f, 0, []byte("hello")))
	})
	h.do(func(tx *Tx) { f = must(t)(tx.Write(nil, f, 10000, []byte("world"))) })
	h.v.View(func(tx *Tx) {
		buf := make([]byte, 20000)
		n, eof, errno := tx.Read(f, 0, buf)
		if n != 10005 || !eof || errno != OK || string(buf[:5]) != "hello" || string(buf[10000:10005]) != "world" {
			t.Fatalf("read %d %v %v", n, eof, errno)
		}
	})
	h.open()
	if got := h.current(f); *got != *f {
		t.Fatalf("after reopening %+v, want %+v", got, f)
	}
}
