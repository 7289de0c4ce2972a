package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"holdfast/internal/api"
)

// volumeArg returns the named volume, or the only one there is.
func (o *options) volumeArg(cmd *cobra.Command, args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	state, err := ask(cmd, o, o.state)
	if err != nil {
		return "", err
	}
	return pick(volumeNames(state), nil)
}

func newCheck(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "check [VOLUME]",
		Short: "Compare the copies of a volume",
		Long: `Ask every node for a digest of its copy of the volume, metadata, protocol state and file data included, at the same log index,
and compare. The volume stays in use; while clients write, the copies may not meet at one index, and check says so.

Exit code: 0 when all copies are equal, 3 when they differ, 1 when not all of them could be compared.`,
		Example: `  holdfast check
  holdfast check main -o json`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: o.complete(volumeNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			volume, err := o.volumeArg(cmd, args)
			if err != nil {
				return err
			}
			res, err := ask(cmd, o, func(ctx context.Context, c *api.Client) (api.CheckResult, error) { return c.Check(ctx, volume) })
			if err != nil {
				return err
			}
			if err := o.print(res, func() error { printCheck(o, res); return nil }); err != nil {
				return err
			}
			return checkOutcome(res)
		},
	}
}

func printCheck(o *options, res api.CheckResult) {
	for _, r := range res.Replicas {
		if r.Error != "" {
			fmt.Fprintf(o.out, "%s: %s\n", r.Node, r.Error)
			continue
		}
		fmt.Fprintf(o.out, "%s: index %d, digest %s\n", r.Node, r.Index, r.Digest)
	}
	if res.Equal {
		fmt.Fprintf(o.out, "volume %s: all %d copies are equal\n", res.Volume, len(res.Replicas))
	}
}

func checkOutcome(res api.CheckResult) error {
	if len(res.Missing) > 0 {
		return withCode(ExitFailed, fmt.Errorf("volume %s: no digest from %s: check again when all are up and in sync", res.Volume, strings.Join(res.Missing, ", ")))
	}
	if !res.Equal {
		return withCode(ExitAttention, fmt.Errorf("volume %s: the copies differ", res.Volume))
	}
	return nil
}

func newMove(o *options) *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:     "move [VOLUME]",
		Aliases: []string{"transfer"},
		Short:   "Hand a volume over to another node",
		Long: `Hand a volume, and with it its address, over to another node: requests in flight are finished, then the successor takes over at once, without waiting for a timeout. Clients
notice a pause of milliseconds. The volume has to be named unless there is only one.

Exit code: 0 when the other node serves it, 1 otherwise.`,
		Example: `  holdfast move main --to b
  holdfast move main            # to the node that is best`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: o.complete(volumeNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			volume, err := o.volumeArg(cmd, args)
			if err != nil {
				return err
			}
			res, err := ask(cmd, o, func(ctx context.Context, c *api.Client) (api.TransferResult, error) {
				return c.Transfer(ctx, volume, to)
			})
			if err != nil {
				return err
			}
			return o.print(res, func() error {
				o.sayf("volume %s: %s handed over to %s in %.0f ms", res.Volume, res.From, res.To, res.Seconds*1000)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "`node` to hand over to (default: the best one that is able)")
	o.completeFlag(cmd, "to", dataNodeNames)
	return cmd
}
