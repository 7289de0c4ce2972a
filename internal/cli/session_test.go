package cli

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/config"
	"holdfast/internal/doctor"
)

// The tests here type what a person types, against a node with the cluster's real state machine, and keep what is printed in testdata.

func TestVolumes(t *testing.T) {
	f := newFake(t)
	s := newSession(f)
	s.run(ExitOK, "volume", "list")
	s.run(ExitUsage, "volume", "create", "main")
	s.run(ExitUsage, "volume", "create", "main", "--address", "10.0.0.50")
	s.run(ExitUsage, "volume", "create", "main", "--address", "10.0.0.0/24")
	s.run(ExitUsage, "volume", "create", "main", "--address", "10.0.0.255/24")
	s.run(ExitUsage, "volume", "create", "main", "--address", "127.0.0.1/8")
	s.run(ExitUsage, "volume", "create", "main", "--address", "10.0.0.50/24", "--node-port", "111")
	s.run(ExitUsage, "volume", "create", "main", "--listen", "224.0.0.1:2049")
	s.run(ExitUsage, "volume", "create", "main", "--address", "10.0.0.50/24", "--copies", "4", "--failback", "auto")
	s.run(ExitUsage, "volume", "create", "main", "--address", "10.0.0.50/24", "--export", "/data")
	s.run(ExitOK, "volume", "create", "main", "--address", "10.0.0.50/24", "--export", "/data", "--clients", "10.0.0.0/24:rw,no_root_squash", "--client", "fd00::/64:ro")
	s.run(ExitFailed, "volume", "create", "main", "--address", "10.0.0.51/24")
	s.run(ExitFailed, "volume", "create", "other", "--address", "10.0.0.50/24")
	s.run(ExitFailed, "volume", "create", "other", "--address", "10.0.0.51/24", "--nodes", "a,z")
	s.run(ExitOK, "volume", "create", "db", "--address", "fd00::5/64", "--device", "eth1", "--nodes", "c", "--size", "2TiB", "--reserve", "2GiB", "--no-wait")
	s.run(ExitOK, "volume", "create", "local", "--listen", "127.0.0.1:20490", "--copies", "1")
	s.run(ExitOK, "volume", "list")
	s.run(ExitOK, "volume", "set", "main", "--prefer", "b,a", "--failback", "auto", "--failback-after", "10m", "--size", "1TiB", "--node-port", "12049")
	s.run(ExitOK, "volume", "set", "main", "--prefer", "b,a")
	s.run(ExitOK, "volume", "set", "main", "--address", "10.0.0.60/24")
	s.run(ExitUsage, "volume", "set", "main", "--reserve", "lots")
	s.run(ExitFailed, "volume", "set", "none", "--copies", "1")
	s.run(ExitOK, "volume", "resize", "main", "+512GiB")
	s.run(ExitOK, "volume", "resize", "main", "none")
	s.run(ExitUsage, "volume", "resize", "main", "+1GiB")
	s.run(ExitUsage, "volume", "resize", "main", "-1GiB")
	s.run(ExitUsage, "volume", "resize", "main", "--", "-1GiB")
	s.run(ExitUsage, "volume", "resize", "main", "-x")
	s.run(ExitUsage, "volume", "resize", "main", "0")
	s.run(ExitUsage, "volume", "set", "main", "--copies", "0")
	s.run(ExitUsage, "volume", "set", "main", "--copies", "4")
	f.tweakWith(func(s *api.Status) {
		v := &s.Volumes[0]
		v.Safety, v.Space.Full, v.Space.Low, v.AddressProblem = api.SafetyReduced, true, []string{"b"}, "no device is in the network 10.0.0.0/24"
		v.Replicas[1].InSync, v.Replicas[1].Active = false, false
		r := &v.Replicas[2]
		r.InSync, r.Learner, r.Snapshot, r.SentBytes, r.Rate, r.Remaining, r.Lag = false, true, true, 3<<30, 110<<20, 75, 1201
		v.Clients = []api.ClientStatus{{ID: "1", Owner: "Linux NFSv4.2 ws1\x1b[2Jevil" + strings.Repeat("x", 60), Address: "10.94.0.50:872", Sessions: 1, Opens: 3, Locks: 2}}
	})
	s.run(ExitOK, "volume", "show", "main")
	s.run(ExitUsage, "volume", "show")
	s.run(ExitFailed, "volume", "show", "none")
	s.run(ExitUsage, "volume", "delete", "db")
	s.run(ExitUsage, "volume", "delete", "db", "--yes=main")
	s.run(ExitOK, "volume", "delete", "db", "--yes=db")
	s.run(ExitFailed, "volume", "delete", "db", "--yes=db")
	f.tweakWith(func(s *api.Status) {
		s.Volumes[len(s.Volumes)-1].AddressProblem = "no device is in the network 10.9.0.0/24"
	})
	s.run(ExitFailed, "volume", "create", "lost", "--address", "10.9.0.1/24")
	golden(t, "volumes.txt", s.text.String())
}

func TestExports(t *testing.T) {
	s := newSession(newFake(t))
	s.run(ExitOK, "volume", "create", "main", "--address", "10.0.0.50/24")
	s.run(ExitOK, "export", "list")
	s.run(ExitUsage, "export", "add", "main", "/home")
	s.run(ExitUsage, "export", "add", "main", "/home", "--client", "10.0.0.0/24:rx")
	s.run(ExitUsage, "export", "add", "main", "home", "--client", "*")
	s.run(ExitOK, "export", "add", "main", "/home", "--client", "10.0.0.0/24:rw", "--client", "*.example.com(ro,all_squash)", "--owner", "100", "--mode", "1777")
	s.run(ExitFailed, "export", "add", "main", "/home", "--client", "*")
	s.run(ExitUsage, "export", "add", "main", "/home/x", "--client", "*")
	s.run(ExitOK, "export", "add", "main", "/iso", "--client", "*")
	s.run(ExitFailed, "export", "add", "none", "/iso", "--client", "*")
	s.run(ExitOK, "export", "set", "main", "/home", "--add-client", "10.0.0.7:rw,no_root_squash", "--remove-client", "*.example.com")
	s.run(ExitUsage, "export", "set", "main", "/home", "--remove-client", "10.0.0.8")
	s.run(ExitOK, "export", "set", "main", "/iso", "--client", "10.0.0.0/24", "--group", "7")
	s.run(ExitFailed, "export", "set", "main", "/none", "--client", "*")
	s.run(ExitOK, "export", "list", "main")
	s.run(ExitOK, "export", "remove", "main", "/iso")
	s.run(ExitFailed, "export", "remove", "main", "/iso")
	s.run(ExitOK, "export", "list", "-o", "json")
	golden(t, "exports.txt", s.text.String())
}

// TestConflict has somebody else change the configuration between what a command reads and what it writes.
func TestConflict(t *testing.T) {
	for _, tt := range []struct {
		name   string
		others int // how often somebody is quicker
		code   int
	}{{"once", 1, ExitOK}, {"always", 100, ExitFailed}} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			s := newSession(f)
			s.run(ExitOK, "volume", "create", "main", "--address", "10.0.0.50/24")
			left := tt.others
			zone := ""
			f.runBefore(func(cluster.Command) {
				if left--; left < 0 {
					return
				}
				zone += "x"
				f.must(cluster.Command{SetNode: &cluster.SetNode{Name: "a", Zone: &zone}})
			})
			s.run(tt.code, "export", "add", "main", "/data", "--client", "*")
			if tt.code == ExitOK && len(f.machine.State().Volume("main").Spec.Exports) != 1 {
				t.Error("the export is not there")
			}
			if tt.code != ExitOK && !strings.Contains(s.text.String(), "by somebody else") {
				t.Error(s.text.String())
			}
		})
	}
}

func TestNodes(t *testing.T) {
	f := newFake(t, "a", "b", "c", "d")
	s := newSession(f)
	s.run(ExitOK, "volume", "create", "main", "--address", "10.0.0.50/24")
	s.run(ExitOK, "node", "list")
	s.run(ExitOK, "node", "add")
	s.run(ExitOK, "node", "add", "--role", "witness", "--lifetime", "24h")
	s.run(ExitUsage, "node", "add", "--role", "chief")
	s.run(ExitUsage, "node", "add", "--lifetime", "0s")
	s.run(ExitFailed, "node", "replace", "d") // it is well
	s.run(ExitOK, "node", "replace", "d", "--force")
	s.run(ExitFailed, "node", "replace", "a")
	s.run(ExitOK, "node", "replace", "a", "--force") // the machine cannot join at the node that goes
	f.tweakWith(func(s *api.Status) { s.Nodes[3].State = api.NodeSilent })
	s.run(ExitOK, "node", "replace", "d")
	f.tweakWith(func(s *api.Status) { s.Nodes[3].State = api.NodeExpired }) // it was away for too long
	s.run(ExitOK, "node", "replace", "d")
	s.run(ExitFailed, "node", "replace", "z")
	f.tweakWith(func(s *api.Status) {
		s.Nodes[1].State, s.Nodes[2].State = api.NodeSilent, api.NodeSilent
		s.Volumes[0].Leader, s.Volumes[0].Serving = "", false
	})
	s.run(ExitFailed, "node", "replace", "c")
	s.run(ExitOK, "node", "replace", "c", "--force")
	s.run(ExitOK, "node", "replace", "a", "--force")
	f.tweakWith(nil)
	s.run(ExitFailed, "node", "remove", "z")
	s.run(ExitOK, "node", "remove", "b")
	s.run(ExitOK, "node", "remove", "c", "--force", "--no-wait")
	s.run(ExitOK, "node", "remove", "a", "--force") // the node that answers
	s.run(ExitOK, "node", "list")
	text := s.text.String()
	for _, token := range f.machine.State().Tokens {
		text = strings.ReplaceAll(text, token.ID, "TOKENID")
	}
	golden(t, "nodes.txt", text)
}

func TestRemovalRefused(t *testing.T) {
	s := newSession(newFake(t))
	s.run(ExitOK, "volume", "create", "main", "--address", "10.0.0.50/24")
	s.run(ExitFailed, "node", "remove", "b")
	if !strings.Contains(s.text.String(), "--force") {
		t.Error(s.text.String())
	}
}

func TestTokens(t *testing.T) {
	f := newFake(t)
	f.now = time.Now().Truncate(time.Second)
	s := newSession(f)
	s.run(ExitOK, "token", "list")
	s.run(ExitOK, "token", "create", "-o", "json")
	id := f.machine.State().Tokens[0].ID
	s.run(ExitOK, "token", "list")
	if out := s.run(ExitOK, "token", "list", "-o", "json"); !strings.Contains(out, `"id"`) || strings.Contains(out, "hash") {
		t.Errorf("a token is shown as %s", out)
	}
	s.run(ExitOK, "token", "remove", id)
	s.run(ExitFailed, "token", "remove", id)
	text := strings.ReplaceAll(s.text.String(), id, "TOKENID")
	// The time of day is the machine's.
	for _, layout := range []string{"2006-01-02 15:04:05", time.RFC3339} {
		for second := range 10 {
			text = strings.ReplaceAll(text, f.now.Add(time.Hour-5*time.Second+time.Duration(second)*time.Second).UTC().Format(layout), "TIME")
		}
	}
	golden(t, "tokens.txt", text)
}

func TestStatus(t *testing.T) {
	f := newFake(t, "a", "b", "c", "w")
	s := newSession(f)
	s.run(ExitOK, "status")
	s.run(ExitOK, "volume", "create", "main", "--address", "10.0.0.50/24", "--size", "1TiB")
	s.run(ExitOK, "volume", "create", "db", "--address", "10.0.0.51/24", "--nodes", "a,b")
	s.run(ExitOK, "status")
	s.run(ExitOK, "maintenance", "on", "--for", "1h", "--why", "new switches")
	f.must(cluster.Command{SetMaintenance: &cluster.SetMaintenance{On: true, Until: began.Add(time.Hour), Why: "new switches"}})
	s.run(ExitOK, "status")
	s.run(ExitOK, "maintenance", "off")
	f.tweakWith(func(s *api.Status) { s.Warnings = []string{"node b: its certificate ends in 3 days. Look at its log"} })
	s.run(ExitAttention, "status")
	f.tweakWith(func(s *api.Status) { s.Nodes[2].State = api.NodeSilent })
	s.run(ExitAttention, "status")
	f.tweakWith(func(s *api.Status) { s.ClusterLeader = "" })
	s.run(ExitAttention, "status")
	f.tweakWith(func(s *api.Status) {
		v := &s.Volumes[0]
		s.Nodes[2].State = api.NodeSilent
		s.Warnings = []string{"volume main: node c does not answer: its copy falls behind. Start it, or look at its network"}
		v.Safety, v.Replicas[2].Active, v.Replicas[2].InSync, v.Replicas[2].Lag = api.SafetyReduced, false, false, 1111
		v.Replicas[1].InSync, v.Replicas[1].Lag, v.Replicas[1].Rate = false, 101, 5<<20
	})
	s.run(ExitAttention, "status")
	f.tweakWith(func(s *api.Status) {
		v := &s.Volumes[1]
		v.Safety, v.OneCopy, v.Replicas[1].Active, v.Replicas[1].InSync, v.Replicas[2].Active = api.SafetyNone, true, false, false, false
	})
	s.run(ExitAttention, "status")
	f.tweakWith(func(s *api.Status) {
		s.ClusterLeader = ""
		for i := range s.Volumes {
			v := &s.Volumes[i]
			v.Safety, v.Leader, v.Serving, v.Replicas = api.SafetyDown, "", false, nil
		}
		s.Nodes[1].State, s.Nodes[2].State, s.Nodes[3].State = api.NodeSilent, api.NodeSilent, api.NodeUnknown
	})
	s.run(ExitAttention, "status")
	f.tweakWith(func(s *api.Status) {
		s.Warnings = []string{"node c refuses this node's certificate: compare the clocks of both (`date`)"}
		s.Nodes[2].State = api.NodeRefuses
	})
	s.run(ExitAttention, "status")
	f.tweakWith(func(s *api.Status) {
		s.Nodes[1].State, s.Nodes[2].State, s.Nodes[3].State = api.NodeExpired, api.NodeRefuses, api.NodeSilent
	})
	s.run(ExitAttention, "status")
	golden(t, "status.txt", s.text.String())
}

// TestStatusKeys pins the names that programs read.
func TestStatusKeys(t *testing.T) {
	f := newFake(t)
	offset := -1500 * time.Millisecond
	f.tweakWith(func(s *api.Status) {
		s.Started, s.Time = began, began.Add(time.Hour)
		s.Nodes[1].ClockOffset, s.Nodes[1].ClockUncertainty = &offset, time.Millisecond
	})
	s := newSession(f)
	s.run(ExitOK, "volume", "create", "main", "--address", "10.0.0.50/24")
	golden(t, "status.json", s.run(ExitOK, "status", "-o", "json"))
	golden(t, "volume-show.json", s.run(ExitOK, "volume", "show", "-o", "json"))
}

func TestApply(t *testing.T) {
	f := newFake(t)
	s := newSession(f)
	s.run(ExitOK, "volume", "create", "main", "--address", "10.0.0.50/24", "--export", "/data", "--client", "*:rw")
	s.run(ExitOK, "volume", "create", "old", "--address", "10.0.0.51/24")
	now := s.run(ExitOK, "export-config")
	s.in = now
	s.run(ExitOK, "diff", "-f", "-")
	s.run(ExitOK, "apply", "-f", "-")
	s.in = strings.Replace(now, "volumes:", "nodes:\n  - name: a\n    zone: rack1\nvolumes:", 1)
	s.run(ExitFailed, "diff", "-f", "-")
	s.run(ExitOK, "apply", "-f", "-")
	s.in = strings.Replace(s.in, "- name: old", "- name: new", 1)
	s.run(ExitUsage, "apply", "-f", "-")
	s.run(ExitOK, "apply", "-f", "-", "--delete", "--dry-run")
	s.run(ExitUsage, "apply", "-f", "-", "--delete")
	s.run(ExitOK, "apply", "-f", "-", "--delete", "--yes")
	s.run(ExitOK, "diff", "-f", "-", "-o", "json")
	good := s.in
	s.in = strings.Replace(good, "name: a\n", "name: aa\n", 1)
	s.run(ExitUsage, "apply", "-f", "-")
	s.in = strings.Replace(good, "office", "home", 1)
	s.run(ExitUsage, "apply", "-f", "-")
	s.in = "volumes: [{name: x}]"
	s.run(ExitUsage, "diff", "-f", "-")
	s.in = strings.NewReplacer("10.0.0.50/24", "10.0.0.255/24", "10.0.0.50:2049", "10.0.0.255:2049").Replace(now)
	s.run(ExitUsage, "diff", "-f", "-")
	s.in = strings.Replace(now, "  - name: main\n", "  - name: main\n    node_port: 7420\n    prefer: [x]\n", 1)
	s.run(ExitUsage, "diff", "-f", "-")
	s.run(ExitUsage, "apply", "-f", "-", "--dry-run")
	file := filepath.Join(t.TempDir(), "spec.yaml")
	if err := os.WriteFile(file, []byte(strings.Replace(good, `"*"`, "10.0.0.0/8", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	// Somebody else is quicker: what was shown is not what would happen.
	zone := "rack9"
	f.runBefore(func(cluster.Command) { f.must(cluster.Command{SetNode: &cluster.SetNode{Name: "b", Zone: &zone}}) })
	s.run(ExitFailed, "apply", "-f", file, "--yes")
	f.runBefore(nil)
	s.run(ExitOK, "apply", "-f", file, "--yes", "-o", "json")
	golden(t, "apply.txt", s.text.String())
}

func TestOperate(t *testing.T) {
	f := newFake(t)
	s := newSession(f)
	s.run(ExitOK, "volume", "create", "main", "--address", "10.0.0.50/24")
	s.run(ExitOK, "move", "main", "--to", "b")
	s.run(ExitOK, "move", "main", "--to", "b")
	s.run(ExitUsage, "volume", "resize", "main")
	s.run(ExitOK, "transfer", "--to", "c") // the only volume need not be named
	s.run(ExitUsage, "move", "--to", "z")
	s.run(ExitFailed, "move", "none")
	s.run(ExitOK, "standby", "c")
	s.run(ExitOK, "unstandby", "c")
	s.run(ExitFailed, "standby", "z")
	s.run(ExitOK, "drain", "a")
	s.run(ExitOK, "unstandby", "a", "-o", "json")
	// Only a is able to lead, so it cannot be put into standby without saying so.
	f.tweakWith(func(s *api.Status) {
		for i := range s.Volumes[0].Replicas {
			r := &s.Volumes[0].Replicas[i]
			if s.Volumes[0].Leader = "a"; r.Node != "a" {
				r.InSync = false
			}
		}
	})
	s.run(ExitFailed, "standby", "a")
	s.run(ExitOK, "standby", "a", "--force")
	s.run(ExitFailed, "drain", "a")
	s.run(ExitOK, "drain", "a", "--force")
	s.run(ExitFailed, "drain", "b")
	s.run(ExitOK, "drain", "b", "--force") // which makes nothing safer
	f.tweakWith(nil)
	s.run(ExitOK, "unstandby", "a")
	f.tweakWith(func(s *api.Status) { s.Volumes[0].Serving = false })
	s.run(ExitFailed, "drain", "b", "--timeout", "1s")
	f.tweakWith(nil)
	s.run(ExitOK, "explain")
	s.run(ExitFailed, "explain", "none")
	s.run(ExitUsage, "maintenance")
	s.run(ExitOK, "maintenance", "on")
	s.run(ExitOK, "maintenance", "off")
	s.run(ExitFailed, "drain", "c") // with b, which may be stopped as well
	s.run(ExitOK, "unstandby", "b")
	s.run(ExitOK, "drain", "c", "-o", "json")
	s.run(ExitOK, "events", "-n", "4")
	s.run(ExitOK, "events", "--volume", "main")
	s.run(ExitOK, "events", "--about-node", "c", "-n", "1", "-o", "json")
	s.run(ExitFailed, "events", "--volume", "nope")
	s.run(ExitFailed, "events", "--about-node", "zz", "--volume", "main", "-o", "json")
	s.run(ExitFailed, "events", "--about-node", "zz", "--follow")
	f.must(cluster.Command{Note: &cluster.Event{Kind: cluster.EventNode, Node: "gone", Volume: "old", Text: "was there"}})
	s.run(ExitOK, "events", "--about-node", "gone")
	s.run(ExitOK, "events", "--volume", "old")
	s.run(ExitOK, "events", "--volume", "old", "--about-node", "a") // both are there
	s.run(ExitFailed, "drill", "none")
	s.run(ExitFailed, "drill")
	s.run(ExitOK, "export", "add", "main", "/data", "--client", "*")
	s.run(ExitFailed, "drill", "main", "--export", "/nothing")
	golden(t, "operate.txt", s.text.String())
}

func TestCheck(t *testing.T) {
	equal := api.CheckResult{Volume: "main", Equal: true, Replicas: []api.ReplicaDigest{{Node: "a", Index: 9, Digest: "ab"}, {Node: "b", Index: 9, Digest: "ab"}}}
	differ := api.CheckResult{Volume: "main", Replicas: []api.ReplicaDigest{{Node: "a", Index: 9, Digest: "ab"}, {Node: "b", Index: 9, Digest: "cd"}}}
	missing := api.CheckResult{Volume: "main", Replicas: []api.ReplicaDigest{{Node: "a", Index: 9, Digest: "ab"}, {Node: "b", Error: "does not answer"}}, Missing: []string{"b"}}
	f := newFake(t)
	s := newSession(f)
	for _, tt := range []struct {
		res  api.CheckResult
		err  error
		code int
	}{
		{equal, nil, ExitOK},
		{differ, nil, ExitAttention},
		{missing, nil, ExitFailed},
		{api.CheckResult{}, api.Errorf(http.StatusConflict, "volume main has no leader: look at `holdfast status`"), ExitFailed},
	} {
		f.check, f.err = tt.res, tt.err
		s.run(tt.code, "check", "main")
		s.run(tt.code, "check", "main", "-o", "json")
	}
	golden(t, "check.txt", s.text.String())
}

func TestDoctor(t *testing.T) {
	f := newFake(t)
	s := newSession(f)
	f.results = []doctor.Result{{ID: "clock", Name: "Clock", Status: doctor.OK, Found: "it is right."}, {ID: "mtu", Name: "Packet sizes", Status: doctor.Skipped, Found: "there are no other nodes."}}
	s.run(ExitOK, "doctor")
	f.results = append(f.results, doctor.Result{ID: "space", Name: "Free space", Status: doctor.Problem, Found: "1.0 GiB is free.", Advice: "Make room."},
		doctor.Result{ID: "memory", Name: "Memory", Status: doctor.Warning, Found: "512 MiB.", Advice: "Add some."})
	s.run(ExitAttention, "doctor")
	s.run(ExitAttention, "doctor", "--all")
	s.run(ExitAttention, "doctor", "-o", "json")
	golden(t, "doctor.txt", s.text.String())
}

// TestDoctorAlone runs the checks themselves, where no node is.
func TestDoctorAlone(t *testing.T) {
	code, out, errOut := run("doctor", "--all", "--data", t.TempDir())
	if (code != ExitOK && code != ExitAttention) || errOut != "" || !strings.Contains(out, "File system of the data folder") {
		t.Errorf("exit code %d, %s%s", code, out, errOut)
	}
}

// TestFollow waits for an event that happens later.
func TestFollow(t *testing.T) {
	f := newFake(t)
	dir := f.serve()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seen := make(chan string, 100)
	o := &options{in: strings.NewReader(""), out: lines(seen), errOut: lines(seen), patience: time.Hour}
	done := make(chan int, 1)
	go func() { done <- execute(ctx, o, []string{"events", "--watch", "-n", "1", "--data", dir}) }()
	if first := <-seen; !strings.Contains(first, "node c: joins as node 3") {
		t.Errorf("first %q", first)
	}
	f.must(cluster.Command{SetMaintenance: &cluster.SetMaintenance{On: true}})
	if next := <-seen; !strings.Contains(next, "maintenance begins") {
		t.Errorf("next %q", next)
	}
	cancel()
	if code := <-done; code != ExitOK {
		t.Errorf("exit code %d", code)
	}
}

// lines sends what is written.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

func TestParseClient(t *testing.T) {
	for in, want := range map[string]string{
		"*":                         "* []",
		"*:ro":                      "* [ro]",
		"10.0.0.0/24:rw,anonuid=5":  "10.0.0.0/24 [rw anonuid=5]",
		"host.example.com:rw":       "host.example.com [rw]",
		"fd00::1":                   "fd00::1 []",
		"fd00::/64:rw,sec=sys":      "fd00::/64 [rw sec=sys]",
		"[fd00::1]:rw":              "fd00::1 [rw]",
		"fd00::1:rw":                "fd00::1 [rw]",
		"*.example.com(ro,nothing)": "error",
		"10.0.0.1(rw, sync)":        "10.0.0.1 [rw sync]",
		"10.0.0.1/24:rw":            "error",
		"":                          "error",
		":rw":                       "error",
		"@group:rw":                 "error",
	} {
		c, err := parseClient(in)
		got := c.Match + " [" + strings.Join(c.Options, " ") + "]"
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q is %s, want %s (%v)", in, got, want, err)
		}
		if err == nil {
			if again, err := parseClient(clientText(c)); err != nil || clientText(again) != clientText(c) {
				t.Errorf("%q is written as %q, which is %+v, %v", in, clientText(c), again, err)
			}
		}
	}
}

func TestComplete(t *testing.T) {
	f := newFake(t, "a", "b", "w")
	s := newSession(f)
	s.run(ExitOK, "volume", "create", "main", "--address", "10.0.0.50/24", "--export", "/data", "--client", "*")
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"move", ""}, "main\n:4\n"},
		{[]string{"move", "main", "--to", ""}, "a\nb\n:4\n"},
		{[]string{"drain", ""}, "a\nb\nw\n:4\n"},
		{[]string{"export", "set", "main", ""}, "/data\n:4\n"},
		{[]string{"node", "add", "--role", ""}, "data\nwitness\n:4\n"},
		{[]string{"status", ""}, ":4\n"},
	} {
		code, out, _ := run(append([]string{"__complete", "--data", s.dir}, tt.args...)...)
		if code != ExitOK || out != tt.want {
			t.Errorf("%q: %d, %q, want %q", tt.args, code, out, tt.want)
		}
	}
	// Without a node there are no names, and no error.
	if code, out, _ := run("__complete", "--data", t.TempDir(), "move", ""); code != ExitOK || out != ":4\n" {
		t.Errorf("%d, %q", code, out)
	}
}

// TestProgress looks at what a command says while it waits.
func TestProgress(t *testing.T) {
	f := newFake(t)
	dir := f.serve()
	var out, errOut strings.Builder
	polls := 0
	f.tweakWith(func(s *api.Status) {
		if polls++; polls < 3 && len(s.Volumes) > 0 {
			s.Volumes[0].Serving = false
		}
	})
	o := &options{in: strings.NewReader(""), out: &out, errOut: &errOut, poll: time.Millisecond}
	if code := execute(t.Context(), o, []string{"volume", "create", "main", "--address", "10.0.0.50/24", "--data", dir}); code != ExitOK {
		t.Fatal(code, errOut.String())
	}
	if want := "waiting until volume main is served\n"; !strings.HasSuffix(errOut.String(), want) {
		t.Errorf("%q, want %q", errOut.String(), want)
	}
	if strings.Contains(out.String(), "waiting") {
		t.Error(out.String())
	}
}

func TestLiveLine(t *testing.T) {
	var b strings.Builder
	p := &progress{w: &b, live: true}
	p.say("one")
	p.say("one")
	p.say("two")
	p.end()
	p.end()
	if want := "\r\x1b[Kone\r\x1b[Ktwo\r\x1b[K"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

// TestRemovalText says what a removal waits for.
func TestRemovalText(t *testing.T) {
	f := newFake(t, "a", "b", "c", "d")
	f.must(cluster.Command{AddVolume: &cluster.AddVolume{Spec: volumeAt("main", "10.0.0.50/24")}})
	f.must(cluster.Command{RemoveNode: &cluster.RemoveNode{Name: "b"}})
	before := f.machine.State()
	status := f.Status(t.Context(), false) // begins to move the copy
	state := f.machine.State()
	for i := range status.Volumes[0].Replicas {
		if r := &status.Volumes[0].Replicas[i]; r.Node == "d" {
			r.InSync, r.Learner, r.Snapshot, r.SentBytes, r.Rate, r.Remaining = false, true, true, 1<<30, 100<<20, 20
		}
	}
	pinned := "moving what node b keeps: volume main (no other node may keep it: add one, let others keep it with `holdfast volume set main --nodes`, or delete it)"
	if got := removalText(before, &api.Status{}, 2, "b"); got != pinned {
		t.Errorf("%q, want %q", got, pinned)
	}
	want := "moving what node b keeps: volume main: d receives a copy, 1.0 GiB so far, 100.0 MiB/s, 20 s left"
	if got := removalText(state, &status, 2, "b"); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func volumeAt(name, address string) config.VolumeSpec {
	v := config.NewVolume(name)
	v.Address.Kind = config.AddressIP
	if err := v.Address.IP.UnmarshalText([]byte(address)); err != nil {
		panic(err)
	}
	v.Complete()
	return v
}

// TestWatch shows the status again and again until it is interrupted, whatever the node does meanwhile.
func TestWatch(t *testing.T) {
	f := newFake(t)
	dir := f.serve()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seen := make(chan string, 100)
	o := &options{in: strings.NewReader(""), out: lines(seen), errOut: lines(seen), patience: time.Hour}
	done := make(chan int, 1)
	go func() { done <- execute(ctx, o, []string{"status", "--watch", "--data", dir}) }()
	for verdicts := 0; verdicts < 2; {
		if strings.HasPrefix(<-seen, "OK: ") {
			verdicts++
		}
	}
	cancel()
	if code := <-done; code != ExitOK {
		t.Errorf("exit code %d", code)
	}
}
