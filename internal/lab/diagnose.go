package lab

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// answerTimeout is for a guest that does nothing else.
const answerTimeout = 5 * time.Second

// diagnose says for a person why a guest may have stopped, or seems to have. A user-mode kernel lives on signals of its host, SIGIO for its devices and SIGALRM for its clock, and one that it has missed
// it can be given again: what a guest that had fallen silent does after that tells what it has missed.
func (g *Guest) diagnose() string {
	var b strings.Builder
	first := g.network()
	fmt.Fprintf(&b, "%s\na second later:\n", first)
	time.Sleep(time.Second) // between two looks at a clock that may stand still
	fmt.Fprintf(&b, "%s\n%s", g.network(), g.host())
	for _, sig := range []syscall.Signal{syscall.SIGIO, syscall.SIGALRM} {
		if err := g.cmd.Process.Signal(sig); err != nil {
			fmt.Fprintf(&b, "%v: %v\n", sig, err)
			continue
		}
		fmt.Fprintf(&b, "after the signal %q:\n%s\n", sig, g.network())
	}
	return b.String()
}

// network is what the guest's kernel says of its network, or why it says nothing.
func (g *Guest) network() (state string) {
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	if err := g.Run(ctx, "network", nil, &state); err != nil {
		return "the guest does not answer: " + err.Error()
	}
	return state
}

// host is what the machine says of the guest's process and tap.
func (g *Guest) host() string {
	var b strings.Builder
	for _, file := range []string{"wchan", "syscall", "status"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", g.cmd.Process.Pid, file))
		if err != nil {
			text = []byte(err.Error())
		}
		for line := range strings.Lines(string(text)) {
			if file != "status" || strings.HasPrefix(line, "State") || strings.HasPrefix(line, "Sig") || strings.HasPrefix(line, "ShdPnd") || strings.Contains(line, "ctxt_switches") {
				fmt.Fprintf(&b, "%s: %s\n", file, strings.TrimSpace(line))
			}
		}
	}
	out, err := g.lab.Net.Command(context.Background(), "ip", "-s", "link", "show", "dev", g.Name).CombinedOutput()
	if err != nil {
		fmt.Fprintln(&b, err)
	}
	b.Write(out)
	return b.String()
}
