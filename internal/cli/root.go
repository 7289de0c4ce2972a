// Package cli is the command line of the holdfast binary: it reads flags, calls the node's API or starts a node, and prints for people or, with -o json, for programs.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes, the same for every command.
const (
	ExitOK      = 0
	ExitFailed  = 1 // it was tried and did not work
	ExitUsage   = 2 // the command line or the configuration is wrong; nothing was tried
	ExitUnequal = 3 // `check`: replicas differ
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

// options are the flags that every command has.
type options struct {
	output string
	data   string
	out    io.Writer
	errOut io.Writer
}

func (o *options) json() bool { return o.output == "json" }

// printJSON prints v as one JSON object.
func (o *options) printJSON(v any) error {
	enc := json.NewEncoder(o.out)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// Main runs the command line and returns the exit code.
func Main(version string, args []string, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot(version, out, errOut)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	fmt.Fprintln(errOut, "holdfast:", err)
	var ee *exitError
	if errors.As(err, &ee) {
		return ee.code
	}
	return ExitUsage
}

func newRoot(version string, out, errOut io.Writer) *cobra.Command {
	o := &options{out: out, errOut: errOut}
	root := &cobra.Command{
		Use:   "holdfast",
		Short: "A highly available NFS server",
		Long: `Holdfast is a highly available NFS server. Every acknowledged write is on a majority of the nodes' disks; when the node
that serves a volume dies, another carries on within a second with the clients' sessions, opens and locks as they were.`,
		Example: `  holdfast demo                              # a whole cluster on this machine, with a failover in it
  holdfast serve --config /etc/holdfast.yaml # one node of a cluster
  holdfast status                            # is my data safe, who serves what`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if o.output != "text" && o.output != "json" {
				return fmt.Errorf("unknown output format %q: use -o text or -o json", o.output)
			}
			return nil
		},
	}
	root.SetOut(out)
	root.SetErr(errOut)
	root.PersistentFlags().StringVarP(&o.output, "output", "o", "text", "`format` of what is printed: text or json")
	root.PersistentFlags().StringVar(&o.data, "data", "/var/lib/holdfast", "data `folder` of the node to talk to")
	root.AddCommand(newServe(o, version), newStatus(o), newCheck(o), newTransfer(o), newDemo(o))
	return root
}
