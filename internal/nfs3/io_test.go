package nfs3

import (
	"bytes"
	"math"
	"testing"

	"github.com/buildbarn/go-xdr/pkg/protocols/nfsv3"

	"holdfast/internal/rpc"
	"holdfast/internal/volume"
)

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7)
	}
	return b
}

func TestWriteAndRead(t *testing.T) {
	s := newServer(t)
	file := s.create(s.root("/data"), "f", attrs{})
	data := pattern(100_003)
	res := s.write(file, 5, data)
	wantStatus(t, "WRITE", res, stOK)
	ok := res.(*nfsv3.Write3res_NFS3_OK).Resok
	wantWcc(t, "WRITE", ok.FileWcc, true)
	if ok.Count != 100_003 || ok.Committed != nfsv3.FILE_SYNC || string(ok.Verf[:]) != "holdfast" {
		t.Errorf("WRITE: %+v", ok)
	}
	whole := append(make([]byte, 5), data...)
	for _, c := range []struct {
		off   uint64
		count uint32
		eof   bool
	}{
		{0, 100_008, true},
		{0, 100_007, false},
		{0, math.MaxUint32, true},
		{99_999, 4, false},
		{100_007, 1, true},
		{100_008, 10, true},
		{math.MaxUint64, math.MaxUint32, true},
		{3, 0, false},
		{100_008, 0, true},
	} {
		res := s.read(file, c.off, c.count)
		wantStatus(t, "READ", res, stOK)
		ok := res.(*nfsv3.Read3res_NFS3_OK).Resok
		var want []byte
		if c.off < uint64(len(whole)) {
			want = whole[c.off:min(uint64(len(whole)), c.off+uint64(c.count))]
		}
		if !bytes.Equal(ok.Data, want) || int(ok.Count) != len(want) || ok.Eof != c.eof {
			t.Errorf("READ %d at %d: %d bytes, count %d, eof %v", c.count, c.off, len(ok.Data), ok.Count, ok.Eof)
		}
		if a := ok.FileAttributes.(*nfsv3.PostOpAttr_TRUE).Attributes; a.Size != 100_008 {
			t.Errorf("READ: size %d", a.Size)
		}
	}
}

// TestReadLimit checks that one READ returns at most what FSINFO says.
func TestReadLimit(t *testing.T) {
	s := newServer(t)
	file := s.create(s.root("/data"), "f", attrs{size: p64(3 << 20)})
	ok := s.read(file, 1, 2<<20).(*nfsv3.Read3res_NFS3_OK).Resok
	if ok.Count != maxIOBytes || len(ok.Data) != maxIOBytes || ok.Eof {
		t.Errorf("count %d, %d bytes, eof %v", ok.Count, len(ok.Data), ok.Eof)
	}
}

func TestWriteErrors(t *testing.T) {
	s := newServer(t)
	root := s.root("/data")
	file := s.create(root, "f", attrs{mode: p32(0o644)})
	wantStatus(t, "to a directory", s.write(root, 0, []byte("x")), stInval)
	wantStatus(t, "beyond the largest offset", s.write(file, volume.MaxFileBytes, []byte("x")), stFBig)
	wantStatus(t, "at an offset that wraps", s.write(file, math.MaxUint64, []byte("xy")), stFBig)
	s.as(5, 5, func() {
		res := s.write(file, 0, []byte("x"))
		wantStatus(t, "without permission", res, stAccess)
		wantWcc(t, "without permission", res.(*nfsv3.Write3res_default).Resfail.FileWcc, false)
		wantStatus(t, "nothing, without permission", s.write(file, 0, nil), stAccess)
	})
	res := s.write(file, 10, nil)
	wantStatus(t, "nothing", res, stOK)
	wantWcc(t, "nothing", res.(*nfsv3.Write3res_NFS3_OK).Resok.FileWcc, false)
	short := do(s, procWrite, &nfsv3.Write3args{File: file, Count: 5, Data: []byte("four")}, nfsv3.ReadWrite3res)
	wantStatus(t, "count and data differ", short, stInval)
	s.full = true
	wantStatus(t, "with a disk nearly full", s.write(file, 0, []byte("x")), stNoSpace)
	s.full = false
	if a := s.getattr(file); a.Size != 0 {
		t.Errorf("size %d after writes that failed", a.Size)
	}
	args := encode(t, &nfsv3.Write3args{File: file, Stable: 3, Data: []byte{}})
	if stat, _ := s.results(s.send(s.record(1, procWrite, args))); stat != rpc.GarbageArgs {
		t.Errorf("stable_how 3: accept_stat %d", stat)
	}
}

func TestReadErrors(t *testing.T) {
	s := newServer(t)
	root := s.root("/data")
	wantStatus(t, "of a directory", s.read(root, 0, 1), stInval)
	file := s.create(root, "f", attrs{mode: p32(0o200), uid: p32(4)})
	s.as(5, 5, func() {
		wantStatus(t, "without permission", s.read(file, 0, 1), stAccess)
	})
	s.as(4, 4, func() {
		wantStatus(t, "by the owner without permission", s.read(file, 0, 1), stOK)
	})
	s.setattr(file, attrs{mode: p32(0o711)}, nil)
	s.as(5, 5, func() {
		wantStatus(t, "of a program that may be executed", s.read(file, 0, 1), stOK)
	})
}

func TestCommit(t *testing.T) {
	s := newServer(t)
	file := s.create(s.root("/data"), "f", attrs{})
	before := s.index
	res := do(s, procCommit, &nfsv3.Commit3args{File: file, Count: 10}, nfsv3.ReadCommit3res)
	wantStatus(t, "COMMIT", res, stOK)
	ok := res.(*nfsv3.Commit3res_NFS3_OK).Resok
	wantWcc(t, "COMMIT", ok.FileWcc, false)
	if string(ok.Verf[:]) != "holdfast" {
		t.Errorf("verifier %x differs from WRITE's", ok.Verf)
	}
	if s.index != before {
		t.Error("COMMIT was logged")
	}
	wantStatus(t, "COMMIT of a directory", do(s, procCommit, &nfsv3.Commit3args{File: s.root("/data")}, nfsv3.ReadCommit3res), stInval)
}

func TestFileSystemInformation(t *testing.T) {
	s := newServer(t)
	s.apply(&volume.Entry{Kind: volume.EntrySpace, Payload: volume.SpacePayload(1<<40, 1<<39)})
	root := s.root("/data")
	info := do(s, procFSInfo, &nfsv3.Fsinfo3args{Fsroot: root}, nfsv3.ReadFsinfo3res).(*nfsv3.Fsinfo3res_NFS3_OK).Resok
	if info.Rtmax != 1<<20 || info.Wtmax != 1<<20 || info.Maxfilesize != math.MaxInt64 || info.TimeDelta.Nseconds != 1 || info.Properties != 0x1b {
		t.Errorf("FSINFO: %+v", info)
	}
	conf := do(s, procPathConf, &nfsv3.Pathconf3args{Object: root}, nfsv3.ReadPathconf3res).(*nfsv3.Pathconf3res_NFS3_OK).Resok
	if conf.NameMax != 255 || !conf.NoTrunc || !conf.ChownRestricted || conf.CaseInsensitive || !conf.CasePreserving {
		t.Errorf("PATHCONF: %+v", conf)
	}
	var want volume.FSStat
	s.v.View(func(tx *volume.Tx) { want = tx.FSStat() })
	stat := do(s, procFSStat, &nfsv3.Fsstat3args{Fsroot: root}, nfsv3.ReadFsstat3res).(*nfsv3.Fsstat3res_NFS3_OK).Resok
	if stat.Tbytes != want.TotalBytes || stat.Fbytes != want.FreeBytes || stat.Abytes != want.AvailBytes || stat.Tfiles != want.TotalFiles || stat.Afiles != want.FreeFiles {
		t.Errorf("FSSTAT: %+v, want %+v", stat, want)
	}
	bad := nfsv3.NfsFh3{Data: []byte("x")}
	wantStatus(t, "FSSTAT", do(s, procFSStat, &nfsv3.Fsstat3args{Fsroot: bad}, nfsv3.ReadFsstat3res), stBadHandle)
	wantStatus(t, "FSINFO", do(s, procFSInfo, &nfsv3.Fsinfo3args{Fsroot: bad}, nfsv3.ReadFsinfo3res), stBadHandle)
	wantStatus(t, "PATHCONF", do(s, procPathConf, &nfsv3.Pathconf3args{Object: bad}, nfsv3.ReadPathconf3res), stBadHandle)
}
