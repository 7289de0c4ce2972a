package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"holdfast/internal/lab/work"
)

// rounds is how often something is repeated: LAB_ROUNDS, or what the test thinks is enough.
func rounds(t *testing.T, usual int) int {
	t.Helper()
	text := os.Getenv("LAB_ROUNDS")
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("LAB_ROUNDS=%s: %v", text, err)
	}
	return n
}

// startCluster starts three nodes whose logs are shown when the test fails, and boots guests meanwhile.
func startCluster(t *testing.T, l *Lab, guests int) (*Cluster, []*Guest) {
	t.Helper()
	return startClusterOf(t, l, ClusterOptions{Roles: DataNodes(3)}, guests)
}

// startClusterOf forms a cluster whose nodes' logs are shown when the test fails, and boots guests meanwhile.
func startClusterOf(t *testing.T, l *Lab, o ClusterOptions, guests int) (*Cluster, []*Guest) {
	t.Helper()
	booted := startGuests(t, l, guests)
	return formCluster(t, l, o), booted()
}

// formCluster forms a cluster whose nodes' logs are shown when the test fails.
func formCluster(t *testing.T, l *Lab, o ClusterOptions) *Cluster {
	t.Helper()
	o.Binary = holdfastBinary(t)
	c, err := l.FormCluster(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	showLogs(t, c)
	return c
}

// showLogs shows the logs of the nodes when the test fails, and makes it fail if one of them crashed or raced.
func showLogs(t *testing.T, c *Cluster) {
	t.Cleanup(func() {
		logs, err := filepath.Glob(filepath.Join(c.lab.Dir, "node-*.log")) // of nodes that were removed, too
		if err != nil {
			t.Error(err)
		}
		for _, path := range logs {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Error(err)
			}
			for _, bad := range []string{"panic: ", "fatal error: ", "DATA RACE"} {
				if at := bytes.Index(text, []byte(bad)); at >= 0 {
					t.Errorf("%s: %.3000s", filepath.Base(path), text[at:])
				}
			}
			if t.Failed() {
				t.Logf("%s:\n%s", filepath.Base(path), tailFile(path, 40))
			}
		}
	})
}

// loseLeader makes the cluster lose its leader, waits until all loads go on under another one, mends what was broken,
// and returns the longest gap that any of the loads saw.
func loseLeader(t *testing.T, c *Cluster, loads []*Load, how Loss) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	leader := runFreely(t, c, loads)
	start := time.Now()
	heal, err := c.Lose(ctx, leader, how)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.AwaitLeader(ctx, leader); err != nil {
		t.Fatal(err)
	}
	gap := goOn(t, loads, start, fmt.Sprintf("%s of node %s", how, leader.Name))
	if err := heal(); err != nil {
		t.Fatal(err)
	}
	return gap
}

// runFreely waits until all is well and the loads run freely, or a gap of the last loss would be taken for one of the next. It returns the leader.
func runFreely(t *testing.T, c *Cluster, loads []*Load) *Node {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	leader, err := c.AwaitHealthy(ctx)
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	for _, l := range loads {
		if err := l.AwaitBeats(ctx, before, 3); err != nil {
			t.Fatal(err)
		}
	}
	return leader
}

// goOn waits until all loads go on after something that began at start, and returns the longest gap that any of them saw since.
func goOn(t *testing.T, loads []*Load, start time.Time, after string) (gap time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	now := time.Now()
	for i, l := range loads {
		if err := l.AwaitBeats(ctx, now, 3); err != nil {
			t.Fatalf("load %d does not go on after %s: %v", i, after, err)
		}
		gap = max(gap, l.LongestGap(start))
	}
	return gap.Round(time.Millisecond)
}

// startLoads mounts the export on the guests and starts the full load on each; the first one holds the lock.
func startLoads(t *testing.T, s Server, guests []*Guest, version string) []*Load {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var loads []*Load
	for i, g := range guests {
		if err := g.Mount(ctx, s.Export(), version, "/mnt"); err != nil {
			t.Fatal(err)
		}
		l, err := g.StartLoad(t.Context(), work.LoadArgs{Dir: "/mnt", Holds: i == 0})
		if err != nil {
			t.Fatal(err)
		}
		loads = append(loads, l)
	}
	return loads
}

// stopLoads ends the loads and verifies, on fresh mounts of every guest, that what was acknowledged is there.
func stopLoads(t *testing.T, s Server, guests []*Guest, loads []*Load, version string) {
	t.Helper()
	var results []work.LoadResult
	// The holder of the lock goes last: its lock is free for the taking when it has gone.
	for i := len(loads) - 1; i >= 0; i-- {
		r, err := loads[i].Stop()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d probes, %d MB acknowledged, %d increments, %d rounds of names, %d of %d claims, %d random operations, %d refusals",
			r.Name, r.Probes, r.AckedBytes()/1e6, r.Increments, r.Named, len(r.Won), r.Tried, r.FsxOps(), r.Full)
		if r.ErrorCount > 0 {
			t.Errorf("%s saw %d errors, such as %q", r.Name, r.ErrorCount, r.Errors)
		}
		results = append(results, r)
	}
	for _, g := range guests {
		if err := g.Unmount(t.Context(), "/mnt"); err != nil {
			t.Error(err)
		}
		if err := g.Mount(t.Context(), s.Export(), version, "/mnt"); err != nil {
			t.Fatal(err)
		}
		var wrong []string
		if err := g.Run(t.Context(), "verify", work.VerifyArgs{Dir: "/mnt", Results: results}, &wrong); err != nil {
			t.Fatal(err)
		}
		for _, w := range wrong {
			t.Errorf("%s finds: %s", g.Name, w)
		}
		if err := g.Unmount(t.Context(), "/mnt"); err != nil {
			t.Error(err)
		}
	}
}

// TestFailover loses ten leaders in a row under the load of two clients, and then compares the replicas.
func TestFailover(t *testing.T) {
	l := newLab(t)
	c, guests := startCluster(t, l, 2)
	loads := startLoads(t, c, guests, "4.2")
	hows := []Loss{LossKill, LossStop, LossLink}
	for i := range rounds(t, 10) {
		how := hows[i%len(hows)]
		t.Logf("loss %d, %s: longest gap %v", i+1, how, loseLeader(t, c, loads, how).Round(time.Millisecond))
	}
	stopLoads(t, c, guests, loads, "4.2")
	checkEqual(t, c)
}

// outageLimits are what the median of the longest gap between two acknowledged O_SYNC writes, one every 10 ms, may be.
var outageLimits = []struct {
	how   Loss
	limit time.Duration
}{
	{LossKill, 300 * time.Millisecond},
	{LossStop, time.Second},
	{LossLink, time.Second},
	{LossTransfer, 200 * time.Millisecond},
}

// TestOutage measures what a client feels of the loss of a leader.
func TestOutage(t *testing.T) {
	l := newLab(t)
	c, guests := startCluster(t, l, 1)
	g := guests[0]
	if err := g.Mount(t.Context(), c.Export(), "4.2", "/mnt"); err != nil {
		t.Fatal(err)
	}
	load, err := g.StartLoad(t.Context(), work.LoadArgs{Dir: "/mnt", ProbeOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range outageLimits {
		var gaps []time.Duration
		for range rounds(t, 3) {
			gaps = append(gaps, loseLeader(t, c, []*Load{load}, o.how).Round(time.Millisecond))
		}
		slices.Sort(gaps)
		median := gaps[len(gaps)/2]
		line := fmt.Sprintf("%-9s median of the longest gap %v (limit %v), all %v", o.how, median, o.limit, gaps)
		if median > o.limit {
			t.Error(line)
		} else {
			t.Log(line)
		}
	}
	if errs := load.Errors(); len(errs) > 0 {
		t.Errorf("the client saw errors: %q", errs)
	}
	if _, err := load.Stop(); err != nil {
		t.Error(err)
	}
}

// TestLoad runs the failover load against Ganesha, without losing it: the load itself must be right. It has one guest, as Ganesha lets two of them win an exclusive create now
// and then.
func TestLoad(t *testing.T) {
	l := newLab(t)
	s := startGanesha(t, l)
	guests := bootGuests(t, l, 1)
	loads := startLoads(t, s, guests, "4.2")
	for i, load := range loads {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := load.AwaitBeats(ctx, time.Now(), 20); err != nil {
			t.Errorf("load %d: %v", i, err)
		}
	}
	stopLoads(t, s, guests, loads, "4.2")
}
