package nfs4

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/buildbarn/go-xdr/pkg/protocols/nfsv4"

	"holdfast/internal/nfs4/state"
	"holdfast/internal/rpc"
	"holdfast/internal/store"
	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

// The paths that Linux takes thousands of times a second allocate nothing.
func TestReadPathDoesNotAllocate(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	fh := c.create("f", string(make([]byte, 8192))) // larger than what lies in the metadata
	for name, ops := range map[string][]nfsv4.NfsArgop4{
		"GETATTR": {putfh(fh), getattr(attrType, attrChange, attrSize, attrFSID, attrFileID, attrMode, attrOwner, attrTimeModify, attrMountedOnFileID)},
		"ACCESS":  {putfh(fh), &nfsv4.NfsArgop4_OP_ACCESS{Opaccess: nfsv4.Access4args{Access: 63}}},
		"READ":    {putfh(fh), read(nfsv4.Stateid4{}, 0, 4096)},
	} {
		req := volume.Request{Client: testClient, Time: s.now, Rules: s.rules}
		if err := rpc.ParseCall(s.record(1, encodeCompound(t, 2, append([]nfsv4.NfsArgop4{c.sequence()}, ops...))), &req.Call); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 0, 16<<10)
		var e xdr.Encoder
		allocs := testing.AllocsPerRun(100, func() {
			e.Reset(buf)
			if !s.p.Mutates(&req) {
				s.v.Read(&req, &e)
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations", name, allocs)
		}
	}
}

func TestMoreOperationsCountedThanSent(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	args := encodeCompound(t, 2, []nfsv4.NfsArgop4{c.sequence(), putrootfh()})
	const countAt = 4 + 4 + 4 // behind the tag and the minor version
	binary.BigEndian.PutUint32(args[countAt:], 3)
	res := s.decode(s.raw(args))
	if status(res.Status) != errBadXDR || len(res.Resarray) != 3 {
		t.Errorf("status %d, %d results", res.Status, len(res.Resarray))
	}
}

func TestProcedures(t *testing.T) {
	s := newServer(t)
	for proc, want := range map[uint32]rpc.AcceptStat{0: rpc.Success, 1: rpc.GarbageArgs, 2: rpc.ProcUnavail} {
		req := volume.Request{Call: rpc.Call{Proc: proc}}
		s.v.View(func(tx *volume.Tx) {
			if got := s.p.Execute(tx, &req, new(xdr.Encoder)); got != want {
				t.Errorf("procedure %d: %d, want %d", proc, got, want)
			}
		})
	}
}

func TestWantedDelegations(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	c.create("f", "")
	for want, why := range map[uint32]nfsv4.WhyNoDelegation4{0x100: whyResource, 0x300: whyResource, wantNoDeleg: whyNotWanted, wantCancel: whyCancelled} {
		ok := openOf(c.ok(putfh(c.data()), open("o", "f", 1|want, 0, noCreate()))[1])
		none, is := ok.Delegation.(*nfsv4.OpenDelegation4_OPEN_DELEGATE_NONE_EXT)
		if !is || none.OdWhynone.GetOndWhy() != why {
			t.Errorf("want %#x: %#v, want reason %d", want, ok.Delegation, why)
		}
	}
}

func TestSecinfo(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	secinfo := func(name string) nfsv4.NfsArgop4 {
		return &nfsv4.NfsArgop4_OP_SECINFO{Opsecinfo: nfsv4.Secinfo4args{Name: name}}
	}
	res := c.ok(putrootfh(), secinfo("data"))
	flavors := res[1].(*nfsv4.NfsResop4_OP_SECINFO).Opsecinfo.(*nfsv4.Secinfo4res_NFS4_OK).Resok4
	if len(flavors) != 2 || flavors[0].GetFlavor() != rpc.AuthSys {
		t.Errorf("flavours %v, want AUTH_SYS first", flavors)
	}
	parent := &nfsv4.NfsArgop4_OP_SECINFO_NO_NAME{OpsecinfoNoName: 1}
	c.ok(putfh(c.data()), parent)
	c.want(volume.ErrNoEnt, putrootfh(), parent)
	c.want(volume.ErrNoEnt, putrootfh(), secinfo("missing"))
	c.want(errNoFileHandle, putrootfh(), secinfo("data"), getfh()) // it consumes the filehandle
}

func TestExchangeIDProtection(t *testing.T) {
	s := newServer(t)
	for _, tc := range []struct {
		protect nfsv4.StateProtect4A
		want    status
	}{
		{&nfsv4.StateProtect4A_SP4_MACH_CRED{}, errInval},
		{&nfsv4.StateProtect4A_SP4_SSV{SpaSsvParms: nfsv4.SsvSpParms4{SspHashAlgs: [][]byte{{1}}, SspEncrAlgs: [][]byte{{2}}}}, errEncrAlgUnsupp},
	} {
		op := exchangeID("a", [8]byte{1}, 0).(*nfsv4.NfsArgop4_OP_EXCHANGE_ID)
		op.OpexchangeId.EiaStateProtect = tc.protect
		if got := status(s.compound(2, op).Status); got != tc.want {
			t.Errorf("%T: status %d, want %d", tc.protect, got, tc.want)
		}
	}
}

func TestCallbackSecurity(t *testing.T) {
	var e xdr.Encoder
	e.Uint32(2) // offers
	e.Uint32(rpc.AuthGSS)
	e.Uint32(1)
	e.Opaque([]byte("server"))
	e.Opaque([]byte("client"))
	e.Uint32(rpc.AuthSys)
	e.Uint32(99)
	e.String("machine")
	e.Uint32(1)
	e.Uint32(2)
	e.Uint32(1)
	e.Uint32(3)
	d := xdr.NewDecoder(e.Bytes())
	var sec callbackSec
	sec.decode(d)
	if d.Err() != nil || d.Remaining() != 0 || !sec.usable {
		t.Fatalf("%v, %d bytes left, usable %v", d.Err(), d.Remaining(), sec.usable)
	}
	minor, auth := decodeCallbackSec(sec.encode(1))
	if minor != 1 || auth.Flavor != rpc.AuthSys || auth.Machine != "machine" || auth.UID != 1 || auth.GID != 2 || len(auth.Groups) != 1 || auth.Groups[0] != 3 {
		t.Errorf("minor version %d, credential %+v", minor, auth)
	}
}

// reclaimer is a client that starts over after a restore.
func (s *server) reclaimer(owner string) *client {
	ok := s.compound(2, exchangeID(owner, [8]byte{1}, 0)).Resarray[0].(*nfsv4.NfsResop4_OP_EXCHANGE_ID).OpexchangeId.(*nfsv4.ExchangeId4res_NFS4_OK).EirResok4
	c := &client{server: s, minor: 2, id: ok.EirClientid}
	res := s.compound(2, createSession(c.id, ok.EirSequenceid))
	c.session = res.Resarray[0].(*nfsv4.NfsResop4_OP_CREATE_SESSION).OpcreateSession.(*nfsv4.CreateSession4res_NFS4_OK).CsrResok4.CsrSessionid
	return c
}

func reclaimOpen(owner string) *nfsv4.NfsArgop4_OP_OPEN {
	return &nfsv4.NfsArgop4_OP_OPEN{Opopen: nfsv4.Open4args{
		ShareAccess: 3, Owner: nfsv4.StateOwner4{Owner: []byte(owner)}, Openhow: noCreate(), Claim: &nfsv4.OpenClaim4_CLAIM_PREVIOUS{},
	}}
}

func restoredEntry() *volume.Entry {
	return &volume.Entry{Kind: volume.EntryRestored, Random: 99, Payload: make([]byte, 8)}
}

// A grace period ends by itself, and what nobody reclaimed goes with it: files without a name, even those that lost it meanwhile.
func TestGraceEndsInTime(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	kept, lost, late := c.create("kept", "1"), c.create("lost", "2"), c.create("late", "3")
	for _, name := range []string{"kept", "lost", "late"} {
		c.ok(putfh(c.data()), open("o", name, 3, 0, noCreate()))
	}
	c.ok(putfh(c.data()), remove("kept"))
	c.ok(putfh(c.data()), remove("lost"))
	s.apply(restoredEntry())
	s.open() // the grace period outlives a restart
	other := s.reclaimer("b")
	other.ok(&nfsv4.NfsArgop4_OP_RECLAIM_COMPLETE{})
	other.ok(putfh(other.data()), remove("late"))
	again := s.reclaimer("a")
	again.ok(putfh(kept), reclaimOpen("o"))
	other.want(state.ErrGrace, putfh(other.data()), open("o", "new", 2, 0, unchecked(nfsv4.Fattr4{})))
	s.open()
	s.now += graceLeases * int64(DefaultLease)
	other.ok(putfh(other.data()), open("o", "new", 2, 0, unchecked(nfsv4.Fattr4{})))
	other.ok(putfh(kept), getattr())
	other.want(volume.ErrStale, putfh(lost), getattr())
	other.want(volume.ErrStale, putfh(late), getattr())
	again.want(errNoGrace, putfh(kept), reclaimOpen("another"))
}

// TestReclaimAfterCopy goes all the way: the state is copied, restored elsewhere, and the clients find their files by the handles that they have.
func TestReclaimAfterCopy(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	fh := c.create("f", "content")
	sid := openOf(c.ok(putfh(c.data()), open("o", "f", 3, 0, noCreate()))[1]).Stateid
	c.ok(putfh(fh), lock(nfsv4.WRITE_LT, 0, 10, sid, "l"))

	cp, err := s.v.BeginCopy(0, func(*volume.Piece) {})
	if err != nil {
		t.Fatal(err)
	}
	mem := store.NewMem()
	out, err := volume.NewRestorer(mem)
	if err == nil {
		err = cp.Objects(t.Context(), out.Put)
	}
	if err != nil {
		t.Fatal(err)
	}
	index, err := cp.Finish()
	if err == nil {
		err = cp.Metadata(t.Context(), out.Put)
	}
	if err = errors.Join(err, cp.Close(), out.EndPart(index)); err != nil {
		t.Fatal(err)
	}
	c.ok(putfh(c.data()), remove("f")) // of this the backup knows nothing

	s.store, s.p = mem, New(Config{Volume: testVolume, Name: "test"})
	if s.v, err = out.Finish(volume.Config{ID: testVolume, Name: "test", Programs: []volume.Program{s.p}}, s.now, 5); err != nil {
		t.Fatal(err)
	}
	if st := status(c.do(putrootfh()).Status); st != errBadSession {
		t.Fatalf("old session: status %d, want NFS4ERR_BADSESSION", st)
	}
	again, other := s.reclaimer("a"), s.reclaimer("b")
	other.ok(&nfsv4.NfsArgop4_OP_RECLAIM_COMPLETE{})
	other.want(state.ErrGrace, putfh(other.data()), open("o", "f", 1, 0, noCreate()))
	sid = openOf(again.ok(putfh(fh), reclaimOpen("o"))[1]).Stateid
	l := lock(nfsv4.WRITE_LT, 0, 10, sid, "l").(*nfsv4.NfsArgop4_OP_LOCK)
	l.Oplock.Reclaim = true
	again.ok(putfh(fh), l)
	if data, _ := dataOf(again.ok(putfh(fh), read(sid, 0, 100))[1]); data != "content" {
		t.Errorf("read %q", data)
	}
	again.ok(&nfsv4.NfsArgop4_OP_RECLAIM_COMPLETE{})
	sid = openOf(other.ok(putfh(other.data()), open("o", "f", 3, 0, noCreate()))[1]).Stateid
	other.want(errDenied, putfh(fh), lock(nfsv4.WRITE_LT, 5, 1, sid, "l"))
}

// After a restore from a backup clients start over and reclaim their opens; others wait until that is done.
func TestReclaimAfterRestore(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	fh := c.create("f", "content")
	c.ok(putfh(c.data()), open("o", "f", 3, 0, noCreate()))
	s.apply(restoredEntry())
	if st := status(c.do(putrootfh()).Status); st != errBadSession {
		t.Fatalf("old session: status %d, want NFS4ERR_BADSESSION", st)
	}
	again, other := s.reclaimer("a"), s.reclaimer("b")
	other.ok(&nfsv4.NfsArgop4_OP_RECLAIM_COMPLETE{})
	other.want(state.ErrGrace, putfh(other.data()), open("o", "f", 1, 0, noCreate()))
	other.want(state.ErrGrace, putfh(other.data()), open("o", "new", 2, 0, unchecked(nfsv4.Fattr4{})))
	other.want(volume.ErrNoEnt, putfh(other.data()), lookup("new")) // an OPEN that fails leaves no file
	again.ok(putfh(fh), reclaimOpen("o"))
	again.ok(&nfsv4.NfsArgop4_OP_RECLAIM_COMPLETE{})
	other.ok(putfh(other.data()), open("o", "f", 1, 0, noCreate()))
	s.apply(commandEntry(EndGraceCommand()))
	if err := s.p.Command(nil, []byte{77}); err == nil {
		t.Error("a command of unknown kind was accepted")
	}
}
