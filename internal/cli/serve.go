package cli

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"holdfast/internal/config"
	"holdfast/internal/node"
)

func newServe(o *options, version string) *cobra.Command {
	var file, name string
	var check bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run one node of a cluster",
		Long: `Run one node of the cluster that a configuration file describes, until SIGTERM or SIGINT; then hand over what it leads and stop. The same
file serves all nodes: --node says which one this is.

Exit code: 0 after a signal, 1 when the node could not go on (its log says why), 2 when the configuration is wrong.`,
		Example: `  holdfast serve --config /etc/holdfast.yaml
  holdfast serve --config /etc/holdfast.yaml --node b
  holdfast serve --config /etc/holdfast.yaml --check   # only look for mistakes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(file, name)
			if err != nil {
				return withCode(ExitUsage, err)
			}
			if check {
				fmt.Fprintf(o.out, "%s: no mistakes found; this is node %s\n", file, cfg.Node)
				return nil
			}
			return withCode(ExitFailed, node.Run(cmd.Context(), cfg, version, newLogger(cfg.Log)))
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "/etc/holdfast.yaml", "configuration `file`")
	cmd.Flags().StringVar(&name, "node", "", "`name` of this node, if the file does not say it")
	cmd.Flags().BoolVar(&check, "check", false, "check the configuration and exit")
	return cmd
}

// newLogger makes the daemon's log on standard error. Under systemd the journal adds the time itself.
func newLogger(c config.Log) *slog.Logger {
	var level slog.Level
	// The configuration was validated: the level parses.
	_ = level.UnmarshalText([]byte(c.Level))
	opts := &slog.HandlerOptions{Level: level}
	if os.Getenv("JOURNAL_STREAM") != "" {
		opts.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, opts))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, opts))
}
