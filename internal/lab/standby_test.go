package lab

import (
	"context"
	"slices"
	"testing"
	"time"
)

// stays checks that a node leads, and still does when the load has gone on for a while.
func stays(t *testing.T, c *Cluster, load *Load, leader *Node, why string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := load.AwaitBeats(ctx, time.Now(), 15); err != nil { // 1.5 s
		t.Fatal(err)
	}
	if now := awaitHealthy(t, c); now != leader {
		t.Errorf("%s: node %s leads, not %s", why, now.Name, leader.Name)
	}
}

// TestStandby takes nodes out of service and back, as for the maintenance of machines, while a client writes.
func TestStandby(t *testing.T) {
	l := newLab(t)
	c, guests := startCluster(t, l, 1)
	load := startProbe(t, guests[0], c.Export())
	loads := []*Load{load}

	t.Run("standby", func(t *testing.T) {
		var gaps []time.Duration
		for range 3 {
			was := runFreely(t, c, loads)
			start := time.Now()
			command(t, was, "standby", was.Name)
			gaps = append(gaps, goOn(t, loads, start, "standby of node "+was.Name))
			now := awaitHealthy(t, c)
			if now == was {
				t.Errorf("node %s leads in standby", was.Name)
			}
			command(t, was, "unstandby", was.Name)
			stays(t, c, load, now, "after unstandby of node "+was.Name)
		}
		slices.Sort(gaps)
		t.Logf("longest gaps %v (limit of the median %v)", gaps, moveLimit)
		if gaps[1] > moveLimit || gaps[2] > lossLimit {
			t.Errorf("clients waited for %v", gaps)
		}
	})
	t.Run("drain", func(t *testing.T) {
		was := runFreely(t, c, loads)
		start := time.Now()
		command(t, other(t, c, was), "drain", was.Name, "--timeout", "20s")
		drained := time.Since(start)
		moved := goOn(t, loads, start, "drain")
		start = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := was.Process.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		stopped := goOn(t, loads, start, "the stop of a drained node")
		// With one node gone, no other may be drained.
		t.Log(refused(t, other(t, c, was), "drain", other(t, c, was).Name, "--timeout", "5s"))
		if err := was.Start(); err != nil {
			t.Fatal(err)
		}
		leader := awaitHealthy(t, c)
		command(t, was, "unstandby", was.Name)
		stays(t, c, load, leader, "after drain")
		t.Logf("drained in %v with a gap of %v, stopped with a gap of %v", round(drained), moved, stopped)
		if moved > lossLimit || stopped > moveLimit {
			t.Error("clients waited")
		}
	})
	t.Run("maintenance", func(t *testing.T) {
		leader := runFreely(t, c, loads)
		prefer := other(t, c, leader)
		command(t, leader, "maintenance", "on", "--for", "1h", "--why", "new switches")
		command(t, leader, "volume", "set", clusterVolume, "--prefer", prefer.Name, "--failback", "auto", "--failback-after", "1s")
		stays(t, c, load, leader, "in maintenance")
		start := time.Now()
		command(t, leader, "maintenance", "off")
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		now, err := c.AwaitLeader(ctx, leader)
		if err != nil {
			t.Fatal(err)
		}
		gap := goOn(t, loads, start, "the return to the preferred node")
		t.Logf("back at the preferred node %v after maintenance, with a gap of %v", round(time.Since(start)), gap)
		if now != prefer || gap > lossLimit {
			t.Errorf("node %s leads, %s is preferred", now.Name, prefer.Name)
		}
	})
	stopProbe(t, load)
	checkEqual(t, c)
}
