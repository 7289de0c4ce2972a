package config

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWrongLocals(t *testing.T) {
	compareErrors(t, "testdata/local", 10, func(file string, text []byte) error {
		_, err := ParseLocal(file, text)
		return err
	})
}

func TestParseLocal(t *testing.T) {
	defaults := &Local{
		Data: "/var/lib/holdfast", Listen: ":7420", LogSegment: 64 << 20,
		Log: Logging{Format: "text", Level: "info"}, Limits: Limits{Connections: 4096, InflightBytes: 256 << 20},
	}
	example := *defaults
	example.Health = "127.0.0.1:7421"
	example.Balancers = []Network{Network(netip.MustParsePrefix("10.94.0.5/32")), Network(netip.MustParsePrefix("10.94.1.0/28"))}
	other := *defaults
	other.Data, other.Listen, other.Health, other.Log.Level = "/srv", "[fd00::1]:7000", "localhost:80", "debug"
	for text, want := range map[string]*Local{
		"":                              defaults,
		"# all as it comes\n":           defaults,
		"{}":                            defaults,
		"balancers: []\n":               {Data: "/var/lib/holdfast", Listen: ":7420", LogSegment: 64 << 20, Balancers: []Network{}, Log: defaults.Log, Limits: defaults.Limits},
		"---\n":                         defaults,
		"limits: {connections: 4096}\n": defaults,
		ExampleLocal():                  &example,
		"data: /srv\nlisten: '[fd00::1]:7000'\nhealth: localhost:80\nlog: {level: debug}\n": &other,
	} {
		got, err := ParseLocal("holdfast.yaml", []byte(text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b Network) bool { return a == b })); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}

func TestLoadLocal(t *testing.T) {
	if _, err := LoadLocal(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("file that is not there: %v", err)
	}
	if _, err := os.Stat(DefaultLocalPath); errors.Is(err, fs.ErrNotExist) {
		for _, path := range []string{"", DefaultLocalPath} {
			if l, err := LoadLocal(path); err != nil || l.Data != DefaultData {
				t.Errorf("%q: %+v, %v", path, l, err)
			}
		}
	}
	file := filepath.Join(t.TempDir(), "holdfast.yaml")
	if err := os.WriteFile(file, []byte("data: /srv\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := LoadLocal(file); err != nil || l.Data != "/srv" {
		t.Errorf("%+v, %v", l, err)
	}
}

// FuzzParseLocal checks that no file makes the parser panic, and that what it takes is complete.
func FuzzParseLocal(f *testing.F) {
	f.Add(ExampleLocal())
	addFiles(f, "testdata/local")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<14 {
			return
		}
		l, err := ParseLocal("fuzz.yaml", []byte(text))
		var errs Errors
		switch {
		case err != nil && (!errors.As(err, &errs) || len(errs) == 0 || err.Error() == ""):
			t.Errorf("error is %T", err)
		case err == nil && (l.Data == "" || l.Listen == "" || l.Log.Format == "" || l.Log.Level == "" || l.Limits.Connections < 1 || l.LogSegment == 0):
			t.Errorf("%+v was taken", l)
		}
	})
}
