package config

import (
	"encoding/json"
	"net/netip"
	"testing"
)

func TestScalars(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "17": 17, "64MiB": 64 << 20, "1 GiB": 1 << 30, "2kB": 2000, "3TB": 3e12, "8B": 8} {
		var s Size
		if err := s.parse(text); err != nil || s != want {
			t.Errorf("size %q: %d, %v", text, s, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1.5GiB", "64mib", "9999999999TiB", "99999999999999999999"} {
		var s Size
		if err := s.parse(text); err == nil {
			t.Errorf("size %q: %d", text, s)
		}
	}
	for size, want := range map[Size]string{0: "0", 1023: "1023", 4 << 20: "4MiB", 1 << 30: "1GiB", 1536: "1536", 3 << 9 << 10: "1536KiB"} {
		if got := size.String(); got != want {
			t.Errorf("%d is written %s, want %s", uint64(size), got, want)
		}
	}
	for text, want := range map[string]Mode{"0755": 0o755, "755": 0o755, "0o1777": 0o1777, "0": 0} {
		var m Mode
		if err := m.parse(text); err != nil || m != want {
			t.Errorf("mode %q: %o, %v", text, m, err)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"lisen", "listen", 1}, {"kitten", "sitting", 3}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%q to %q: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

// TestJSONScalars checks that values are in JSON what they are in a file.
func TestJSONScalars(t *testing.T) {
	type all struct {
		S Size
		D Duration
		P Prefix
		M Mode
	}
	for text, want := range map[string]all{
		`{"S":"64MiB","D":"1m30s","P":"10.0.0.1/24","M":"0755"}`: {64 << 20, Duration(90e9), Prefix(netip.MustParsePrefix("10.0.0.1/24")), 0o755},
		`{"S":"0","D":"0s","P":"","M":"0000"}`:                   {},
		`{"S":"1000","D":"5m","P":"fd00::1/64","M":"1777"}`:      {1000, Duration(300e9), Prefix(netip.MustParsePrefix("fd00::1/64")), 0o1777},
		`{"S":"1","D":"2h","P":"","M":"0000"}`:                   {S: 1, D: Duration(7200e9)},
	} {
		var got all
		if err := json.Unmarshal([]byte(text), &got); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
		if again, err := json.Marshal(want); err != nil || string(again) != text {
			t.Errorf("%s is written %s, %v", text, again, err)
		}
	}
	var sizes map[Size]Size
	if err := json.Unmarshal([]byte(`{"1KiB": 7, "2KiB": null}`), &sizes); err != nil || sizes[1024] != 7 || sizes[2048] != 0 {
		t.Errorf("%v, %v", sizes, err)
	}
	for _, wrong := range []string{`{"S":"x"}`, `{"S":1.5}`, `{"S":{}}`, `{"D":"x"}`, `{"D":3}`, `{"P":"x"}`, `{"P":"10.0.0.1"}`, `{"M":"9"}`, `{"M":755}`} {
		if err := json.Unmarshal([]byte(wrong), new(all)); err == nil {
			t.Errorf("%s was taken", wrong)
		}
	}
}
