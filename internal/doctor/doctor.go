// Package doctor looks at the machine that a node runs on, or is to run on, for what will make trouble: before the node is in a cluster, and after.
//
// Each check gathers facts and has a pure function that judges them. Nothing is changed, except that two files are made in the data folder and removed
// again, to measure its disk. The checks run at the same time and take less than Limit.
package doctor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Limit is how long a check may take. One that takes longer, as on a file system that hangs, is reported as a problem.
const Limit = 2 * time.Second

// Status is the outcome of a check.
type Status string

// The values of Status.
const (
	OK      Status = "ok"
	Warning Status = "warning" // it works, but worse than it could, or the operator should know
	Problem Status = "problem" // it will not work, or data are at risk
	Skipped Status = "skipped" // it does not apply, or could not be found out
)

// Result is the outcome of one check.
type Result struct {
	// ID names the check for programs, and never changes; Name is for people.
	ID   string `json:"id"`
	Name string `json:"name"`
	// Status is the worst of what was found.
	Status Status `json:"status"`
	// Found is what was found, in a sentence or several.
	Found string `json:"found"`
	// Advice is what to do; empty if there is nothing to do.
	Advice string `json:"advice,omitempty"`
	// Took is how long it took, in nanoseconds.
	Took time.Duration `json:"took_ns"`
}

// Peer is another node.
type Peer struct {
	Name string
	// Address is the host, a name or an address, and the node port.
	Address string
	// NFS is where the peer accepts NFS clients whether it leads or not, host:port, if it does so anywhere.
	NFS []string
	// ClockOffset is by how much the peer's clock is ahead, if ClockKnown: an estimate that is wrong by ClockUncertainty at most.
	ClockOffset, ClockUncertainty time.Duration
	ClockKnown                    bool
}

// Address is an address of a volume that moves with its leader.
type Address struct {
	Prefix netip.Prefix
	// Device is where it is to be; empty: the device that has an address in the same network.
	Device string
	// Held: the volume runs, and some node holds the address, so that it is no surprise if somebody answers for it.
	Held bool
}

// Prober asks the neighbours who has an address (ARP probes of RFC 5227, or neighbour solicitations).
type Prober interface {
	// Probe returns the hardware address of whoever answers for addr, or "" if nobody does. device may be empty.
	Probe(ctx context.Context, addr netip.Addr, device string) (hardware string, err error)
}

// Resolver resolves names; *net.Resolver is one.
type Resolver interface {
	// LookupNetIP returns the addresses of a host; network is ip, ip4 or ip6.
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Config says what the node is, or is to be. The zero value of a field leaves out what needs it.
type Config struct {
	// Data is the node's data folder. If it does not exist yet, the nearest folder above it that does is looked at.
	Data string
	// Reserve is how many bytes of the data folder's file system the node keeps free.
	Reserve uint64
	// Listen is the address of the node port, host:port with or without the host.
	Listen string
	// NFS is where NFS clients are served, host:port with or without the host.
	NFS []string
	// Portmap: the node answers on port 111 too.
	Portmap bool
	// Peers are the other nodes, as far as they are known.
	Peers []Peer
	// Addresses are those that move. Prober is needed to look for others who have them.
	Addresses []Address
	Prober    Prober
	// Resolver is net.DefaultResolver if nil.
	Resolver Resolver
}

// host is access to the machine, so that tests can have another.
type host struct {
	root  string        // of /proc and /sys
	limit time.Duration // for each check
	// command runs a command and returns what it prints; exec.ErrNotFound: there is none.
	command func(ctx context.Context, name string, arg ...string) (string, error)
}

func realHost() *host {
	return &host{root: "/", limit: Limit, command: func(ctx context.Context, name string, arg ...string) (string, error) {
		path, err := lookPath(name)
		if err != nil {
			return "", err
		}
		out, err := exec.CommandContext(ctx, path, arg...).Output()
		return string(out), err
	}}
}

// lookPath finds administrators' commands for ordinary users too.
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(filepath.Join(dir, name))
	}
	if err != nil {
		return "", exec.ErrNotFound
	}
	return path, nil
}

// path returns where a file like /proc/stat is.
func (h *host) path(name string) string { return filepath.Join(h.root, name) }

// read returns the content of a file like /proc/stat without space around it; "" if it cannot be read.
func (h *host) read(name string) string {
	b, err := os.ReadFile(h.path(name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// finding is one thing that a check found.
type finding struct {
	status        Status
	found, advice string
}

func fine(format string, arg ...any) finding { return finding{OK, fmt.Sprintf(format, arg...), ""} }
func skip(format string, arg ...any) finding {
	return finding{Skipped, fmt.Sprintf(format, arg...), ""}
}

// check is one of the checks. It returns at least one finding, and soon after ctx has ended.
type check struct {
	id, name string
	run      func(ctx context.Context, h *host, cfg *Config) []finding
}

// checks are all checks, in the order of their results.
var checks = []check{
	{"filesystem", "File system of the data folder", checkFilesystem},
	{"space", "Free space", checkSpace},
	{"inodes", "Free inodes", checkInodes},
	{"fsync", "Disk keeps what it acknowledges", checkSync},
	{"clock", "Clock", checkClock},
	{"pauses", "Machine is not paused", checkPauses},
	{"memory", "Memory", checkMemory},
	{"kernel", "Kernel", checkKernel},
	{"files", "Open files", checkFiles},
	{"capabilities", "Capabilities", checkCapabilities},
	{"ports", "Ports are free", checkPorts},
	{"servers", "Other NFS servers", checkServers},
	{"firewall", "Firewall", checkFirewall},
	{"names", "Name resolution", checkNames},
	{"peers", "Other nodes answer", checkPeers},
	{"mtu", "Packet sizes", checkMTU},
	{"addresses", "Addresses that move", checkAddresses},
}

// Run runs all checks and returns their results, always in the same order. It returns when all are done or have used up their time.
func Run(ctx context.Context, cfg Config) []Result {
	if cfg.Resolver == nil {
		cfg.Resolver = net.DefaultResolver
	}
	return run(ctx, realHost(), &cfg, checks)
}

func run(ctx context.Context, h *host, cfg *Config, checks []check) []Result {
	results := make([]Result, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() { results[i] = c.result(ctx, h, cfg) })
	}
	wg.Wait()
	return results
}

// grace is what a check has to return in once its time is over.
const grace = 200 * time.Millisecond

// result runs a check. A system call that hangs is left behind: nothing can end it.
func (c check) result(ctx context.Context, h *host, cfg *Config) Result {
	start := time.Now()
	limited, cancel := context.WithTimeout(ctx, h.limit-min(grace, h.limit/2))
	defer cancel()
	done := make(chan []finding, 1)
	go func() { done <- c.run(limited, h, cfg) }()
	r := Result{ID: c.id, Name: c.name}
	select {
	case f := <-done:
		r.sum(f)
	case <-time.After(h.limit):
		r.sum([]finding{{Problem, fmt.Sprintf("this took more than %v.", h.limit), "See whether the disk, or a file system mounted from elsewhere, hangs."}})
	}
	r.Took = time.Since(start)
	return r
}

// severity orders statuses: what is skipped does not hide what was found to be well.
var severity = []Status{Skipped, OK, Warning, Problem}

// sum puts findings together, the worst first. What is well is left out beside what is not.
func (r *Result) sum(all []finding) {
	rank := func(f finding) int { return slices.Index(severity, f.status) }
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b finding) int { return rank(b) - rank(a) })
	r.Status = all[0].status
	var found, advice []string
	for _, f := range all {
		if r.Status != OK && r.Status != Skipped && rank(f) <= slices.Index(severity, OK) && f.advice == "" {
			continue
		}
		found = appendNew(found, f.found)
		advice = appendNew(advice, f.advice)
	}
	r.Found, r.Advice = strings.Join(found, " "), strings.Join(advice, " ")
}

// appendNew appends a sentence unless it is empty or there already.
func appendNew(to []string, s string) []string {
	if s == "" || slices.Contains(to, s) {
		return to
	}
	return append(to, s)
}

// size writes a number of bytes for people.
func size(n uint64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"}
	v, u := float64(n), 0
	for v >= 1024 && u < len(units)-1 {
		v, u = v/1024, u+1
	}
	if u == 0 || v >= 100 {
		return fmt.Sprintf("%.0f %s", v, units[u])
	}
	return fmt.Sprintf("%.1f %s", v, units[u])
}
