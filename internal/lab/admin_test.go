package lab

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/internal/cluster"
	"holdfast/internal/lab/work"
)

// What tests of a cluster's life with its administrators have in common.

// command runs a command of holdfast on a node, which must succeed, and returns what it printed.
func command(t *testing.T, n *Node, args ...string) string {
	t.Helper()
	out, err := n.Holdfast(t.Context(), args...)
	if err != nil {
		t.Fatalf("on node %s: %v", n.Name, err)
	}
	return out
}

// refused runs a command that must fail, and returns what it said.
func refused(t *testing.T, n *Node, args ...string) string {
	t.Helper()
	_, err := n.Holdfast(t.Context(), args...)
	if err == nil {
		t.Fatalf("on node %s: holdfast %s was not refused", n.Name, strings.Join(args, " "))
	}
	return err.Error()
}

// mount mounts an export, which must succeed within a time that a person would wait.
func mount(t *testing.T, g *Guest, e Export, version, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := g.Mount(ctx, e, version, dir); err != nil {
		t.Fatal(err)
	}
}

func unmount(t *testing.T, g *Guest, dir string) {
	t.Helper()
	if err := g.Unmount(t.Context(), dir); err != nil {
		t.Error(err)
	}
}

// fileStep does one thing with a file, and fails if it ends with another error than the one that is wanted, "" being none.
func fileStep(t *testing.T, g *Guest, step work.FileStep, errno string) work.FileOutcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var o work.FileOutcome
	if err := g.Run(ctx, "file", step, &o); err != nil {
		t.Fatal(err)
	}
	if o.Errno != errno {
		t.Errorf("%s: %+v: got %+v, want error %q", g.Name, step, o, errno)
	}
	return o
}

// startProbe mounts the export and starts a load that only watches for gaps.
func startProbe(t *testing.T, g *Guest, e Export) *Load {
	t.Helper()
	mount(t, g, e, "4.2", "/mnt")
	l, err := g.StartLoad(t.Context(), work.LoadArgs{Dir: "/mnt", ProbeOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// stopProbe ends a load of startProbe, which must not have seen errors.
func stopProbe(t *testing.T, l *Load) {
	t.Helper()
	r, err := l.Stop()
	if err != nil {
		t.Error(err)
	}
	if r.ErrorCount > 0 {
		t.Errorf("the client saw %d errors, such as %q", r.ErrorCount, r.Errors)
	}
	t.Logf("%d writes, longest gap of all %v", r.Probes, r.LongestGap.Round(time.Millisecond))
}

// checkEqual waits until all is well, and compares the copies.
func checkEqual(t *testing.T, c *Cluster) {
	t.Helper()
	if err := compareCopies(t, c); err != nil {
		t.Error(err)
	}
}

// checkBusy compares the copies while clients write. On a machine that is busy they may not be had at one index; that is said, and no failure.
func checkBusy(t *testing.T, c *Cluster) {
	t.Helper()
	switch err := compareCopies(t, c); {
	case err != nil && isBusy(err):
		t.Log(err)
	case err != nil:
		t.Error(err)
	}
}

// compareCopies waits until all is well, and compares the copies, several times if need be.
func compareCopies(t *testing.T, c *Cluster) (err error) {
	t.Helper()
	for range 5 {
		if err = c.Check(t.Context(), awaitHealthy(t, c)); err == nil || !isBusy(err) {
			break
		}
	}
	return err
}

// isBusy tells whether copies could not be compared because too much was written, or because the leader's lease lapsed meanwhile.
func isBusy(err error) bool {
	return strings.Contains(err.Error(), "check again") || strings.Contains(err.Error(), "does not serve the volume now")
}

// awaitHealthy waits until all is well, and returns the leader.
func awaitHealthy(t *testing.T, c *Cluster) *Node {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	leader, err := c.AwaitHealthy(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return leader
}

// other returns a data node that is not any of these.
func other(t *testing.T, c *Cluster, not ...*Node) *Node {
	t.Helper()
	for _, n := range c.Nodes {
		if n.Role == cluster.RoleData && !slices.Contains(not, n) {
			return n
		}
	}
	t.Fatal("there is no other data node")
	return nil
}
