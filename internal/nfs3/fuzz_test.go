package nfs3

import (
	"bytes"
	"io"
	"testing"

	"github.com/buildbarn/go-xdr/pkg/protocols/nfsv3"

	"holdfast/internal/rpc"
)

// replies decodes the reply of each procedure with go-xdr.
var replies = map[uint32]func(io.Reader) error{
	procGetAttr:     discard(nfsv3.ReadGetattr3res),
	procSetAttr:     discard(nfsv3.ReadSetattr3res),
	procLookup:      discard(nfsv3.ReadLookup3res),
	procAccess:      discard(nfsv3.ReadAccess3res),
	procReadlink:    discard(nfsv3.ReadReadlink3res),
	procRead:        discard(nfsv3.ReadRead3res),
	procWrite:       discard(nfsv3.ReadWrite3res),
	procCreate:      discard(nfsv3.ReadCreate3res),
	procMkdir:       discard(nfsv3.ReadMkdir3res),
	procSymlink:     discard(nfsv3.ReadSymlink3res),
	procMknod:       discard(nfsv3.ReadMknod3res),
	procRemove:      discard(nfsv3.ReadRemove3res),
	procRmdir:       discard(nfsv3.ReadRmdir3res),
	procRename:      discard(nfsv3.ReadRename3res),
	procLink:        discard(nfsv3.ReadLink3res),
	procReaddir:     discard(nfsv3.ReadReaddir3res),
	procReaddirplus: discard(nfsv3.ReadReaddirplus3res),
	procFSStat:      discard(nfsv3.ReadFsstat3res),
	procFSInfo:      discard(nfsv3.ReadFsinfo3res),
	procPathConf:    discard(nfsv3.ReadPathconf3res),
	procCommit:      discard(nfsv3.ReadCommit3res),
}

func discard[R any](read func(io.Reader) (R, int64, error)) func(io.Reader) error {
	return func(r io.Reader) error {
		_, _, err := read(r)
		return err
	}
}

// arguments is a set of arguments of one procedure, for decoding and encoding.
type arguments interface {
	ReadFrom(io.Reader) (int64, error)
	WriteTo(io.Writer) (int64, error)
}

var argumentTypes = map[uint32]func() arguments{
	procGetAttr:     func() arguments { return &nfsv3.Getattr3args{} },
	procSetAttr:     func() arguments { return &nfsv3.Setattr3args{} },
	procLookup:      func() arguments { return &nfsv3.Lookup3args{} },
	procAccess:      func() arguments { return &nfsv3.Access3args{} },
	procReadlink:    func() arguments { return &nfsv3.Readlink3args{} },
	procRead:        func() arguments { return &nfsv3.Read3args{} },
	procWrite:       func() arguments { return &nfsv3.Write3args{} },
	procCreate:      func() arguments { return &nfsv3.Create3args{} },
	procMkdir:       func() arguments { return &nfsv3.Mkdir3args{} },
	procSymlink:     func() arguments { return &nfsv3.Symlink3args{} },
	procMknod:       func() arguments { return &nfsv3.Mknod3args{} },
	procRemove:      func() arguments { return &nfsv3.Remove3args{} },
	procRmdir:       func() arguments { return &nfsv3.Rmdir3args{} },
	procRename:      func() arguments { return &nfsv3.Rename3args{} },
	procLink:        func() arguments { return &nfsv3.Link3args{} },
	procReaddir:     func() arguments { return &nfsv3.Readdir3args{} },
	procReaddirplus: func() arguments { return &nfsv3.Readdirplus3args{} },
	procFSStat:      func() arguments { return &nfsv3.Fsstat3args{} },
	procFSInfo:      func() arguments { return &nfsv3.Fsinfo3args{} },
	procPathConf:    func() arguments { return &nfsv3.Pathconf3args{} },
	procCommit:      func() arguments { return &nfsv3.Commit3args{} },
}

// FuzzCall sends arbitrary arguments to every procedure. Nothing may panic; arguments that go-xdr takes must not be garbage to us; and the
// reply must be one that go-xdr decodes to its end.
func FuzzCall(f *testing.F) {
	seed := newServer(f)
	root := seed.root("/data")
	file := seed.create(root, "f", attrs{})
	seed.write(file, 0, []byte("content"))
	for _, record := range mutating(seed) {
		var call rpc.Call
		if err := rpc.ParseCall(record, &call); err != nil {
			f.Fatal(err)
		}
		f.Add(call.Proc, call.Args)
	}
	for proc, args := range map[uint32]io.WriterTo{
		procGetAttr:     &nfsv3.Getattr3args{Object: root},
		procLookup:      &nfsv3.Lookup3args{What: in(root, "f")},
		procAccess:      &nfsv3.Access3args{Object: file, Access: 63},
		procReadlink:    &nfsv3.Readlink3args{Symlink: file},
		procRead:        &nfsv3.Read3args{File: file, Count: 5},
		procReaddir:     &nfsv3.Readdir3args{Dir: root, Count: 500},
		procReaddirplus: &nfsv3.Readdirplus3args{Dir: root, Dircount: 500, Maxcount: 500},
		procFSInfo:      &nfsv3.Fsinfo3args{Fsroot: root},
		procCommit:      &nfsv3.Commit3args{File: file},
	} {
		f.Add(proc, encode(f, args))
	}
	f.Add(uint32(procNull), []byte{})
	f.Add(uint32(procMknod), encode(f, &nfsv3.Mknod3args{Where: in(root, "n"), What: &nfsv3.Mknoddata3_default{Type: 1}}))
	f.Add(uint32(99), []byte{})
	f.Fuzz(func(t *testing.T, proc uint32, args []byte) {
		if len(args) > 1<<16 {
			return
		}
		s := newServer(t)
		file := s.create(s.root("/data"), "f", attrs{})
		s.write(file, 0, []byte("content"))
		s.full = len(args)%2 == 1
		reply := s.send(s.record(1, proc, args))
		stat, results := s.results(reply)
		if stat != rpc.Success && len(results) > 0 {
			t.Errorf("accept_stat %d is followed by %x", stat, results)
		}
		if proc == procNull || int(proc) >= len(procedures) {
			return
		}
		parsed := argumentTypes[proc]()
		if _, err := parsed.ReadFrom(bytes.NewReader(args)); err == nil && stat == rpc.GarbageArgs && !stricter(parsed) {
			t.Errorf("garbage to us, but not to go-xdr: %+v", parsed)
		}
		if stat != rpc.Success {
			return
		}
		r := bytes.NewReader(results)
		if err := replies[proc](r); err != nil && !lists(proc) {
			t.Errorf("reply %x: %v", results, err)
		} else if err == nil && r.Len() > 0 {
			t.Errorf("%d bytes follow the reply", r.Len())
		}
	})
}

// lists reports whether replies of a procedure contain names or targets, of which go-xdr takes ASCII only.
func lists(proc uint32) bool {
	return proc == procReaddir || proc == procReaddirplus || proc == procReadlink
}

// stricter reports whether we may refuse arguments that go-xdr takes: values of enumerations that the protocol does not have.
func stricter(args arguments) bool {
	switch a := args.(type) {
	case *nfsv3.Write3args:
		return a.Stable < 0 || a.Stable > nfsv3.FILE_SYNC
	case *nfsv3.Setattr3args:
		return badTimes(a.NewAttributes)
	case *nfsv3.Mkdir3args:
		return badTimes(a.Attributes)
	case *nfsv3.Symlink3args:
		return badTimes(a.Symlink.SymlinkAttributes)
	case *nfsv3.Create3args:
		switch how := a.How.(type) {
		case *nfsv3.Createhow3_UNCHECKED:
			return badTimes(how.ObjAttributes)
		case *nfsv3.Createhow3_GUARDED:
			return badTimes(how.ObjAttributes)
		}
	case *nfsv3.Mknod3args:
		switch what := a.What.(type) {
		case *nfsv3.Mknoddata3_NF3CHR:
			return badTimes(what.Device.DevAttributes)
		case *nfsv3.Mknoddata3_NF3BLK:
			return badTimes(what.Device.DevAttributes)
		case *nfsv3.Mknoddata3_NF3SOCK:
			return badTimes(what.PipeAttributes)
		case *nfsv3.Mknoddata3_NF3FIFO:
			return badTimes(what.PipeAttributes)
		}
	}
	return false
}

func badTimes(a nfsv3.Sattr3) bool {
	for _, t := range []any{a.Atime, a.Mtime} {
		switch t := t.(type) {
		case *nfsv3.SetAtime_default:
			if t.SetIt != nfsv3.DONT_CHANGE && t.SetIt != nfsv3.SET_TO_SERVER_TIME {
				return true
			}
		case *nfsv3.SetMtime_default:
			if t.SetIt != nfsv3.DONT_CHANGE && t.SetIt != nfsv3.SET_TO_SERVER_TIME {
				return true
			}
		}
	}
	return false
}
