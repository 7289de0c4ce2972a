package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"holdfast/internal/api"
)

// awaitFile waits for a line that a command writes, and returns it.
func awaitFile(t *testing.T, path string) string {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if b, err := os.ReadFile(path); err == nil && bytes.HasSuffix(b, []byte("\n")) {
			return strings.TrimSpace(string(b))
		}
	}
	t.Fatalf("nobody wrote %s", path)
	return ""
}

// TestRollInterrupted interrupts a roll in the second node's command.
func TestRollInterrupted(t *testing.T) {
	s := newSession(newFake(t))
	s.run(ExitOK, "volume", "create", "main", "--address", "10.0.0.50/24")
	dir := t.TempDir()
	command := `test {node} = b && exit; trap "echo {node} >` + dir + `/told; exit 3" TERM; echo >` + dir + `/begun; while :; do sleep 0.01; done`
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	type outcome struct {
		code        int
		out, errOut string
	}
	done := make(chan outcome, 1)
	go func() {
		code, out, errOut := runContext(ctx, strings.NewReader(""), "roll", "--run", command, "--data", s.dir)
		done <- outcome{code, out, errOut}
	}()
	awaitFile(t, filepath.Join(dir, "begun"))
	cancel()
	got := <-done
	if node := awaitFile(t, filepath.Join(dir, "told")); node != "c" {
		t.Errorf("the command of node %q was told to end", node)
	}
	want := "holdfast: interrupted at node c: it is in standby, and its command was ended before it was done: see to that machine, then take the node back with `holdfast unstandby c`; done before: b; not touched: a\n"
	if got.code != ExitFailed || !strings.HasSuffix(got.errOut, want) { // before it, what the command says
		t.Errorf("exit code %d, %q, want %q\n%s", got.code, got.errOut, want, got.out)
	}
	var all []rolled
	if err := json.Unmarshal([]byte(s.run(ExitOK, "roll", "--run", "true", "-o", "json")), &all); err != nil || len(all) != 3 || all[0].Release != "v1.2.3" {
		t.Errorf("%+v, %v", all, err)
	}
}

// TestRollKills ends a command that does not care, and what it started.
func TestRollKills(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	var out, errOut bytes.Buffer
	r := roller{o: &options{out: &out, errOut: &errOut}, command: `trap "" TERM; sh -c 'echo $$ >` + pid + `; while :; do sleep 0.01; done'; true`, grace: 50 * time.Millisecond}
	cause := errors.New("it took too long")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.run(ctx, api.NodeStatus{Name: "a", Peer: "10.0.0.11:7420"}) }()
	n, err := strconv.Atoi(awaitFile(t, pid))
	if err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		t.Fatalf("it ended by itself: %v", err)
	default:
	}
	cancel(cause)
	if err := <-done; !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
	if hasTerminal() {
		return // what the shell started is for the terminal to end
	}
	for end := time.Now().Add(10 * time.Second); alive(n); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("process %d goes on", n)
		}
	}
}

// alive reports whether a process runs; one that ended may wait for somebody to take note.
func alive(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !bytes.Contains(b, []byte(") Z "))
}

func TestRollSteps(t *testing.T) {
	for step, want := range map[rollStep]string{rollBefore: "not touched", rollStandby: "was not run", rollCommand: "was ended", rollBack: "was run"} {
		if got := step.left("a"); !strings.Contains(got, want) {
			t.Errorf("%d: %s", step, got)
		}
	}
}
