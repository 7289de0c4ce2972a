package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/internal/cluster"
)

// volumeFolder is that of the only volume on a node.
func volumeFolder(t *testing.T, n *testNode) string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(n.dir, volumesDir, "v-*"))
	if err != nil || len(dirs) != 1 {
		t.Fatalf("folders of the volume: %v, %v", dirs, err)
	}
	return dirs[0]
}

// takeFiles moves away the files of a copy, on a node that does not run, as a disk does that is not mounted. What it returns brings them back.
func takeFiles(t *testing.T, n *testNode) (back func()) {
	t.Helper()
	dir, away := volumeFolder(t, n), filepath.Join(n.dir, "away")
	if err := os.Rename(dir, away); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(away, dir); err != nil {
			t.Fatal(err)
		}
	}
}

// saysGone waits until every node's status says that most copies are gone, on which nodes, and checks that nobody leads meanwhile.
func (c *testCluster) saysGone(nodes string) {
	c.t.Helper()
	for _, n := range c.nodes {
		var text string
		await(c.t, testTimeout, func() bool {
			s, err := n.api().Status(c.context(), false)
			text = strings.Join(s.Warnings, "\n")
			if err == nil && len(s.Volumes) == 1 && s.Volumes[0].Leader != "" {
				c.t.Fatalf("node %s leads a volume most of whose copies are gone", s.Volumes[0].Leader)
			}
			return err == nil && strings.Contains(text, "THE FILES OF MOST COPIES ARE GONE, on "+nodes+": ")
		}, func() string { return fmt.Sprintf("status of node %s does not say it: %s", n.name, text) })
	}
}

// TestFilesGone starts nodes of which most have lost the files of their copies: nobody may take that for a volume that begins. Status says what is the matter, and the volume
// goes on when the files are back.
func TestFilesGone(t *testing.T) {
	for _, tt := range []struct {
		name  string
		nodes int
		gone  int
		back  int // that get their files back; the others must do without
		roles []cluster.Role
	}{
		{"all of one", 1, 1, 1, []cluster.Role{cluster.RoleData}},
		{"all of three", 3, 3, 3, nil},
		{"all of three, two are found", 3, 3, 2, nil},
		{"two of three, one is found", 3, 2, 1, nil},
		{"both of two, with a witness", 3, 2, 2, []cluster.Role{cluster.RoleData, cluster.RoleData, cluster.RoleWitness}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t, clusterOptions{roles: tt.roles})
			c.mustDo(cluster.Command{AddVolume: &cluster.AddVolume{Spec: c.spec()}})
			c.inSync(tt.nodes)
			cl := c.mount("3", "/data")
			c.mustWrite(cl, "f", []byte("acknowledged"))
			c.inSync(tt.nodes)
			for _, n := range c.nodes {
				c.mustStop(n)
			}
			var gone []string
			var back []func()
			for _, n := range c.nodes[:tt.gone] {
				gone, back = append(gone, n.name), append(back, takeFiles(t, n))
			}
			for _, n := range c.nodes {
				c.start(n)
			}
			c.saysGone(strings.Join(gone, ", "))
			for i, n := range c.nodes[:tt.back] {
				c.mustStop(n)
				back[i]()
			}
			for _, n := range c.nodes[:tt.back] {
				c.start(n)
			}
			c.mustRead(cl, "f", []byte("acknowledged"))
			c.equal()
			s, err := c.leader().api().Status(c.context(), false)
			if err != nil || strings.Contains(strings.Join(s.Warnings, "\n"), "GONE") {
				t.Errorf("status warns still: %q, %v", s.Warnings, err)
			}
		})
	}
}

// TestFilesOfFirstGone takes the files of the member that a volume began with away, when others have joined it since: it must not take itself for the only one.
func TestFilesOfFirstGone(t *testing.T) {
	c := newCluster(t, clusterOptions{roles: []cluster.Role{cluster.RoleData}}).startAll()
	first := c.nodes[0]
	cl := c.mount("3", "/data")
	c.mustWrite(cl, "f", []byte("acknowledged"))
	for _, name := range []string{"b", "c"} {
		c.join(c.newNode(name), cluster.RoleData, "")
	}
	c.options.roles = []cluster.Role{cluster.RoleData, cluster.RoleData, cluster.RoleData}
	c.inSync(3)
	c.mustStop(first)
	takeFiles(t, first)
	c.start(first)
	warned := "the files of the copy on a were gone when it started."
	var text string
	await(t, testTimeout, func() bool {
		s, err := first.api().Status(c.context(), false)
		text = strings.Join(s.Warnings, "\n")
		return err == nil && strings.Contains(text, warned) && strings.Contains(text, "`holdfast check v --repair --wrong a`")
	}, func() string { return "status does not say it: " + text })
	for _, n := range c.nodes {
		_, v, err := c.look(n)
		if err != nil || v.Leader == first.name || v.Serving && n == first {
			t.Fatalf("at node %s: %+v, %v", n.name, v, err)
		}
	}
	c.remake(first)
	c.equal()
	c.mustRead(cl, "f", []byte("acknowledged"))
	s, err := first.api().Status(c.context(), false)
	if err != nil || strings.Contains(strings.Join(s.Warnings, "\n"), warned) {
		t.Errorf("status warns still: %q, %v", s.Warnings, err)
	}
}

// TestFilesOfLaterMembersGone takes the files of members away that came after the volume had begun: they cannot come back without, and status counts them, too.
func TestFilesOfLaterMembersGone(t *testing.T) {
	c := newCluster(t, clusterOptions{roles: []cluster.Role{cluster.RoleData}}).startAll()
	for _, name := range []string{"b", "c"} {
		c.join(c.newNode(name), cluster.RoleData, "")
	}
	c.inSync(3)
	for _, n := range c.nodes {
		c.mustStop(n)
	}
	for _, n := range c.nodes[1:] {
		takeFiles(t, n)
	}
	for _, n := range c.nodes {
		c.start(n)
	}
	c.saysGone("b, c")
}
