package cli

import (
	"time"

	"github.com/spf13/cobra"

	"holdfast/internal/cluster"
)

func newMaintenance(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "maintenance",
		Short: "Keep volumes from moving by themselves while you work",
		Long: `In maintenance, volumes do not return to preferred nodes by themselves. They still move when the node that serves them is lost, and when somebody moves them: the
service goes on as ever.

Exit code: 2 without a subcommand.`,
		Example: "  holdfast maintenance on --for 2h --why 'new switches'\n  holdfast maintenance off",
	}
	cmd.AddCommand(newMaintenanceOn(o), newMaintenanceOff(o))
	return cmd
}

func newMaintenanceOn(o *options) *cobra.Command {
	var long time.Duration
	var why string
	cmd := &cobra.Command{
		Use:   "on",
		Short: "Begin maintenance",
		Long: `Begin maintenance, or change how long it takes. It ends after --for, or when it is turned off.

Exit code: 0 when the cluster is in maintenance, 1 otherwise.`,
		Example: "  holdfast maintenance on --for 2h --why 'new switches'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			set := cluster.SetMaintenance{On: true, Why: why}
			if long > 0 {
				set.Until = time.Now().Add(long).Round(time.Second)
			}
			res, err := o.do(cmd, cluster.Command{SetMaintenance: &set})
			if err != nil {
				return err
			}
			return o.print(res, func() error {
				until := "somebody turns it off: holdfast maintenance off"
				if long > 0 {
					until = timeText(set.Until)
				}
				o.sayf("maintenance until %s", until)
				return nil
			})
		},
	}
	spanVar(cmd.Flags(), &long, "for", 0, 0, longest, "how long, such as 2h (default: until it is turned off)")
	cmd.Flags().StringVar(&why, "why", "", "`text` for those who look at the status meanwhile")
	return cmd
}

func newMaintenanceOff(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "off",
		Short: "End maintenance",
		Long: `End maintenance.

Exit code: 0 when the cluster is not in maintenance, 1 otherwise.`,
		Example: "  holdfast maintenance off",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			res, err := o.do(cmd, cluster.Command{SetMaintenance: &cluster.SetMaintenance{}})
			if err != nil {
				return err
			}
			return o.print(res, func() error { o.sayf("maintenance is over"); return nil })
		},
	}
}
