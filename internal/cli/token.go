package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/replica"
)

// tokenFlags say what a token is for.
type tokenFlags struct {
	role     string
	lifetime time.Duration
}

const defaultTokenLifetime = time.Hour

func (f *tokenFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.role, "role", string(cluster.RoleData), "data, or witness for a node that has a vote and keeps no data")
	// It fails only for a flag that does not exist.
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{string(cluster.RoleData), string(cluster.RoleWitness)}, cobra.ShellCompDirectiveNoFileComp))
	f.registerLifetime(cmd)
}

func (f *tokenFlags) registerLifetime(cmd *cobra.Command) {
	spanVar(cmd.Flags(), &f.lifetime, "lifetime", defaultTokenLifetime, time.Second, longest, "how long the token can be used")
}

func newToken(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "token",
		Aliases: []string{"tokens"},
		Short:   "Make and withdraw the tokens with which machines join",
		Long: `A token lets one machine join the cluster, once, for a limited time. It also holds the hash of the cluster's certificate, by which the machine knows that it joins
the right one. Whoever has it can become a node: hand it over as you would a password.

Exit code: 2 without a subcommand.`,
		Example: "  holdfast token create\n  holdfast token list\n  holdfast token remove abcdefgh",
	}
	cmd.AddCommand(newTokenCreate(o), newTokenList(o), newTokenRemove(o))
	return cmd
}

func newTokenCreate(o *options) *cobra.Command {
	var flags tokenFlags
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a token for one machine",
		Long: `Make a token with which one machine can join, and print the command to run there. The token is shown once; the cluster keeps a hash of it only.

Exit code: 0 when there is a token, 1 otherwise.`,
		Example: "  holdfast token create\n  holdfast token create --role witness --lifetime 24h\n  holdfast token create -o json | jq -r .token",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return makeToken(cmd, o, api.TokenRequest{Role: flags.role, Lifetime: flags.lifetime}, "")
		},
	}
	flags.register(cmd)
	return cmd
}

// makeToken makes a token and says what to do with it. The machine joins at the address, or at that of the node that makes the token if it is empty.
func makeToken(cmd *cobra.Command, o *options, req api.TokenRequest, address string) error {
	res, err := ask(cmd, o, func(ctx context.Context, c *api.Client) (api.TokenResult, error) { return c.Token(ctx, req) })
	if err != nil {
		return err
	}
	if address != "" {
		res.Address = address
	}
	return o.print(res, func() error {
		what := "becomes a data node"
		if req.Role == string(cluster.RoleWitness) {
			what = "becomes a witness"
		}
		if req.Replaces != "" {
			what = "takes the place of node " + req.Replaces
		}
		fmt.Fprintf(o.out, "On the machine that %s, as root, until %s:\n\n", what, timeText(res.Expires))
		fmt.Fprintf(o.out, "  holdfast join %s --token %s\n\n", res.Address, res.Token)
		fmt.Fprintf(o.out, "The token %s can be used once and is not shown again. `--token -` reads it from the terminal, where no list of processes shows it.\n", res.ID)
		return nil
	})
}

func newTokenList(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the tokens that can be used",
		Long: `List the tokens that nobody has used yet. Their secrets are not known to the cluster.

Exit code: 0 when the node answered, 1 otherwise.`,
		Example: "  holdfast token list",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			state, err := ask(cmd, o, o.state)
			if err != nil {
				return err
			}
			tokens := []cluster.Token{}
			for _, t := range state.Tokens {
				if t.Expires.After(time.Now()) {
					tokens = append(tokens, t)
				}
			}
			return printList(o, tokens, "there is no token: make one with `holdfast token create`", []string{"TOKEN", "ROLE", "REPLACES", "UNTIL"},
				func(t cluster.Token) []any { return []any{t.ID, t.Role, t.Replaces, timeText(t.Expires)} })
		},
	}
}

func newTokenRemove(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "remove ID",
		Aliases: []string{"rm"},
		Short:   "Withdraw a token",
		Long: `Withdraw a token that nobody has used yet.

Exit code: 0 when nobody can join with it any more, 1 otherwise.`,
		Example:           "  holdfast token remove abcdefgh",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.complete(tokenIDs),
		RunE: func(cmd *cobra.Command, args []string) error {
			res, err := o.do(cmd, cluster.Command{RemoveToken: &cluster.RemoveToken{ID: strings.TrimSpace(args[0])}})
			if err != nil {
				return err
			}
			return o.print(res, func() error { o.sayf("token %s is withdrawn", args[0]); return nil })
		},
	}
}

// number writes a node's number as people see it: a witness's without its mark.
func number(id uint64) string { return fmt.Sprint(id &^ replica.WitnessBit) }
