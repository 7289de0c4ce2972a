package config

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDiff(t *testing.T) {
	old := ExampleSpec()
	for name, c := range map[string]struct {
		replace []string // pairs in the text of the new specification
		append  string   // to it
		want    string   // as Render has it
	}{
		"nothing":  {},
		"no names": {replace: []string{"cluster: holdfast", "", "- {name: c, zone: rack3}", ""}},
		"zones": {
			replace: []string{"{name: a, zone: rack1}", "{name: a}", "rack2", "rack4", "{name: c", "{name: d"},
			want:    "- nodes[a].zone: rack1\n~ nodes[b].zone: rack2 -> rack4\n+ nodes[d].zone: rack3\n",
		},
		"address": {
			replace: []string{"ip: 10.94.0.100/24", "ip: 10.94.0.200/24", "listen: 10.94.0.100:2049", ""},
			want: "~ volumes[main].address.ip: 10.94.0.100/24 -> 10.94.0.200/24\n  ! clients must mount the new address\n" +
				"~ volumes[main].listen: 10.94.0.100:2049 -> 10.94.0.200:2049\n  ! clients must mount the new address\n",
		},
		"listening elsewhere at the same address": {
			replace: []string{"listen: 10.94.0.100:2049", "listen: 0.0.0.0:2049"},
			want:    "~ volumes[main].listen: 10.94.0.100:2049 -> 0.0.0.0:2049\n",
		},
		"kind": {
			replace: []string{"kind: ip\n", "kind: listen\n", "ip: 10.94.0.100/24\n", "\n", "device: eth0 ", "", "lifetime: 3s ", ""},
			want: "~ volumes[main].address.kind: ip -> listen\n- volumes[main].address.ip: 10.94.0.100/24\n" +
				"- volumes[main].address.device: eth0\n- volumes[main].address.lifetime: 3s\n",
		},
		"copies": {
			replace: []string{"copies: 3", "copies: 2"},
			want:    "~ volumes[main].copies: 3 -> 2\n  ! the volume survives fewer failures\n",
		},
		"one copy": {
			replace: []string{"copies: 3", "nodes: [b] ", "[a, b]", "[b]"},
			want: "~ volumes[main].copies: 3 -> 1\n  ! the failure of one node makes the volume unavailable, that of its disk loses the data\n" +
				"+ volumes[main].nodes: b\n~ volumes[main].prefer: a, b -> b\n",
		},
		"more copies": {replace: []string{"copies: 3", "copies: 5"}, want: "~ volumes[main].copies: 3 -> 5\n"},
		"small things": {
			replace: []string{"eth0", "eth1", "lifetime: 3s", "lifetime: 5s", "policy: manual", "policy: auto", "after: 5m", "after: 1h", "owner: 0", "owner: 7", "group: 0", "group: 8", `"0755"`, `"0700"`},
			want: `~ volumes[main].address.device: eth0 -> eth1
~ volumes[main].address.lifetime: 3s -> 5s
~ volumes[main].failback.policy: manual -> auto
~ volumes[main].failback.after: 5m -> 1h
~ volumes[main].exports[/data].owner: 0 -> 7
~ volumes[main].exports[/data].group: 0 -> 8
~ volumes[main].exports[/data].mode: 0755 -> 0700
`,
		},
		"sizes": {
			replace: []string{"500GiB", "400GiB", "reserve: 1GiB", "reserve: 2GiB"},
			want: "~ volumes[main].size: 500GiB -> 400GiB\n  ! writes fail if more than that is stored\n" +
				"~ volumes[main].reserve: 1GiB -> 2GiB\n  ! writes fail while a node has less than that free\n",
		},
		"no limits": {
			replace: []string{"500GiB", "0", "reserve: 1GiB", "reserve: 0", "node_port: 12049", "node_port: 0"},
			want: "- volumes[main].node_port: 12049\n  ! clients that mounted a node's own address lose it\n" +
				"- volumes[main].size: 500GiB\n~ volumes[main].reserve: 1GiB -> 0\n",
		},
		"clients": {
			replace: []string{"[rw, no_root_squash]", "[rw]"},
			want: "~ volumes[main].exports[/data].clients: 10.94.0.0/24(rw,no_root_squash), *.example.com(rw), *(ro,all_squash) -> " +
				"10.94.0.0/24(rw), *.example.com(rw), *(ro,all_squash)\n  ! clients lose what 10.94.0.0/24(rw,no_root_squash) gave them\n",
		},
		"more clients": {
			replace: []string{`          - {match: "*", options`, "          - {match: host}\n          - {match: \"*\", options"},
			want: "~ volumes[main].exports[/data].clients: 10.94.0.0/24(rw,no_root_squash), *.example.com(rw), *(ro,all_squash) -> " +
				"10.94.0.0/24(rw,no_root_squash), *.example.com(rw), host, *(ro,all_squash)\n",
		},
		"exports": {
			replace: []string{"path: /data", "path: /other"},
			want: "- volumes[main].exports[/data]: 10.94.0.0/24(rw,no_root_squash), *.example.com(rw), *(ro,all_squash)\n  ! clients lose access; the files stay in the volume\n" +
				"+ volumes[main].exports[/other]: 10.94.0.0/24(rw,no_root_squash), *.example.com(rw), *(ro,all_squash)\n",
		},
		"volumes": {
			replace: []string{"name: main", "name: renamed"},
			append:  "\n  - name: another\n    copies: 1\n    address: {kind: ip, ip: 10.94.0.102/24}\n    exports: []\n",
			want: "- volumes[main]: 10.94.0.100:2049, 3 copies, 1 export\n  ! its data is deleted\n" +
				"+ volumes[another]: 10.94.0.102:2049, 1 copy, 0 exports\n+ volumes[renamed]: 10.94.0.100:2049, 3 copies, 1 export\n" +
				"+ volumes[renamed].exports[/data]: 10.94.0.0/24(rw,no_root_squash), *.example.com(rw), *(ro,all_squash)\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			text := old
			for i := 0; i < len(c.replace); i += 2 {
				if !strings.Contains(text, c.replace[i]) {
					t.Fatalf("the example has no %q", c.replace[i])
				}
				text = strings.Replace(text, c.replace[i], c.replace[i+1], 1)
			}
			changes := Diff(mustParseSpec(t, old), mustParseSpec(t, text+c.append))
			if diff := cmp.Diff(c.want, Render(changes)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestChangeString(t *testing.T) {
	for want, c := range map[string]Change{
		"+ volumes[v].exports[/a]":                     {Op: OpAdd, Key: "volumes[v].exports[/a]"},
		"~ cluster: a -> b":                            {Op: OpChange, Key: "cluster", Old: "a", New: "b"},
		"- volumes[v]: 1 export (its data is deleted)": {Op: OpRemove, Key: "volumes[v]", Old: "1 export", Danger: "its data is deleted"},
	} {
		if got := c.String(); got != want {
			t.Errorf("%+v is %q", c, got)
		}
	}
}

// TestDiffProperty checks that Diff finds a difference exactly where the specifications differ, whatever the order in which they list things.
func TestDiffProperty(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 2))
		s, other := randomSpec(r), randomSpec(r)
		shuffled := *s
		shuffled.Volumes = slices.Clone(s.Volumes)
		slices.Reverse(shuffled.Nodes)
		slices.Reverse(shuffled.Volumes)
		for i := range shuffled.Volumes {
			shuffled.Volumes[i].Exports = slices.Clone(shuffled.Volumes[i].Exports)
			slices.Reverse(shuffled.Volumes[i].Exports)
		}
		if changes := Diff(s, &shuffled); len(changes) > 0 {
			t.Fatalf("seed %d: %v", seed, changes)
		}
		if diff := cmp.Diff(Diff(s, other), Diff(&shuffled, other)); diff != "" {
			t.Fatalf("seed %d: the order matters: %s", seed, diff)
		}
		for i := range s.Volumes {
			for j := range other.Volumes {
				a, b := s.Volumes[i], other.Volumes[j]
				a.Name, b.Name = "v", "v"
				// Two lists of exports may differ in their order only.
				byPath := func(x, y Export) int { return strings.Compare(x.Path, y.Path) }
				a.Exports, b.Exports = slices.SortedFunc(slices.Values(a.Exports), byPath), slices.SortedFunc(slices.Values(b.Exports), byPath)
				one, two := &Spec{Volumes: []VolumeSpec{a}}, &Spec{Volumes: []VolumeSpec{b}}
				if same := string(one.YAML()) == string(two.YAML()); same != (len(Diff(one, two)) == 0) {
					t.Fatalf("seed %d: %v\n%s\n%s", seed, Diff(one, two), one.YAML(), two.YAML())
				}
			}
		}
	}
}

// TestDiffSeesEveryField changes one field of a volume after another.
func TestDiffSeesEveryField(t *testing.T) {
	for name, spoil := range map[string]func(v *VolumeSpec){
		"copies": func(v *VolumeSpec) { v.Copies++ }, "nodes": func(v *VolumeSpec) { v.Nodes = []string{"x"} },
		"kind": func(v *VolumeSpec) { v.Address.Kind += "x" }, "ip": func(v *VolumeSpec) { v.Address.IP = Prefix{} },
		"device": func(v *VolumeSpec) { v.Address.Device += "x" }, "lifetime": func(v *VolumeSpec) { v.Address.Lifetime++ },
		"listen": func(v *VolumeSpec) { v.Listen += "1" }, "node_port": func(v *VolumeSpec) { v.NodePort++ }, "size": func(v *VolumeSpec) { v.Size++ },
		"reserve": func(v *VolumeSpec) { v.Reserve++ }, "prefer": func(v *VolumeSpec) { v.Prefer = nil },
		"policy": func(v *VolumeSpec) { v.Failback.Policy += "x" }, "after": func(v *VolumeSpec) { v.Failback.After++ },
		"path": func(v *VolumeSpec) { v.Exports[0].Path += "x" }, "match": func(v *VolumeSpec) { v.Exports[0].Clients[0].Match += "x" },
		"options": func(v *VolumeSpec) { v.Exports[0].Clients[0].Options = nil }, "owner": func(v *VolumeSpec) { v.Exports[0].Owner++ },
		"group": func(v *VolumeSpec) { v.Exports[0].Group++ }, "mode": func(v *VolumeSpec) { v.Exports[0].Mode++ },
	} {
		s := mustParseSpec(t, ExampleSpec())
		spoil(&s.Volumes[0])
		if len(Diff(mustParseSpec(t, ExampleSpec()), s)) == 0 {
			t.Errorf("%s: no difference was seen", name)
		}
	}
}
