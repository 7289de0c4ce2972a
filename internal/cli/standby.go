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

// standbyTimeout is how long standby waits for volumes to move; drain waits as long as it takes.
const standbyTimeout = time.Minute

func newStandby(o *options) *cobra.Command {
	var force, noWait bool
	cmd := &cobra.Command{
		Use:   "standby NODE",
		Short: "Let a node lead nothing",
		Long: `Put a node into standby: what it leads is handed over, and it leads nothing while another node can. It keeps its copies, and its vote. The command returns when it leads
nothing any more. A node that no other can replace now is refused, unless --force says that it is meant: it then goes on to lead until another is able.

Exit code: 0 when the node is in standby and leads nothing, 1 otherwise.`,
		Example:           "  holdfast standby b\n  holdfast standby b --force",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.complete(dataNodeNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := o.setStandby(cmd, args[0], force, canLeave)
			if err != nil {
				return err
			}
			stuck := len(canLeave(&s, args[0])) > 0
			if !noWait && !stuck {
				why := fmt.Errorf("node %s is in standby, but still leads a volume after %v: see `holdfast status`", args[0], standbyTimeout)
				ctx, cancel := context.WithTimeoutCause(cmd.Context(), standbyTimeout, why)
				defer cancel()
				if err := o.awaitIdle(ctx, args[0]); err != nil {
					return err
				}
			}
			return o.print(nodeOutcome{Node: args[0], Standby: true}, func() error {
				switch {
				case stuck:
					o.sayf("node %s is in standby; it leads until another node is able", args[0])
				case noWait:
					o.sayf("node %s is in standby", args[0])
				default:
					o.sayf("node %s is in standby and leads nothing", args[0])
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "although no other node is able to take over")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until it leads nothing")
	return cmd
}

func newDrain(o *options) *cobra.Command {
	var force bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "drain NODE",
		Short: "Make a node ready to be stopped",
		Long: `Put a node into standby and wait until it leads nothing and everything is served and safe without it: then its machine can be stopped, upgraded or restarted.
` + "`holdfast unstandby`" + ` takes it back. The command says what it waits for. A node without which a volume could not go on is refused, unless --force says that it is
meant; then the command waits only until it leads nothing that another node can lead.

Exit code: 0 when the node can be stopped, 1 otherwise.`,
		Example:           "  holdfast drain b && ssh b reboot\n  holdfast drain b --timeout 10m",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.complete(nodeNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := o.setStandby(cmd, args[0], force, canDrain)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("node %s cannot be stopped yet, after %v", args[0], timeout))
				defer cancel()
			}
			stuck, hurt := canLeave(&s, args[0]), canDrain(&s, args[0])
			if len(stuck) == 0 {
				if err := o.awaitIdle(ctx, args[0]); err != nil {
					return err
				}
			}
			return o.print(nodeOutcome{Node: args[0], Standby: true}, func() error {
				switch {
				case len(stuck) > 0:
					o.sayf("node %s is in standby, but leads what no other node can: stopping it stops %s", args[0], list(stuck))
					return nil
				case len(hurt) > 0:
					o.sayf("node %s leads nothing, but too few others are there: stopping it may stop %s", args[0], list(hurt))
					return nil
				}
				o.sayf("node %s leads nothing and can be stopped; when it is back: holdfast unstandby %s", args[0], args[0])
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "although a volume cannot go on without it")
	spanVar(cmd.Flags(), &timeout, "timeout", 0, 0, longest, "give up after this long; 0 to wait as long as it takes")
	return cmd
}

// nodeOutcome is what standby, unstandby and drain print for programs.
type nodeOutcome struct {
	Node    string `json:"node"`
	Standby bool   `json:"standby"`
}

// setStandby puts a node into standby, unless may names volumes that this would hurt. A witness leads nothing anyway and is left as it is.
func (o *options) setStandby(cmd *cobra.Command, node string, force bool, may func(s *api.Status, node string) []string) (api.Status, error) {
	s, err := ask(cmd, o, o.status)
	if err != nil {
		return s, err
	}
	at := slices.IndexFunc(s.Nodes, func(n api.NodeStatus) bool { return n.Name == node })
	if at < 0 {
		var names []string
		for _, n := range s.Nodes {
			names = append(names, n.Name)
		}
		return s, fmt.Errorf("there is no node %q: %s", node, thereAre(names))
	}
	if hurt := may(&s, node); len(hurt) > 0 && !force {
		if away := inStandbyToo(&s, node); len(away) > 0 && len(may(withoutStandby(s), node)) == 0 {
			return s, fmt.Errorf("without node %s nobody could serve %s if %s, in standby, were stopped as well: take that back first (`holdfast unstandby %s`), or tell this command --force",
				node, list(hurt), list(away), away[0])
		}
		return s, fmt.Errorf("without node %s nobody could serve %s now: wait until another copy is in sync (`holdfast status`), or tell this command --force", node, list(hurt))
	}
	if s.Nodes[at].Role == string(cluster.RoleWitness) {
		return s, nil
	}
	on := true
	_, err = o.do(cmd, cluster.Command{SetNode: &cluster.SetNode{Name: node, Standby: &on}})
	return s, err
}

// inStandbyToo names the nodes in standby but this one.
func inStandbyToo(s *api.Status, node string) []string {
	var names []string
	for _, n := range s.Nodes {
		if n.Standby && n.Name != node {
			names = append(names, n.Name)
		}
	}
	return names
}

// withoutStandby is a status as it would be if no node were in standby.
func withoutStandby(s api.Status) *api.Status {
	s.Nodes = slices.Clone(s.Nodes)
	for i := range s.Nodes {
		s.Nodes[i].Standby = false
	}
	return &s
}

// canLeave names the volumes that the node leads and that no other node is able to lead.
func canLeave(s *api.Status, node string) []string {
	var hurt []string
	for i := range s.Volumes {
		if v := &s.Volumes[i]; v.Leader == node && !otherAble(s, v, node) {
			hurt = append(hurt, v.Name)
		}
	}
	return hurt
}

// otherAble reports whether a node other than this one could lead the volume now.
func otherAble(s *api.Status, v *api.VolumeStatus, node string) bool {
	return slices.ContainsFunc(v.Replicas, func(r api.ReplicaStatus) bool {
		if r.Node == node || !r.Active || !r.InSync || r.Learner || r.Witness {
			return false
		}
		return !inStandby(s, r.Node)
	})
}

// inStandby reports whether a node leads nothing because somebody wants that.
func inStandby(s *api.Status, node string) bool {
	return slices.ContainsFunc(s.Nodes, func(n api.NodeStatus) bool { return n.Name == node && (n.Standby || n.Leaving) })
}

// canStop names the volumes that could not go on if the node were stopped: nobody could lead them, or the others are no majority.
func canStop(s *api.Status, node string) []string {
	return canMiss(s, node, func(string) bool { return false })
}

// canDrain is canStop if the nodes in standby were stopped, too: whoever drained them may be about to do so.
func canDrain(s *api.Status, node string) []string {
	return canMiss(s, node, func(other string) bool { return inStandby(s, other) })
}

// canMiss names the volumes that could not go on without a node and those that are away.
func canMiss(s *api.Status, node string, away func(node string) bool) []string {
	hurt := canLeave(s, node)
	for i := range s.Volumes {
		v := &s.Volumes[i]
		voters, present := 0, 0
		member := false
		for _, r := range v.Replicas {
			if r.Learner {
				continue
			}
			voters++
			switch {
			case r.Node == node:
				member = true
			case r.Active && (r.InSync || r.Witness) && !away(r.Node):
				present++
			}
		}
		if member && present <= voters/2 && !slices.Contains(hurt, v.Name) {
			hurt = append(hurt, v.Name)
		}
	}
	return hurt
}

// awaitIdle waits until a node leads nothing and what it led is served elsewhere.
func (o *options) awaitIdle(ctx context.Context, node string) error {
	c, err := o.client()
	if err != nil {
		return err
	}
	defer c.Close()
	return o.await(ctx, func(ctx context.Context) (string, bool, error) {
		s, err := o.status(ctx, c)
		if err != nil {
			return "", false, err
		}
		var waits []string
		for _, v := range s.Volumes {
			switch {
			case v.Leader == node:
				waits = append(waits, "volume "+v.Name+" to move to another node")
			case !v.Serving:
				waits = append(waits, "volume "+v.Name+" to be served by "+leaderText(v))
			}
		}
		return "waiting for " + strings.Join(waits, ", "), len(waits) == 0, nil
	})
}

func newUnstandby(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "unstandby NODE",
		Short: "Let a node lead again",
		Long: `Take a node back from standby. Volumes that prefer it and whose failback is automatic return when it has been able for a while; others with ` + "`holdfast move`" + `.

Exit code: 0 when the node may lead, 1 otherwise.`,
		Example:           "  holdfast unstandby b",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.complete(dataNodeNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			off := false
			if _, err := o.do(cmd, cluster.Command{SetNode: &cluster.SetNode{Name: args[0], Standby: &off}}); err != nil {
				return err
			}
			return o.print(nodeOutcome{Node: args[0]}, func() error { o.sayf("node %s may lead volumes again", args[0]); return nil })
		},
	}
}
