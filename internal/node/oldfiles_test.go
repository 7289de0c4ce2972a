package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/internal/cluster"
	"holdfast/internal/nfsclient"
)

// withoutFiles is three nodes, the last of which has gone on without the files of its copy. What it returns brings them back, when that node does not run.
func withoutFiles(t *testing.T) (c *testCluster, cl nfsclient.Client, n *testNode, back func()) {
	t.Helper()
	c = newCluster(t, clusterOptions{}).startAll()
	cl = c.mount("3", "/data")
	c.mustWrite(cl, "f", []byte("old"))
	c.inSync(3)
	n = c.nodes[2]
	c.mustStop(n)
	back = takeFiles(t, n)
	c.start(n)
	c.inSync(3)
	return c, cl, n, back
}

// refusesFiles waits until a node's status says why it does not take the files of its copy, and how to go on.
func (c *testCluster) refusesFiles(n *testNode, why string) {
	c.t.Helper()
	var text string
	await(c.t, testTimeout, func() bool {
		s, err := n.api().Status(c.context(), false)
		text = strings.Join(s.Warnings, "\n")
		return err == nil && strings.Contains(text, why) && strings.Contains(text, "`holdfast check v --repair --wrong "+n.name+"`")
	}, func() string { return "status does not say it: " + text })
}

// TestOldFiles brings the files back with which a node was before it went on without them, as a disk does that is mounted again: it would have forgotten what it promised since.
// With the newer ones it goes on, and without any it is made anew.
func TestOldFiles(t *testing.T) {
	c, cl, n, back := withoutFiles(t)
	c.mustWrite(cl, "f", []byte("new"))
	c.inSync(3)
	c.mustStop(n)
	newer, kept := volumeFolder(t, n), filepath.Join(n.dir, "newer")
	if err := errors.Join(os.Rename(newer, kept), os.Mkdir(newer, 0o700)); err != nil {
		t.Fatal(err)
	}
	back()
	c.start(n)
	c.refusesFiles(n, "its files are older than what it has promised since")
	c.mustRead(cl, "f", []byte("new"))

	c.mustStop(n)
	if err := errors.Join(os.RemoveAll(newer), os.Rename(kept, newer)); err != nil {
		t.Fatal(err)
	}
	c.start(n)
	c.inSync(3)
	c.mustStop(n)
	takeFiles(t, n)
	c.start(n)
	c.inSync(3)
	c.equal()
	c.mustRead(cl, "f", []byte("new"))
}

// TestOldFilesAgain brings the files of an earlier part of the same node back, after the copy was made anew.
func TestOldFilesAgain(t *testing.T) {
	c, cl, n, back := withoutFiles(t)
	c.remake(n)
	c.mustWrite(cl, "f", []byte("new"))
	c.inSync(3)
	c.mustStop(n)
	back()
	c.start(n)
	c.refusesFiles(n, "its files are another member's")
	c.remake(n)
	c.inSync(3)
	c.equal()
	c.mustRead(cl, "f", []byte("new"))
}

// TestFilesOfFirstRelease starts a node with files that say neither whose they are nor of when, and notes that.
func TestFilesOfFirstRelease(t *testing.T) {
	c := newCluster(t, clusterOptions{roles: []cluster.Role{cluster.RoleData}}).startAll()
	cl := c.mount("3", "/data")
	c.mustWrite(cl, "f", []byte("old"))
	n := c.nodes[0]
	c.mustStop(n)
	file := filepath.Join(volumeFolder(t, n), metaFile)
	// whose returns what the file says of that, and takes it out if it is to.
	whose := func(takeOut bool) string {
		var meta map[string]any
		text, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(text, &meta)
		}
		group, member := meta["group"], meta["member"]
		if takeOut {
			delete(meta, "group")
			delete(meta, "member")
			text, _ = json.Marshal(meta)
			err = errors.Join(err, os.WriteFile(file, text, 0o600))
		}
		if err != nil || group == nil || member == nil {
			t.Fatalf("group %v, member %v, %v", group, member, err)
		}
		return fmt.Sprint(group, member)
	}
	was := whose(true)
	c.start(n)
	c.mustRead(cl, "f", []byte("old"))
	if now := whose(false); now != was {
		t.Errorf("the files are of %s, and were of %s", now, was)
	}
}
