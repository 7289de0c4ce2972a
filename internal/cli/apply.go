package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/config"
)

// plan is what a file would change.
type plan struct {
	Revision uint64          `json:"revision"` // of the configuration that it was compared with
	Changes  []config.Change `json:"changes"`

	spec *config.Spec
}

// dangerous reports whether somebody should think before.
func (p *plan) dangerous() bool {
	return slices.ContainsFunc(p.Changes, func(c config.Change) bool { return c.Danger != "" })
}

// deleted names the volumes that the file does not have.
func (p *plan) deleted(state *cluster.State) []string {
	var names []string
	for _, name := range volumeNames(state) {
		if p.spec.Volume(name) == nil {
			names = append(names, name)
		}
	}
	return names
}

// makePlan reads a specification and compares it with what is configured.
func (o *options) makePlan(ctx context.Context, c *api.Client, file string) (*plan, *cluster.State, error) {
	text, err := o.readFile(file)
	if err != nil {
		return nil, nil, withCode(ExitUsage, err)
	}
	spec, err := config.ParseSpec(file, text)
	if err != nil {
		return nil, nil, withCode(ExitUsage, err)
	}
	state, err := o.state(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	var wrong config.Errors
	for _, err := range []error{spec.CheckCluster(state.Name), spec.CheckAgainst(nodeNames(state)), spec.CheckPorts(state.Peers())} {
		if errs := (config.Errors)(nil); errors.As(err, &errs) {
			wrong = append(wrong, errs...)
		}
	}
	if len(wrong) > 0 {
		return nil, nil, withCode(ExitUsage, config.Locate(file, text, wrong))
	}
	p := &plan{Revision: state.Revision, Changes: config.Diff(state.Spec(), spec), spec: spec}
	if p.Changes == nil {
		p.Changes = []config.Change{}
	}
	return p, state, nil
}

// readFile reads a file, or standard input for "-".
func (o *options) readFile(name string) ([]byte, error) {
	if name == "" {
		return nil, errors.New("which file? Name it with -f, or - for standard input")
	}
	if name != "-" {
		return os.ReadFile(name)
	}
	b, err := io.ReadAll(o.in)
	if err != nil {
		return nil, fmt.Errorf("read standard input: %w", err)
	}
	return b, nil
}

func newApply(o *options) *cobra.Command {
	var file string
	var remove, dry, yes bool
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Make the configuration what a file says",
		Long: `Make the volumes, their exports and the nodes' zones what a file says, as one change: all of it or nothing. What will change is printed first. Where that can hurt, such
as a volume that survives fewer losses or clients that lose access, it has to be confirmed: on a terminal when asked, elsewhere with --yes. Volumes that the file does not have are
deleted with their data only with --delete; without it, the file is refused.

If the configuration is changed by somebody else meanwhile, nothing is applied. ` + "`holdfast export-config`" + ` prints the file that describes what there is.

Exit code: 0 when the configuration is so now (with --dry-run: when it could be), 1 otherwise, 2 when the file is wrong or was not confirmed.`,
		Example: `  holdfast export-config > cluster.yaml
  holdfast apply -f cluster.yaml --dry-run
  holdfast apply -f cluster.yaml --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.client()
			if err != nil {
				return err
			}
			defer c.Close()
			p, state, err := o.makePlan(cmd.Context(), c, file)
			if err != nil {
				return err
			}
			if err := o.showPlan(p, dry); err != nil {
				return err
			}
			if gone := p.deleted(state); len(gone) > 0 && !remove {
				return usagef("the file does not have %s: to delete what it does not have, with all data in it, add --delete; to keep it, see `holdfast export-config`", list(gone))
			}
			if len(p.Changes) == 0 || dry {
				return nil
			}
			if p.dangerous() && !yes {
				if err := o.confirmPlan(cmd.Context()); err != nil {
					return err
				}
			}
			res, err := asking(cmd.Context(), o, "waiting for the cluster to accept the change", func(ctx context.Context) (cluster.Result, error) {
				return c.Do(ctx, cluster.Command{ApplySpec: &cluster.ApplySpec{Base: p.Revision, Spec: *p.spec, Delete: remove}})
			})
			if err != nil {
				return err
			}
			if o.json() {
				return o.printJSON(plan{Revision: res.Revision, Changes: p.Changes})
			}
			o.sayf("applied: the configuration is number %d now", res.Revision)
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the `file`, YAML or JSON; - for standard input")
	cmd.Flags().BoolVar(&remove, "delete", false, "delete the volumes that the file does not have, with all data in them")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only print what would change")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "what it hurts is meant")
	return cmd
}

// showPlan prints what will change. With JSON that is printed once, at the end.
func (o *options) showPlan(p *plan, last bool) error {
	if o.json() {
		if last || len(p.Changes) == 0 {
			return o.printJSON(p)
		}
		return nil
	}
	if len(p.Changes) == 0 {
		o.sayf("nothing to change: the configuration is so already")
		return nil
	}
	_, err := io.WriteString(o.out, config.Render(p.Changes))
	return err
}

func (o *options) confirmPlan(ctx context.Context) error {
	word, ok, err := o.typed(ctx, "Lines with ! hurt. Type yes to go on: ")
	switch {
	case err != nil:
		return err
	case !ok:
		return usagef("nothing was applied, for what has a danger should be confirmed: if it is meant, add --yes")
	case !strings.EqualFold(word, "yes"):
		return usagef("not confirmed: nothing was applied")
	}
	return nil
}

func newDiff(o *options) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "diff -f FILE",
		Short: "Show what a file would change",
		Long: `Show what ` + "`holdfast apply`" + ` would change: lines with + come, with - go, with ~ change; a line with ! says what the one above hurts.

Exit code: as that of diff(1), 0 when there is nothing to change, 1 when there is, 2 when they could not be compared.`,
		Example: "  holdfast diff -f cluster.yaml\n  git show HEAD~1:cluster.yaml | holdfast diff -f -",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.client()
			if err != nil {
				return err
			}
			defer c.Close()
			p, _, err := o.makePlan(cmd.Context(), c, file)
			if err != nil {
				return withCode(ExitUsage, err)
			}
			if err := o.showPlan(p, true); err != nil {
				return withCode(ExitUsage, err)
			}
			if len(p.Changes) > 0 {
				return withCode(ExitFailed, errSilent)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the `file`, YAML or JSON; - for standard input")
	return cmd
}

func newExportConfig(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "export-config",
		Short: "Print the file that describes the configuration",
		Long: `Print what is configured as a file for ` + "`holdfast apply`" + `: the volumes with their exports, and the nodes' zones. Values that are the default are left out.

Exit code: 0 when it is printed, 1 when the node did not answer.`,
		Example: "  holdfast export-config > cluster.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			state, err := ask(cmd, o, o.state)
			if err != nil {
				return err
			}
			spec := state.Spec()
			return o.print(spec, func() error {
				_, err := o.out.Write(spec.YAML())
				return err
			})
		},
	}
}
