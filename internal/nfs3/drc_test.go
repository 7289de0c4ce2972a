package nfs3

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"github.com/buildbarn/go-xdr/pkg/protocols/nfsv3"
	"github.com/google/go-cmp/cmp"

	"holdfast/internal/rpc"
	"holdfast/internal/store"
	"holdfast/internal/volume"
)

// mutating returns one call of each mutating procedure that can succeed once but not twice, or whose repetition would show.
func mutating(s *server) map[string][]byte {
	root := s.root("/data")
	file, guarded := s.create(root, "file", attrs{}), s.create(root, "guarded", attrs{})
	s.create(root, "victim", attrs{})
	s.create(root, "old", attrs{})
	s.mkdir(root, "emptydir")
	sattr := attrs{mode: p32(0o600)}.sattr()
	ctime := s.getattr(guarded).Ctime
	calls := map[string][]byte{}
	add := func(name string, proc uint32, args []byte) {
		s.xid++
		calls[name] = s.record(s.xid, proc, args)
	}
	add("SETATTR", procSetAttr, encode(s.t, &nfsv3.Setattr3args{Object: guarded, NewAttributes: sattr, Guard: &nfsv3.Sattrguard3_TRUE{ObjCtime: ctime}}))
	add("WRITE", procWrite, encode(s.t, &nfsv3.Write3args{File: file, Count: 3, Data: []byte("abc")}))
	add("CREATE", procCreate, encode(s.t, &nfsv3.Create3args{Where: in(root, "created"), How: &nfsv3.Createhow3_GUARDED{ObjAttributes: sattr}}))
	add("MKDIR", procMkdir, encode(s.t, &nfsv3.Mkdir3args{Where: in(root, "made"), Attributes: sattr}))
	add("SYMLINK", procSymlink, encode(s.t, &nfsv3.Symlink3args{Where: in(root, "link"), Symlink: nfsv3.Symlinkdata3{SymlinkAttributes: sattr, SymlinkData: "x"}}))
	add("MKNOD", procMknod, encode(s.t, &nfsv3.Mknod3args{Where: in(root, "fifo"), What: &nfsv3.Mknoddata3_NF3FIFO{PipeAttributes: sattr}}))
	add("REMOVE", procRemove, encode(s.t, &nfsv3.Remove3args{Object: in(root, "victim")}))
	add("RMDIR", procRmdir, encode(s.t, &nfsv3.Rmdir3args{Object: in(root, "emptydir")}))
	add("RENAME", procRename, encode(s.t, &nfsv3.Rename3args{From: in(root, "old"), To: in(root, "new")}))
	add("LINK", procLink, encode(s.t, &nfsv3.Link3args{File: file, Link: in(root, "hardlink")}))
	return calls
}

func (s *server) status(reply []byte) status {
	s.t.Helper()
	stat, results := s.results(reply)
	if stat != rpc.Success || len(results) < statusBytes {
		s.t.Fatalf("accept_stat %d, %d bytes", stat, len(results))
	}
	return status(uint32(results[0])<<24 | uint32(results[1])<<16 | uint32(results[2])<<8 | uint32(results[3]))
}

// snapshot describes all files: every name with its inode.
func (s *server) snapshot() string {
	s.t.Helper()
	var b bytes.Buffer
	var walk func(tx *volume.Tx, n *volume.Inode, path string)
	walk = func(tx *volume.Tx, n *volume.Inode, path string) {
		fmt.Fprintf(&b, "%s %+v\n", path, *n)
		if n.Type != volume.TypeDir {
			return
		}
		tx.ReadDir(n, 0, func(e volume.DirEntry) bool {
			child, errno := tx.Inode(e.Ino, 0)
			if errno != volume.OK {
				s.t.Fatalf("%s/%s: %v", path, e.Name, errno)
			}
			walk(tx, child, path+"/"+e.Name)
			return true
		})
	}
	s.v.View(func(tx *volume.Tx) {
		root, _ := tx.Inode(volume.RootIno, 0)
		walk(tx, root, "")
	})
	return b.String()
}

// TestExactlyOnce repeats every mutating call: at once, from another port, and on the replica after a restart. Each repetition gets the
// recorded reply and changes nothing.
func TestExactlyOnce(t *testing.T) {
	s := newServer(t)
	for name, record := range mutating(s) {
		t.Run(name, func(t *testing.T) {
			s.t = t
			s.client = netip.MustParseAddrPort("10.0.0.1:700")
			first := s.send(record)
			if st := s.status(first); st != stOK {
				t.Fatalf("status %d", st)
			}
			before := s.snapshot()
			for _, how := range []string{"at once", "from another port", "after a restart"} {
				switch how {
				case "from another port":
					s.client = netip.MustParseAddrPort("10.0.0.1:999")
				case "after a restart":
					s.open()
				}
				index := s.index
				if again := s.send(record); !bytes.Equal(again, first) {
					t.Errorf("%s: reply %x, want %x", how, again, first)
				}
				if s.index != index+1 {
					t.Errorf("%s: the repetition was not decided in the log", how)
				}
				if s.snapshot() != before {
					t.Errorf("%s: the repetition changed something", how)
				}
			}
		})
	}
}

// TestNotADuplicate checks each part of the key.
func TestNotADuplicate(t *testing.T) {
	s := newServer(t)
	root := s.root("/data")
	remove := func(name string) []byte { return encode(t, &nfsv3.Remove3args{Object: in(root, name)}) }
	s.create(root, "f", attrs{})
	s.create(root, "g", attrs{})
	const xid = 1 << 20
	if st := s.status(s.send(s.record(xid, procRemove, remove("f")))); st != stOK {
		t.Fatal(st)
	}
	send := func(what string, xid, proc uint32, args []byte, want status) {
		t.Helper()
		if st := s.status(s.send(s.record(xid, proc, args))); st != want {
			t.Errorf("%s: status %d, want %d", what, st, want)
		}
	}
	send("another xid", xid+1, procRemove, remove("f"), stNoEnt)
	send("another procedure", xid, procRmdir, remove("f"), stNoEnt)
	send("other arguments", xid, procRemove, remove("g"), stOK)
	s.as(5, 5, func() { send("another user", xid, procRemove, remove("f"), stNoEnt) })
	s.client = netip.MustParseAddrPort("10.0.0.2:700")
	send("another client", xid, procRemove, remove("f"), stNoEnt)
	s.client = netip.MustParseAddrPort("10.0.0.1:700")
	send("the same call", xid, procRemove, remove("f"), stOK)
}

// TestFailuresAreRecorded checks that a call that failed is not executed later, when it could succeed.
func TestFailuresAreRecorded(t *testing.T) {
	s := newServer(t)
	root := s.root("/data")
	record := s.record(5000, procRemove, encode(t, &nfsv3.Remove3args{Object: in(root, "f")}))
	if st := s.status(s.send(record)); st != stNoEnt {
		t.Fatal(st)
	}
	s.create(root, "f", attrs{})
	if st := s.status(s.send(record)); st != stNoEnt {
		t.Errorf("status %d", st)
	}
	wantStatus(t, "the file", s.lookup(root, "f"), stOK)
}

func TestGarbageIsNotRecorded(t *testing.T) {
	s := newServer(t)
	root := s.root("/data")
	args := encode(t, &nfsv3.Remove3args{Object: in(root, "f")})
	for range 2 {
		if stat, _ := s.results(s.send(s.record(1, procRemove, args[:len(args)-4]))); stat != rpc.GarbageArgs {
			t.Errorf("accept_stat %d", stat)
		}
	}
	if n := len(s.p.drc.entries); n != 0 {
		t.Errorf("%d replies recorded", n)
	}
	if worthRecording([]byte{0, 0, 0x27, 0x18, 0}) {
		t.Error("NFS3ERR_JUKEBOX would be recorded")
	}
}

// TestRefusedCallsAreNotLogged checks that a client without access cannot make the log grow.
func TestRefusedCallsAreNotLogged(t *testing.T) {
	s := newServer(t)
	before := s.index
	for path, want := range map[string]status{"/ro": stROFS, "/hidden": stAccess} {
		res := do(s, procRemove, &nfsv3.Remove3args{Object: in(s.root(path), "f")}, nfsv3.ReadRemove3res)
		wantStatus(t, path, res, want)
	}
	if s.index != before {
		t.Error("the calls were logged")
	}
}

// checkCache compares the lists with the map and the limits.
func checkCache(t *testing.T, rc *replyCache) {
	t.Helper()
	n, last := 0, uint64(0)
	perClient := map[[16]byte]int{}
	for e := rc.oldest; e != nil; e = e.next {
		if e.index <= last {
			t.Fatalf("entry %d follows %d", e.index, last)
		}
		if rc.entries[e.key] != e {
			t.Fatalf("entry %d is not in the map", e.index)
		}
		if e.next == nil && rc.youngest != e {
			t.Fatal("the list does not end with the youngest")
		}
		last = e.index
		perClient[e.key.client]++
		n++
	}
	if n != len(rc.entries) || n > drcEntries {
		t.Fatalf("%d entries in the list, %d in the map, limit %d", n, len(rc.entries), drcEntries)
	}
	if len(perClient) != len(rc.clients) {
		t.Fatalf("%d clients in the list, %d in the map", len(perClient), len(rc.clients))
	}
	for client, cl := range rc.clients {
		n, last := 0, uint64(0)
		for e := cl.oldest; e != nil; e = e.younger {
			if e.index <= last || e.key.client != client {
				t.Fatalf("client's entry %d follows %d", e.index, last)
			}
			last = e.index
			n++
		}
		if n != cl.count || n != perClient[client] || n > drcClientEntries || cl.youngest.index != last {
			t.Fatalf("client has %d entries, counted %d, limit %d", n, cl.count, drcClientEntries)
		}
	}
}

// fill makes n calls that fail, so that they are quick, from a client.
func (s *server) fill(client string, n int) {
	s.t.Helper()
	s.client = netip.MustParseAddrPort(client)
	args := encode(s.t, &nfsv3.Remove3args{Object: in(s.root("/data"), "nothing")})
	for range n {
		s.xid++
		s.send(s.record(s.xid, procRemove, args))
	}
}

// TestEverythingUnderWayIsRecognised repeats the oldest of all calls that a client can have under way when a node dies.
func TestEverythingUnderWayIsRecognised(t *testing.T) {
	s := newServer(t)
	root := s.root("/data")
	s.create(root, "f", attrs{})
	oldest := s.record(1<<30, procRemove, encode(t, &nfsv3.Remove3args{Object: in(root, "f")}))
	if st := s.status(s.send(oldest)); st != stOK {
		t.Fatal(st)
	}
	const connections = 16
	s.fill(s.client.String(), connections*rpc.DefaultMaxInflight-2)
	s.create(root, "f", attrs{})
	if st := s.status(s.send(oldest)); st != stOK {
		t.Errorf("status %d", st)
	}
	wantStatus(t, "the file", s.lookup(root, "f"), stOK)
}

func TestCacheLimits(t *testing.T) {
	s := newServer(t)
	s.fill("10.0.0.1:1", drcClientEntries+10)
	checkCache(t, &s.p.drc)
	if n := len(s.p.drc.entries); n != drcClientEntries {
		t.Errorf("one client holds %d entries, limit %d", n, drcClientEntries)
	}
	s.fill("10.0.0.2:1", 3)
	quiet := netip.MustParseAddr("10.0.0.2").As16()
	for i := range 5 {
		s.fill(fmt.Sprintf("10.0.1.%d:1", i), drcClientEntries+1)
		checkCache(t, &s.p.drc)
	}
	if n := len(s.p.drc.entries); n != drcEntries {
		t.Errorf("%d entries, want %d", n, drcEntries)
	}
	if cl := s.p.drc.clients[quiet]; cl == nil || cl.count != 3 {
		t.Error("the quiet client lost entries")
	}
	kept := s.p.drc
	s.open()
	checkCache(t, &s.p.drc)
	for e, f := kept.oldest, s.p.drc.oldest; e != nil || f != nil; e, f = e.next, f.next {
		if e == nil || f == nil || e.key != f.key || e.index != f.index || !bytes.Equal(e.reply, f.reply) {
			t.Fatal("what was loaded differs from what was there")
		}
	}
}

// TestCacheOfManyClients goes beyond the number of clients among which the cache is shared out.
func TestCacheOfManyClients(t *testing.T) {
	s := newServer(t)
	for i := range drcEntries + 50 {
		s.fill(fmt.Sprintf("10.1.%d.%d:1", i/256, i%256), 1)
	}
	checkCache(t, &s.p.drc)
	if n := len(s.p.drc.clients); n != drcEntries {
		t.Errorf("%d clients, want %d", n, drcEntries)
	}
	if _, there := s.p.drc.clients[netip.MustParseAddr("10.1.0.49").As16()]; there {
		t.Error("the oldest entries are still there")
	}
}

// TestReplicasAgree applies the log of one replica to another and compares all of their metadata.
func TestReplicasAgree(t *testing.T) {
	s := newServer(t)
	for _, record := range mutating(s) {
		s.send(record)
		s.send(record)
	}
	for i := range 5 {
		s.fill(fmt.Sprintf("10.0.2.%d:1", i), 900)
	}
	other := &server{t: t, store: store.NewMem()}
	other.open()
	for i, e := range s.entries {
		if i == len(s.entries)/2 {
			other.open() // a restart half-way must not matter
		}
		if _, err := other.v.Apply(uint64(i+1), e); err != nil {
			t.Fatal(err)
		}
	}
	want, got := s.metadata(), other.metadata()
	if len(want) < 4096 {
		t.Errorf("only %d keys to compare", len(want))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// metadata returns all that the store holds.
func (s *server) metadata() map[string]string {
	s.t.Helper()
	all := map[string]string{}
	err := s.store.Scan(nil, []byte{0xff}, func(key, value []byte) bool {
		all[string(key)] = string(value)
		return true
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

// TestRestoreDropsReplies: the call that a client repeats may have been undone by the restore.
func TestRestoreDropsReplies(t *testing.T) {
	s := newServer(t)
	s.fill("10.0.2.1:1", 20)
	s.fill("10.0.2.2:1", 20)
	s.apply(&volume.Entry{Kind: volume.EntryRestored, Payload: make([]byte, 8)})
	for range 2 {
		if n := len(s.p.drc.entries); n != 0 {
			t.Errorf("%d replies are left", n)
		}
		checkCache(t, &s.p.drc)
		s.open() // from the metadata
	}
	s.fill("10.0.2.1:1", 3)
	checkCache(t, &s.p.drc)
}
