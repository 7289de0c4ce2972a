package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/internal/api"
)

// freePort returns a port of the loopback address that nobody has now.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// TestLive types what makes a cluster of two data nodes and a witness, rehearses a failover in it, and takes it through what operators do, with the nodes as they are.
func TestLive(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three nodes and writes for seconds: not with -short")
	}
	ctx, cancel := context.WithCancel(context.Background())
	dir := t.TempDir()
	data := func(name string) string { return filepath.Join(dir, name) }
	ended := make(chan string, 3)
	nodes := 0
	t.Cleanup(func() {
		cancel()
		for range nodes {
			if text := <-ended; text != "" {
				t.Error(text)
			}
		}
	})
	serve := func(name, at string) {
		nodes++
		go func() {
			code, out, errOut := runContext(ctx, strings.NewReader(""), "serve", "--data", data(name), "--listen", at)
			if code != ExitOK {
				ended <- fmt.Sprintf("node %s: exit code %d: %s%s", name, code, out, errOut)
				return
			}
			ended <- ""
		}()
	}
	must := func(args ...string) string {
		t.Helper()
		code, out, errOut := run(args...)
		if code != ExitOK {
			t.Fatalf("%q: exit code %d: %s%s", args, code, out, errOut)
		}
		return out
	}
	// await runs a command until it ends with 0.
	await := func(args ...string) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; {
			code, out, errOut := run(args...)
			if code == ExitOK {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%q: exit code %d: %s%s", args, code, out, errOut)
			}
			pause(ctx, 50*time.Millisecond)
		}
	}
	first := freePort(t)
	must("init", "--data", data("a"), "--name", "a", "--peer", first, "--cluster", "office")
	serve("a", first)
	await("status", "--data", data("a"))
	for _, n := range []struct{ name, role string }{{"b", "data"}, {"w", "witness"}} {
		var token api.TokenResult
		if err := json.Unmarshal([]byte(must("node", "add", "--role", n.role, "--data", data("a"), "-o", "json")), &token); err != nil {
			t.Fatal(err)
		}
		at := freePort(t)
		must("join", token.Address, "--token", token.Token, "--data", data(n.name), "--name", n.name, "--peer", at)
		serve(n.name, at)
		await("node", "list", "--data", data(n.name)) // its status is not all well as long as two nodes vote
	}
	must("volume", "create", "main", "--data", data("b"), "--listen", freePort(t), "--export", "/data", "--client", "127.0.0.1:rw,no_root_squash", "--reserve", "1MiB")
	await("status", "--data", data("w"))

	var drill rehearsal
	if err := json.Unmarshal([]byte(must("drill", "main", "--back", "--calm", "300ms", "--data", data("w"), "-o", "json")), &drill); err != nil {
		t.Fatal(err)
	}
	if len(drill.Outages) != 2 || drill.Outages[0].To != drill.Outages[1].From || drill.Writes < 10 || !drill.OK {
		t.Errorf("%+v", drill)
	}
	t.Logf("outages %.0f and %.0f ms", drill.Outages[0].OutageMS, drill.Outages[1].OutageMS)

	if out := must("roll", "--run", "test {node} != x", "--data", data("w")); strings.Count(out, "it was not restarted") != 3 {
		t.Error(out)
	}
	if code, _, errOut := run("roll", "--run", "exit 7", "--only", "b", "--data", data("w")); code != ExitFailed || !strings.Contains(errOut, "exit status 7; the node is in standby") {
		t.Errorf("exit code %d, %s", code, errOut)
	}
	must("unstandby", "b", "--data", data("w"))
	if code, _, errOut := run("roll", "--run", "true", "--only", "z", "--data", data("w")); code != ExitUsage || !strings.Contains(errOut, `no node "z"`) {
		t.Errorf("exit code %d, %s", code, errOut)
	}

	must("drain", "a", "--data", data("w"))
	var s api.Status
	if err := json.Unmarshal([]byte(firstOf(run("status", "--data", data("w"), "-o", "json"))), &s); err != nil {
		t.Fatal(err)
	}
	if s.Volumes[0].Leader != "b" {
		t.Errorf("after the drain, %s leads", s.Volumes[0].Leader)
	}
	if code, _, errOut := run("node", "remove", "b", "--data", data("a")); code != ExitFailed || !strings.Contains(errOut, "--force") {
		t.Errorf("exit code %d, %s", code, errOut)
	}
	must("unstandby", "a", "--data", data("b"))
	await("check", "main", "--data", data("a"))
	must("node", "remove", "w", "--force", "--data", data("a"))
	if out := must("node", "list", "--data", data("a")); strings.Contains(out, "witness") {
		t.Error(out)
	}
	must("volume", "delete", "main", "--yes=main", "--data", data("a"))
}

// firstOf returns what a command printed, however it ended.
func firstOf(_ int, out, _ string) string { return out }
