package cli

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"holdfast/internal/api"
	"holdfast/internal/config"
	"holdfast/internal/drill"
)

// rehearsal is what a drill prints for programs.
type rehearsal struct {
	Volume string `json:"volume"`
	drill.Result
	OK bool `json:"ok"`
}

func newDrill(o *options) *cobra.Command {
	var cfg drill.Config
	var to string
	var back bool
	cmd := &cobra.Command{
		Use:   "drill [VOLUME]",
		Short: "Rehearse a failover and measure what a client notices",
		Long: `Mount an export of the volume from this machine as a client does, write to it without a pause, each write stable before the next, hold a lock, and move the volume to another
node in the middle of that. Then read back all that was acknowledged and test the lock. What counts is the outage: the longest time between two acknowledged writes.

This is a real failover: all clients of the volume wait as long. The drill needs an export that this machine may write to; it makes a small file there, and removes it.
No kernel's client is involved and nothing is mounted in the sense of mount(8), so no privilege is needed.

Exit code: 0 when nothing failed, 1 otherwise.`,
		Example: `  holdfast drill main --back          # there and back again
  holdfast drill main --to b --export /data
  holdfast drill main -o json | jq '.outages[].outage_ms'`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: o.complete(volumeNames),
		RunE: o.withVolume(func(cmd *cobra.Command, volume string) error {
			if err := o.whatToMount(cmd, volume, &cfg); err != nil {
				return err
			}
			c, err := o.client()
			if err != nil {
				return err
			}
			defer c.Close()
			cfg.Moves = moves(c, volume, to, back)
			p := o.progress()
			cfg.Note = p.say
			res, err := drill.Run(cmd.Context(), cfg)
			p.end()
			if err != nil {
				return err
			}
			if err := o.print(rehearsal{volume, res, res.OK()}, func() error { printDrill(o, res); return nil }); err != nil {
				return err
			}
			if !res.OK() {
				return fmt.Errorf("the drill of volume %s failed: a client must never notice more than a pause", volume)
			}
			return nil
		}),
	}
	cmd.Flags().StringVar(&cfg.Export, "export", "", "`path` of the export to write to (default: the volume's first)")
	cmd.Flags().StringVar(&to, "to", "", "`node` to move to (default: the best one that is able)")
	cmd.Flags().BoolVar(&back, "back", false, "move back at the end, and measure that too")
	spanVar(cmd.Flags(), &cfg.Calm, "calm", 0, time.Millisecond, time.Hour, "how long to write before and after each move (default 2s)")
	o.completeFlag(cmd, "to", dataNodeNames)
	o.completeFlag(cmd, "export", exportPaths)
	return cmd
}

// whatToMount finds out where the volume is mounted.
func (o *options) whatToMount(cmd *cobra.Command, volume string, cfg *drill.Config) error {
	state, err := ask(cmd, o, o.state)
	if err != nil {
		return err
	}
	v := state.Volume(volume)
	switch {
	case v == nil:
		return noVolume(state, volume)
	case len(v.Spec.Exports) == 0:
		return fmt.Errorf("volume %s exports nothing that could be mounted: see `holdfast export add --help`", volume)
	case cfg.Export == "":
		cfg.Export = v.Spec.Exports[0].Path
	case exportAt(&v.Spec, cfg.Export) == nil:
		return noExport(&v.Spec, cfg.Export)
	}
	to := v.Spec.MountAddr()
	cfg.Address = to.String()
	if o.node == "" && v.Spec.Address.Kind == config.AddressIP {
		// This is a node.
		status, err := ask(cmd, o, func(ctx context.Context, c *api.Client) (api.Status, error) { return c.Status(ctx, true) })
		if err != nil {
			return err
		}
		if n := state.NodeNamed(status.Node); n != nil {
			cfg.From = ownAddress(n.Peer, to.Addr())
		}
	}
	return nil
}

// ownAddress is the address of a node with this peer address, if it is one and of the family of to.
func ownAddress(peer string, to netip.Addr) netip.Addr {
	a, err := netip.ParseAddrPort(peer)
	if err != nil || a.Addr().Is4() != to.Is4() {
		return netip.Addr{}
	}
	return a.Addr()
}

// moves moves a volume away, and back if that is wanted.
func moves(c *api.Client, volume, to string, back bool) []drill.Move {
	home := ""
	list := []drill.Move{func(ctx context.Context) (string, string, error) {
		res, err := c.Transfer(ctx, volume, to)
		home = res.From
		return res.From, res.To, err
	}}
	if back {
		list = append(list, func(ctx context.Context) (string, string, error) {
			res, err := c.Transfer(ctx, volume, home)
			return res.From, res.To, err
		})
	}
	return list
}

func printDrill(o *options, res drill.Result) {
	p := o.painter()
	for _, x := range res.Outages {
		fmt.Fprintf(o.out, "%s -> %s: the client waited %.0f ms (the move took %.0f ms)\n", x.From, x.To, x.OutageMS, x.MoveMS)
	}
	fmt.Fprintf(o.out, "%d writes of 4 KiB to %s:%s acknowledged, typically in %.1f ms; %s\n",
		res.Writes, res.Address, res.Export, res.TypicalMS, count(int(res.Reconnects), "reconnection", "reconnections"))
	for _, f := range res.Failures {
		fmt.Fprintln(o.out, p.paint(bad, "FAILED: ")+f)
	}
	if res.OK() {
		fmt.Fprintln(o.out, p.paint(good, "nothing was lost: every acknowledged write was read back, and the lock was held throughout"))
	}
}
