package lab

import (
	"context"
	"testing"
	"time"
)

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
	guests, err := l.Boot(t.Context(), count)
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
	return guests
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
