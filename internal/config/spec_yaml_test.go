package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const header = "# What the cluster serves. Change it, look at `holdfast diff -f FILE`, then `holdfast apply -f FILE`.\n"

func TestYAML(t *testing.T) {
	want := header + `cluster: holdfast

nodes:
  - name: a
    zone: rack1
  - name: b
    zone: rack2
  - name: c
    zone: rack3

volumes:
  - name: main
    address:
      kind: ip
      ip: 10.94.0.100/24
      device: eth0
    node_port: 12049
    size: 500GiB
    prefer: [a, b]
    exports:
      - path: /data
        clients:
          - {match: 10.94.0.0/24, options: [rw, no_root_squash]}
          - {match: "*.example.com", options: [rw]}
          - {match: "*", options: [ro, all_squash]}
`
	if diff := cmp.Diff(want, string(mustParseSpec(t, ExampleSpec()).YAML())); diff != "" {
		t.Error(diff)
	}
	if got := string(new(Spec).YAML()); got != header+"volumes: []\n" {
		t.Errorf("an empty specification is %q", got)
	}
}

// pick returns one of the values.
func pick[T any](r *rand.Rand, values ...T) T { return values[r.IntN(len(values))] }

// randomSpec returns a valid, complete specification.
func randomSpec(r *rand.Rand) *Spec {
	name := func(i int) string {
		return pick(r, "n", "true", "null", "x.y-z", "007", "1e5", "0x1F", "_", "1.10", "No", "v") + fmt.Sprint(i)
	}
	s := &Spec{Cluster: pick(r, "", "office", "true", "12"), Volumes: []VolumeSpec{}}
	var nodes []string
	for i := range r.IntN(5) {
		nodes = append(nodes, name(i))
		s.Nodes = append(s.Nodes, NodeSpec{Name: nodes[i], Zone: pick(r, "", "rack1", "off", "0")})
	}
	for i := range r.IntN(4) {
		v := NewVolume(name(i))
		v.Copies = pick(r, numbersOfCopies...)
		if v.Copies <= len(nodes) && r.IntN(2) == 0 {
			v.Nodes = nodes[:v.Copies]
			v.Prefer = nodes[:r.IntN(v.Copies+1)]
		} else {
			v.Prefer = nodes[:r.IntN(len(nodes)+1)]
		}
		if len(v.Prefer) > 0 {
			v.Failback.Policy = pick(r, FailbackAuto, FailbackManual)
		}
		v.Failback.After = pick(r, v.Failback.After, 1, Duration(3600e9), Duration(90e9))
		ip := pick(r, fmt.Sprintf("10.0.0.%d/8", i+1), fmt.Sprintf("fd00::%d/64", i+1))
		switch prefix := netip.MustParsePrefix(ip); r.IntN(3) {
		case 0:
			v.Address.Kind = AddressListen
			v.Listen = netip.AddrPortFrom(prefix.Addr(), uint16(3000+i)).String()
		default:
			v.Address = Address{
				Kind: AddressIP, IP: Prefix(prefix), Device: pick(r, "", "eth0", "null", "br-é", `a"b\`, "vlan:3"),
				Lifetime: pick(r, v.Address.Lifetime, Duration(1500e6)),
			}
			v.Listen = pick(r, "", fmt.Sprintf("[::]:%d", 4000+i))
		}
		v.NodePort = pick(r, 0, uint16(5000+i))
		v.Size = pick[Size](r, 0, 1<<20, 1<<20+1, 3<<40)
		v.Reserve = pick(r, v.Reserve, 0, 12345)
		for j := range r.IntN(3) {
			e := NewExport(fmt.Sprintf("/%s%d", pick(r, "data", "sp ace", `quo"te`, "back\\slash", "#hash", "ünï", "a: b", "日本/x", "'", "{", "-"), j))
			e.Owner, e.Group, e.Mode = pick[uint32](r, 0, 1<<32-1), pick[uint32](r, 0, 7), pick[Mode](r, e.Mode, 0, 0o7777)
			for range 1 + r.IntN(2) {
				e.Clients = append(e.Clients, Client{
					Match:   pick(r, "*", "10.0.0.0/8", "fd00::/8", "10.0.0.1", "*.example.com", "host", "1h"),
					Options: pick(r, nil, []string{"rw"}, []string{"ro", "anonuid=5", "sec=none"}),
				})
			}
			v.Exports = append(v.Exports, e)
		}
		v.Complete()
		s.Volumes = append(s.Volumes, v)
	}
	return s
}

// TestYAMLProperty checks that every valid specification survives YAML, ours and another reader's, and JSON, and does not differ from itself.
func TestYAMLProperty(t *testing.T) {
	for seed := range uint64(1000) {
		s := randomSpec(rand.New(rand.NewPCG(seed, 1)))
		if err := s.Validate(); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, s.YAML())
		}
		text := s.YAML()
		parsed, err := ParseSpec("spec.yaml", text)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, text)
		}
		if diff := cmp.Diff(s, parsed, samePrefix, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("seed %d: %s\n%s", seed, diff, text)
		}
		if again := parsed.YAML(); string(again) != string(text) {
			t.Fatalf("seed %d: %s\n%s", seed, text, again)
		}
		if changes := Diff(s, parsed); len(changes) > 0 {
			t.Fatalf("seed %d: %v", seed, changes)
		}
		encoded, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var decoded Spec
		if err := json.Unmarshal(encoded, &decoded); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, encoded)
		}
		if diff := cmp.Diff(s, &decoded, samePrefix, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("seed %d: %s\n%s", seed, diff, encoded)
		}
		checkForeign(t, s, text)
	}
}

// checkForeign checks that another YAML reader takes names and paths for text too.
func checkForeign(t *testing.T, s *Spec, text []byte) {
	t.Helper()
	var foreign struct {
		Volumes []struct {
			Name    any
			Exports []struct{ Path any }
		}
	}
	if err := yaml.Unmarshal(text, &foreign); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for i, v := range s.Volumes {
		if foreign.Volumes[i].Name != any(v.Name) {
			t.Fatalf("name %q is read as %v (%T)", v.Name, foreign.Volumes[i].Name, foreign.Volumes[i].Name)
		}
		for j, e := range v.Exports {
			if foreign.Volumes[i].Exports[j].Path != any(e.Path) {
				t.Fatalf("path %q is read as %v", e.Path, foreign.Volumes[i].Exports[j].Path)
			}
		}
	}
}

// TestKeysOfYAMLAndJSON checks that each field has one name for both.
func TestKeysOfYAMLAndJSON(t *testing.T) {
	var check func(typ reflect.Type)
	check = func(typ reflect.Type) {
		for typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if _, ok := reflect.New(typ).Interface().(scalar); ok || typ.Kind() != reflect.Struct {
			return
		}
		for i := range typ.NumField() {
			f := typ.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" || name != f.Tag.Get("yaml") {
				t.Errorf("%v.%s is %q in YAML and %q in JSON", typ, f.Name, f.Tag.Get("yaml"), name)
			}
			check(f.Type)
		}
	}
	for _, v := range []any{Spec{}, Local{}, Timing{}} {
		check(reflect.TypeOf(v))
	}
}

// addFiles adds every wrong file of a folder to the corpus.
func addFiles(f *testing.F, folder string) {
	files, _ := filepath.Glob(filepath.Join(folder, "*.yaml"))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
}

// FuzzParseSpec checks that no file makes the parser panic, that errors say something, and that what was taken survives YAML and JSON.
func FuzzParseSpec(f *testing.F) {
	f.Add(ExampleSpec())
	f.Add(minimalSpec)
	addFiles(f, "testdata/spec")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1<<14 {
			return
		}
		s, err := ParseSpec("fuzz.yaml", []byte(text))
		if err != nil {
			var errs Errors
			if s != nil || !errors.As(err, &errs) || len(errs) == 0 || err.Error() == "" {
				t.Errorf("error is %T", err)
			}
			return
		}
		if err := s.Validate(); err != nil {
			t.Fatalf("%v\n%s", err, s.YAML())
		}
		again, err := ParseSpec("again.yaml", s.YAML())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s, again, samePrefix, cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
		encoded, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if again, err = ParseSpec("again.json", encoded); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s, again, samePrefix, cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
		for i := range s.Volumes {
			if _, err := s.Volumes[i].Table(); err != nil || !s.Volumes[i].MountAddr().IsValid() {
				t.Errorf("%v, %v", err, s.Volumes[i].MountAddr())
			}
		}
	})
}
