package lab

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

// TestMain removes the binary that tests share.
func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		if err := os.RemoveAll(built.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}

// built is the binary that tests share.
var built struct {
	once      sync.Once
	dir, path string
	err       error
}

// holdfastBinary is the one that LAB_HOLDFAST names, or one that is built when it is first asked for.
func holdfastBinary(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("LAB_HOLDFAST"); path != "" {
		return path
	}
	built.once.Do(func() {
		// Should this process be killed, the next lab takes it for a lab that was left behind, and removes it.
		if built.dir, built.err = os.MkdirTemp(labsDir, fmt.Sprintf("%s%d-build-", labPrefix, os.Getpid())); built.err == nil {
			built.path, built.err = build(context.Background(), built.dir, "holdfast/cmd/holdfast", "holdfast")
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

// newLab makes a lab for a test, or skips it where labs cannot be.
func newLab(t *testing.T) *Lab {
	t.Helper()
	if testing.Short() {
		t.Skip("boots kernels; not in short mode")
	}
	if reason := Missing(); reason != "" {
		t.Skip(reason)
	}
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close the lab: %v", err)
		}
	})
	return l
}

// bootGuests boots guests whose consoles are shown when the test fails.
func bootGuests(t *testing.T, l *Lab, count int) []*Guest {
	t.Helper()
	return startGuests(t, l, count)()
}

// startGuests starts guests, whose consoles are shown when the test fails, and returns a function that waits until they are ready.
func startGuests(t *testing.T, l *Lab, count int) (await func() []*Guest) {
	t.Helper()
	guests, err := l.StartGuests(t.Context(), count)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, g := range guests {
				t.Logf("console of %s:\n%s", g.Name, g.Console(40))
			}
		}
	})
	return func() []*Guest {
		t.Helper()
		if err := AwaitGuests(t.Context(), guests); err != nil {
			t.Fatal(err)
		}
		return guests
	}
}

func TestBoot(t *testing.T) {
	l := newLab(t)
	start := time.Now()
	guests := bootGuests(t, l, 2)
	t.Logf("two guests ready after %v", time.Since(start).Round(time.Millisecond))
	for _, g := range guests {
		if err := g.Run(t.Context(), "ping", nil, nil); err != nil {
			t.Error(err)
		}
	}
	if err := l.Net.Cut(guests[0].Name); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := guests[0].Run(ctx, "ping", nil, nil); err == nil {
		t.Error("a guest that is cut off answers")
	}
	if err := l.Net.Mend(guests[0].Name); err != nil {
		t.Fatal(err)
	}
	if err := guests[0].Run(t.Context(), "ping", nil, nil); err != nil {
		t.Errorf("after mending: %v", err)
	}
}
