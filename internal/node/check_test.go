package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/identity"
	"holdfast/internal/nfsclient"
	"holdfast/internal/replica"
	"holdfast/internal/store"
	"holdfast/internal/vfs"
	"holdfast/internal/volume"
)

func TestReport(t *testing.T) {
	want := report{Free: 1 << 40, Total: 1 << 41, Below: true, DigestIndex: 77, Digest: volume.Digest{1, 2, 3}, DigestBusy: true, Digesting: true}
	for _, want := range []report{want, {DigestIndex: 5, Unreadable: true}, {Damaged: true}} {
		if got, ok := decodeReport(want.encode()); !ok || got != want {
			t.Errorf("%+v, %t", got, ok)
		}
	}
	b := want.encode()
	if len(b) > replica.MaxReportBytes {
		t.Errorf("a report has %d bytes, at most %d are carried", len(b), replica.MaxReportBytes)
	}
	if _, ok := decodeReport(b[1:]); ok {
		t.Error("a report of another length was taken")
	}
}

// TestCompare checks when a check is over, and with what, for each state that a peer can be in.
func TestCompare(t *testing.T) {
	own := report{DigestIndex: 50, Digest: volume.Digest{7}}
	busy, other := own, own
	damaged := report{DigestIndex: 50, Unreadable: true}
	busy.DigestBusy = true
	other.Digest = volume.Digest{8}
	second := int64(time.Second)
	for _, tt := range []struct {
		name              string
		peer              replica.PeerStatus
		report            report
		equal, busy, done bool
		missing           bool
		// doneLater: it is over when the peer has been so for longer than checkSilence.
		doneLater bool
	}{
		{"same", replica.PeerStatus{}, own, true, false, true, false, true},
		{"differs", replica.PeerStatus{}, other, false, false, true, false, true},
		{"damaged there", replica.PeerStatus{}, damaged, false, false, true, false, true},
		{"busy there", replica.PeerStatus{}, busy, true, true, true, false, true},
		{"not there yet", replica.PeerStatus{Applied: 49}, report{DigestIndex: 3}, false, false, false, false, false},
		{"digesting", replica.PeerStatus{Applied: 60}, report{DigestIndex: 50, Digesting: true}, false, false, false, false, false},
		{"at a later check", replica.PeerStatus{Applied: 60}, report{DigestIndex: 55, Digesting: true}, false, false, false, false, false},
		{"passed over the mark", replica.PeerStatus{Applied: 50}, report{}, false, false, false, false, true},
		{"silent", replica.PeerStatus{SeenNS: 4 * second}, report{}, false, false, true, true, true},
		{"never heard of", replica.PeerStatus{SeenNS: -1}, report{}, false, false, true, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &Node{id: &identity.Identity{Name: "a", Node: 1}}
				n.cluster = clusterOf(t, cluster.Node{Number: 1, Name: "a"}, cluster.Node{Number: 2, Name: "b"})
				s := &service{node: n, name: "v"}
				tt.peer.ID, tt.peer.Report = 2, tt.report.encode()
				var skipped patience
				res, busy, done := s.compare(own, []replica.PeerStatus{tt.peer}, &skipped)
				if done != tt.done || done && (res.Equal != tt.equal || busy != tt.busy || (len(res.Missing) == 1) != tt.missing || len(res.Replicas) != 2) {
					t.Errorf("%+v, busy %t, done %t", res, busy, done)
				}
				time.Sleep(checkSilence + time.Millisecond)
				res, _, done = s.compare(own, []replica.PeerStatus{tt.peer}, &skipped)
				if done != tt.doneLater || done && !tt.done && (res.Equal || len(res.Missing) != 1) {
					t.Errorf("later: %+v, done %t", res, done)
				}
			})
		})
	}
}

func TestDigests(t *testing.T) {
	var d digests
	d.begin(5)
	if _, ok, err := d.after(4); ok || err != nil {
		t.Errorf("a digest that is under way is there: %v", err)
	}
	d.begin(9)
	d.end(5, volume.Digest{5}, true, nil) // the newer one counts
	if _, ok, _ := d.after(4); ok {
		t.Error("an old digest ended a newer one")
	}
	d.end(9, volume.Digest{9}, true, nil)
	if r, ok, err := d.after(4); !ok || err != nil || r.DigestIndex != 9 || r.Digest != (volume.Digest{9}) {
		t.Errorf("%+v, %t, %v", r, ok, err)
	}
	failed := errors.New("disk")
	d.begin(12)
	d.end(12, volume.Digest{}, false, failed)
	if _, ok, err := d.after(9); ok || !errors.Is(err, failed) {
		t.Errorf("a digest that failed: %t, %v", ok, err)
	}
	if _, _, err := d.after(12); err != nil {
		t.Errorf("an old failure ends a new check: %v", err)
	}
	d.begin(15)
	d.end(15, volume.Digest{}, false, fmt.Errorf("digest: %w", store.ErrUnreadable))
	if r, ok, err := d.after(12); !ok || err != nil || r != (report{DigestIndex: 15, Unreadable: true}) {
		t.Errorf("a copy that cannot be read: %+v, %t, %v", r, ok, err)
	}
}

// TestCompareDamagedHere compares on a leader that has nobody to hand over to: the others are compared with each other.
func TestCompareDamagedHere(t *testing.T) {
	n := &Node{id: &identity.Identity{Name: "a", Node: 1}}
	n.cluster = clusterOf(t, cluster.Node{Number: 1, Name: "a"}, cluster.Node{Number: 2, Name: "b"}, cluster.Node{Number: 3, Name: "c"})
	s := &service{node: n, name: "v"}
	good, bad := report{DigestIndex: 50, Digest: volume.Digest{7}}, report{DigestIndex: 50, Digest: volume.Digest{8}}
	for _, third := range []report{good, bad} {
		var skipped patience
		res, busy, done := s.compare(report{DigestIndex: 50, Unreadable: true},
			[]replica.PeerStatus{{ID: 2, Report: good.encode()}, {ID: 3, Report: third.encode()}}, &skipped)
		if busy || !done || res.Equal || len(res.Missing) != 0 || len(res.Replicas) != 3 || !res.Replicas[0].Damaged || res.Replicas[0].Digest != "" {
			t.Errorf("%+v, busy %t, done %t", res, busy, done)
		}
		if same := res.Replicas[1].Digest == res.Replicas[2].Digest; same != (third == good) {
			t.Errorf("%+v", res.Replicas)
		}
	}
}

// TestCheckDuringRebuild compares while a node is being given a snapshot: check must come to an end and never call copies equal that it did not see.
func TestCheckDuringRebuild(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for seconds")
	}
	checkGoroutines(t)
	c := newCluster(t, clusterOptions{}).startAll()
	cl := c.mount("4.1", "/data")
	away := c.other(c.leader())
	c.inSync(3)
	_, before, err := c.look(c.leader())
	if err != nil {
		t.Fatal(err)
	}
	c.mustStop(away)
	content := make([]byte, 64<<10)
	for i := range 80 {
		c.mustWrite(cl, fmt.Sprintf("f%d", i), content)
	}
	await(t, testTimeout, func() bool {
		_, v, err := c.look(c.leader())
		return err == nil && v.First > before.Last+1
	}, func() string { return "the log does not go" })
	c.start(away)
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	res, err := api.NewClient(c.leader().dir).Check(ctx, "v")
	cancel()
	if err != nil {
		t.Fatal(err)
	}
	if res.Equal == (len(res.Missing) > 0) || len(res.Replicas) != 3 {
		t.Errorf("%+v", res)
	}
	t.Logf("equal %t, missing %v", res.Equal, res.Missing)
	c.equal()
}

// TestCheckGoesOn takes the leader away from checks that have begun, by a transfer and by its death: whoever was asked has the next leader begin anew.
func TestCheckGoesOn(t *testing.T) {
	c := newCluster(t, clusterOptions{processes: true}).startAll()
	cl := c.mount("4.1", "/data")
	// Reading it takes longer than it takes to see that it is read.
	large, err := cl.Open(c.context(), cl.Root(), "large", nfsclient.OpenOptions{Create: nfsclient.Unchecked})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 24 {
		if err := large.Write(c.context(), make([]byte, 1<<20), uint64(i)<<20, nfsclient.FileSync); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name      string
		ask       func(leader *testNode) *testNode
		take      func(leader *testNode)
		restarted bool
	}{
		{"moved, asked at the leader", func(leader *testNode) *testNode { return leader }, func(leader *testNode) { c.transfer(c.other(leader)) }, false},
		{"moved, asked elsewhere", c.other, func(leader *testNode) { c.transfer(c.other(leader)) }, false},
		{"killed, asked elsewhere", c.other, c.kill, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.inSync(3)
			leader := c.leader()
			type outcome struct {
				res api.CheckResult
				err error
			}
			var done chan outcome
			await(t, testTimeout, func() bool {
				if done == nil || len(done) > 0 { // or it was over before it was seen
					asked := make(chan outcome, 1)
					done = asked
					go func() {
						res, err := tt.ask(leader).api().Check(c.context(), "v")
						asked <- outcome{res, err}
					}()
				}
				_, v, err := c.look(leader)
				return err == nil && v.Check != ""
			}, func() string { return "the check does not begin" })
			tt.take(leader)
			o := <-done
			if o.err != nil || len(o.res.Replicas) != 3 || o.res.Equal == tt.restarted || (len(o.res.Missing) > 0) != tt.restarted {
				t.Errorf("%+v, %v", o.res, o.err)
			}
			if !leader.running() {
				c.start(leader)
			}
		})
	}
}

// clusterOf returns a cluster's group that knows some nodes and does nothing.
func clusterOf(t *testing.T, nodes ...cluster.Node) *clusterGroup {
	t.Helper()
	b, err := json.Marshal(cluster.State{ID: "c", Nodes: nodes})
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`{"format":1,"index":1,"crc32c":%d,"state":%s}`, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)), b)
	fsys := vfs.NewSim(1)
	if err := vfs.WriteFile(fsys, "state.json", []byte(text)); err != nil {
		t.Fatal(err)
	}
	m, err := cluster.OpenMachine(fsys, "state.json", func(*cluster.State) {})
	if err != nil {
		t.Fatal(err)
	}
	return &clusterGroup{machine: m}
}
