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

func newNode(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "node",
		Aliases: []string{"nodes"},
		Short:   "Add, remove and replace nodes",
		Long: `The nodes are the machines of the cluster. Data nodes keep volumes; a witness has a vote and keeps no data, so that two data nodes can tell which of them
goes on when they lose each other.

Exit code: 2 without a subcommand.`,
		Example: `  holdfast node list
  holdfast node add                  # prints what to run on the new machine
  holdfast node add --role witness
  holdfast node replace c            # its disk is lost
  holdfast node remove c`,
	}
	cmd.AddCommand(newNodeList(o), newNodeAdd(o), newNodeRemove(o), newNodeReplace(o))
	return cmd
}

func newNodeList(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the nodes",
		Long: `List the nodes, whether they answer, which volumes each keeps and leads, and until when its certificate is valid, which nodes renew by themselves.

Exit code: 0 when the node answered, 1 otherwise.`,
		Example: "  holdfast node list\n  holdfast node list -o json | jq -r '.[].name'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := ask(cmd, o, o.status)
			if err != nil {
				return err
			}
			return o.print(s.Nodes, func() error {
				t := newTable("NODE", "NUMBER", "ROLE", "STATE", "ADDRESS", "ZONE", "RELEASE", "KEEPS", "LEADS", "CERTIFICATE")
				for _, n := range s.Nodes {
					var keeps, leads []string
					for _, v := range s.Volumes {
						if slices.Contains(v.Members, n.Name) {
							keeps = append(keeps, v.Name)
						}
						if v.Leader == n.Name {
							leads = append(leads, v.Name)
						}
					}
					until := ""
					if !n.Expires.IsZero() {
						until = "until " + n.Expires.Local().Format(time.DateOnly)
					}
					t.row(n.Name, number(n.ID), n.Role, nodeCell(n), n.Peer, n.Zone, n.Release, strings.Join(keeps, " "), strings.Join(leads, " "), until)
				}
				return t.print(o.out, o.painter())
			})
		},
	}
}

func newNodeAdd(o *options) *cobra.Command {
	var flags tokenFlags
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Print what to run on a new machine to make it a node",
		Long: `Make a token that lets one machine join the cluster, and print the command to run there. Copies of volumes that want more of them move to the new node
by themselves. A token for a witness is refused where a witness would be of no use: beside one data node, or three and no volume with two copies.

Exit code: 0 when there is a token, 1 otherwise.`,
		Example: "  holdfast node add\n  holdfast node add --role witness --lifetime 24h",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return makeToken(cmd, o, api.TokenRequest{Role: flags.role, Lifetime: flags.lifetime}, "")
		},
	}
	flags.register(cmd)
	return cmd
}

func newNodeReplace(o *options) *cobra.Command {
	var flags tokenFlags
	var force bool
	cmd := &cobra.Command{
		Use:   "replace NAME",
		Short: "Print what to run on a machine that takes a node's place",
		Long: `Make a token with which one machine joins in the place of a node that is gone, for example because its disk is: it gets the copies that the old one had, and the
old one is removed. It may be the same machine, with an empty data folder, and have the same name.

A node that answers is refused, as it is not gone: ` + "`holdfast node remove`" + ` moves what it has first. So is one that may alone have the newest data of a volume. --force says that it is meant:
that what only this node has may be lost with it.

Exit code: 0 when there is a token, 1 otherwise.`,
		Example:           "  holdfast node replace c",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.complete(nodeNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			state, err := ask(cmd, o, o.state)
			if err != nil {
				return err
			}
			n := state.NodeNamed(args[0])
			if n == nil {
				return noNode(state, args[0])
			}
			status, err := ask(cmd, o, o.status)
			if err != nil {
				return err
			}
			answers := slices.ContainsFunc(status.Nodes, func(s api.NodeStatus) bool {
				return s.Name == n.Name && s.State != api.NodeSilent && s.State != api.NodeExpired
			})
			switch {
			case answers && !force:
				return fmt.Errorf("node %s answers, so it is not gone: to take it out, `holdfast node remove %s` moves what it has first. If its place is to be taken all the same, stop it, or tell this command --force", n.Name, n.Name)
			case answers:
				fmt.Fprintf(o.errOut, "holdfast: node %s answers: once a machine has joined with this token, it is out of the cluster, and what it keeps is made anew from the other copies; what only it has is lost\n", n.Name)
			case !force && n.Role == cluster.RoleData:
				if err := o.mayReplace(cmd, n.Name); err != nil {
					return err
				}
			}
			return makeToken(cmd, o, api.TokenRequest{Role: string(n.Role), Lifetime: flags.lifetime, Replaces: n.Name}, joinAt(&status, n.Name))
		},
	}
	flags.registerLifetime(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "although it answers, or a volume may need what is on its disk")
	return cmd
}

// joinAt returns the address at which a machine can join in the place of a node, if that is the one that is asked here; "" otherwise: the one that is asked will do.
func joinAt(s *api.Status, replaced string) string {
	if s.Node != replaced {
		return ""
	}
	for _, role := range []cluster.Role{cluster.RoleData, cluster.RoleWitness} {
		for _, n := range s.Nodes {
			if n.State == api.NodeAnswers && n.Role == string(role) && !n.Leaving {
				return n.Peer
			}
		}
	}
	return ""
}

// leaderPolls is for how many looks in a row a volume may be without a leader: another node takes over within a second.
const leaderPolls = 25

// mayReplace is an error if a volume needs what only this node may have.
func (o *options) mayReplace(cmd *cobra.Command, node string) error {
	c, err := o.client()
	if err != nil {
		return err
	}
	defer c.Close()
	polls := 0
	return o.await(cmd.Context(), func(ctx context.Context) (string, bool, error) {
		s, err := o.status(ctx, c)
		if err != nil {
			return "", false, err
		}
		var need []string
		for _, v := range s.Volumes {
			if slices.Contains(v.Members, node) && (v.Leader == "" || v.OneCopy && v.Leader == node) {
				need = append(need, v.Name)
			}
		}
		if polls++; polls > leaderPolls && len(need) > 0 {
			return "", false, fmt.Errorf("node %s may alone have the newest data of %s, which would be lost with it: start it, or wait until another copy is in sync. If its disk is lost for good, tell this command --force", node, list(need))
		}
		return "waiting until " + list(need) + " is served without node " + node, len(need) == 0, nil
	})
}

func noNode(s *cluster.State, name string) error {
	return fmt.Errorf("there is no node %q: %s", name, thereAre(nodeNames(s)))
}

func newNodeRemove(o *options) *cobra.Command {
	var force, noWait bool
	cmd := &cobra.Command{
		Use:     "remove NAME",
		Aliases: []string{"rm"},
		Short:   "Take a node out of the cluster",
		Long: `Take a node out of the cluster: what it leads is handed over, its copies move to other nodes, and when it keeps nothing any more it is forgotten and its certificate
is refused. That takes as long as it takes to copy the data; interrupted, the command stops watching, and the removal goes on. Best run it on another node: the one that goes
cannot tell when it is gone.

A removal after which a volume would survive fewer losses is refused, unless --force says that it is meant. Where a volume is for certain nodes (` + "`holdfast volume set --nodes`" + `), --force
takes this one out of its list; a volume that is for this node alone has to be let to others first.

Exit code: 0 when the node is gone, 1 otherwise.`,
		Example:           "  holdfast node remove c\n  holdfast node remove c --no-wait\n  holdfast node remove c --force   # although there is no other node for its copies",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.complete(nodeNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			state, err := ask(cmd, o, o.state)
			if err != nil {
				return err
			}
			n := state.NodeNamed(name)
			if n == nil {
				return noNode(state, name)
			}
			status, err := ask(cmd, o, o.status)
			if err != nil {
				return err
			}
			res, err := o.do(cmd, cluster.Command{RemoveNode: &cluster.RemoveNode{Name: name, Force: force}})
			if err != nil {
				return err
			}
			if noWait {
				return o.print(res, func() error {
					o.sayf("node %s is being removed; `holdfast status` shows how far that is", name)
					return nil
				})
			}
			if status.ID == n.Number {
				// It is told nothing any more once the others have let it go.
				return o.print(res, func() error {
					o.sayf("node %s is being removed; as it is the node that answers here, only `holdfast status` on another one can say when that is done", name)
					return nil
				})
			}
			if err := o.awaitGone(cmd, n.Number, name); err != nil {
				return err
			}
			return o.print(res, func() error {
				o.sayf("node %s is removed: on its machine, stop holdfast and delete the data folder", name)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "although volumes will survive fewer losses")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until it is gone")
	return cmd
}

// awaitGone waits until a node is no member any more.
func (o *options) awaitGone(cmd *cobra.Command, number uint64, name string) error {
	c, err := o.client()
	if err != nil {
		return err
	}
	defer c.Close()
	return o.await(cmd.Context(), func(ctx context.Context) (string, bool, error) {
		state, err := o.state(ctx, c)
		if err != nil {
			return "", false, err
		}
		if state.Node(number) == nil {
			return "", true, nil
		}
		status, err := o.status(ctx, c)
		if err != nil {
			return "", false, err
		}
		return removalText(state, &status, number, name), false, nil
	})
}

// removalText says what the removal of a node waits for.
func removalText(state *cluster.State, status *api.Status, number uint64, name string) string {
	var waits []string
	for i := range state.Volumes {
		v := &state.Volumes[i]
		if !slices.Contains(v.Keepers(), number) {
			continue
		}
		text := "volume " + v.Spec.Name
		if slices.Contains(v.Members, number) && len(v.Former) == 0 {
			// The cluster would have begun by now if it could.
			text += " (no other node may keep it: add one, let others keep it with `holdfast volume set " + v.Spec.Name + " --nodes`, or delete it)"
		}
		if s := volumeStatus(status, v.Spec.Name); s != nil {
			for _, r := range s.Replicas {
				if r.Learner || r.Snapshot || (!r.InSync && !r.Witness) {
					text += ": " + r.Node + " " + replicaState(r)
					break
				}
			}
		}
		waits = append(waits, text)
	}
	if len(waits) == 0 {
		return "node " + name + " keeps no volume any more; waiting until the other nodes have agreed on that"
	}
	return "moving what node " + name + " keeps: " + strings.Join(waits, "; ")
}
