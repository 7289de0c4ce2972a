package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/config"
)

// maxTries bounds how often a change is made anew because somebody else was quicker.
const maxTries = 5

// changed is what came of a change to a volume.
type changed struct {
	Volume   string          `json:"volume"`
	Revision uint64          `json:"revision"`
	Changes  []config.Change `json:"changes"`

	spec config.VolumeSpec
}

// changeVolume reads what is configured of a volume, changes that, and sends it back; if somebody else was quicker, it starts again.
func (o *options) changeVolume(cmd *cobra.Command, name string, change func(spec *config.VolumeSpec) error) (changed, error) {
	return ask(cmd, o, func(ctx context.Context, c *api.Client) (changed, error) {
		for try := 1; ; try++ {
			state, err := o.state(ctx, c)
			if err != nil {
				return changed{}, err
			}
			v := state.Volume(name)
			if v == nil {
				return changed{}, noVolume(state, name)
			}
			spec := v.Spec.Clone()
			if err := change(&spec); err != nil {
				return changed{}, err
			}
			if err := checkVolume(&spec); err != nil {
				return changed{}, err
			}
			diff := config.Diff(&config.Spec{Volumes: []config.VolumeSpec{v.Spec}}, &config.Spec{Volumes: []config.VolumeSpec{spec}})
			if len(diff) == 0 {
				return changed{Volume: name, Revision: state.Revision, Changes: []config.Change{}, spec: spec}, nil
			}
			res, err := c.Do(ctx, cluster.Command{SetVolume: &cluster.SetVolume{Base: state.Revision, Spec: spec}})
			if err == nil {
				return changed{Volume: name, Revision: res.Revision, Changes: diff, spec: spec}, nil
			}
			if !isConflict(err) || try == maxTries {
				return changed{}, err
			}
			// A conflict may be one with the rest of the configuration, too.
			if now, stateErr := o.state(ctx, c); stateErr != nil || now.Revision == state.Revision {
				return changed{}, errors.Join(err, stateErr)
			}
		}
	})
}

// isConflict reports whether a command was refused because of the state that it met.
func isConflict(err error) bool {
	var refused *cluster.Error
	var answer *api.Error
	switch {
	case errors.As(err, &refused):
		return refused.Code == cluster.CodeConflict
	case errors.As(err, &answer):
		return answer.Status == http.StatusConflict
	}
	return false
}

func noVolume(s *cluster.State, name string) error {
	names := volumeNames(s)
	if len(names) == 0 {
		return fmt.Errorf("there is no volume %q: there is none at all yet, see `holdfast volume create`", name)
	}
	return fmt.Errorf("there is no volume %q: %s", name, thereAre(names))
}

// printChanges says what a change did.
func printChanges(o *options, c changed) error {
	return o.print(c, func() error {
		if len(c.Changes) == 0 {
			o.sayf("nothing to change: volume %s is so already", c.Volume)
			return nil
		}
		_, err := fmt.Fprint(o.out, config.Render(c.Changes))
		return err
	})
}

func newVolumeSet(o *options) *cobra.Command {
	var flags volumeFlags
	cmd := &cobra.Command{
		Use:   "set NAME FLAGS...",
		Short: "Change what is configured of a volume",
		Long: `Change what the flags name, and leave the rest as it is. What was changed is printed, with what it hurts if it does.

Exit code: 0 when the configuration is so now, 1 otherwise, 2 when what is asked for makes no sense.`,
		Example: `  holdfast volume set main --prefer a,b --failback auto
  holdfast volume set main --copies 3
  holdfast volume set main --nodes ""       # the cluster chooses`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.complete(volumeNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := o.changeVolume(cmd, args[0], func(spec *config.VolumeSpec) error { return flags.apply(cmd, spec) })
			if err != nil {
				return err
			}
			return printChanges(o, c)
		},
	}
	flags.register(o, cmd)
	return cmd
}

// negative is how pflag complains of an argument like -1GiB, which it takes for letters of flags.
var negative = regexp.MustCompile(`^unknown shorthand flag: '[0-9.]' in (-\S+)`)

func newVolumeResize(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "resize NAME SIZE",
		Short: "Change how much clients may store",
		Long: `Change how much clients may store in a volume. SIZE is a number of bytes with a unit, such as 500GiB; +100GiB adds to what it is now; none lifts the limit.
A volume may be made smaller than what it holds: then nothing can be added until enough is removed.

Exit code: 0 when the size is so now, 1 otherwise, 2 when it makes no sense.`,
		Example:           "  holdfast volume resize main 2TiB\n  holdfast volume resize main +100GiB\n  holdfast volume resize main none",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: o.complete(volumeNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := o.changeVolume(cmd, args[0], func(spec *config.VolumeSpec) error {
				var size config.Size
				more, add := strings.CutPrefix(args[1], "+")
				if strings.HasPrefix(args[1], "-") {
					return smaller(args[1])
				}
				if err := parseSize(more, &size); err != nil {
					return withCode(ExitUsage, err)
				}
				if size == 0 && args[1] != "none" {
					return usagef("%s: a volume of that size would be none; to lift the limit, write none", args[1])
				}
				if add && spec.Size == 0 {
					return usagef("volume %s has no limit that could be raised", spec.Name)
				}
				if add {
					size += spec.Size
				}
				spec.Size = size
				return nil
			})
			if err != nil {
				return err
			}
			return printChanges(o, c)
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		if m := negative.FindStringSubmatch(err.Error()); m != nil {
			return smaller(m[1])
		}
		return err
	})
	return cmd
}

// smaller says how a volume is made smaller.
func smaller(size string) error {
	return usagef("%s: nothing can be taken from a size; to make the volume smaller, write the size that it shall have, such as 500GiB", size)
}

func newVolumeDelete(o *options) *cobra.Command {
	var yes string
	cmd := &cobra.Command{
		Use:     "delete NAME",
		Aliases: []string{"rm", "remove"},
		Short:   "Delete a volume with its data",
		Long: `Delete a volume and all data in it, on all nodes, for good. On a terminal the name has to be typed again; elsewhere, --yes=NAME says that it is meant.

Exit code: 0 when the volume is deleted, 1 otherwise, 2 when it was not confirmed.`,
		Example:           "  holdfast volume delete scratch\n  holdfast volume delete scratch --yes=scratch",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: o.complete(volumeNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			state, err := ask(cmd, o, o.state)
			if err != nil {
				return err
			}
			if state.Volume(name) == nil {
				return noVolume(state, name)
			}
			if !cmd.Flags().Changed("yes") {
				word, ok, err := o.typed(cmd.Context(), fmt.Sprintf("Volume %s and all data in it will be gone for good. Type its name to delete it: ", name))
				if err != nil {
					return err
				}
				if !ok {
					return usagef("volume %s would be gone with all data in it: if that is meant, add --yes=%s", name, name)
				}
				yes = word
			}
			if yes != name {
				return usagef("%q is not %q: nothing was deleted", yes, name)
			}
			res, err := o.do(cmd, cluster.Command{RemoveVolume: &cluster.RemoveVolume{Name: name}})
			if err != nil {
				return err
			}
			return o.print(res, func() error { o.sayf("volume %s is deleted", name); return nil })
		},
	}
	cmd.Flags().StringVar(&yes, "yes", "", "the volume's `name` again: it is meant")
	return cmd
}
