package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain is also the program that TestRelaxTimers runs.
func TestMain(m *testing.M) {
	if os.Getenv("TIMERS_TEST") == "" {
		os.Exit(m.Run())
	}
	relaxTimers()
	slack, _, _ := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_GET_TIMERSLACK, 0, 0)
	fmt.Println(os.Getpid(), time.Duration(slack), os.Args[1:])
}

func TestRelaxTimers(t *testing.T) {
	cmd := exec.Command(os.Args[0], "serve", "--node", "b")
	cmd.Env = append(os.Environ(), "TIMERS_TEST=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintln(cmd.Process.Pid, timerSlack, []string{"serve", "--node", "b"})
	if got := string(out); got != want {
		t.Errorf("the process is %q, want %q: the same process and arguments, with more slack", strings.TrimSpace(got), strings.TrimSpace(want))
	}
}
