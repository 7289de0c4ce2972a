package export

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeResolver answers from maps. It is slow: every lookup takes a second of the test's time.
type fakeResolver struct {
	mu      sync.Mutex
	hosts   map[string][]string
	names   map[string][]string
	err     error
	lookups int
	running int
	most    int // lookups at the same time
}

func (r *fakeResolver) begin(ctx context.Context) error {
	r.mu.Lock()
	r.lookups++
	r.running++
	r.most = max(r.most, r.running)
	err := r.err
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.running--
		r.mu.Unlock()
	}()
	select {
	case <-time.After(time.Second):
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *fakeResolver) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	if err := r.begin(ctx); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var addrs []netip.Addr
	for _, a := range r.hosts[host] {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	if addrs == nil {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return addrs, nil
}

func (r *fakeResolver) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	if err := r.begin(ctx); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.names[addr], nil
}

func (r *fakeResolver) set(fn func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fn()
}

// running runs fn in a bubble of time of its own while the table of exports resolves names.
func running(t *testing.T, r *fakeResolver, exports []Export, fn func(t *testing.T, table *Table)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		table := NewTable(r)
		if err := table.Set(exports); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { table.Run(ctx) })
		fn(t, table)
		cancel()
		wg.Wait()
	})
}

func (t *Table) allows(addr string) bool { return len(t.Rules(netip.MustParseAddr(addr))) > 0 }

func TestHostName(t *testing.T) {
	r := &fakeResolver{hosts: map[string][]string{"client.example.com": {"10.0.0.1", "::ffff:10.0.0.2"}}}
	running(t, r, []Export{parse(t, "/data", "client.example.com(rw)")}, func(t *testing.T, table *Table) {
		if table.allows("10.0.0.1") {
			t.Error("allowed before the name was resolved")
		}
		start := time.Now()
		if err := table.Prepare(t.Context(), netip.MustParseAddr("10.0.0.1")); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("Prepare waited for %v", waited)
		}
		if !table.allows("10.0.0.1") || !table.allows("10.0.0.2") || table.allows("10.0.0.3") {
			t.Error("wrong answer once the name was resolved")
		}

		r.set(func() { r.hosts["client.example.com"] = []string{"10.0.0.3"} })
		time.Sleep(refreshHosts + 2*time.Second)
		if table.allows("10.0.0.1") || !table.allows("10.0.0.3") {
			t.Error("the name's new address was not noticed")
		}

		r.set(func() { r.err = errors.New("server failure") })
		time.Sleep(10 * refreshHosts)
		if !table.allows("10.0.0.3") {
			t.Error("refused because the name server fails")
		}

		r.set(func() { r.err = nil; delete(r.hosts, "client.example.com") })
		time.Sleep(retryEvery + 2*time.Second)
		if table.allows("10.0.0.3") {
			t.Error("allowed although the name is gone")
		}
	})
}

func TestHostPattern(t *testing.T) {
	r := &fakeResolver{
		hosts: map[string][]string{"a.example.com.": {"10.0.0.1"}, "liar.example.com": {"192.0.2.1"}},
		names: map[string][]string{"10.0.0.1": {"A.Example.com.", "a.example.com."}, "10.0.0.2": {"liar.example.com"}},
	}
	running(t, r, []Export{parse(t, "/data", "*.example.com(rw)")}, func(t *testing.T, table *Table) {
		for addr, want := range map[string]bool{"10.0.0.1": true, "10.0.0.2": false, "10.0.0.3": false} {
			if err := table.Prepare(t.Context(), netip.MustParseAddr(addr)); err != nil {
				t.Fatal(err)
			}
			if got := table.allows(addr); got != want {
				t.Errorf("%s: allowed %v, want %v", addr, got, want)
			}
		}
		if table.allows("10.0.0.9") {
			t.Error("allowed without a name")
		}
		r.set(func() {
			r.names["10.0.0.9"] = []string{"a.example.com."}
			r.hosts["a.example.com."] = []string{"10.0.0.9"}
		})
		time.Sleep(refreshClients + 10*time.Second)
		if table.allows("10.0.0.1") || !table.allows("10.0.0.9") {
			t.Error("the names' new addresses were not noticed")
		}
	})
}

// TestLookupsAreLimited sends many clients at once.
func TestLookupsAreLimited(t *testing.T) {
	r := &fakeResolver{}
	running(t, r, []Export{parse(t, "/data", "*.example.com(rw)")}, func(t *testing.T, table *Table) {
		for i := range 100 {
			table.allows(fmt.Sprintf("10.0.0.%d", i))
		}
		time.Sleep(20 * time.Second)
		r.set(func() {
			if r.lookups != 100 || r.most != maxLookups {
				t.Errorf("%d lookups, %d of them at the same time", r.lookups, r.most)
			}
		})
	})
}

func TestPrepareGivesUp(t *testing.T) {
	r := &fakeResolver{}
	running(t, r, []Export{parse(t, "/data", "client(rw)")}, func(t *testing.T, table *Table) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := table.Prepare(ctx, netip.MustParseAddr("10.0.0.1")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Prepare: %v", err)
		}
	})
}

// TestKnownNamesSurviveSet checks that a new table does not lock out the clients of the old one.
func TestKnownNamesSurviveSet(t *testing.T) {
	r := &fakeResolver{hosts: map[string][]string{"client": {"10.0.0.1"}}}
	running(t, r, []Export{parse(t, "/data", "client(rw)")}, func(t *testing.T, table *Table) {
		if err := table.Prepare(t.Context(), netip.MustParseAddr("10.0.0.1")); err != nil {
			t.Fatal(err)
		}
		if err := table.Set([]Export{parse(t, "/data", "client(ro)"), parse(t, "/more", "10.0.0.0/8(ro)")}); err != nil {
			t.Fatal(err)
		}
		if rules := table.Rules(netip.MustParseAddr("10.0.0.1")); len(rules) != 2 || !rules[0].ReadOnly {
			t.Errorf("rules are %+v", rules)
		}
	})
}

func TestAddressesAreBounded(t *testing.T) {
	s := newNames(nil, func() {})
	s.want([]Export{parse(t, "/data", "*.example.com(rw)")})
	addr := netip.MustParseAddr("fd00::")
	for range maxAddresses + 10 {
		s.client(addr)
		addr = addr.Next()
	}
	if n := len(s.clients); n > maxAddresses {
		t.Errorf("%d addresses are known, limit %d", n, maxAddresses)
	}
}
