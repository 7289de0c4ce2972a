package lab

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"holdfast/internal/lab/work"
)

const (
	chaosUsual = time.Minute
	// chaosDisk is the size of a node's file system: more than a run needs, so that it is full only when it is filled.
	chaosDisk = 2 << 30
	// chaosBack is how soon service must be back while one node is impaired, and all nodes be in sync when none is. What
	// clients feel is measured elsewhere; this is for machines that are slow besides.
	chaosBack = time.Minute
	// chaosFullGrace is how long after space was made a refusal may still reach the harness: what the client had under way
	// counts too.
	chaosFullGrace = 15 * time.Second
)

// guestClocks are what a client's clock can be ahead by; it stays so until it is set again.
var guestClocks = []time.Duration{0, time.Hour, -time.Hour, 20 * 365 * 24 * time.Hour, -20 * 365 * 24 * time.Hour}

// chaosLength is LAB_CHAOS, a duration such as 5m, or the usual.
func chaosLength(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("LAB_CHAOS")
	if text == "" {
		return chaosUsual
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("LAB_CHAOS: %v", err)
	}
	return d
}

// chaosSeed is LAB_SEED, or a fresh one.
func chaosSeed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("LAB_SEED")
	if text == "" {
		return rand.Uint64()
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("LAB_SEED: %v", err)
	}
	return seed
}

// chaos is a run of random faults. The seed decides on the faults, not on what they meet.
type chaos struct {
	t   *testing.T
	rnd *rand.Rand
	c   *Cluster
	// guests are the clients, with their loads.
	guests []*Guest
	loads  []*Load
	start  time.Time
	done   map[string]int
	// full are the times during which clients may be refused for lack of space.
	full [][2]time.Time
}

// TestChaos impairs nodes at random, one at a time or all at once, under the load of two clients with three mounts.
func TestChaos(t *testing.T) {
	length, seed := chaosLength(t), chaosSeed(t)
	l := newLab(t)
	t.Logf("LAB_SEED=%d LAB_CHAOS=%v", seed, length)
	c, guests := startClusterOf(t, l, ClusterOptions{Roles: DataNodes(3), DiskBytes: chaosDisk}, 2)
	x := &chaos{t: t, rnd: rand.New(rand.NewPCG(seed, 0)), c: c, guests: guests, done: make(map[string]int)}
	x.loads = startChaosLoads(t, c, guests, seed)
	x.start = time.Now()
	for time.Since(x.start) < length && !t.Failed() {
		x.round()
	}
	x.logf("the end: %v", x.done)
	x.checkRefusals()
	x.finish()
}

// startChaosLoads puts a load on each guest, and a second one by NFSv3 on the last.
func startChaosLoads(t *testing.T, s Server, guests []*Guest, seed uint64) (loads []*Load) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	begin := func(g *Guest, version, dir string, args work.LoadArgs) {
		t.Helper()
		if err := g.Mount(ctx, s.Export(), version, dir); err != nil {
			t.Fatal(err)
		}
		args.Dir, args.Fills, args.Fsx, args.Seed = dir, true, 2, seed+uint64(100*len(loads))
		l, err := g.StartLoad(t.Context(), args)
		if err != nil {
			t.Fatal(err)
		}
		loads = append(loads, l)
	}
	for i, g := range guests {
		begin(g, "4.2", "/mnt", work.LoadArgs{Holds: i == 0, Sparse: true})
	}
	last := guests[len(guests)-1]
	begin(last, "3", "/mnt3", work.LoadArgs{Name: last.Name + "-v3", NoLocks: true})
	return loads
}

func (x *chaos) logf(format string, args ...any) {
	x.t.Helper()
	x.t.Logf("%6.1fs %s", time.Since(x.start).Seconds(), fmt.Sprintf(format, args...))
}

// round impairs one node, or kills all, and waits until everything is well again.
func (x *chaos) round() {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.t.Context(), 4*chaosBack)
	defer cancel()
	leader, err := x.c.AwaitHealthy(ctx)
	if err != nil {
		x.t.Fatal(err)
	}
	// All random choices are made before it shows what comes of them, so that the seed decides on them.
	node := x.c.Nodes[x.rnd.IntN(len(x.c.Nodes))]
	if x.rnd.IntN(2) == 0 {
		node = leader
	}
	faults := []chaosFault{chaosFaults[x.rnd.IntN(len(chaosFaults))]}
	second := chaosFaults[x.rnd.IntN(len(chaosFaults))]
	if second.goesWith(faults[0]) && x.rnd.IntN(3) == 0 {
		faults = append(faults, second)
	}
	hold, untilBack, all := time.Duration(x.rnd.IntN(3000))*time.Millisecond, x.rnd.IntN(2) == 0, x.rnd.IntN(10) == 0
	guest, wrong, ahead := x.guests[x.rnd.IntN(len(x.guests))], x.rnd.IntN(4) == 0, guestClocks[x.rnd.IntN(len(guestClocks))]
	start := time.Now()
	if wrong {
		x.done["client's clock"]++
		x.logf("the clock of %s is ahead by %v", guest.Name, ahead)
		if err := guest.SetClock(ctx, ahead); err != nil {
			x.t.Fatal(err)
		}
	}
	var filled *Node
	if all {
		x.done["all killed"]++
		x.logf("all nodes are killed and started again")
		if err := killAll(x.c); err != nil {
			x.t.Fatal(err)
		}
	} else {
		if x.impair(ctx, node, leader == node, faults, hold, untilBack) {
			filled = node
		}
	}
	healed := time.Now()
	x.awaitBack(ctx, "all faults were mended", healed)
	if err := x.awaitHealthy(ctx, filled); err != nil {
		x.t.Fatal(err)
	}
	x.logf("  all well %v after mending; longest gaps %v", time.Since(healed).Round(time.Millisecond), x.gaps(start))
	x.checkNodes()
}

// awaitHealthy waits until all nodes are in sync. One whose disk was full may end itself even after there is space again, when it had been refused before, and is started again as
// systemd would; nil: no disk was full.
func (x *chaos) awaitHealthy(ctx context.Context, filled *Node) error {
	if filled == nil {
		_, err := x.c.AwaitHealthy(ctx)
		return err
	}
	for {
		watched, cancel := context.WithCancel(ctx)
		ended := filled.Process.Done()
		go func() {
			select {
			case <-ended:
				cancel()
			case <-watched.Done():
			}
		}()
		_, err := x.c.AwaitHealthy(watched)
		interrupted := watched.Err() != nil && ctx.Err() == nil
		cancel()
		if err == nil || !interrupted {
			return err
		}
		x.logf("  node %s ended itself for lack of space and is started again", filled.Name)
		if err := restart(filled); err != nil {
			return err
		}
	}
}

// impair applies the faults to a node, holds them for a while or until service is back, and mends them. It reports whether the node's disk was full.
func (x *chaos) impair(ctx context.Context, n *Node, leads bool, faults []chaosFault, hold time.Duration, untilBack bool) (filled bool) {
	x.t.Helper()
	var heals []func() error
	fullSince := time.Time{}
	for _, f := range faults {
		x.done[f.name]++
		x.logf("node %s (leads: %v): %s", n.Name, leads, f.name)
		if f.part == "disk" {
			fullSince = time.Now()
		}
		heal, err := f.apply(ctx, x.c, n)
		if err != nil {
			x.t.Fatalf("%s of node %s: %v", f.name, n.Name, err)
		}
		heals = append(heals, heal)
	}
	select {
	case <-time.After(hold):
	case <-ctx.Done():
	}
	if untilBack {
		x.awaitBack(ctx, "the impairment of node "+n.Name, time.Now())
	}
	for _, heal := range heals {
		if err := heal(); err != nil {
			x.t.Fatal(err)
		}
	}
	if !fullSince.IsZero() {
		x.full = append(x.full, [2]time.Time{fullSince, time.Now().Add(chaosFullGrace)})
	}
	return !fullSince.IsZero()
}

// awaitBack waits until all loads go on.
func (x *chaos) awaitBack(ctx context.Context, after string, since time.Time) {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, chaosBack)
	defer cancel()
	for i, l := range x.loads {
		if err := l.AwaitBeats(ctx, since, 1); err != nil {
			all, errs := x.c.volumes(x.t.Context())
			x.t.Fatalf("load %d does not go on after %s: %v\n%s", i, after, err, x.c.describe(all, errs))
		}
	}
}

func (x *chaos) gaps(since time.Time) (gaps []time.Duration) {
	for _, l := range x.loads {
		gaps = append(gaps, l.LongestGap(since).Round(time.Millisecond))
	}
	return gaps
}

// checkNodes finds nodes that ended by themselves, and what a node says only when something is wrong with it.
func (x *chaos) checkNodes() {
	x.t.Helper()
	for _, n := range x.c.Nodes {
		select {
		case <-n.Process.Done():
			x.t.Errorf("node %s has ended by itself:\n%s", n.Name, n.Log(40))
		default:
		}
		if log := n.Log(1 << 20); strings.Contains(log, "panic: ") || strings.Contains(log, "fatal error: ") {
			x.t.Errorf("node %s has crashed:\n%s", n.Name, n.Log(200))
		}
	}
	for i, l := range x.loads {
		if errs := l.Errors(); len(errs) > 0 {
			x.t.Errorf("load %d saw errors: %q", i, errs)
		}
	}
}

// checkRefusals checks that clients were refused for lack of space only when a disk was full.
func (x *chaos) checkRefusals() {
	x.t.Helper()
	for i, l := range x.loads {
		for _, at := range l.Refusals() {
			justified := false
			for _, f := range x.full {
				justified = justified || !at.Before(f[0]) && at.Before(f[1])
			}
			if !justified {
				x.t.Errorf("load %d was refused for lack of space at %.1fs, when no disk was full", i, at.Sub(x.start).Seconds())
			}
		}
	}
}

// finish ends the loads, verifies what they did, and compares the replicas.
func (x *chaos) finish() {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.t.Context(), chaosBack)
	defer cancel()
	if _, err := x.c.AwaitHealthy(ctx); err != nil {
		x.t.Fatal(err)
	}
	// If the last thing was a full disk, the leader learns within two seconds that there is room again. A load that ends before ends with a refusal, and knows less of what must be there.
	now := time.Now()
	for i, l := range x.loads {
		if err := l.AwaitBeats(ctx, now, 40); err != nil { // 4 s
			x.t.Fatalf("load %d does not go on: %v", i, err)
		}
	}
	stopLoads(x.t, x.c, x.guests, x.loads, "4.2")
	checkEqual(x.t, x.c)
}
