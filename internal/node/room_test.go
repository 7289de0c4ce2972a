package node

import (
	"bytes"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/config"
	"holdfast/internal/identity"
	"holdfast/internal/replica"
	"holdfast/internal/vfs"
)

// smallDisk stands for the disk of one node, whose other files do not count; those of others are large.
type smallDisk struct {
	node string
	size atomic.Uint64
	// shrunk is the size that it has, once, when more than after bytes of a copy are there: somebody else uses the space.
	after, shrunk uint64
	full          atomic.Bool
}

func (d *smallDisk) space(data string) (free, total uint64, err error) {
	const large = 1 << 40
	if filepath.Base(data) != d.node {
		return large, large, nil
	}
	used := usage(filepath.Join(data, volumesDir)) + usage(filepath.Join(data, trashDir))
	if d.after > 0 && used > d.after && d.full.CompareAndSwap(false, true) {
		d.size.Store(d.shrunk)
	}
	size := d.size.Load()
	return size - min(size, used), size, nil
}

// usage is how many bytes the files of a folder take.
func usage(dir string) (n uint64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // it has gone meanwhile
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			n += uint64(info.Sys().(*syscall.Stat_t).Blocks) * 512
		}
		return nil
	})
	return n
}

// filled makes a cluster of one node with a volume of some 40 MB, of which node b is to get a copy when it joins.
func filled(t *testing.T, d *smallDisk) *testCluster {
	c := newCluster(t, clusterOptions{roles: []cluster.Role{cluster.RoleData}, space: d.space}).startAll()
	cl := c.mount("4.1", "/data")
	for _, name := range []string{"f", "g", "h", "i"} {
		c.mustWrite(cl, name, bytes.Repeat([]byte(name), 10<<20))
	}
	c.join(c.newNode("b"), cluster.RoleData, "")
	c.options.roles = append(c.options.roles, cluster.RoleData)
	return c
}

// noRoom waits until the leader says that node b has no room.
func (c *testCluster) noRoom(what string) {
	c.t.Helper()
	var warned string
	await(c.t, testTimeout, func() bool {
		s, v, err := c.look(c.nodes[0])
		warned = strings.Join(s.Warnings, "\n")
		return err == nil && len(v.NoRoom) == 1 && strings.Contains(v.NoRoom[0], what) && strings.Contains(warned, "volume v: there is too little room for a copy: node b: ")
	}, func() string { return "status does not say that there is no room: " + warned })
}

// TestNoRoom has a node join whose disk has no room for the copy that it is to get: none is begun before it has.
func TestNoRoom(t *testing.T) {
	checkGoroutines(t)
	d := &smallDisk{node: "b"}
	d.size.Store(60 << 20)
	c := filled(t, d)
	c.noRoom("what the volume uses, 40 MiB, ")
	await(t, testTimeout, func() bool {
		s, err := c.nodes[0].api().State(c.context())
		return err == nil && slices.ContainsFunc(s.Events, func(e cluster.Event) bool {
			return e.Node == "b" && strings.Contains(e.Text, "no copy is begun: node b: ")
		})
	}, func() string { return "there is no event" })
	if _, v, err := c.look(c.nodes[0]); err != nil || len(v.Replicas) != 1 || v.Changing {
		t.Errorf("the group has changed: %+v, %v", v.Replicas, err)
	}
	if got := usage(filepath.Join(c.nodes[1].dir, volumesDir)); got > 20<<20 {
		t.Errorf("node b has %d bytes of it", got)
	}
	d.size.Store(1 << 30)
	c.equal()
	if _, v, err := c.look(c.leader()); err != nil || len(v.NoRoom) != 0 {
		t.Errorf("there is room now: %v, %v", v.NoRoom, err)
	}
}

// TestNoLogRoom has a node join on whose disk not even the volume's log fits.
func TestNoLogRoom(t *testing.T) {
	d := &smallDisk{node: "b"}
	d.size.Store(30 << 20)
	c := filled(t, d)
	c.noRoom("30 MiB are free")
	var v api.VolumeStatus
	var err error
	await(t, testTimeout, func() bool { // the leader knows before node b has heard of the volume
		_, v, err = c.look(c.nodes[1])
		return err == nil && v.Role == "none" && len(v.Problems) == 0 && len(v.NoRoom) == 1 && strings.Contains(v.NoRoom[0], "its log alone takes 34 MiB")
	}, func() string { return fmt.Sprintf("node b says %+v, %v", v, err) })
	d.size.Store(1 << 30)
	c.equal()
}

// TestOutgrown has a disk run full while a copy is received: what came is thrown away, and the node goes on. When the disk is larger the copy comes.
func TestOutgrown(t *testing.T) {
	checkGoroutines(t)
	d := &smallDisk{node: "b", after: 15 << 20, shrunk: 45 << 20}
	d.size.Store(200 << 20)
	c := filled(t, d)
	b := c.nodes[1]
	c.logged(b, "THE DISK HAS TOO LITTLE ROOM")
	c.logged(b, "a copy that did not come whole is thrown away")
	c.noRoom("node b: ")
	await(t, testTimeout, func() bool { return usage(filepath.Join(b.dir, volumesDir)) < 15<<20 }, func() string { return "what came is still there" })
	w := c.workload()
	c.busy(w, 100)
	if _, _, err := c.look(b); err != nil {
		t.Fatalf("node b does not go on: %v", err)
	}
	d.size.Store(1 << 30)
	c.inSync(2)
	c.verify(w)
	c.equal()
	if _, err := os.Stat(filepath.Join(b.dir, volumesDir, "v-1", partialFile)); !os.IsNotExist(err) {
		t.Errorf("the mark of a copy that is received: %v", err)
	}
	c.mustStop(b)
	c.start(b)
	c.equal()
}

// TestWithRoom checks which members a group has while there is no room for others.
func TestWithRoom(t *testing.T) {
	const w = 4 | replica.WitnessBit
	tests := []struct{ have, want, lacking, fit []uint64 }{
		{[]uint64{1, 2}, []uint64{1, 2, 3}, nil, []uint64{1, 2, 3}},
		{[]uint64{1, 2}, []uint64{1, 2, 3}, []uint64{3}, []uint64{1, 2}},
		{[]uint64{1, 2, 3}, []uint64{1, 2, 4}, []uint64{4}, []uint64{1, 2, 3}},
		{[]uint64{1, 2, 3}, []uint64{1, 4, 5}, []uint64{4}, []uint64{1, 2, 3, 5}},
		{[]uint64{1}, []uint64{1, 2, w}, []uint64{2}, []uint64{1}},
		{[]uint64{1, 2, w}, []uint64{1, 2, 3}, []uint64{3}, []uint64{1, 2, w}},
	}
	for _, tt := range tests {
		if got := withRoom(tt.have, tt.want, tt.lacking); !slices.Equal(got, tt.fit) {
			t.Errorf("from %v to %v without %v: %v, want %v", tt.have, tt.want, tt.lacking, got, tt.fit)
		}
	}
}

// TestShortages checks when a copy that did not fit may be tried again.
func TestShortages(t *testing.T) {
	var s shortages
	if why := s.waits(1, 100); why != "" || s.discarding(1) {
		t.Errorf("of a volume of which nothing is known: %q", why)
	}
	s.note(1, "too small", 100, true)
	if why := s.waits(1, 100); !strings.Contains(why, "too small; the next try is at ") {
		t.Errorf("after one that did not fit: %q", why)
	}
	if why := s.waits(1, 101); why != "" {
		t.Errorf("after the disk was enlarged: %q", why)
	}
	if !s.discarding(1) || s.discarding(1) {
		t.Error("what came is to be thrown away once")
	}
	for range 10 {
		s.note(1, "too small", 100, true)
	}
	if k := s.known[1]; k.pause != roomPauseMost || time.Until(k.until) < roomPauseMost/2 {
		t.Errorf("after ten of them: %v", k.pause)
	}
	s.fits(1)
	if why := s.waits(1, 100); why != "" {
		t.Errorf("after one that fitted: %q", why)
	}
}

// TestMakeRoom checks what a node frees that starts on a full disk, and that it keeps something for the next time.
func TestMakeRoom(t *testing.T) {
	dir := t.TempDir()
	free := uint64(1 << 30)
	var mu sync.Mutex
	n := &Node{local: &config.Local{Data: dir}, id: &identity.Identity{Node: 2}, log: slog.New(slog.DiscardHandler),
		tuning: tuning{space: func(string) (uint64, uint64, error) { mu.Lock(); defer mu.Unlock(); return free, 2 << 30, nil }}}
	if err := n.keepBallast(); err != nil {
		t.Fatal(err)
	}
	if got := usage(dir); got < ballastBytes {
		t.Fatalf("the ballast takes %d bytes", got)
	}
	// One copy that came in part, and one that is whole.
	for name, m := range map[string]replica.Meta{
		"part-1":  {Conf: replica.ConfState{Voters: []uint64{1}}, Installing: &replica.SnapshotMeta{Index: 7, Term: 1}},
		"whole-2": {Conf: replica.ConfState{Voters: []uint64{1}}},
	} {
		v := filepath.Join(dir, volumesDir, name)
		if err := os.MkdirAll(filepath.Join(v, storeDir), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(v, partialFile), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := (replica.MetaFile{FS: vfs.OS(), Name: filepath.Join(v, metaFile)}).Save(&m); err != nil {
			t.Fatal(err)
		}
	}
	left := func() (names []string) {
		for _, name := range []string{ballastFile, "volumes/part-1/store", "volumes/part-1/receiving", "volumes/whole-2/store", "volumes/whole-2/receiving"} {
			if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
				names = append(names, name)
			}
		}
		return names
	}
	if err := n.makeRoom(); err != nil || len(left()) != 5 {
		t.Fatalf("with space enough, %v is left, %v", left(), err)
	}
	free = 1 << 20
	if err := n.makeRoom(); err != nil || !slices.Equal(left(), []string{"volumes/whole-2/store"}) {
		t.Errorf("without, %v is left, %v", left(), err)
	}
	if err := n.keepBallast(); err != nil || len(left()) != 1 {
		t.Errorf("the ballast is made again on a full disk: %v, %v", left(), err)
	}
}

// TestFullDisk starts a node whose disk is full: its copy is opened when there is space.
func TestFullDisk(t *testing.T) {
	checkGoroutines(t)
	d := &smallDisk{node: "a"}
	d.size.Store(1 << 30)
	c := newCluster(t, clusterOptions{roles: []cluster.Role{cluster.RoleData}, space: d.space}).startAll()
	a := c.nodes[0]
	c.mustStop(a)
	d.size.Store(1)
	c.start(a)
	c.logged(a, "the disk is full, 0 MiB are free")
	if _, v, err := c.look(a); err != nil || len(v.NoRoom) != 1 || !strings.Contains(v.NoRoom[0], "node a: ") {
		t.Errorf("node a says %+v, %v", v, err)
	}
	d.size.Store(1 << 30)
	c.equal()
}

// TestRoomAgain has a node find its disk nearly full while it leads, and room on it when it leads again: nothing is refused then for what was before.
func TestRoomAgain(t *testing.T) {
	checkGoroutines(t)
	d := &smallDisk{node: "a"}
	d.size.Store(1 << 30)
	c := newCluster(t, clusterOptions{space: d.space}).startAll()
	a, b := c.nodes[0], c.nodes[1]
	c.inSync(3)
	c.transfer(a)
	cl := c.mount("4.1", "/data")
	full := func(n *testNode, want bool) {
		t.Helper()
		await(t, testTimeout, func() bool { _, v, err := c.look(n); return err == nil && v.Space.Full == want }, func() string {
			return fmt.Sprintf("node %s does not come to say that growth is refused: %v", n.name, want)
		})
	}
	free, total, err := d.space(a.dir)
	if err != nil {
		t.Fatal(err)
	}
	d.size.Store(total - free + 8<<20) // the reserve is 16 MiB
	full(a, true)
	if err := c.write(cl, "f", make([]byte, 100<<10)); err == nil {
		t.Error("growth is not refused")
	}
	c.transfer(b)
	d.size.Store(1 << 30)
	full(b, false)
	c.transfer(a)
	c.mustWrite(cl, "g", make([]byte, 100<<10))
}

// TestOutgrownByLog has a disk run nearly full while a copy comes entry by entry: it waits until there is more room, and the node goes on.
func TestOutgrownByLog(t *testing.T) {
	checkGoroutines(t)
	d := &smallDisk{node: "b", after: 6 << 20, shrunk: 38 << 20}
	d.size.Store(200 << 20)
	c := newCluster(t, clusterOptions{roles: []cluster.Role{cluster.RoleData}, space: d.space, tuning: tuning{segmentBytes: 1 << 20, retainBytes: 1 << 30, retainMaxBytes: 1 << 30}}).startAll()
	cl := c.mount("4.1", "/data")
	c.mustWrite(cl, "f", bytes.Repeat([]byte("f"), 20<<20))
	b := c.newNode("b")
	c.join(b, cluster.RoleData, "")
	c.options.roles = append(c.options.roles, cluster.RoleData)
	c.logged(b, "which waits for more")
	c.noRoom("node b: ")
	await(t, testTimeout, func() bool {
		_, v, err := c.look(c.nodes[0])
		return err == nil && len(v.Replicas) == 1
	}, func() string { return "the group waits for node b" })
	c.noRoom("the copy waits for more room")
	c.mustWrite(cl, "g", []byte("meanwhile"))
	d.size.Store(1 << 30)
	c.equal()
}
