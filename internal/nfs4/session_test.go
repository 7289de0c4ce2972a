package nfs4

import (
	"bytes"
	"testing"

	"github.com/buildbarn/go-xdr/pkg/protocols/nfsv4"

	"holdfast/internal/nfs4/state"
)

func TestMountLikeLinux(t *testing.T) {
	s := newServer(t)
	c := s.newClient("linux")
	res := c.ok(putrootfh(), getfh(), getattr(attrSupportedAttrs, attrType, attrFSID, attrLeaseTime))
	if len(fhOf(res[1])) != 28 {
		t.Errorf("root handle %x", fhOf(res[1]))
	}
	c.ok(putrootfh(), &nfsv4.NfsArgop4_OP_SECINFO_NO_NAME{})
	fh := c.create("f", "hello")
	if got, eof := dataOf(c.ok(putfh(fh), read(nfsv4.Stateid4{}, 0, 100))[1]); got != "hello" || !eof {
		t.Errorf("read %q, eof %v", got, eof)
	}
}

// A retry of a request that mutated gets the recorded reply, byte for byte, and changes nothing; also after the replica was restarted.
func TestExactlyOnce(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	dir := c.data()
	args := encodeCompound(t, 2, []nfsv4.NfsArgop4{c.sequence(), putfh(dir), mkdir("d", 0o755), getfh()})
	first := s.raw(args)
	if st := status(s.decode(first).Status); st != statusOK {
		t.Fatal(st)
	}
	count := func() int { return len(entriesOf(c.ok(putfh(dir), readdirOp(0, 8192, 8192))[1])) }
	if again := s.raw(args); !bytes.Equal(again, first) {
		t.Errorf("retry answers\n%x, first was\n%x", again, first)
	}
	s.open()
	if again := s.raw(args); !bytes.Equal(again, first) {
		t.Errorf("retry after a restart answers\n%x, first was\n%x", again, first)
	}
	if n := count(); n != 1 {
		t.Errorf("%d entries, want 1", n)
	}
	// The same number with other operations is no retry (RFC 8881 section 2.10.6.1.3.1).
	c.seq -= 2
	c.want(errSeqFalseRetry, putfh(dir), mkdir("e", 0o755), getfh())
}

func TestCompoundRules(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	seq := func() nfsv4.NfsArgop4 { return c.sequence() }
	badSession := &nfsv4.NfsArgop4_OP_SEQUENCE{Opsequence: nfsv4.Sequence4args{SaSequenceid: 1}}
	badSlot := &nfsv4.NfsArgop4_OP_SEQUENCE{Opsequence: nfsv4.Sequence4args{SaSessionid: c.session, SaSequenceid: 1, SaSlotid: 64}}
	destroy := &nfsv4.NfsArgop4_OP_DESTROY_SESSION{OpdestroySession: nfsv4.DestroySession4args{DsaSessionid: c.session}}
	bind := &nfsv4.NfsArgop4_OP_BIND_CONN_TO_SESSION{OpbindConnToSession: nfsv4.BindConnToSession4args{BctsaSessid: c.session, BctsaDir: 3}}
	many := []nfsv4.NfsArgop4{seq()}
	for range 16 {
		many = append(many, putrootfh())
	}
	for _, tc := range []struct {
		name    string
		minor   uint32
		ops     []nfsv4.NfsArgop4
		want    status
		results int
	}{
		{"minor 0", 0, []nfsv4.NfsArgop4{putrootfh()}, errMinorVersMismatch, 0},
		{"minor 3", 3, []nfsv4.NfsArgop4{seq()}, errMinorVersMismatch, 0},
		{"no operations", 2, nil, statusOK, 0},
		{"no SEQUENCE", 2, []nfsv4.NfsArgop4{putrootfh()}, errOpNotInSession, 1},
		{"mutating, no SEQUENCE", 2, []nfsv4.NfsArgop4{remove("x")}, errOpNotInSession, 1},
		{"second SEQUENCE", 2, []nfsv4.NfsArgop4{seq(), putrootfh(), seq()}, errSequencePos, 3},
		{"EXCHANGE_ID not alone", 2, []nfsv4.NfsArgop4{exchangeID("b", [8]byte{}, 0), putrootfh()}, errNotOnlyOp, 1},
		{"CREATE_SESSION not alone", 2, []nfsv4.NfsArgop4{createSession(1, 1), putrootfh()}, errNotOnlyOp, 1},
		{"DESTROY_SESSION not alone", 2, []nfsv4.NfsArgop4{destroy, putrootfh()}, errNotOnlyOp, 1},
		{"DESTROY_SESSION of its own not last", 2, []nfsv4.NfsArgop4{seq(), destroy, putrootfh()}, errNotOnlyOp, 2},
		{"BIND_CONN_TO_SESSION after SEQUENCE", 2, []nfsv4.NfsArgop4{seq(), bind}, errNotOnlyOp, 2},
		{"BIND_CONN_TO_SESSION", 2, []nfsv4.NfsArgop4{bind}, statusOK, 1},
		{"unknown session", 2, []nfsv4.NfsArgop4{badSession, putrootfh()}, errBadSession, 1},
		{"slot out of range", 2, []nfsv4.NfsArgop4{badSlot, putrootfh()}, errBadSlot, 1},
		{"too many operations", 2, many, errTooManyOps, 1},
		{"4.2 operation in 4.1", 1, []nfsv4.NfsArgop4{seq(), &nfsv4.NfsArgop4_OP_SEEK{}}, errOpIllegal, 2},
		{"operation of 4.0", 2, []nfsv4.NfsArgop4{seq(), &nfsv4.NfsArgop4_OP_RENEW{}}, errNotSupp, 2},
		{"copy", 2, []nfsv4.NfsArgop4{seq(), &nfsv4.NfsArgop4_OP_CLONE{}}, errNotSupp, 2},
		{"layout", 2, []nfsv4.NfsArgop4{seq(), &nfsv4.NfsArgop4_OP_LAYOUTGET{Oplayoutget: nfsv4.Layoutget4args{LogaIomode: 1, LogaLayoutType: 1}}}, errLayoutUnavailable, 2},
		{"illegal", 2, []nfsv4.NfsArgop4{seq(), &nfsv4.NfsArgop4_OP_ILLEGAL{}}, errOpIllegal, 2},
		{"no filehandle", 2, []nfsv4.NfsArgop4{seq(), getfh()}, errNoFileHandle, 2},
		{"nothing saved", 2, []nfsv4.NfsArgop4{seq(), &nfsv4.NfsArgop4_OP_RESTOREFH{}}, errRestoreFH, 2},
		{"own client id", 2, []nfsv4.NfsArgop4{seq(), &nfsv4.NfsArgop4_OP_DESTROY_CLIENTID{OpdestroyClientid: nfsv4.DestroyClientid4args{DcaClientid: c.id}}}, errClientIDBusy, 2},
		{"DELEGRETURN", 2, []nfsv4.NfsArgop4{seq(), putrootfh(), &nfsv4.NfsArgop4_OP_DELEGRETURN{}}, errBadStateid, 3},
		{"GET_DIR_DELEGATION", 2, []nfsv4.NfsArgop4{seq(), putrootfh(), &nfsv4.NfsArgop4_OP_GET_DIR_DELEGATION{}}, statusOK, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			res := s.compound(tc.minor, tc.ops...)
			if status(res.Status) != tc.want || len(res.Resarray) != tc.results {
				t.Fatalf("status %d, %d results; want %d, %d", res.Status, len(res.Resarray), tc.want, tc.results)
			}
			if tc.results > 0 && statusOf(t, res.Resarray[tc.results-1]) != tc.want {
				t.Errorf("last result differs from the compound's status")
			}
		})
	}
}

func TestMalformedOperation(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	args := encodeCompound(t, 2, []nfsv4.NfsArgop4{c.sequence(), putrootfh(), remove("some name")})
	res := s.decode(s.raw(args[:len(args)-4]))
	if status(res.Status) != errBadXDR || len(res.Resarray) != 3 {
		t.Errorf("status %d, %d results; want NFS4ERR_BADXDR and 3", res.Status, len(res.Resarray))
	}
}

func TestCreateSessionReplay(t *testing.T) {
	s := newServer(t)
	ok := s.compound(2, exchangeID("a", [8]byte{1}, 0)).Resarray[0].(*nfsv4.NfsResop4_OP_EXCHANGE_ID).OpexchangeId.(*nfsv4.ExchangeId4res_NFS4_OK).EirResok4
	args := encodeCompound(t, 2, []nfsv4.NfsArgop4{createSession(ok.EirClientid, ok.EirSequenceid)})
	first := s.raw(args)
	if again := s.raw(args); !bytes.Equal(first, again) {
		t.Errorf("retry of CREATE_SESSION answers\n%x, first was\n%x", again, first)
	}
	bad := createSession(ok.EirClientid, ok.EirSequenceid+1).(*nfsv4.NfsArgop4_OP_CREATE_SESSION)
	bad.OpcreateSession.CsaFlags = 1 << 20
	for range 2 { // an error is recorded and replayed as well
		if st := status(s.compound(2, bad).Status); st != errInval {
			t.Errorf("unknown flag: status %d, want NFS4ERR_INVAL", st)
		}
	}
	if st := status(s.compound(2, createSession(ok.EirClientid, ok.EirSequenceid+2)).Status); st != statusOK {
		t.Errorf("next session: status %d", st)
	}
}

func TestExchangeIDAnswersAlike(t *testing.T) {
	args := encodeCompound(t, 2, []nfsv4.NfsArgop4{exchangeID("a", [8]byte{1}, 0)})
	a, b := newServer(t).raw(args), newServer(t).raw(args)
	if !bytes.Equal(a, b) {
		t.Errorf("two replicas answer\n%x\n%x", a, b)
	}
	s := newServer(t)
	if st := status(s.compound(2, exchangeID("a", [8]byte{1}, 1<<31)).Status); st != errInval {
		t.Errorf("CONFIRMED_R in a request: status %d, want NFS4ERR_INVAL", st)
	}
}

func TestReplyLimits(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	fh := c.create("f", string(make([]byte, 8192)))
	// What is read may be longer than the reply cache takes, as reads are not recorded.
	c.ok(putfh(fh), read(nfsv4.Stateid4{}, 0, 8192))
	// Next to a mutating operation it may not (ca_maxresponsesize_cached is 4096), and then nothing after it runs.
	c.want(errRepTooBigToCache, putfh(fh), read(nfsv4.Stateid4{}, 0, 8192), setattr(nfsv4.Stateid4{}, modeAttr(0o600)))
	c.cache = false
	c.ok(putfh(fh), read(nfsv4.Stateid4{}, 0, 8192), setattr(nfsv4.Stateid4{}, modeAttr(0o600)))
	c.cache = true
	// Many results of 64 KiB that exceed ca_maxresponsesize together.
	big := c.create("big", string(make([]byte, 1<<20)))
	ops := []nfsv4.NfsArgop4{putfh(big)}
	for range 3 {
		ops = append(ops, read(nfsv4.Stateid4{}, 0, 1<<20))
	}
	c.want(errRepTooBig, ops...)
}

func TestDestroy(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	destroyClient := &nfsv4.NfsArgop4_OP_DESTROY_CLIENTID{OpdestroyClientid: nfsv4.DestroyClientid4args{DcaClientid: c.id}}
	if st := status(s.compound(2, destroyClient).Status); st != errClientIDBusy {
		t.Errorf("DESTROY_CLIENTID with a session: status %d, want NFS4ERR_CLIENTID_BUSY", st)
	}
	c.ok(&nfsv4.NfsArgop4_OP_DESTROY_SESSION{OpdestroySession: nfsv4.DestroySession4args{DsaSessionid: c.session}})
	if st := status(c.do(putrootfh()).Status); st != errBadSession {
		t.Errorf("after DESTROY_SESSION: status %d, want NFS4ERR_BADSESSION", st)
	}
	if st := status(s.compound(2, destroyClient).Status); st != statusOK {
		t.Errorf("DESTROY_CLIENTID: status %d", st)
	}
}

// A client whose lease ran out loses its opens, and files that only it kept alive go.
func TestExpireCommand(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	res := c.ok(putfh(c.data()), open("o", "f", 3, 0, unchecked(nfsv4.Fattr4{})), getfh())
	fh, sid := fhOf(res[2]), openOf(res[1]).Stateid
	c.ok(putfh(c.data()), remove("f"))
	c.ok(putfh(fh), write(sid, 0, "still here"))
	expire := commandEntry(expireCommand(state.ClientID(c.id)))
	s.apply(expire)
	if st := status(c.do(putrootfh()).Status); st != errBadSession {
		t.Errorf("session of an expired client: status %d, want NFS4ERR_BADSESSION", st)
	}
	s.newClient("b").want(errStale, putfh(fh))
	s.apply(expire) // once more, too late: ignored
}
