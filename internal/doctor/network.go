package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// connectTimeout is for one connection to a peer.
	connectTimeout = 1500 * time.Millisecond
	// Round trips: every write waits for one, elections begin after 200 ms of silence.
	rttWarning = 20 * time.Millisecond
	rttProblem = 100 * time.Millisecond
	// nameSlow is too slow for a resolver: a client whose export is by name waits for it when it connects.
	nameSlow = 500 * time.Millisecond
	// longestPacket is IPv4's limit; a loopback device has more.
	longestPacket = 65535
)

// eachPeer calls f for all peers at once and returns what it finds, in their order.
func eachPeer(cfg *Config, f func(p Peer) []finding) []finding {
	found := make([][]finding, len(cfg.Peers))
	var wg sync.WaitGroup
	for i, p := range cfg.Peers {
		wg.Go(func() { found[i] = f(p) })
	}
	wg.Wait()
	return slices.Concat(found...)
}

func checkPeers(ctx context.Context, _ *host, cfg *Config) []finding {
	if len(cfg.Peers) == 0 {
		return []finding{skip("No other nodes are known.")}
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return eachPeer(cfg, func(p Peer) []finding {
		rtt, err := roundTrip(ctx, p.Address)
		found := judgePeer(p, rtt, err)
		for _, nfs := range p.NFS {
			_, err := roundTrip(ctx, nfs)
			found = append(found, judgeNFS(p, nfs, err))
		}
		return found
	})
}

func judgeNFS(p Peer, address string, err error) finding {
	if err != nil {
		return finding{Warning, fmt.Sprintf("%s does not accept NFS at %s: %v.", p.Name, address, err), "See whether Holdfast runs there, and whether a firewall lets the port in: clients need it too."}
	}
	return fine("%s accepts NFS at %s.", p.Name, address)
}

// roundTrip returns how long a connection takes to be made: one round trip. The quicker of two counts: the first one may wait for ARP.
func roundTrip(ctx context.Context, address string) (best time.Duration, err error) {
	for i := range 2 {
		start := time.Now()
		nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		took := time.Since(start)
		if err != nil {
			return 0, err
		}
		_ = nc.Close()
		if i == 0 || took < best {
			best = took
		}
	}
	return best, nil
}

func judgePeer(p Peer, rtt time.Duration, err error) []finding {
	var dns *net.DNSError
	var netErr net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return []finding{{Problem, fmt.Sprintf("%s refuses connections at %s.", p.Name, p.Address), "Start Holdfast there; if it runs, see whether it listens on that address and a firewall rejects."}}
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return []finding{{Problem, fmt.Sprintf("%s cannot be reached: there is no way to %s.", p.Name, p.Address), "See whether the machine is on, and to addresses and routes of both."}}
	case errors.As(err, &dns):
		return []finding{{Problem, fmt.Sprintf("%s cannot be reached: %v.", p.Name, err), "Put the name into /etc/hosts of all nodes, or use addresses."}}
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return []finding{{Problem, fmt.Sprintf("%s does not answer at %s.", p.Name, p.Address), "See whether the machine is on, and whether a firewall between the nodes drops the port."}}
	case err != nil:
		return []finding{{Problem, fmt.Sprintf("%s cannot be reached: %v.", p.Name, err), "See to the network between the nodes."}}
	}
	f := fine("%s answers in %v.", p.Name, rtt.Round(10*time.Microsecond))
	switch {
	case rtt > rttProblem:
		f.status, f.advice = Problem, "Nodes that are so far apart lose their leader at every hiccup: put them closer together."
	case rtt > rttWarning:
		f.status, f.advice = Warning, "Every write waits for a round trip to another data node: expect that to be felt. For a witness it does not matter."
	}
	return []finding{f}
}

// path is what is known of the way to a peer.
type path struct {
	device    string // through which it begins
	deviceMTU int
	mtu       int  // what the kernel believes
	small     bool // a small packet was answered
	large     bool // so was one of the size of mtu
}

func checkMTU(ctx context.Context, _ *host, cfg *Config) []finding {
	if len(cfg.Peers) == 0 {
		return []finding{skip("No other nodes are known.")}
	}
	var mu sync.Mutex
	var used []path
	all := eachPeer(cfg, func(p Peer) []finding {
		w, err := probePath(ctx, p.Address)
		if err != nil {
			return []finding{skip("%s: %v.", p.Name, err)}
		}
		mu.Lock()
		used = append(used, w)
		mu.Unlock()
		return judgePath(p, w)
	})
	return append(all, judgeDevices(used)...)
}

func judgePath(p Peer, w path) []finding {
	switch {
	case w.small && !w.large:
		return []finding{{Problem, fmt.Sprintf("Packets of %d bytes do not reach %s, small ones do.", w.mtu, p.Name),
			fmt.Sprintf("Something on the way is smaller than device %s says and does not report it: give all devices, switches and tunnels between the nodes the same MTU.", w.device)}}
	case w.mtu < min(w.deviceMTU, longestPacket):
		return []finding{{Warning, fmt.Sprintf("Packets to %s may be %d bytes long, although device %s takes %d.", p.Name, w.mtu, w.device, w.deviceMTU),
			"Give all devices, switches and tunnels between the nodes the same MTU."}}
	case w.large:
		return []finding{fine("Packets of %d bytes reach %s.", w.mtu, p.Name)}
	default:
		return []finding{skip("%s does not say whether packets of %d bytes reach it.", p.Name, w.mtu)}
	}
}

// judgeDevices compares the devices that lead to the peers.
func judgeDevices(used []path) []finding {
	mtus := make(map[int]bool)
	var words []string
	for _, w := range used {
		if w.device != "lo" {
			mtus[w.deviceMTU] = true
			words = appendNew(words, fmt.Sprintf("%s %d", w.device, w.deviceMTU))
		}
	}
	if len(mtus) < 2 {
		return nil
	}
	slices.Sort(words)
	return []finding{{Warning, fmt.Sprintf("The devices towards the other nodes have different MTUs: %s.", strings.Join(words, ", ")), "Give them the same, unless they are on different networks."}}
}

// probePath sends packets of two sizes, which must not be fragmented, to a port of the peer where nobody is: it answers with an ICMP error if they arrive.
func probePath(ctx context.Context, address string) (w path, err error) {
	nc, err := (&net.Dialer{}).DialContext(ctx, "udp", address)
	if err != nil {
		return w, err
	}
	defer nc.Close()
	u := nc.(*net.UDPConn)
	local := u.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	if w.device, w.deviceMTU, err = deviceOf(local); err != nil {
		return w, err
	}
	headers, err := forbidFragments(u, local.Is4())
	if err != nil {
		return w, fmt.Errorf("forbid fragments: %w", err)
	}
	const wait = 300 * time.Millisecond
	// Twice, because hosts answer only so often.
	for range 2 {
		if w.small = w.small || answered(ctx, u, 1, wait); !w.small {
			continue
		}
		if w.mtu, err = pathMTU(ctx, u.RemoteAddr().String(), local.Is4()); err != nil {
			return w, err
		}
		if w.large = answered(ctx, u, w.mtu-headers, wait); w.large {
			break
		}
	}
	w.mtu, err = pathMTU(ctx, u.RemoteAddr().String(), local.Is4()) // a router may have told a smaller one
	return w, err
}

// answered sends n bytes and reports whether an ICMP error says that they arrived.
func answered(ctx context.Context, u *net.UDPConn, n int, wait time.Duration) bool {
	if ctx.Err() != nil || n > longestPacket {
		return false
	}
	_, err := u.Write(make([]byte, n))
	if err == nil {
		_ = u.SetReadDeadline(time.Now().Add(wait))
		_, err = u.Read(make([]byte, 1))
	}
	// After EMSGSIZE the kernel knows more of the path, for the next try.
	return errors.Is(err, syscall.ECONNREFUSED)
}

// forbidFragments makes the socket send packets as they are, and returns the size of their headers.
func forbidFragments(u *net.UDPConn, is4 bool) (headers int, err error) {
	level, option, value, headers := unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO, 40+8
	if is4 {
		level, option, value, headers = unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO, 20+8
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, err
	}
	ctlErr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, value) })
	return headers, errors.Join(ctlErr, err)
}

// pathMTU returns what the kernel believes to be the MTU of the path to an address. It takes a socket of its own, because one that was used may
// have forgotten its route.
func pathMTU(ctx context.Context, address string, is4 bool) (mtu int, err error) {
	nc, err := (&net.Dialer{}).DialContext(ctx, "udp", address)
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	raw, err := nc.(*net.UDPConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	level, option := unix.IPPROTO_IPV6, unix.IPV6_MTU
	if is4 {
		level, option = unix.IPPROTO_IP, unix.IP_MTU
	}
	ctlErr := raw.Control(func(fd uintptr) { mtu, err = unix.GetsockoptInt(int(fd), level, option) })
	if err := errors.Join(ctlErr, err); err != nil {
		return 0, fmt.Errorf("ask for the MTU of the path: %w", err)
	}
	return mtu, nil
}

// deviceOf returns the device that has an address.
func deviceOf(addr netip.Addr) (name string, mtu int, err error) {
	devices, err := net.Interfaces()
	if err != nil {
		return "", 0, err
	}
	for _, d := range devices {
		for _, p := range prefixes(d) {
			if p.Addr() == addr.WithZone("") {
				return d.Name, d.MTU, nil
			}
		}
	}
	return "", 0, fmt.Errorf("no device has the address %v", addr)
}

// prefixes returns a device's addresses and networks.
func prefixes(d net.Interface) []netip.Prefix {
	addrs, err := d.Addrs()
	if err != nil {
		return nil // it is gone
	}
	var all []netip.Prefix
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			ip, _ := netip.AddrFromSlice(n.IP)
			bits, _ := n.Mask.Size()
			all = append(all, netip.PrefixFrom(ip.Unmap(), bits))
		}
	}
	return all
}
