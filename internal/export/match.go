package export

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// MatchKind is what kind of client specification a Match is. When several entries of one export match a client, the kind decides which
// one counts, in the order of the constants, as exports(5) has it; among entries of one kind it is the first as written.
type MatchKind uint8

// The values of MatchKind, the most specific first.
const (
	MatchHost    MatchKind = iota + 1 // one address or one host name
	MatchNetwork                      // a network in CIDR notation
	MatchPattern                      // host names with the wildcards * and ?
	MatchAnyone                       // "*"
)

// Match says which clients an entry of a client list is about.
type Match struct {
	Kind    MatchKind
	Addr    netip.Addr   // MatchHost by address
	Name    string       // MatchHost by name (lower case), MatchPattern: the pattern
	Network netip.Prefix // MatchNetwork
}

// errEmptyMatch is returned for a client specification without any text.
var errEmptyMatch = errors.New("a client is an address, a network such as 10.0.0.0/24, a host name, or * for anyone")

// ParseMatch parses a client specification as exports(5) has them: an address, a network (10.0.0.0/24 or 10.0.0.0/255.255.255.0), a host
// name, a pattern of host names (*.example.com; * matches dots too) or "*" for anyone. Netgroups are not supported.
func ParseMatch(s string) (Match, error) {
	switch {
	case s == "":
		return Match{}, errEmptyMatch
	case s == "*":
		return Match{Kind: MatchAnyone}, nil
	case s[0] == '@':
		return Match{}, fmt.Errorf("%q: netgroups are not supported; name networks or hosts", s)
	case strings.ContainsRune(s, '/'):
		return parseNetwork(s)
	}
	if addr, err := netip.ParseAddr(s); err == nil {
		return Match{Kind: MatchHost, Addr: canonical(addr)}, nil
	}
	name := strings.ToLower(strings.TrimSuffix(s, "."))
	if name == "*" {
		return Match{}, fmt.Errorf("%q: write * for anyone", s)
	}
	if err := checkHostName(name); err != nil {
		return Match{}, err
	}
	if strings.ContainsAny(name, "*?") {
		return Match{Kind: MatchPattern, Name: name}, nil
	}
	return Match{Kind: MatchHost, Name: name}, nil
}

func parseNetwork(s string) (Match, error) {
	host, bits, _ := strings.Cut(s, "/")
	if mask, err := netip.ParseAddr(bits); err == nil && mask.Is4() {
		ones, size := net.IPMask(mask.AsSlice()).Size()
		if size == 0 {
			return Match{}, fmt.Errorf("%q: %s is no netmask", s, bits)
		}
		s = fmt.Sprintf("%s/%d", host, ones)
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return Match{}, fmt.Errorf("%q is not a network such as 10.0.0.0/24", s)
	}
	if p.Addr().Is4In6() {
		return Match{}, fmt.Errorf("%q: write an IPv4 network as IPv4", s)
	}
	if p != p.Masked() {
		return Match{}, fmt.Errorf("%q has bits set beyond its prefix; did you mean %s, or the host %s?", s, p.Masked(), p.Addr())
	}
	return Match{Kind: MatchNetwork, Network: p}, nil
}

// checkHostName refuses what no host name or pattern can be, so that a mistyped address is not looked up for ever.
func checkHostName(name string) error {
	if len(name) > 253 {
		return fmt.Errorf("host name of %d characters: at most 253 are allowed", len(name))
	}
	letters := false
	for _, label := range strings.Split(name, ".") {
		if label == "" || len(label) > 63 {
			return fmt.Errorf("%q is neither an address nor a host name", name)
		}
		for _, r := range label {
			switch {
			case r >= 'a' && r <= 'z', r == '*', r == '?':
				letters = true
			case r >= '0' && r <= '9', r == '-', r == '_':
			default:
				return fmt.Errorf("%q is neither an address nor a host name: %q cannot be in one", name, r)
			}
		}
	}
	if !letters {
		return fmt.Errorf("%q is neither an address nor a host name", name)
	}
	return nil
}

// String returns m as ParseMatch reads it.
func (m Match) String() string {
	switch {
	case m.Kind == MatchAnyone:
		return "*"
	case m.Kind == MatchNetwork:
		return m.Network.String()
	case m.Addr.IsValid():
		return m.Addr.String()
	}
	return m.Name
}

// canonical returns an address as the table compares it: IPv4 as IPv4, and without a zone.
func canonical(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// matchPattern reports whether name matches a pattern in which * stands for any characters and ? for one.
func matchPattern(pattern, name string) bool {
	star, retry := -1, 0
	p, n := 0, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, retry = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p++
			n++
		case star >= 0:
			retry++
			p, n = star+1, retry
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
