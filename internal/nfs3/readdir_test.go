package nfs3

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/buildbarn/go-xdr/pkg/protocols/nfsv3"
	"github.com/google/go-cmp/cmp"
)

// list reads a whole directory with READDIR, count bytes at a time, and returns names and cookies.
func (s *server) list(dir nfsv3.NfsFh3, count uint32) (names []string, cookies []uint64) {
	s.t.Helper()
	for cookie := uint64(0); ; {
		args := &nfsv3.Readdir3args{Dir: dir, Cookie: cookie, Count: count}
		s.xid++
		reply := s.send(s.record(s.xid, procReaddir, encode(s.t, args)))
		if _, results := s.results(reply); len(results)-statusBytes > int(count) {
			s.t.Fatalf("reply of %d bytes, asked for %d", len(results)-statusBytes, count)
		}
		res := decode(s, reply, nfsv3.ReadReaddir3res)
		ok, is := res.(*nfsv3.Readdir3res_NFS3_OK)
		if !is {
			s.t.Fatalf("READDIR: status %d", res.GetStatus())
		}
		for e := ok.Resok.Reply.Entries; e != nil; e = e.Nextentry {
			names, cookies, cookie = append(names, e.Name), append(cookies, e.Cookie), e.Cookie
		}
		if ok.Resok.Reply.Eof {
			return names, cookies
		}
		if len(names) > 10_000 {
			s.t.Fatal("the listing does not end")
		}
	}
}

func TestReaddir(t *testing.T) {
	s := newServer(t)
	dir := s.mkdir(s.root("/data"), "d")
	want := []string{".", ".."}
	for i := range 300 {
		name := fmt.Sprintf("%d%s", i, strings.Repeat("x", i%200))
		s.create(dir, name, attrs{})
		want = append(want, name)
	}
	slices.Sort(want)
	var first []uint64
	for _, count := range []uint32{1 << 20, 4096, 1024, 350} {
		names, cookies := s.list(dir, count)
		slices.Sort(names)
		if diff := cmp.Diff(want, names); diff != "" {
			t.Errorf("count %d: %s", count, diff)
		}
		if first == nil {
			first = cookies
		}
		if !slices.Equal(first, cookies) {
			t.Errorf("count %d: cookies differ from those of another listing", count)
		}
	}
	empty := s.mkdir(dir, "empty")
	if names, cookies := s.list(empty, 1024); !slices.Equal(names, []string{".", ".."}) || !slices.Equal(cookies, []uint64{1, 2}) {
		t.Errorf("empty directory: %q %d", names, cookies)
	}
}

// TestReaddirWhileRemoving checks that a client that removes what it was shown, as rm -r does, misses nothing.
func TestReaddirWhileRemoving(t *testing.T) {
	s := newServer(t)
	dir := s.mkdir(s.root("/data"), "d")
	for i := range 200 {
		s.create(dir, fmt.Sprint(i), attrs{})
	}
	removed := 0
	for cookie := uint64(0); ; {
		res := do(s, procReaddir, &nfsv3.Readdir3args{Dir: dir, Cookie: cookie, Count: 1000}, nfsv3.ReadReaddir3res)
		ok := res.(*nfsv3.Readdir3res_NFS3_OK).Resok
		for e := ok.Reply.Entries; e != nil; e = e.Nextentry {
			cookie = e.Cookie
			if e.Name != "." && e.Name != ".." {
				wantStatus(t, "REMOVE", do(s, procRemove, &nfsv3.Remove3args{Object: in(dir, e.Name)}, nfsv3.ReadRemove3res), stOK)
				removed++
			}
		}
		if ok.Reply.Eof {
			break
		}
	}
	if removed != 200 {
		t.Errorf("removed %d of 200", removed)
	}
}

func TestReaddirErrors(t *testing.T) {
	s := newServer(t)
	root := s.root("/data")
	file := s.create(root, "f", attrs{})
	private := s.mkdir(root, "private")
	s.setattr(private, attrs{mode: p32(0o711)}, nil)
	for _, c := range []struct {
		what   string
		dir    nfsv3.NfsFh3
		cookie uint64
		count  uint32
		uid    uint32
		want   status
	}{
		{"of a file", file, 0, 1000, 0, stNotDir},
		{"without permission", private, 0, 1000, 5, stAccess},
		{"after a cookie that is none", root, 3, 1000, 0, stBadCookie},
		{"without room for an entry", root, 0, 100, 0, stTooSmall},
		{"without any room", root, 0, 0, 0, stTooSmall},
		{"without room for the next entry", root, 2, 120, 0, stTooSmall},
	} {
		s.as(c.uid, c.uid, func() {
			plain := do(s, procReaddir, &nfsv3.Readdir3args{Dir: c.dir, Cookie: c.cookie, Count: c.count}, nfsv3.ReadReaddir3res)
			wantStatus(t, "READDIR "+c.what, plain, c.want)
			plus := do(s, procReaddirplus, &nfsv3.Readdirplus3args{Dir: c.dir, Cookie: c.cookie, Dircount: 1000, Maxcount: c.count}, nfsv3.ReadReaddirplus3res)
			wantStatus(t, "READDIRPLUS "+c.what, plus, c.want)
		})
	}
}

func TestReaddirplus(t *testing.T) {
	s := newServer(t)
	root := s.root("/data")
	dir := s.mkdir(root, "d")
	for i := range 100 {
		s.create(dir, fmt.Sprintf("file%d", i), attrs{mode: p32(uint32(i))})
	}
	for _, limit := range []struct{ dirCount, maxCount uint32 }{{1 << 20, 1 << 20}, {512, 32768}, {0, 600}, {4096, 4096}} {
		seen, calls := 0, 0
		for cookie, eof := uint64(0), false; !eof; calls++ {
			args := &nfsv3.Readdirplus3args{Dir: dir, Cookie: cookie, Dircount: limit.dirCount, Maxcount: limit.maxCount}
			s.xid++
			reply := s.send(s.record(s.xid, procReaddirplus, encode(t, args)))
			if _, results := s.results(reply); len(results)-statusBytes > int(limit.maxCount) {
				t.Fatalf("reply of %d bytes, asked for %d", len(results)-statusBytes, limit.maxCount)
			}
			ok := decode(s, reply, nfsv3.ReadReaddirplus3res).(*nfsv3.Readdirplus3res_NFS3_OK).Resok
			info := 0
			for e := ok.Reply.Entries; e != nil; e = e.Nextentry {
				seen++
				info += entryFixedBytes + (len(e.Name)+3)/4*4
				cookie = e.Cookie
				h := e.NameHandle.(*nfsv3.PostOpFh3_TRUE).Handle
				if want := s.found(dir, e.Name).Object; !cmp.Equal(h, want) {
					t.Errorf("handle of %s differs from LOOKUP's", e.Name)
				}
				a := e.NameAttributes.(*nfsv3.PostOpAttr_TRUE).Attributes
				if a != s.getattr(h) || a.Fileid != e.Fileid {
					t.Errorf("attributes of %s differ from GETATTR's", e.Name)
				}
			}
			if info > int(limit.dirCount) && ok.Reply.Entries.Nextentry != nil {
				t.Errorf("%d bytes of names, asked for %d", info, limit.dirCount)
			}
			eof = ok.Reply.Eof
		}
		if seen != 102 {
			t.Errorf("limits %+v: %d entries in %d calls, want 102", limit, seen, calls)
		}
	}
	// The root of an export is its own parent.
	res := do(s, procReaddirplus, &nfsv3.Readdirplus3args{Dir: root, Dircount: 1000, Maxcount: 1000}, nfsv3.ReadReaddirplus3res)
	dot := res.(*nfsv3.Readdirplus3res_NFS3_OK).Resok.Reply.Entries
	if dotdot := dot.Nextentry; dotdot.Name != ".." || dotdot.Fileid != dot.Fileid {
		t.Errorf(".. of the root is %+v", dotdot)
	}
}
