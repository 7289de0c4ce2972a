package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
)

// eventFilter says which events to show.
type eventFilter struct{ volume, node string }

func (f *eventFilter) wants(e cluster.Event) bool {
	return (f.volume == "" || e.Volume == f.volume) && (f.node == "" || e.Node == f.node)
}

func newEvents(o *options) *cobra.Command {
	var filter eventFilter
	var follow bool
	var most int
	cmd := &cobra.Command{
		Use:   "events",
		Short: "What happened, and why",
		Long: `Show what happened in the cluster, the newest last: what was changed and by whom, which volumes moved and why, which nodes came and went. The cluster keeps the newest
thousand. With -o json, there is one JSON object a line. What is gone can be named as long as an event tells of it.

Exit code: 0 when the node answered, 1 otherwise, also when there is and was nothing of that name.`,
		Example: `  holdfast events
  holdfast events --follow
  holdfast events --volume main -n 10
  holdfast events -o json -n 0 | jq -r 'select(.kind == "move") | .text'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.client()
			if err != nil {
				return err
			}
			defer c.Close()
			all, err := asking(cmd.Context(), o, "waiting for the node's answer", func(ctx context.Context) ([]cluster.Event, error) { return o.events(ctx, c) })
			if err != nil {
				return err
			}
			var last uint64
			var shown []cluster.Event
			for _, e := range all {
				last = max(last, e.Seq)
				if filter.wants(e) {
					shown = append(shown, e)
				}
			}
			if len(shown) == 0 {
				if err := o.checkFilter(cmd, &filter, all); err != nil {
					return err
				}
			}
			if most > 0 && len(shown) > most {
				shown = shown[len(shown)-most:]
			}
			if err := o.printEvents(shown); err != nil || !follow {
				return err
			}
			return o.followEvents(cmd.Context(), c, last, &filter)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens from now on, until interrupted; --watch is the same")
	synonym(cmd, "watch", "follow")
	cmd.Flags().StringVar(&filter.volume, "volume", "", "only events of this `volume`")
	cmd.Flags().StringVar(&filter.node, "about-node", "", "only events about this `node`")
	countVar(cmd.Flags(), &most, "lines", "n", 50, 0, math.MaxInt, "how many of the newest; 0 for all")
	o.completeFlag(cmd, "volume", volumeNames)
	o.completeFlag(cmd, "about-node", nodeNames)
	return cmd
}

// checkFilter is an error if nothing is or was called what the filter names: an event tells of nodes and volumes that are gone, too.
func (o *options) checkFilter(cmd *cobra.Command, f *eventFilter, all []cluster.Event) error {
	state, err := ask(cmd, o, o.state)
	if err != nil {
		return err
	}
	volumes, nodes := volumeNames(state), nodeNames(state)
	for _, e := range all {
		volumes, nodes = append(volumes, e.Volume), append(nodes, e.Node)
	}
	for _, named := range []struct {
		what, name string
		known      []string
	}{{"volume", f.volume, volumes}, {"node", f.node, nodes}} {
		if named.name != "" && !slices.Contains(named.known, named.name) {
			known := words(slices.Compact(slices.Sorted(slices.Values(named.known))))
			return fmt.Errorf("there is no %s %q, and no event tells of one: %s", named.what, named.name, thereAre(known))
		}
	}
	return nil
}

func (o *options) events(ctx context.Context, c *api.Client) ([]cluster.Event, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askTimeout, errNoAnswer)
	defer cancel()
	list, err := c.Events(ctx, 0, false)
	return list, because(ctx, err)
}

// followEvents prints events as they happen until ctx ends. The node may be restarted meanwhile: what happened then is printed when it is back.
func (o *options) followEvents(ctx context.Context, c *api.Client, last uint64, filter *eventFilter) error {
	failing := false
	for {
		list, err := c.Events(ctx, last, true)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !failing {
			fmt.Fprintln(o.errOut, "holdfast:", err, "(trying again)")
		}
		if failing = err != nil; failing {
			if !pause(ctx, time.Second) {
				return nil
			}
			continue
		}
		var shown []cluster.Event
		for _, e := range list {
			last = max(last, e.Seq)
			if filter.wants(e) {
				shown = append(shown, e)
			}
		}
		if err := o.printEvents(shown); err != nil {
			return err
		}
	}
}

func (o *options) printEvents(events []cluster.Event) error {
	for _, e := range events {
		if !o.json() {
			if _, err := fmt.Fprintln(o.out, eventText(e)); err != nil {
				return fmt.Errorf("print: %w", err)
			}
			continue
		}
		if err := json.NewEncoder(o.out).Encode(e); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	return nil
}

func eventText(e cluster.Event) string {
	var about []string
	if e.Volume != "" {
		about = append(about, "volume "+e.Volume)
	}
	if e.Node != "" {
		about = append(about, "node "+e.Node)
	}
	text := timeText(e.Time) + "  "
	if len(about) > 0 {
		text += strings.Join(about, ", ") + ": "
	}
	text += e.Text
	if e.By != "" {
		text += " (" + e.By + ")"
	}
	return text
}

func newExplain(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "explain [VOLUME]",
		Short: "Why a volume is where it is",
		Long: `Say why a volume is served where it is, what the cluster is about to do with it, and what happened to it of late.

Exit code: 0 when the node answered, 1 otherwise.`,
		Example:           "  holdfast explain main",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: o.complete(volumeNames),
		RunE: o.withVolume(func(cmd *cobra.Command, volume string) error {
			x, err := ask(cmd, o, func(ctx context.Context, c *api.Client) (api.Explanation, error) { return c.Explain(ctx, volume) })
			if err != nil {
				return err
			}
			return o.print(x, func() error { printExplanation(o, x); return nil })
		}),
	}
}

func printExplanation(o *options, x api.Explanation) {
	leader := "nobody serves it"
	if x.Leader != "" {
		leader = "served by " + x.Leader
	}
	if !x.Since.IsZero() {
		leader += " since " + timeText(x.Since)
	}
	fmt.Fprintf(o.out, "volume %s: %s\n", x.Volume, leader)
	if x.Placement != "" {
		fmt.Fprintf(o.out, "why there:  %s\n", x.Placement)
	}
	fmt.Fprintf(o.out, "kept by:    %s\n", strings.Join(x.Members, ", "))
	if x.Plan != "" {
		fmt.Fprintf(o.out, "next:       %s\n", x.Plan)
	}
	if len(x.Events) > 0 {
		fmt.Fprintln(o.out, "\nwhat happened to it:")
	}
	for _, e := range x.Events {
		fmt.Fprintln(o.out, "  "+eventText(e))
	}
}
