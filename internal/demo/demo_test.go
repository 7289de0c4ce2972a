package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/internal/loadgen"
)

// binary is the program, built once.
var binary string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "demo-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "holdfast")
	if out, err := exec.Command("go", "build", "-o", binary, "holdfast/cmd/holdfast").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// demoRun is a running `holdfast demo`.
type demoRun struct {
	t   *testing.T
	cmd *exec.Cmd
	dir string // where it makes its folder
	out bytes.Buffer
	err *bufio.Scanner
}

func startDemo(t *testing.T, args ...string) *demoRun {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	r := &demoRun{t: t, cmd: exec.CommandContext(ctx, binary, append([]string{"demo"}, args...)...), dir: t.TempDir()}
	r.cmd.Env = append(os.Environ(), "TMPDIR="+r.dir)
	r.cmd.Stdout = &r.out
	stderr, err := r.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.err = bufio.NewScanner(stderr)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return r
}

// await reads what is shown to people until a line has text in it.
func (r *demoRun) await(text string) {
	r.t.Helper()
	for r.err.Scan() {
		r.t.Log(r.err.Text())
		if strings.Contains(r.err.Text(), text) {
			return
		}
	}
	r.t.Fatalf("the demo ended without %q", text)
}

// end waits for the end and returns the exit code.
func (r *demoRun) end() int {
	r.t.Helper()
	for r.err.Scan() {
		r.t.Log(r.err.Text())
	}
	err := r.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	return r.cmd.ProcessState.ExitCode()
}

// result decodes the object for programs.
func (r *demoRun) result() Result {
	r.t.Helper()
	var res Result
	if err := json.Unmarshal(r.out.Bytes(), &res); err != nil {
		r.t.Fatalf("%v: %s", err, r.out.Bytes())
	}
	return res
}

// kept returns the folder that the run left behind, empty if there is none.
func (r *demoRun) kept() string {
	r.t.Helper()
	found, err := filepath.Glob(filepath.Join(r.dir, "holdfast-demo-*"))
	if err != nil {
		r.t.Fatal(err)
	}
	if len(found) == 0 {
		return ""
	}
	return found[0]
}

// nodesGone fails the test if a process still uses the run's folder.
func (r *demoRun) nodesGone() {
	r.t.Helper()
	cmdlines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, path := range cmdlines {
		if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte(r.dir)) {
			r.t.Errorf("a node is left: %s", bytes.ReplaceAll(b, []byte{0}, []byte(" ")))
		}
	}
}

func TestDemo(t *testing.T) {
	for name, args := range map[string][]string{"three data nodes": nil, "two and a witness": {"--witness"}} {
		t.Run(name, func(t *testing.T) { testDemo(t, args...) })
	}
}

func testDemo(t *testing.T, args ...string) {
	r := startDemo(t, append(args, "-o", "json", "--calm", "700ms")...)
	if code := r.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	var got map[string]any
	if err := json.Unmarshal(r.out.Bytes(), &got); err != nil {
		t.Fatalf("%v: %s", err, r.out.Bytes())
	}
	for _, key := range []string{"lost", "locks_lost", "errors"} {
		if n, ok := got[key].(float64); !ok || n != 0 {
			t.Errorf("%s is %v", key, got[key])
		}
	}
	for _, key := range []string{"ops", "acked_bytes"} {
		if n, ok := got[key].(float64); !ok || n <= 0 {
			t.Errorf("%s is %v", key, got[key])
		}
	}
	failovers, _ := got["failovers"].([]any)
	var kinds []string
	for _, f := range failovers {
		f, _ := f.(map[string]any)
		kinds = append(kinds, fmt.Sprint(f["kind"]))
		if ms, ok := f["outage_ms"].(float64); !ok || ms <= 0 || ms > 10_000 {
			t.Errorf("failover %v", f)
		}
		if f["from"] == f["to"] || f["to"] == "" {
			t.Errorf("failover %v", f)
		}
	}
	if strings.Join(kinds, " ") != "kill transfer" {
		t.Errorf("failovers: %v", kinds)
	}
	if dir := r.kept(); dir != "" {
		t.Errorf("%s is left", dir)
	}
	r.nodesGone()
}

// TestDemoFindsLoss overwrites file data behind the nodes' backs, in all copies alike, and wants the demo to notice.
func TestDemoFindsLoss(t *testing.T) {
	r := startDemo(t, "-o", "json", "--calm", "1500ms", "--kills", "0")
	r.await("operations a second")
	zeroed := 0
	err := filepath.WalkDir(r.kept(), func(path string, d fs.DirEntry, err error) error {
		// What is walked over is in use: files come and go.
		if err != nil || !d.Type().IsRegular() || !strings.Contains(path, "/store/objects/") {
			return nil
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return nil
		}
		defer f.Close()
		if n, err := f.WriteAt(make([]byte, 4096), 0); err == nil {
			zeroed += n
		}
		return nil
	})
	if err != nil || zeroed == 0 {
		t.Fatalf("nothing to damage: %v", err)
	}
	if code := r.end(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if res := r.result(); res.Lost == 0 || res.OK() || len(res.Details) == 0 {
		t.Errorf("result %+v", res)
	}
	if dir := r.kept(); dir == "" {
		t.Error("data and logs are not kept")
	}
	r.nodesGone()
}

// wiper takes all data away and makes an empty cluster in the same place, as soon as the workload is at work.
type wiper struct {
	t     *testing.T
	c     *Cluster
	wiped bool
}

func (w *wiper) Note(format string, args ...any) { w.t.Logf(format, args...) }

func (w *wiper) Live(_ string, l loadgen.Live) {
	if w.wiped || l.Ops < 200 {
		return
	}
	w.wiped = true
	for _, n := range w.c.Nodes {
		if err := w.c.Kill(n); err != nil {
			w.t.Error(err)
		}
	}
	for _, n := range w.c.Nodes {
		if err := os.RemoveAll(n.Dir); err != nil {
			w.t.Error(err)
		}
	}
	if _, err := w.c.Form(w.t.Context(), w.t.Logf); err != nil {
		w.t.Error(err)
	}
}

// TestDemoFindsEverythingLost puts an empty cluster in place of the one that has the data, in the middle.
func TestDemoFindsEverythingLost(t *testing.T) {
	c, err := NewCluster(binary, t.TempDir(), 3, false)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	w := &wiper{t: t, c: c}
	res, err := Run(ctx, c, Options{Calm: 2 * time.Second, Transfers: 1}, w)
	if !w.wiped {
		t.Fatal("the workload did not get far enough")
	}
	t.Logf("error %v", err)
	if res.OK() || res.Errors == 0 {
		t.Errorf("result %+v", res)
	}
}

// TestDemoKeep leaves the cluster running until the demo is interrupted.
func TestDemoKeep(t *testing.T) {
	r := startDemo(t, "--keep", "--calm", "100ms", "--kills", "0", "--transfers", "0", "-o", "json")
	r.await("mount -t nfs")
	r.await("Data and logs")
	if err := r.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := r.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if res := r.result(); !res.OK() {
		t.Errorf("result %+v", res)
	}
	r.nodesGone()
}

// TestDemoInterrupted ends a demo in its middle.
func TestDemoInterrupted(t *testing.T) {
	r := startDemo(t, "--calm", "20s", "-o", "json")
	r.await("operations a second")
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := r.end(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if res := r.result(); res.OK() {
		t.Errorf("a demo that was cut off calls itself good: %+v", res)
	}
	r.nodesGone()
}

// TestClusterSaysWhy has a node that cannot start: the error must hold what the node said.
func TestClusterSaysWhy(t *testing.T) {
	c, err := NewCluster(binary, t.TempDir(), 1, false)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := os.WriteFile(c.Nodes[0].Config, []byte("nonsense: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Run(t.Context(), c, Options{}, &wiper{t: t, c: c})
	if err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("error %v", err)
	}
}
