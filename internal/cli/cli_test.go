package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"holdfast/internal/api"
	"holdfast/internal/config"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares text with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (run with -update if that is right):\n%s", path, diff)
	}
}

// fakeNode answers what the test tells it to.
type fakeNode struct {
	status   api.Status
	check    api.CheckResult
	transfer api.TransferResult
	err      error
}

func (f *fakeNode) Status(context.Context) api.Status { return f.status }

func (f *fakeNode) Check(context.Context, string) (api.CheckResult, error) { return f.check, f.err }

func (f *fakeNode) Transfer(context.Context, string, string) (api.TransferResult, error) {
	return f.transfer, f.err
}

// serve makes f answer on a socket and returns the data folder.
func serve(t *testing.T, f *fakeNode) string {
	t.Helper()
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- api.Serve(ctx, dir, f, slog.New(slog.NewTextHandler(io.Discard, nil))) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for {
		if _, err := api.NewClient(dir).Status(context.Background()); err == nil {
			return dir
		}
	}
}

// run runs a command line.
func run(args ...string) (code int, out, errOut string) {
	var o, e bytes.Buffer
	code = Main("v1.2.3", args, &o, &e)
	return code, o.String(), e.String()
}

func leaderStatus() api.Status {
	return api.Status{
		Cluster: "holdfast", Node: "a", ID: 1, Version: "v1.2.3", Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), RSSBytes: 61 << 20,
		Nodes: []api.NodeStatus{
			{Name: "a", ID: 1, Peer: "10.94.0.11:7400", State: api.NodeSelf},
			{Name: "b", ID: 2, Peer: "10.94.0.12:7400", State: api.NodeAnswers},
			{Name: "c", ID: 3, Peer: "10.94.0.13:7400", State: api.NodeSilent},
		},
		Volumes: []api.VolumeStatus{{
			Name: "main", ID: 1, Address: "10.94.0.100:2049", Role: "leader", Leader: "a", Term: 7, Commit: 1200, Applied: 1199, First: 100, Last: 1201,
			Serving: true, LeaseMS: 150, Exports: []string{"/data", "/home"},
			Replicas: []api.ReplicaStatus{
				{Node: "a", ID: 1, Role: "leader", Match: 1201, Active: true, InSync: true},
				{Node: "b", ID: 2, Role: "follower", Match: 1100, Lag: 101, Active: true},
				{Node: "c", ID: 3, Role: "follower", Match: 90, Lag: 1111},
				{Node: "d", ID: 4, Role: "follower", Active: true, Snapshot: true},
			},
			Clients: []api.ClientStatus{{ID: "0000000000000001", Owner: "Linux NFSv4.2 ws1\x1b[2Jevil" + strings.Repeat("x", 60), Address: "10.94.0.50:872", Sessions: 1, Opens: 3, Locks: 2}},
			Space:   api.SpaceStatus{FreeBytes: 10 << 30, TotalBytes: 100 << 30, Full: true},
			Log:     api.LogStatus{Segments: 3, Bytes: 192 << 20, LastSyncUS: 850},
		}},
		Warnings: []string{"volume main: node c does not answer: its copy falls behind. Start it, or look at its network"},
	}
}

var upRE = regexp.MustCompile(`up [0-9hms]+,`)

func TestStatusOutput(t *testing.T) {
	follower := api.Status{Node: "b", ID: 2, Started: time.Now(), Nodes: []api.NodeStatus{{Name: "b", ID: 2, State: api.NodeSelf}, {Name: "a", ID: 1, State: api.NodeUnknown}},
		Volumes: []api.VolumeStatus{{Name: "main", Role: "follower"}}}
	for name, s := range map[string]api.Status{"leader": leaderStatus(), "follower": follower} {
		t.Run(name, func(t *testing.T) {
			dir := serve(t, &fakeNode{status: s})
			code, out, errOut := run("status", "--data", dir)
			if code != ExitOK || errOut != "" {
				t.Fatalf("exit code %d, %s", code, errOut)
			}
			golden(t, "status-"+name+".txt", upRE.ReplaceAllString(out, "up TIME,"))
			code, out, errOut = run("status", "--data", dir, "-o", "json")
			if code != ExitOK || errOut != "" {
				t.Fatalf("exit code %d, %s", code, errOut)
			}
			var got api.Status
			if err := json.Unmarshal([]byte(out), &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(s, got); diff != "" {
				t.Errorf("JSON: %s", diff)
			}
			if name == "leader" {
				golden(t, "status-leader.json", out)
			}
		})
	}
}

// TestStatusKeys pins the names that programs read.
func TestStatusKeys(t *testing.T) {
	dir := serve(t, &fakeNode{status: leaderStatus()})
	_, out, _ := run("status", "--data", dir, "-o", "json")
	var s struct {
		Volumes []map[string]any `json:"volumes"`
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"leader", "role", "term", "commit_index", "applied_index", "lease_ms", "serving", "replicas", "clients", "space"} {
		if _, ok := s.Volumes[0][key]; !ok {
			t.Errorf("no key %s", key)
		}
	}
}

func TestCheck(t *testing.T) {
	equal := api.CheckResult{Volume: "main", Equal: true, Replicas: []api.ReplicaDigest{{Node: "a", Index: 9, Digest: "ab"}, {Node: "b", Index: 9, Digest: "ab"}}}
	differ := api.CheckResult{Volume: "main", Replicas: []api.ReplicaDigest{{Node: "a", Index: 9, Digest: "ab"}, {Node: "b", Index: 9, Digest: "cd"}}}
	missing := api.CheckResult{Volume: "main", Replicas: []api.ReplicaDigest{{Node: "a", Index: 9, Digest: "ab"}, {Node: "b", Error: "does not answer"}}, Missing: []string{"b"}}
	for _, tt := range []struct {
		name string
		node fakeNode
		code int
		err  string
	}{
		{"equal", fakeNode{check: equal}, ExitOK, ""},
		{"differ", fakeNode{check: differ}, ExitUnequal, "replicas differ"},
		{"missing", fakeNode{check: missing}, ExitFailed, "no digest from b"},
		{"not-the-leader", fakeNode{err: api.Errorf(http.StatusConflict, "volume main is led by node b: ask there")}, ExitFailed, "is led by node b"},
		{"no-volume", fakeNode{err: api.Errorf(http.StatusNotFound, "there is no volume %q on this node", "main")}, ExitFailed, "no volume"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := serve(t, &tt.node)
			code, out, errOut := run("check", "main", "--data", dir)
			if code != tt.code || !strings.Contains(errOut, tt.err) || (errOut == "") != (tt.err == "") {
				t.Errorf("exit code %d, want %d; %q", code, tt.code, errOut)
			}
			golden(t, "check-"+tt.name+".txt", out)
			code, out, _ = run("check", "main", "--data", dir, "-o", "json")
			if code != tt.code {
				t.Errorf("with -o json the exit code is %d, want %d", code, tt.code)
			}
			if tt.node.err == nil {
				var got api.CheckResult
				if err := json.Unmarshal([]byte(out), &got); err != nil || cmp.Diff(tt.node.check, got) != "" {
					t.Errorf("JSON %s: %v", out, err)
				}
			}
		})
	}
}

func TestTransfer(t *testing.T) {
	ok := api.TransferResult{Volume: "main", From: "a", To: "b", Seconds: 0.0312}
	for _, tt := range []struct {
		name     string
		err      error
		code     int
		out, msg string
	}{
		{"done", nil, ExitOK, "volume main: a handed over to b in 31 ms\n", ""},
		{"unknown node", api.Errorf(http.StatusBadRequest, "there is no node %q in the configuration", "z"), ExitUsage, "", `no node "z"`},
		{"not the leader", api.Errorf(http.StatusConflict, "is led by node b"), ExitFailed, "", "is led by node b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := leaderStatus()
			dir := serve(t, &fakeNode{status: s, transfer: ok, err: tt.err})
			for _, name := range []string{"transfer", "move"} {
				code, out, errOut := run(name, "--to", "b", "--data", dir) // the only volume need not be named
				if code != tt.code || out != tt.out || !strings.Contains(errOut, tt.msg) {
					t.Errorf("%s: exit code %d, want %d; %q %q", name, code, tt.code, out, errOut)
				}
			}
		})
	}
}

func TestWhichVolume(t *testing.T) {
	s := leaderStatus()
	s.Volumes = append(s.Volumes, api.VolumeStatus{Name: "other"})
	dir := serve(t, &fakeNode{status: s})
	code, _, errOut := run("check", "--data", dir)
	if code != ExitUsage || !strings.Contains(errOut, "main, other") {
		t.Errorf("exit code %d, %q", code, errOut)
	}
}

// TestExitCodes goes through command lines that fail, each with the code that the help promises and a word of what to do.
func TestExitCodes(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good.yaml", config.Example())
	before, _, _ := strings.Cut(config.Example(), "tick: 20ms")
	tick := fmt.Sprintf("bad.yaml:%d:9: timing.tick: ", 1+strings.Count(before, "\n"))
	bad := file("bad.yaml", strings.Replace(config.Example(), "tick: 20ms", "tick: 20 parsecs", 1))
	typo := file("typo.yaml", strings.Replace(config.Example(), "exports:", "export:", 1))
	for _, tt := range []struct {
		args []string
		code int
		out  string
		err  string
	}{
		{[]string{}, ExitOK, "holdfast demo", ""},
		{[]string{"--version"}, ExitOK, "v1.2.3", ""},
		{[]string{"frobnicate"}, ExitUsage, "", `unknown command "frobnicate"`},
		{[]string{"status", "--frob"}, ExitUsage, "", "unknown flag: --frob"},
		{[]string{"status", "extra"}, ExitUsage, "", "extra"},
		{[]string{"status", "-o", "xml"}, ExitUsage, "", `unknown output format "xml"`},
		{[]string{"status", "--data", dir}, ExitFailed, "", "no node is running on " + dir},
		{[]string{"check", "--data", dir}, ExitFailed, "", "no node is running on " + dir},
		{[]string{"check", "main", "--data", dir}, ExitFailed, "", "no node is running on " + dir},
		{[]string{"transfer", "--data", dir}, ExitFailed, "", "no node is running on " + dir},
		{[]string{"serve", "--config", good, "--check"}, ExitOK, "no mistakes found; this is node a", ""},
		{[]string{"serve", "--config", good, "--node", "b", "--check"}, ExitOK, "this is node b", ""},
		{[]string{"serve", "--config", good, "--node", "x", "--check"}, ExitUsage, "", `no node is called "x"`},
		{[]string{"serve", "--config", bad, "--check"}, ExitUsage, "", tick},
		{[]string{"serve", "--config", bad}, ExitUsage, "", tick},
		{[]string{"serve", "--config", typo, "--check"}, ExitUsage, "", `"exports"`},
		{[]string{"serve", "--config", filepath.Join(dir, "none.yaml")}, ExitUsage, "", "none.yaml"},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			code, out, errOut := run(tt.args...)
			if code != tt.code || !strings.Contains(out, tt.out) || !strings.Contains(errOut, tt.err) || (errOut == "") != (tt.err == "") {
				t.Errorf("exit code %d, want %d\nstdout: %s\nstderr: %s\nwant %q", code, tt.code, out, errOut, tt.err)
			}
			if errOut != "" && !strings.HasPrefix(errOut, "holdfast: ") {
				t.Errorf("stderr: %q", errOut)
			}
		})
	}
}

// TestHelp wants of every command a summary, an example that begins with the program's name, and its exit codes.
func TestHelp(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		t.Run(c.CommandPath(), func(t *testing.T) {
			if c.Short == "" || c.Long == "" || !strings.Contains(c.Example, "holdfast ") {
				t.Errorf("short %q, long %q, example %q", c.Short, c.Long, c.Example)
			}
			if c.Runnable() && !strings.Contains(c.Long, "Exit code:") {
				t.Error("no word about exit codes")
			}
			args := append(strings.Fields(c.CommandPath())[1:], "--help")
			code, out, errOut := run(args...)
			if code != ExitOK || errOut != "" || !strings.Contains(out, "Examples:") || !strings.Contains(out, strings.TrimSpace(c.Example)) {
				t.Errorf("--help: exit code %d, %q\n%s", code, errOut, out)
			}
		})
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot("v1.2.3", io.Discard, io.Discard))
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":                      "",
		"Linux NFSv4.2 ws":      "Linux NFSv4.2 ws",
		"a\x1b[31mb\n\x00":      "a?[31mb??",
		"\xff\xfe":              "��",
		strings.Repeat("ü", 41): strings.Repeat("ü", 39) + "…",
		strings.Repeat("ü", 40): strings.Repeat("ü", 40),
		"right\u202eto-left":    "right?to-left",
	} {
		if got := printable(in); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
}

func TestBytesText(t *testing.T) {
	for in, want := range map[uint64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1 << 20: "1.0 MiB", 5 << 30: "5.0 GiB", 1<<64 - 1: "16.0 EiB",
	} {
		if got := bytesText(in); got != want {
			t.Errorf("%d is shown as %q, want %q", in, got, want)
		}
	}
}

func TestLogger(t *testing.T) {
	l := newLogger(config.Log{Level: "warn", Format: "json"})
	if l.Enabled(context.Background(), slog.LevelInfo) || !l.Enabled(context.Background(), slog.LevelWarn) {
		t.Error("level warn is not kept")
	}
	if _, ok := l.Handler().(*slog.JSONHandler); !ok {
		t.Errorf("handler %T", l.Handler())
	}
}
