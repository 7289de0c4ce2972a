package export

import (
	"net/netip"
	"slices"
	"sync"

	"holdfast/internal/volume"
)

// maxCached bounds the addresses that a Table remembers; a table that exceeds it forgets them all and starts afresh.
const maxCached = 1 << 16

// Table answers which exports a client may use. It is safe for concurrent use. Host names in client lists take effect as long as Run runs.
type Table struct {
	names *names

	mu      sync.RWMutex // guards all following fields
	exports []Export
	ids     []uint32 // of exports
	// answers are the rules of clients seen so far. It is replaced whenever something it follows from changes; the slices are never modified.
	answers map[netip.Addr][]volume.Rule
}

// NewTable returns a table without exports. r resolves host names; net.DefaultResolver does.
func NewTable(r Resolver) *Table {
	t := &Table{answers: make(map[netip.Addr][]volume.Rule)}
	t.names = newNames(r, t.forget)
	return t
}

// Set replaces the exports. It fails, and changes nothing, if they cannot be served together (see Check).
func (t *Table) Set(exports []Export) error {
	if err := Check(exports); err != nil {
		return err
	}
	ids := make([]uint32, len(exports))
	for i, e := range exports {
		ids[i] = volume.ExportID(e.Path)
	}
	t.names.want(exports)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.exports, t.ids = slices.Clone(exports), ids
	t.answers = make(map[netip.Addr][]volume.Rule)
	return nil
}

// Exports returns the current exports. The caller must not modify what they refer to.
func (t *Table) Exports() []Export {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Clone(t.exports)
}

// Rules returns one rule for each export that the client at addr may use. It never waits. The caller must not modify the result.
func (t *Table) Rules(addr netip.Addr) []volume.Rule {
	t.mu.RLock()
	rules, ok := t.answers[addr]
	t.mu.RUnlock()
	if ok {
		return rules
	}
	return t.work(addr)
}

// work computes and remembers the rules of an address.
func (t *Table) work(addr netip.Addr) []volume.Rule {
	t.mu.Lock()
	defer t.mu.Unlock()
	// What names holds is read under t.mu, and forget takes t.mu after names has changed: an answer that used the old names is always forgotten.
	client := t.names.client(canonical(addr))
	var rules []volume.Rule
	for i := range t.exports {
		if o, ok := t.exports[i].options(&client); ok {
			rules = append(rules, o.rule(t.ids[i]))
		}
	}
	if len(t.answers) >= maxCached {
		clear(t.answers)
	}
	t.answers[addr] = rules
	return rules
}

// forget drops all answers, because a name has changed its meaning.
func (t *Table) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answers = make(map[netip.Addr][]volume.Rule)
}

// client is what is known about a client.
type client struct {
	addr  netip.Addr
	names []string            // that the address resolves to, and that resolve to it
	hosts map[string]struct{} // names of client lists that resolve to the address
}

// options returns those of the entry that counts for a client.
func (e *Export) options(c *client) (Options, bool) {
	best := -1
	for i := range e.Clients {
		m := &e.Clients[i].Match
		if (best < 0 || m.Kind < e.Clients[best].Match.Kind) && m.matches(c) {
			best = i
		}
	}
	if best < 0 {
		return Options{}, false
	}
	return e.Clients[best].Options, true
}

func (m *Match) matches(c *client) bool {
	switch m.Kind {
	case MatchAnyone:
		return true
	case MatchNetwork:
		return m.Network.Contains(c.addr)
	case MatchPattern:
		return slices.ContainsFunc(c.names, func(name string) bool { return matchPattern(m.Name, name) })
	case MatchHost:
		if m.Addr.IsValid() {
			return m.Addr == c.addr
		}
		_, ok := c.hosts[m.Name]
		return ok
	}
	return false
}
