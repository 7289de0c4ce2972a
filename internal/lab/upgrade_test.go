package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRollingUpgrade takes a cluster from the newest tagged release to this one, node by node with `holdfast roll`, while a client writes. Where no tag is known, as in a
// shallow checkout, it is this release under another name: then formats are not crossed, but everything else happens.
func TestRollingUpgrade(t *testing.T) {
	l := newLab(t)
	booted := startGuests(t, l, 1)
	old, err := releaseBinary(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.FormCluster(t.Context(), ClusterOptions{Binary: old.path, Roles: TwoPlusWitness()})
	if err != nil {
		t.Fatal(err)
	}
	showLogs(t, c)
	load := startProbe(t, booted()[0], c.Export())
	runFreely(t, c, []*Load{load})
	from := c.Nodes[2] // the witness is as good as any to ask
	before := releases(t, from)
	c.options.Binary = holdfastBinary(t)

	// The command for each node asks this test to restart it, as ssh would, and waits.
	wishes := t.TempDir()
	served, stop := make(chan error, 1), make(chan struct{})
	go func() { served <- serveWishes(c, wishes, stop) }()
	start := time.Now()
	out := command(t, from, "roll", "--timeout", "1m", "--run",
		fmt.Sprintf(`touch %[1]s/{node}.wish; while [ -e %[1]s/{node}.wish ]; do sleep 0.02; done; cat %[1]s/{node}.done`, wishes))
	close(stop)
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	gap := goOn(t, []*Load{load}, start, "the upgrade")
	after := releases(t, from)
	t.Logf("from %s (%s) in %v, longest gap %v\n%s", old.name, before, time.Since(start).Round(time.Millisecond), gap, out)
	if strings.Contains(after, old.name) || strings.Count(out, "now (was") != len(c.Nodes) {
		t.Errorf("the nodes run %s", after)
	}
	if gap > lossLimit {
		t.Errorf("the client waited %v", gap)
	}
	stopProbe(t, load)
	checkEqual(t, c)
}

// release is a build of Holdfast.
type release struct{ name, path string }

// releaseBinary builds the newest tag, or this release under another name.
func releaseBinary(ctx context.Context, dir string) (release, error) {
	src, name := ".", "v0.0.0-before"
	if tag, err := exec.CommandContext(ctx, "git", "describe", "--tags", "--abbrev=0").Output(); err == nil {
		name = strings.TrimSpace(string(tag))
		src = filepath.Join(dir, "src")
		if err := os.Mkdir(src, 0o755); err != nil {
			return release{}, err
		}
		if err := unpackTag(ctx, name, src); err != nil {
			return release{}, err
		}
	}
	r := release{name: name, path: filepath.Join(dir, "holdfast-before")}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w -X main.version="+name, "-o", r.path, "holdfast/cmd/holdfast")
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return r, fmt.Errorf("build %s: %w\n%s", name, err, text)
	}
	return r, nil
}

// unpackTag writes the files of a tag into a folder.
func unpackTag(ctx context.Context, tag, dir string) error {
	top, err := exec.CommandContext(ctx, "git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		return fmt.Errorf("find the repository: %w", err)
	}
	archive := exec.CommandContext(ctx, "git", "archive", tag)
	archive.Dir = strings.TrimSpace(string(top))
	tar := exec.CommandContext(ctx, "tar", "x", "-C", dir)
	if tar.Stdin, err = archive.StdoutPipe(); err != nil {
		return err
	}
	var said bytes.Buffer
	archive.Stderr, tar.Stderr = &said, &said
	if err := tar.Start(); err != nil {
		return fmt.Errorf("unpack %s: %w", tag, err)
	}
	if err := errors.Join(archive.Run(), tar.Wait()); err != nil {
		return fmt.Errorf("unpack %s: %w\n%s", tag, err, said.String())
	}
	return nil
}

// releases lists what the nodes run, as a node knows it.
func releases(t *testing.T, n *Node) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	s, err := n.api.Status(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range s.Nodes {
		all = append(all, m.Name+" "+m.Release)
	}
	return strings.Join(all, ", ")
}

// serveWishes restarts the nodes for which there are files NAME.wish in a folder, until stop is closed, and answers with NAME.done.
func serveWishes(c *Cluster, dir string, stop <-chan struct{}) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return nil
		case <-tick.C:
		}
		for _, n := range c.Nodes {
			wish := filepath.Join(dir, n.Name+".wish")
			if _, err := os.Stat(wish); err != nil {
				continue
			}
			if err := restartInOrder(n); err != nil {
				return err
			}
			if err := os.Rename(wish, filepath.Join(dir, n.Name+".done")); err != nil {
				return err
			}
		}
	}
}

// restartInOrder stops a node in good order and starts it with the cluster's binary of now.
func restartInOrder(n *Node) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := n.Process.Stop(ctx); err != nil {
		return fmt.Errorf("stop node %s: %w\n%s", n.Name, err, n.Log(20))
	}
	return n.Start()
}
