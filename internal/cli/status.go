package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/internal/api"
)

func newStatus(o *options) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Is my data safe, who serves what, what needs me",
		Long: `Show the whole cluster on one screen: first the verdict, then what to do, the volumes and the nodes. ` + "`holdfast volume show NAME`" + ` has more of a
volume, its clients and its log for example.

A volume is "safe" when every copy that is wanted is in sync; "reduced" when a copy is missing or catches up and yet another loss is survived; "at risk" when
the next loss stops it or costs the newest data; "down" when nobody serves it.

Exit code: 0 when all is well, 3 when something needs a person, 1 when no node answered.`,
		Example: `  holdfast status
  holdfast status --watch
  holdfast status -o json | jq '.volumes[].leader'
  holdfast status >/dev/null || echo "look at the file server"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.client()
			if err != nil {
				return err
			}
			defer c.Close()
			if watch {
				return watchStatus(cmd.Context(), o, c)
			}
			s, err := asking(cmd.Context(), o, "waiting for the node's answer", func(ctx context.Context) (api.Status, error) { return o.status(ctx, c) })
			if err != nil {
				return err
			}
			if err := o.print(s, func() error { return printStatus(o, s) }); err != nil {
				return err
			}
			if judge(s).style != good {
				return withCode(ExitAttention, errSilent)
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again every second until interrupted")
	return cmd
}

const watchInterval = time.Second

// watchStatus shows the status until ctx ends. A node that does not answer for a while is what one watches for.
func watchStatus(ctx context.Context, o *options, c *api.Client) error {
	screen := !o.json() && isTerminal(o.out)
	for {
		s, err := o.status(ctx, c)
		if ctx.Err() != nil {
			return nil
		}
		if screen {
			fmt.Fprint(o.out, "\x1b[H\x1b[2J")
		}
		switch {
		case err != nil && screen:
			fmt.Fprintln(o.out, o.painter().paint(bad, err.Error()))
		case err != nil:
			fmt.Fprintln(o.errOut, "holdfast:", err)
		default:
			if err := o.print(s, func() error { return printStatus(o, s) }); err != nil {
				return err
			}
		}
		if !pause(ctx, watchInterval) {
			return nil
		}
		if !screen && !o.json() {
			fmt.Fprintln(o.out)
		}
	}
}

// judge sums a status up in a line.
func judge(s api.Status) cell {
	names := map[api.Safety][]string{}
	for _, v := range s.Volumes {
		safety := v.Safety
		if !v.Serving && v.Leader == "" {
			safety = api.SafetyDown
		}
		names[safety] = append(names[safety], v.Name)
	}
	var silent []string
	for _, n := range s.Nodes {
		if n.State == api.NodeSilent {
			silent = append(silent, n.Name)
		}
	}
	volumes := func(safety api.Safety) string {
		if n := names[safety]; len(n) > 1 {
			return "volumes " + list(n) + " are "
		}
		return "volume " + list(names[safety]) + " is "
	}
	switch {
	case s.Removed != "":
		return cell{"REMOVED: node " + s.Node + " is no node of the cluster any more. What follows is what it knew last; for what is so ask another node.", bad}
	case s.CutOff():
		return cell{"CUT OFF: node " + s.Node + " and the others do not accept each other's certificates. What follows is what it knows by itself; for what is so ask another node.", bad}
	case len(names[api.SafetyDown]) > 0:
		return cell{"DOWN: " + volumes(api.SafetyDown) + "served by nobody." + silentText(silent), bad}
	case len(names[api.SafetyNone]) > 0:
		return cell{"AT RISK: " + volumes(api.SafetyNone) + "served, but the next loss stops it or costs the newest data." + silentText(silent), bad}
	case len(names[api.SafetyReduced]) > 0:
		return cell{"REDUCED: all volumes are served and survive another loss, but " + volumes(api.SafetyReduced) + "without a copy." + silentText(silent), warn}
	case s.ClusterLeader == "":
		return cell{"ATTENTION: all volumes are safe and served, but nothing can be configured: the cluster's own group has no leader." + silentText(silent), warn}
	case len(silent) > 0:
		return cell{"ATTENTION: all volumes are safe and served." + silentText(silent), warn}
	case len(s.Warnings) > 0:
		return cell{"ATTENTION: all volumes are safe and served, but something needs you.", warn}
	case len(s.Volumes) == 0:
		return cell{"OK: there is no volume yet. Make one with `holdfast volume create`.", good}
	}
	return cell{"OK: all volumes are safe and served. Nothing needs you.", good}
}

func silentText(nodes []string) string {
	switch len(nodes) {
	case 0:
		return ""
	case 1:
		return " Node " + nodes[0] + " does not answer."
	}
	return " Nodes " + list(nodes) + " do not answer."
}

func printStatus(o *options, s api.Status) error {
	p := o.painter()
	verdict := judge(s)
	fmt.Fprintln(o.out, p.paint(verdict.style, verdict.text))
	for _, w := range s.Warnings {
		fmt.Fprintln(o.out, p.paint(warn, "  ! ")+w)
	}
	if s.Maintenance != "" {
		fmt.Fprintln(o.out, p.paint(warn, "  maintenance: ")+s.Maintenance)
	}
	if len(s.Volumes) > 0 {
		fmt.Fprintln(o.out)
		t := newTable("VOLUME", "STATE", "LED BY", "ADDRESS", "COPIES", "USED", "CLIENTS")
		for _, v := range s.Volumes {
			t.row(v.Name, safetyCell(v), leaderText(v), v.Address, copiesText(v), usedText(v), clientsText(v))
		}
		if err := t.print(o.out, p); err != nil {
			return err
		}
	}
	fmt.Fprintln(o.out)
	if err := printNodes(o, s); err != nil {
		return err
	}
	leads := s.ClusterLeader
	if leads == "" {
		leads = p.paint(bad, "nobody")
	}
	_, err := fmt.Fprintf(o.out, "\ncluster %s, version %d, configuration %d, led by %s%s\nnode %s answered, up %s, %s of memory\n",
		s.Cluster, s.ClusterVersion, s.Revision, leads, votesText(p, &s.Group), s.Node, spanText(time.Since(s.Started)), bytesText(s.RSSBytes))
	return err
}

// votesText says who decides what is configured.
func votesText(p painter, g *api.ClusterGroup) string {
	if len(g.Voters) == 0 {
		return "" // a node of an earlier release
	}
	var names, silent []string
	for _, v := range g.Voters {
		names = append(names, v.Node)
		if v.State == api.NodeSilent {
			silent = append(silent, v.Node)
		}
	}
	here := len(names) - len(silent)
	text := fmt.Sprintf("; %s vote", list(names))
	switch {
	case len(names) == 1:
		text = fmt.Sprintf("; %s alone votes", names[0])
	case len(silent) == 0:
		text += fmt.Sprintf(", %d must be there and all are", g.Majority)
	case here < g.Majority:
		text += ", " + p.paint(bad, fmt.Sprintf("%d must be there and %d are", g.Majority, here))
	default:
		text += ", " + p.paint(warn, fmt.Sprintf("%d must be there and %d are", g.Majority, here))
	}
	if g.Changing {
		text += "; that is changing"
	}
	return text
}

func safetyCell(v api.VolumeStatus) cell {
	switch {
	case v.OneCopy:
		return cell{"one copy", bad}
	case v.Safety == api.SafetyFull && !v.Serving && v.Role == "leader":
		return cell{"taking over", warn}
	case v.Space.Full:
		return cell{string(v.Safety) + ", full", bad}
	case v.Safety == api.SafetyFull:
		return cell{string(v.Safety), good}
	case v.Safety == api.SafetyReduced:
		return cell{string(v.Safety), warn}
	}
	return cell{string(v.Safety), bad}
}

func leaderText(v api.VolumeStatus) string {
	if v.Leader == "" {
		return "nobody"
	}
	return v.Leader
}

// copiesText says how many copies are in sync, and what the others do.
func copiesText(v api.VolumeStatus) string {
	if len(v.Replicas) == 0 {
		return strings.Join(v.Members, " ")
	}
	insync, votes, notes := 0, "", []string{}
	for _, r := range v.Replicas {
		switch {
		case r.Witness && r.Active:
			votes = " and a witness"
		case r.Witness:
			notes = append(notes, "witness "+r.Node+" does not answer")
		case r.InSync && r.Active:
			insync++
		default:
			notes = append(notes, r.Node+" "+replicaState(r))
		}
	}
	text := fmt.Sprintf("%d of %d%s", insync, v.Copies, votes)
	if len(notes) > 0 {
		text += ": " + strings.Join(notes, ", ")
	}
	return text
}

// replicaState says what a copy does.
func replicaState(r api.ReplicaStatus) string {
	var text string
	switch {
	case !r.Active:
		return "does not answer"
	case r.Snapshot:
		text = "receives a copy, " + bytesText(uint64(max(r.SentBytes, 0))) + " so far"
	case r.Witness:
		return "votes"
	case r.InSync && !r.Learner:
		return "in sync"
	default:
		text = fmt.Sprintf("catches up, %d behind", r.Lag)
	}
	if r.Rate > 0 {
		text += ", " + bytesText(uint64(r.Rate)) + "/s"
	}
	if r.Remaining > 0 {
		text += ", " + spanText(time.Duration(r.Remaining*float64(time.Second))) + " left"
	}
	return text
}

func usedText(v api.VolumeStatus) string {
	if v.SizeBytes == 0 {
		return bytesText(v.UsedBytes)
	}
	return bytesText(v.UsedBytes) + " of " + bytesText(v.SizeBytes)
}

func clientsText(v api.VolumeStatus) string {
	if v.Leader == "" {
		return "-"
	}
	return fmt.Sprint(len(v.Clients))
}

func printNodes(o *options, s api.Status) error {
	leads := map[string][]string{}
	for _, v := range s.Volumes {
		leads[v.Leader] = append(leads[v.Leader], v.Name)
	}
	t := newTable("NODE", "ROLE", "STATE", "ADDRESS", "ZONE", "RELEASE", "LEADS")
	for _, n := range s.Nodes {
		t.row(n.Name, n.Role, nodeCell(n), n.Peer, n.Zone, n.Release, strings.Join(leads[n.Name], " "))
	}
	return t.print(o.out, o.painter())
}

func nodeCell(n api.NodeStatus) cell {
	c := cell{"answers", good}
	switch n.State {
	case api.NodeSilent:
		c = cell{"DOES NOT ANSWER", bad}
	case api.NodeRefuses:
		c = cell{"REFUSES CERTIFICATE", bad}
	case api.NodeExpired:
		c = cell{"CERTIFICATE ENDED", bad}
	case api.NodeUnknown:
		c = cell{"not asked yet", plain}
	}
	if n.Standby {
		c.text += ", standby"
	}
	if n.Leaving {
		c.text += ", being removed"
	}
	if n.Standby || n.Leaving {
		if c.style == good {
			c.style = warn
		}
	}
	return c
}
