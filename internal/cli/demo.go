package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"holdfast/internal/demo"
	"holdfast/internal/loadgen"
)

func newDemo(o *options) *cobra.Command {
	var keep, witness bool
	opts := demo.Options{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a whole cluster on this machine and kill its leader",
		Long: `Form a cluster of three nodes, processes of this machine (no root needed, ports above 1024), with the same commands as on three machines. Run a workload on them through real NFSv4.1
connections (appended records with checksums, counters under a lock, held locks, exclusive creates), kill the leader with SIGKILL in the
middle, restart it, hand over once as planned, and at the end read back every acknowledged byte, prove that every lock was held throughout, and compare the
replicas.

Exit code: 0 when nothing was lost, 1 otherwise.`,
		Example: `  holdfast demo
  holdfast demo --witness     # two data nodes and a witness, which holds no data
  holdfast demo --keep        # leaves the cluster running and prints how to mount it
  holdfast demo -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withCode(ExitFailed, runDemo(cmd.Context(), o, opts, witness, keep))
		},
	}
	cmd.Flags().BoolVar(&witness, "witness", false, "two data nodes and a witness in place of three data nodes")
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the cluster running until interrupted")
	spanVar(cmd.Flags(), &opts.Calm, "calm", 4*time.Second, 0, time.Hour, "how long the workload runs before and after each failover")
	countVar(cmd.Flags(), &opts.Kills, "kills", "", 1, 0, 1000, "how often the leader is killed")
	countVar(cmd.Flags(), &opts.Transfers, "transfers", "", 1, 0, 1000, "how often the leadership is handed over")
	countVar(cmd.Flags(), &opts.Writers, "writers", "", 2, 1, 100, "how many clients append records")
	return cmd
}

// errDemoFailed says that the demo found a loss; the details are printed before.
var errDemoFailed = errors.New("something was lost or failed: this must not happen, please report it with the logs of the nodes")

func runDemo(ctx context.Context, o *options, opts demo.Options, witness, keep bool) error {
	binary, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	dir, err := os.MkdirTemp("", "holdfast-demo-")
	if err != nil {
		return fmt.Errorf("make a folder for the demo: %w", err)
	}
	data := 3
	if witness {
		data = 2
	}
	c, err := demo.NewCluster(binary, dir, data, witness)
	if err != nil {
		return err
	}
	d := newDisplay(o)
	res, err := demo.Run(ctx, c, opts, d)
	d.end()
	if err == nil && !res.OK() {
		err = errDemoFailed
	}
	if o.json() {
		err = errors.Join(err, o.printJSON(res))
	} else {
		printDemo(o, res)
	}
	if keep && err == nil {
		printMount(o, c, dir)
		<-ctx.Done()
	}
	err = errors.Join(err, c.Close())
	if err != nil {
		return fmt.Errorf("%w (data and logs of the nodes are kept in %s)", err, dir)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the demo's folder: %w", err)
	}
	return nil
}

func printDemo(o *options, res demo.Result) {
	for _, f := range res.Failovers {
		fmt.Fprintf(o.out, "%-8s %s -> %s  the client waited %6.0f ms\n", f.Kind, f.From, f.To, f.OutageMS)
	}
	fmt.Fprintf(o.out, "%d operations, %s acknowledged; lost: %d, executed twice: %d, locks lost: %d, errors: %d, replicas equal: %t\n",
		res.Ops, bytesText(res.AckedBytes), res.Lost, res.Doubled, res.LocksLost, res.Errors, res.Equal)
	for _, d := range res.Details {
		fmt.Fprintln(o.out, " ", d)
	}
}

func printMount(o *options, c *demo.Cluster, dir string) {
	// What a person must see even where stdout carries JSON for a program.
	out := o.errOut
	fmt.Fprintf(out, "\nThe cluster keeps running until you press Ctrl-C. As root, mount it with:\n\n  mount -t nfs -o vers=4.2,port=%s 127.0.0.1:%s /mnt\n\n", c.Port(), demo.Export)
	for _, n := range c.Nodes {
		fmt.Fprintf(out, "  holdfast status --data %s\n", n.Dir)
	}
	fmt.Fprintf(out, "\nData and logs are in %s.\n", dir)
}

// display shows a run to a person: events as lines, and on a terminal a last line that is renewed.
type display struct {
	o     *options
	live  bool // a terminal
	start time.Time
	shown bool // the last line is a live one
	last  loadgen.Live
	when  time.Time
}

func newDisplay(o *options) *display {
	f, ok := o.errOut.(*os.File)
	return &display{o: o, live: ok && term.IsTerminal(int(f.Fd())), start: time.Now(), when: time.Now()}
}

// Note implements demo.Observer.
func (d *display) Note(format string, args ...any) {
	d.end()
	fmt.Fprintf(d.o.errOut, "%6.1f s  %s\n", time.Since(d.start).Seconds(), fmt.Sprintf(format, args...))
}

// Live implements demo.Observer.
func (d *display) Live(leader string, l loadgen.Live) {
	now := time.Now()
	interval := time.Second
	if d.live {
		interval = 200 * time.Millisecond
	}
	if now.Sub(d.when) < interval {
		return
	}
	rate := float64(l.Ops-d.last.Ops) / now.Sub(d.when).Seconds()
	d.last, d.when = l, now
	if leader == "" {
		leader = "nobody"
	}
	line := fmt.Sprintf("%6.1f s  %s leads, %5.0f operations a second, %s acknowledged, %d locks held, %d errors",
		now.Sub(d.start).Seconds(), leader, rate, bytesText(l.AckedBytes), l.LocksHeld-l.LocksLost, l.Errors)
	if d.live {
		fmt.Fprintf(d.o.errOut, "\r\x1b[K%s", line)
		d.shown = true
		return
	}
	fmt.Fprintln(d.o.errOut, line)
}

// end finishes the live line.
func (d *display) end() {
	if d.shown {
		fmt.Fprintln(d.o.errOut)
		d.shown = false
	}
}
