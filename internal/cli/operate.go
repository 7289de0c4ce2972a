package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"holdfast/internal/api"
)

// volumeArg returns the named volume, or the only one the node has.
func volumeArg(cmd *cobra.Command, c *api.Client, args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	s, err := c.Status(cmd.Context())
	if err != nil {
		return "", withCode(ExitFailed, err)
	}
	var names []string
	for _, v := range s.Volumes {
		names = append(names, v.Name)
	}
	if len(names) != 1 {
		return "", fmt.Errorf("which volume? This node has %s", strings.Join(names, ", "))
	}
	return names[0], nil
}

func newCheck(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "check [VOLUME]",
		Short: "Compare the replicas of a volume",
		Long: `Ask every node for a digest of its copy of the volume, metadata, protocol state and file data included, at the same log index,
and compare. The volume stays in use; while clients write, the replicas may not meet at one index, and check says so.

Exit code: 0 when all replicas are equal, 3 when they differ, 1 when not all of them could be compared.`,
		Example: `  holdfast check
  holdfast check main -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := api.NewClient(o.data)
			volume, err := volumeArg(cmd, c, args)
			if err != nil {
				return err
			}
			res, err := c.Check(cmd.Context(), volume)
			if err != nil {
				return withCode(ExitFailed, err)
			}
			if o.json() {
				if err := o.printJSON(res); err != nil {
					return err
				}
			} else {
				printCheck(o, res)
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
		fmt.Fprintf(o.out, "volume %s: all %d replicas are equal\n", res.Volume, len(res.Replicas))
	}
}

func checkOutcome(res api.CheckResult) error {
	if len(res.Missing) > 0 {
		return withCode(ExitFailed, fmt.Errorf("volume %s: no digest from %s: check again when all are up and in sync", res.Volume, strings.Join(res.Missing, ", ")))
	}
	if !res.Equal {
		return withCode(ExitUnequal, fmt.Errorf("volume %s: replicas differ", res.Volume))
	}
	return nil
}

func newTransfer(o *options) *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:     "transfer [VOLUME]",
		Aliases: []string{"move"},
		Short:   "Hand a volume over to another node",
		Long: `Hand the leadership of a volume, and with it its address, to another node: requests in flight are finished, then the successor takes over at
once, without waiting for a timeout. Clients notice a pause of milliseconds. Ask the node that leads.

Exit code: 0 when the successor leads, 1 otherwise.`,
		Example: `  holdfast transfer --to b
  holdfast move main --to b`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := api.NewClient(o.data)
			volume, err := volumeArg(cmd, c, args)
			if err != nil {
				return err
			}
			res, err := c.Transfer(cmd.Context(), volume, to)
			if err != nil {
				var e *api.Error
				if errors.As(err, &e) && e.Status == 400 {
					return err
				}
				return withCode(ExitFailed, err)
			}
			if o.json() {
				return o.printJSON(res)
			}
			fmt.Fprintf(o.out, "volume %s: %s handed over to %s in %.0f ms\n", res.Volume, res.From, res.To, res.Seconds*1000)
			return nil
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "`node` to hand over to (default: the most up-to-date one)")
	return cmd
}
