package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"holdfast/internal/export"
	"holdfast/internal/volume"
)

// TestWrongFiles compares the errors of each wrong file with the golden file beside it.
func TestWrongFiles(t *testing.T) {
	compareErrors(t, "testdata/static", 20, func(file string, text []byte) error {
		_, err := Parse(file, text, "")
		return err
	})
}

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("test.yaml", []byte(text), "")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestExample(t *testing.T) {
	c := mustParse(t, Example())
	client := func(s string) export.Client {
		c, err := export.ParseClient(s)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	want := &Config{
		Node: "a",
		Data: "/var/lib/holdfast",
		Nodes: []Node{
			{Name: "a", ID: 1, Peer: "10.94.0.11:7400", Role: RoleData},
			{Name: "b", ID: 2, Peer: "10.94.0.12:7400", Role: RoleData},
			{Name: "c", ID: 3, Peer: "10.94.0.13:7400", Role: RoleData},
		},
		Volumes: []Volume{{
			Name: "main", ID: 1, Listen: "0.0.0.0:2049", Reserve: 1 << 30,
			Address: Address{Kind: AddressIP, IP: Prefix(netip.MustParsePrefix("10.94.0.100/24")), Device: "eth0", Lifetime: Duration(3 * time.Second)},
			Exports: []Export{{
				Path: "/data", Mode: 0o755,
				Clients: []Client{
					{Match: "10.94.0.0/24", Options: []string{"rw", "no_root_squash"}},
					{Match: "*.example.com", Options: []string{"rw"}},
					{Match: "*", Options: []string{"ro", "all_squash"}},
				},
			}},
		}},
		Timing:  Timing{Tick: Duration(20 * time.Millisecond), Election: 10, Lease: Duration(180 * time.Millisecond), Drift: Duration(2 * time.Millisecond)},
		Limits:  Limits{Connections: 4096, InflightBytes: 256 << 20},
		Log:     Log{Segment: 64 << 20, Format: "text", Level: "info"},
		Cluster: Cluster{Name: "holdfast", SecretFile: "/etc/holdfast/secret"},
	}
	if diff := cmp.Diff(want, c, cmpopts.IgnoreUnexported(Export{}), cmp.Comparer(func(a, b Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	table := []export.Export{{
		Path: "/data", Mode: 0o755,
		Clients: []export.Client{client("10.94.0.0/24(rw,no_root_squash)"), client("*.example.com(rw)"), client("*(ro,all_squash)")},
	}}
	if diff := cmp.Diff(table, c.Volumes[0].Table(), cmp.Comparer(func(a, b export.Match) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if got := c.Volumes[0].MountAddr(); got != netip.MustParseAddrPort("10.94.0.100:2049") {
		t.Errorf("clients mount %v", got)
	}
	if c.Self() != &c.Nodes[0] {
		t.Error("Self is not node a")
	}
}

const minimal = `
node: one
data: /srv
nodes: [{name: one, peer: "127.0.0.1:7400"}, {name: two, peer: "127.0.0.1:7401"}]
volumes:
  - name: v
    address: {kind: listen}
    listen: 127.0.0.1:2050
    exports: [{path: /, clients: [{match: "*"}]}]
  - name: w
    address: {kind: ip, ip: "fd00::1/64", device: lo}
    exports: []
    reserve: 0
`

func TestDefaults(t *testing.T) {
	c := mustParse(t, minimal)
	if c.Nodes[1].ID != 2 || c.Nodes[1].Role != RoleData || c.Volumes[1].ID != 2 {
		t.Errorf("ids and roles: %+v %+v", c.Nodes, c.Volumes)
	}
	v, w := c.Volumes[0], c.Volumes[1]
	if v.Reserve != 1<<30 || w.Reserve != 0 || w.Listen != "0.0.0.0:2049" || w.Address.Lifetime != Duration(3*time.Second) {
		t.Errorf("volumes: %+v", c.Volumes)
	}
	if e := v.Table()[0]; e.Mode != 0o755 || !e.Clients[0].Options.ReadOnly || e.Clients[0].Options.Squash != volume.SquashRoot {
		t.Errorf("export: %+v", e)
	}
	if v.MountAddr() != netip.MustParseAddrPort("127.0.0.1:2050") {
		t.Errorf("clients mount %v", v.MountAddr())
	}
	want := Timing{Tick: Duration(20 * time.Millisecond), Election: 10, Lease: Duration(180 * time.Millisecond), Drift: Duration(1800 * time.Microsecond)}
	if c.Timing != want {
		t.Errorf("timing: %+v, want %+v", c.Timing, want)
	}
}

// TestNodeOverride checks that the command line replaces what the file says about node, or does not say.
func TestNodeOverride(t *testing.T) {
	for name, text := range map[string]string{
		"another":   minimal,
		"none":      strings.Replace(minimal, "node: one\n", "", 1),
		"wrong one": strings.Replace(minimal, "node: one\n", "node: [1]\n", 1),
	} {
		c, err := Parse("test.yaml", []byte(text), "two")
		if name == "wrong one" {
			if err == nil {
				t.Errorf("%s: what is wrong in the file was let pass", name)
			}
			continue
		}
		if err != nil || c.Self().Name != "two" {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := Parse("test.yaml", []byte(minimal), "tow")
	if err == nil || !strings.Contains(err.Error(), `test.yaml: node: no node is called "tow"; did you mean "two"?`) {
		t.Errorf("unknown node: %v", err)
	}
}

func TestLoad(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml"), ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("file that is not there: %v", err)
	}
	file := filepath.Join(t.TempDir(), "holdfast.yaml")
	if err := os.WriteFile(file, []byte(Example()), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(file, "b"); err != nil || c.Self().ID != 2 {
		t.Errorf("%v", err)
	}
}

// FuzzParse checks that no file makes the parser panic, and that every error has a place in the file.
func FuzzParse(f *testing.F) {
	f.Add(Example())
	f.Add(minimal)
	files, _ := filepath.Glob("testdata/static/*.yaml")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<14 {
			return
		}
		c, err := Parse("fuzz.yaml", []byte(text), "")
		var errs Errors
		switch {
		case err == nil && (c.Self() == nil || len(c.Volumes) == 0):
			t.Errorf("a file without node or volumes was taken: %+v", c)
		case err != nil && (!errors.As(err, &errs) || len(errs) == 0 || err.Error() == ""):
			t.Errorf("error is %T", err)
		}
	})
}
