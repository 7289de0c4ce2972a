package nfsclient

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestExactlyOnce writes from many goroutines while every few requests the connection is cut, before or after execution. Each write must be
// executed once, and nobody may see an error.
func TestExactlyOnce(t *testing.T) {
	for _, version := range []string{"4.1", "3"} {
		t.Run(version, func(t *testing.T) {
			s := newFakeServer(t)
			c := mountFake(t, s, version, func(n int) fault {
				switch {
				case n > 400:
					return serve
				case n%13 == 5:
					return cutBefore
				case n%13 == 11:
					return cutAfter
				}
				return serve
			})
			f := openFake(c)
			var want []string
			var wg sync.WaitGroup
			for w := range 8 {
				for i := range 50 {
					want = append(want, fmt.Sprintf("write-%d-%03d", w, i))
				}
				wg.Go(func() {
					for i := range 50 {
						if err := f.Write(t.Context(), fmt.Appendf(nil, "write-%d-%03d", w, i), 0, FileSync); err != nil {
							t.Errorf("write %d of worker %d: %v", i, w, err)
						}
					}
				})
			}
			wg.Wait()
			s.mu.Lock()
			defer s.mu.Unlock()
			got := slices.Clone(s.executed)
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("%d writes were executed, %d were made", len(got), len(want))
			}
			st := c.Stats()
			// Copies that arrive late, after the retry, are out of order; their answers go to a connection that is gone.
			if st.Reconnects == 0 || st.Retries == 0 || st.LostState != 0 || s.resent == 0 {
				t.Errorf("stats %+v, %d replies from the cache", st, s.resent)
			}
		})
	}
}

// TestServerAway checks that a client waits for a server that is not listening, and gives up with its context.
func TestServerAway(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := Mount(ctx, Config{Address: "127.0.0.1:1", Export: "/"})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("error %v: it should say what is wrong", err)
	}
}

func TestLostStateIsReturned(t *testing.T) {
	s := newFakeServer(t)
	c := mountFake(t, s, "4.1", func(int) fault { return badSession })
	if _, err := c.GetAttr(t.Context(), c.Root()); !errors.Is(err, ErrBadSession) {
		t.Errorf("error %v", err)
	}
	if n := c.Stats().LostState; n != 1 {
		t.Errorf("counted %d times", n)
	}
}

func TestStateFlagIsCounted(t *testing.T) {
	s := newFakeServer(t)
	c := mountFake(t, s, "4.1", func(int) fault { return stateRevoked })
	if _, err := c.GetAttr(t.Context(), c.Root()); err != nil {
		t.Errorf("error %v", err)
	}
	if n := c.Stats().LostState; n != 1 {
		t.Errorf("counted %d times", n)
	}
}

func TestDelayIsWaitedOut(t *testing.T) {
	tests := []struct {
		version string
		fault   fault
	}{{"4.1", delaySeq}, {"4.1", delayOp}, {"3", delayOp}}
	for _, tt := range tests {
		s := newFakeServer(t)
		c := mountFake(t, s, tt.version, func(n int) fault {
			if n < 3 {
				return tt.fault
			}
			return serve
		})
		if err := openFake(c).Write(t.Context(), []byte("x"), 0, FileSync); err != nil {
			t.Errorf("%+v: %v", tt, err)
		}
		s.mu.Lock()
		if len(s.executed) != 1 || c.Stats().Delays != 3 {
			t.Errorf("%+v: executed %d times, %d delays", tt, len(s.executed), c.Stats().Delays)
		}
		s.mu.Unlock()
	}
}

// TestCancelKeepsSlotInStep gives up on requests that the server has not answered; the slots must be usable afterwards, whatever became of them.
func TestCancelKeepsSlotInStep(t *testing.T) {
	s := newFakeServer(t)
	c := mountFake(t, s, "4.1", func(n int) fault {
		switch n {
		case 0:
			return hold
		case 2:
			return cutAfter
		}
		return serve
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	f := openFake(c)
	if err := f.Write(ctx, []byte("given up"), 0, FileSync); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	close(s.held)
	for range 20 { // in the same slot, the lowest
		if err := f.Write(t.Context(), []byte("later"), 0, FileSync); err != nil {
			t.Fatal(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.executed) != 21 || s.misorders != 0 {
		t.Errorf("%d writes were executed, %d out of order", len(s.executed), s.misorders)
	}
}

// TestNoReply checks that a connection on which nothing comes back is given up.
func TestNoReply(t *testing.T) {
	s := newFakeServer(t)
	defer close(s.held)
	c, err := Mount(t.Context(), Config{Address: s.addr, Export: "/", Version: "3", ReplyTimeout: 30 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	s.mu.Lock()
	s.requests = 0
	s.fault = func(n int) fault {
		if n == 0 {
			return hold
		}
		return serve
	}
	s.mu.Unlock()
	if _, err := c.GetAttr(t.Context(), c.Root()); err != nil {
		t.Error(err)
	}
	if st := c.Stats(); st.Retries == 0 || st.Reconnects == 0 {
		t.Errorf("stats %+v", st)
	}
}

func TestRubbishIsAnError(t *testing.T) {
	for _, version := range []string{"4.1", "3"} {
		s := newFakeServer(t)
		c := mountFake(t, s, version, func(int) fault { return rubbish })
		if _, err := c.GetAttr(t.Context(), c.Root()); err == nil {
			t.Errorf("version %s: no error", version)
		}
	}
}

func TestCommitComparesVerifiers(t *testing.T) {
	for _, version := range []string{"4.1"} {
		s := newFakeServer(t)
		s.committed = Unstable
		c := mountFake(t, s, version, nil)
		f := openFake(c)
		write := func() {
			t.Helper()
			if err := f.Write(t.Context(), []byte("x"), 0, Unstable); err != nil {
				t.Fatal(err)
			}
		}
		write()
		if err := f.Commit(t.Context()); err != nil {
			t.Errorf("Commit: %v", err)
		}
		write()
		s.mu.Lock()
		s.verifier++ // the server has lost its memory
		s.mu.Unlock()
		if err := f.Commit(t.Context()); !errors.Is(err, ErrVerifierChanged) {
			t.Errorf("Commit after a restart: %v", err)
		}
		write()
		if err := f.Commit(t.Context()); err != nil {
			t.Errorf("Commit of the repeated write: %v", err)
		}
		if err := f.Write(t.Context(), []byte("x"), 0, FileSync); err == nil {
			t.Error("a server that does not write stably when asked to was believed")
		}
	}
}

func TestParseTarget(t *testing.T) {
	tests := []struct{ in, address, export string }{
		{"host:/data", "host:2049", "/data"},
		{"host:12049:/data/x", "host:12049", "/data/x"},
		{"[::1]:/data", "[::1]:2049", "/data"},
		{"[::1]:99:/", "[::1]:99", "/"},
		{"10.0.0.1:/", "10.0.0.1:2049", "/"},
		{"host", "", ""}, {":/x", "", ""}, {"host:x", "", ""},
	}
	for _, tt := range tests {
		address, export, err := ParseTarget(tt.in)
		if address != tt.address || export != tt.export || (err == nil) != (tt.address != "") {
			t.Errorf("%q: %q, %q, %v", tt.in, address, export, err)
		}
	}
}
