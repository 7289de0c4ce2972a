package cli

import (
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"holdfast/internal/config"
	"holdfast/internal/node"
)

func newServe(o *options) *cobra.Command {
	var file, listen string
	var check bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the node on this machine",
		Long: `Run the node that ` + "`holdfast init`" + ` or ` + "`holdfast join`" + ` made, until SIGTERM or SIGINT; then hand over what it leads and stop. What is configured is in the cluster; a
file may say what is this machine's own, such as the data folder and the level of the log. There need not be one.

Exit code: 0 after a signal, 1 when the node could not go on (its log says why), 2 when the file is wrong.`,
		Example: `  holdfast serve
  holdfast serve --data /srv/holdfast --listen :7430
  holdfast serve --config /etc/holdfast/holdfast.yaml --check   # only look for mistakes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.node != "" || o.cert != "" {
				return usagef("--node and --cert are for talking to a node; this runs one")
			}
			if file == "" {
				file = o.localFile
			}
			local, err := config.LoadLocal(file)
			if err != nil {
				return withCode(ExitUsage, err)
			}
			if o.data != "" || os.Getenv("HOLDFAST_DATA") != "" {
				local.Data = o.dataDir()
			}
			if listen != "" {
				local.Listen = listen
			}
			if check {
				return o.print(local, func() error {
					o.sayf("no mistakes found; the data folder is %s", local.Data)
					return nil
				})
			}
			log := newLogger(local.Log)
			warnOwner(log, local.Data)
			return node.Run(cmd.Context(), local, o.release, log)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "the node's own configuration `file` (default: "+config.DefaultLocalPath+", if it is there)")
	cmd.Flags().StringVar(&listen, "listen", "", "`host:port` of the node's one port, in place of the file's")
	cmd.Flags().BoolVar(&check, "check", false, "check the file and exit; with -o json, print what it comes to")
	return cmd
}

// warnOwner warns of what keeps the service from running again: root makes files in a folder that belongs to the service's user.
func warnOwner(log *slog.Logger, dir string) {
	info, err := os.Stat(dir)
	if err != nil || os.Geteuid() != 0 {
		return
	}
	if uid, _, ok := ownerOf(info); ok && uid != 0 {
		log.Warn("the data folder belongs to another user, who cannot use the files that root makes in it now: stop this, give the folder back with chown -R, and start the service (systemctl start holdfast)",
			"data", dir, "owner", uid)
	}
}

// newLogger makes the daemon's log on standard error. Under systemd the journal adds the time itself.
func newLogger(c config.Logging) *slog.Logger {
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
