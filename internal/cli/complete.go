package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"holdfast/internal/cluster"
)

// completeTimeout bounds how long a shell waits for names.
const completeTimeout = time.Second

// completion is what cobra asks for the words that may come next.
type completion func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective)

// names asks the node for names. Whatever goes wrong, there are none: a shell has no place for errors.
func (o *options) names(of func(*cluster.State) []string) []string {
	ctx, cancel := context.WithTimeout(context.Background(), completeTimeout)
	defer cancel()
	c, err := o.client()
	if err != nil {
		return nil
	}
	defer c.Close()
	s, err := c.State(ctx)
	if err != nil {
		return nil
	}
	return of(s)
}

// complete completes the argument at each place by its own function; nil leaves a place alone.
func (o *options) complete(places ...func(*cluster.State) []string) completion {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= len(places) || places[len(args)] == nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return o.names(places[len(args)]), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFlag completes the value of a flag.
func (o *options) completeFlag(cmd *cobra.Command, flag string, of func(*cluster.State) []string) {
	// It fails only for a flag that does not exist, which the tests would find.
	_ = cmd.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return o.names(of), cobra.ShellCompDirectiveNoFileComp
	})
}

func volumeNames(s *cluster.State) []string {
	var names []string
	for i := range s.Volumes {
		names = append(names, s.Volumes[i].Spec.Name)
	}
	return names
}

func nodeNames(s *cluster.State) []string {
	var names []string
	for i := range s.Nodes {
		names = append(names, s.Nodes[i].Name)
	}
	return names
}

func dataNodeNames(s *cluster.State) []string { return s.NodeNames() }

func tokenIDs(s *cluster.State) []string {
	var ids []string
	for i := range s.Tokens {
		ids = append(ids, s.Tokens[i].ID)
	}
	return ids
}

func exportPaths(s *cluster.State) []string {
	var paths []string
	for i := range s.Volumes {
		for _, e := range s.Volumes[i].Spec.Exports {
			paths = append(paths, e.Path)
		}
	}
	return paths
}
