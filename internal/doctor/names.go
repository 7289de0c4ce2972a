package doctor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

func checkNames(ctx context.Context, _ *host, cfg *Config) []finding {
	var names []string
	own, err := os.Hostname()
	if err == nil {
		names = append(names, own)
	}
	for _, p := range cfg.Peers {
		h, _, err := net.SplitHostPort(p.Address)
		if err != nil {
			h = p.Address
		}
		if _, err := netip.ParseAddr(h); err != nil {
			names = appendNew(names, h)
		}
	}
	if len(names) == 0 {
		return []finding{skip("There are no names to resolve.")}
	}
	found := make([]finding, len(names))
	var wg sync.WaitGroup
	for i, n := range names {
		wg.Go(func() {
			start := time.Now()
			addrs, err := cfg.Resolver.LookupNetIP(ctx, "ip", n)
			found[i] = judgeName(n, n == own, addrs, time.Since(start), err)
		})
	}
	wg.Wait()
	return found
}

func judgeName(name string, own bool, addrs []netip.Addr, took time.Duration, err error) finding {
	var words []string
	for _, a := range addrs {
		words = appendNew(words, a.Unmap().String())
	}
	f := fine("%s is %s.", name, strings.Join(words, ", "))
	switch {
	case err != nil && own:
		f = finding{Warning, fmt.Sprintf("This machine's own name, %s, cannot be resolved: %v.", name, err), "Put it into /etc/hosts."}
	case err != nil:
		f = finding{Problem, fmt.Sprintf("The name %s cannot be resolved: %v.", name, err), "Put it into /etc/hosts of all nodes, so that the cluster does not depend on a name server."}
	case !own && slices.ContainsFunc(addrs, netip.Addr.IsLoopback):
		f.status, f.advice = Problem, "Another node's name must not lead to this machine: correct /etc/hosts."
	}
	if took > nameSlow && (err == nil || f.status == Warning) {
		f.status = Warning
		f.found += fmt.Sprintf(" That took %v.", took.Round(time.Millisecond))
		f.advice = strings.TrimSpace(f.advice + " Put the names of nodes into /etc/hosts, and see whether the name servers in /etc/resolv.conf answer: clients whose export is by name wait for them.")
	}
	return f
}

func checkAddresses(ctx context.Context, _ *host, cfg *Config) []finding {
	if len(cfg.Addresses) == 0 {
		return []finding{skip("There are no addresses that move.")}
	}
	devices, err := net.Interfaces()
	if err != nil {
		return []finding{skip("The network devices cannot be listed: %v.", err)}
	}
	var networks []network
	for _, d := range devices {
		networks = append(networks, network{name: d.Name, up: d.Flags&net.FlagUp != 0, prefixes: prefixes(d)})
	}
	found := make([][]finding, len(cfg.Addresses))
	var wg sync.WaitGroup
	for i, a := range cfg.Addresses {
		wg.Go(func() {
			f := judgeAddress(a, networks)
			// Nobody is asked for an address that this machine has itself.
			if f.status == OK && cfg.Prober != nil && !a.Held && !here(a.Prefix.Addr(), networks) {
				hardware, err := cfg.Prober.Probe(ctx, a.Prefix.Addr(), a.Device)
				f = judgeOccupied(a, hardware, err)
			}
			found[i] = []finding{f}
		})
	}
	wg.Wait()
	return slices.Concat(found...)
}

// network is a device and its addresses.
type network struct {
	name     string
	up       bool
	prefixes []netip.Prefix
}

func here(a netip.Addr, networks []network) bool {
	return slices.ContainsFunc(networks, func(n network) bool {
		return slices.ContainsFunc(n.prefixes, func(p netip.Prefix) bool { return p.Addr() == a })
	})
}

// judgeAddress looks for the device that the address belongs on.
func judgeAddress(a Address, networks []network) finding {
	addr := a.Prefix.Addr()
	i := slices.IndexFunc(networks, func(n network) bool {
		if a.Device != "" {
			return n.name == a.Device
		}
		return slices.ContainsFunc(n.prefixes, func(p netip.Prefix) bool { return p.Addr() != addr && p.Contains(addr) })
	})
	switch {
	case i < 0 && a.Device != "":
		return finding{Problem, fmt.Sprintf("%v is to be on device %s, which this machine does not have.", addr, a.Device), "Correct the device's name; ip link lists them."}
	case i < 0:
		return finding{Problem, fmt.Sprintf("No device of this machine is in the network of %v.", addr), "Name the device, or choose an address of a network that all nodes are in."}
	case !networks[i].up:
		return finding{Problem, fmt.Sprintf("%v belongs on device %s, which is down.", addr, networks[i].name), fmt.Sprintf("Set it up: ip link set %s up.", networks[i].name)}
	}
	return fine("%v belongs on device %s.", addr, networks[i].name)
}

func judgeOccupied(a Address, hardware string, err error) finding {
	addr := a.Prefix.Addr()
	switch {
	case err != nil:
		return skip("Whether somebody else has %v cannot be found out: %v.", addr, err)
	case hardware != "":
		return finding{Problem, fmt.Sprintf("Another machine has %v already: %s answers for it.", addr, hardware), "Choose an address that is free, and take it out of the range that DHCP gives away."}
	}
	return fine("Nobody else has %v.", addr)
}
