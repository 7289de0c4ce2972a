package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
)

func newRoll(o *options) *cobra.Command {
	var run string
	var only []string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "roll --run COMMAND",
		Short: "Upgrade or restart the nodes one after the other while clients work",
		Long: `Take each node in turn: wait until the volumes can go on without it, put it into standby, run COMMAND for it on this machine (with sh), wait until the node answers and its copies are in sync, and
take it back. Those that lead nothing go first. In COMMAND, {node} stands for the node's name, {host} for its host and {peer} for host:port. If COMMAND fails, or a node does not come back in
time, nothing else is touched: the node stays in standby. Interrupted, roll ends COMMAND with SIGTERM, and with SIGKILL if that does not help, and says what it leaves.

When all nodes run a release that supports it, the cluster version rises by itself; until then nodes of both releases work together.

Exit code: 0 when all nodes were taken through it, 1 otherwise.`,
		Example: `  holdfast roll --run 'ssh {host} apt-get install -y ./holdfast_1.2.0_amd64.deb'
  holdfast roll --run 'ssh {host} systemctl restart holdfast' --only b,c`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if run == "" {
				return usagef("say with --run what to do with each node, such as --run 'ssh {host} systemctl restart holdfast'")
			}
			r := roller{o: o, cmd: cmd, command: run, timeout: timeout, grace: rollGrace, rolled: []rolled{}}
			if err := r.all(only); err != nil {
				return err
			}
			return o.print(r.rolled, func() error { return nil })
		},
	}
	cmd.Flags().StringVar(&run, "run", "", "the `command` for each node")
	cmd.Flags().StringSliceVar(&only, "only", nil, "only these `nodes`")
	spanVar(cmd.Flags(), &timeout, "timeout", 30*time.Minute, time.Second, longest, "how long one node may take to come back and be in sync")
	o.completeFlag(cmd, "only", nodeNames)
	return cmd
}

// rollGrace is how long a command has to end by itself when it is told to.
const rollGrace = 10 * time.Second

// roller takes nodes through a command, one after the other.
type roller struct {
	o       *options
	cmd     *cobra.Command
	command string
	timeout time.Duration
	grace   time.Duration

	at     rollStep // of the node that is being taken through it
	rolled []rolled
}

// rolled is what roll prints of a node for programs.
type rolled struct {
	Node      string `json:"node"`
	Release   string `json:"release"`
	Was       string `json:"was"`
	Restarted bool   `json:"restarted"`
}

// rollStep is how far a node is.
type rollStep int

const (
	rollBefore rollStep = iota
	rollStandby
	rollCommand
	rollBack
)

// left says what an interruption leaves of a node.
func (s rollStep) left(node string) string {
	switch s {
	case rollStandby:
		return "it may be in standby, and its command was not run: `holdfast unstandby " + node + "` takes it back"
	case rollCommand:
		return "it is in standby, and its command was ended before it was done: see to that machine, then take the node back with `holdfast unstandby " + node + "`"
	case rollBack:
		return "its command was run, but it is in standby still: when `holdfast status` shows it in sync, take it back with `holdfast unstandby " + node + "`"
	default:
		return "it was not touched"
	}
}

// interrupted says what a roll that is interrupted leaves; rest are the nodes after this one.
func (r *roller) interrupted(node string, rest []string) error {
	var done []string
	for _, d := range r.rolled {
		done = append(done, d.Node)
	}
	text := fmt.Sprintf("interrupted at node %s: %s", node, r.at.left(node))
	if len(done) > 0 {
		text += "; done before: " + list(done)
	}
	if len(rest) > 0 {
		text += "; not touched: " + list(rest)
	}
	return withCode(ExitFailed, errors.New(text))
}

func (r *roller) all(only []string) error {
	s, err := ask(r.cmd, r.o, r.o.status)
	if err != nil {
		return err
	}
	var names []string
	for _, n := range s.Nodes {
		names = append(names, n.Name)
	}
	for _, name := range only {
		if !slices.Contains(names, name) {
			return usagef("there is no node %q: %s", name, thereAre(names))
		}
	}
	order := rollOrder(&s, only)
	for i, name := range order {
		r.at = rollBefore
		if err := r.one(name); err != nil {
			if r.cmd.Context().Err() != nil {
				return r.interrupted(name, order[i+1:])
			}
			return fmt.Errorf("node %s: %w", name, err)
		}
	}
	return nil
}

// rollOrder is the order in which nodes are taken: those that lead the fewest volumes first, so that those move as seldom as can be.
func rollOrder(s *api.Status, only []string) []string {
	leads := map[string]int{}
	for _, v := range s.Volumes {
		leads[v.Leader]++
	}
	if s.ClusterLeader != "" {
		leads[s.ClusterLeader]++
	}
	var names []string
	for _, n := range s.Nodes {
		if len(only) == 0 || slices.Contains(only, n.Name) {
			names = append(names, n.Name)
		}
	}
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(leads[a], leads[b]) })
	return names
}

// one takes a node through the command.
func (r *roller) one(name string) error {
	ctx, cancel := context.WithTimeoutCause(r.cmd.Context(), r.timeout, fmt.Errorf("it took longer than %v; it is in standby, `holdfast status` says what is missing", r.timeout))
	defer cancel()
	before, err := r.await(ctx, name, func(s *api.Status, _ *api.NodeStatus) string {
		if hurt := canStop(s, name); len(hurt) > 0 {
			return "waiting until " + list(hurt) + " can go on without node " + name
		}
		return ""
	})
	if err != nil {
		return err
	}
	r.at = rollStandby
	wasStandby := before.Standby
	if _, err := r.o.setStandby(r.cmd, name, false, canStop); err != nil {
		return err
	}
	if err := r.o.awaitIdle(ctx, name); err != nil {
		return err
	}
	r.at = rollCommand
	if err := r.run(ctx, before); err != nil {
		return fmt.Errorf("%w; the node is in standby, the others were not touched", err)
	}
	r.at = rollBack
	after, err := r.await(ctx, name, func(s *api.Status, n *api.NodeStatus) string { return comesBack(s, n) })
	if err != nil {
		return err
	}
	if !wasStandby && before.Role != string(cluster.RoleWitness) {
		off := false
		if _, err := r.o.do(r.cmd, cluster.Command{SetNode: &cluster.SetNode{Name: name, Standby: &off}}); err != nil {
			return err
		}
	}
	r.rolled = append(r.rolled, rolled{Node: name, Release: after.Release, Was: before.Release, Restarted: !after.Started.Equal(before.Started)})
	switch {
	case after.Started.Equal(before.Started):
		r.o.sayf("node %s: done; it was not restarted, and runs %s", name, after.Release)
	case after.Release == before.Release:
		r.o.sayf("node %s: restarted, and runs %s as before", name, after.Release)
	default:
		r.o.sayf("node %s: runs %s now (was %s)", name, after.Release, before.Release)
	}
	return nil
}

// comesBack says what is missing before a node is what it was; empty if nothing is.
func comesBack(s *api.Status, n *api.NodeStatus) string {
	if n.State != api.NodeAnswers && n.State != api.NodeSelf {
		return "waiting until node " + n.Name + " answers"
	}
	for _, v := range s.Volumes {
		for _, c := range v.Replicas {
			if c.Node == n.Name && (!c.Active || !c.InSync) {
				return fmt.Sprintf("waiting until the copy of volume %s on node %s is in sync", v.Name, n.Name)
			}
		}
		if !v.Serving {
			return "waiting until volume " + v.Name + " is served"
		}
	}
	return ""
}

// await looks at the status until look finds nothing to wait for, and returns the node's part of it.
func (r *roller) await(ctx context.Context, name string, look func(s *api.Status, n *api.NodeStatus) string) (api.NodeStatus, error) {
	var node api.NodeStatus
	c, err := r.o.client()
	if err != nil {
		return node, err
	}
	defer c.Close()
	return node, r.o.await(ctx, func(ctx context.Context) (string, bool, error) {
		s, err := r.o.status(ctx, c)
		if err != nil {
			// The node that is asked may be the one that is being restarted.
			return "waiting until the node that this command talks to answers: " + err.Error(), false, nil
		}
		at := slices.IndexFunc(s.Nodes, func(n api.NodeStatus) bool { return n.Name == name })
		if at < 0 {
			return "", false, fmt.Errorf("it was removed meanwhile")
		}
		node = s.Nodes[at]
		what := look(&s, &node)
		return what, what == "", nil
	})
}

// run runs the command for a node.
func (r *roller) run(ctx context.Context, n api.NodeStatus) error {
	host, _, err := net.SplitHostPort(n.Peer)
	if err != nil {
		return fmt.Errorf("its address %q: %w", n.Peer, err)
	}
	text := strings.NewReplacer("{node}", n.Name, "{host}", host, "{peer}", n.Peer).Replace(r.command)
	r.o.sayf("node %s: %s", n.Name, text)
	c := exec.CommandContext(ctx, "sh", "-c", text)
	c.Stdout, c.Stderr = r.o.errOut, r.o.errOut
	// With a terminal, what the shell starts gets its Ctrl-C too, and must stay in the foreground to ask for passwords; without one, it is told as a group.
	group := !hasTerminal()
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: group}
	c.Cancel = func() error {
		r.o.sayf("node %s: ending the command", n.Name)
		if group {
			return syscall.Kill(-c.Process.Pid, syscall.SIGTERM)
		}
		return c.Process.Signal(syscall.SIGTERM)
	}
	c.WaitDelay = r.grace
	err = c.Run()
	if ctx.Err() != nil {
		if group && c.Process != nil {
			endGroup(c.Process.Pid, r.grace)
		}
		return fmt.Errorf("the command was ended: %w", context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("the command failed: %w", err)
	}
	return nil
}

// endGroup waits until the processes of a group, which were told to end, are gone, and kills those that are there after the grace.
func endGroup(group int, grace time.Duration) {
	for end := time.Now().Add(grace); time.Now().Before(end); time.Sleep(groupPoll) {
		if err := syscall.Kill(-group, 0); errors.Is(err, syscall.ESRCH) {
			return
		}
	}
	_ = syscall.Kill(-group, syscall.SIGKILL) // they may just have ended
}

// groupPoll is how often to look whether a group of processes is gone: the kernel tells nobody.
const groupPoll = 20 * time.Millisecond

// hasTerminal reports whether this process has a controlling terminal.
func hasTerminal() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	_ = tty.Close() // nothing was read
	return true
}
