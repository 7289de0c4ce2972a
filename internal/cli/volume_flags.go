package cli

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"holdfast/internal/config"
	"holdfast/internal/export"
)

// volumeFlags are what can be said of a volume.
type volumeFlags struct {
	address, listen, device string
	lifetime                time.Duration
	nodePort                uint16
	copies                  int
	nodes, prefer           []string
	size, reserve           string
	failback                string
	failbackAfter           time.Duration

	// Of a new volume only.
	export  string
	clients []string
}

func (f *volumeFlags) register(o *options, cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.address, "address", "", "`IP/LENGTH`, the address that clients mount, which follows the node that serves, and the length of its network's prefix")
	flags.StringVar(&f.device, "device", "", "network `device` that gets the address (default: the one in that network)")
	spanVar(flags, &f.lifetime, "address-lifetime", 3*time.Second, time.Second, time.Hour, "how long the kernel keeps the address of a node that hangs")
	flags.StringVar(&f.listen, "listen", "", "`IP:PORT` to serve at; without --address it is what clients mount, and does not move between machines")
	flags.Uint16Var(&f.nodePort, "node-port", 0, "`port` at which every data node serves the volume too, at its own address; 0 for none")
	countVar(flags, &f.copies, "copies", "", 3, 1, 5, "`number` of nodes that keep the data, as far as there are so many: 1, 2, 3 or 5")
	flags.StringSliceVar(&f.nodes, "nodes", nil, "`nodes` that keep the data; then there are as many copies (default: the cluster chooses)")
	flags.StringVar(&f.size, "size", "", "how much clients may store, a `size` such as 500GiB; none for no limit but the disks'")
	flags.StringVar(&f.reserve, "reserve", "1GiB", "how much every node keeps free, a `size`: below it, writes that need space are refused")
	flags.StringSliceVar(&f.prefer, "prefer", nil, "`nodes` that should serve the volume, best first")
	flags.StringVar(&f.failback, "failback", config.FailbackManual, "`policy`: auto, the volume returns by itself to a node that it prefers; manual, it does not")
	spanVar(flags, &f.failbackAfter, "failback-after", 5*time.Minute, time.Second, 30*24*time.Hour, "how long that node must have been able to serve before")
	o.completeFlag(cmd, "nodes", dataNodeNames)
	o.completeFlag(cmd, "prefer", dataNodeNames)
}

// clientFlag adds a flag for entries of an export's client list. Its plural is understood too.
func (f *volumeFlags) clientFlag(cmd *cobra.Command, name, usage string) {
	cmd.Flags().StringArrayVar(&f.clients, name, nil, usage)
	synonym(cmd, name+"s", name)
}

// synonym makes a flag known by another name.
func synonym(cmd *cobra.Command, other, name string) {
	before := cmd.Flags().GetNormalizeFunc()
	cmd.Flags().SetNormalizeFunc(func(flags *pflag.FlagSet, s string) pflag.NormalizedName {
		if s == other {
			s = name
		}
		return before(flags, s)
	})
}

// apply changes spec by the flags that were given, and checks it.
func (f *volumeFlags) apply(cmd *cobra.Command, spec *config.VolumeSpec) error {
	given := cmd.Flags().Changed
	if err := f.applyAddress(cmd, spec); err != nil {
		return err
	}
	if given("nodes") {
		spec.Nodes = words(f.nodes)
		if len(spec.Nodes) > 0 && !given("copies") {
			spec.Copies = len(spec.Nodes)
		}
	}
	if given("copies") {
		spec.Copies = f.copies
	}
	if given("node-port") {
		spec.NodePort = f.nodePort
	}
	if given("prefer") {
		spec.Prefer = words(f.prefer)
	}
	if given("failback") {
		spec.Failback.Policy = f.failback
	}
	if given("failback-after") {
		spec.Failback.After = config.Duration(f.failbackAfter)
	}
	for _, s := range []struct {
		name, text string
		to         *config.Size
	}{{"size", f.size, &spec.Size}, {"reserve", f.reserve, &spec.Reserve}} {
		if !given(s.name) {
			continue
		}
		if err := parseSize(s.text, s.to); err != nil {
			return usagef("--%s: %v", s.name, err)
		}
	}
	if len(f.clients) > 0 && f.export == "" {
		return usagef("--client says who may use an export: name that with --export")
	}
	if f.export != "" {
		e := config.NewExport(f.export)
		var err error
		if e.Clients, err = parseClients(f.clients); err != nil {
			return err
		}
		if len(e.Clients) == 0 {
			return usagef("--export: say who may use it, with --client 'NETWORK:rw' for example")
		}
		spec.Exports = append(spec.Exports, e)
	}
	spec.Complete()
	return checkVolume(spec)
}

// applyAddress changes how clients find the volume.
func (f *volumeFlags) applyAddress(cmd *cobra.Command, spec *config.VolumeSpec) error {
	given := cmd.Flags().Changed
	fresh := spec.Address.Kind == ""
	switch {
	case given("address"):
		port := spec.MountAddr().Port()
		if err := spec.Address.IP.UnmarshalText([]byte(f.address)); err != nil {
			return usagef("--address: %v", err)
		}
		spec.Address.Kind = config.AddressIP
		if port != 0 {
			spec.Listen = netip.AddrPortFrom(netip.Prefix(spec.Address.IP).Addr(), port).String()
		}
	case given("listen") && fresh:
		spec.Address.Kind = config.AddressListen
	case fresh:
		return usagef("say which address clients mount: --address IP/LENGTH, one that no machine has yet, such as 10.0.0.50/24")
	}
	if given("listen") {
		spec.Listen = f.listen
		if host, port, err := net.SplitHostPort(f.listen); err == nil && host == "" {
			spec.Listen = net.JoinHostPort("0.0.0.0", port)
		}
	}
	if given("device") {
		spec.Address.Device = f.device
	}
	if given("address-lifetime") {
		spec.Address.Lifetime = config.Duration(f.lifetime)
	}
	return nil
}

// checkVolume says what is wrong with a volume that was put together from flags.
func checkVolume(spec *config.VolumeSpec) error {
	err := (&config.Spec{Volumes: []config.VolumeSpec{*spec}}).Validate()
	var errs config.Errors
	if errors.As(err, &errs) {
		for _, e := range errs {
			// There is one volume, and no file that the key could point into.
			e.Key = strings.TrimPrefix(strings.TrimPrefix(e.Key, "volumes[0]"), ".")
		}
		return withCode(ExitUsage, fmt.Errorf("volume %s: %w", spec.Name, errs))
	}
	return withCode(ExitUsage, err)
}

// words drops empty words: `--prefer ""` empties a list.
func words(list []string) []string {
	var all []string
	for _, w := range list {
		if w = strings.TrimSpace(w); w != "" {
			all = append(all, w)
		}
	}
	return all
}

// parseSize reads a size, or "none".
func parseSize(text string, to *config.Size) error {
	if text == "none" {
		*to = 0
		return nil
	}
	return to.UnmarshalText([]byte(text))
}

// parseClients reads entries of a client list as flags have them.
func parseClients(texts []string) ([]config.Client, error) {
	clients := []config.Client{}
	for _, text := range texts {
		c, err := parseClient(text)
		if err != nil {
			return nil, usagef("--client %s: %v", text, err)
		}
		clients = append(clients, c)
	}
	return clients, nil
}

// parseClient reads WHO:OPTIONS, and WHO(OPTIONS) as exports(5) has it; WHO alone may only read. An IPv6 address needs no brackets: what is an address as a whole has no options.
func parseClient(text string) (config.Client, error) {
	match, options := strings.TrimSpace(text), ""
	if who, rest, ok := strings.Cut(match, "("); ok && strings.HasSuffix(rest, ")") {
		match, options = who, strings.TrimSuffix(rest, ")")
	} else if _, err := export.ParseMatch(strings.Trim(match, "[]")); err != nil {
		if at := strings.LastIndexByte(match, ':'); at >= 0 {
			match, options = match[:at], match[at+1:]
		}
	}
	c := config.Client{Match: strings.Trim(match, "[]")}
	if options != "" {
		c.Options = words(strings.Split(options, ","))
	}
	if _, err := export.ParseMatch(c.Match); err != nil {
		return c, err
	}
	if _, err := export.ParseOptions(c.Options); err != nil {
		return c, err
	}
	return c, nil
}

// clientText writes a client as parseClient reads it.
func clientText(c config.Client) string {
	if len(c.Options) == 0 {
		return c.Match
	}
	return c.Match + ":" + strings.Join(c.Options, ",")
}

func clientList(clients []config.Client) string {
	var all []string
	for _, c := range clients {
		all = append(all, clientText(c))
	}
	return strings.Join(all, "  ")
}
