package mount

import (
	"bytes"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/buildbarn/go-xdr/pkg/protocols/mount"
	"github.com/google/go-cmp/cmp"

	"holdfast/internal/rpc"
	"holdfast/internal/store"
	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

const testVolume = 7

// server is a volume that exports /data and /deep/er to everybody and /hidden to nobody. /data holds the folders sub/below, private
// (mode 0700), the file "file" and the symbolic link "link" to sub.
type server struct {
	t     testing.TB
	v     *volume.Volume
	rules []volume.Rule
}

// seeder makes the files: MOUNT itself can make none.
type seeder struct{ *Program }

func (seeder) Number() (prog, vers uint32) { return 1, 1 }

func (seeder) Command(tx *volume.Tx, _ []byte) error {
	data, _ := tx.Inode(tx.Exports()[0].Root, 0)
	mode := uint32(0o700)
	sub, _ := tx.Mkdir(nil, data, "sub", volume.SetAttr{})
	tx.Mkdir(nil, sub, "below", volume.SetAttr{})
	tx.Mkdir(nil, data, "private", volume.SetAttr{Mode: &mode})
	tx.Create(nil, data, "file", volume.TypeFile, volume.CreateAttr{})
	_, errno := tx.Create(nil, data, "link", volume.TypeSymlink, volume.CreateAttr{Target: "sub"})
	if errno != volume.OK {
		return errno
	}
	return nil
}

func newServer(t testing.TB) *server {
	t.Helper()
	p := New(testVolume)
	v, err := volume.Open(volume.Config{ID: testVolume, Name: "test", Store: store.NewMem(), Programs: []volume.Program{p, seeder{p}}})
	if err != nil {
		t.Fatal(err)
	}
	specs := []volume.ExportSpec{{Path: "/data"}, {Path: "/deep/er"}, {Path: "/hidden"}}
	for i, e := range []volume.Entry{
		{Kind: volume.EntryExports, Payload: volume.EncodeExports(specs)},
		{Kind: volume.EntryCommand, Payload: volume.CommandPayload(1, 1, nil)},
	} {
		if _, err := v.Apply(uint64(i+1), e.Encode()); err != nil {
			t.Fatal(err)
		}
	}
	return &server{t: t, v: v, rules: []volume.Rule{{Export: volume.ExportID("/data")}, {Export: volume.ExportID("/deep/er")}}}
}

// call makes a call and returns accept_stat and results.
func (s *server) call(proc uint32, args []byte) (rpc.AcceptStat, []byte) {
	s.t.Helper()
	req := volume.Request{
		Call:   rpc.Call{XID: 1, Prog: rpc.ProgMount, Vers: Version, Proc: proc, Args: args},
		Client: netip.MustParseAddrPort("10.0.0.1:700"),
		Rules:  s.rules,
	}
	reply := xdr.NewEncoder(nil)
	s.v.Read(&req, reply)
	const header = 24
	d := xdr.NewDecoder(reply.Bytes())
	d.Fixed(header - 4)
	return rpc.AcceptStat(d.Uint32()), d.Rest()
}

func decode[R any](t testing.TB, results []byte, read func(io.Reader) (R, int64, error)) R {
	t.Helper()
	r := bytes.NewReader(results)
	res, _, err := read(r)
	if err != nil || r.Len() > 0 {
		t.Fatalf("results %x: %v, %d bytes follow", results, err, r.Len())
	}
	return res
}

func (s *server) mnt(path string) mount.Mountres3 {
	s.t.Helper()
	args := xdr.NewEncoder(nil)
	args.String(path)
	stat, results := s.call(procMnt, args.Bytes())
	if stat != rpc.Success {
		s.t.Fatalf("MNT %q: accept_stat %d", path, stat)
	}
	return decode(s.t, results, mount.ReadMountres3)
}

// handle returns the handle that a path within /data must have.
func (s *server) handle(names ...string) []byte {
	var h [volume.HandleBytes]byte
	s.v.View(func(tx *volume.Tx) {
		n, _ := tx.Inode(tx.Exports()[0].Root, 0)
		for _, name := range names {
			n, _ = tx.Lookup(nil, n, name)
		}
		h = volume.EncodeHandle(volume.Handle{Volume: testVolume, Export: volume.ExportID("/data"), Ino: n.Ino, Gen: n.Gen})
	})
	return h[:]
}

func TestMnt(t *testing.T) {
	s := newServer(t)
	for path, want := range map[string][]byte{
		"/data":               s.handle(),
		"/data/":              s.handle(),
		"//data/./sub/..":     s.handle(),
		"/data/sub":           s.handle("sub"),
		"/data/sub/below":     s.handle("sub", "below"),
		"/data/private":       s.handle("private"),
		"/hidden/../data/sub": s.handle("sub"),
	} {
		ok, is := s.mnt(path).(*mount.Mountres3_MNT3_OK)
		if !is {
			t.Errorf("MNT %s failed", path)
			continue
		}
		if !bytes.Equal(ok.Mountinfo.Fhandle, want) || !cmp.Equal(ok.Mountinfo.AuthFlavors, []int32{rpc.AuthSys}) {
			t.Errorf("MNT %s: %+v, want handle %x", path, ok.Mountinfo, want)
		}
	}
	for path, want := range map[string]status{
		"":                                  stInval,
		"data":                              stInval,
		"/data\x00":                         stInval,
		"/":                                 stNoEnt,
		"/dat":                              stNoEnt,
		"/data2":                            stNoEnt,
		"/deep":                             stNoEnt,
		"/data/nothing":                     stNoEnt,
		"/data/../nope":                     stNoEnt,
		"/data/file":                        stNotDir,
		"/data/file/x":                      stNotDir,
		"/data/link":                        stNotDir,
		"/data/link/x":                      stNotDir,
		"/hidden":                           stAccess,
		"/hidden/nothing":                   stAccess,
		"/data/" + strings.Repeat("n", 256): stNameTooLong,
	} {
		if res := s.mnt(path); status(res.GetFhsStatus()) != want {
			t.Errorf("MNT %.40q: status %d, want %d", path, res.GetFhsStatus(), want)
		}
	}
}

func TestFind(t *testing.T) {
	table := []volume.Export{{ID: 1, Path: "/"}, {ID: 2, Path: "/a"}, {ID: 3, Path: "/a/b"}}
	for path, want := range map[string]struct {
		id    uint32
		below string
	}{
		"/": {1, ""}, "/x/y": {1, "x/y"}, "/a": {2, ""}, "/ab": {1, "ab"}, "/a/c": {2, "c"}, "/a/b": {3, ""}, "/a/b/c/d": {3, "c/d"},
	} {
		if e, below, ok := find(table, path); !ok || e.ID != want.id || below != want.below {
			t.Errorf("%s: export %d and %q, want %d and %q", path, e.ID, below, want.id, want.below)
		}
	}
	if _, _, ok := find(table[1:], "/b"); ok {
		t.Error("/b was found")
	}
}

func TestOtherProcedures(t *testing.T) {
	s := newServer(t)
	path := xdr.NewEncoder(nil)
	path.String("/data")
	for _, c := range []struct {
		name string
		proc uint32
		args []byte
		want rpc.AcceptStat
	}{
		{"NULL", procNull, nil, rpc.Success},
		{"UMNT", procUmnt, path.Bytes(), rpc.Success},
		{"UMNTALL", procUmntAll, nil, rpc.Success},
		{"MNT without a path", procMnt, nil, rpc.GarbageArgs},
		{"UMNT without a path", procUmnt, nil, rpc.GarbageArgs},
		{"no procedure", 6, nil, rpc.ProcUnavail},
	} {
		if stat, results := s.call(c.proc, c.args); stat != c.want || len(results) > 0 {
			t.Errorf("%s: accept_stat %d, results %x", c.name, stat, results)
		}
	}
	_, results := s.call(procDump, nil)
	if list := decode(t, results, mount.ReadMountlist); list != nil {
		t.Errorf("DUMP: %+v", list)
	}
	_, results = s.call(procExport, nil)
	var paths []string
	for e := decode(t, results, mount.ReadExports); e != nil; e = e.ExNext {
		paths = append(paths, e.ExDir)
	}
	if diff := cmp.Diff([]string{"/data", "/deep/er", "/hidden"}, paths); diff != "" {
		t.Errorf("EXPORT: %s", diff)
	}
}

func FuzzCall(f *testing.F) {
	for _, path := range []string{"/data", "/data/sub/below", "/hidden", "//data/../data/link"} {
		args := xdr.NewEncoder(nil)
		args.String(path)
		f.Add(uint32(procMnt), args.Bytes())
	}
	f.Add(uint32(procExport), []byte{})
	s := newServer(f)
	f.Fuzz(func(t *testing.T, proc uint32, args []byte) {
		s.t = t
		stat, results := s.call(proc, args)
		if stat != rpc.Success || proc != procMnt {
			return
		}
		if ok, is := decode(t, results, mount.ReadMountres3).(*mount.Mountres3_MNT3_OK); is {
			h, errno := volume.DecodeHandle(ok.Mountinfo.Fhandle)
			if errno != volume.OK || h.Export == volume.ExportID("/hidden") {
				t.Errorf("handle %+v (%v)", h, errno)
			}
		}
	})
}
