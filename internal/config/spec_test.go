package config

import (
	"encoding/json"
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"holdfast/internal/export"
)

var update = flag.Bool("update", false, "rewrite the golden files of testdata")

// compareErrors compares the errors of each *.yaml of a folder with the golden file beside it.
func compareErrors(t *testing.T, folder string, least int, parse func(file string, text []byte) error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil || len(files) < least {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			err = parse(filepath.Base(file), text)
			var errs Errors
			if !errors.As(err, &errs) {
				t.Fatalf("want Errors, got %v", err)
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".golden"
			got := err.Error() + "\n"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWrongSpecs(t *testing.T) {
	compareErrors(t, "testdata/spec", 40, func(file string, text []byte) error {
		_, err := ParseSpec(file, text)
		return err
	})
}

func mustParseSpec(t *testing.T, text string) *Spec {
	t.Helper()
	s, err := ParseSpec("spec.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// samePrefix is how cmp compares what it cannot look into.
var samePrefix = cmp.Comparer(func(a, b Prefix) bool { return a == b })

func TestExampleSpec(t *testing.T) {
	s := mustParseSpec(t, ExampleSpec())
	want := &Spec{
		Cluster: "holdfast",
		Nodes:   []NodeSpec{{"a", "rack1"}, {"b", "rack2"}, {"c", "rack3"}},
		Volumes: []VolumeSpec{{
			Name: "main", Copies: 3, Listen: "10.94.0.100:2049", NodePort: 12049, Size: 500 << 30, Reserve: 1 << 30,
			Address:  Address{Kind: AddressIP, IP: Prefix(netip.MustParsePrefix("10.94.0.100/24")), Device: "eth0", Lifetime: Duration(3 * time.Second)},
			Prefer:   []string{"a", "b"},
			Failback: Failback{Policy: FailbackManual, After: Duration(5 * time.Minute)},
			Exports: []Export{{
				Path: "/data", Mode: 0o755,
				Clients: []Client{
					{Match: "10.94.0.0/24", Options: []string{"rw", "no_root_squash"}},
					{Match: "*.example.com", Options: []string{"rw"}},
					{Match: "*", Options: []string{"ro", "all_squash"}},
				},
			}},
		}},
	}
	if diff := cmp.Diff(want, s, samePrefix); diff != "" {
		t.Error(diff)
	}
	table, err := s.Volume("main").Table()
	if err != nil {
		t.Fatal(err)
	}
	var entries []string
	for _, c := range table[0].Clients {
		entries = append(entries, c.String())
	}
	wantEntries := []string{"10.94.0.0/24(rw,no_root_squash)", "*.example.com(rw,root_squash)", "*(ro,all_squash)"}
	if diff := cmp.Diff(wantEntries, entries); diff != "" || table[0].Path != "/data" || table[0].Mode != 0o755 {
		t.Errorf("%+v\n%s", table, diff)
	}
	if got := s.Volumes[0].MountAddr(); got != netip.MustParseAddrPort("10.94.0.100:2049") {
		t.Errorf("clients mount %v", got)
	}
	if s.Volume("none") != nil {
		t.Error("a volume that is not there was found")
	}
}

const minimalSpec = `
volumes:
  - name: v
    address: {kind: listen}
    listen: 127.0.0.1:2050
    exports: [{path: /, clients: [{match: "*"}]}]
  - name: w
    nodes: [a]
    address: {kind: ip, ip: "fd00::1/64"}
    node_port: 2049
    exports: []
    reserve: 0
`

func TestSpecDefaults(t *testing.T) {
	s := mustParseSpec(t, minimalSpec)
	v, w := NewVolume("v"), NewVolume("w")
	v.Address.Kind, v.Listen = AddressListen, "127.0.0.1:2050"
	v.Exports = []Export{NewExport("/")}
	v.Exports[0].Clients = []Client{{Match: "*"}}
	w.Nodes, w.Copies, w.Reserve, w.NodePort = []string{"a"}, 1, 0, 2049
	v.Complete()
	w.Address.Kind, w.Address.IP, w.Listen = AddressIP, Prefix(netip.MustParsePrefix("fd00::1/64")), "[fd00::1]:2049"
	if diff := cmp.Diff(&Spec{Volumes: []VolumeSpec{v, w}}, s, samePrefix); diff != "" {
		t.Error(diff)
	}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
}

// TestJSON checks that what the API shows can be given back to it: YAML includes JSON.
func TestJSON(t *testing.T) {
	for _, text := range []string{ExampleSpec(), minimalSpec, "volumes: []"} {
		s := mustParseSpec(t, text)
		encoded, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var decoded Spec
		if err := json.Unmarshal(encoded, &decoded); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s, &decoded, samePrefix); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(s, mustParseSpec(t, string(encoded)), samePrefix); diff != "" {
			t.Error(diff)
		}
	}
	encoded, err := json.Marshal(mustParseSpec(t, minimalSpec).Volumes[1])
	want := `{"name":"w","copies":1,"nodes":["a"],"address":{"kind":"ip","ip":"fd00::1/64","lifetime":"3s"},"listen":"[fd00::1]:2049",` +
		`"node_port":2049,"size":"0","reserve":"0","failback":{"policy":"manual","after":"5m"},"exports":[]}`
	if string(encoded) != want || err != nil {
		t.Errorf("%s, %v", encoded, err)
	}
}

func TestJSONDefaults(t *testing.T) {
	var v VolumeSpec
	text := `{"name":"w","nodes":["a","b"],"address":{"kind":"ip","ip":"10.0.0.1/24"},"size":1048576,"failback":{"policy":"auto"},"exports":[{"path":"/"}]}`
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	want := NewVolume("w")
	want.Copies, want.Nodes, want.Listen, want.Size = 2, []string{"a", "b"}, "10.0.0.1:2049", 1<<20
	want.Address.Kind, want.Address.IP = AddressIP, Prefix(netip.MustParsePrefix("10.0.0.1/24"))
	want.Failback.Policy = FailbackAuto
	want.Exports = []Export{NewExport("/")}
	if diff := cmp.Diff(want, v, samePrefix); diff != "" {
		t.Error(diff)
	}
	for _, wrong := range []string{`{"size":"lots"}`, `{"size":-1}`, `{"address":{"ip":"10.0.0.1"}}`, `{"failback":{"after":"soon"}}`, `{"exports":[{"mode":"rwx"}]}`} {
		if err := json.Unmarshal([]byte(wrong), new(VolumeSpec)); err == nil {
			t.Errorf("%s was taken", wrong)
		}
	}
}

func TestValidate(t *testing.T) {
	good := mustParseSpec(t, ExampleSpec())
	for name, c := range map[string]struct {
		spoil func(s *Spec, v *VolumeSpec)
		want  string
	}{
		"copies":         {func(_ *Spec, v *VolumeSpec) { v.Copies = 0 }, `volumes[0].copies: there can be 1, 2, 3 or 5 copies, not 0`},
		"pins":           {func(_ *Spec, v *VolumeSpec) { v.Nodes = []string{"a"} }, `volumes[0].nodes: 3 copies (volumes[0].copies) need as many nodes, not 1; to have one on each of these, leave copies out`},
		"listen":         {func(_ *Spec, v *VolumeSpec) { v.Listen = "" }, `volumes[0].listen: "" is not an IP address with a port, such as 10.94.0.100:2049`},
		"name":           {func(_ *Spec, v *VolumeSpec) { v.Name = "" }, `volumes[0].name: "": a name has 1 to 63 characters`},
		"injection":      {func(_ *Spec, v *VolumeSpec) { v.Address.Device = "x\"\nlisten: y" }, `volumes[0].address.device: "x\"\nlisten: y" is not the name of a network device, such as eth0`},
		"not UTF-8":      {func(_ *Spec, v *VolumeSpec) { v.Exports[0].Path = "/\xff" }, `volumes[0].exports[0].path: export path "/�" must be valid UTF-8 without control characters`},
		"lifetime":       {func(_ *Spec, v *VolumeSpec) { v.Address.Lifetime = 0 }, `volumes[0].address.lifetime: "0s": a duration here must be longer than nothing`},
		"mode":           {func(_ *Spec, v *VolumeSpec) { v.Exports[0].Mode = 0o10000 }, `volumes[0].exports[0].mode: "10000" is not a mode; write it in octal, such as "0755"`},
		"option":         {func(_ *Spec, v *VolumeSpec) { v.Exports[0].Clients[0].Options = []string{"rw", "no_root_squahs"} }, `volumes[0].exports[0].clients[0].options[1]: unknown export option "no_root_squahs"; did you mean "no_root_squash"?`},
		"name of node":   {func(s *Spec, _ *VolumeSpec) { s.Nodes[1].Name = "a" }, `nodes[1].name: the name a is taken by nodes[0].name`},
		"two at once":    {func(_ *Spec, v *VolumeSpec) { v.Copies, v.Size = 7, 3 }, "volumes[0].copies: there can be 1, 2, 3 or 5 copies, not 7\nvolumes[0].size: 3 bytes are too small for a volume; write a unit, such as 500GiB, or 0 for no limit"},
		"no kind at all": {func(_ *Spec, v *VolumeSpec) { v.Address.Kind = "" }, `volumes[0].address.kind: unknown value ""; known are ip, listen`},
	} {
		t.Run(name, func(t *testing.T) {
			s := mustParseSpec(t, ExampleSpec())
			c.spoil(s, &s.Volumes[0])
			err := s.Validate()
			if err == nil {
				t.Fatal("taken")
			}
			if diff := cmp.Diff(c.want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}

func TestCheckAgainst(t *testing.T) {
	text := strings.NewReplacer("# nodes: [a, b, c]", "nodes: [a, b, x] ", "prefer: [a, b]", "prefer: [b, x]").Replace(ExampleSpec())
	s := mustParseSpec(t, text)
	if err := s.CheckAgainst([]string{"a", "b", "c", "x"}); err != nil {
		t.Error(err)
	}
	err := s.CheckAgainst([]string{"a", "b"})
	want := `nodes[2].name: no node is called "c"; the nodes are a, b
volumes[0].nodes[2]: no node is called "x"; the nodes are a, b
volumes[0].prefer[1]: no node is called "x"; the nodes are a, b`
	if err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	err = s.CheckAgainst([]string{"north", "south"})
	if err == nil || !strings.HasPrefix(err.Error(), `nodes[0].name: no node is called "a"; the nodes are north, south`) {
		t.Errorf("%v", err)
	}
	if err := s.CheckAgainst(nil); err == nil {
		t.Error("a cluster without nodes has them all")
	}
	located := Locate("spec.yaml", []byte(text), s.CheckAgainst([]string{"a", "b", "c"}))
	want = `spec.yaml:13:19: volumes[0].nodes[2]: no node is called "x"; the nodes are a, b, c
  13 |     nodes: [a, b, x]              # pins which ones; otherwise the cluster chooses
     |                   ^`
	if located == nil || !strings.HasPrefix(located.Error(), want) {
		t.Errorf("%v", located)
	}
	if err := s.CheckCluster("holdfast"); err != nil {
		t.Error(err)
	}
	if err := Locate("spec.yaml", []byte(text), s.CheckCluster("office")); err == nil || !strings.HasPrefix(err.Error(), `spec.yaml:3:10: cluster: this is for the cluster "holdfast", not "office"`) {
		t.Errorf("%v", err)
	}
	if other := errors.New("other"); Locate("spec.yaml", []byte(text), other) != other {
		t.Error("an error of another kind was changed")
	}
}

func TestTableOfWrongExports(t *testing.T) {
	for _, e := range []Export{
		{Path: "relative"},
		{Path: "/a", Clients: []Client{{Match: "10.0.0.0/99"}}},
		{Path: "/a", Clients: []Client{{Match: "*", Options: []string{"async"}}}},
	} {
		if table, err := (&VolumeSpec{Name: "v", Exports: []Export{e}}).Table(); err == nil {
			t.Errorf("%+v gives %+v", e, table)
		}
	}
	if _, err := (&VolumeSpec{Exports: []Export{{Path: "/a"}, {Path: "/a/b"}}}).Table(); err == nil {
		t.Error("overlapping exports were taken")
	}
	var none []export.Export
	if table, err := (&VolumeSpec{}).Table(); err != nil || !cmp.Equal(none, table, cmpopts.EquateEmpty()) {
		t.Errorf("%v, %v", table, err)
	}
}

func TestAnchors(t *testing.T) {
	text := strings.Replace(minimalSpec, `[{match: "*"}]`, `&all [{match: "*"}]`, 1)
	text = strings.Replace(text, "exports: []", "exports: [{path: /w, clients: *all}]", 1)
	if w := mustParseSpec(t, text).Volumes[1]; len(w.Exports[0].Clients) != 1 {
		t.Errorf("exports: %+v", w.Exports)
	}
}

// TestClone overwrites all of a copy.
func TestClone(t *testing.T) {
	s := mustParseSpec(t, strings.Replace(ExampleSpec(), "# nodes: [a, b, c]", "nodes: [a, b, c] ", 1))
	before := string(s.YAML())
	c := s.Clone()
	if diff := cmp.Diff(s, c, samePrefix); diff != "" {
		t.Error(diff)
	}
	c.Nodes[0].Zone = "x"
	v := &c.Volumes[0]
	v.Nodes[0], v.Prefer[0], v.Exports[0].Mode, v.Exports[0].Clients[0].Match, v.Exports[0].Clients[0].Options[0] = "x", "x", 0, "x", "x"
	v.Name = "x"
	if after := string(s.YAML()); after != before {
		t.Error(cmp.Diff(before, after))
	}
}

func TestErrorWithoutFile(t *testing.T) {
	_, err := ParseSpec("", []byte("volumes: 3\n"))
	if want := "line 1:10: volumes: want a list, not \"3\"\n  1 | volumes: 3\n    |          ^"; err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}

// TestTooManyValues checks that a short file cannot keep a node busy for long.
func TestTooManyValues(t *testing.T) {
	repeat := func(alias string) string { return "[" + strings.Repeat(alias+", ", 1000) + "]" }
	text := "volumes: [&v {name: v, prefer: &p " + repeat("a") + ", exports: [&e {path: /, clients: [&c {match: a, options: *p}, " + repeat("*c")[1:] + "}, " +
		repeat("*e")[1:] + "}, " + repeat("*v")[1:]
	_, err := ParseSpec("bomb.yaml", []byte(text))
	var errs Errors
	if !errors.As(err, &errs) || !slices.ContainsFunc(errs, func(e *Error) bool { return strings.Contains(e.Message, "more than 262144 values") }) {
		t.Errorf("%d errors", len(errs))
	}
}
