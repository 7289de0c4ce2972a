package node

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"holdfast/internal/cluster"
)

// TestWitnessHoldsNoData writes a file whose name and content can be recognised, while all nodes are there and while the witness's vote counts. Both must be found in the
// folders of the data nodes, and nowhere in the witness's.
func TestWitnessHoldsNoData(t *testing.T) {
	roles := []cluster.Role{cluster.RoleData, cluster.RoleData, cluster.RoleWitness}
	c := newCluster(t, clusterOptions{processes: true, roles: roles}).startAll()
	witness := c.nodes[2]
	cl := c.mount("4.1", "/data")
	small, large := []byte("a few words that only copies may hold"), bytes.Repeat([]byte("what nobody but a copy may hold."), 32<<10)
	name, degraded := "a-name-that-only-copies-know", "a-name-from-the-night"
	c.mustWrite(cl, name, small)
	c.mustWrite(cl, name+".large", large)

	leader := c.leader()
	lost := c.nodes[0]
	if lost == leader {
		lost = c.nodes[1]
	}
	c.kill(lost)
	c.mustWrite(cl, degraded, small) // on one disk, by the vote of the witness
	c.start(lost)
	c.inSync(3)
	for _, n := range c.nodes {
		c.mustStop(n)
	}

	for _, marker := range [][]byte{small, large[:32], []byte(name), []byte(degraded)} {
		for _, n := range c.nodes[:2] {
			if file := findIn(t, n.dir, marker); file == "" {
				t.Errorf("%q is not in the folder of node %s: it cannot be recognised", marker, n.name)
			}
		}
		if file := findIn(t, witness.dir, marker); file != "" {
			t.Errorf("%q is in %s of the witness", marker, file)
		}
	}
	found, err := filepath.Glob(filepath.Join(witness.dir, volumesDir, "*", storeDir))
	if err != nil || len(found) > 0 {
		t.Errorf("the witness has %v, %v", found, err)
	}
}

// findIn returns a file below dir that holds text, or "".
func findIn(t *testing.T, dir string, text []byte) string {
	t.Helper()
	found := ""
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, text) {
			found = path
			return filepath.SkipAll
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
