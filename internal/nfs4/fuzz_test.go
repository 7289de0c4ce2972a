package nfs4

import (
	"bytes"
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/buildbarn/go-xdr/pkg/protocols/nfsv4"

	"holdfast/internal/rpc"
	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

// fuzzServer is a server with a client, a file and a directory. Everything about it is the same each time, so seeds can hold its session and handles.
func fuzzServer(t testing.TB) (*client, []byte) {
	s := newServer(t)
	c := s.newClient("fuzz")
	fh := c.create("f", "content")
	c.ok(putfh(c.data()), mkdir("d", 0o755))
	return c, fh
}

// fuzzSeeds are the argument bytes of compounds that reach every operation.
func fuzzSeeds(t testing.TB) [][]byte {
	c, fh := fuzzServer(t)
	dir := c.data()
	var seeds [][]byte
	alone := func(ops ...nfsv4.NfsArgop4) { seeds = append(seeds, encodeCompound(t, 2, ops)) }
	in := func(ops ...nfsv4.NfsArgop4) {
		seq := c.sequence()
		c.seq-- // each seed runs on a server of its own
		alone(append([]nfsv4.NfsArgop4{seq}, ops...)...)
	}
	all := attrsSupported42.without(attrsWriteOnly)
	getAll := &nfsv4.NfsArgop4_OP_GETATTR{Opgetattr: nfsv4.Getattr4args{AttrRequest: all[:]}}
	sid := nfsv4.Stateid4{}
	alone(exchangeID("other", [8]byte{2}, 0))
	alone(createSession(c.id, 2))
	alone(&nfsv4.NfsArgop4_OP_DESTROY_SESSION{OpdestroySession: nfsv4.DestroySession4args{DsaSessionid: c.session}})
	alone(&nfsv4.NfsArgop4_OP_BIND_CONN_TO_SESSION{OpbindConnToSession: nfsv4.BindConnToSession4args{BctsaSessid: c.session, BctsaDir: 7}})
	alone(&nfsv4.NfsArgop4_OP_DESTROY_CLIENTID{OpdestroyClientid: nfsv4.DestroyClientid4args{DcaClientid: c.id}})
	in(putrootfh(), getfh(), getAll, lookup("data"), lookupp())
	in(putfh(fh), getAll, read(sid, 0, 100), &nfsv4.NfsArgop4_OP_COMMIT{}, &nfsv4.NfsArgop4_OP_SEEK{}, &nfsv4.NfsArgop4_OP_IO_ADVISE{})
	in(putfh(dir), readdirOp(0, 1000, 4000, attrType, attrFilehandle, attrRdattrError), &nfsv4.NfsArgop4_OP_ACCESS{Opaccess: nfsv4.Access4args{Access: 63}})
	in(putfh(dir), savefh(), open("o", "new", 3, 0, exclusive41(1, modeAttr(0o600))), write(nfsv4.Stateid4{Seqid: 1}, 0, "data"), lock(4, 0, 10, nfsv4.Stateid4{Seqid: 1}, "l"),
		locku(0, 5, nfsv4.Stateid4{Seqid: 1}), &nfsv4.NfsArgop4_OP_RESTOREFH{}, rename("new", "old"), remove("old"))
	in(putfh(dir), open("o", "f", 3, 0, unchecked(sizeAttr(0))), closeOp(nfsv4.Stateid4{Seqid: 1}))
	in(putfh(fh), setattr(sid, modeAttr(0o600)), setattr(sid, sizeAttr(9)), savefh(), putfh(dir), &nfsv4.NfsArgop4_OP_LINK{Oplink: nfsv4.Link4args{Newname: "l"}}, remove("f"))
	in(putfh(dir), mkdir("e", 0o700), putfh(dir), &nfsv4.NfsArgop4_OP_CREATE{Opcreate: nfsv4.Create4args{Objtype: &nfsv4.Createtype4_NF4LNK{Linkdata: []byte("f")}, Objname: "s"}}, &nfsv4.NfsArgop4_OP_READLINK{})
	in(putfh(fh), &nfsv4.NfsArgop4_OP_ALLOCATE{Opallocate: nfsv4.Allocate4args{AaLength: 100}}, &nfsv4.NfsArgop4_OP_DEALLOCATE{Opdeallocate: nfsv4.Deallocate4args{DaLength: 3}})
	in(&nfsv4.NfsArgop4_OP_TEST_STATEID{OptestStateid: nfsv4.TestStateid4args{TsStateids: []nfsv4.Stateid4{sid}}}, &nfsv4.NfsArgop4_OP_FREE_STATEID{})
	in(&nfsv4.NfsArgop4_OP_BACKCHANNEL_CTL{OpbackchannelCtl: nfsv4.BackchannelCtl4args{BcaSecParms: []nfsv4.CallbackSecParms4{&nfsv4.CallbackSecParms4_AUTH_NONE{}}}})
	in(putfh(dir), &nfsv4.NfsArgop4_OP_SECINFO{Opsecinfo: nfsv4.Secinfo4args{Name: "f"}}, putfh(dir), &nfsv4.NfsArgop4_OP_GET_DIR_DELEGATION{}, &nfsv4.NfsArgop4_OP_SECINFO_NO_NAME{})
	in(putfh(fh), &nfsv4.NfsArgop4_OP_VERIFY{Opverify: nfsv4.Verify4args{ObjAttributes: sizeAttr(7)}}, &nfsv4.NfsArgop4_OP_NVERIFY{Opnverify: nfsv4.Nverify4args{ObjAttributes: sizeAttr(8)}})
	in(putfh(fh), &nfsv4.NfsArgop4_OP_LOCKT{Oplockt: nfsv4.Lockt4args{Locktype: 1, Length: 1}}, &nfsv4.NfsArgop4_OP_DELEGRETURN{})
	return seeds
}

// FuzzCompound executes arbitrary arguments on two replicas: no panic, the same reply and the same state on both, a reply of bounded length that go-xdr understands, and no change by
// what Mutates calls harmless.
func FuzzCompound(f *testing.F) {
	for _, seed := range fuzzSeeds(f) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, args []byte) {
		var replies [2][]byte
		var sums [2][32]byte
		for i := range replies {
			c, _ := fuzzServer(t)
			before := c.checksum()
			req := volume.Request{Client: testClient, Time: c.now, Rules: c.rules}
			if err := rpc.ParseCall(c.record(1, args), &req.Call); err != nil {
				t.Fatal(err)
			}
			mutates := c.p.Mutates(&req)
			if reply, done := NewFront(c.p, c.v, 0).Admit(nil, &req, mutates, 1); done && len(reply) == 0 {
				t.Error("the front has an empty answer")
			}
			c.v.View(func(tx *volume.Tx) { c.p.Warm(tx, &req) })
			replies[i] = c.execute(args)
			sums[i] = c.checksum()
			if !mutates && sums[i] != before {
				t.Error("a compound that was not logged changed the state")
			}
		}
		if !bytes.Equal(replies[0], replies[1]) || sums[0] != sums[1] {
			t.Fatalf("replicas differ: replies\n%x\n%x", replies[0], replies[1])
		}
		checkFuzzReply(t, replies[0])
	})
}

// checksum is a digest of the replica's metadata, which holds small files and the protocol state too.
func (s *server) checksum() (sum [32]byte) {
	s.t.Helper()
	snap, err := s.store.SnapshotMeta()
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() {
		if err := snap.Close(); err != nil {
			s.t.Error(err)
		}
	}()
	h := sha256.New()
	if _, err := snap.WriteTo(h); err != nil {
		s.t.Fatal(err)
	}
	h.Sum(sum[:0])
	return sum
}

// execute is raw without its checks: it returns the whole reply record.
func (s *server) execute(args []byte) []byte {
	record := s.record(1, args)
	req := volume.Request{Client: testClient, Time: s.now, Rules: s.rules}
	if err := rpc.ParseCall(record, &req.Call); err != nil {
		s.t.Fatal(err)
	}
	if s.p.Mutates(&req) {
		return s.apply(&volume.Entry{Kind: volume.EntryCall, Client: testClient, Rules: s.rules, Random: 42, Payload: record})
	}
	var e xdr.Encoder
	s.v.Read(&req, &e)
	return e.Bytes()
}

func checkFuzzReply(t *testing.T, reply []byte) {
	if len(reply) > 1<<20+8192 {
		t.Errorf("reply of %d bytes", len(reply))
	}
	_, results, err := rpc.ParseReply(reply)
	if err != nil {
		return // GARBAGE_ARGS
	}
	var res nfsv4.Compound4res
	r := bytes.NewReader(results)
	if _, err := res.ReadFrom(r); err != nil {
		if strings.Contains(err.Error(), "UTF-8") { // go-xdr wants names and tags to be; we do not
			return
		}
		t.Fatalf("go-xdr cannot read the reply %x: %v", results, err)
	}
	if r.Len() != 0 {
		t.Fatalf("%d bytes after the reply %x", r.Len(), results)
	}
	for _, op := range res.Resarray {
		if statusOf(t, op) == volume.ErrServerFault {
			t.Fatalf("NFS4ERR_SERVERFAULT in %x", results)
		}
	}
	var again bytes.Buffer
	if _, err := res.WriteTo(&again); err != nil || !bytes.Equal(again.Bytes(), results) {
		t.Fatalf("go-xdr writes the reply differently:\n%x\n%x", results, again.Bytes())
	}
}

// Every seed must reach what it is there for: a success, so that the fuzzer starts behind the checks.
func TestFuzzSeedsRun(t *testing.T) {
	seen := map[uint32]bool{}
	for _, seed := range fuzzSeeds(t) {
		c, _ := fuzzServer(t)
		_, results, err := rpc.ParseReply(c.execute(seed))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range c.decode(results).Resarray {
			seen[uint32(r.GetResop())] = true
		}
	}
	for op := range opTable {
		if info := opTable[op]; info.run != nil && info.flags&opRefused == 0 && !seen[uint32(op)] && op != 23 && op != 21 && op != 58 {
			t.Errorf("no seed reaches %s", info.name)
		}
	}
}
