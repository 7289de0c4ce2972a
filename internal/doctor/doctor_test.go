package doctor

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestRun runs all checks on this machine: whatever they find, they find something, in time and in order, and leave nothing behind.
func TestRun(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	data := t.TempDir()
	cfg := Config{
		Data: filepath.Join(data, "not", "yet"), Reserve: 1, Listen: ln.Addr().String(), NFS: []string{":2049"}, Portmap: true,
		Peers:     []Peer{{Name: "n2", Address: ln.Addr().String()}, {Name: "n3", Address: "127.0.0.1:1"}},
		Addresses: []Address{{Device: "no such device"}},
	}
	start := time.Now()
	results := Run(t.Context(), cfg)
	if took := time.Since(start); took > Limit+time.Second {
		t.Errorf("it took %v", took)
	}
	byID := make(map[string]Result)
	for i, r := range results {
		if r.ID != checks[i].id || r.Name == "" || r.Found == "" || !slices.Contains(severity, r.Status) {
			t.Errorf("result %d is %+v", i, r)
		}
		if (r.Status == Warning || r.Status == Problem) && r.Advice == "" {
			t.Errorf("%s is a %s without advice", r.ID, r.Status)
		}
		if strings.Contains(r.Found, "%!") || strings.Contains(r.Advice, "%!") {
			t.Errorf("%s is badly formatted: %q %q", r.ID, r.Found, r.Advice)
		}
		byID[r.ID] = r
	}
	if len(byID) != len(checks) {
		t.Errorf("%d checks have %d names", len(checks), len(byID))
	}
	for id, want := range map[string]Status{"peers": Problem, "ports": Problem, "addresses": Problem, "inodes": OK} {
		if got := byID[id]; got.Status != want {
			t.Errorf("%s is %s (%s), want %s", id, got.Status, got.Found, want)
		}
	}
	if f := byID["peers"].Found; !strings.Contains(f, "n3 refuses") {
		t.Errorf("peers: %s", f)
	}
	if f := byID["ports"].Found; !strings.Contains(f, "doctor.test") {
		t.Errorf("ports: %s", f)
	}
	if left, err := os.ReadDir(data); err != nil || len(left) != 0 {
		t.Errorf("left in the data folder: %v, %v", left, err)
	}

	b, err := json.Marshal(Result{ID: "clock", Name: "Clock", Status: OK, Found: "x", Took: 5})
	if want := `{"id":"clock","name":"Clock","status":"ok","found":"x","took_ns":5}`; err != nil || string(b) != want {
		t.Errorf("JSON is %s, %v", b, err)
	}
}

// TestNothingKnown checks that a machine of which nothing is known yet can be looked at.
func TestNothingKnown(t *testing.T) {
	for _, r := range Run(t.Context(), Config{}) {
		if slices.Contains([]string{"filesystem", "space", "inodes", "fsync", "ports", "firewall", "peers", "mtu", "addresses"}, r.ID) && r.Status != Skipped {
			t.Errorf("%s is %s: %s", r.ID, r.Status, r.Found)
		}
	}
}

// TestHang checks that a check that does not return holds up nothing, and that others hear that their time is over.
func TestHang(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	h := &host{root: t.TempDir(), limit: 500 * time.Millisecond}
	got := run(t.Context(), h, &Config{}, []check{
		{"hangs", "Hangs", func(context.Context, *host, *Config) []finding { <-hang; return nil }},
		{"waits", "Waits", func(ctx context.Context, _ *host, _ *Config) []finding { <-ctx.Done(); return []finding{fine("done")} }},
	})
	if got[0].Status != Problem || got[0].Advice == "" || got[1].Status != OK {
		t.Errorf("results are %+v", got)
	}
}

func TestSum(t *testing.T) {
	tests := []struct {
		in   []finding
		want Result
	}{
		{[]finding{fine("a."), fine("b.")}, Result{Status: OK, Found: "a. b."}},
		{[]finding{fine("a."), skip("b.")}, Result{Status: OK, Found: "a. b."}},
		{[]finding{skip("b.")}, Result{Status: Skipped, Found: "b."}},
		{[]finding{fine("a."), {Warning, "w.", "do w."}, {Problem, "p.", "do p."}}, Result{Status: Problem, Found: "p. w.", Advice: "do p. do w."}},
		{[]finding{{OK, "a.", "note."}, {Warning, "w.", "do."}, {Warning, "v.", "do."}}, Result{Status: Warning, Found: "w. v. a.", Advice: "do. note."}},
	}
	for _, tt := range tests {
		var got Result
		if got.sum(tt.in); got != tt.want {
			t.Errorf("%+v sum up to %+v, want %+v", tt.in, got, tt.want)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 bytes", 1023: "1023 bytes", 1 << 10: "1.0 KiB", 1536: "1.5 KiB", 8 << 40: "8.0 TiB", 252 << 30: "252 GiB"} {
		if got := size(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}

// fakeHost has the given files below /proc and /sys, and no commands.
func fakeHost(t *testing.T, files map[string]string) *host {
	h := &host{root: t.TempDir(), limit: Limit, command: func(context.Context, string, ...string) (string, error) { return "", exec.ErrNotFound }}
	for name, content := range files {
		path := h.path(name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		target, isLink := strings.CutPrefix(content, "-> ")
		err := error(nil)
		if isLink {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return h
}
