package cli

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"holdfast/internal/api"
)

func newStatus(o *options) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show nodes, roles, indexes, leases, clients and space",
		Long: `Show what the local node knows: who leads which volume, how far each replica is, how long the lease still runs, which clients
are there and how much room is left. Ask the leader's node for the replicas and the clients: only it knows them.

Exit code: 0 when the node answered, 1 when it did not.`,
		Example: `  holdfast status
  holdfast status --watch
  holdfast status -o json | jq '.volumes[].leader'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := api.NewClient(o.data)
			for {
				s, err := c.Status(cmd.Context())
				if err != nil {
					return withCode(ExitFailed, err)
				}
				if o.json() {
					err = o.printJSON(s)
				} else {
					err = printStatus(o, s)
				}
				if err != nil || !watch {
					return err
				}
				if !pause(cmd.Context(), time.Second) {
					return nil
				}
				fmt.Fprintln(o.out)
			}
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "print again every second until interrupted")
	return cmd
}

// pause waits for d; false means that ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func printStatus(o *options, s api.Status) error {
	for _, w := range s.Warnings {
		fmt.Fprintln(o.out, "WARNING:", w)
	}
	fmt.Fprintf(o.out, "node %s (id %d), up %s, %s of memory, holdfast %s\n", s.Node, s.ID, time.Since(s.Started).Round(time.Second), bytesText(s.RSSBytes), s.Version)
	tw := tabwriter.NewWriter(o.out, 2, 8, 2, ' ', 0)
	for _, n := range s.Nodes {
		state := map[api.NodeState]string{
			api.NodeSelf: "this node", api.NodeAnswers: "answers", api.NodeSilent: "DOES NOT ANSWER", api.NodeUnknown: "ask the leader",
		}[n.State]
		fmt.Fprintf(tw, "  %s\tid %d\t%s\t%s\n", n.Name, n.ID, n.Peer, state)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, v := range s.Volumes {
		printVolume(o, tw, v)
		// Each table has columns of its own: a client's long name does not move the others'.
		for _, table := range []func(*tabwriter.Writer, api.VolumeStatus){printReplicas, printClients} {
			if err := tw.Flush(); err != nil {
				return err
			}
			table(tw, v)
		}
		if err := tw.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func printVolume(o *options, tw *tabwriter.Writer, v api.VolumeStatus) {
	leader := v.Leader
	if leader == "" {
		leader = "nobody"
	}
	fmt.Fprintf(o.out, "\nvolume %s: led by %s, term %d; this node is %s\n", v.Name, leader, v.Term, v.Role)
	serving := "no"
	if v.Serving {
		serving = fmt.Sprintf("yes, lease runs %d ms more", v.LeaseMS)
	}
	fmt.Fprintf(tw, "  serving here\t%s\n", serving)
	fmt.Fprintf(tw, "  address\t%s\n", v.Address)
	fmt.Fprintf(tw, "  exports\t%s\n", strings.Join(v.Exports, ", "))
	fmt.Fprintf(tw, "  log\tentries %d to %d, committed %d, applied %d; %d segments, %s; last sync %d us\n",
		v.First, v.Last, v.Commit, v.Applied, v.Log.Segments, bytesText(v.Log.Bytes), v.Log.LastSyncUS)
	full := ""
	if v.Space.Full {
		full = "; FULL: growth is refused until a replica has more room"
	}
	fmt.Fprintf(tw, "  space\t%s free of %s%s\n", bytesText(v.Space.FreeBytes), bytesText(v.Space.TotalBytes), full)
}

func printReplicas(tw *tabwriter.Writer, v api.VolumeStatus) {
	if len(v.Replicas) > 0 {
		fmt.Fprintln(tw, "  replica\tstate\thas\tbehind")
	}
	for _, r := range v.Replicas {
		state := "in sync"
		switch {
		case r.Snapshot:
			state = "receiving a snapshot"
		case !r.Active:
			state = "not answering"
		case !r.InSync:
			state = "catching up"
		}
		fmt.Fprintf(tw, "  %s\t%s\t%d\t%d\n", r.Node, state, r.Match, r.Lag)
	}
}

func printClients(tw *tabwriter.Writer, v api.VolumeStatus) {
	if len(v.Clients) > 0 {
		fmt.Fprintln(tw, "  client\taddress\tsessions\topens\tlocks")
	}
	for _, c := range v.Clients {
		fmt.Fprintf(tw, "  %s\t%s\t%d\t%d\t%d\n", printable(c.Owner), c.Address, c.Sessions, c.Opens, c.Locks)
	}
}

// printable cuts a name that a client chose to what a terminal can show.
func printable(s string) string {
	const most = 40
	clean := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if r := []rune(clean); len(r) > most {
		clean = string(r[:most-1]) + "…"
	}
	return clean
}

// bytesText writes a number of bytes for people.
func bytesText(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n), -1
	for v >= unit && i < len("KMGTPE")-1 {
		v /= unit
		i++
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTPE"[i])
}
