package lab

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"holdfast/internal/lab/work"
)

// TestBackup backs a volume up while clients write, and compares what a volume made of that has.
func TestBackup(t *testing.T) {
	l := newLab(t)
	c, guests := startCluster(t, l, 2)
	g := guests[1]
	mount(t, g, c.Export(), "4.2", "/main")
	tree := work.TreeArgs{Dir: "/main", Files: 200}
	if err := g.Run(t.Context(), "tree-unpack", tree, nil); err != nil {
		t.Fatal(err)
	}
	loads := startLoads(t, c, guests[:1], "4.2")
	grows := work.FileStep{Path: "/main/" + guests[0].Name + "-append", Do: "size"}
	folder := filepath.Join(l.Dir, "backups")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	backup := func(flags ...string) (size int64) {
		t.Helper()
		runFreely(t, c, loads)
		size = fileStep(t, g, grows, "").Size
		start := time.Now()
		command(t, c.Nodes[1], append([]string{"backup", clusterVolume, folder}, flags...)...)
		t.Logf("backup %v: %v, longest gap %v", flags, round(time.Since(start)), goOn(t, loads, start, "the backup"))
		return size
	}
	backup()
	fileStep(t, g, work.FileStep{Path: "/main/late", Do: "write", Size: 3 << 20}, "")
	late := fileStep(t, g, work.FileStep{Path: "/main/late", Do: "digest"}, "")
	size := backup("--incremental")
	// What is done after the backup is not in it.
	fileStep(t, g, work.FileStep{Path: "/main/late", Do: "remove"}, "")

	e := c.Export()
	e.Addr = "10.94.0.102"
	start := time.Now()
	command(t, c.Nodes[2], "restore", "copy", folder, "--from", clusterVolume, "--address", e.Addr+"/24", "--reserve", "64MiB",
		"--export", e.Path, "--client", "10.94.0.0/24:rw,no_root_squash")
	t.Logf("restored in %v", round(time.Since(start)))
	// There is a grace period for those who had the volume mounted; version 3 knows of none.
	mount(t, g, e, "3", "/copy")
	tree.Dir = "/copy"
	if err := g.Run(t.Context(), "tree-compare", tree, nil); err != nil {
		t.Errorf("the restored tree: %v", err)
	}
	if got := fileStep(t, g, work.FileStep{Path: "/copy/late", Do: "digest"}, ""); got != late {
		t.Errorf("restored %+v, backed up %+v", got, late)
	}
	appended := func(dir string) work.FileOutcome {
		t.Helper()
		return fileStep(t, g, work.FileStep{Path: dir + "/" + guests[0].Name + "-append", Do: "digest", Size: size}, "")
	}
	if got, want := appended("/copy"), appended("/main"); got != want || got.Size != size {
		t.Errorf("of what was there when the backup began: restored %+v, backed up %+v, want %d bytes", got, want, size)
	}
	fileStep(t, g, work.FileStep{Path: "/copy/new", Do: "write", Size: 1 << 20}, "")
	command(t, c.Nodes[0], "check", "copy")
	unmount(t, g, "/copy")
	unmount(t, g, "/main")
	stopLoads(t, c, guests[:1], loads, "4.2")
	checkEqual(t, c)
}
