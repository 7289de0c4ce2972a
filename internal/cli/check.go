package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
)

func newCheck(o *options) *cobra.Command {
	var repair bool
	var wrong string
	cmd := &cobra.Command{
		Use:   "check [VOLUME]",
		Short: "Compare the copies of a volume",
		Long: `Ask every node for a digest of its copy of the volume, metadata, protocol state and file data included, at the same log index,
and compare. The volume stays in use. File data that changes while it is read is read anew; where clients never cease to write, they wait with that for a moment, a second at
most, if the data can be read in that time. If it cannot, the check goes on for some minutes and then says so.

With --repair, a copy that differs from most of the others is thrown away and made anew from them, while the volume stays in use. Of two copies that differ nobody can say which is right:
look at the disks and the kernel's log of both nodes, and name the wrong one with --wrong.

Exit code: 0 when all copies are equal (with --repair: in the end), 3 when they differ, 1 when not all of them could be compared.`,
		Example: `  holdfast check
  holdfast check main -o json
  holdfast check main --repair
  holdfast check main --repair --wrong b`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: o.complete(volumeNames),
		RunE: o.withVolume(func(cmd *cobra.Command, volume string) error {
			if wrong != "" && !repair {
				return withCode(ExitUsage, fmt.Errorf("--wrong says which copy --repair is to make anew: give both"))
			}
			res, err := o.compare(cmd.Context(), volume)
			if err != nil {
				return err
			}
			if repair && !res.Equal {
				if err := o.repair(cmd, res, wrong); err != nil {
					return err
				}
				if res, err = o.compare(cmd.Context(), volume); err != nil {
					return err
				}
			}
			if err := o.print(res, func() error { printCheck(o, res); return nil }); err != nil {
				return err
			}
			return checkOutcome(res)
		}),
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "make copies that differ from most of the others anew")
	cmd.Flags().StringVar(&wrong, "wrong", "", "`node` whose copy is the wrong one")
	o.completeFlag(cmd, "wrong", dataNodeNames)
	return cmd
}

// compare asks for a comparison of a volume's copies, and says meanwhile how far it is.
func (o *options) compare(ctx context.Context, volume string) (api.CheckResult, error) {
	c, err := o.client()
	if err != nil {
		return api.CheckResult{}, err
	}
	defer c.Close()
	var res api.CheckResult
	asked := make(chan error, 1)
	go func() {
		var err error
		res, err = c.Check(ctx, volume)
		asked <- err
	}()
	p := o.progress()
	defer p.end()
	tick := time.NewTicker(max(o.patience/2, o.poll))
	defer tick.Stop()
	for {
		select {
		case err := <-asked:
			return res, err
		case <-tick.C:
			if s, err := o.status(ctx, c); err == nil {
				if v := volumeStatus(&s, volume); v != nil && v.Check != "" {
					p.say("volume " + volume + ": " + v.Check)
				}
			}
		}
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
		fmt.Fprintf(o.out, "volume %s: all %d copies are equal\n", res.Volume, len(res.Replicas))
	}
}

func checkOutcome(res api.CheckResult) error {
	if len(res.Missing) > 0 {
		return withCode(ExitFailed, fmt.Errorf("volume %s: no digest from %s: check again when all are up and in sync", res.Volume, strings.Join(res.Missing, ", ")))
	}
	if damaged := damagedCopies(res); len(damaged) > 0 {
		return withCode(ExitAttention, fmt.Errorf("volume %s: damaged on %s: look at the disk there; `holdfast check %s --repair` makes the copy anew", res.Volume, strings.Join(damaged, ", "), res.Volume))
	}
	if !res.Equal {
		return withCode(ExitAttention, fmt.Errorf("volume %s: the copies differ: `holdfast check %s --repair` makes the wrong one anew", res.Volume, res.Volume))
	}
	return nil
}

// damagedCopies returns the nodes whose copies could not be read.
func damagedCopies(res api.CheckResult) []string {
	var nodes []string
	for _, r := range res.Replicas {
		if r.Damaged {
			nodes = append(nodes, r.Node)
		}
	}
	return nodes
}

// wrongCopies returns the nodes whose copies are damaged, or differ from those of most. named is the node that a person holds for the wrong one, if any: its copy may be one that
// cannot even be read.
func wrongCopies(res api.CheckResult, named string) ([]string, error) {
	if err := checkOutcome(res); len(res.Missing) > 0 && !slices.Equal(res.Missing, []string{named}) {
		return nil, err
	}
	count := map[string]int{}
	for _, r := range res.Replicas {
		if !r.Damaged {
			count[r.Digest]++
		}
	}
	if named != "" {
		if !slices.ContainsFunc(res.Replicas, func(r api.ReplicaDigest) bool { return r.Node == named }) {
			return nil, withCode(ExitUsage, fmt.Errorf("node %s keeps no copy of volume %s", named, res.Volume))
		}
		return []string{named}, nil
	}
	wrong := damagedCopies(res)
	if len(count) == 1 {
		return wrong, nil // those that can be read agree, or there is only one
	}
	for _, r := range res.Replicas {
		if !r.Damaged && 2*count[r.Digest] <= len(res.Replicas) {
			wrong = append(wrong, r.Node)
		}
	}
	if len(wrong) == len(res.Replicas) {
		return nil, withCode(ExitAttention, fmt.Errorf("volume %s: no copy agrees with most of the others, so that nobody can say which is right: look at the disks and the kernel's log of %s, and name the wrong one with --wrong",
			res.Volume, strings.Join(wrong, ", ")))
	}
	return wrong, nil
}

// repair has wrong copies made anew, one after the other.
func (o *options) repair(cmd *cobra.Command, res api.CheckResult, named string) error {
	wrong, err := wrongCopies(res, named)
	if err != nil {
		return err
	}
	if err := o.leadElsewhere(cmd, res, wrong); err != nil {
		return err
	}
	for _, node := range wrong {
		why := "it differs from the others"
		if slices.Contains(damagedCopies(res), node) {
			why = "it is damaged"
		}
		if slices.Contains(res.Missing, node) {
			why = "it cannot be compared with the others"
			if err := o.mustAnswer(cmd, node); err != nil {
				return err
			}
		}
		o.sayf("volume %s: the copy on node %s is made anew", res.Volume, node)
		rebuild := cluster.Command{RebuildCopy: &cluster.RebuildCopy{Volume: res.Volume, Node: node, Why: why}}
		if _, err := ask(cmd, o, func(ctx context.Context, c *api.Client) (cluster.Result, error) { return c.Do(ctx, rebuild) }); err != nil {
			return err
		}
		if err := o.awaitRebuilt(cmd, res.Volume, node); err != nil {
			return err
		}
	}
	return nil
}

// leadElsewhere moves a volume to a node whose copy is right: new copies are made of the leader's.
func (o *options) leadElsewhere(cmd *cobra.Command, res api.CheckResult, wrong []string) error {
	right := slices.IndexFunc(res.Replicas, func(r api.ReplicaDigest) bool { return r.Digest != "" && !slices.Contains(wrong, r.Node) })
	if right < 0 {
		return withCode(ExitAttention, fmt.Errorf("volume %s: there is no good copy to make others of: restore a backup (`holdfast restore`)", res.Volume))
	}
	s, err := ask(cmd, o, o.status)
	if err != nil {
		return err
	}
	v := volumeStatus(&s, res.Volume)
	if v == nil || !slices.Contains(wrong, v.Leader) {
		return nil
	}
	to := res.Replicas[right].Node
	_, err = ask(cmd, o, func(ctx context.Context, c *api.Client) (api.TransferResult, error) {
		return c.Transfer(ctx, res.Volume, to)
	})
	if err != nil {
		return err
	}
	o.sayf("volume %s: moved from node %s, whose copy is wrong, to %s", res.Volume, v.Leader, to)
	return nil
}

// mustAnswer is an error unless a node is up: one that is not may have a good copy, and could not make another.
func (o *options) mustAnswer(cmd *cobra.Command, node string) error {
	s, err := ask(cmd, o, o.status)
	if err != nil {
		return err
	}
	for _, n := range s.Nodes {
		switch {
		case n.Name != node:
		case n.State == api.NodeRefuses, n.State == api.NodeExpired:
			return fmt.Errorf("node %s cannot be reached because of a certificate, so that its copy cannot be made anew: see `holdfast status`", node)
		case n.State == api.NodeSilent:
			return fmt.Errorf("node %s does not answer, so that its copy cannot be made anew: start it, or replace it (`holdfast node replace %s`)", node, node)
		}
	}
	return nil
}

// awaitRebuilt waits until a copy was thrown away and is in sync again.
func (o *options) awaitRebuilt(cmd *cobra.Command, volume, node string) error {
	c, err := o.client()
	if err != nil {
		return err
	}
	defer c.Close()
	return o.await(cmd.Context(), func(ctx context.Context) (string, bool, error) {
		state, err := c.State(ctx)
		if err != nil {
			return "", false, err
		}
		v := state.Volume(volume)
		if v == nil {
			return "", false, fmt.Errorf("volume %s was deleted meanwhile", volume)
		}
		if len(v.Rebuild) > 0 || len(v.Former) > 0 {
			return "waiting until node " + node + " has thrown its copy away", false, nil
		}
		status, err := c.Status(ctx, false)
		if err != nil {
			return "", false, err
		}
		for _, vs := range status.Volumes {
			for _, r := range vs.Replicas {
				if vs.Name == volume && r.Node == node {
					return rebuildText(r), r.InSync && !r.Learner, nil
				}
			}
		}
		return "waiting until node " + node + " gets a copy", false, nil
	})
}

// rebuildText says how far a copy is.
func rebuildText(r api.ReplicaStatus) string {
	text := "node " + r.Node + " is getting its copy"
	if r.Snapshot {
		text += ": " + bytesText(uint64(r.SentBytes))
	}
	if r.Remaining > 0 {
		text += fmt.Sprintf(" at %s/s, %.0f s left", bytesText(uint64(r.Rate)), r.Remaining)
	}
	return text
}
