package config

import "testing"

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
