package node

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/config"
	"holdfast/internal/identity"
	"holdfast/internal/join"
	"holdfast/internal/link"
	"holdfast/internal/nfsclient"
)

var twoAndWitness = []cluster.Role{cluster.RoleData, cluster.RoleData, cluster.RoleWitness}

// TestTwoAndWitness kills each node of two data nodes and a witness in turn, with catch-up in between: the others go on.
func TestTwoAndWitness(t *testing.T) {
	c := newCluster(t, clusterOptions{processes: true, roles: twoAndWitness}).startAll()
	w := c.workload()
	c.busy(w, 200)
	order := []int{0, 1, 2, 1, 0, 2, 0}
	if testing.Short() {
		order = order[:3]
	}
	for _, i := range order {
		lost := c.nodes[i]
		c.inSync(3)
		from := time.Now()
		c.kill(lost)
		c.busy(w, 300)
		t.Logf("node %s killed: the client waited %v", lost.name, w.Gap(from, time.Now()))
		if lost.name != "c" {
			await(t, testTimeout, func() bool {
				s, v, err := c.look(c.leader())
				return err == nil && v.OneCopy && v.Safety == api.SafetyNone && strings.Contains(strings.Join(s.Warnings, "\n"), "ONE COPY")
			}, func() string { return "status does not say that the newest data has one copy" })
		}
		c.start(lost)
		await(t, testTimeout, func() bool {
			_, v, err := c.look(c.leader())
			return err == nil && !v.OneCopy && v.Safety == api.SafetyFull
		}, func() string { return "status does not say that all is well again" })
	}
	c.verify(w)
	c.equal()
}

// TestGrow brings a volume from one node to two with a witness, to three, and back to two, while a client writes.
func TestGrow(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, clusterOptions{roles: []cluster.Role{cluster.RoleData}}).startAll()
	w := c.workload()
	members := func(want ...string) {
		t.Helper()
		await(t, testTimeout, func() bool {
			_, v, err := c.look(c.leader())
			if err != nil || len(v.Replicas) != len(want) {
				return false
			}
			for _, r := range v.Replicas {
				if !slices.Contains(want, r.Node) || !r.InSync || r.Learner {
					return false
				}
			}
			return true
		}, func() string { _, v, err := c.look(c.leader()); return fmt.Sprintf("%v: %+v", err, v.Replicas) })
		c.busy(w, 100)
	}
	members("a")
	c.join(c.newNode("b"), cluster.RoleData, "")
	members("a", "b")
	c.join(c.newNode("c"), cluster.RoleWitness, "")
	members("a", "b", "c")
	c.join(c.newNode("d"), cluster.RoleData, "")
	members("a", "b", "d")
	// The leader's node is removed: it hands over first.
	leader := c.leader()
	c.mustDo(cluster.Command{RemoveNode: &cluster.RemoveNode{Name: leader.name}})
	rest := slices.DeleteFunc([]string{"a", "b", "c", "d"}, func(n string) bool { return n == leader.name })
	await(t, testTimeout, func() bool {
		_, _, err := c.look(leader) // it has no volume any more
		return err != nil || c.leader() != leader
	}, func() string { return "the removed node leads on" })
	c.mustStop(leader)
	c.forget(leader)
	members(rest...)
	c.verify(w)
	s, err := c.nodes[0].api().State(c.context())
	if err != nil || s.NodeNamed(leader.name) != nil {
		t.Errorf("the node is still a member: %v", err)
	}
}

// TestRebuildCopy has copies made anew: one in which a disk has changed a byte of a file, and the leader's.
func TestRebuildCopy(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, clusterOptions{}).startAll()
	cl := c.mount("4.1", "/data")
	content := bytes.Repeat([]byte("a string that a client wrote. "), 8<<10)
	c.mustWrite(cl, "f", content)
	rotten := c.other(c.leader())
	c.mustStop(rotten)
	if n := rot(t, filepath.Join(rotten.dir, volumesDir), content[:64]); n != 1 {
		t.Fatalf("%d files hold the client's data", n)
	}
	c.start(rotten)
	c.inSync(3)
	check := func() api.CheckResult {
		t.Helper()
		r, err := c.leader().api().Check(c.context(), "v")
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := check(); r.Equal {
		t.Fatal("check does not see that a copy differs")
	}
	w := c.workload()
	c.busy(w, 100)
	for _, n := range []*testNode{rotten, c.leader()} {
		c.mustDo(cluster.Command{RebuildCopy: &cluster.RebuildCopy{Volume: "v", Node: n.name}})
		c.logged(n, "this node keeps the volume no longer")
		c.inSync(3)
		c.busy(w, 100)
	}
	c.verify(w)
	c.equal()
	c.mustRead(cl, "f", content)
}

// TestRebuildEach has the copy of each node made anew, again and again, so that nobody is left of those that the volume began with: a node that comes again has forgotten what it
// promised, and reads in the log of times in which it was a member.
func TestRebuildEach(t *testing.T) {
	for _, roles := range [][]cluster.Role{{cluster.RoleData, cluster.RoleData}, twoAndWitness} {
		t.Run(fmt.Sprint(len(roles)), func(t *testing.T) { rebuildEach(t, roles) })
	}
}

func rebuildEach(t *testing.T, roles []cluster.Role) {
	checkGoroutines(t)
	c := newCluster(t, clusterOptions{roles: roles}).startAll()
	w := c.workload()
	c.busy(w, 50)
	for range 2 {
		for i, n := range c.nodes {
			if roles[i] == cluster.RoleWitness {
				continue
			}
			c.mustDo(cluster.Command{RebuildCopy: &cluster.RebuildCopy{Volume: "v", Node: n.name}})
			c.rebuilt(len(roles))
			c.inSync(len(roles))
			c.mustStop(n)
			c.start(n)
			c.inSync(len(roles))
			c.busy(w, 50)
		}
	}
	c.verify(w)
	c.equal()
	if s, err := c.nodes[0].api().State(c.context()); err != nil || s.Volume("v").Changes < 4 {
		t.Errorf("the volume is %+v (%v)", s.Volume("v"), err)
	}
}

// rot changes a byte in each file below a folder that begins with some content, and returns how many there are.
func rot(t *testing.T, dir string, begins []byte) (changed int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		head := make([]byte, len(begins))
		if _, err := f.ReadAt(head, 0); err != nil || !bytes.Equal(head, begins) {
			return nil
		}
		changed++
		_, err = f.WriteAt([]byte{begins[7] ^ 1}, 7)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

// TestMoveTakenBack lets a volume move to a node that is lost, which can never end, and then stay where it is, while a client works. Without anybody to ask, the lost node can be
// removed as well.
func TestMoveTakenBack(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, clusterOptions{}).startAll()
	w := c.workload()
	c.busy(w, 50)
	d := c.newNode("d")
	c.join(d, cluster.RoleData, "")
	c.mustStop(d)
	place := func(nodes ...string) *cluster.Volume {
		t.Helper()
		spec := c.spec()
		spec.Nodes = nodes
		c.mustDo(cluster.Command{SetVolume: &cluster.SetVolume{Spec: spec}})
		var v *cluster.Volume
		await(t, testTimeout, func() bool {
			s, err := c.nodes[0].api().State(c.context())
			if err != nil {
				return false
			}
			v = s.Volume("v")
			var names []string
			for _, m := range v.Members {
				names = append(names, s.NodeName(m))
			}
			return slices.Equal(names, nodes)
		}, func() string { return fmt.Sprintf("the volume is %+v", v) })
		return v
	}
	if v := place("a", "b", "d"); len(v.Former) != 1 {
		t.Fatalf("the volume is %+v", v)
	}
	c.busy(w, 50)
	place("a", "b", "c")
	c.rebuilt(3)
	c.inSync(3)
	c.busy(w, 50)
	place("a", "b", "d")
	c.mustDo(cluster.Command{SetVolume: &cluster.SetVolume{Spec: c.spec()}})
	c.mustDo(cluster.Command{RemoveNode: &cluster.RemoveNode{Name: "d"}})
	c.gone("d")
	c.rebuilt(3)
	c.inSync(3)
	c.verify(w)
	c.equal()
}

// TestStandby puts the leader's node into standby: it hands over, does not take the lead again, and a preferred node gets it back only if failback is automatic.
func TestStandby(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, clusterOptions{extra: "    prefer: [b]\n    failback: {policy: auto, after: 1s}\n"}).startAll()
	led := func(name string) {
		t.Helper()
		await(t, testTimeout, func() bool { return c.leader().name == name }, func() string { return "node " + c.leader().name + " leads" })
	}
	led("b") // it is preferred
	w := c.workload()
	c.busy(w, 100)
	on, off := true, false
	from := time.Now()
	c.mustDo(cluster.Command{SetNode: &cluster.SetNode{Name: "b", Standby: &on}})
	await(t, testTimeout, func() bool { return c.leader().name != "b" }, func() string { return "node b leads on" })
	c.busy(w, 100)
	t.Logf("standby: the client waited %v", w.Gap(from, time.Now()))
	var e api.Explanation
	await(t, testTimeout, func() bool {
		var err error
		e, err = c.nodes[0].api().Explain(c.context(), "v")
		return err == nil && e.Leader != "b" && slices.ContainsFunc(e.Events, func(e cluster.Event) bool {
			return e.Kind == cluster.EventMove && strings.Contains(e.Text, "standby")
		})
	}, func() string { return fmt.Sprintf("explanation %+v", e) })
	c.mustDo(cluster.Command{SetMaintenance: &cluster.SetMaintenance{On: true}})
	c.mustDo(cluster.Command{SetNode: &cluster.SetNode{Name: "b", Standby: &off}})
	c.busy(w, 500)
	if c.leader().name == "b" {
		t.Error("the volume failed back in maintenance")
	}
	c.mustDo(cluster.Command{SetMaintenance: &cluster.SetMaintenance{}})
	led("b")
	c.verify(w)
}

// TestSpread makes volumes, each of which begins at another node.
func TestSpread(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, clusterOptions{}).startAll()
	for i := range 5 {
		spec := c.spec()
		spec.Name, spec.Listen = fmt.Sprintf("v%d", i), fmt.Sprintf("%s.%d:2049", c.network, 110+i)
		c.mustDo(cluster.Command{AddVolume: &cluster.AddVolume{Spec: spec}})
	}
	led := map[string]int{}
	await(t, testTimeout, func() bool {
		s, err := c.nodes[0].api().Status(c.context(), false)
		if err != nil {
			return false
		}
		clear(led)
		for _, v := range s.Volumes {
			if v.Serving {
				led[v.Leader]++
			}
		}
		return led["a"]+led["b"]+led["c"] == 6
	}, func() string { return fmt.Sprintf("not all volumes are served: %v", led) })
	if len(led) < 2 || led["a"] > 3 || led["b"] > 3 || led["c"] > 3 {
		t.Errorf("six volumes are led by %v", led) // by two each, unless the machine is very busy
	}
}

// TestRenewal starts a node whose certificate has reached its last third: it gets another by itself.
func TestRenewal(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, clusterOptions{roles: []cluster.Role{cluster.RoleData}})
	n := c.newNode("old")
	if _, err := join.Init(join.Options{Data: n.dir, Name: n.name, Peer: n.peer, Now: time.Now().Add(-70 * 24 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	c.start(n)
	await(t, testTimeout, func() bool {
		s, err := n.api().Status(c.context(), true)
		return err == nil && len(s.Nodes) == 1 && time.Until(s.Nodes[0].Expires) > 80*24*time.Hour
	}, func() string { return "the certificate is not renewed" })
	id, err := identity.Load(identity.Dir(n.dir))
	if err != nil {
		t.Fatal(err)
	}
	if cert, err := identity.ParseCertificate(id.Certificate); err != nil || time.Until(cert.NotAfter) < 80*24*time.Hour {
		t.Errorf("the new certificate is not written down: %v", err)
	}
}

// TestConfigure changes a volume while it is mounted.
func TestConfigure(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, clusterOptions{}).startAll()
	cl := c.mount("4.1", "/data")
	c.mustWrite(cl, "f", []byte("x"))
	spec := c.spec()
	spec.Exports[0].Clients[0].Options = []string{"ro"}
	c.mustDo(cluster.Command{SetVolume: &cluster.SetVolume{Spec: spec}})
	await(t, testTimeout, func() bool { return c.write(cl, "f", []byte("y")) != nil }, func() string { return "the export is still writable" })
	spec = c.spec()
	spec.Size = 1 << 20
	c.mustDo(cluster.Command{SetVolume: &cluster.SetVolume{Spec: spec}})
	await(t, testTimeout, func() bool { return c.write(cl, "f", []byte("y")) == nil }, func() string { return "the export is not writable" })
	await(t, testTimeout, func() bool { return c.write(cl, "big", make([]byte, 2<<20)) != nil }, func() string { return "there is no limit" })
	spec.Size = 0
	c.mustDo(cluster.Command{SetVolume: &cluster.SetVolume{Spec: spec}})
	await(t, testTimeout, func() bool { return c.write(cl, "big", make([]byte, 2<<20)) == nil }, func() string { return "there is a limit still" })
	// Another address.
	old := c.addr
	c.addr = c.network + ".101:2049"
	c.mustDo(cluster.Command{SetVolume: &cluster.SetVolume{Spec: c.spec()}})
	c.mustRead(c.mount("4.1", "/data"), "f", []byte("y"))
	if conn, err := net.DialTimeout("tcp", old, time.Second); err == nil {
		conn.Close()
		t.Error("somebody listens at the old address")
	}
	// And none at all.
	c.mustDo(cluster.Command{RemoveVolume: &cluster.RemoveVolume{Name: "v"}})
	for _, n := range c.nodes {
		await(t, testTimeout, func() bool {
			s, err := n.api().Status(c.context(), true)
			return err == nil && len(s.Volumes) == 0
		}, func() string { return "the volume is still there" })
	}
	if msg := wrong(c, cluster.Command{AddVolume: &cluster.AddVolume{Spec: config.VolumeSpec{Name: "x y"}}}); !strings.Contains(msg, "name") {
		t.Errorf("a wrong volume: %s", msg)
	}
}

// TestWrongAddress gives a volume an address that no machine can have, and then the right one: of the first nothing may be left.
func TestWrongAddress(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, clusterOptions{roles: []cluster.Role{cluster.RoleData}}).startAll()
	problem := func() string {
		s, err := c.nodes[0].api().Status(c.context(), true)
		if err != nil || len(s.Volumes) != 1 {
			t.Fatalf("status: %v", err)
		}
		return s.Volumes[0].AddressProblem
	}
	right := c.spec()
	bad := right
	bad.Listen, bad.Address = "198.51.100.7:2049", config.Address{Kind: config.AddressIP, IP: config.Prefix(netip.MustParsePrefix("198.51.100.7/24"))}
	c.mustDo(cluster.Command{SetVolume: &cluster.SetVolume{Spec: bad}})
	await(t, testTimeout, func() bool { return strings.Contains(problem(), "198.51.100.7") }, func() string { return "nobody says that the address is wrong" })
	c.mustDo(cluster.Command{SetVolume: &cluster.SetVolume{Spec: right}})
	c.mustWrite(c.mount("4.1", "/data"), "f", []byte("x"))
	// It must not be tried on.
	for end := time.Now().Add(addressRetry * 5 / 4); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if p := problem(); p != "" {
			t.Fatalf("the former address is a problem still: %s", p)
		}
	}
}

// wrong executes a command that must be refused and returns why it was.
func wrong(c *testCluster, cmd cluster.Command) string {
	c.t.Helper()
	_, err := c.nodes[0].api().Do(c.context(), cmd)
	if err == nil {
		c.t.Error("a wrong command took effect")
		return ""
	}
	return err.Error()
}

// TestNodePort mounts at the nodes' own addresses: each forwards to the leader.
func TestNodePort(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, clusterOptions{extra: "    node_port: 2050\n"}).startAll()
	for i, n := range c.nodes {
		addr := strings.Replace(n.peer, ":7420", ":2050", 1)
		cl, err := nfsclient.Mount(c.context(), nfsclient.Config{Address: addr, Export: "/data"})
		if err != nil {
			t.Fatalf("mount at node %s: %v", n.name, err)
		}
		for round := range 2 {
			content := []byte(fmt.Sprintf("%d of %s", round, n.name))
			c.mustWrite(cl, "f", content)
			c.mustRead(c.mount("4.1", "/data"), "f", content)
			c.transfer(c.nodes[(i+round)%3])
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		if err := cl.Close(ctx); err != nil {
			t.Error(err)
		}
		cancel()
	}
}

// TestBackup restores what was backed up under load, as a volume beside the first.
func TestBackup(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, clusterOptions{}).startAll()
	// Clients that hold no state, or the restored volume would wait for them to reclaim it.
	cl := c.mount("3", "/data")
	content := bytes.Repeat([]byte("0123456789abcdef"), 32<<10)
	c.mustWrite(cl, "f", content)
	done, stop := make(chan error, 1), make(chan struct{})
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := c.write(cl, fmt.Sprint(i%10), content[:1000*(i%50)]); err != nil {
				done <- err
				return
			}
		}
	}()
	read := func(o api.BackupOptions) []byte {
		t.Helper()
		r, err := c.nodes[0].api().Backup(c.context(), "v", o)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var b bytes.Buffer
		if _, err := b.ReadFrom(r); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	full := read(api.BackupOptions{})
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	spec := c.spec()
	spec.Name, spec.Listen = "w", c.network+".102:2049"
	// Not at the node that leads everything.
	other := c.other(c.leader())
	if err := other.api().Restore(c.context(), spec, bytes.NewReader(full)); err != nil {
		t.Fatal(err)
	}
	var restored nfsclient.Client
	await(t, testTimeout, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		var err error
		restored, err = nfsclient.Mount(ctx, nfsclient.Config{Address: spec.Listen, Export: "/data"})
		return err == nil
	}, func() string { return "the restored volume is not served" })
	defer restored.Close(c.context())
	c.mustRead(restored, "f", content)
	c.mustWrite(restored, "g", content)
	await(t, testTimeout, func() bool {
		s, err := c.nodes[0].api().Status(c.context(), false)
		if err != nil {
			return false
		}
		i := slices.IndexFunc(s.Volumes, func(v api.VolumeStatus) bool { return v.Name == "w" })
		return i >= 0 && s.Volumes[i].Safety == api.SafetyFull && len(s.Volumes[i].Replicas) == 3
	}, func() string { return "the restored volume does not get three copies" })
	if r, err := c.nodes[0].api().Check(c.context(), "w"); err != nil || !r.Equal {
		t.Errorf("the copies of the restored volume: %+v, %v", r, err)
	}
	if err := other.api().Restore(c.context(), spec, bytes.NewReader(full)); err == nil || !strings.Contains(err.Error(), "there is a volume w already") {
		t.Errorf("a restore over a volume: %v", err)
	}
	spec.Name = "x"
	if err := other.api().Restore(c.context(), spec, bytes.NewReader(full[:len(full)/2])); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("half a backup: %v", err)
	}
}

// TestCertificates uses the API from elsewhere, with an administrator's certificate, until that is revoked.
func TestCertificates(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, clusterOptions{roles: twoAndWitness})
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := identity.NewRequest(key, "me")
	if err != nil {
		t.Fatal(err)
	}
	var r api.CertificateResult
	await(t, testTimeout, func() bool {
		// The witness cannot sign, and asks.
		r, err = c.nodes[2].api().AdminCertificate(c.context(), api.CertificateRequest{Name: "me", Lifetime: time.Hour, Request: string(request)})
		return err == nil
	}, func() string { return fmt.Sprint(err) })
	creds, err := identity.NewCredentials([]byte(r.Certificate), key, []byte(r.CA))
	if err != nil {
		t.Fatal(err)
	}
	dialer := link.Dialer{Creds: creds}
	remote := api.NewRemoteClient("a", "", func(ctx context.Context) (net.Conn, error) {
		return dialer.Dial(ctx, c.nodes[0].peer, 0, link.ProtoAPI)
	})
	defer remote.Close()
	if _, err := remote.Do(c.context(), cluster.Command{SetMaintenance: &cluster.SetMaintenance{On: true, Why: "test"}}); err != nil {
		t.Fatal(err)
	}
	events, err := remote.Events(c.context(), 0, false)
	if err != nil || !slices.ContainsFunc(events, func(e cluster.Event) bool { return strings.Contains(e.By, "me") }) {
		t.Errorf("events %+v, %v", events, err)
	}
	// The connection that says it is ended by it, perhaps before the answer.
	if _, err := remote.Do(c.context(), cluster.Command{Revoke: &cluster.Revocation{Serial: r.Serial, Why: "test"}}); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	await(t, testTimeout, func() bool {
		_, err := remote.Status(c.context(), true)
		return err != nil
	}, func() string { return "a revoked certificate is accepted" })
	// A node's certificate is renewed with the same key, by a data node.
	n, err := identity.Load(identity.Dir(c.nodes[2].dir))
	if err != nil {
		t.Fatal(err)
	}
	request, err = identity.NewRequest(n.Key, n.Name)
	if err != nil {
		t.Fatal(err)
	}
	nodeCreds, err := n.Credentials()
	if err != nil {
		t.Fatal(err)
	}
	nodeDialer := link.Dialer{Creds: nodeCreds}
	asNode := api.NewRemoteClient("a", "", func(ctx context.Context) (net.Conn, error) {
		return nodeDialer.Dial(ctx, c.nodes[0].peer, 0, link.ProtoAPI)
	})
	defer asNode.Close()
	renewed, err := asNode.NodeCertificate(c.context(), string(request))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(renewed.Certificate))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := identity.PeerOfCertificate(cert); err != nil || p.Node != n.Node || p.Serial == nodeCreds.Self().Serial {
		t.Errorf("renewed for %+v, %v", p, err)
	}
}
