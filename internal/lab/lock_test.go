package lab

import (
	"context"
	"fmt"
	"testing"
	"time"

	"holdfast/internal/lab/work"
)

// lockPlay is one line of a play about locks: who does what, and what comes of it.
type lockPlay struct {
	guest int
	step  work.LockStep
	errno string
	found string
}

// plays between two guests. Ranges are of file "f"; "x" of flock locks.
var plays = func() []lockPlay {
	lock := func(guest int, kind string, start, length int64, errno string) lockPlay {
		return lockPlay{guest, work.LockStep{File: "f", Do: "fcntl", Kind: kind, Start: start, Length: length}, errno, ""}
	}
	test := func(guest int, start, length int64, found string) lockPlay {
		return lockPlay{guest, work.LockStep{File: "f", Do: "test", Kind: "w", Start: start, Length: length}, "", found}
	}
	flock := func(guest int, kind, errno string) lockPlay {
		return lockPlay{guest, work.LockStep{File: "x", Do: "flock", Kind: kind}, errno, ""}
	}
	const busy = "EAGAIN"
	return []lockPlay{
		// Ranges that touch do not conflict, ranges that overlap do.
		lock(0, "w", 0, 10, ""), lock(1, "w", 10, 10, ""), lock(1, "w", 5, 10, busy), lock(1, "r", 9, 1, busy),
		test(1, 0, 5, "w"), test(1, 20, 5, "u"),
		// Shared locks are shared, and upgraded only when alone.
		lock(0, "r", 100, 10, ""), lock(1, "r", 100, 10, ""), lock(0, "w", 100, 10, busy), test(0, 100, 10, "r"),
		lock(1, "u", 100, 10, ""), lock(0, "w", 100, 10, ""), lock(1, "r", 100, 10, busy),
		// Downgraded, and split by unlocking the middle.
		lock(0, "r", 100, 10, ""), lock(1, "r", 105, 1, ""), lock(1, "u", 105, 1, ""),
		lock(0, "w", 200, 30, ""), lock(0, "u", 210, 10, ""),
		lock(1, "w", 210, 10, ""), lock(1, "w", 209, 1, busy), lock(1, "w", 220, 1, busy),
		// To the end of the file and beyond.
		lock(0, "w", 1000, 0, ""), lock(1, "w", 1<<40, 1, busy), lock(1, "w", 999, 1, ""),
		// All locks go with the file.
		{0, work.LockStep{File: "f", Do: "close"}, "", ""},
		lock(1, "w", 0, 0, ""), {1, work.LockStep{File: "f", Do: "close"}, "", ""},
		lock(0, "w", 0, 0, ""), {0, work.LockStep{File: "f", Do: "close"}, "", ""},
		// flock, between machines too.
		flock(0, "r", ""), flock(1, "r", ""), flock(0, "w", busy), flock(1, "u", ""), flock(0, "w", ""), flock(1, "r", busy),
		flock(0, "u", ""), flock(1, "w", ""), {1, work.LockStep{File: "x", Do: "close"}, "", ""},
		flock(0, "w", ""), {0, work.LockStep{File: "x", Do: "close"}, "", ""},
	}
}()

// playLocks plays on two guests, and then lets one wait for a lock of the other.
func playLocks(t *testing.T, guests []*Guest, s Server, version string) {
	for _, g := range guests {
		if err := g.Mount(t.Context(), s.Export(), version, "/mnt"); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := g.Unmount(t.Context(), "/mnt"); err != nil {
				t.Error(err)
			}
		}()
	}
	for i, p := range plays {
		p.step.File = fmt.Sprintf("/mnt/locks-%s-%s", version, p.step.File)
		var got work.LockOutcome
		if err := guests[p.guest].Run(t.Context(), "lock", p.step, &got); err != nil {
			t.Fatalf("step %d (%+v): %v", i+1, p, err)
		}
		if got.Errno != p.errno || got.Found != p.found {
			t.Errorf("step %d (%+v): got %+v", i+1, p, got)
		}
	}
	waitForLock(t, guests, "/mnt/locks-wait-"+version)
}

// waitForLock: a lock that is waited for is not given early, and is given after it is free.
func waitForLock(t *testing.T, guests []*Guest, file string) {
	step := func(kind string, wait bool) work.LockStep {
		return work.LockStep{File: file, Do: "fcntl", Kind: kind, Length: 10, Wait: wait}
	}
	if err := guests[0].Run(t.Context(), "lock", step("w", false), nil); err != nil {
		t.Fatal(err)
	}
	waiter, err := guests[1].Start(t.Context(), "lock", step("w", true), nil)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-waiter.Done():
		t.Error("the lock was given while another guest held it")
	case <-time.After(500 * time.Millisecond):
	}
	if err := guests[0].Run(t.Context(), "lock", step("u", false), nil); err != nil {
		t.Fatal(err)
	}
	// A client that is not called back asks again, at intervals that grow up to half a minute.
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	freed := time.Now()
	select {
	case <-waiter.Done():
		t.Logf("the waiter had its lock %v after it was free", time.Since(freed).Round(time.Millisecond))
	case <-ctx.Done():
		t.Fatal("the waiter never got its lock")
	}
	var got work.LockOutcome
	if err := waiter.Wait(&got); err != nil || got.Errno != "" {
		t.Errorf("the waiter: %+v, %v", got, err)
	}
	if err := guests[1].Run(t.Context(), "lock", work.LockStep{File: file, Do: "close"}, nil); err != nil {
		t.Error(err)
	}
	if err := guests[0].Run(t.Context(), "lock", work.LockStep{File: file, Do: "close"}, nil); err != nil {
		t.Error(err)
	}
}

// TestLockPlays runs the plays against Ganesha: they themselves must be right.
func TestLockPlays(t *testing.T) {
	l := newLab(t)
	s := startGanesha(t, l)
	guests := bootGuests(t, l, 2)
	for _, version := range []string{"4.2", "4.1"} {
		t.Run("v"+version, func(t *testing.T) { playLocks(t, guests, s, version) })
	}
}
