package cli

import (
	"context"

	"github.com/spf13/cobra"

	"holdfast/internal/api"
)

// withVolume makes a command of run, which gets the volume that is named, or the only one there is.
func (o *options) withVolume(run func(cmd *cobra.Command, volume string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		volume, err := o.volumeArg(cmd, args)
		if err != nil {
			return err
		}
		return run(cmd, volume)
	}
}

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
		RunE: o.withVolume(func(cmd *cobra.Command, volume string) error {
			res, err := ask(cmd, o, func(ctx context.Context, c *api.Client) (api.TransferResult, error) {
				return c.Transfer(ctx, volume, to)
			})
			if err != nil {
				return err
			}
			return o.print(res, func() error {
				if res.From == res.To {
					o.sayf("volume %s is led by %s already", res.Volume, res.To)
					return nil
				}
				o.sayf("volume %s: %s handed over to %s in %.0f ms", res.Volume, res.From, res.To, res.Seconds*1000)
				return nil
			})
		}),
	}
	cmd.Flags().StringVar(&to, "to", "", "`node` to hand over to (default: the best one that is able)")
	o.completeFlag(cmd, "to", dataNodeNames)
	return cmd
}
