package doctor

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	memoryWarning = 1 << 30
	memoryProblem = 256 << 20
	// swapWarningPercent of the memory swapped out slows a node down whenever it is needed again.
	swapWarningPercent = 10
	filesWarning       = 65536 // an address's device wants a descriptor of 60000
	filesProblem       = 4096
)

// oldestKernel is the oldest that Holdfast is meant for.
var oldestKernel = [2]int{5, 4}

// Capabilities (capabilities(7)).
const (
	capNetBindService = 10
	capNetAdmin       = 12
	capNetRaw         = 13
)

func checkMemory(_ context.Context, h *host, _ *Config) []finding {
	return judgeMemory(parseMeminfo(h.read("/proc/meminfo")))
}

// parseMeminfo reads /proc/meminfo, in bytes.
func parseMeminfo(s string) map[string]uint64 {
	all := make(map[string]uint64)
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		if n, err := strconv.ParseUint(f[1], 10, 54); err == nil {
			all[strings.TrimSuffix(f[0], ":")] = n << 10
		}
	}
	return all
}

func judgeMemory(m map[string]uint64) []finding {
	total, available := m["MemTotal"], m["MemAvailable"]
	if total == 0 {
		return []finding{skip("The kernel does not say how much there is.")}
	}
	f := fine("%s, of which %s are available.", size(total), size(available))
	switch {
	case available < memoryProblem:
		f.status, f.advice = Problem, "Give the machine more memory, or stop what else runs: the kernel kills processes when there is none left."
	case total < memoryWarning:
		f.status, f.advice = Warning, "1 GiB is little for a data node, whose speed comes from caches. For a witness it is plenty."
	}
	all := []finding{f}
	if swapped := m["SwapTotal"] - min(m["SwapFree"], m["SwapTotal"]); swapped*100 > total*swapWarningPercent {
		all = append(all, finding{Warning, fmt.Sprintf("%s are swapped out.", size(swapped)), "A node that waits for its memory from disk loses its leadership: give the machine more memory, or turn swap off."})
	}
	return all
}

func checkKernel(_ context.Context, h *host, _ *Config) []finding {
	return judgeKernel(h.read("/proc/sys/kernel/osrelease"))
}

func judgeKernel(release string) []finding {
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 {
		return []finding{skip("Its version is not known (%q).", release)}
	}
	if major < oldestKernel[0] || major == oldestKernel[0] && minor < oldestKernel[1] {
		return []finding{{Warning, fmt.Sprintf("Linux %s is older than %d.%d.", release, oldestKernel[0], oldestKernel[1]), "Holdfast is not tested on kernels that old: upgrade the distribution."}}
	}
	return []finding{fine("Linux %s.", release)}
}

func checkFiles(context.Context, *host, *Config) []finding {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return []finding{skip("The limit cannot be read: %v.", err)}
	}
	return judgeFiles(limit.Max)
}

// judgeFiles judges the hard limit: Go programs raise the soft one to it.
func judgeFiles(limit uint64) []finding {
	f := fine("Up to %d.", limit)
	switch {
	case limit < filesProblem:
		f.status = Problem
	case limit < filesWarning:
		f.status = Warning
	}
	if f.status != OK {
		f.advice = fmt.Sprintf("Allow %d or more (LimitNOFILE in the systemd unit, ulimit -Hn otherwise): connections and open files take one each.", filesWarning)
	}
	return []finding{f}
}

func checkCapabilities(_ context.Context, h *host, cfg *Config) []finding {
	var effective uint64
	known := false
	for line := range strings.Lines(h.read("/proc/self/status")) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			effective, known = n, err == nil
		}
	}
	if !known {
		return []finding{skip("The kernel does not say which there are.")}
	}
	lowest, err := strconv.Atoi(h.read("/proc/sys/net/ipv4/ip_unprivileged_port_start"))
	if err != nil {
		lowest = 1024
	}
	var tun error
	if len(cfg.Addresses) > 0 {
		f, err := os.OpenFile(h.path("/dev/net/tun"), os.O_RDWR, 0)
		if tun = err; err == nil {
			_ = f.Close()
		}
	}
	want, _ := wantedPorts(cfg)
	return judgeCapabilities(effective, uint16(lowest), want, len(cfg.Addresses) > 0, tun)
}

func judgeCapabilities(effective uint64, lowest uint16, want []wanted, addresses bool, tun error) []finding {
	has := func(c int) bool { return effective>>c&1 == 1 }
	var all []finding
	const give = "Run this as Holdfast runs; its systemd unit gives them (AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE)."
	if addresses && !has(capNetAdmin) {
		all = append(all, finding{Problem, "CAP_NET_ADMIN is missing: addresses cannot be moved.", give})
	}
	if addresses && !has(capNetRaw) {
		all = append(all, finding{Problem, "CAP_NET_RAW is missing: clients and switches are not told that an address moved.", give})
	}
	for _, w := range want {
		if w.port < lowest && !has(capNetBindService) {
			all = append(all, finding{Problem, fmt.Sprintf("CAP_NET_BIND_SERVICE is missing: port %d (%s) cannot be listened on.", w.port, w.what), give})
		}
	}
	if addresses && tun != nil {
		all = append(all, finding{Warning, fmt.Sprintf("/dev/net/tun cannot be opened (%v): a moving IPv4 address outlives a killed node for a moment, and clients then wait for some seconds.", tun),
			"Load the module (modprobe tun), and let a container have the device."})
	}
	if all == nil {
		all = append(all, fine("All that are needed are there."))
	}
	return all
}
