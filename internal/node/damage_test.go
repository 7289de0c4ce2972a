package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/nfsclient"
)

// text returns random text that no compression shortens by much.
func text(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// damageMetadata flips a bit of what a node that does not run has stored of text. Before that all tables are made one without deleted keys, so that nothing is compacted soon after the
// start.
func damageMetadata(t *testing.T, n *testNode, text string) {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(n.dir, volumesDir, "v-*", storeDir, "meta", "db-*"))
	if err != nil || len(dirs) != 1 {
		t.Fatalf("databases: %v, %v", dirs, err)
	}
	db, err := pebble.Open(dirs[0], &pebble.Options{DisableWAL: true, Logger: quietLogger{}, FormatMajorVersion: pebble.FormatFlushableIngestExcises})
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []func() error{
		func() error { return db.Set([]byte{0}, nil, pebble.NoSync) },
		func() error { return db.Delete([]byte{0}, pebble.NoSync) },
	} {
		// A table that overlaps no other would be moved, not written anew.
		if err := errors.Join(change(), db.Flush(), db.Compact(context.Background(), []byte{0}, []byte{0xff}, false)); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(dirs[0], "*.sst"))
	if err != nil {
		t.Fatal(err)
	}
	hit := 0
	for _, name := range tables {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		// A part of it, as the rest may be there as a repetition of something.
		for from := 0; from+12 <= len(text); from += 4 {
			at := bytes.Index(b, []byte(text[from:from+12]))
			if at < 0 {
				continue
			}
			b[at] ^= 1
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
			hit++
			break
		}
	}
	if hit == 0 {
		t.Fatalf("none of %d tables holds the text", len(tables))
	}
}

// quietLogger is Pebble's.
type quietLogger struct{}

func (quietLogger) Infof(string, ...any)              {}
func (quietLogger) Errorf(string, ...any)             {}
func (quietLogger) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// rotten is a cluster whose leader has damaged metadata: the entry of one file in its directory, or its content, which is small.
type rotten struct {
	*testCluster
	cl      nfsclient.Client
	names   []string
	content map[string]string
	victim  string
	bad     *testNode
}

// newRotten makes one; absent is called before the damage is done.
func newRotten(c *testCluster, version string, what func(r *rotten) string, absent func(r *rotten)) *rotten {
	c.t.Helper()
	r := &rotten{testCluster: c.startAll(), content: map[string]string{}}
	r.cl = c.mount(version, "/data")
	for range 40 {
		name := text(30)
		r.names, r.content[name] = append(r.names, name), text(300)
		c.mustWrite(r.cl, name, []byte(r.content[name]))
	}
	r.victim = r.names[20]
	c.inSync(3)
	r.bad = c.leader()
	if absent != nil {
		absent(r)
	}
	if c.options.processes {
		r.mustEnd(r.bad)
	} else {
		c.mustStop(r.bad)
	}
	damageMetadata(r.t.(*testing.T), r.bad, what(r))
	c.start(r.bad)
	if absent == nil {
		c.inSync(3)
	} else {
		c.inSync(2)
	}
	c.transfer(r.bad)
	return r
}

// mustEnd stops a node that is a process.
func (c *testCluster) mustEnd(n *testNode) {
	c.t.Helper()
	if err := c.stop(n); err != nil {
		c.t.Fatalf("node %s: %v", n.name, err)
	}
}

// handedOver checks that the lead is elsewhere, that the node says why, and what to do.
func (r *rotten) handedOver() {
	r.t.Helper()
	if l := r.leader(); l == r.bad {
		r.t.Errorf("node %s leads, whose copy is damaged", l.name)
	}
	r.warned("a copy is damaged")
	b, err := os.ReadFile(r.markFile())
	var m damageMark
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil || m.What == "" || m.Since.IsZero() {
		r.t.Errorf("the mark: %s, %v", b, err)
	}
	await(r.t, testTimeout, func() bool {
		events, err := r.other(r.bad).api().Events(r.context(), 0, false)
		return err == nil && slices.ContainsFunc(events, func(e cluster.Event) bool {
			return e.Node == r.bad.name && strings.Contains(e.Text, "is damaged") && strings.Contains(e.Text, "holdfast check v --repair")
		})
	}, func() string { return "the events do not tell of the damage" })
}

func (r *rotten) markFile() string {
	r.t.Helper()
	dirs, err := filepath.Glob(filepath.Join(r.bad.dir, volumesDir, "v-*"))
	if err != nil || len(dirs) != 1 {
		r.t.Fatalf("folders of the volume: %v, %v", dirs, err)
	}
	return filepath.Join(dirs[0], damageFile)
}

// warned waits until the status of the cluster says something of the bad node.
func (r *rotten) warned(what string) {
	r.t.Helper()
	var got []string
	await(r.t, testTimeout, func() bool {
		s, err := r.other(r.bad).api().Status(r.context(), false)
		got = s.Warnings
		text := strings.Join(got, "\n")
		return err == nil && strings.Contains(text, what) && strings.Contains(text, "node "+r.bad.name+": its copy is damaged") && strings.Contains(text, "holdfast check v --repair")
	}, func() string { return fmt.Sprintf("status does not warn: %q", got) })
}

// rebuild has the bad copy made anew.
func (r *rotten) rebuild() {
	r.t.Helper()
	r.remake(r.bad)
	r.equal()
	for _, name := range r.names {
		r.mustRead(r.cl, name, []byte(r.content[name]))
	}
	if _, err := os.Stat(r.markFile()); !errors.Is(err, os.ErrNotExist) {
		r.t.Errorf("the new copy is marked: %v", err)
	}
	await(r.t, testTimeout, func() bool {
		s, err := r.leader().api().Status(r.context(), false)
		return err == nil && !strings.Contains(strings.Join(s.Warnings, "\n"), "damaged")
	}, func() string { return "status warns of a copy that was made anew" })
}

// remake has a copy made anew and waits until it is, or another in its place. It returns the state then.
func (c *testCluster) remake(bad *testNode) (state *cluster.State) {
	c.t.Helper()
	via := c.other(bad).api()
	before, err := via.State(c.context())
	if err != nil {
		c.t.Fatal(err)
	}
	c.mustDo(cluster.Command{RebuildCopy: &cluster.RebuildCopy{Volume: "v", Node: bad.name, Why: "it is wrong"}})
	await(c.t, testTimeout, func() bool {
		if state, err = via.State(c.context()); err != nil {
			return false
		}
		v := state.Volume("v")
		return v.Changes > before.Volume("v").Changes && len(v.Rebuild) == 0 && len(v.Former) == 0 && len(v.Members) == 3
	}, func() string { return "the copy is not made anew" })
	return state
}

// checked returns what a check says of the bad node.
func (r *rotten) checked() (res api.CheckResult, bad api.ReplicaDigest) {
	r.t.Helper()
	res, err := r.leader().api().Check(r.context(), "v")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, d := range res.Replicas {
		if d.Node == r.bad.name {
			bad = d
		}
	}
	return res, bad
}

func theEntry(r *rotten) string   { return r.victim }
func theContent(r *rotten) string { return r.content[r.victim] }

// TestDamagedLeader reads what the leader's disk does not give back any more: the client gets it, from another node, and hears of no error.
func TestDamagedLeader(t *testing.T) {
	list := func(r *rotten) error {
		seen := 0
		err := r.cl.ReadDir(r.context(), r.cl.Root(), false, func(nfsclient.DirEntry) error { seen++; return nil })
		if err == nil && seen != len(r.names) {
			err = fmt.Errorf("%d entries of %d", seen, len(r.names))
		}
		return err
	}
	lookup := func(r *rotten) error {
		_, _, err := r.cl.Lookup(r.context(), r.cl.Root(), r.victim)
		return err
	}
	read := func(r *rotten) error {
		r.mustRead(r.cl, r.victim, []byte(r.content[r.victim]))
		return nil
	}
	for _, tt := range []struct {
		name, version string
		what          func(r *rotten) string
		do            func(r *rotten) error
	}{
		{"lookup, version 4.1", "4.1", theEntry, lookup},
		{"readdir, version 3", "3", theEntry, list},
		{"read, version 4.1", "4.1", theContent, read},
		{"lookup, version 3", "3", theEntry, lookup},
		{"read, version 3", "3", theContent, read},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if testing.Short() && tt.name != "read, version 4.1" && tt.name != "readdir, version 3" {
				t.Skip("much the same")
			}
			r := newRotten(newCluster(t, clusterOptions{}), tt.version, tt.what, nil)
			if err := tt.do(r); err != nil {
				t.Fatalf("a client gets an error: %v", err)
			}
			r.handedOver()
			res, bad := r.checked()
			if res.Equal || len(res.Missing) > 0 || !bad.Damaged || bad.Error == "" || len(res.Replicas) != 3 {
				t.Errorf("check: %+v", res)
			}
			// The mark survives a restart, and the node does not come to lead.
			r.mustStop(r.bad)
			r.start(r.bad)
			r.inSync(3)
			r.warned("a copy is damaged")
			if r.leader() == r.bad {
				t.Error("the damaged one leads again")
			}
			r.rebuild()
			r.transfer(r.bad)
		})
	}
}

// TestDamagedCheck begins a check on a leader that does not know yet that its copy is damaged.
func TestDamagedCheck(t *testing.T) {
	r := newRotten(newCluster(t, clusterOptions{}), "4.1", theContent, nil)
	res, bad := r.checked()
	if res.Equal || len(res.Missing) > 0 || !bad.Damaged || len(res.Replicas) != 3 {
		t.Errorf("check: %+v", res)
	}
	r.handedOver()
}

// TestDamagedSender lets a member come back that needs a snapshot, which the leader cannot read.
func TestDamagedSender(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	var away *testNode
	r := newRotten(newCluster(t, clusterOptions{}), "4.1", theContent, func(r *rotten) {
		away = r.other(r.bad)
		_, before, err := r.look(r.bad)
		if err != nil {
			t.Fatal(err)
		}
		r.mustStop(away)
		for i := range 80 {
			r.mustWrite(r.cl, fmt.Sprintf("f%d", i), make([]byte, 64<<10))
		}
		for _, n := range []*testNode{r.bad, r.other(r.bad)} {
			await(t, testTimeout, func() bool {
				_, v, err := r.look(n)
				return err == nil && v.First > before.Last+1
			}, func() string { return "the log does not go" })
		}
	})
	r.start(away)
	r.inSync(3)
	r.handedOver()
	r.rebuild()
}

// TestDamagedAlone has nobody who could take over: the client hears of the error, and so does everybody who looks.
func TestDamagedAlone(t *testing.T) {
	c := newCluster(t, clusterOptions{roles: []cluster.Role{cluster.RoleData}}).startAll()
	cl := c.mount("3", "/data")
	n := c.leader()
	var names []string
	for range 20 {
		names = append(names, text(30))
		c.mustWrite(cl, names[len(names)-1], []byte(text(900)))
	}
	c.mustStop(n)
	damageMetadata(t, n, names[10])
	c.start(n)
	c.leader()
	ctx := c.context()
	_, _, err := cl.Lookup(ctx, cl.Root(), names[10])
	var status nfsclient.Status
	if !errors.As(err, &status) || status != 5 {
		t.Fatalf("a lookup that needs what cannot be read: %v", err)
	}
	c.logged(n, "NO OTHER COPY CAN TAKE OVER")
	s, v, err := c.look(n)
	if err != nil || !v.Serving || !strings.Contains(strings.Join(s.Warnings, "\n"), "a copy is damaged") {
		t.Errorf("serving %t, warnings %q, %v", v.Serving, s.Warnings, err)
	}
	if _, err := cl.GetAttr(ctx, cl.Root()); err != nil {
		t.Errorf("what is whole: %v", err)
	}
	res, err := n.api().Check(ctx, "v")
	if err != nil || len(res.Replicas) != 1 || !res.Replicas[0].Damaged || res.Equal {
		t.Errorf("check: %+v, %v", res, err)
	}
}

// TestDamagedApply writes what needs the damaged part: the node that cannot apply it ends, the others go on, equal, and at its next start it says what it has met, and leaves that copy closed.
func TestDamagedApply(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	r := newRotten(newCluster(t, clusterOptions{processes: true}), "4.1", theEntry, nil)
	if err := r.cl.Remove(r.context(), r.cl.Root(), r.victim); err != nil {
		t.Fatalf("a client gets an error: %v", err)
	}
	r.names = append(r.names[:20], r.names[21:]...)
	if err := r.ended(r.bad); err == nil {
		t.Fatal("the node that could not apply an entry ended in order")
	}
	for range 2 { // it stays up, however often it is started
		r.start(r.bad)
		r.warned("a copy is damaged or cannot be opened")
		time.Sleep(reconcileRetry + 100*time.Millisecond) // it tries to open the copy again
		s, err := r.bad.api().Status(r.context(), true)
		if err != nil || s.Volumes[0].Role != "none" {
			t.Fatalf("%+v, %v", s.Volumes, err)
		}
		r.mustEnd(r.bad)
	}
	r.start(r.bad)
	r.warned("a copy is damaged or cannot be opened")
	r.rebuild()
}

// TestRebuildOfGood has the leader's copy made anew, whose file data are wrong, while there is a node that keeps no copy yet: it gets one at once, but not of that one.
func TestRebuildOfGood(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	c := newCluster(t, clusterOptions{roles: []cluster.Role{cluster.RoleData, cluster.RoleData, cluster.RoleData, cluster.RoleData}})
	c.mustDo(cluster.Command{AddVolume: &cluster.AddVolume{Spec: c.spec()}})
	c.inSync(3)
	cl := c.mount("4.1", "/data")
	content := []byte(text(150 << 10))
	c.mustWrite(cl, "f", content)
	c.inSync(3)
	bad := c.leader()
	objects, err := filepath.Glob(filepath.Join(bad.dir, volumesDir, "v-*", storeDir, "objects", "*", "*"))
	if err != nil || len(objects) != 1 {
		t.Fatalf("objects: %v, %v", objects, err)
	}
	// So that the new copy is made of a snapshot, not of the log.
	await(t, testTimeout, func() bool {
		c.mustWrite(cl, "g", make([]byte, 256<<10))
		_, v, err := c.look(bad)
		return err == nil && v.First > 1
	}, func() string { return "the log does not go" })
	f, err := os.OpenFile(objects[0], os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte{'?'}, 100<<10)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	state := c.remake(bad)
	// It must not even begin: the new member might need a snapshot before the lead has moved.
	if b, err := os.ReadFile(bad.log); err != nil || strings.Contains(string(b), "the volume's members change") {
		t.Errorf("the node whose copy is wrong brought a new member in (%v)", err)
	}
	c.inSync(3)
	for _, m := range state.Volume("v").Members {
		i := slices.IndexFunc(c.nodes, func(n *testNode) bool { return n.name == state.NodeName(m) })
		c.transfer(c.nodes[i])
		c.mustRead(cl, "f", content)
	}
	if res, err := c.leader().api().Check(c.context(), "v"); err != nil || !res.Equal || len(res.Replicas) != 3 {
		t.Errorf("check: %+v, %v", res, err)
	}
}
