package nfs3

import (
	"testing"

	"github.com/buildbarn/go-xdr/pkg/protocols/nfsv3"
	"github.com/google/go-cmp/cmp"

	"holdfast/internal/rpc"
	"holdfast/internal/volume"
)

func TestNull(t *testing.T) {
	s := newServer(t)
	stat, results := s.results(s.send(s.record(1, procNull, nil)))
	if stat != rpc.Success || len(results) != 0 {
		t.Errorf("NULL: accept_stat %d, results %x", stat, results)
	}
}

func TestGetAttr(t *testing.T) {
	s := newServer(t)
	s.auth.UID, s.auth.GID = 0, 0
	file := s.create(s.root("/data"), "f", attrs{mode: p32(0o640), uid: p32(12), gid: p32(34)})
	s.write(file, 0, []byte("hello"))
	h, _ := volume.DecodeHandle(file.Data)
	n := s.inode(h.Ino)
	at := func(ns int64) nfsv3.Nfstime3 {
		return nfsv3.Nfstime3{Seconds: uint32(ns / 1e9), Nseconds: uint32(ns % 1e9)}
	}
	want := nfsv3.Fattr3{
		Type: nfsv3.NF3REG, Mode: 0o640, Nlink: 1, Uid: 12, Gid: 34, Size: 5, Used: n.Used,
		Fsid: testVolume<<32 | uint64(volume.ExportID("/data")), Fileid: uint64(h.Ino),
		Atime: at(n.Atime), Mtime: at(s.now), Ctime: at(s.now),
	}
	if diff := cmp.Diff(want, s.getattr(file)); diff != "" {
		t.Error(diff)
	}
}

func TestTimesBeforeTheEpoch(t *testing.T) {
	var b [8]byte
	putTime(b[:], -1)
	if b != [8]byte{0xff, 0xff, 0xff, 0xff, 0x3b, 0x9a, 0xc9, 0xff} {
		t.Errorf("one nanosecond before 1970: %x", b)
	}
}

// TestHandles checks what every procedure does with handles that lead nowhere, by way of GETATTR.
func TestHandles(t *testing.T) {
	s := newServer(t)
	encoded := func(h volume.Handle) nfsv3.NfsFh3 {
		b := volume.EncodeHandle(h)
		return nfsv3.NfsFh3{Data: b[:]}
	}
	data := volume.ExportID("/data")
	for _, c := range []struct {
		name   string
		handle nfsv3.NfsFh3
		want   status
	}{
		{"empty", nfsv3.NfsFh3{Data: []byte{}}, stBadHandle},
		{"garbage", nfsv3.NfsFh3{Data: make([]byte, 28)}, stBadHandle},
		{"of another volume", encoded(volume.Handle{Volume: 8, Export: data, Ino: 1}), stStale},
		{"of no inode", encoded(volume.Handle{Volume: testVolume, Export: data, Ino: 999}), stStale},
		{"of an older generation", encoded(volume.Handle{Volume: testVolume, Export: data, Ino: 1, Gen: 5}), stStale},
		{"of an export without access", s.root("/hidden"), stAccess},
		{"of an export that is gone", encoded(volume.Handle{Volume: testVolume, Export: 1, Ino: 1}), stStale},
		{"of the pseudo file system", encoded(volume.Handle{Volume: testVolume, Ino: 1}), stStale},
	} {
		res := do(s, procGetAttr, &nfsv3.Getattr3args{Object: c.handle}, nfsv3.ReadGetattr3res)
		wantStatus(t, c.name, res, c.want)
		wantStatus(t, "SETATTR of a handle "+c.name, s.setattr(c.handle, attrs{mode: p32(0)}, nil), c.want)
	}
}

func TestSetAttr(t *testing.T) {
	s := newServer(t)
	root := s.root("/data")
	var file nfsv3.NfsFh3
	s.as(12, 34, func() { file = s.create(root, "f", attrs{mode: p32(0o600)}) })

	when := nfsv3.Nfstime3{Seconds: 4_000_000_000, Nseconds: 7}
	res := s.setattr(file, attrs{mode: p32(0o100644), uid: p32(1), gid: p32(2), size: p64(9), mtime: &when}, nil)
	wantStatus(t, "all at once", res, stOK)
	wantWcc(t, "all at once", res.(*nfsv3.Setattr3res_NFS3_OK).Resok.ObjWcc, true)
	a := s.getattr(file)
	if a.Mode != 0o644 || a.Uid != 1 || a.Gid != 2 || a.Size != 9 || a.Mtime != when {
		t.Errorf("attributes are %+v", a)
	}

	s.as(77, 77, func() {
		res := s.setattr(file, attrs{mode: p32(0o666)}, nil)
		wantStatus(t, "chmod by a stranger", res, stPerm)
		wantWcc(t, "chmod by a stranger", res.(*nfsv3.Setattr3res_default).Resfail.ObjWcc, false)
		wantStatus(t, "truncation by a stranger", s.setattr(file, attrs{size: p64(0)}, nil), stAccess)
	})
	wantStatus(t, "chmod to nothing", s.setattr(file, attrs{mode: p32(0)}, nil), stOK)
	s.as(1, 1, func() {
		wantStatus(t, "truncation by the owner without permission", s.setattr(file, attrs{size: p64(3)}, nil), stOK)
		wantStatus(t, "touch by the owner", s.setattr(file, attrs{now: true}, nil), stOK)
	})
	if a := s.getattr(file); a.Atime != a.Mtime || a.Mtime != a.Ctime {
		t.Errorf("after touch: %+v", a)
	}
	bad := nfsv3.Nfstime3{Nseconds: 1e9}
	wantStatus(t, "a time that is none", s.setattr(file, attrs{atime: &bad}, nil), stInval)
	wantStatus(t, "the size of a directory", s.setattr(root, attrs{size: p64(0)}, nil), stInval)
}

func TestSetAttrGuard(t *testing.T) {
	s := newServer(t)
	file := s.create(s.root("/data"), "f", attrs{})
	ctime := s.getattr(file).Ctime
	wrong := ctime
	wrong.Nseconds++
	res := s.setattr(file, attrs{mode: p32(0o600)}, &wrong)
	wantStatus(t, "another ctime", res, stNotSync)
	wantWcc(t, "another ctime", res.(*nfsv3.Setattr3res_default).Resfail.ObjWcc, false)
	wantStatus(t, "the ctime", s.setattr(file, attrs{mode: p32(0o600)}, &ctime), stOK)
	wantStatus(t, "the ctime before", s.setattr(file, attrs{mode: p32(0o600)}, &ctime), stNotSync)
}

func TestAccess(t *testing.T) {
	s := newServer(t)
	access := func(h nfsv3.NfsFh3) uint32 {
		res := do(s, procAccess, &nfsv3.Access3args{Object: h, Access: 0xffffffff}, nfsv3.ReadAccess3res)
		ok, is := res.(*nfsv3.Access3res_NFS3_OK)
		if !is {
			t.Fatalf("ACCESS: status %d", res.GetStatus())
		}
		return ok.Resok.Access
	}
	file := s.create(s.root("/data"), "f", attrs{mode: p32(0o754), uid: p32(1), gid: p32(2)})
	for _, c := range []struct {
		uid, gid uint32
		want     uint32
	}{
		{1, 9, volume.AccessRead | volume.AccessModify | volume.AccessExtend | volume.AccessExecute},
		{9, 2, volume.AccessRead | volume.AccessExecute},
		{9, 9, volume.AccessRead},
	} {
		s.as(c.uid, c.gid, func() {
			if got := access(file); got != c.want {
				t.Errorf("uid %d gid %d: access %#x, want %#x", c.uid, c.gid, got, c.want)
			}
		})
	}
	if got := access(s.root("/ro")); got != volume.AccessRead|volume.AccessLookup {
		t.Errorf("root on a read-only export: access %#x", got)
	}
}

// TestSquash checks that the export's rule decides whom a call runs as.
func TestSquash(t *testing.T) {
	s := newServer(t)
	if a := s.getattr(s.create(s.root("/squashed"), "f", attrs{})); a.Uid != 99 || a.Gid != 99 {
		t.Errorf("owner is %d:%d, want 99:99", a.Uid, a.Gid)
	}
	s.auth = rpc.Auth{Flavor: rpc.AuthNone}
	s.rules[0] = volume.Rule{Export: s.rules[0].Export, Squash: volume.SquashRoot, AnonUID: 5, AnonGID: 6}
	if a := s.getattr(s.create(s.root("/data"), "f", attrs{})); a.Uid != 5 || a.Gid != 6 {
		t.Errorf("owner is %d:%d, want 5:6 for a caller without credentials", a.Uid, a.Gid)
	}
}
