package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"holdfast/internal/config"
	"holdfast/internal/doctor"
)

func newDoctor(o *options) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at the machine for what will make trouble",
		Long: `Check the machine: disk, clock, memory, kernel, ports, firewall, names, the way to the other nodes. Where a node runs it is asked, for it knows the cluster; before that, run
it to see whether the machine can become one. Nothing is changed.

Exit code: 0 when nothing was found that matters, 3 when something needs a person, 1 when the checks could not run.`,
		Example: "  holdfast doctor\n  holdfast doctor --all\n  holdfast --node b.example.com --cert admin.pem doctor",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			results, err := o.examine(cmd)
			if err != nil {
				return err
			}
			if err := o.print(results, func() error { return printDoctor(o, results, all) }); err != nil {
				return err
			}
			for _, r := range results {
				if r.Status == doctor.Warning || r.Status == doctor.Problem {
					return withCode(ExitAttention, errSilent)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "also print what is well and what was left out")
	return cmd
}

// examine asks the node, or looks itself where none runs.
func (o *options) examine(cmd *cobra.Command) ([]doctor.Result, error) {
	c, err := o.client()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if o.node == "" {
		ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
		defer cancel()
		if _, err := c.Status(ctx, true); err != nil {
			return asking(cmd.Context(), o, "looking at the machine", func(ctx context.Context) ([]doctor.Result, error) {
				return doctor.Run(ctx, o.machine()), nil
			})
		}
	}
	return asking(cmd.Context(), o, "the node looks at its machine", c.Doctor)
}

// machine says what is to be expected of a machine that no node runs on.
func (o *options) machine() doctor.Config {
	return doctor.Config{
		Data: o.dataDir(), Reserve: uint64(config.NewVolume("").Reserve),
		Listen: o.local().Listen, NFS: []string{fmt.Sprintf(":%d", config.DefaultNFSPort)}, Portmap: true,
	}
}

func printDoctor(o *options, results []doctor.Result, all bool) error {
	p := o.painter()
	counts := map[doctor.Status]int{}
	for _, r := range results {
		counts[r.Status]++
		mark := map[doctor.Status]cell{
			doctor.OK: {"ok       ", good}, doctor.Warning: {"WARNING  ", warn}, doctor.Problem: {"PROBLEM  ", bad}, doctor.Skipped: {"left out ", plain},
		}[r.Status]
		if (r.Status == doctor.OK || r.Status == doctor.Skipped) && !all {
			continue
		}
		fmt.Fprintf(o.out, "%s%s: %s\n", p.paint(mark.style, mark.text), r.Name, r.Found)
		if r.Advice != "" {
			fmt.Fprintf(o.out, "         -> %s\n", r.Advice)
		}
	}
	_, err := fmt.Fprintf(o.out, "%s, %s; %d checks are fine, %d were left out\n",
		count(counts[doctor.Problem], "problem", "problems"), count(counts[doctor.Warning], "warning", "warnings"), counts[doctor.OK], counts[doctor.Skipped])
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
