package lab

import (
	"slices"
	"testing"
	"time"

	"holdfast/internal/lab/work"
)

// moveLimit is what the median of the longest gap that a client sees of a planned move may be.
const moveLimit = 200 * time.Millisecond

// TestMoves hands the volume round and round while a client writes and holds locks that another one wants.
func TestMoves(t *testing.T) {
	l := newLab(t)
	c, guests := startCluster(t, l, 2)
	load := startProbe(t, guests[0], c.Export())
	mount(t, guests[1], c.Export(), "4.2", "/mnt")
	// Ranges of one file, and the whole of another by flock.
	locks := []work.LockStep{
		{File: "/mnt/ranges", Do: "fcntl", Kind: "w", Start: 100, Length: 50},
		{File: "/mnt/ranges", Do: "fcntl", Kind: "r", Start: 1000, Length: 50},
		{File: "/mnt/whole", Do: "flock", Kind: "w"},
	}
	lock := func(g *Guest, s work.LockStep, errno string) {
		t.Helper()
		var o work.LockOutcome
		if err := g.Run(t.Context(), "lock", s, &o); err != nil {
			t.Fatal(err)
		}
		if o.Errno != errno {
			t.Errorf("%s: %+v: got %q, want %q", g.Name, s, o.Errno, errno)
		}
	}
	for _, s := range locks {
		lock(guests[0], s, "")
	}
	var gaps, commands []time.Duration
	for range rounds(t, 24) {
		leader := runFreely(t, c, []*Load{load})
		at := slices.Index(c.Nodes, leader)
		to, from := c.Nodes[(at+1)%len(c.Nodes)], c.Nodes[(at+2)%len(c.Nodes)]
		start := time.Now()
		command(t, from, "move", clusterVolume, "--to", to.Name)
		commands = append(commands, round(time.Since(start)))
		gaps = append(gaps, goOn(t, []*Load{load}, start, "the move to node "+to.Name))
		// Whoever holds a lock can write under it, and nobody else gets it.
		lock(guests[0], work.LockStep{File: "/mnt/ranges", Do: "write", Start: 100}, "")
		for _, s := range locks {
			s.Kind = "w"
			lock(guests[1], s, "EAGAIN")
		}
	}
	// They are locks still, and not merely refused: the other client gets what is let go.
	for _, s := range locks {
		s.Kind = "u"
		lock(guests[0], s, "")
		s.Kind = "w"
		lock(guests[1], s, "")
	}
	t.Logf("gaps %v", gaps)
	slices.Sort(gaps)
	slices.Sort(commands)
	median := gaps[len(gaps)/2]
	t.Logf("%d moves: median of the longest gap %v, longest %v (limit of the median %v); median of the commands %v", len(gaps), median, gaps[len(gaps)-1], moveLimit, commands[len(commands)/2])
	if longest := gaps[len(gaps)-1]; median > moveLimit || longest > lossLimit {
		t.Errorf("median gap %v, longest %v", median, longest)
	}
	stopProbe(t, load)
	checkEqual(t, c)
}
