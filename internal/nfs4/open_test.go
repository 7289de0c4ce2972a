package nfs4

import (
	"encoding/binary"
	"testing"

	"github.com/buildbarn/go-xdr/pkg/protocols/nfsv4"

	"holdfast/internal/nfs4/state"
	"holdfast/internal/rpc"
	"holdfast/internal/volume"
)

func TestOpenCreateModes(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	dir := c.data()
	c.create("existing", "content")
	mode := modeAttr(0o640)
	for _, tc := range []struct {
		name, file string
		how        nfsv4.Openflag4
		want       status
	}{
		{"no create, missing", "missing", noCreate(), volume.ErrNoEnt},
		{"no create, existing", "existing", noCreate(), statusOK},
		{"unchecked, existing", "existing", unchecked(mode), statusOK},
		{"unchecked, new", "new1", unchecked(mode), statusOK},
		{"guarded, existing", "existing", guarded(mode), volume.ErrExist},
		{"guarded, new", "new2", guarded(mode), statusOK},
		{"exclusive4, existing", "existing", exclusive(1), volume.ErrExist},
		{"exclusive4, new", "new3", exclusive(1), statusOK},
		{"exclusive4, again", "new3", exclusive(1), statusOK},
		{"exclusive4, other verifier", "new3", exclusive(2), volume.ErrExist},
		{"exclusive4_1, new", "new4", exclusive41(1, mode), statusOK},
		{"exclusive4_1, again", "new4", exclusive41(1, mode), statusOK},
		{"exclusive4_1, other verifier", "new4", exclusive41(2, mode), volume.ErrExist},
		{"empty name", "", unchecked(mode), errInval},
		{"dot", ".", unchecked(mode), errBadName},
		{"slash", "a/b", unchecked(mode), errBadChar},
		{"long name", string(make([]byte, 256)), unchecked(mode), volume.ErrNameTooLong},
		{"read-only attribute", "new5", unchecked(nfsv4.Fattr4{Attrmask: []uint32{1 << attrChange}, AttrVals: make([]byte, 8)}), errInval},
		{"unknown attribute", "new5", unchecked(nfsv4.Fattr4{Attrmask: []uint32{1 << 12}, AttrVals: make([]byte, 4)}), errAttrNotSupp},
		{"truncated attribute", "new5", unchecked(nfsv4.Fattr4{Attrmask: mode.Attrmask}), errBadXDR},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c.t = t
			s.t = t
			c.want(tc.want, putfh(dir), open("o", tc.file, 3, 0, tc.how))
		})
	}
	s.t = t
}

func TestOpenResult(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	dir := c.data()
	res := c.ok(putfh(dir), getattr(attrChange), open("o", "f", 1|wantNoDeleg, 0, exclusive41(1, modeAttr(0o4640))), getattr(attrMode), savefh(), putfh(dir), getattr(attrChange))
	ok := openOf(res[2])
	if ok.Stateid.Seqid != 1 || !ok.Cinfo.Atomic || ok.Rflags != openResultFlags {
		t.Errorf("result %+v", ok)
	}
	if before, after := uintAttr(t, attrsOf(res[1])), uintAttr(t, attrsOf(res[6])); ok.Cinfo.Before != before || ok.Cinfo.After != after || before == after {
		t.Errorf("change_info %+v, directory went from %d to %d", ok.Cinfo, before, after)
	}
	if len(ok.Attrset) != 2 || ok.Attrset[1] != 1<<(attrMode-32) {
		t.Errorf("attrset %x, want mode", ok.Attrset)
	}
	if mode := uintAttr(t, attrsOf(res[3])); mode != 0o4640 {
		t.Errorf("mode %o, want 4640", mode)
	}
	none, isNone := ok.Delegation.(*nfsv4.OpenDelegation4_OPEN_DELEGATE_NONE_EXT)
	if !isNone || none.OdWhynone.GetOndWhy() != whyNotWanted {
		t.Errorf("delegation %#v, want none because none was wanted", ok.Delegation)
	}
	plain := openOf(c.ok(putfh(dir), open("o", "f", 1, 0, noCreate()))[1])
	if _, isNone := plain.Delegation.(*nfsv4.OpenDelegation4_OPEN_DELEGATE_NONE); !isNone || plain.Stateid.Other != ok.Stateid.Other || plain.Stateid.Seqid != 2 {
		t.Errorf("second open %+v, want the same state with seqid 2 and no delegation", plain)
	}
}

func TestOpenTruncates(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	fh := c.create("f", "content")
	dir := c.data()
	size := func() uint64 { return uintAttr(t, attrsOf(c.ok(putfh(fh), getattr(attrSize))[1])) }
	sid := openOf(c.ok(putfh(dir), open("o", "f", 2, 0, unchecked(sizeAttr(3))))[1]).Stateid
	c.ok(putfh(fh), closeOp(sid))
	if size() != 7 {
		t.Errorf("size %d after UNCHECKED with a size that is not zero, want 7", size())
	}
	// A share reservation in the way leaves the content alone.
	c.ok(putfh(dir), open("denier", "f", 1, 2, noCreate()))
	c.want(errShareDenied, putfh(dir), open("o", "f", 2, 0, unchecked(sizeAttr(0))))
	if size() != 7 {
		t.Errorf("size %d after a denied open, want 7", size())
	}
}

func TestOpenClaims(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	fh := c.create("f", "content")
	claim := func(cl nfsv4.OpenClaim4) nfsv4.NfsArgop4 {
		return &nfsv4.NfsArgop4_OP_OPEN{Opopen: nfsv4.Open4args{ShareAccess: 1, Owner: nfsv4.StateOwner4{Owner: []byte("o")}, Openhow: noCreate(), Claim: cl}}
	}
	res := c.ok(putfh(fh), claim(&nfsv4.OpenClaim4_CLAIM_FH{}), read(nfsv4.Stateid4{Seqid: 1}, 0, 100)) // the current stateid
	if got, _ := dataOf(res[2]); got != "content" {
		t.Errorf("read %q under the current stateid", got)
	}
	c.want(errNoGrace, putfh(fh), claim(&nfsv4.OpenClaim4_CLAIM_PREVIOUS{}))
	c.want(errBadStateid, putfh(fh), claim(&nfsv4.OpenClaim4_CLAIM_DELEG_CUR_FH{}))
	c.want(errNotSupp, putfh(fh), claim(&nfsv4.OpenClaim4_CLAIM_DELEG_PREV_FH{}))
	c.want(errBadStateid, putfh(c.data()), claim(&nfsv4.OpenClaim4_CLAIM_DELEGATE_CUR{DelegateCurInfo: nfsv4.OpenClaimDelegateCur4{File: "f"}}))
	c.want(errNotSupp, putfh(c.data()), claim(&nfsv4.OpenClaim4_CLAIM_DELEGATE_PREV{FileDelegatePrev: "f"}))
	c.want(volume.ErrIsDir, putfh(c.data()), claim(&nfsv4.OpenClaim4_CLAIM_FH{}))
	c.want(errBadStateid, putfh(fh), read(nfsv4.Stateid4{Seqid: 1}, 0, 100)) // no current stateid
}

func TestOpenOfWhatIsNoFile(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	dir := c.data()
	c.ok(putfh(dir), mkdir("d", 0o755))
	c.ok(putfh(dir), &nfsv4.NfsArgop4_OP_CREATE{Opcreate: nfsv4.Create4args{Objtype: &nfsv4.Createtype4_NF4LNK{Linkdata: []byte("t")}, Objname: "l"}})
	c.ok(putfh(dir), &nfsv4.NfsArgop4_OP_CREATE{Opcreate: nfsv4.Create4args{Objtype: &nfsv4.Createtype4_NF4FIFO{}, Objname: "p"}})
	c.want(volume.ErrIsDir, putfh(dir), open("o", "d", 1, 0, noCreate()))
	c.want(volume.ErrSymlink, putfh(dir), open("o", "l", 1, 0, noCreate()))
	c.want(volume.ErrSymlink, putfh(dir), open("o", "p", 1, 0, noCreate()))
	c.want(volume.ErrIsDir, putrootfh(), open("o", "data", 1, 0, noCreate()))
	c.want(volume.ErrROFS, putrootfh(), open("o", "new", 1, 0, unchecked(nfsv4.Fattr4{})))
	c.want(errInval, putfh(dir), open("o", "d", 0, 0, noCreate()))
	c.want(errInval, putfh(dir), open("o", "d", 1, 4, noCreate()))
	c.want(errInval, putfh(dir), open("o", "d", 1|1<<30, 0, noCreate()))
}

func TestShareReservations(t *testing.T) {
	s := newServer(t)
	a, b := s.newClient("a"), s.newClient("b")
	fh := a.create("f", "content")
	dir := a.data()
	a.ok(putfh(dir), open("o", "f", 1, 2, noCreate()))
	sid := openOf(a.ok(putfh(dir), open("o", "f", 3, 2, noCreate()))[1]).Stateid // deny write
	b.want(errShareDenied, putfh(dir), open("o", "f", 2, 0, noCreate()))
	b.ok(putfh(dir), open("o", "f", 1, 0, noCreate()))
	b.want(state.ErrLocked, putfh(fh), write(nfsv4.Stateid4{}, 0, "x")) // anonymous, against the deny
	res := a.ok(putfh(fh), &nfsv4.NfsArgop4_OP_OPEN_DOWNGRADE{OpopenDowngrade: nfsv4.OpenDowngrade4args{OpenStateid: sid, ShareAccess: 1, ShareDeny: 2}})
	down := res[1].(*nfsv4.NfsResop4_OP_OPEN_DOWNGRADE).OpopenDowngrade.(*nfsv4.OpenDowngrade4res_NFS4_OK).Resok4.OpenStateid
	a.want(errOpenMode, putfh(fh), write(down, 0, "x"))
	a.want(errOldStateid, putfh(fh), write(sid, 0, "x"))
	a.ok(putfh(fh), closeOp(down))
	b.ok(putfh(dir), open("o", "f", 2, 0, noCreate()))
}

func TestOpenChecksPermissions(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	dir := c.data()
	c.create("secret", "content") // root's, 0644
	c.ok(putfh(dir), lookup("secret"), setattr(nfsv4.Stateid4{}, modeAttr(0o600)))
	s.auth = rpc.Auth{Flavor: rpc.AuthSys, UID: 1000, GID: 1000}
	c.want(volume.ErrAccess, putfh(dir), open("o", "secret", 1, 0, noCreate()))
	res := c.ok(putfh(dir), open("o", "own", 2, 0, guarded(modeAttr(0o400))), getfh())
	fh, sid := fhOf(res[2]), openOf(res[1]).Stateid
	c.ok(putfh(fh), write(sid, 0, "written by the one who made it"))
	c.ok(putfh(fh), closeOp(sid))
	c.want(volume.ErrAccess, putfh(dir), open("o", "own", 2, 0, noCreate())) // 0400: not for writing, though its own
	c.ok(putfh(dir), open("o", "own", 1, 0, noCreate()))
	c.want(volume.ErrAccess, putfh(dir), open("o", "secret", 2, 0, unchecked(sizeAttr(0))))
	s.auth.UID = 1001
	c.want(volume.ErrAccess, putfh(fh), read(nfsv4.Stateid4{}, 0, 10))
}

func TestUnlinkedFileLivesUntilClose(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	dir := c.data()
	res := c.ok(putfh(dir), open("o", "f", 3, 0, unchecked(nfsv4.Fattr4{})), getfh())
	fh, sid := fhOf(res[2]), openOf(res[1]).Stateid
	c.ok(putfh(fh), write(sid, 0, "alive"))
	c.ok(putfh(dir), remove("f"))
	if got, _ := dataOf(c.ok(putfh(fh), read(sid, 0, 10))[1]); got != "alive" {
		t.Errorf("read %q", got)
	}
	c.ok(putfh(fh), closeOp(sid))
	c.want(errStale, putfh(fh))
}

func TestModeUmask(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	vals := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 0o666), 0o027)
	attr := nfsv4.Fattr4{Attrmask: []uint32{0, 0, 1 << (attrModeUmask - 64)}, AttrVals: vals}
	res := c.ok(putfh(c.data()), open("o", "f", 2, 0, unchecked(attr)), getattr(attrMode))
	if mode := uintAttr(t, attrsOf(res[2])); mode != 0o640 {
		t.Errorf("mode %o, want 640", mode)
	}
	c.want(errInval, putfh(c.data()), lookup("f"), setattr(nfsv4.Stateid4{}, attr))
	old := s.newClientMinor("old", 1)
	old.want(errAttrNotSupp, putfh(old.data()), open("o", "g", 2, 0, unchecked(attr)))
}
