package nfs4

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/buildbarn/go-xdr/pkg/protocols/nfsv4"

	"holdfast/internal/rpc"
	"holdfast/internal/store"
	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

// server is one replica whose requests come straight from the test. Compounds are encoded and replies decoded with go-xdr, an implementation that shares nothing
// with ours.
type server struct {
	t     testing.TB
	store store.Store
	p     *Program
	v     *volume.Volume
	now   int64
	rules []volume.Rule
	auth  rpc.Auth
	flags uint32
	full  bool
}

const (
	testVolume = 7
	testDir    = "/data"
)

var rootAuth = rpc.Auth{Flavor: rpc.AuthSys, Machine: "test"}

// newServer has one export, /data, in which nobody is squashed.
func newServer(t testing.TB) *server {
	t.Helper()
	s := &server{t: t, store: store.NewMem(), now: 1_700_000_000e9, auth: rootAuth}
	s.open()
	s.setExports(volume.ExportSpec{Path: testDir, Mode: 0o777})
	return s
}

func (s *server) open() {
	s.t.Helper()
	s.p = New(Config{Volume: testVolume, Name: "test"})
	v, err := volume.Open(volume.Config{ID: testVolume, Name: "test", Store: s.store, Programs: []volume.Program{s.p}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.v = v
}

func (s *server) setExports(specs ...volume.ExportSpec) {
	s.t.Helper()
	s.apply(&volume.Entry{Kind: volume.EntryExports, Payload: volume.EncodeExports(specs)})
	s.rules = nil
	for _, spec := range specs {
		s.rules = append(s.rules, volume.Rule{Export: volume.ExportID(spec.Path), Squash: volume.SquashNone, AnonUID: 65534, AnonGID: 65534})
	}
}

func (s *server) apply(e *volume.Entry) []byte {
	s.t.Helper()
	s.now += 1e9
	e.Time = s.now
	reply, err := s.v.Apply(s.v.Applied()+1, e.Encode())
	if err != nil {
		s.t.Fatal(err)
	}
	return reply
}

var testClient = netip.MustParseAddrPort("192.0.2.1:700")

// record is the RPC record of a call to NFS version 4.
func (s *server) record(proc uint32, args []byte) []byte {
	var e xdr.Encoder
	rpc.AppendCall(&e, 77, rpc.ProgNFS, 4, proc, &s.auth)
	e.Raw(args)
	return e.Bytes()
}

// raw executes the arguments of a COMPOUND as the node would: logged if Mutates says so. It returns the results.
func (s *server) raw(args []byte) []byte {
	s.t.Helper()
	record := s.record(1, args)
	req := volume.Request{Client: testClient, Time: s.now, Rules: s.rules, SeqFlags: s.flags}
	if err := rpc.ParseCall(record, &req.Call); err != nil {
		s.t.Fatal(err)
	}
	var reply []byte
	if s.p.Mutates(&req) {
		reply = s.apply(&volume.Entry{Kind: volume.EntryCall, Client: testClient, Rules: s.rules, SeqFlags: s.flags, Full: s.full, Random: 42, Payload: record})
	} else {
		var e xdr.Encoder
		s.v.Read(&req, &e)
		reply = e.Bytes()
	}
	xid, results, err := rpc.ParseReply(reply)
	if err != nil || xid != 77 {
		s.t.Fatalf("reply %x: %v", reply, err)
	}
	return results
}

// compound executes ops and decodes the reply, which must be exactly one COMPOUND4res.
func (s *server) compound(minor uint32, ops ...nfsv4.NfsArgop4) *nfsv4.Compound4res {
	s.t.Helper()
	return s.decode(s.raw(encodeCompound(s.t, minor, ops)))
}

func encodeCompound(t testing.TB, minor uint32, ops []nfsv4.NfsArgop4) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := (&nfsv4.Compound4args{Tag: "tag", Minorversion: minor, Argarray: ops}).WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func (s *server) decode(results []byte) *nfsv4.Compound4res {
	s.t.Helper()
	var res nfsv4.Compound4res
	r := bytes.NewReader(results)
	if _, err := res.ReadFrom(r); err != nil || r.Len() != 0 {
		s.t.Fatalf("reply %x: %v, %d bytes left", results, err, r.Len())
	}
	if res.Tag != "tag" {
		s.t.Errorf("tag %q", res.Tag)
	}
	return &res
}

// statusOf returns the status of one result.
func statusOf(t testing.TB, r nfsv4.NfsResop4) status {
	t.Helper()
	var b bytes.Buffer
	if _, err := r.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return status(binary.BigEndian.Uint32(b.Bytes()[4:]))
}

// client is a client with one session.
type client struct {
	*server
	minor   uint32
	id      uint64
	session [16]byte
	seq     uint32
	cache   bool
}

func (s *server) newClient(owner string) *client {
	s.t.Helper()
	return s.newClientMinor(owner, 2)
}

func (s *server) newClientMinor(owner string, minor uint32) *client {
	s.t.Helper()
	res := s.compound(minor, exchangeID(owner, [8]byte{1}, 0))
	ok := res.Resarray[0].(*nfsv4.NfsResop4_OP_EXCHANGE_ID).OpexchangeId.(*nfsv4.ExchangeId4res_NFS4_OK).EirResok4
	c := &client{server: s, minor: minor, id: ok.EirClientid, cache: true}
	res = s.compound(minor, createSession(c.id, ok.EirSequenceid))
	c.session = res.Resarray[0].(*nfsv4.NfsResop4_OP_CREATE_SESSION).OpcreateSession.(*nfsv4.CreateSession4res_NFS4_OK).CsrResok4.CsrSessionid
	c.ok(&nfsv4.NfsArgop4_OP_RECLAIM_COMPLETE{})
	return c
}

func (c *client) sequence() *nfsv4.NfsArgop4_OP_SEQUENCE {
	c.seq++
	return &nfsv4.NfsArgop4_OP_SEQUENCE{Opsequence: nfsv4.Sequence4args{SaSessionid: c.session, SaSequenceid: c.seq, SaCachethis: c.cache}}
}

// do executes ops in the session and returns the whole reply.
func (c *client) do(ops ...nfsv4.NfsArgop4) *nfsv4.Compound4res {
	c.t.Helper()
	return c.compound(c.minor, append([]nfsv4.NfsArgop4{c.sequence()}, ops...)...)
}

// ok is do for compounds that must succeed; it returns the results without SEQUENCE's.
func (c *client) ok(ops ...nfsv4.NfsArgop4) []nfsv4.NfsResop4 {
	c.t.Helper()
	return c.want(statusOK, ops...)
}

// want is do for compounds whose last result must have status st.
func (c *client) want(st status, ops ...nfsv4.NfsArgop4) []nfsv4.NfsResop4 {
	c.t.Helper()
	res := c.do(ops...)
	if status(res.Status) != st {
		c.t.Fatalf("compound of %d operations: status %d after %d results, want %d", len(ops)+1, res.Status, len(res.Resarray), st)
	}
	if got := statusOf(c.t, res.Resarray[len(res.Resarray)-1]); got != st {
		c.t.Fatalf("last result has status %d, the compound %d", got, st)
	}
	if st == statusOK && len(res.Resarray) != len(ops)+1 {
		c.t.Fatalf("%d results of %d operations", len(res.Resarray), len(ops)+1)
	}
	return res.Resarray[1:]
}

// Operations.

func exchangeID(owner string, verifier [8]byte, flags uint32) nfsv4.NfsArgop4 {
	return &nfsv4.NfsArgop4_OP_EXCHANGE_ID{OpexchangeId: nfsv4.ExchangeId4args{
		EiaClientowner:  nfsv4.ClientOwner4{CoVerifier: verifier, CoOwnerid: []byte(owner)},
		EiaFlags:        flags,
		EiaStateProtect: &nfsv4.StateProtect4A_SP4_NONE{},
		EiaClientImplId: []nfsv4.NfsImplId4{{NiiDomain: "example.org", NiiName: "test"}},
	}}
}

func channel() nfsv4.ChannelAttrs4 {
	return nfsv4.ChannelAttrs4{CaMaxrequestsize: 1 << 21, CaMaxresponsesize: 1 << 21, CaMaxresponsesizeCached: 4096, CaMaxoperations: 16, CaMaxrequests: 64}
}

func createSession(id uint64, seq uint32) nfsv4.NfsArgop4 {
	return &nfsv4.NfsArgop4_OP_CREATE_SESSION{OpcreateSession: nfsv4.CreateSession4args{
		CsaClientid:      id,
		CsaSequence:      seq,
		CsaFlags:         3, // PERSIST, CONN_BACK_CHAN
		CsaForeChanAttrs: channel(),
		CsaBackChanAttrs: channel(),
		CsaCbProgram:     0x40000000,
		CsaSecParms:      []nfsv4.CallbackSecParms4{&nfsv4.CallbackSecParms4_AUTH_SYS{}},
	}}
}

func putrootfh() nfsv4.NfsArgop4 { return &nfsv4.NfsArgop4_OP_PUTROOTFH{} }
func getfh() nfsv4.NfsArgop4     { return &nfsv4.NfsArgop4_OP_GETFH{} }
func savefh() nfsv4.NfsArgop4    { return &nfsv4.NfsArgop4_OP_SAVEFH{} }
func lookupp() nfsv4.NfsArgop4   { return &nfsv4.NfsArgop4_OP_LOOKUPP{} }

func putfh(fh []byte) nfsv4.NfsArgop4 {
	return &nfsv4.NfsArgop4_OP_PUTFH{Opputfh: nfsv4.Putfh4args{Object: fh}}
}

func lookup(name string) nfsv4.NfsArgop4 {
	return &nfsv4.NfsArgop4_OP_LOOKUP{Oplookup: nfsv4.Lookup4args{Objname: name}}
}

func remove(name string) nfsv4.NfsArgop4 {
	return &nfsv4.NfsArgop4_OP_REMOVE{Opremove: nfsv4.Remove4args{Target: name}}
}

func rename(from, to string) nfsv4.NfsArgop4 {
	return &nfsv4.NfsArgop4_OP_RENAME{Oprename: nfsv4.Rename4args{Oldname: from, Newname: to}}
}

func getattr(attrs ...uint) nfsv4.NfsArgop4 {
	b := bitmapOf(attrs...)
	return &nfsv4.NfsArgop4_OP_GETATTR{Opgetattr: nfsv4.Getattr4args{AttrRequest: b[:]}}
}

func mkdir(name string, mode uint32) nfsv4.NfsArgop4 {
	return &nfsv4.NfsArgop4_OP_CREATE{Opcreate: nfsv4.Create4args{Objtype: &nfsv4.Createtype4_NF4DIR{}, Objname: name, Createattrs: modeAttr(mode)}}
}

func modeAttr(mode uint32) nfsv4.Fattr4 {
	return nfsv4.Fattr4{Attrmask: []uint32{0, 1 << (attrMode - 32)}, AttrVals: binary.BigEndian.AppendUint32(nil, mode)}
}

func sizeAttr(size uint64) nfsv4.Fattr4 {
	return nfsv4.Fattr4{Attrmask: []uint32{1 << attrSize}, AttrVals: binary.BigEndian.AppendUint64(nil, size)}
}

func setattr(sid nfsv4.Stateid4, attrs nfsv4.Fattr4) nfsv4.NfsArgop4 {
	return &nfsv4.NfsArgop4_OP_SETATTR{Opsetattr: nfsv4.Setattr4args{Stateid: sid, ObjAttributes: attrs}}
}

func open(owner, name string, access, deny uint32, how nfsv4.Openflag4) nfsv4.NfsArgop4 {
	return &nfsv4.NfsArgop4_OP_OPEN{Opopen: nfsv4.Open4args{
		ShareAccess: access, ShareDeny: deny, Owner: nfsv4.StateOwner4{Owner: []byte(owner)}, Openhow: how, Claim: &nfsv4.OpenClaim4_CLAIM_NULL{File: name},
	}}
}

func noCreate() nfsv4.Openflag4 { return &nfsv4.Openflag4_default{} }

func unchecked(attrs nfsv4.Fattr4) nfsv4.Openflag4 {
	return &nfsv4.Openflag4_OPEN4_CREATE{How: &nfsv4.Createhow4_UNCHECKED4{Createattrs: attrs}}
}

func guarded(attrs nfsv4.Fattr4) nfsv4.Openflag4 {
	return &nfsv4.Openflag4_OPEN4_CREATE{How: &nfsv4.Createhow4_GUARDED4{Createattrs: attrs}}
}

func exclusive(verifier byte) nfsv4.Openflag4 {
	return &nfsv4.Openflag4_OPEN4_CREATE{How: &nfsv4.Createhow4_EXCLUSIVE4{Createverf: [8]byte{verifier}}}
}

func exclusive41(verifier byte, attrs nfsv4.Fattr4) nfsv4.Openflag4 {
	return &nfsv4.Openflag4_OPEN4_CREATE{How: &nfsv4.Createhow4_EXCLUSIVE4_1{ChCreateboth: nfsv4.Creatverfattr{CvaVerf: [8]byte{verifier}, CvaAttrs: attrs}}}
}

func closeOp(sid nfsv4.Stateid4) nfsv4.NfsArgop4 {
	return &nfsv4.NfsArgop4_OP_CLOSE{Opclose: nfsv4.Close4args{OpenStateid: sid}}
}

func read(sid nfsv4.Stateid4, off uint64, count uint32) nfsv4.NfsArgop4 {
	return &nfsv4.NfsArgop4_OP_READ{Opread: nfsv4.Read4args{Stateid: sid, Offset: off, Count: count}}
}

func write(sid nfsv4.Stateid4, off uint64, data string) nfsv4.NfsArgop4 {
	return &nfsv4.NfsArgop4_OP_WRITE{Opwrite: nfsv4.Write4args{Stateid: sid, Offset: off, Data: []byte(data)}}
}

func lock(typ nfsv4.NfsLockType4, off, length uint64, sid nfsv4.Stateid4, owner string) nfsv4.NfsArgop4 {
	return &nfsv4.NfsArgop4_OP_LOCK{Oplock: nfsv4.Lock4args{Locktype: typ, Offset: off, Length: length,
		Locker: &nfsv4.Locker4_TRUE{OpenOwner: nfsv4.OpenToLockOwner4{OpenStateid: sid, LockOwner: nfsv4.StateOwner4{Owner: []byte(owner)}}}}}
}

func locku(off, length uint64, sid nfsv4.Stateid4) nfsv4.NfsArgop4 {
	return &nfsv4.NfsArgop4_OP_LOCKU{Oplocku: nfsv4.Locku4args{Locktype: 2, Offset: off, Length: length, LockStateid: sid}}
}

func readdirOp(cookie uint64, dircount, maxcount uint32, attrs ...uint) nfsv4.NfsArgop4 {
	b := bitmapOf(attrs...)
	return &nfsv4.NfsArgop4_OP_READDIR{Opreaddir: nfsv4.Readdir4args{Cookie: cookie, Dircount: dircount, Maxcount: maxcount, AttrRequest: b[:]}}
}

// Results.

func fhOf(r nfsv4.NfsResop4) []byte {
	return r.(*nfsv4.NfsResop4_OP_GETFH).Opgetfh.(*nfsv4.Getfh4res_NFS4_OK).Resok4.Object
}

func openOf(r nfsv4.NfsResop4) *nfsv4.Open4resok {
	return &r.(*nfsv4.NfsResop4_OP_OPEN).Opopen.(*nfsv4.Open4res_NFS4_OK).Resok4
}

func attrsOf(r nfsv4.NfsResop4) nfsv4.Fattr4 {
	return r.(*nfsv4.NfsResop4_OP_GETATTR).Opgetattr.(*nfsv4.Getattr4res_NFS4_OK).Resok4.ObjAttributes
}

func dataOf(r nfsv4.NfsResop4) (string, bool) {
	ok := r.(*nfsv4.NfsResop4_OP_READ).Opread.(*nfsv4.Read4res_NFS4_OK).Resok4
	return string(ok.Data), ok.Eof
}

func lockOf(r nfsv4.NfsResop4) nfsv4.Stateid4 {
	return r.(*nfsv4.NfsResop4_OP_LOCK).Oplock.(*nfsv4.Lock4res_NFS4_OK).Resok4.LockStateid
}

// uintAttr returns the value of the only attribute of f, a 32 or 64 bit number.
func uintAttr(t testing.TB, f nfsv4.Fattr4) uint64 {
	t.Helper()
	switch len(f.AttrVals) {
	case 4:
		return uint64(binary.BigEndian.Uint32(f.AttrVals))
	case 8:
		return binary.BigEndian.Uint64(f.AttrVals)
	}
	t.Fatalf("attribute values %x", f.AttrVals)
	return 0
}

// data is the filehandle of the export.
func (c *client) data() []byte {
	c.t.Helper()
	return fhOf(c.ok(putrootfh(), lookup("data"), getfh())[2])
}

// create makes a file in /data with content and returns its handle.
func (c *client) create(name, content string) []byte {
	c.t.Helper()
	res := c.ok(putfh(c.data()), open("creator", name, 2, 0, unchecked(modeAttr(0o644))), getfh())
	fh, sid := fhOf(res[2]), openOf(res[1]).Stateid
	if content != "" {
		c.ok(putfh(fh), write(sid, 0, content))
	}
	c.ok(putfh(fh), closeOp(sid))
	return fh
}

func entriesOf(r nfsv4.NfsResop4) []nfsv4.Entry4 {
	var out []nfsv4.Entry4
	for e := r.(*nfsv4.NfsResop4_OP_READDIR).Opreaddir.(*nfsv4.Readdir4res_NFS4_OK).Resok4.Reply.Entries; e != nil; e = e.Nextentry {
		out = append(out, *e)
	}
	return out
}

// commandEntry is an EntryCommand for this program.
func commandEntry(command []byte) *volume.Entry {
	payload := binary.BigEndian.AppendUint32(nil, rpc.ProgNFS)
	payload = binary.BigEndian.AppendUint32(payload, 4)
	return &volume.Entry{Kind: volume.EntryCommand, Payload: append(payload, command...)}
}
