package cli

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"holdfast/internal/config"
)

func newExport(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "export",
		Aliases: []string{"exports"},
		Short:   "Say which folders of a volume can be mounted, and by whom",
		Long: `An export is a folder of a volume that clients can mount. Who may, and how, its client list says; the most specific entry that matches counts.

Exit code: 2 without a subcommand.`,
		Example: `  holdfast export add main /home --client '10.0.0.0/24:rw' --client '10.0.0.7:rw,no_root_squash'
  holdfast export list`,
	}
	cmd.AddCommand(newExportAdd(o), newExportSet(o), newExportList(o), newExportRemove(o))
	return cmd
}

const clientHelp = `WHO in a client is an address, a network (10.0.0.0/24), a host name, a pattern of names (*.example.com), or * for all. The options are those of exports(5): ro, rw,
root_squash, no_root_squash, all_squash, anonuid=N, anongid=N, sec=sys. Without any, a client may read only, and root is nobody.`

// folderFlags are what an export's folder gets when it is first made.
type folderFlags struct {
	owner, group uint32
	mode         string
}

func (f *folderFlags) register(cmd *cobra.Command) {
	cmd.Flags().Uint32Var(&f.owner, "owner", 0, "`number` of the user who owns the folder when it is first made")
	cmd.Flags().Uint32Var(&f.group, "group", 0, "`number` of its group")
	cmd.Flags().StringVar(&f.mode, "mode", "0755", "its permissions, in octal")
}

func (f *folderFlags) apply(cmd *cobra.Command, e *config.Export) error {
	given := cmd.Flags().Changed
	if given("owner") {
		e.Owner = f.owner
	}
	if given("group") {
		e.Group = f.group
	}
	if given("mode") {
		if err := e.Mode.UnmarshalText([]byte(f.mode)); err != nil {
			return usagef("--mode: %v", err)
		}
	}
	return nil
}

// exportAt returns the export with a path, or nil.
func exportAt(spec *config.VolumeSpec, path string) *config.Export {
	for i := range spec.Exports {
		if spec.Exports[i].Path == path {
			return &spec.Exports[i]
		}
	}
	return nil
}

func noExport(spec *config.VolumeSpec, path string) error {
	if len(spec.Exports) == 0 {
		return fmt.Errorf("volume %s has no export %s; it has none at all", spec.Name, path)
	}
	return fmt.Errorf("volume %s has no export %s; it has %s", spec.Name, path, list(paths(spec)))
}

func newExportAdd(o *options) *cobra.Command {
	var flags volumeFlags
	var folder folderFlags
	cmd := &cobra.Command{
		Use:   "add VOLUME PATH --client WHO:OPTIONS...",
		Short: "Let clients mount a folder",
		Long: `Make a folder of a volume an export. The folder is made if it is not there.

` + clientHelp + `

Exit code: 0 when clients can mount it, 1 otherwise, 2 when what is asked for makes no sense.`,
		Example: `  holdfast export add main /home --client '10.0.0.0/24:rw'
  holdfast export add main /build --client '*.ci.example.com:rw,all_squash,anonuid=900,anongid=900' --owner 900 --group 900
  holdfast export add main /iso --client '*'`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: o.complete(volumeNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			clients, err := parseClients(flags.clients)
			if err != nil {
				return err
			}
			if len(clients) == 0 {
				return usagef("say who may mount it, with --client 'NETWORK:rw' for example")
			}
			c, err := o.changeVolume(cmd, args[0], func(spec *config.VolumeSpec) error {
				if exportAt(spec, args[1]) != nil {
					return fmt.Errorf("volume %s exports %s already: change it with `holdfast export set`", spec.Name, args[1])
				}
				e := config.NewExport(args[1])
				e.Clients = clients
				if err := folder.apply(cmd, &e); err != nil {
					return err
				}
				spec.Exports = append(spec.Exports, e)
				return nil
			})
			if err != nil {
				return err
			}
			return o.print(c, func() error {
				o.sayf("volume %s exports %s", c.Volume, args[1])
				o.sayf("on a client, as root: %s", mountCommand(&c.spec, args[1]))
				return nil
			})
		},
	}
	flags.clientFlag(cmd, "client", "`WHO:OPTIONS`, an entry of the client list; may be repeated")
	folder.register(cmd)
	return cmd
}

func newExportSet(o *options) *cobra.Command {
	var flags volumeFlags
	var folder folderFlags
	var more, less []string
	cmd := &cobra.Command{
		Use:   "set VOLUME PATH FLAGS...",
		Short: "Change who may use an export, and how",
		Long: `Change an export. --client, which may be repeated, replaces the whole client list; --add-client and --remove-client change single entries of it. Clients that have it
mounted are under the new rules at once.

` + clientHelp + `

Exit code: 0 when the export is so now, 1 otherwise, 2 when what is asked for makes no sense.`,
		Example: `  holdfast export set main /home --client '10.0.0.0/24:rw'
  holdfast export set main /home --add-client '10.0.0.7:rw,no_root_squash'
  holdfast export set main /home --remove-client 10.0.0.7`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: o.complete(volumeNames, exportPaths),
		RunE: func(cmd *cobra.Command, args []string) error {
			replace, err := parseClients(flags.clients)
			if err != nil {
				return err
			}
			add, err := parseClients(more)
			if err != nil {
				return err
			}
			c, err := o.changeVolume(cmd, args[0], func(spec *config.VolumeSpec) error {
				e := exportAt(spec, args[1])
				if e == nil {
					return noExport(spec, args[1])
				}
				if cmd.Flags().Changed("client") {
					e.Clients = replace
				}
				if err := editClients(e, add, less); err != nil {
					return err
				}
				return folder.apply(cmd, e)
			})
			if err != nil {
				return err
			}
			return printChanges(o, c)
		},
	}
	flags.clientFlag(cmd, "client", "`WHO:OPTIONS`: the client list is this and nothing else; may be repeated")
	cmd.Flags().StringArrayVar(&more, "add-client", nil, "`WHO:OPTIONS`: add this entry, or replace the one for WHO; may be repeated")
	cmd.Flags().StringArrayVar(&less, "remove-client", nil, "`WHO`: remove this entry; may be repeated")
	folder.register(cmd)
	return cmd
}

// editClients adds and removes entries of a client list, which go by whom they match.
func editClients(e *config.Export, add []config.Client, remove []string) error {
	at := func(match string) int {
		return slices.IndexFunc(e.Clients, func(c config.Client) bool { return c.Match == match })
	}
	for _, match := range remove {
		i := at(match)
		if i < 0 {
			return usagef("%s has no entry for %q in its client list: %s", e.Path, match, clientList(e.Clients))
		}
		e.Clients = slices.Delete(e.Clients, i, i+1)
	}
	for _, c := range add {
		if i := at(c.Match); i >= 0 {
			e.Clients[i] = c
		} else {
			e.Clients = append(e.Clients, c)
		}
	}
	return nil
}

func newExportList(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "list [VOLUME]",
		Aliases: []string{"ls"},
		Short:   "List the exports",
		Long: `List the exports of a volume, or of all.

Exit code: 0 when the node answered, 1 otherwise.`,
		Example:           "  holdfast export list\n  holdfast export list main -o json",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: o.complete(volumeNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			state, err := ask(cmd, o, o.state)
			if err != nil {
				return err
			}
			if len(args) > 0 && state.Volume(args[0]) == nil {
				return noVolume(state, args[0])
			}
			type row struct {
				Volume string `json:"volume"`
				Mount  string `json:"mount"` // host:port:path
				config.Export
			}
			rows := []row{}
			for i := range state.Volumes {
				spec := &state.Volumes[i].Spec
				if len(args) > 0 && spec.Name != args[0] {
					continue
				}
				for _, e := range spec.Exports {
					rows = append(rows, row{spec.Name, spec.MountAddr().String() + ":" + e.Path, e})
				}
			}
			return printList(o, rows, "nothing is exported: see `holdfast export add --help`", []string{"VOLUME", "PATH", "MOUNT", "CLIENTS"},
				func(r row) []any { return []any{r.Volume, r.Path, r.Mount, clientList(r.Clients)} })
		},
	}
}

func newExportRemove(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "remove VOLUME PATH",
		Aliases: []string{"rm", "delete"},
		Short:   "Let nobody mount a folder any more",
		Long: `Remove an export. Clients that have it mounted lose access at once. Its files stay in the volume: exported again, they are back.

Exit code: 0 when the folder is exported no more, 1 otherwise.`,
		Example:           "  holdfast export remove main /home",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: o.complete(volumeNames, exportPaths),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := o.changeVolume(cmd, args[0], func(spec *config.VolumeSpec) error {
				if exportAt(spec, args[1]) == nil {
					return noExport(spec, args[1])
				}
				spec.Exports = slices.DeleteFunc(spec.Exports, func(e config.Export) bool { return e.Path == args[1] })
				return nil
			})
			if err != nil {
				return err
			}
			return o.print(c, func() error {
				o.sayf("volume %s exports %s no more; its files are still there", c.Volume, args[1])
				return nil
			})
		},
	}
}
