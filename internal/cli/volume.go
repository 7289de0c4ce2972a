package cli

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/config"
)

func newVolume(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "volume",
		Aliases: []string{"volumes", "vol"},
		Short:   "Make, change and delete volumes",
		Long: `A volume is a file system with an address of its own that clients mount: a virtual NFS server. It is kept on several nodes, one of which serves it;
the address follows that node.

Exit code: 2 without a subcommand.`,
		Example: `  holdfast volume create main --address 10.0.0.50/24 --export /data --client '10.0.0.0/24:rw'
  holdfast volume list
  holdfast volume show main`,
	}
	cmd.AddCommand(newVolumeCreate(o), newVolumeList(o), newVolumeShow(o), newVolumeSet(o), newVolumeResize(o), newVolumeDelete(o))
	return cmd
}

// serveTimeout is how long a new volume may take until it is served.
const serveTimeout = time.Minute

// addressPolls is for how many looks in a row the address of a new volume may be missing: it is taken in a moment, or something is wrong.
const addressPolls = 25

func newVolumeCreate(o *options) *cobra.Command {
	var flags volumeFlags
	var noWait bool
	cmd := &cobra.Command{
		Use:   "create NAME (--address IP/LENGTH | --listen IP:PORT)",
		Short: "Make a volume",
		Long: `Make a volume, empty, and wait until it is served. The cluster chooses which nodes keep it, unless --nodes says so: those with the fewest volumes, in as many
zones as possible.

Exit code: 0 when the volume is served, 1 otherwise, 2 when what is asked for makes no sense.`,
		Example: `  holdfast volume create main --address 10.0.0.50/24 --export /data --client '10.0.0.0/24:rw,no_root_squash'
  holdfast volume create scratch --address 10.0.0.51/24 --device eth1 --copies 1 --size 2TiB
  holdfast volume create db --address 10.0.0.52/24 --nodes a,b --prefer a --failback auto`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec := config.NewVolume(args[0])
			if err := flags.apply(cmd, &spec); err != nil {
				return err
			}
			if _, err := o.do(cmd, cluster.Command{AddVolume: &cluster.AddVolume{Spec: spec}}); err != nil {
				return err
			}
			if noWait {
				return o.print(spec, func() error { o.sayf("volume %s is made", spec.Name); return nil })
			}
			if err := o.awaitServed(cmd, spec.Name); err != nil {
				return err
			}
			return o.print(spec, func() error { printMade(o, &spec); return nil })
		},
	}
	flags.register(o, cmd)
	cmd.Flags().StringVar(&flags.export, "export", "", "`path` of a first export")
	flags.clientFlag(cmd, "client", "who may use the export, as `WHO:OPTIONS`, see `holdfast export add`; may be repeated")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until the volume is served")
	return cmd
}

// awaitServed waits until somebody serves the volume, at its address.
func (o *options) awaitServed(cmd *cobra.Command, volume string) error {
	c, err := o.client()
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeoutCause(cmd.Context(), serveTimeout,
		fmt.Errorf("the volume is made, but nobody serves it after %v: see `holdfast status` and `holdfast explain %s`", serveTimeout, volume))
	defer cancel()
	began := time.Now()
	return o.await(ctx, func(ctx context.Context) (string, bool, error) {
		s, err := o.status(ctx, c)
		if err != nil {
			return "", false, err
		}
		v := volumeStatus(&s, volume)
		if v != nil && v.AddressProblem != "" {
			what := fmt.Sprintf("its address is not on node %s, so that clients do not reach it: %s", v.Leader, v.AddressProblem)
			if time.Since(began) > addressPolls*o.poll {
				return "", false, fmt.Errorf("the volume is made, but %s. The address can be changed: `holdfast volume set %s --address IP/LENGTH`", what, volume)
			}
			return what, false, nil
		}
		return "waiting until volume " + volume + " is served", v != nil && v.Serving && v.Leader != "", nil
	})
}

// volumeStatus returns the status of a volume, or nil.
func volumeStatus(s *api.Status, name string) *api.VolumeStatus {
	for i := range s.Volumes {
		if s.Volumes[i].Name == name {
			return &s.Volumes[i]
		}
	}
	return nil
}

func printMade(o *options, spec *config.VolumeSpec) {
	fmt.Fprintf(o.out, "volume %s is made and served at %s\n", spec.Name, spec.MountAddr())
	if len(spec.Exports) == 0 {
		fmt.Fprintf(o.out, "nobody can mount it yet: `holdfast export add %s /data --client 'NETWORK:rw'`\n", spec.Name)
		return
	}
	fmt.Fprintf(o.out, "on a client, as root: %s\n", mountCommand(spec, spec.Exports[0].Path))
}

// mountCommand is what to type on a client.
func mountCommand(spec *config.VolumeSpec, path string) string {
	at := spec.MountAddr()
	host, port := at.Addr().String(), ""
	if at.Addr().Is6() {
		host = "[" + host + "]"
	}
	if at.Port() != config.DefaultNFSPort {
		port = fmt.Sprintf(",port=%d", at.Port())
	}
	return fmt.Sprintf("mount -t nfs -o vers=4.2%s %s:%s /mnt", port, host, path)
}

// view is a volume as it is configured, and as it is.
type view struct {
	Spec   config.VolumeSpec `json:"spec"`
	ID     uint32            `json:"id"`
	Status *api.VolumeStatus `json:"status,omitempty"`
}

// views asks for all volumes.
func (o *options) views(cmd *cobra.Command) ([]view, error) {
	return ask(cmd, o, func(ctx context.Context, c *api.Client) ([]view, error) {
		state, err := o.state(ctx, c)
		if err != nil {
			return nil, err
		}
		status, err := o.status(ctx, c)
		if err != nil {
			return nil, err
		}
		all := []view{}
		for i := range state.Volumes {
			v := &state.Volumes[i]
			all = append(all, view{Spec: v.Spec, ID: v.ID, Status: volumeStatus(&status, v.Spec.Name)})
		}
		return all, nil
	})
}

func newVolumeList(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the volumes",
		Long: `List the volumes with what is configured of them.

Exit code: 0 when the node answered, 1 otherwise.`,
		Example: "  holdfast volume list\n  holdfast volume list -o json | jq -r '.[].spec.name'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := o.views(cmd)
			if err != nil {
				return err
			}
			columns := []string{"VOLUME", "ADDRESS", "STATE", "LED BY", "COPIES", "KEPT BY", "SIZE", "EXPORTS"}
			return printList(o, all, "there is no volume yet: make one with `holdfast volume create`", columns, func(v view) []any {
				state, leader, members := cell{"unknown", warn}, "", ""
				if v.Status != nil {
					state, leader, members = safetyCell(*v.Status), leaderText(*v.Status), strings.Join(v.Status.Members, " ")
				}
				return []any{v.Spec.Name, v.Spec.MountAddr(), state, leader, v.Spec.Copies, members, sizeText(v.Spec.Size), strings.Join(paths(&v.Spec), " ")}
			})
		},
	}
}

func sizeText(s config.Size) string {
	if s == 0 {
		return "no limit"
	}
	return s.String()
}

func paths(spec *config.VolumeSpec) []string {
	var all []string
	for _, e := range spec.Exports {
		all = append(all, e.Path)
	}
	return all
}

func newVolumeShow(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show all there is to know of a volume",
		Long: `Show how a volume is configured, who keeps it and how far each copy is, its log, its exports and its clients.

Exit code: 0 when the volume is shown, 1 otherwise.`,
		Example:           "  holdfast volume show main\n  holdfast volume show main -o json | jq .status.clients",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: o.complete(volumeNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := o.views(cmd)
			if err != nil {
				return err
			}
			names := []string{}
			for i := range all {
				names = append(names, all[i].Spec.Name)
			}
			name, err := pick(names, args)
			if err != nil {
				return err
			}
			for i := range all {
				if v := &all[i]; v.Spec.Name == name {
					return o.print(v, func() error { return printVolume(o, v) })
				}
			}
			return fmt.Errorf("there is no volume %q: %s", name, thereAre(names))
		},
	}
}

// pick returns the volume that the arguments name, or the only one there is.
func pick(names, args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	if len(names) != 1 {
		return "", usagef("which volume? %s", thereAre(names))
	}
	return names[0], nil
}

func printVolume(o *options, v *view) error {
	p := o.painter()
	t := &table{rows: [][]cell{{{}, {}}}}
	line := func(key string, value any) { t.row(cell{key, header}, value) }
	spec := &v.Spec
	t.rows = nil
	line("volume", fmt.Sprintf("%s, number %d", spec.Name, v.ID))
	if s := v.Status; s != nil {
		line("state", safetyCell(*s))
		line("led by", fmt.Sprintf("%s, term %d", leaderText(*s), s.Term))
		if s.Placement != "" {
			line("because", s.Placement)
		}
	}
	address := spec.MountAddr().String()
	if spec.Address.Kind == config.AddressIP {
		address += fmt.Sprintf(" (network %s", netip.Prefix(spec.Address.IP).Masked())
		if spec.Address.Device != "" {
			address += ", device " + spec.Address.Device
		}
		address += ")"
	}
	line("address", address)
	if v.Status != nil && v.Status.AddressProblem != "" {
		line("", cell{v.Status.AddressProblem, bad})
	}
	if spec.NodePort != 0 {
		line("node port", spec.NodePort)
	}
	copies := fmt.Sprint(spec.Copies)
	if len(spec.Nodes) > 0 {
		copies += ", on " + strings.Join(spec.Nodes, ", ")
	}
	line("copies", copies)
	line("failback", failbackText(spec))
	line("size", fmt.Sprintf("%s, every node keeps %v free", sizeText(spec.Size), spec.Reserve))
	if s := v.Status; s != nil {
		line("used", bytesText(s.UsedBytes))
		full := ""
		if s.Space.Full {
			full = "; FULL: growth is refused until every copy has more room"
			if len(s.Space.Low) > 0 {
				full = "; FULL: growth is refused until there is more room on " + list(s.Space.Low)
			}
		}
		line("disk", fmt.Sprintf("%s free of %s on %s%s", bytesText(s.Space.FreeBytes), bytesText(s.Space.TotalBytes), leaderText(*s), full))
		line("log", fmt.Sprintf("entries %d to %d, committed %d, applied %d; %d segments, %s; last sync %d us",
			s.First, s.Last, s.Commit, s.Applied, s.Log.Segments, bytesText(s.Log.Bytes), s.Log.LastSyncUS))
	}
	if err := t.print(o.out, p); err != nil {
		return err
	}
	return printParts(o, v)
}

func failbackText(spec *config.VolumeSpec) string {
	if len(spec.Prefer) == 0 {
		return "it stays where it is"
	}
	text := "prefers " + strings.Join(spec.Prefer, ", then ")
	if spec.Failback.Policy == config.FailbackAuto {
		return text + fmt.Sprintf("; returns when that node has been able for %v", spec.Failback.After)
	}
	return text + "; returns when told to"
}

// printParts prints the tables of a volume. Each has columns of its own: a client's long name does not move the others'.
func printParts(o *options, v *view) error {
	var tables []*table
	exports := newTable("EXPORT", "CLIENTS")
	for _, e := range v.Spec.Exports {
		exports.row(e.Path, clientList(e.Clients))
	}
	tables = append(tables, exports)
	if s := v.Status; s != nil {
		copies := newTable("COPY", "STATE", "HAS", "BEHIND")
		for _, r := range s.Replicas {
			state := cell{replicaState(r), good}
			if !r.Active {
				state.style = bad
			} else if !r.InSync && !r.Witness {
				state.style = warn
			}
			copies.row(r.Node, state, r.Match, r.Lag)
		}
		clients := newTable("CLIENT", "ADDRESS", "SESSIONS", "OPENS", "LOCKS")
		for _, c := range s.Clients {
			clients.row(printable(c.Owner), c.Address, c.Sessions, c.Opens, c.Locks)
		}
		tables = append(tables, copies, clients)
	}
	for _, t := range tables {
		if len(t.rows) == 1 {
			continue
		}
		fmt.Fprintln(o.out)
		if err := t.print(o.out, o.painter()); err != nil {
			return err
		}
	}
	return nil
}
