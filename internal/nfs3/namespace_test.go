package nfs3

import (
	"bytes"
	"strings"
	"testing"

	"github.com/buildbarn/go-xdr/pkg/protocols/nfsv3"
	"github.com/google/go-cmp/cmp"

	"holdfast/internal/rpc"
	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

func (s *server) found(dir nfsv3.NfsFh3, name string) nfsv3.Lookup3resok {
	s.t.Helper()
	res := s.lookup(dir, name)
	ok, is := res.(*nfsv3.Lookup3res_NFS3_OK)
	if !is {
		s.t.Fatalf("LOOKUP %q: status %d", name, res.GetStatus())
	}
	return ok.Resok
}

func TestLookup(t *testing.T) {
	s := newServer(t)
	root := s.root("/data")
	dir := s.mkdir(root, "d")
	file := s.create(dir, "f\x7f\x01 *", attrs{})
	ok := s.found(dir, "f\x7f\x01 *")
	if diff := cmp.Diff(file, ok.Object); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(s.getattr(file), ok.ObjAttributes.(*nfsv3.PostOpAttr_TRUE).Attributes); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(s.getattr(dir), ok.DirAttributes.(*nfsv3.PostOpAttr_TRUE).Attributes); diff != "" {
		t.Error(diff)
	}
	for _, c := range []struct {
		from nfsv3.NfsFh3
		name string
		want nfsv3.NfsFh3
	}{
		{dir, ".", dir},
		{dir, "..", root},
		{root, ".", root},
		{root, "..", root}, // nobody leaves an export upwards
	} {
		if got := s.found(c.from, c.name).Object; !cmp.Equal(got, c.want) {
			t.Errorf("%s leads to %x, want %x", c.name, got, c.want)
		}
	}
	for _, c := range []struct {
		dir  nfsv3.NfsFh3
		name string
		want status
	}{
		{dir, "nothing", stNoEnt},
		{file, "f", stNotDir},
		{dir, "", stInval},
		{dir, "a/b", stInval},
		{dir, "a\x00", stInval},
		{dir, strings.Repeat("n", 255), stNoEnt},
		{dir, strings.Repeat("n", 256), stNameTooLong},
		{s.root("/hidden"), "x", stAccess},
	} {
		wantStatus(t, "LOOKUP "+c.name, s.lookup(c.dir, c.name), c.want)
	}
	s.setattr(dir, attrs{mode: p32(0o600)}, nil)
	s.as(5, 5, func() { wantStatus(t, "LOOKUP without permission", s.lookup(dir, "x"), stAccess) })
}

func TestCreate(t *testing.T) {
	s := newServer(t)
	root := s.root("/data")
	guarded := func(a attrs) nfsv3.Createhow3 { return &nfsv3.Createhow3_GUARDED{ObjAttributes: a.sattr()} }
	unchecked := func(a attrs) nfsv3.Createhow3 { return &nfsv3.Createhow3_UNCHECKED{ObjAttributes: a.sattr()} }

	res := s.createHow(root, "f", guarded(attrs{mode: p32(0o640), size: p64(10)}))
	wantStatus(t, "guarded", res, stOK)
	ok := res.(*nfsv3.Create3res_NFS3_OK).Resok
	wantWcc(t, "guarded", ok.DirWcc, true)
	if a := ok.ObjAttributes.(*nfsv3.PostOpAttr_TRUE).Attributes; a.Mode != 0o640 || a.Size != 10 {
		t.Errorf("attributes are %+v", a)
	}
	res = s.createHow(root, "f", guarded(attrs{}))
	wantStatus(t, "guarded, name taken", res, stExist)
	wantWcc(t, "guarded, name taken", res.(*nfsv3.Create3res_default).Resfail.DirWcc, false)

	file := ok.Obj.(*nfsv3.PostOpFh3_TRUE).Handle
	wantStatus(t, "unchecked, name taken", s.createHow(root, "f", unchecked(attrs{mode: p32(0o777)})), stOK)
	if a := s.getattr(file); a.Mode != 0o640 || a.Size != 10 {
		t.Errorf("unchecked CREATE changed an existing file: %+v", a)
	}
	wantStatus(t, "unchecked with truncation", s.createHow(root, "f", unchecked(attrs{size: p64(0)})), stOK)
	if a := s.getattr(file); a.Size != 0 {
		t.Errorf("size is %d after truncation", a.Size)
	}
	wantStatus(t, "unchecked, new name", s.createHow(root, "g", unchecked(attrs{})), stOK)

	s.mkdir(root, "d")
	wantStatus(t, "unchecked, name of a directory", s.createHow(root, "d", unchecked(attrs{})), stExist)
	s.as(5, 5, func() {
		wantStatus(t, "truncation without permission", s.createHow(root, "f", unchecked(attrs{size: p64(0)})), stAccess)
	})
	for name, want := range map[string]status{".": stExist, "..": stExist, "": stInval, "a/b": stInval, strings.Repeat("n", 256): stNameTooLong} {
		wantStatus(t, "CREATE "+name, s.createHow(root, name, guarded(attrs{})), want)
	}
	wantStatus(t, "in a file", s.createHow(file, "x", guarded(attrs{})), stNotDir)
	res = s.createHow(s.root("/ro"), "x", guarded(attrs{}))
	wantStatus(t, "on a read-only export", res, stROFS)
	wantWcc(t, "on a read-only export", res.(*nfsv3.Create3res_default).Resfail.DirWcc, false)
	s.full = true
	wantStatus(t, "with a disk nearly full", s.createHow(root, "x", guarded(attrs{})), stNoSpace)
}

func TestCreateExclusive(t *testing.T) {
	s := newServer(t)
	s.auth.UID = 5
	root := s.root("/data")
	mine, other := &nfsv3.Createhow3_EXCLUSIVE{Verf: [8]byte{1}}, &nfsv3.Createhow3_EXCLUSIVE{Verf: [8]byte{2}}
	first := s.createHow(root, "f", mine)
	wantStatus(t, "first", first, stOK)
	second := s.createHow(root, "f", mine)
	wantStatus(t, "retry", second, stOK)
	a, b := first.(*nfsv3.Create3res_NFS3_OK).Resok, second.(*nfsv3.Create3res_NFS3_OK).Resok
	if !cmp.Equal(a.Obj, b.Obj) {
		t.Error("the retry got another file")
	}
	wantWcc(t, "retry", b.DirWcc, false)
	wantStatus(t, "another creator", s.createHow(root, "f", other), stExist)
	file := a.Obj.(*nfsv3.PostOpFh3_TRUE).Handle
	wantStatus(t, "SETATTR that follows", s.setattr(file, attrs{mode: p32(0o600)}, nil), stOK)
	wantStatus(t, "after the creator went on", s.createHow(root, "f", mine), stExist)
}

func TestMkdir(t *testing.T) {
	s := newServer(t)
	root := s.root("/data")
	before := s.getattr(root).Nlink
	dir := s.mkdir(root, "d")
	if a := s.getattr(dir); a.Type != nfsv3.NF3DIR || a.Mode != 0o755 || a.Nlink != 2 {
		t.Errorf("attributes are %+v", a)
	}
	if n := s.getattr(root).Nlink; n != before+1 {
		t.Errorf("parent has %d links, want %d", n, before+1)
	}
	for name, want := range map[string]status{"d": stExist, ".": stExist, "..": stExist, "x/y": stInval} {
		res := do(s, procMkdir, &nfsv3.Mkdir3args{Where: in(root, name), Attributes: attrs{}.sattr()}, nfsv3.ReadMkdir3res)
		wantStatus(t, "MKDIR "+name, res, want)
	}
}

func TestSymlink(t *testing.T) {
	s := newServer(t)
	root := s.root("/data")
	symlink := func(name, target string) nfsv3.Symlink3res {
		return do(s, procSymlink, &nfsv3.Symlink3args{Where: in(root, name),
			Symlink: nfsv3.Symlinkdata3{SymlinkAttributes: attrs{}.sattr(), SymlinkData: target}}, nfsv3.ReadSymlink3res)
	}
	readlink := func(h nfsv3.NfsFh3) nfsv3.Readlink3res {
		return do(s, procReadlink, &nfsv3.Readlink3args{Symlink: h}, nfsv3.ReadReadlink3res)
	}
	res := symlink("l", "../y/x")
	wantStatus(t, "SYMLINK", res, stOK)
	ok := res.(*nfsv3.Symlink3res_NFS3_OK).Resok
	link := readlink(ok.Obj.(*nfsv3.PostOpFh3_TRUE).Handle)
	wantStatus(t, "READLINK", link, stOK)
	if got := link.(*nfsv3.Readlink3res_NFS3_OK).Resok.Data; got != "../y/x" {
		t.Errorf("target is %q", got)
	}
	wantStatus(t, "READLINK of a directory", readlink(root), stInval)
	wantStatus(t, "name taken", symlink("l", "x"), stExist)
	wantStatus(t, "no target", symlink("m", ""), stInval)
	wantStatus(t, "long target", symlink("m", strings.Repeat("t", 4096)), stOK)
	wantStatus(t, "target too long", symlink("n", strings.Repeat("t", 4097)), stNameTooLong)
}

func TestMknod(t *testing.T) {
	s := newServer(t)
	root := s.root("/data")
	mknod := func(name string, what nfsv3.Mknoddata3) nfsv3.Mknod3res {
		return do(s, procMknod, &nfsv3.Mknod3args{Where: in(root, name), What: what}, nfsv3.ReadMknod3res)
	}
	sattr := attrs{mode: p32(0o600)}.sattr()
	device := nfsv3.Devicedata3{DevAttributes: sattr, Spec: nfsv3.Specdata3{Specdata1: 8, Specdata2: 1}}
	for _, c := range []struct {
		name string
		what nfsv3.Mknoddata3
		typ  nfsv3.Ftype3
		rdev nfsv3.Specdata3
	}{
		{"chr", &nfsv3.Mknoddata3_NF3CHR{Device: device}, nfsv3.NF3CHR, device.Spec},
		{"blk", &nfsv3.Mknoddata3_NF3BLK{Device: device}, nfsv3.NF3BLK, device.Spec},
		{"sock", &nfsv3.Mknoddata3_NF3SOCK{PipeAttributes: sattr}, nfsv3.NF3SOCK, nfsv3.Specdata3{}},
		{"fifo", &nfsv3.Mknoddata3_NF3FIFO{PipeAttributes: sattr}, nfsv3.NF3FIFO, nfsv3.Specdata3{}},
	} {
		res := mknod(c.name, c.what)
		wantStatus(t, c.name, res, stOK)
		a := s.getattr(res.(*nfsv3.Mknod3res_NFS3_OK).Resok.Obj.(*nfsv3.PostOpFh3_TRUE).Handle)
		if a.Type != c.typ || a.Rdev != c.rdev || a.Mode != 0o600 {
			t.Errorf("%s: attributes are %+v", c.name, a)
		}
	}
	wantStatus(t, "regular file", mknod("reg", &nfsv3.Mknoddata3_default{Type: nfsv3.NF3REG}), stBadType)
	wantStatus(t, "no type at all", mknod("reg", &nfsv3.Mknoddata3_default{Type: 77}), stBadType)
	s.as(5, 5, func() {
		wantStatus(t, "device by a user", mknod("dev", &nfsv3.Mknoddata3_NF3CHR{Device: device}), stPerm)
	})
}

func TestRemove(t *testing.T) {
	s := newServer(t)
	root := s.root("/data")
	s.create(root, "f", attrs{})
	full := s.mkdir(root, "full")
	s.create(full, "f", attrs{})
	s.mkdir(root, "empty")
	remove := func(name string) nfsv3.Remove3res {
		return do(s, procRemove, &nfsv3.Remove3args{Object: in(root, name)}, nfsv3.ReadRemove3res)
	}
	rmdir := func(name string) nfsv3.Rmdir3res {
		return do(s, procRmdir, &nfsv3.Rmdir3args{Object: in(root, name)}, nfsv3.ReadRmdir3res)
	}
	for _, c := range []struct {
		name string
		want status
	}{{"empty", stIsDir}, {"nothing", stNoEnt}, {".", stIsDir}, {"..", stIsDir}, {"", stInval}} {
		res := remove(c.name)
		wantStatus(t, "REMOVE "+c.name, res, c.want)
		wantWcc(t, "REMOVE "+c.name, res.(*nfsv3.Remove3res_default).Resfail.DirWcc, false)
	}
	for _, c := range []struct {
		name string
		want status
	}{{"full", stNotEmpty}, {"f", stNotDir}, {"nothing", stNoEnt}, {".", stInval}, {"..", stExist}} {
		wantStatus(t, "RMDIR "+c.name, rmdir(c.name), c.want)
	}
	res := remove("f")
	wantStatus(t, "REMOVE f", res, stOK)
	wantWcc(t, "REMOVE f", res.(*nfsv3.Remove3res_NFS3_OK).Resok.DirWcc, true)
	wantStatus(t, "RMDIR empty", rmdir("empty"), stOK)
	wantStatus(t, "REMOVE f again", remove("f"), stNoEnt)
}

func TestRename(t *testing.T) {
	s := newServer(t)
	root, other := s.root("/data"), s.root("/other")
	dir := s.mkdir(root, "d")
	file := s.create(root, "f", attrs{})
	rename := func(from nfsv3.NfsFh3, oldName string, to nfsv3.NfsFh3, newName string) nfsv3.Rename3res {
		return do(s, procRename, &nfsv3.Rename3args{From: in(from, oldName), To: in(to, newName)}, nfsv3.ReadRename3res)
	}
	res := rename(root, "f", dir, "g")
	wantStatus(t, "RENAME", res, stOK)
	ok := res.(*nfsv3.Rename3res_NFS3_OK).Resok
	wantWcc(t, "RENAME from", ok.FromdirWcc, true)
	wantWcc(t, "RENAME to", ok.TodirWcc, true)
	if got := s.found(dir, "g").Object; !cmp.Equal(got, file) {
		t.Error("the new name leads to another file")
	}
	for _, c := range []struct {
		what    string
		from    nfsv3.NfsFh3
		oldName string
		to      nfsv3.NfsFh3
		newName string
		want    status
	}{
		{"of nothing", root, "f", dir, "h", stNoEnt},
		{"into itself", root, "d", dir, "d", stInval},
		{"to another export", dir, "g", other, "g", stXDev},
		{"of dots", root, ".", dir, "x", stInval},
		{"to dots", dir, "g", root, "..", stInval},
		{"to a long name", dir, "g", root, strings.Repeat("n", 256), stNameTooLong},
		{"of no name", dir, "", root, "x", stInval},
		{"in a file", file, "g", root, "x", stNotDir},
		{"to a file", root, "d", file, "x", stNotDir},
	} {
		wantStatus(t, c.what, rename(c.from, c.oldName, c.to, c.newName), c.want)
	}
}

func TestLink(t *testing.T) {
	s := newServer(t)
	root := s.root("/data")
	file := s.create(root, "f", attrs{})
	dir := s.mkdir(root, "d")
	link := func(h, to nfsv3.NfsFh3, name string) nfsv3.Link3res {
		return do(s, procLink, &nfsv3.Link3args{File: h, Link: in(to, name)}, nfsv3.ReadLink3res)
	}
	res := link(file, dir, "g")
	wantStatus(t, "LINK", res, stOK)
	ok := res.(*nfsv3.Link3res_NFS3_OK).Resok
	wantWcc(t, "LINK", ok.LinkdirWcc, true)
	if a := ok.FileAttributes.(*nfsv3.PostOpAttr_TRUE).Attributes; a.Nlink != 2 {
		t.Errorf("%d links", a.Nlink)
	}
	wantStatus(t, "name taken", link(file, dir, "g"), stExist)
	wantStatus(t, "of a directory", link(dir, root, "x"), stIsDir)
	wantStatus(t, "to another export", link(file, s.root("/other"), "x"), stXDev)
	wantStatus(t, "in a file", link(file, file, "x"), stNotDir)
	wantStatus(t, "dots", link(file, dir, ".."), stExist)
	h, _ := volume.DecodeHandle(file.Data)
	if n := s.inode(h.Ino).Nlink; n != 2 {
		t.Errorf("%d links after the failures", n)
	}
}

// TestNamesOfAnyBytes goes around go-xdr, which takes ASCII only.
func TestNamesOfAnyBytes(t *testing.T) {
	s := newServer(t)
	root := s.root("/data")
	name, target := []byte("\xff\xfe\x80 \n\\"), []byte("\x01/\xc3\x28")
	args := func(parts ...func(e *xdr.Encoder)) []byte {
		e := xdr.NewEncoder(nil)
		for _, p := range parts {
			p(e)
		}
		return e.Bytes()
	}
	opaque := func(b []byte) func(*xdr.Encoder) { return func(e *xdr.Encoder) { e.Opaque(b) } }
	sattr := func(e *xdr.Encoder) { e.Raw(make([]byte, 24)) } // leaves everything as it is
	call := func(proc uint32, args []byte) *xdr.Decoder {
		t.Helper()
		s.xid++
		stat, results := s.results(s.send(s.record(s.xid, proc, args)))
		d := xdr.NewDecoder(results)
		if st := d.Uint32(); stat != rpc.Success || st != 0 {
			t.Fatalf("procedure %d: accept_stat %d, status %d", proc, stat, st)
		}
		return d
	}
	d := call(procSymlink, args(opaque(root.Data), opaque(name), sattr, opaque(target)))
	d.Bool()
	link := d.Opaque(maxHandleBytes)
	d = call(procLookup, args(opaque(root.Data), opaque(name)))
	if got := d.Opaque(maxHandleBytes); !bytes.Equal(got, link) {
		t.Errorf("LOOKUP found %x, want %x", got, link)
	}
	d = call(procReadlink, args(opaque(link)))
	d.Bool()
	d.Fixed(fattrBytes)
	if got := d.Opaque(4096); !bytes.Equal(got, target) {
		t.Errorf("target is %q", got)
	}
	d = call(procReaddir, args(opaque(root.Data), func(e *xdr.Encoder) { e.Uint64(cookieDotDot); e.Uint64(0); e.Uint32(1000) }))
	d.Bool()
	d.Fixed(fattrBytes + 8)
	d.Bool()
	d.Uint64()
	if got := d.Opaque(255); !bytes.Equal(got, name) {
		t.Errorf("listed as %q", got)
	}
	call(procRemove, args(opaque(root.Data), opaque(name)))
}
