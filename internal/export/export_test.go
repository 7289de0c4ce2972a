package export

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"holdfast/internal/volume"
)

func TestParseMatch(t *testing.T) {
	for text, want := range map[string]struct {
		kind      MatchKind
		canonical string
	}{
		"*":                         {MatchAnyone, "*"},
		"10.0.0.1":                  {MatchHost, "10.0.0.1"},
		"::ffff:10.0.0.1":           {MatchHost, "10.0.0.1"},
		"fd00::1":                   {MatchHost, "fd00::1"},
		"10.0.0.0/24":               {MatchNetwork, "10.0.0.0/24"},
		"10.0.0.0/255.255.254.0":    {MatchNetwork, "10.0.0.0/23"},
		"0.0.0.0/0":                 {MatchNetwork, "0.0.0.0/0"},
		"fd00::/64":                 {MatchNetwork, "fd00::/64"},
		"Client.Example.Com.":       {MatchHost, "client.example.com"},
		"client":                    {MatchHost, "client"},
		"*.example.com":             {MatchPattern, "*.example.com"},
		"web?":                      {MatchPattern, "web?"},
		strings.Repeat("a", 63):     {MatchHost, strings.Repeat("a", 63)},
		"under_score.example.com":   {MatchHost, "under_score.example.com"},
		"fd00::/ffff:ffff::":        {},
		"":                          {},
		"@group":                    {},
		"10.0.0.1/24":               {},
		"10.0.0.0/33":               {},
		"10.0.0.0/255.0.255.0":      {},
		"10.0.0":                    {},
		"10.0.0.256":                {},
		"a..b":                      {},
		"a b":                       {},
		"clïent":                    {},
		"::ffff:10.0.0.0/104":       {},
		strings.Repeat("a", 64):     {},
		strings.Repeat("a.", 127):   {MatchHost, strings.Repeat("a.", 126) + "a"},
		strings.Repeat("a.", 128):   {},
		"10.0.0.0/24/":              {},
		"host/24":                   {},
		"999999999999999999999.1.1": {},
	} {
		m, err := ParseMatch(text)
		if want.kind == 0 {
			if err == nil {
				t.Errorf("%q: no error, but %+v", text, m)
			}
			continue
		}
		if err != nil || m.Kind != want.kind || m.String() != want.canonical {
			t.Errorf("%q: %+v (%q), %v", text, m, m, err)
		}
		if again, err := ParseMatch(m.String()); err != nil || again != m {
			t.Errorf("%q: %+v after a round trip, %v", text, again, err)
		}
	}
}

func TestMatchPattern(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*.example.com", "a.example.com", true},
		{"*.example.com", "a.b.example.com", true},
		{"*.example.com", "example.com", false},
		{"*.example.com", "a.example.com.evil.org", false},
		{"web?", "web1", true},
		{"web?", "web", false},
		{"web?", "web12", false},
		{"a*b*c", "aXbXbXc", true},
		{"a*b*c", "aXbXbX", false},
		{"*", "", true},
		{"?", "", false},
	} {
		if got := matchPattern(c.pattern, c.name); got != c.want {
			t.Errorf("%s matches %s: %v", c.pattern, c.name, got)
		}
	}
}

func TestParseOptions(t *testing.T) {
	nobody := DefaultOptions()
	for text, want := range map[string]Options{
		"":                                     nobody,
		"rw":                                   {ReadOnly: false, AnonUID: 65534, AnonGID: 65534},
		"rw,ro":                                nobody,
		"no_root_squash":                       {ReadOnly: true, Squash: volume.SquashNone, AnonUID: 65534, AnonGID: 65534},
		"all_squash,anonuid=1,anongid=2":       {ReadOnly: true, Squash: volume.SquashAll, AnonUID: 1, AnonGID: 2},
		"sec=none,rw":                          {NoAuth: true, AnonUID: 65534, AnonGID: 65534},
		"sync,no_subtree_check,insecure":       nobody,
		"no_root_squash,root_squash,sec=sys":   nobody,
		"anonuid=4294967295":                   {ReadOnly: true, AnonUID: 4294967295, AnonGID: 65534},
		"sec=none,sec=sys,all_squash,ro,ro,ro": {ReadOnly: true, Squash: volume.SquashAll, AnonUID: 65534, AnonGID: 65534},
	} {
		var list []string
		if text != "" {
			list = strings.Split(text, ",")
		}
		got, err := ParseOptions(list)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
		if again, err := ParseOptions(got.Strings()); err != nil || again != got {
			t.Errorf("%s: %+v after a round trip, %v", text, again, err)
		}
	}
	for _, text := range []string{"async", "sec=krb5", "no_rot_squash", "anonuid=-1", "anongid=4294967296", "anonuid", "", "RW"} {
		if o, err := ParseOptions([]string{"rw", text}); err == nil {
			t.Errorf("%q: no error, but %+v", text, o)
		}
	}
	if _, err := ParseOptions([]string{"x", "y"}); err == nil || !strings.Contains(err.Error(), `"x"`) || !strings.Contains(err.Error(), `"y"`) {
		t.Errorf("both errors are wanted: %v", err)
	}
}

// parseClient parses an entry as exports(5) writes it on one line: "10.0.0.0/24(rw,no_root_squash)".
func parseClient(s string) (Client, error) {
	match, list, found := strings.Cut(s, "(")
	var options []string
	if found {
		inner, closed := strings.CutSuffix(list, ")")
		if !closed {
			return Client{}, fmt.Errorf("%q: the list of options has no closing parenthesis", s)
		}
		if inner != "" {
			options = strings.Split(inner, ",")
		}
	}
	m, err := ParseMatch(match)
	if err != nil {
		return Client{}, err
	}
	o, err := ParseOptions(options)
	if err != nil {
		return Client{}, fmt.Errorf("%q: %w", match, err)
	}
	return Client{Match: m, Options: o}, nil
}

func TestParseClient(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/24(rw,no_root_squash)": "10.0.0.0/24(rw,no_root_squash)",
		"*":                              "*(ro,root_squash)",
		"*()":                            "*(ro,root_squash)",
	} {
		c, err := parseClient(text)
		if err != nil || c.String() != want {
			t.Errorf("%s: %s, %v", text, c, err)
		}
	}
	for _, text := range []string{"", "*(rw", "10.0.0.0/24 (rw)", "*(what)", "(rw)"} {
		if c, err := parseClient(text); err == nil {
			t.Errorf("%q: no error, but %s", text, c)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		paths []string
		want  string // part of the error; empty: none
	}{
		{[]string{"/a", "/b", "/ab", "/c/d", "/c/e"}, ""},
		{[]string{"/"}, ""},
		{[]string{"/a", "/a/b"}, "/a/b overlaps export /a"},
		{[]string{"/a/b", "/a"}, "/a overlaps export /a/b"},
		{[]string{"/a", "/a"}, "overlaps"},
		{[]string{"/", "/a"}, "overlaps"},
		{[]string{"a"}, "slash"},
		{[]string{"/a/"}, `written as "/a"`},
		{[]string{"/a/../b"}, `written as "/b"`},
		{[]string{"/a\x00"}, "NUL"},
		{[]string{"/" + strings.Repeat("x", 256)}, "component"},
		{[]string{strings.Repeat("/x", 513)}, "at most 1024"},
	} {
		var exports []Export
		for _, p := range c.paths {
			exports = append(exports, Export{Path: p})
		}
		err := Check(exports)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40q: %v, want %q", c.paths, err, c.want)
		}
	}
}

func parse(t testing.TB, path string, clients ...string) Export {
	t.Helper()
	e := Export{Path: path}
	for _, s := range clients {
		c, err := parseClient(s)
		if err != nil {
			t.Fatal(err)
		}
		e.Clients = append(e.Clients, c)
	}
	return e
}

// TestRules checks which entry counts: by kind first, then as written.
func TestRules(t *testing.T) {
	table := NewTable(nil)
	err := table.Set([]Export{
		parse(t, "/data", "*(ro)", "10.0.0.0/8(ro,all_squash)", "10.1.0.0/16(rw)", "10.1.2.3(rw,no_root_squash)", "10.1.2.3(ro)"),
		parse(t, "/lan", "10.0.0.0/8(rw)", "fd00::/64(rw)"),
	})
	if err != nil {
		t.Fatal(err)
	}
	data, lan := volume.ExportID("/data"), volume.ExportID("/lan")
	const nobody = 65534
	anyone := volume.Rule{Export: data, ReadOnly: true, AnonUID: nobody, AnonGID: nobody}
	onLAN := volume.Rule{Export: lan, AnonUID: nobody, AnonGID: nobody}
	network := volume.Rule{Export: data, ReadOnly: true, Squash: volume.SquashAll, AnonUID: nobody, AnonGID: nobody}
	host := volume.Rule{Export: data, Squash: volume.SquashNone, AnonUID: nobody, AnonGID: nobody}
	for addr, want := range map[string][]volume.Rule{
		"192.0.2.1":       {anyone},
		"10.9.9.9":        {network, onLAN},
		"10.1.9.9":        {network, onLAN}, // the first network as written, not the narrowest
		"10.1.2.3":        {host, onLAN},
		"::ffff:10.1.2.3": {host, onLAN},
		"fd00::7%eth0":    {anyone, onLAN},
	} {
		for range 2 { // worked out, then remembered
			if diff := cmp.Diff(want, table.Rules(netip.MustParseAddr(addr))); diff != "" {
				t.Errorf("%s: %s", addr, diff)
			}
		}
	}
	if err := table.Set([]Export{parse(t, "/lan", "fd00::/64(ro)")}); err != nil {
		t.Fatal(err)
	}
	if got := table.Rules(netip.MustParseAddr("10.1.2.3")); got != nil {
		t.Errorf("rules of the table before: %+v", got)
	}
	if err := table.Set([]Export{parse(t, "/x"), parse(t, "/x")}); err == nil {
		t.Error("a table with an export twice was taken")
	}
	if got := table.Exports(); len(got) != 1 || got[0].Path != "/lan" {
		t.Errorf("a table that was refused changed the exports: %+v", got)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	table := NewTable(nil)
	if err := table.Set([]Export{parse(t, "/data", "*(ro)")}); err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddr("10.0.0.0")
	for range maxCached + 100 {
		table.Rules(addr)
		addr = addr.Next()
	}
	if n := len(table.answers); n > maxCached {
		t.Errorf("%d answers are remembered, limit %d", n, maxCached)
	}
}

func FuzzParseClient(f *testing.F) {
	for _, s := range []string{"10.0.0.0/24(rw,no_root_squash)", "*", "*.example.com(all_squash,anonuid=7)", "fd00::1(sec=none)", "10.0.0.0/255.0.0.0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parseClient(s)
		if err != nil {
			return
		}
		again, err := parseClient(c.String())
		if err != nil || again != c {
			t.Errorf("%q: %+v after a round trip as %q: %+v, %v", s, c, c.String(), again, err)
		}
	})
}

func BenchmarkRules(b *testing.B) {
	table := NewTable(nil)
	if err := table.Set([]Export{parse(b, "/data", "10.0.0.0/8(rw)")}); err != nil {
		b.Fatal(err)
	}
	addr := netip.MustParseAddr("10.0.0.1")
	b.ReportAllocs()
	for b.Loop() {
		table.Rules(addr)
	}
}
