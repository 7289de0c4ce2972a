package lab

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"holdfast/internal/lab/work"
)

// versions are the protocol versions that the tests mount with, "4.2" being what a Linux client does by default.
var versions = []string{"4.2", "4.1", "3"}

// exercise is how much is done over one mount.
type exercise struct {
	entries int               // of the big folder
	files   int               // of the tree
	known   map[string]string // checks that this server is known to fail, with the reason
}

// exerciseClient runs the POSIX exercise and the tree of files over one mount.
func exerciseClient(t *testing.T, g *Guest, s Server, version string, e exercise) {
	if err := g.Mount(t.Context(), s.Export(), version, "/mnt"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.Unmount(t.Context(), "/mnt"); err != nil {
			t.Errorf("after the exercise: %v", err)
		}
	}()
	runPosix(t, g, version, e)
	if os.Getenv("LAB_CHECK") == "" {
		runTree(t, g, e.files)
	}
}

// runPosix runs the POSIX exercise, or the one check that LAB_CHECK names.
func runPosix(t *testing.T, g *Guest, version string, e exercise) {
	args := work.PosixArgs{Dir: "/mnt", Version: version, Only: os.Getenv("LAB_CHECK"), Entries: e.entries}
	start := time.Now()
	passed := 0
	task, err := g.Start(t.Context(), "posix", args, func(raw json.RawMessage) {
		var o work.Outcome
		if err := json.Unmarshal(raw, &o); err != nil {
			t.Errorf("decode outcome: %v", err)
			return
		}
		if o.Millis > 1000 {
			t.Logf("%s took %d ms", o.Name, o.Millis)
		}
		switch reason, isKnown := e.known[o.Name]; {
		case o.Skipped != "":
			t.Logf("skip %s: %s", o.Name, o.Skipped)
		case o.Error == "":
			passed++
		case isKnown:
			t.Logf("known failure of %s (%s): %s", o.Name, reason, o.Error)
		default:
			t.Errorf("%s (%d ms): %s", o.Name, o.Millis, o.Error)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := task.Wait(nil); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d checks passed in %v", passed, time.Since(start).Round(time.Millisecond))
}

// runTree unpacks, compares and removes a tree of files.
func runTree(t *testing.T, g *Guest, files int) {
	var times work.TreeResult
	if err := g.Run(t.Context(), "tree", work.TreeArgs{Dir: "/mnt", Files: files}, &times); err != nil {
		t.Error(err)
	}
	t.Logf("%d files: unpacked in %d ms, compared in %d ms, removed in %d ms", files,
		times.UnpackMillis, times.CompareMillis, times.RemoveMillis)
}

// TestWorkloads runs the client's exercise, made small, against Ganesha, to tell a defect of the workloads from one of
// Holdfast.
func TestWorkloads(t *testing.T) {
	l := newLab(t)
	s := startGanesha(t, l)
	g := bootGuests(t, l, 1)[0]
	for _, version := range versions {
		t.Run("v"+version, func(t *testing.T) {
			exerciseClient(t, g, s, version, exercise{entries: 500, files: 200, known: ganeshaFails})
		})
	}
}

// TestLinuxClient exercises three nodes with real clients of every version.
func TestLinuxClient(t *testing.T) {
	l := newLab(t)
	c, guests := startCluster(t, l, 2)
	for _, version := range versions {
		t.Run("v"+version, func(t *testing.T) {
			// All of the machinery below is the same for each version, so that one is enough for what takes long.
			e := exercise{entries: 1000, files: 250}
			if version == versions[0] {
				e = exercise{entries: 3000, files: 1000}
			}
			exerciseClient(t, guests[0], c, version, e)
			if version != "3" { // mounted without locks between clients
				playLocks(t, guests, c, version)
			}
		})
	}
}
