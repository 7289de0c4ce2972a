package export

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Resolver looks up host names and addresses. *net.Resolver implements it.
type Resolver interface {
	// LookupNetIP returns the addresses of a host; network is ip, ip4 or ip6.
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	// LookupAddr returns the names of an address.
	LookupAddr(ctx context.Context, addr string) (names []string, err error)
}

// How names are resolved.
const (
	refreshHosts   = time.Minute      // an address of a host that a client list names is asked for again after this
	refreshClients = 10 * time.Minute // and the name of a client after this
	retryEvery     = 5 * time.Second  // after a lookup that failed
	lookupTimeout  = 5 * time.Second  // of one lookup
	maxLookups     = 8                // at the same time
	maxNames       = 8                // of one address that are considered
	maxAddresses   = 1 << 16          // that names are kept for
)

// names knows the addresses of the hosts that client lists name, and, when they contain patterns, the names of the clients seen.
type names struct {
	resolver Resolver
	changed  func()        // called without mu whenever an answer differs from the one before
	wake     chan struct{} // tells Run that there may be something to look up

	mu       sync.Mutex // guards all following fields
	hosts    map[string]*lookup[netip.Addr]
	clients  map[netip.Addr]*lookup[string]
	patterns bool // there are patterns in the client lists, so names of clients matter
	underway int
}

// lookup is a question to the name server and its last answer.
type lookup[T comparable] struct {
	answer  []T
	due     time.Time     // when to ask again; zero: at once
	asking  bool          // a lookup is under way
	settled chan struct{} // closed by the first answer, a failure included
	settle  sync.Once     // closes settled
}

func newLookup[T comparable]() *lookup[T] { return &lookup[T]{settled: make(chan struct{})} }

func newNames(r Resolver, changed func()) *names {
	return &names{
		resolver: r,
		changed:  changed,
		wake:     make(chan struct{}, 1),
		hosts:    make(map[string]*lookup[netip.Addr]),
		clients:  make(map[netip.Addr]*lookup[string]),
	}
}

// want takes note of the names that exports use. Answers to those that were there before are kept.
func (s *names) want(exports []Export) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hosts := make(map[string]*lookup[netip.Addr])
	s.patterns = false
	for _, e := range exports {
		for _, c := range e.Clients {
			switch m := c.Match; {
			case m.Kind == MatchPattern:
				s.patterns = true
			case m.Kind == MatchHost && m.Name != "":
				if hosts[m.Name] = s.hosts[m.Name]; hosts[m.Name] == nil {
					hosts[m.Name] = newLookup[netip.Addr]()
				}
			}
		}
	}
	s.hosts = hosts
	if !s.patterns {
		clear(s.clients)
	}
	s.poke()
}

func (s *names) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// client returns what is known about an address now, and has its names looked up if they matter and are not known yet.
func (s *names) client(addr netip.Addr) client {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := client{addr: addr}
	for name, l := range s.hosts {
		if slices.Contains(l.answer, addr) {
			if c.hosts == nil {
				c.hosts = make(map[string]struct{})
			}
			c.hosts[name] = struct{}{}
		}
	}
	if l := s.clientLookup(addr); l != nil {
		c.names = l.answer
	}
	return c
}

// clientLookup returns the question for an address, nil if nobody wants to know. s.mu must be held. A client is not forgotten while there is
// room: one that was silent for days must not be refused when it comes back on its old connection.
func (s *names) clientLookup(addr netip.Addr) *lookup[string] {
	if !s.patterns {
		return nil
	}
	l := s.clients[addr]
	if l == nil {
		if len(s.clients) >= maxAddresses {
			maps.DeleteFunc(s.clients, func(_ netip.Addr, l *lookup[string]) bool { return !l.asking && len(l.answer) == 0 })
		}
		if len(s.clients) >= maxAddresses {
			return nil
		}
		l = newLookup[string]()
		s.clients[addr] = l
		s.poke()
	}
	return l
}

// Prepare waits until everything is known that the rules of a client at addr depend on, or until ctx is done. A server calls it when a client
// connects, before it reads the first request; without it the first requests of a client that only its name entitles are refused.
func (t *Table) Prepare(ctx context.Context, addr netip.Addr) error {
	for _, settled := range t.names.unsettled(canonical(addr)) {
		select {
		case <-settled:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (s *names) unsettled(addr netip.Addr) []<-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	var chans []<-chan struct{}
	for _, l := range s.hosts {
		chans = append(chans, l.settled)
	}
	if l := s.clientLookup(addr); l != nil {
		chans = append(chans, l.settled)
	}
	return chans
}

// Run resolves names until ctx is done. Exactly one Run must be running for host names in client lists to take effect.
func (t *Table) Run(ctx context.Context) {
	s := t.names
	var lookups sync.WaitGroup
	defer lookups.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-timer.C:
		}
		timer.Reset(s.start(ctx, &lookups))
	}
}

// start begins the lookups that are due, as many as may run at once, and returns when the next one will be.
func (s *names) start(ctx context.Context, lookups *sync.WaitGroup) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	next := refreshHosts
	for name, l := range s.hosts {
		if s.begin(&l.asking, l.due, now, &next) {
			lookups.Go(func() { finish(s, l, refreshHosts, func() ([]netip.Addr, error) { return s.addressesOf(ctx, name) }) })
		}
	}
	for addr, l := range s.clients {
		if s.begin(&l.asking, l.due, now, &next) {
			lookups.Go(func() { finish(s, l, refreshClients, func() ([]string, error) { return s.namesOf(ctx, addr) }) })
		}
	}
	return next
}

// begin decides whether a lookup starts now. One that finds all places taken is seen again when a place gets free, as finish pokes.
func (s *names) begin(asking *bool, due, now time.Time, next *time.Duration) bool {
	if *asking {
		return false
	}
	if wait := due.Sub(now); wait > 0 {
		*next = min(*next, wait)
		return false
	}
	if s.underway >= maxLookups {
		return false
	}
	*asking = true
	s.underway++
	return true
}

// finish runs a lookup and takes its answer; that there is no such name is an answer too. A failure keeps the answer before it.
func finish[T comparable](s *names, l *lookup[T], refresh time.Duration, ask func() ([]T, error)) {
	answer, err := ask()
	if notFound := (*net.DNSError)(nil); errors.As(err, &notFound) && notFound.IsNotFound {
		answer, err = nil, nil
	}
	s.mu.Lock()
	s.underway--
	l.asking = false
	changed := false
	if err == nil {
		l.due = time.Now().Add(refresh)
		changed = !slices.Equal(answer, l.answer)
		l.answer = answer
	} else {
		l.due = time.Now().Add(retryEvery)
	}
	s.mu.Unlock()
	if changed {
		s.changed()
	}
	// Last: whoever waited for it must find the rules that follow from the answer.
	l.settle.Do(func() { close(l.settled) })
	s.poke()
}

func (s *names) addressesOf(ctx context.Context, name string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, err := s.resolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return nil, err
	}
	for i, a := range addrs {
		addrs[i] = canonical(a)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), nil
}

// namesOf returns the names of an address that lead back to it: anybody may claim any name in the reverse zone of his own network.
func (s *names) namesOf(ctx context.Context, addr netip.Addr) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	claimed, err := s.resolver.LookupAddr(ctx, addr.String())
	if err != nil {
		return nil, err
	}
	var confirmed []string
	for _, name := range claimed[:min(len(claimed), maxNames)] {
		addrs, err := s.resolver.LookupNetIP(ctx, "ip", name)
		if err == nil && slices.ContainsFunc(addrs, func(a netip.Addr) bool { return canonical(a) == addr }) {
			confirmed = append(confirmed, strings.ToLower(strings.TrimSuffix(name, ".")))
		}
	}
	slices.Sort(confirmed)
	return confirmed, nil
}
