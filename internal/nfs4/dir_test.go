package nfs4

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/buildbarn/go-xdr/pkg/protocols/nfsv4"

	"holdfast/internal/rpc"
	"holdfast/internal/volume"
)

func TestCreateRemoveRenameLink(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	dir := c.data()
	c.create("f", "content")
	create := func(name string, typ nfsv4.Createtype4) nfsv4.NfsArgop4 {
		return &nfsv4.NfsArgop4_OP_CREATE{Opcreate: nfsv4.Create4args{Objtype: typ, Objname: name, Createattrs: modeAttr(0o600)}}
	}
	link := func(name string) nfsv4.NfsArgop4 {
		return &nfsv4.NfsArgop4_OP_LINK{Oplink: nfsv4.Link4args{Newname: name}}
	}
	res := c.ok(putfh(dir), create("dev", &nfsv4.Createtype4_NF4CHR{Devdata: nfsv4.Specdata4{Specdata1: 5, Specdata2: 1}}), getattr(attrRawDev, attrType))
	if got := fmt.Sprintf("%x", attrsOf(res[2]).AttrVals); got != "000000040000000500000001" {
		t.Errorf("device attributes %s", got)
	}
	c.ok(putfh(dir), create("sock", &nfsv4.Createtype4_NF4SOCK{}))
	res = c.ok(putfh(dir), create("sym", &nfsv4.Createtype4_NF4LNK{Linkdata: []byte("to/f")}), &nfsv4.NfsArgop4_OP_READLINK{})
	if got := res[2].(*nfsv4.NfsResop4_OP_READLINK).Opreadlink.(*nfsv4.Readlink4res_NFS4_OK).Resok4.Link; string(got) != "to/f" {
		t.Errorf("link %q", got)
	}
	c.ok(putfh(dir), mkdir("d", 0o755))
	c.want(volume.ErrExist, putfh(dir), mkdir("d", 0o755))
	c.want(volume.ErrBadType, putfh(dir), create("x", &nfsv4.Createtype4_default{Type: 1}))
	c.want(errInval, putfh(dir), create("x", &nfsv4.Createtype4_NF4LNK{}))
	c.want(volume.ErrNameTooLong, putfh(dir), create("x", &nfsv4.Createtype4_NF4LNK{Linkdata: make([]byte, 4097)}))
	c.want(errBadName, putfh(dir), mkdir("..", 0o755))
	c.want(errBadChar, putfh(dir), mkdir("a\x00", 0o755))
	// go-xdr refuses to send names that are not UTF-8; clients do not.
	latin1 := encodeCompound(t, 2, []nfsv4.NfsArgop4{c.sequence(), putfh(dir), mkdir("caf?", 0o755), putfh(dir), lookup("caf?")})
	if st := status(s.decode(s.raw(bytes.ReplaceAll(latin1, []byte("caf?"), []byte("caf\xe9")))).Status); st != statusOK {
		t.Errorf("name in Latin-1: status %d", st)
	}

	c.ok(putfh(dir), lookup("f"), savefh(), putfh(dir), lookup("d"), link("g"))
	c.want(volume.ErrIsDir, putfh(dir), lookup("d"), savefh(), putfh(dir), link("d2"))
	c.want(volume.ErrNotEmpty, putfh(dir), remove("d"))
	res = c.ok(putfh(dir), savefh(), lookup("d"), rename("f", "g2"))
	ren := res[3].(*nfsv4.NfsResop4_OP_RENAME).Oprename.(*nfsv4.Rename4res_NFS4_OK).Resok4
	if !ren.SourceCinfo.Atomic || ren.SourceCinfo.Before == ren.SourceCinfo.After || ren.TargetCinfo.Before == ren.TargetCinfo.After {
		t.Errorf("rename: %+v", ren)
	}
	c.want(volume.ErrNoEnt, putfh(dir), lookup("f"))
	c.want(errNoFileHandle, putfh(dir), rename("d", "e"))
	c.want(volume.ErrNotDir, putfh(dir), lookup("sock"), remove("x"))
	c.want(volume.ErrSymlink, putfh(dir), lookup("sym"), lookup("x"))
	c.ok(putfh(dir), lookup("d"), remove("g"), remove("g2"), putfh(dir), remove("d"), remove("sym"), remove("sock"), remove("dev"))
	c.want(volume.ErrNoEnt, putfh(dir), remove("d"))
}

func TestReaddirPages(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	dir := c.data()
	want := map[string]bool{}
	for i := range 100 {
		name := fmt.Sprintf("entry-%03d-%s", i, strings.Repeat("x", i%50))
		want[name] = true
		c.ok(putfh(dir), mkdir(name, 0o755))
	}
	for _, tc := range []struct {
		name               string
		dircount, maxcount uint32
		attrs              []uint
	}{
		{"small pages", 0, 400, []uint{attrType, attrFileID}},
		{"with inode attributes", 0, 1000, []uint{attrType, attrChange, attrSize, attrFilehandle, attrMode, attrMountedOnFileID}},
		{"dircount", 100, 65536, nil},
		{"one page", 0, 65536, []uint{attrRdattrError, attrFileID}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			seen, pages := map[string]bool{}, 0
			var cookie uint64
			for {
				args := encodeCompound(t, 2, []nfsv4.NfsArgop4{c.sequence(), putfh(dir), readdirOp(cookie, tc.dircount, tc.maxcount, tc.attrs...)})
				res := s.decode(s.raw(args))
				ok := res.Resarray[2].(*nfsv4.NfsResop4_OP_READDIR).Opreaddir.(*nfsv4.Readdir4res_NFS4_OK)
				if n := ok.Resok4.GetEncodedSizeBytes(); n > int(tc.maxcount) {
					t.Fatalf("page of %d bytes, maxcount %d", n, tc.maxcount)
				}
				pages++
				for _, e := range entriesOf(res.Resarray[2]) {
					if seen[e.Name] || !want[e.Name] || e.Cookie <= cookie {
						t.Fatalf("entry %q, cookie %d after %d", e.Name, e.Cookie, cookie)
					}
					seen[e.Name], cookie = true, e.Cookie
				}
				if ok.Resok4.Reply.Eof {
					break
				}
			}
			if len(seen) != len(want) {
				t.Errorf("%d entries in %d pages, want %d", len(seen), pages, len(want))
			}
			if (tc.maxcount == 65536 && tc.dircount == 0) != (pages == 1) {
				t.Errorf("%d pages", pages)
			}
		})
	}
	c.want(errTooSmall, putfh(dir), readdirOp(0, 0, 30))
	c.want(volume.ErrBadCookie, putfh(dir), readdirOp(1, 0, 4096))
	c.want(errInval, putfh(dir), readdirOp(0, 0, 4096, attrTimeModifySet))
	bad := readdirOp(600, 0, 4096).(*nfsv4.NfsArgop4_OP_READDIR)
	bad.Opreaddir.Cookieverf[0] = 1
	c.want(errNotSame, putfh(dir), bad)
	c.ok(putfh(dir), lookup(slices.Sorted(maps.Keys(want))[0]), setattr(nfsv4.Stateid4{}, modeAttr(0o700)))
	s.auth = rpc.Auth{Flavor: rpc.AuthSys, UID: 1000, GID: 1000}
	c.want(volume.ErrAccess, putfh(dir), lookup(slices.Sorted(maps.Keys(want))[0]), readdirOp(0, 0, 4096))
}

func TestSetattrAndVerify(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	fh := c.create("f", "content")
	str := func(v string) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(len(v)))
		b = append(b, v...)
		return append(b, make([]byte, -len(v)&3)...)
	}
	owner := func(v string) nfsv4.Fattr4 {
		return nfsv4.Fattr4{Attrmask: []uint32{0, 1 << (attrOwner - 32)}, AttrVals: str(v)}
	}
	c.ok(putfh(fh), setattr(nfsv4.Stateid4{}, owner("123")))
	c.ok(putfh(fh), setattr(nfsv4.Stateid4{}, owner("124@example.org")))
	for _, bad := range []string{"root", "", "-1", "4294967295", "99999999999", "007", "@x"} {
		c.want(errBadOwner, putfh(fh), setattr(nfsv4.Stateid4{}, owner(bad)))
	}
	if got := string(attrsOf(c.ok(putfh(fh), getattr(attrOwner))[1]).AttrVals[4:7]); got != "124" {
		t.Errorf("owner %q", got)
	}
	verify := func(f nfsv4.Fattr4) nfsv4.NfsArgop4 {
		return &nfsv4.NfsArgop4_OP_VERIFY{Opverify: nfsv4.Verify4args{ObjAttributes: f}}
	}
	nverify := func(f nfsv4.Fattr4) nfsv4.NfsArgop4 {
		return &nfsv4.NfsArgop4_OP_NVERIFY{Opnverify: nfsv4.Nverify4args{ObjAttributes: f}}
	}
	c.ok(putfh(fh), verify(owner("124")), nverify(owner("125")))
	c.want(errNotSame, putfh(fh), verify(owner("125")))
	c.want(errSame, putfh(fh), nverify(owner("124")))
	c.want(errInval, putfh(fh), verify(nfsv4.Fattr4{Attrmask: []uint32{1 << attrRdattrError}}))
	c.want(errAttrNotSupp, putfh(fh), verify(nfsv4.Fattr4{Attrmask: []uint32{1 << 12}}))

	c.ok(putfh(fh), setattr(nfsv4.Stateid4{}, sizeAttr(3)))
	if got, _ := dataOf(c.ok(putfh(fh), read(nfsv4.Stateid4{}, 0, 10))[1]); got != "con" {
		t.Errorf("after truncation %q", got)
	}
	c.want(volume.ErrIsDir, putfh(c.data()), setattr(nfsv4.Stateid4{}, sizeAttr(3)))
	c.want(volume.ErrFBig, putfh(fh), setattr(nfsv4.Stateid4{}, sizeAttr(1<<63)))
	c.want(errBadStateid, putfh(fh), setattr(nfsv4.Stateid4{Seqid: 1, Other: [12]byte{9}}, sizeAttr(3)))

	times := nfsv4.Fattr4{Attrmask: []uint32{0, 1<<(attrTimeAccessSet-32) | 1<<(attrTimeModifySet-32)}}
	times.AttrVals = binary.BigEndian.AppendUint32(nil, 0) // access: now
	times.AttrVals = binary.BigEndian.AppendUint32(times.AttrVals, 1)
	times.AttrVals = binary.BigEndian.AppendUint64(times.AttrVals, 1<<64-2) // -2 s
	times.AttrVals = binary.BigEndian.AppendUint32(times.AttrVals, 5)
	res := c.ok(putfh(fh), setattr(nfsv4.Stateid4{}, times), getattr(attrTimeModify))
	if got := fmt.Sprintf("%x", attrsOf(res[2]).AttrVals); got != "fffffffffffffffe00000005" {
		t.Errorf("mtime %s, want -2 s and 5 ns", got)
	}
	set := res[1].(*nfsv4.NfsResop4_OP_SETATTR).Opsetattr
	if set.Attrsset[1] != times.Attrmask[1] {
		t.Errorf("attrsset %x, want %x", set.Attrsset, times.Attrmask)
	}
	times.AttrVals[len(times.AttrVals)-4] = 0x7f // nanoseconds beyond a second
	c.want(errInval, putfh(fh), setattr(nfsv4.Stateid4{}, times))

	masked := nfsv4.Fattr4{Attrmask: []uint32{0, 0, 1 << (attrModeSetMasked - 64)}, AttrVals: []byte{0, 0, 0, 0o111, 0, 0, 0, 0o111}}
	res = c.ok(putfh(fh), setattr(nfsv4.Stateid4{}, masked), getattr(attrMode))
	if mode := uintAttr(t, attrsOf(res[2])); mode != 0o755 {
		t.Errorf("mode %o after setting 0111, want 755", mode)
	}
}

func TestEveryAttribute(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	fh := c.create("f", "content")
	s.flags = 0x201
	seq := c.do(putrootfh()).Resarray[0].(*nfsv4.NfsResop4_OP_SEQUENCE).Opsequence.(*nfsv4.Sequence4res_NFS4_OK).SrResok4
	if seq.SrStatusFlags != 0x201 || seq.SrHighestSlotid != 63 || seq.SrSequenceid != c.seq || seq.SrSessionid != c.session {
		t.Errorf("SEQUENCE: %+v", seq)
	}
	for _, h := range []nfsv4.NfsArgop4{putfh(fh), putrootfh()} {
		all := attrsSupported42.without(attrsWriteOnly)
		get := &nfsv4.NfsArgop4_OP_GETATTR{Opgetattr: nfsv4.Getattr4args{AttrRequest: all[:]}}
		f := attrsOf(c.ok(h, get)[1])
		if !slices.Equal(f.Attrmask, all[:]) {
			t.Errorf("attributes %x, want %x", f.Attrmask, all)
		}
		// What GETATTR says VERIFY finds the same, attribute by attribute and all together.
		c.want(errInval, h, &nfsv4.NfsArgop4_OP_VERIFY{Opverify: nfsv4.Verify4args{ObjAttributes: f}})
		all.each(func(attr uint) bool {
			if attr == attrRdattrError {
				return true
			}
			f := attrsOf(c.ok(h, getattr(attr))[1])
			if len(f.AttrVals)%4 != 0 || len(f.AttrVals) == 0 {
				t.Errorf("attribute %d: value %x", attr, f.AttrVals)
			}
			c.ok(h, &nfsv4.NfsArgop4_OP_VERIFY{Opverify: nfsv4.Verify4args{ObjAttributes: f}})
			return true
		})
	}
	c.want(errInval, putfh(fh), getattr(attrTimeAccessSet))
	if f := attrsOf(c.ok(putfh(fh), getattr(12, 90))[1]); len(f.AttrVals) != 0 || len(f.Attrmask) != 0 {
		t.Errorf("unsupported attributes: %+v", f)
	}
}

func TestIO(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	res := c.ok(putfh(c.data()), open("o", "f", 3, 0, unchecked(nfsv4.Fattr4{})), getfh())
	fh, sid := fhOf(res[2]), openOf(res[1]).Stateid
	w := c.ok(putfh(fh), write(sid, 100_000, "far"))[1].(*nfsv4.NfsResop4_OP_WRITE).Opwrite.(*nfsv4.Write4res_NFS4_OK).Resok4
	if w.Count != 3 || w.Committed != fileSync || w.Writeverf != writeVerifier {
		t.Errorf("WRITE: %+v", w)
	}
	commit := c.ok(putfh(fh), &nfsv4.NfsArgop4_OP_COMMIT{})[1].(*nfsv4.NfsResop4_OP_COMMIT).Opcommit.(*nfsv4.Commit4res_NFS4_OK)
	if commit.Resok4.Writeverf != writeVerifier {
		t.Errorf("COMMIT: verifier %x", commit.Resok4.Writeverf)
	}
	for _, tc := range []struct {
		off   uint64
		count uint32
		want  string
		eof   bool
	}{
		{100_000, 2, "fa", false},
		{100_000, 3, "far", true},
		{100_001, 100, "ar", true},
		{99_999, 2, "\x00f", false},
		{100_003, 1, "", true},
		{1 << 62, 1, "", true},
		{0, 0, "", false},
	} {
		if got, eof := dataOf(c.ok(putfh(fh), read(sid, tc.off, tc.count))[1]); got != tc.want || eof != tc.eof {
			t.Errorf("READ at %d of %d: %q, %v; want %q, %v", tc.off, tc.count, got, eof, tc.want, tc.eof)
		}
	}
	seek := func(off uint64, what nfsv4.DataContent4) *nfsv4.SeekRes4 {
		r := c.ok(putfh(fh), &nfsv4.NfsArgop4_OP_SEEK{Opseek: nfsv4.Seek4args{SaStateid: sid, SaOffset: off, SaWhat: what}})
		return &r[1].(*nfsv4.NfsResop4_OP_SEEK).Opseek.(*nfsv4.Seek4res_NFS4_OK).Resok4
	}
	if r := seek(0, 0); r.SrOffset == 0 || r.SrOffset > 100_000 {
		t.Errorf("first data at %d", r.SrOffset)
	}
	if r := seek(0, 1); r.SrOffset != 0 {
		t.Errorf("first hole at %d", r.SrOffset)
	}
	c.want(volume.ErrNXIO, putfh(fh), &nfsv4.NfsArgop4_OP_SEEK{Opseek: nfsv4.Seek4args{SaStateid: sid, SaOffset: 1 << 20}})
	c.want(errUnionNotSupp, putfh(fh), &nfsv4.NfsArgop4_OP_SEEK{Opseek: nfsv4.Seek4args{SaStateid: sid, SaWhat: 2}})
	size := func() uint64 { return uintAttr(t, attrsOf(c.ok(putfh(fh), getattr(attrSize))[1])) }
	c.ok(putfh(fh), &nfsv4.NfsArgop4_OP_ALLOCATE{Opallocate: nfsv4.Allocate4args{AaStateid: sid, AaLength: 200_000}})
	if size() != 200_000 {
		t.Errorf("size %d after ALLOCATE", size())
	}
	c.ok(putfh(fh), &nfsv4.NfsArgop4_OP_DEALLOCATE{Opdeallocate: nfsv4.Deallocate4args{DaStateid: sid, DaOffset: 100_000, DaLength: 1}})
	if got, _ := dataOf(c.ok(putfh(fh), read(sid, 100_000, 3))[1]); got != "\x00ar" {
		t.Errorf("after DEALLOCATE %q", got)
	}
	c.want(errInval, putfh(fh), &nfsv4.NfsArgop4_OP_ALLOCATE{Opallocate: nfsv4.Allocate4args{AaStateid: sid}})
	c.want(volume.ErrFBig, putfh(fh), &nfsv4.NfsArgop4_OP_ALLOCATE{Opallocate: nfsv4.Allocate4args{AaStateid: sid, AaOffset: 1 << 63, AaLength: 1}})
	c.ok(putfh(fh), &nfsv4.NfsArgop4_OP_IO_ADVISE{OpioAdvise: nfsv4.IoAdvise4args{IaaStateid: sid}})
	c.want(volume.ErrIsDir, putfh(c.data()), read(nfsv4.Stateid4{}, 0, 1))
	c.want(volume.ErrIsDir, putrootfh(), read(nfsv4.Stateid4{}, 0, 1))
	c.want(errWrongType, putfh(fh), &nfsv4.NfsArgop4_OP_READLINK{})
	c.full = true
	c.want(volume.ErrNoSpace, putfh(fh), write(sid, 1<<20, "no growth"))
}

func TestLocks(t *testing.T) {
	s := newServer(t)
	a, b := s.newClient("a"), s.newClient("b")
	fh := a.create("f", "content")
	openBoth := func(c *client) nfsv4.Stateid4 {
		return openOf(c.ok(putfh(c.data()), open("o", "f", 3, 0, noCreate()))[1]).Stateid
	}
	sa, sb := openBoth(a), openBoth(b)
	la := lockOf(a.ok(putfh(fh), lock(2, 0, 100, sa, "pa"))[1])
	res := b.want(errDenied, putfh(fh), lock(4, 50, 100, sb, "pb"))
	denied := res[1].(*nfsv4.NfsResop4_OP_LOCK).Oplock.(*nfsv4.Lock4res_NFS4ERR_DENIED).Denied
	if denied.Offset != 0 || denied.Length != 100 || denied.Locktype != 2 || denied.Owner.Clientid != a.id || string(denied.Owner.Owner) != "pa" {
		t.Errorf("denied by %+v", denied)
	}
	lockt := &nfsv4.NfsArgop4_OP_LOCKT{Oplockt: nfsv4.Lockt4args{Locktype: 1, Offset: 99, Length: 1, Owner: nfsv4.StateOwner4{Owner: []byte("pb")}}}
	b.want(errDenied, putfh(fh), lockt)
	a.ok(putfh(fh), locku(50, 50, la)) // split
	b.ok(putfh(fh), lockt)
	b.ok(putfh(fh), lock(2, 50, 1<<64-1, sb, "pb"))
	b.want(errInval, putfh(fh), lock(2, 50, 0, sb, "pb"))
	test := a.ok(&nfsv4.NfsArgop4_OP_TEST_STATEID{OptestStateid: nfsv4.TestStateid4args{TsStateids: []nfsv4.Stateid4{sa, sb}}})
	codes := test[0].(*nfsv4.NfsResop4_OP_TEST_STATEID).OptestStateid.(*nfsv4.TestStateid4res_NFS4_OK).TsrResok4.TsrStatusCodes
	if len(codes) != 2 || codes[0] != 0 || status(codes[1]) != errBadStateid {
		t.Errorf("TEST_STATEID of an own and a foreign stateid: %v", codes)
	}
	// Locks survive a restart of the replica.
	s.open()
	b.want(errDenied, putfh(fh), lock(2, 0, 10, sb, "pb"))
	a.ok(putfh(fh), closeOp(sa))
	b.ok(putfh(fh), lock(2, 0, 10, sb, "pb"))
}
