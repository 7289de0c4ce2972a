package lab

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/internal/identity"
	"holdfast/internal/lab/work"
)

// TestWallClock gives machines wrong clocks, while a client writes. Nothing is decided by them, but certificates end: a clock that is that far ahead cuts its node off, until it is right.
func TestWallClock(t *testing.T) {
	l := newLab(t)
	c, guests := startCluster(t, l, 1)
	guest := guests[0]
	loads := []*Load{startProbe(t, guest, c.Export())}
	const day = 24 * time.Hour
	for _, test := range []struct {
		name  string
		ahead time.Duration
		// apart: the certificates of the others have ended, by that clock.
		apart bool
		// says is what the node says in its log, in time; it renews its certificate, if it can.
		says string
	}{
		{"ahead", 2 * time.Hour, false, ""},
		{"behind", -2 * time.Hour, false, ""},
		{"dead", -time.Since(time.Unix(0, 0)), false, ""},
		{"ahead, so that certificates are renewed", identity.NodeValidity - 10*day, false, "this node has a new certificate"},
		{"ahead, so that certificates have ended", identity.NodeValidity + 3600*day, true, "this node has a new certificate"},
		{"ahead, so that the authority has ended", identity.CAValidity + 10*day, true, "signs nothing any more"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			leader := runFreely(t, c, loads)
			start, logged := time.Now(), len(leader.Log(1<<20))
			if err := leader.SetClock(ctx, test.ahead); err != nil {
				t.Fatal(err)
			}
			wrong := clockOf(t, leader)
			if off := time.Until(wrong) - test.ahead; off.Abs() > 10*time.Second {
				t.Fatalf("the clock of node %s is %v, which is off by %v", leader.Name, wrong, off)
			}
			file := "/mnt/" + strings.ReplaceAll(test.name, " ", "-")
			fileStep(t, guest, work.FileStep{Path: file, Do: "write", Size: 100}, "")
			if now := clockOf(t, leader); !test.apart && isLeader(t, c, leader) {
				at := time.Unix(fileStep(t, guest, work.FileStep{Path: file, Do: "modified"}, "").Modified, 0)
				if at.Before(wrong.Add(-time.Second)) || at.After(now) {
					t.Errorf("a file was modified at %v, when the leader's clock said %v to %v", at, wrong, now)
				}
			}
			if test.says != "" {
				awaitLog(ctx, t, leader, logged, test.says)
			}
			gap := goOn(t, loads, start, "the step of the clock")
			// Whether a connection from before is left that can still be asked over decides on how it shows.
			awaitWarning(ctx, t, other(t, c, leader), "the clock of node "+leader.Name+" is", "node "+leader.Name+" refuses this node's certificate: compare the clocks")
			if !test.apart {
				// Others find it, and it finds others.
				for _, n := range []*Node{other(t, c, leader), leader} {
					if err := n.Process.Kill(); err != nil {
						t.Fatal(err)
					}
					if err := n.Start(); err != nil {
						t.Fatal(err)
					}
					awaitHealthy(t, c)
				}
			}
			if err := leader.SetClock(ctx, 0); err != nil {
				t.Fatal(err)
			}
			awaitHealthy(t, c)
			// With what it has stored meanwhile it begins, and is let in.
			if err := leader.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := leader.Start(); err != nil {
				t.Fatal(err)
			}
			awaitHealthy(t, c)
			t.Logf("%v in all; the client waited %v for the step", round(time.Since(start)), gap)
		})
	}
	stopProbe(t, loads[0])
	checkEqual(t, c)
}

// awaitLog waits until a node says something in its log, after so many bytes.
func awaitLog(ctx context.Context, t *testing.T, n *Node, after int, says string) {
	t.Helper()
	for !strings.Contains(n.Log(1 << 20)[after:], says) {
		if err := n.Process.pause(ctx, pollEvery); err != nil {
			t.Fatalf("node %s does not say %q: %v", n.Name, says, err)
		}
	}
}

// awaitWarning waits until a node warns of one of these things in its status.
func awaitWarning(ctx context.Context, t *testing.T, n *Node, of ...string) {
	t.Helper()
	for {
		s, err := n.api.Status(ctx, false)
		text := strings.Join(s.Warnings, "\n")
		if err == nil && slices.ContainsFunc(of, func(part string) bool { return strings.Contains(text, part) }) {
			return
		}
		if stopped := n.Process.pause(ctx, pollEvery); stopped != nil {
			t.Fatalf("node %s does not warn of %q, but of %q, %v: %v", n.Name, of, s.Warnings, err, stopped)
		}
	}
}

// clockOf asks a node for the time.
func clockOf(t *testing.T, n *Node) time.Time {
	t.Helper()
	s, err := n.api.Status(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	return s.Time
}

func isLeader(t *testing.T, c *Cluster, n *Node) bool {
	t.Helper()
	leader, err := c.AwaitLeader(t.Context(), nil)
	return err == nil && leader == n
}
