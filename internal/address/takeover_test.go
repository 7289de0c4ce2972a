package address

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// network4 and network6 are the addresses of a test: the one that moves, those of two nodes, and the client's.
var (
	network4 = testNetwork{"10.9.0.100/24", "10.9.0.11/24", "10.9.0.12/24", "10.9.0.1/24"}
	network6 = testNetwork{"fd00:9::64/64", "fd00:9::b/64", "fd00:9::c/64", "fd00:9::1/64"}
)

type testNetwork struct{ moves, a, b, client string }

func bare(prefix string) string { return netip.MustParsePrefix(prefix).Addr().String() }

// bridge makes a switch, on which the test itself is a client.
func bridge(t *testing.T, client string) netlink.Link {
	t.Helper()
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
	if err := netlink.LinkAdd(br); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netlink.LinkDel(br) })
	if err := netlink.LinkSetUp(br); err != nil {
		t.Fatal(err)
	}
	if err := (&kernel{}).add(device{index: br.Index, name: "br0"}, netip.MustParsePrefix(client), time.Hour); err != nil {
		t.Fatal(err)
	}
	return br
}

// plug connects a holder to the switch.
func plug(t *testing.T, br netlink.Link, name string) {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetMaster(l, br); err != nil {
		t.Fatal(err)
	}
}

// reach waits until the client can connect to what the holders listen at.
func reach(t *testing.T, server string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; {
		c, err := net.DialTimeout("tcp", server, 200*time.Millisecond)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// warm waits until the client can reach a holder's own address, at which nobody listens.
func warm(t *testing.T, prefix string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; {
		_, err := net.DialTimeout("tcp", netip.AddrPortFrom(netip.MustParsePrefix(prefix).Addr(), holderPort).String(), 200*time.Millisecond)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", prefix, err)
		}
	}
}

// TestTakeover: a node takes the address from one that was killed, or that hangs and whose kernel still answers for it. Between the death of one
// and the other's taking over the client is never refused.
func TestTakeover(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for _, c := range []struct {
		name string
		net  testNetwork
		sig  os.Signal
	}{
		{"IPv4 killed", network4, syscall.SIGKILL},
		{"IPv4 hangs", network4, syscall.SIGSTOP},
		{"IPv6 killed", network6, syscall.SIGKILL},
		{"IPv6 hangs", network6, syscall.SIGSTOP},
	} {
		t.Run(c.name, func(t *testing.T) { takeover(t, c.net, c.sig) })
	}
}

func takeover(t *testing.T, n testNetwork, sig os.Signal) {
	br := bridge(t, n.client)
	a := startHolderAs(t, "a", n.moves, ownVar+"="+n.a, peersVar+"="+bare(n.b))
	b := startHolderAs(t, "b", n.moves, ownVar+"="+n.b, peersVar+"="+bare(n.a))
	plug(t, br, "a")
	plug(t, br, "b")
	warm(t, n.a)
	warm(t, n.b)
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", a.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close() // keeps the namespace, as the machine outlives the process
	server := netip.AddrPortFrom(netip.MustParsePrefix(n.moves).Addr(), holderPort).String()
	t.Logf("the first took the address in %s", a.acquire(t))
	reach(t, server)
	if err := a.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	if sig == syscall.SIGKILL {
		a.cmd.Wait()
		c, err := net.DialTimeout("tcp", server, 200*time.Millisecond)
		if err == nil {
			c.Close()
		}
		if netErr := net.Error(nil); !errors.As(err, &netErr) || !netErr.Timeout() {
			t.Errorf("a client of nobody: %v", err)
		}
	}
	var before net.Conn
	if sig == syscall.SIGSTOP {
		if _, err := syscall.Wait4(a.cmd.Process.Pid, nil, syscall.WUNTRACED, nil); err != nil { // until all of it has stopped
			t.Fatal(err)
		}
		if before, err = net.DialTimeout("tcp", server, time.Second); err != nil {
			t.Fatalf("the kernel of one that hangs: %v", err)
		}
		defer before.Close()
	}
	took := b.acquire(t)
	start := time.Now()
	ask(t, server)
	t.Logf("the second took the address in %s and served after another %v", took, time.Since(start).Round(10*time.Microsecond))
	if before != nil {
		hung(t, before)
	}
	time.Sleep(holderLifetime + time.Second) // beyond what the first had, and beyond the memory of the client's neighbour table
	reach(t, server)
}

// ask connects as an NFS client does and waits for the server's first byte. A client that connects before the new holder's announcement has reached it, as on a busy machine it
// may, is one that hung is for.
func ask(t *testing.T, server string) {
	t.Helper()
	for again := false; ; again = true {
		c, err := net.DialTimeout("tcp", server, 900*time.Millisecond) // less than a retransmission takes
		if err != nil {
			t.Fatalf("after the take-over: %v", err)
		}
		defer c.Close()
		c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if _, err = c.Read(make([]byte, 1)); err == nil {
			return
		}
		if again || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("after the take-over: %v", err)
		}
		hung(t, c)
	}
}

// hung is for a client's connection with the kernel of a holder that hangs: what the client sends goes to the new holder now, whose kernel resets the connection, so that the client connects again.
func hung(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetDeadline(time.Now().Add(time.Second))
	_, err := c.Write(make([]byte, 1))
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection with the one that hangs: %v", err)
	}
}

// TestStranger: an address that a machine outside the cluster has is not taken.
func TestStranger(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for name, n := range map[string]testNetwork{"IPv4": network4, "IPv6": network6} {
		t.Run(name, func(t *testing.T) {
			br := bridge(t, n.moves) // the test has the address
			// A busy machine may be late to answer.
			h := startHolderAs(t, "a", n.moves, ownVar+"="+n.a, peersVar+"="+bare(n.b), waitVar+"=1s")
			plug(t, br, "a")
			warm(t, n.a)
			l, err := netlink.LinkByName("br0") // has got its link address with its port
			if err != nil {
				t.Fatal(err)
			}
			mac := l.Attrs().HardwareAddr.String()
			if line := h.say(t, "go"); !strings.HasPrefix(line, "refused ") || !strings.Contains(line, mac) {
				t.Errorf("the holder said %q, want a refusal that names %s", line, mac)
			}
		})
	}
}

// TestAnswerTime measures how long a kernel takes to answer a probe.
func TestAnswerTime(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	br := bridge(t, network4.client)
	h := startHolderAs(t, "a", network4.moves, ownVar+"="+network4.a)
	plug(t, br, "a")
	h.acquire(t)
	reach(t, netip.AddrPortFrom(netip.MustParsePrefix(network4.moves).Addr(), holderPort).String())
	m, err := New(Config{
		Prefix: netip.MustParsePrefix(network4.moves), Device: "br0", MayHold: func() bool { return true },
		Peers: func() []netip.Addr { return []netip.Addr{netip.MustParsePrefix(network4.a).Addr()} },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Release(); err != nil {
		t.Fatal(err)
	}
	s := m.sentry
	var worst, sum time.Duration
	const rounds = 50
	for range rounds {
		s.begin()
		_, found, err := s.stranger(t.Context(), time.Second)
		took := time.Since(s.began)
		if found || err != nil || took >= time.Second {
			t.Fatalf("stranger: %v, %v after %v", found, err, took)
		}
		sum += took
		worst = max(worst, took)
	}
	t.Logf("answers after %v on average, %v at worst", sum/rounds, worst)
	if sum/rounds > probeWait {
		t.Errorf("a kernel at hand needs more than the %v that neighbours are given", probeWait)
	}
}

// TestDevices: where an address goes on a machine, and what is said if it goes nowhere.
func TestDevices(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	br := bridge(t, "10.9.0.1/24")
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "v0"}, PeerName: "v1"}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(veth); err != nil {
		t.Fatal(err)
	}
	_, dst, _ := net.ParseCIDR("10.8.0.0/24")
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: veth.Index, Dst: dst, Scope: netlink.SCOPE_LINK}); err != nil {
		t.Fatal(err)
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: br.Attrs().Index, Gw: net.IPv4(10, 9, 0, 254)}); err != nil {
		t.Fatal(err)
	}
	// Another volume's address on a carrier says nothing about where its neighbours are.
	carrier, file, err := openCarrier()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := (&kernel{}).add(carrier, netip.MustParsePrefix("10.7.0.101/32"), time.Minute); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		device, prefix, want string
		member               bool
	}{
		{"", "10.9.0.100/24", "br0", true},
		{"br0", "10.9.0.100/24", "br0", true},
		{"v1", "10.9.0.100/24", "v1", false},
		{"", "10.8.0.100/24", "v0", true}, // by the route
		{"v0", "10.8.0.100/24", "v0", true},
		{"", "10.7.0.100/24", "", false}, // the default route does not count
		{"eth7", "10.9.0.100/24", "", false},
		{"", "fd00:9::64/64", "", false},
	} {
		d, err := (&kernel{}).device(c.device, netip.MustParsePrefix(c.prefix))
		if c.want != "" {
			if err != nil || d.name != c.want || d.member != c.member {
				t.Errorf("%s on %q: %+v, %v", c.prefix, c.device, d, err)
			}
			continue
		}
		var de *DeviceError
		if !errors.As(err, &de) || !strings.Contains(err.Error(), "br0 (10.9.0.1/24") || !strings.Contains(err.Error(), "v1 (no address)") {
			t.Errorf("%s on %q: %+v, %v", c.prefix, c.device, d, err)
		}
	}
	// An address of its own network does not make a member of the device that has it.
	alone := netip.MustParsePrefix("10.6.0.100/24")
	if err := (&kernel{}).add(device{index: veth.Index, name: "v0"}, alone, time.Minute); err != nil {
		t.Fatal(err)
	}
	if d, err := (&kernel{}).device("v0", alone); err != nil || d.member {
		t.Errorf("%+v, %v", d, err)
	}
}
