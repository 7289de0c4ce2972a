package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"sync"
	"testing"

	"github.com/buildbarn/go-xdr/pkg/protocols/nfsv4"

	"holdfast/internal/nfs3"
	"holdfast/internal/nfs4"
	"holdfast/internal/rpc"
	"holdfast/internal/store"
	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

const (
	testVolume = 7
	testNode   = 3
	testExport = "/data"
)

var errRefused = errors.New("raft refuses")

// fakeRaft keeps what was proposed until the test applies it.
type fakeRaft struct {
	mu sync.Mutex
	// serving tells whether ServingTerm has a term; the test may lose the lease in the middle of a request with it.
	serving func() bool
	term    uint64 // in which it serves
	entries [][]byte
	// refuse, if set, is called instead of taking the entry.
	refuse func() error
}

func (r *fakeRaft) ServingTerm() uint64 {
	if !r.serving() {
		return 0
	}
	return r.term
}

func (r *fakeRaft) Propose(entry []byte) error {
	if r.refuse != nil {
		return r.refuse()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries = append(r.entries, entry)
	return nil
}

// fakeClock moves by a microsecond with each look.
type fakeClock struct{ now int64 }

func (c *fakeClock) WallNS() int64      { c.now += 1000; return 1_700_000_000e9 + c.now }
func (c *fakeClock) MonotonicNS() int64 { c.now += 1000; return c.now }
func (c *fakeClock) Random() uint64     { return 1<<63 | 1<<47 | 41 }

// fakeConn keeps replies.
type fakeConn struct {
	addr    netip.AddrPort
	replies [][]byte
}

func (c *fakeConn) Call(context.Context, uint32, uint32, uint32, *rpc.Auth, []byte) ([]byte, error) {
	return nil, errors.New("no back channel")
}
func (c *fakeConn) Reply(record []byte)        { c.replies = append(c.replies, record) }
func (c *fakeConn) RemoteAddr() netip.AddrPort { return c.addr }

// rottenStore cannot be read any more once it is rotten.
type rottenStore struct {
	store.Store
	rotten bool
}

func (s *rottenStore) Get(key []byte) ([]byte, error) {
	if s.rotten {
		return nil, store.ErrUnreadable
	}
	return s.Store.Get(key)
}

// harness is a gateway over a real volume on a store in memory, with raft, clock and connections in the test's hand.
type harness struct {
	t      testing.TB
	g      *Gateway
	raft   *fakeRaft
	clock  *fakeClock
	volume *volume.Volume
	store  *rottenStore
	conn   *fakeConn
	rules  []volume.Rule
	full   bool
	index  uint64
	xid    uint32
	// fh is the root of the export as version 3 knows it; versions differ in nothing.
	fh []byte
}

func newHarness(t testing.TB) *harness {
	t.Helper()
	h := &harness{t: t, clock: &fakeClock{}, raft: &fakeRaft{serving: func() bool { return true }, term: 1}, conn: &fakeConn{addr: netip.MustParseAddrPort("192.0.2.1:700")}}
	p4 := nfs4.New(nfs4.Config{Volume: testVolume, Name: "test"})
	programs := []volume.Program{p4, nfs3.New(testVolume)}
	var err error
	h.store = &rottenStore{Store: store.NewMem()}
	h.volume, err = volume.Open(volume.Config{ID: testVolume, Name: "test", Store: h.store, Programs: programs})
	if err != nil {
		t.Fatal(err)
	}
	h.rules = []volume.Rule{{Export: volume.ExportID(testExport), Squash: volume.SquashNone}}
	h.g = New(Config{
		Volume: h.volume, Raft: h.raft, NFS4: p4, Programs: programs, Clock: h.clock, Node: testNode,
		Rules: func(netip.Addr) []volume.Rule { return h.rules }, Full: func() bool { return h.full },
	})
	h.g.Lead(1)
	h.must(h.g.Command(volume.EntryExports, netip.AddrPort{}, volume.EncodeExports([]volume.ExportSpec{{Path: testExport, Mode: 0o777}})))
	h.applyAll()
	root := h.volume.Exports()[0].Root
	h.volume.View(func(tx *volume.Tx) {
		n, errno := tx.Inode(root, 0)
		if errno != volume.OK {
			t.Fatal(errno)
		}
		fh := volume.EncodeHandle(volume.Handle{Volume: testVolume, Export: volume.ExportID(testExport), Ino: root, Gen: n.Gen})
		h.fh = fh[:]
	})
	return h
}

func (h *harness) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// applyAll applies what was proposed, as the apply worker does, and returns how many entries that were.
func (h *harness) applyAll() int {
	h.t.Helper()
	entries := h.raft.entries
	h.raft.entries = nil
	for _, e := range entries {
		h.applyEntry(e)
	}
	return len(entries)
}

func (h *harness) applyEntry(e []byte) {
	h.t.Helper()
	h.index++
	reply, err := h.volume.Apply(h.index, e)
	if err != nil {
		h.t.Fatal(err)
	}
	h.g.Applied(e, reply)
}

// call is a version 3 record; every call has an XID of its own.
func (h *harness) call(proc uint32, args func(e *xdr.Encoder)) []byte {
	h.xid++
	return h.record(3, proc, h.xid, args)
}

func (h *harness) record(vers, proc, xid uint32, args func(e *xdr.Encoder)) []byte {
	var e xdr.Encoder
	rpc.AppendCall(&e, xid, rpc.ProgNFS, vers, proc, &rpc.Auth{Flavor: rpc.AuthSys, Machine: "test"})
	args(&e)
	return e.Bytes()
}

// Version 3 procedures (RFC 1813 section 3.3).
const (
	proc3GetAttr = 1
	proc3Lookup  = 3
	proc3Mkdir   = 9
)

func (h *harness) getattr() []byte {
	return h.call(proc3GetAttr, func(e *xdr.Encoder) { e.Opaque(h.fh) })
}

func (h *harness) mkdir(name string) []byte {
	return h.call(proc3Mkdir, func(e *xdr.Encoder) {
		e.Opaque(h.fh)
		e.String(name)
		for range 6 { // sattr3 that sets nothing
			e.Uint32(0)
		}
	})
}

// decode is Decode for a record that must be a request.
func (h *harness) decode(record []byte, mutates bool) *Request {
	h.t.Helper()
	req := new(Request)
	reply, err := h.g.Decode(h.conn, record, req)
	if err != nil || reply != nil {
		h.t.Fatalf("Decode: reply %x, error %v", reply, err)
	}
	if req.Mutates != mutates {
		h.t.Fatalf("Mutates is %t", req.Mutates)
	}
	return req
}

// propose proposes a record in a buffer with headroom for it, and counts the calls of done.
func (h *harness) propose(record []byte) (done *int, err error) {
	h.t.Helper()
	off := HeadroomBytes(len(h.rules))
	buf := append(make([]byte, off), record...)
	done = new(int)
	return done, h.g.Propose(h.conn, h.decode(buf[off:], true), buf, off, func() { *done++ })
}

// status returns the first word of an accepted reply's results: a status in all that the tests call.
func (h *harness) status(reply []byte) uint32 {
	h.t.Helper()
	_, results, err := rpc.ParseReply(reply)
	if err != nil {
		h.t.Fatalf("reply %x: %v", reply, err)
	}
	d := xdr.NewDecoder(results)
	st := d.Uint32()
	if d.Err() != nil {
		h.t.Fatal(d.Err())
	}
	return st
}

// lastReply returns the one reply that was sent since the last call.
func (h *harness) lastReply() []byte {
	h.t.Helper()
	if len(h.conn.replies) != 1 {
		h.t.Fatalf("%d replies were sent, want 1", len(h.conn.replies))
	}
	r := h.conn.replies[0]
	h.conn.replies = nil
	return r
}

// session4 is a version 4.1 client's session.
type session4 struct {
	*harness
	id  [16]byte
	seq uint32
}

func encode(t testing.TB, args io.WriterTo) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := args.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// compound is the record of a compound.
func (h *harness) compound(ops ...nfsv4.NfsArgop4) []byte {
	h.t.Helper()
	h.xid++
	args := encode(h.t, &nfsv4.Compound4args{Minorversion: 1, Argarray: ops})
	return h.record(4, 1, h.xid, func(e *xdr.Encoder) { e.Raw(args) })
}

// log proposes a compound, applies it, and decodes its reply, which must be a success.
func (h *harness) log(record []byte) *nfsv4.Compound4res {
	h.t.Helper()
	done, err := h.propose(record)
	h.must(err)
	h.applyAll()
	if *done != 1 {
		h.t.Fatalf("done was called %d times", *done)
	}
	return h.result(h.lastReply())
}

func (h *harness) result(reply []byte) *nfsv4.Compound4res {
	h.t.Helper()
	_, results, err := rpc.ParseReply(reply)
	if err != nil {
		h.t.Fatal(err)
	}
	var res nfsv4.Compound4res
	if _, err := res.ReadFrom(bytes.NewReader(results)); err != nil {
		h.t.Fatalf("reply %x: %v", results, err)
	}
	if res.Status != nfsv4.NFS4_OK {
		h.t.Fatalf("compound: status %d", res.Status)
	}
	return &res
}

func (h *harness) newClient(owner string) nfsv4.ExchangeId4resok {
	h.t.Helper()
	res := h.log(h.compound(&nfsv4.NfsArgop4_OP_EXCHANGE_ID{OpexchangeId: nfsv4.ExchangeId4args{
		EiaClientowner: nfsv4.ClientOwner4{CoOwnerid: []byte(owner)}, EiaStateProtect: &nfsv4.StateProtect4A_SP4_NONE{},
	}}))
	return res.Resarray[0].(*nfsv4.NfsResop4_OP_EXCHANGE_ID).OpexchangeId.(*nfsv4.ExchangeId4res_NFS4_OK).EirResok4
}

func (h *harness) newSession() *session4 {
	h.t.Helper()
	id := h.newClient("owner")
	channel := nfsv4.ChannelAttrs4{CaMaxrequestsize: 1 << 20, CaMaxresponsesize: 1 << 20, CaMaxresponsesizeCached: 4096, CaMaxoperations: 16, CaMaxrequests: 8}
	res := h.log(h.compound(&nfsv4.NfsArgop4_OP_CREATE_SESSION{OpcreateSession: nfsv4.CreateSession4args{
		CsaClientid: id.EirClientid, CsaSequence: id.EirSequenceid, CsaForeChanAttrs: channel, CsaBackChanAttrs: channel, CsaCbProgram: 1 << 30,
	}}))
	s := &session4{harness: h, id: res.Resarray[0].(*nfsv4.NfsResop4_OP_CREATE_SESSION).OpcreateSession.(*nfsv4.CreateSession4res_NFS4_OK).CsrResok4.CsrSessionid}
	h.log(s.next(&nfsv4.NfsArgop4_OP_RECLAIM_COMPLETE{}))
	return s
}

// next is a compound with the slot's next number, same one with the last.
func (s *session4) next(ops ...nfsv4.NfsArgop4) []byte {
	s.seq++
	return s.same(ops...)
}

func (s *session4) same(ops ...nfsv4.NfsArgop4) []byte {
	s.t.Helper()
	seq := &nfsv4.NfsArgop4_OP_SEQUENCE{Opsequence: nfsv4.Sequence4args{SaSessionid: s.id, SaSequenceid: s.seq, SaCachethis: true}}
	return s.compound(append([]nfsv4.NfsArgop4{seq}, ops...)...)
}

func (s *session4) putfh() nfsv4.NfsArgop4 {
	return &nfsv4.NfsArgop4_OP_PUTFH{Opputfh: nfsv4.Putfh4args{Object: s.fh}}
}

func getattr4() nfsv4.NfsArgop4 {
	return &nfsv4.NfsArgop4_OP_GETATTR{Opgetattr: nfsv4.Getattr4args{AttrRequest: []uint32{1<<1 | 1<<3 | 1<<4 | 1<<20, 1 << (33 - 32)}}}
}

func mkdir4(name string) nfsv4.NfsArgop4 {
	return &nfsv4.NfsArgop4_OP_CREATE{Opcreate: nfsv4.Create4args{Objtype: &nfsv4.Createtype4_NF4DIR{}, Objname: name}}
}
