package nfs3

import (
	"bytes"
	"io"
	"net/netip"
	"testing"

	"github.com/buildbarn/go-xdr/pkg/protocols/nfsv3"

	"holdfast/internal/rpc"
	"holdfast/internal/store"
	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

const testVolume = 7

// server is a volume on a store in memory, and a client of it. Calls are encoded and replies decoded by go-xdr, an implementation that
// shares nothing with ours.
type server struct {
	t      testing.TB
	v      *volume.Volume
	p      *Program
	store  *store.Mem
	index  uint64
	now    int64
	xid    uint32
	client netip.AddrPort
	auth   rpc.Auth
	rules  []volume.Rule
	full   bool
	// entries are the log, for replicas that shall repeat it.
	entries [][]byte
}

// newServer returns a server that exports /data to everybody, unsquashed, /other in the same way, /ro read-only, /squashed with all
// callers mapped to user 99, and /hidden to nobody.
func newServer(t testing.TB) *server {
	t.Helper()
	s := &server{
		t: t, store: store.NewMem(), now: 1_700_000_000_000_000_000,
		client: netip.MustParseAddrPort("10.0.0.1:700"),
		auth:   rpc.Auth{Flavor: rpc.AuthSys},
	}
	s.open()
	var specs []volume.ExportSpec
	for _, path := range []string{"/data", "/other", "/ro", "/squashed", "/hidden"} {
		specs = append(specs, volume.ExportSpec{Path: path, Mode: 0o777})
	}
	s.apply(&volume.Entry{Kind: volume.EntryExports, Payload: volume.EncodeExports(specs)})
	s.rules = []volume.Rule{
		{Export: volume.ExportID("/data"), Squash: volume.SquashNone},
		{Export: volume.ExportID("/other"), Squash: volume.SquashNone},
		{Export: volume.ExportID("/ro"), Squash: volume.SquashNone, ReadOnly: true},
		{Export: volume.ExportID("/squashed"), Squash: volume.SquashAll, AnonUID: 99, AnonGID: 99},
	}
	return s
}

// open opens the volume on whatever the store holds.
func (s *server) open() {
	s.t.Helper()
	s.p = New(testVolume)
	v, err := volume.Open(volume.Config{ID: testVolume, Name: "test", Store: s.store, Programs: []volume.Program{s.p}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.v = v
}

func (s *server) apply(e *volume.Entry) []byte {
	s.t.Helper()
	s.index++
	s.now += 1_000_000
	e.Time = s.now
	b := e.Encode()
	s.entries = append(s.entries, b)
	reply, err := s.v.Apply(s.index, b)
	if err != nil {
		s.t.Fatalf("apply %d: %v", s.index, err)
	}
	return reply
}

// record returns a call as it comes off the wire.
func (s *server) record(xid, proc uint32, args []byte) []byte {
	e := xdr.NewEncoder(nil)
	for _, v := range []uint32{xid, 0, 2, rpc.ProgNFS, Version, proc, s.auth.Flavor} {
		e.Uint32(v)
	}
	body := xdr.NewEncoder(nil)
	if s.auth.Flavor == rpc.AuthSys {
		body.Uint32(0)
		body.String("client")
		body.Uint32(s.auth.UID)
		body.Uint32(s.auth.GID)
		body.Uint32(uint32(len(s.auth.Groups)))
		for _, g := range s.auth.Groups {
			body.Uint32(g)
		}
	}
	e.Opaque(body.Bytes())
	e.Uint32(rpc.AuthNone)
	e.Opaque(nil)
	e.Raw(args)
	return e.Bytes()
}

// send delivers a record as the node would: to apply if it mutates, to a read otherwise. It returns the reply record.
func (s *server) send(record []byte) []byte {
	s.t.Helper()
	entry := volume.Entry{Kind: volume.EntryCall, Client: s.client, Rules: s.rules, Full: s.full, Payload: record}
	var req volume.Request
	if err := entry.Request(0, &req); err != nil {
		s.t.Fatal(err)
	}
	if s.p.Mutates(&req) {
		return s.apply(&entry)
	}
	req.Time = s.now
	reply := xdr.NewEncoder(nil)
	s.v.Read(&req, reply)
	return reply.Bytes()
}

// results strips the header of a reply and returns accept_stat and what follows.
func (s *server) results(reply []byte) (rpc.AcceptStat, []byte) {
	s.t.Helper()
	d := xdr.NewDecoder(reply)
	d.Uint32()
	if d.Uint32() != 1 || d.Uint32() != 0 || d.Uint32() != 0 || d.Uint32() != 0 {
		s.t.Fatalf("reply is not an accepted one: %x", reply)
	}
	stat := rpc.AcceptStat(d.Uint32())
	if d.Err() != nil {
		s.t.Fatal(d.Err())
	}
	return stat, d.Rest()
}

func encode(t testing.TB, args io.WriterTo) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := args.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// do makes a call and decodes the whole reply.
func do[R any](s *server, proc uint32, args io.WriterTo, read func(io.Reader) (R, int64, error)) R {
	s.t.Helper()
	s.xid++
	return decode(s, s.send(s.record(s.xid, proc, encode(s.t, args))), read)
}

func decode[R any](s *server, reply []byte, read func(io.Reader) (R, int64, error)) R {
	s.t.Helper()
	stat, results := s.results(reply)
	if stat != rpc.Success {
		s.t.Fatalf("accept_stat %d", stat)
	}
	r := bytes.NewReader(results)
	res, _, err := read(r)
	if err != nil {
		s.t.Fatalf("reply %x: %v", results, err)
	}
	if r.Len() > 0 {
		s.t.Fatalf("%d bytes follow the reply", r.Len())
	}
	return res
}

// root returns the handle of an export's root.
func (s *server) root(path string) nfsv3.NfsFh3 {
	s.t.Helper()
	for _, e := range s.v.Exports() {
		if e.Path == path {
			h := volume.EncodeHandle(volume.Handle{Volume: testVolume, Export: e.ID, Ino: e.Root, Gen: s.inode(e.Root).Gen})
			return nfsv3.NfsFh3{Data: h[:]}
		}
	}
	s.t.Fatalf("no export %s", path)
	return nfsv3.NfsFh3{}
}

// inode returns an inode as it is in the volume.
func (s *server) inode(ino volume.Ino) *volume.Inode {
	s.t.Helper()
	var n *volume.Inode
	s.v.View(func(tx *volume.Tx) {
		var errno volume.Errno
		if n, errno = tx.Inode(ino, 0); errno != volume.OK {
			s.t.Fatalf("inode %d: %v", ino, errno)
		}
	})
	return n
}

func in(dir nfsv3.NfsFh3, name string) nfsv3.Diropargs3 {
	return nfsv3.Diropargs3{Dir: dir, Name: name}
}

// attrs is what a sattr3 may say; nil leaves as it is.
type attrs struct {
	mode, uid, gid *uint32
	size           *uint64
	atime, mtime   *nfsv3.Nfstime3
	now            bool // both times, by the server's clock
}

func p32(v uint32) *uint32 { return &v }
func p64(v uint64) *uint64 { return &v }

func (a attrs) sattr() nfsv3.Sattr3 {
	s := nfsv3.Sattr3{
		Mode: &nfsv3.SetMode3_default{}, Uid: &nfsv3.SetUid3_default{}, Gid: &nfsv3.SetGid3_default{}, Size: &nfsv3.SetSize3_default{},
		Atime: &nfsv3.SetAtime_default{}, Mtime: &nfsv3.SetMtime_default{},
	}
	if a.mode != nil {
		s.Mode = &nfsv3.SetMode3_TRUE{Mode: *a.mode}
	}
	if a.uid != nil {
		s.Uid = &nfsv3.SetUid3_TRUE{Uid: *a.uid}
	}
	if a.gid != nil {
		s.Gid = &nfsv3.SetGid3_TRUE{Gid: *a.gid}
	}
	if a.size != nil {
		s.Size = &nfsv3.SetSize3_TRUE{Size: *a.size}
	}
	if a.now {
		s.Atime, s.Mtime = &nfsv3.SetAtime_default{SetIt: nfsv3.SET_TO_SERVER_TIME}, &nfsv3.SetMtime_default{SetIt: nfsv3.SET_TO_SERVER_TIME}
	}
	if a.atime != nil {
		s.Atime = &nfsv3.SetAtime_SET_TO_CLIENT_TIME{Atime: *a.atime}
	}
	if a.mtime != nil {
		s.Mtime = &nfsv3.SetMtime_SET_TO_CLIENT_TIME{Mtime: *a.mtime}
	}
	return s
}

// Short forms of the calls that tests need to get somewhere.

func (s *server) createHow(dir nfsv3.NfsFh3, name string, how nfsv3.Createhow3) nfsv3.Create3res {
	s.t.Helper()
	return do(s, procCreate, &nfsv3.Create3args{Where: in(dir, name), How: how}, nfsv3.ReadCreate3res)
}

// create makes a file and returns its handle.
func (s *server) create(dir nfsv3.NfsFh3, name string, a attrs) nfsv3.NfsFh3 {
	s.t.Helper()
	res := s.createHow(dir, name, &nfsv3.Createhow3_GUARDED{ObjAttributes: a.sattr()})
	ok, is := res.(*nfsv3.Create3res_NFS3_OK)
	if !is {
		s.t.Fatalf("CREATE %s: status %d", name, res.GetStatus())
	}
	return ok.Resok.Obj.(*nfsv3.PostOpFh3_TRUE).Handle
}

func (s *server) mkdir(dir nfsv3.NfsFh3, name string) nfsv3.NfsFh3 {
	s.t.Helper()
	res := do(s, procMkdir, &nfsv3.Mkdir3args{Where: in(dir, name), Attributes: attrs{mode: p32(0o755)}.sattr()}, nfsv3.ReadMkdir3res)
	ok, is := res.(*nfsv3.Mkdir3res_NFS3_OK)
	if !is {
		s.t.Fatalf("MKDIR %s: status %d", name, res.GetStatus())
	}
	return ok.Resok.Obj.(*nfsv3.PostOpFh3_TRUE).Handle
}

func (s *server) lookup(dir nfsv3.NfsFh3, name string) nfsv3.Lookup3res {
	s.t.Helper()
	return do(s, procLookup, &nfsv3.Lookup3args{What: in(dir, name)}, nfsv3.ReadLookup3res)
}

func (s *server) write(file nfsv3.NfsFh3, off uint64, data []byte) nfsv3.Write3res {
	s.t.Helper()
	return do(s, procWrite, &nfsv3.Write3args{File: file, Offset: off, Count: uint32(len(data)), Data: data}, nfsv3.ReadWrite3res)
}

func (s *server) read(file nfsv3.NfsFh3, off uint64, count uint32) nfsv3.Read3res {
	s.t.Helper()
	return do(s, procRead, &nfsv3.Read3args{File: file, Offset: off, Count: count}, nfsv3.ReadRead3res)
}

// getattr returns the attributes, or fails the test.
func (s *server) getattr(h nfsv3.NfsFh3) nfsv3.Fattr3 {
	s.t.Helper()
	res := do(s, procGetAttr, &nfsv3.Getattr3args{Object: h}, nfsv3.ReadGetattr3res)
	ok, is := res.(*nfsv3.Getattr3res_NFS3_OK)
	if !is {
		s.t.Fatalf("GETATTR: status %d", res.GetStatus())
	}
	return ok.Resok.ObjAttributes
}

func (s *server) setattr(h nfsv3.NfsFh3, a attrs, guard *nfsv3.Nfstime3) nfsv3.Setattr3res {
	s.t.Helper()
	args := &nfsv3.Setattr3args{Object: h, NewAttributes: a.sattr(), Guard: &nfsv3.Sattrguard3_FALSE{}}
	if guard != nil {
		args.Guard = &nfsv3.Sattrguard3_TRUE{ObjCtime: *guard}
	}
	return do(s, procSetAttr, args, nfsv3.ReadSetattr3res)
}

// as runs fn with other AUTH_SYS credentials.
func (s *server) as(uid, gid uint32, fn func()) {
	before := s.auth
	s.auth = rpc.Auth{Flavor: rpc.AuthSys, UID: uid, GID: gid}
	defer func() { s.auth = before }()
	fn()
}

// wantStatus checks a status.
func wantStatus(t testing.TB, what string, got interface{ GetStatus() nfsv3.Nfsstat3 }, want status) {
	t.Helper()
	if uint32(got.GetStatus()) != uint32(want) {
		t.Errorf("%s: status %d, want %d", what, got.GetStatus(), want)
	}
}

// wantWcc checks that wcc_data shows a change: both sides are there, and differ in ctime if and only if changed.
func wantWcc(t testing.TB, what string, w nfsv3.WccData, changed bool) {
	t.Helper()
	before, ok := w.Before.(*nfsv3.PreOpAttr_TRUE)
	after, ok2 := w.After.(*nfsv3.PostOpAttr_TRUE)
	if !ok || !ok2 {
		t.Errorf("%s: wcc_data lacks attributes", what)
		return
	}
	if got := before.Attributes.Ctime != after.Attributes.Ctime; got != changed {
		t.Errorf("%s: ctime changed: %v, want %v", what, got, changed)
	}
}
