package doctor

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// portmapPort is rpcbind's (RFC 1833).
const portmapPort = 111

// ownName is the name of our own process.
const ownName = "holdfast"

// wanted is a port that the node listens on.
type wanted struct {
	addr netip.Addr // unspecified: all
	port uint16
	what string
}

// wantedPorts lists the ports that the node needs; what cannot be read as host:port becomes a finding.
func wantedPorts(cfg *Config) (all []wanted, bad []finding) {
	add := func(listen, what string) {
		h, p, err := net.SplitHostPort(listen)
		port, pErr := strconv.ParseUint(p, 10, 16)
		if err != nil || pErr != nil {
			bad = append(bad, finding{Problem, fmt.Sprintf("%q is no address to listen on.", listen), "Write host:port, or :port for all addresses."})
			return
		}
		addr, err := netip.ParseAddr(h)
		if err != nil {
			addr = netip.IPv6Unspecified() // a name, or none: at worst it is all
		}
		w := wanted{addr.Unmap(), uint16(port), what}
		if !slices.Contains(all, w) {
			all = append(all, w)
		}
	}
	if cfg.Listen != "" {
		add(cfg.Listen, "other nodes")
	}
	for _, l := range cfg.NFS {
		add(l, "NFS")
	}
	if cfg.Portmap {
		add(fmt.Sprintf(":%d", portmapPort), "the port mapper")
	}
	return all, bad
}

// listener is a socket that listens.
type listener struct {
	addr  netip.Addr
	port  uint16
	owner string // the process's name; "" if it cannot be told: the kernel's, or one of another user
}

// clashes reports whether a socket on w cannot be made because of l.
func (l listener) clashes(w wanted) bool {
	return l.port == w.port && (l.addr == w.addr || l.addr.IsUnspecified() || w.addr.IsUnspecified())
}

func checkPorts(_ context.Context, h *host, cfg *Config) []finding {
	want, bad := wantedPorts(cfg)
	if len(want) == 0 {
		return append(bad, skip("The node's ports are not known."))
	}
	return append(bad, judgePorts(want, h.listeners())...)
}

func judgePorts(want []wanted, have []listener) []finding {
	var all []finding
	for _, w := range want {
		f := fine("Port %d (%s) is free.", w.port, w.what)
		for _, l := range have {
			if !l.clashes(w) {
				continue
			}
			switch l.owner {
			case ownName:
				f = fine("Holdfast has port %d (%s).", w.port, w.what)
				continue
			case "":
				f = finding{Problem, fmt.Sprintf("Port %d (%s) is taken, by the kernel or a process that cannot be seen.", w.port, w.what),
					"Run this as root to see who has it; on 2049 it is most likely the kernel's NFS server (systemctl disable --now nfs-server)."}
			default:
				f = finding{Problem, fmt.Sprintf("Port %d (%s) is taken by %s.", w.port, w.what, l.owner), fmt.Sprintf("Stop %s, or give Holdfast another port.", l.owner)}
				if w.port == portmapPort {
					f.status, f.advice = Warning, fmt.Sprintf("Holdfast cannot answer NFSv3 clients that ask for its ports there: stop %s, if nothing else needs it.", l.owner)
				}
			}
			break
		}
		all = append(all, f)
	}
	return all
}

// listeners lists the TCP sockets that listen.
func (h *host) listeners() []listener {
	type socket struct {
		listener
		inode string
	}
	var all []socket
	inodes := make(map[string]string) // to owners
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		for line := range strings.Lines(h.read(name)) {
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != "0A" { // TCP_LISTEN
				continue
			}
			if addr, port, ok := parseSocket(f[1]); ok {
				all = append(all, socket{listener{addr: addr, port: port}, f[9]})
				inodes["socket:["+f[9]+"]"] = ""
			}
		}
	}
	if len(all) > 0 {
		h.findOwners(inodes)
	}
	out := make([]listener, 0, len(all))
	for _, s := range all {
		s.owner = inodes["socket:["+s.inode+"]"]
		out = append(out, s.listener)
	}
	return out
}

// findOwners fills in the names of the processes that have the sockets.
func (h *host) findOwners(sockets map[string]string) {
	for _, p := range h.processes() {
		dir := h.path(fmt.Sprintf("/proc/%d/fd", p.pid))
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			target, err := os.Readlink(dir + "/" + fd.Name())
			if _, ok := sockets[target]; ok && err == nil {
				sockets[target] = p.comm
			}
		}
	}
}

// parseSocket reads an address as /proc/net/tcp has it: words of four bytes in the machine's order, and a port, all in hexadecimal.
func parseSocket(s string) (netip.Addr, uint16, bool) {
	a, p, ok := strings.Cut(s, ":")
	b, err := hex.DecodeString(a)
	port, pErr := strconv.ParseUint(p, 16, 16)
	if !ok || err != nil || pErr != nil || len(b) != 4 && len(b) != 16 {
		return netip.Addr{}, 0, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.BigEndian.PutUint32(b[i:], binary.NativeEndian.Uint32(b[i:]))
	}
	addr, _ := netip.AddrFromSlice(b)
	return addr.Unmap(), uint16(port), true
}

// otherServers are NFS servers and what belongs to them, by the names of their processes.
var otherServers = map[string]finding{
	"ganesha.nfsd": {Warning, "NFS-Ganesha runs (ganesha.nfsd).", "If Holdfast is to serve on the same port, stop it: systemctl disable --now nfs-ganesha."},
	"rpcbind":      {OK, "rpcbind runs.", "It is needed by NFSv3 locks of this machine as a client only; NFSv3 clients that ask it do not hear of Holdfast."},
	"unfsd":        {Warning, "UNFS3 runs (unfsd).", "If Holdfast is to serve on the same port, stop it."},
	"corosync":     {OK, "Corosync runs.", "Do not let Pacemaker manage Holdfast or its addresses: both would move them."},
}

func checkServers(_ context.Context, h *host, _ *Config) []finding {
	var all []finding
	if n, err := strconv.Atoi(h.read("/proc/fs/nfsd/threads")); err == nil && n > 0 {
		all = append(all, finding{Warning, fmt.Sprintf("The kernel's NFS server runs, with %d threads.", n),
			"If Holdfast is to serve on the same port, stop it: systemctl disable --now nfs-server."})
	}
	seen := make(map[string]bool)
	for _, p := range h.processes() {
		if f, ok := otherServers[p.comm]; ok && !seen[p.comm] {
			seen[p.comm] = true
			all = append(all, f)
		}
	}
	if all == nil {
		all = append(all, fine("There are none."))
	}
	return all
}
