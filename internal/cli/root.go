// Package cli is the command line of the holdfast binary: it reads flags, calls the node's API or starts a node, and prints for people or, with -o json, for programs.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/config"
)

// Exit codes, the same for every command.
const (
	ExitOK        = 0
	ExitFailed    = 1 // it was tried and did not work
	ExitUsage     = 2 // the command line or the configuration is wrong; nothing was tried
	ExitAttention = 3 // it was looked at, and something needs a person: `status`, `doctor`; `check`: replicas differ
)

// exitError carries an exit code with an error.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func withCode(code int, err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code, err}
}

// usagef is an error of the command line.
func usagef(format string, args ...any) error {
	return withCode(ExitUsage, fmt.Errorf(format, args...))
}

// errSilent ends a command with an exit code when all has been said already.
var errSilent = errors.New("")

// options are the flags that every command has, and what a command talks to.
type options struct {
	release string
	output  string
	data    string
	node    string
	cert    string

	in     io.Reader
	out    io.Writer
	errOut io.Writer
	// patience is how long a command is silent before it says what it waits for, and poll how often it looks.
	patience, poll time.Duration
	// systemctl runs systemd's tool; it is nil where systemd does not run.
	systemctl func(ctx context.Context, args ...string) (string, error)
	// localFile is this machine's own file; empty: the usual one, if it is there.
	localFile string
}

const (
	defaultPatience = 2 * time.Second
	defaultPoll     = 200 * time.Millisecond
)

func (o *options) json() bool { return o.output == "json" }

// printJSON prints v as one JSON value.
func (o *options) printJSON(v any) error {
	enc := json.NewEncoder(o.out)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// print prints v as JSON, or calls text.
func (o *options) print(v any, text func() error) error {
	if o.json() {
		return o.printJSON(v)
	}
	return text()
}

// sayf prints a line for people, unless a program reads.
func (o *options) sayf(format string, args ...any) {
	if !o.json() {
		fmt.Fprintf(o.out, format+"\n", args...)
	}
}

// Main runs the command line and returns the exit code.
func Main(version string, args []string, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return execute(ctx, &options{
		release: version, in: os.Stdin, out: out, errOut: errOut, patience: defaultPatience, poll: defaultPoll, systemctl: findSystemctl(),
	}, args)
}

func execute(ctx context.Context, o *options, args []string) int {
	root := newRoot(o)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	if !errors.Is(err, errSilent) {
		fmt.Fprintln(o.errOut, "holdfast:", err)
	}
	var ee *exitError
	if errors.As(err, &ee) {
		return ee.code
	}
	return ExitUsage
}

// codeOf gives an error of a command its exit code, if it has none.
func codeOf(err error) error {
	var ee *exitError
	var answer *api.Error
	var refused *cluster.Error
	switch {
	case err == nil, errors.As(err, &ee):
		return err
	case errors.Is(err, context.Canceled):
		return withCode(ExitFailed, errors.New("interrupted"))
	case errors.As(err, &answer) && answer.Status == http.StatusBadRequest, errors.As(err, &refused) && refused.Code == cluster.CodeInvalid:
		return withCode(ExitUsage, err)
	}
	return withCode(ExitFailed, err)
}

func newRoot(o *options) *cobra.Command {
	root := &cobra.Command{
		Use:   "holdfast",
		Short: "A highly available NFS server",
		Long: `Holdfast is a highly available NFS server. Every acknowledged write is on a majority of the nodes' disks; when the node
that serves a volume dies, another carries on within a second with the clients' sessions, opens and locks as they were.

Commands talk to the node on this machine, by the socket in its data folder, or with --node and --cert to one elsewhere. Any node of the
cluster will do.`,
		Example: `  holdfast demo                             # a whole cluster on this machine, with a failover in it
  holdfast init --cluster office            # the first node
  holdfast node add                         # prints what to run on the next machine
  holdfast volume create main --address 10.0.0.50/24 --export /data --client '10.0.0.0/24:rw'
  holdfast status                           # is my data safe, who serves what, what needs me`,
		Version:       o.release,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if o.output != "text" && o.output != "json" {
				return fmt.Errorf("unknown output format %q: use -o text or -o json", o.output)
			}
			return nil
		},
	}
	root.SetOut(o.out)
	root.SetErr(o.errOut)
	root.PersistentFlags().StringVarP(&o.output, "output", "o", "text", "`format` of what is printed: text or json")
	root.PersistentFlags().StringVar(&o.data, "data", "", "data `folder` of the node on this machine (default: $HOLDFAST_DATA, or what "+config.DefaultLocalPath+" says, or "+config.DefaultData+")")
	root.PersistentFlags().StringVar(&o.node, "node", "", "`address` of a node elsewhere to talk to, host or host:port; needs --cert")
	root.PersistentFlags().StringVar(&o.cert, "cert", "", "`file` with an administrator's certificate, made by `holdfast cert create` (default: $HOLDFAST_CERT)")
	root.AddGroup(
		&cobra.Group{ID: "begin", Title: "To begin:"},
		&cobra.Group{ID: "look", Title: "To look:"},
		&cobra.Group{ID: "configure", Title: "To configure:"},
		&cobra.Group{ID: "operate", Title: "To operate:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("begin", newInit(o), newJoin(o), newServe(o), newDemo(o), newDoctor(o))
	add("look", newStatus(o), newEvents(o), newExplain(o), newVersion(o))
	add("configure", newVolume(o), newExport(o), newNode(o), newToken(o), newApply(o), newDiff(o), newExportConfig(o), newCert(o))
	add("operate", newMove(o), newStandby(o), newUnstandby(o), newDrain(o), newRoll(o), newMaintenance(o), newDrill(o), newCheck(o), newBackup(o), newRestore(o))
	walk(root, finish)
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages", fmt.Sprintf(".FlagUsagesWrapped %d", helpWidth)))
	return root
}

func walk(c *cobra.Command, f func(*cobra.Command)) {
	f(c)
	for _, sub := range c.Commands() {
		walk(sub, f)
	}
}

// finish gives a command what all have: an exit code for every error, and help where it is only a name for others.
func finish(c *cobra.Command) {
	c.Flags().SortFlags = false
	c.Long = fill(c.Long, helpWidth)
	if check := c.Args; check != nil && c.HasParent() {
		c.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			if err == nil {
				return nil
			}
			return usagef("%w: it is `%s`, see `%s --help`", err, cmd.UseLine(), cmd.CommandPath())
		}
	}
	if run := c.RunE; run != nil {
		c.RunE = func(cmd *cobra.Command, args []string) error { return codeOf(run(cmd, args)) }
	}
	if c.ValidArgsFunction == nil && c.ValidArgs == nil && c.HasParent() {
		c.ValidArgsFunction = cobra.NoFileCompletions
	}
	if c.HasSubCommands() && c.HasParent() && c.RunE == nil {
		// Without this a mistyped subcommand prints help, and ends with 0.
		c.Args = cobra.ArbitraryArgs
		c.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return withCode(ExitUsage, fmt.Errorf("which %s? See `%s --help`", cmd.Name(), cmd.CommandPath()))
			}
			text := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
			cmd.SuggestionsMinimumDistance = 2 // what cobra itself uses
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				text += fmt.Sprintf("; did you mean %q?", near[0])
			}
			return withCode(ExitUsage, errors.New(text))
		}
	}
}

// dataDir is the data folder of the node on this machine: what the command line says, or the environment, or the machine's own file.
func (o *options) dataDir() string {
	for _, dir := range []string{o.data, os.Getenv("HOLDFAST_DATA")} {
		if dir != "" {
			return dir
		}
	}
	return o.local().Data
}

// local is the machine's own file, with its defaults. One that is wrong is reported by `serve`, which reads it too; others do without.
func (o *options) local() *config.Local {
	if l, err := config.LoadLocal(o.localFile); err == nil {
		return l
	}
	return &config.Local{Data: config.DefaultData, Listen: fmt.Sprintf(":%d", config.DefaultPort)}
}
