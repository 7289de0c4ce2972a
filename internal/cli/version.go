package cli

import (
	"runtime"

	"github.com/spf13/cobra"

	"holdfast/internal/cluster"
)

func newVersion(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print which release this is",
		Long: `Print which release this program is, and the newest cluster version that it supports. What the nodes run, ` + "`holdfast status`" + ` shows.

Exit code: 0.`,
		Example: "  holdfast version\n  holdfast version -o json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Release        string `json:"release"`
				ClusterVersion uint32 `json:"cluster_version"`
				Go             string `json:"go"`
				Platform       string `json:"platform"`
			}{o.release, cluster.MaxVersion, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			return o.print(v, func() error {
				o.sayf("holdfast %s, cluster version %d, %s, %s", v.Release, v.ClusterVersion, v.Go, v.Platform)
				return nil
			})
		},
	}
}
