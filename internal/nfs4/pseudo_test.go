package nfs4

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/buildbarn/go-xdr/pkg/protocols/nfsv4"

	"holdfast/internal/rpc"
	"holdfast/internal/volume"
)

func exportAt(path string) volume.ExportSpec { return volume.ExportSpec{Path: path, Mode: 0o777} }

func (c *client) list(ops ...nfsv4.NfsArgop4) []string {
	c.t.Helper()
	res := c.ok(append(ops, readdirOp(0, 0, 8192, attrFileID, attrMountedOnFileID, attrFSID, attrType, attrSpaceFree))...)
	var names []string
	for _, e := range entriesOf(res[len(res)-1]) {
		names = append(names, e.Name)
	}
	slices.Sort(names)
	return names
}

func (c *client) attr(attr uint, ops ...nfsv4.NfsArgop4) uint64 {
	c.t.Helper()
	res := c.ok(append(ops, getattr(attr))...)
	return uintAttr(c.t, attrsOf(res[len(res)-1]))
}

// fsid returns the minor part of the fsid: the export.
func (c *client) fsid(ops ...nfsv4.NfsArgop4) uint32 {
	c.t.Helper()
	res := c.ok(append(ops, getattr(attrFSID))...)
	vals := attrsOf(res[len(res)-1]).AttrVals
	if major := binary.BigEndian.Uint64(vals); major != testVolume {
		c.t.Errorf("fsid major %d, want %d", major, testVolume)
	}
	return uint32(binary.BigEndian.Uint64(vals[8:]))
}

func TestPseudoTree(t *testing.T) {
	s := newServer(t)
	s.setExports(exportAt("/a/b"), exportAt("/a-c"), exportAt("/a/b/in/ner"), exportAt("/x/y/z"), exportAt("/hidden/h"))
	s.rules = slices.DeleteFunc(s.rules, func(r volume.Rule) bool { return r.Export == volume.ExportID("/hidden/h") })
	c := s.newClient("a")
	root := putrootfh()
	if got := c.list(root); !slices.Equal(got, []string{"a", "a-c", "x"}) {
		t.Errorf("root lists %q", got)
	}
	if got := c.list(root, lookup("a")); !slices.Equal(got, []string{"b"}) {
		t.Errorf("/a lists %q", got)
	}
	for path, fsid := range map[string][]nfsv4.NfsArgop4{
		"":            {root},
		"/a/b":        {root, lookup("a"), lookup("b")},
		"/a-c":        {root, lookup("a-c")},
		"/a/b/in/ner": {root, lookup("a"), lookup("b"), lookup("in"), lookup("ner")},
		"/x/y/z":      {root, lookup("x"), lookup("y"), lookup("z")},
	} {
		want := volume.ExportID(path)
		if path == "" {
			want = 0
		}
		if got := c.fsid(fsid...); got != want {
			t.Errorf("%s: fsid %d, want %d", path, got, want)
		}
	}
	// Upwards: out of the nested export into the one around it, out of that into the pseudo file system, to the root and no further.
	up := []nfsv4.NfsArgop4{root, lookup("a"), lookup("b"), lookup("in"), lookup("ner"), lookupp()}
	if got := c.fsid(up...); got != volume.ExportID("/a/b") {
		t.Errorf("above /a/b/in/ner: fsid %d", got)
	}
	up = append(up, lookupp(), lookupp())
	if got := c.list(up...); !slices.Equal(got, []string{"b"}) {
		t.Errorf("above /a/b: %q", got)
	}
	up = append(up, lookupp())
	c.ok(up...)
	c.want(volume.ErrNoEnt, append(up, lookupp())...)

	// What an export's root is mounted on has the number that READDIR above it gives.
	if got, want := c.attr(attrMountedOnFileID, root, lookup("a-c")), uint64(pseudoIno("/a-c")); got != want {
		t.Errorf("mounted_on_fileid %d, want %d", got, want)
	}
	inner := []nfsv4.NfsArgop4{root, lookup("a"), lookup("b"), lookup("in"), lookup("ner")}
	if got, want := c.attr(attrMountedOnFileID, inner...), c.attr(attrFileID, inner...); got != want {
		t.Errorf("mounted_on_fileid of a nested export %d, want %d", got, want)
	}

	c.want(volume.ErrNoEnt, root, lookup("hidden"))
	c.want(volume.ErrNoEnt, root, lookup("missing"))
	c.want(volume.ErrROFS, root, mkdir("d", 0o755))
	c.want(volume.ErrROFS, root, remove("a"))
	c.want(volume.ErrROFS, root, savefh(), rename("a", "b"))
	c.want(volume.ErrROFS, root, setattr(nfsv4.Stateid4{}, modeAttr(0o700)))
	c.want(volume.ErrXDev, root, lookup("a-c"), savefh(), root, lookup("a"), lookup("b"), rename("x", "y"))
	access := c.ok(root, &nfsv4.NfsArgop4_OP_ACCESS{Opaccess: nfsv4.Access4args{Access: 0x3f}})
	if got := access[1].(*nfsv4.NfsResop4_OP_ACCESS).Opaccess.(*nfsv4.Access4res_NFS4_OK).Resok4; got.Access != accessRead|accessLookup {
		t.Errorf("ACCESS on the root: %+v", got)
	}
}

func TestPseudoHandlesSurviveOtherExports(t *testing.T) {
	s := newServer(t)
	s.setExports(exportAt("/a/b"), exportAt("/c"))
	c := s.newClient("a")
	fh := fhOf(c.ok(putrootfh(), lookup("a"), getfh())[2])
	root := c.attr(attrChange, putrootfh())
	s.setExports(exportAt("/0"), exportAt("/a/b"))
	c.ok(putfh(fh), lookup("b"))
	if c.attr(attrChange, putrootfh()) == root {
		t.Error("the root lists something else, but its change attribute is the same")
	}
	s.setExports(exportAt("/c"))
	c.want(errStale, putfh(fh))
}

func TestExportOfTheWholeVolume(t *testing.T) {
	s := newServer(t)
	s.setExports(volume.ExportSpec{Path: "/"})
	c := s.newClient("a")
	if got := c.fsid(putrootfh()); got != volume.ExportID("/") {
		t.Errorf("root has fsid %d", got)
	}
	if got := c.list(putrootfh()); !slices.Equal(got, []string{"data"}) {
		t.Errorf("root lists %q", got)
	}
	c.want(volume.ErrNoEnt, putrootfh(), lookupp())
}

func TestHandleChecks(t *testing.T) {
	s := newServer(t)
	s.setExports(exportAt("/data"), exportAt("/other"))
	c := s.newClient("a")
	fh := c.create("f", "x")
	h, _ := volume.DecodeHandle(fh)
	variant := func(change func(*volume.Handle)) []byte {
		v := h
		change(&v)
		b := volume.EncodeHandle(v)
		return b[:]
	}
	c.want(volume.ErrBadHandle, putfh([]byte("nonsense")))
	c.want(volume.ErrBadHandle, putfh(nil))
	c.want(errStale, putfh(variant(func(h *volume.Handle) { h.Volume++ })))
	c.want(errStale, putfh(variant(func(h *volume.Handle) { h.Ino += 1000 })))
	c.want(errStale, putfh(variant(func(h *volume.Handle) { h.Gen++ })))
	c.want(errStale, putfh(variant(func(h *volume.Handle) { h.Export++ })))
	c.want(errStale, putfh(variant(func(h *volume.Handle) { h.Export = 0 })))
	s.rules = s.rules[1:] // no longer /data
	c.want(volume.ErrAccess, putfh(fh))
}

func TestReadOnlyExport(t *testing.T) {
	s := newServer(t)
	c := s.newClient("a")
	fh := c.create("f", "content")
	dir := c.data()
	s.rules[0].ReadOnly = true
	c.want(volume.ErrROFS, putfh(dir), mkdir("d", 0o755))
	c.want(volume.ErrROFS, putfh(dir), remove("f"))
	c.want(volume.ErrROFS, putfh(dir), open("o", "f", 2, 0, noCreate()))
	c.want(volume.ErrROFS, putfh(dir), open("o", "g", 1, 0, unchecked(nfsv4.Fattr4{})))
	c.want(volume.ErrROFS, putfh(dir), open("o", "f", 1, 0, unchecked(sizeAttr(0))))
	c.want(volume.ErrROFS, putfh(fh), write(nfsv4.Stateid4{}, 0, "x"))
	c.want(volume.ErrROFS, putfh(fh), setattr(nfsv4.Stateid4{}, modeAttr(0o600)))
	c.want(volume.ErrROFS, putfh(fh), &nfsv4.NfsArgop4_OP_ALLOCATE{Opallocate: nfsv4.Allocate4args{AaLength: 1}})
	c.want(volume.ErrROFS, putfh(fh), savefh(), putfh(dir), &nfsv4.NfsArgop4_OP_LINK{Oplink: nfsv4.Link4args{Newname: "l"}})
	c.ok(putfh(dir), open("o", "f", 1, 0, noCreate()))
	access := c.ok(putfh(fh), &nfsv4.NfsArgop4_OP_ACCESS{Opaccess: nfsv4.Access4args{Access: 0x3f}})
	if got := access[1].(*nfsv4.NfsResop4_OP_ACCESS).Opaccess.(*nfsv4.Access4res_NFS4_OK).Resok4; got.Access != accessRead || got.Supported != accessFileBits {
		t.Errorf("ACCESS: %+v", got)
	}
}

func TestSquash(t *testing.T) {
	owner := func(c *client, name string) string {
		vals := attrsOf(c.ok(putfh(c.data()), lookup(name), getattr(attrOwner))[2]).AttrVals
		return string(vals[4 : 4+binary.BigEndian.Uint32(vals)])
	}
	for _, tc := range []struct {
		name   string
		squash volume.SquashMode
		auth   rpc.Auth
		want   string
	}{
		{"root", volume.SquashRoot, rpc.Auth{Flavor: rpc.AuthSys}, "65534"},
		{"user", volume.SquashRoot, rpc.Auth{Flavor: rpc.AuthSys, UID: 1000}, "1000"},
		{"trusted root", volume.SquashNone, rpc.Auth{Flavor: rpc.AuthSys}, "0"},
		{"everybody", volume.SquashAll, rpc.Auth{Flavor: rpc.AuthSys, UID: 1000}, "65534"},
		{"nobody", volume.SquashNone, rpc.Auth{Flavor: rpc.AuthNone}, "65534"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newServer(t)
			s.rules[0].Squash, s.auth = tc.squash, tc.auth
			c := s.newClient("a")
			c.create("f", "")
			if got := owner(c, "f"); got != tc.want {
				t.Errorf("owner %s, want %s", got, tc.want)
			}
		})
	}
}
