package address

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fakeNetwork is a network of one interface that forgets addresses as the kernel does.
type fakeNetwork struct {
	mu      sync.Mutex
	expires time.Time // zero when the address is not there
	frames  int
	tickles int
	addErr  error
	where   string // device and prefix of the last add

	carrierErr error
	listenErr  error
	guardErr   error
	guarded    bool
	alone      bool                    // there is no other address in the network
	ports      []*fakePort             // that were opened
	answer     func(m *message) []byte // what the neighbours answer to a question; may be nil
	sent       []message               // what frames said
}

// fakePort hands out the frames that a test puts into it.
type fakePort struct {
	frames chan []byte
	closed chan struct{}
}

func (p *fakePort) Read(b []byte) (int, error) {
	select {
	case f := <-p.frames:
		return copy(b, f), nil
	case <-p.closed:
		return 0, io.ErrClosedPipe
	}
}

func (p *fakePort) Close() error {
	close(p.closed)
	return nil
}

func (f *fakeNetwork) listen(device, uint16, netip.Addr) (io.ReadCloser, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listenErr != nil {
		return nil, f.listenErr
	}
	p := &fakePort{frames: make(chan []byte, 16), closed: make(chan struct{})}
	f.ports = append(f.ports, p)
	return p, nil
}

func (f *fakeNetwork) macs() ([]net.HardwareAddr, error) { return nil, nil }

func (f *fakeNetwork) guard(device, netip.Addr, time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.guarded = true
	return f.guardErr
}

func (f *fakeNetwork) isGuarded() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.guarded
}

func (f *fakeNetwork) closeGuard(device, netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.guarded = false
	return nil
}

func (f *fakeNetwork) unguard(netip.Addr) error { return nil }

func (f *fakeNetwork) Close() error { return nil }

func (f *fakeNetwork) answersForAll(device) bool { return true }

// arrive gives a frame to the port that was opened last.
func (f *fakeNetwork) arrive(frame []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ports[len(f.ports)-1].frames <- frame
}

func (f *fakeNetwork) device(string, netip.Prefix) (device, error) {
	return device{index: 2, name: "eth0", mac: net.HardwareAddr{2, 0, 0, 0, 0, 1}, member: !f.alone}, nil
}

func (f *fakeNetwork) carrier() (device, io.Closer, error) {
	return device{index: 3, name: "holdfast0", carrier: true}, io.NopCloser(nil), f.carrierErr
}

func (f *fakeNetwork) add(d device, p netip.Prefix, lifetime time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.where = d.name + " " + p.String()
	if f.addErr == nil {
		f.expires = time.Now().Add(lifetime)
	}
	return f.addErr
}

func (f *fakeNetwork) remove(device, netip.Prefix) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expires = time.Time{}
	return nil
}

func (f *fakeNetwork) send(_ device, frame []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.frames++
	if m, ok := parseFrame(frame); ok {
		f.sent = append(f.sent, m)
		if f.answer != nil {
			if a := f.answer(&m); a != nil {
				f.ports[len(f.ports)-1].frames <- a
			}
		}
	}
	return nil
}

func (f *fakeNetwork) tickle(netip.AddrPort, []netip.AddrPort) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tickles++
	return nil
}

func (f *fakeNetwork) present() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Now().Before(f.expires)
}

func newTestManager(t *testing.T, mayHold func() bool) (*Manager, *fakeNetwork) {
	t.Helper()
	m, err := New(Config{
		Prefix: netip.MustParsePrefix("10.94.0.100/24"), Lifetime: 2 * time.Second, MayHold: mayHold,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeNetwork{}
	m.net = f
	return m, f
}

func TestManagerKeepsAndReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newTestManager(t, func() bool { return true })
		if err := m.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !f.present() || !m.Describe().Held {
			t.Fatal("the address is not there after Acquire")
		}
		if err := m.Tickle(2049, []netip.AddrPort{netip.MustParseAddrPort("10.94.0.51:801")}); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			time.Sleep(time.Second)
			if !f.present() {
				t.Fatal("the address ran out while it was held")
			}
		}
		rounds := 1 + len(announceAfter)
		if f.frames != 2*rounds || f.tickles != rounds {
			t.Errorf("%d frames and %d tickles, want %d and %d", f.frames, f.tickles, 2*rounds, rounds)
		}
		if err := m.Release(); err != nil {
			t.Fatal(err)
		}
		if f.present() || m.Describe().Held {
			t.Error("the address is there after Release")
		}
		if err := m.Tickle(2049, []netip.AddrPort{netip.MustParseAddrPort("10.94.0.51:801")}); err != nil || f.tickles != rounds {
			t.Error("tickled without the address")
		}
	})
}

// TestManagerGivesUp: an address that may no longer be held is removed at the next renewal and never comes back.
func TestManagerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var leads atomic.Bool
		leads.Store(true)
		m, f := newTestManager(t, leads.Load)
		if err := m.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		leads.Store(false)
		time.Sleep(time.Second)
		if f.present() || m.Describe().Held {
			t.Fatal("the address is still there")
		}
		leads.Store(true)
		time.Sleep(time.Minute)
		if f.present() {
			t.Error("the address came back without Acquire")
		}
	})
}

func TestManagerEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, f := newTestManager(t, func() bool { return true })
		ctx, cancel := context.WithCancel(t.Context())
		if err := m.Acquire(ctx); err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		if f.present() || m.Describe().Held {
			t.Error("the address outlived its context")
		}
	})
}

func TestManagerAcquireFails(t *testing.T) {
	m, f := newTestManager(t, func() bool { return true })
	f.addErr = errors.New("no")
	if err := m.Acquire(t.Context()); !errors.Is(err, f.addErr) {
		t.Errorf("got %v", err)
	}
	if m.Describe().Held {
		t.Error("held without the address")
	}
}

func TestNewRejects(t *testing.T) {
	ok := Config{Prefix: netip.MustParsePrefix("10.94.0.100/24"), MayHold: func() bool { return true }}
	for name, change := range map[string]func(*Config){
		"no address":           func(c *Config) { c.Prefix = netip.Prefix{} },
		"no way to ask":        func(c *Config) { c.MayHold = nil },
		"lifetime too short":   func(c *Config) { c.Lifetime = 500 * time.Millisecond },
		"lifetime not seconds": func(c *Config) { c.Lifetime = 2500 * time.Millisecond },
	} {
		c := ok
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := New(ok); err != nil {
		t.Error(err)
	}
}

// TestManagerPlaces: where the address goes.
func TestManagerPlaces(t *testing.T) {
	for _, c := range []struct {
		prefix     string
		carrierErr error
		alone      bool
		want       string
	}{
		{"10.94.0.100/24", nil, false, "holdfast0 10.94.0.100/32"},
		{"10.94.0.100/24", nil, true, "eth0 10.94.0.100/24"},
		{"10.94.0.100/24", errors.New("no tun here"), false, "eth0 10.94.0.100/24"},
		{"fd00::64/64", nil, false, "holdfast0 fd00::64/128"},
		{"fd00::64/64", nil, true, "eth0 fd00::64/64"},
	} {
		m, f := newTestManager(t, func() bool { return true })
		m.cfg.Prefix = netip.MustParsePrefix(c.prefix)
		f.carrierErr, f.alone = c.carrierErr, c.alone
		if err := m.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		if f.where != c.want {
			t.Errorf("%s: on %s, want %s", c.prefix, f.where, c.want)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if f.present() {
			t.Errorf("%s is there after Close", c.prefix)
		}
	}
}
