package address

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The tests below play on real interfaces, in network namespaces that end with their processes: a test runs itself again
// in a namespace of its own, and a holder of the address is a process too, so that it can be killed.
const (
	insideVar = "HOLDFAST_TEST_INSIDE" // set in the process that runs a test inside its namespace
	holderVar = "HOLDFAST_TEST_HOLDER" // set in a holder: the address
	ownVar    = "HOLDFAST_TEST_OWN"    // the holder's own address; the next one if empty
	peersVar  = "HOLDFAST_TEST_PEERS"  // what Config.Peers returns, separated by commas; a lone comma is an empty list
	waitVar   = "HOLDFAST_TEST_WAIT"   // how long the neighbours' answers are waited for; probeWait if empty

	holderLifetime = 2 * time.Second
	holderPort     = 2049
)

func TestMain(m *testing.M) {
	if prefix := os.Getenv(holderVar); prefix != "" {
		fmt.Fprintln(os.Stderr, holderMain(netip.MustParsePrefix(prefix)))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// holderMain takes an address of its own on eth0 once standard input says that it is there, and the one that moves with the next line, and holds
// it until it is killed.
func holderMain(prefix netip.Prefix) error {
	in := bufio.NewReader(os.Stdin)
	if _, err := in.ReadString('\n'); err != nil { // eth0 is there
		return err
	}
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	// Without duplicate address detection the device's own addresses can be used at once.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/eth0/accept_dad", []byte("0"), 0o644); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	own := netip.PrefixFrom(prefix.Addr().Next(), prefix.Bits())
	if text := os.Getenv(ownVar); text != "" {
		own = netip.MustParsePrefix(text)
	}
	if err := (&kernel{}).add(device{index: link.Attrs().Index, name: "eth0"}, own, time.Hour); err != nil {
		return err
	}
	cfg := Config{Prefix: prefix, Device: "eth0", Lifetime: holderLifetime, MayHold: func() bool { return true }}
	if text := os.Getenv(peersVar); text != "" {
		peers := []netip.Addr{}
		for p := range strings.SplitSeq(text, ",") {
			if p != "" {
				peers = append(peers, netip.MustParseAddr(p))
			}
		}
		cfg.Peers = func() []netip.Addr { return peers }
	}
	m, err := New(cfg)
	if err != nil {
		return err
	}
	if text := os.Getenv(waitVar); text != "" {
		if m.wait, err = time.ParseDuration(text); err != nil {
			return err
		}
	}
	lc := net.ListenConfig{Control: ReuseAddr}
	l, err := lc.Listen(context.Background(), "tcp", netip.AddrPortFrom(prefix.Addr(), holderPort).String())
	if err != nil {
		return err
	}
	go func() {
		for {
			// Connections are kept, and answered with a byte, until the end of the process. They linger as package rpc's do.
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.(*net.TCPConn).SetLinger(0)
			c.Write([]byte("x"))
		}
	}()
	if err := m.Release(); err != nil {
		return err
	}
	fmt.Println("ready")
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	start := time.Now()
	if err := m.Acquire(context.Background()); err != nil {
		fmt.Println("refused", err)
	} else {
		fmt.Println("held", time.Since(start))
	}
	in.ReadString('\n')
	return errors.New("standard input ended")
}

// inNamespace returns true in a process that is in a network namespace of its own. In the one that was started by go
// test, it runs the test in such a process and returns false.
func inNamespace(t *testing.T) bool {
	if os.Getenv(insideVar) != "" {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			t.Fatal(err)
		}
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("makes network namespaces; run as root")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), insideVar+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	t.Logf("inside the namespace:\n%s", out)
	if err != nil {
		t.Error(err)
	}
	return false
}

// holder is a process that holds an address on its eth0.
type holder struct {
	cmd *exec.Cmd
	out *bufio.Reader
	in  interface{ Write([]byte) (int, error) }
}

// startHolder starts a holder in a namespace of its own and connects it: the peer of its eth0 is here, by the name "peer".
func startHolder(t *testing.T, prefix string) *holder { return startHolderAs(t, "peer", prefix) }

func startHolderAs(t *testing.T, name, prefix string, env ...string) *holder {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), holderVar+"="+prefix), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &holder{cmd: cmd, out: bufio.NewReader(out), in: in}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0"}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netlink.LinkDel(veth) })
	for name, f := range map[string]func(netlink.Link) error{
		name:   netlink.LinkSetUp,
		"eth0": func(l netlink.Link) error { return netlink.LinkSetNsPid(l, cmd.Process.Pid) },
	} {
		l, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := f(l); err != nil {
			t.Fatal(err)
		}
	}
	if line := h.say(t, "eth0"); line != "ready" {
		t.Fatalf("the holder said %q", line)
	}
	return h
}

// acquire tells the holder to take the address, waits until it has, and returns the time that took.
func (h *holder) acquire(t *testing.T) string {
	t.Helper()
	line := h.say(t, "go")
	took, ok := strings.CutPrefix(line, "held ")
	if !ok {
		t.Fatalf("the holder said %q", line)
	}
	return took
}

// say tells the holder to go on, and returns what it answers.
func (h *holder) say(t *testing.T, word string) string {
	t.Helper()
	if _, err := h.in.Write([]byte(word + "\n")); err != nil {
		t.Fatal(err)
	}
	line, err := h.out.ReadString('\n')
	if err != nil {
		t.Fatalf("the holder said %q, %v", line, err)
	}
	return strings.TrimSpace(line)
}

// TestAddressVanishes: the kernel drops the address of a holder that was killed or stopped, and not before.
func TestAddressVanishes(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	// The address is on a device that goes with the process.
	const atOnce = 200 * time.Millisecond
	// The kernel rounds up, and looks after its addresses when it has time.
	const later = 2 * holderLifetime
	for _, c := range []struct {
		prefix string
		sig    os.Signal
		within time.Duration
	}{
		{"10.9.0.100/24", syscall.SIGKILL, atOnce},
		{"10.9.0.100/24", syscall.SIGSTOP, later},
		{"fd00:9::64/64", syscall.SIGKILL, atOnce},
		{"fd00:9::64/64", syscall.SIGSTOP, later},
	} {
		t.Run(fmt.Sprint(c.prefix, " ", c.sig), func(t *testing.T) {
			addressVanishes(t, netip.MustParsePrefix(c.prefix), c.sig, c.within)
		})
	}
}

func addressVanishes(t *testing.T, prefix netip.Prefix, sig os.Signal, within time.Duration) {
	h := startHolder(t, prefix.String())
	// A second process keeps the holder's namespace, and shows what is in it.
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", h.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	inside, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	present := func() bool {
		addrs, err := inside.AddrList(nil, netlink.FAMILY_ALL)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.Unmap() == prefix.Addr() {
				return true
			}
		}
		return false
	}
	h.acquire(t)
	for end := time.Now().Add(holderLifetime + holderLifetime/2); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if !present() {
			t.Fatal("the address vanished while it was held")
		}
	}
	if err := h.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	for present() {
		if time.Since(killed) > within {
			t.Fatalf("the address is still there %v after the signal", time.Since(killed))
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Logf("gone after %v", time.Since(killed).Round(time.Millisecond))
}

// connectionsIn lists the TCP connections of a network namespace that have one of our ports, as in proc_pid_net(5).
func connectionsIn(t *testing.T, ns *os.File) (conns []string) {
	t.Helper()
	var table []byte
	read := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			var v6 []byte
			table, err = os.ReadFile("/proc/thread-self/net/tcp")
			if err == nil {
				v6, err = os.ReadFile("/proc/thread-self/net/tcp6")
			}
			table = append(table, v6...)
		}
		read <- err
	}()
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 3 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", holderPort)) {
			conns = append(conns, strings.TrimSpace(line))
		}
	}
	return conns
}

// TestKillIsSilent: clients of a process that was killed see neither the end of their connections nor a refusal, and its
// kernel keeps nothing of the connections: if the address comes back, a remainder would answer the tickle that is meant
// to make a client, which uses the same port again, notice that its connection to the node in between is gone.
func TestKillIsSilent(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for _, c := range []struct{ prefix, own string }{
		{"10.9.0.100/24", "10.9.0.1/24"},
		{"fd00:9::64/64", "fd00:9::1/64"},
	} {
		t.Run(c.prefix, func(t *testing.T) { killIsSilent(t, netip.MustParsePrefix(c.prefix), netip.MustParsePrefix(c.own)) })
	}
}

func killIsSilent(t *testing.T, prefix, own netip.Prefix) {
	h := startHolder(t, prefix.String())
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", h.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close() // keeps the namespace, as the machine outlives the process
	peer, err := netlink.LinkByName("peer")
	if err != nil {
		t.Fatal(err)
	}
	if err := (&kernel{}).add(device{index: peer.Attrs().Index, name: "peer"}, own, time.Hour); err != nil {
		t.Fatal(err)
	}
	h.acquire(t)
	server := netip.AddrPortFrom(prefix.Addr(), holderPort).String()
	var clients []net.Conn
	for range 20 {
		c, err := net.DialTimeout("tcp", server, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	if err := h.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	h.cmd.Wait()
	for _, c := range clients {
		// A deadline that has passed hides what there is to read, so each has its own.
		c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a client was told: %v", err)
		}
	}
	if left := connectionsIn(t, ns); len(left) > 0 {
		t.Errorf("%d connections outlive the process, such as %s", len(left), left[0])
	}
	c, err := net.DialTimeout("tcp", server, 300*time.Millisecond)
	if err == nil {
		c.Close()
	}
	var netErr net.Error
	if !errors.As(err, &netErr) || !netErr.Timeout() {
		t.Errorf("a new connection: %v", err)
	}
}

// TestAnnounceUpdatesNeighbour: a neighbour that knew the address elsewhere learns where it is now.
func TestAnnounceUpdatesNeighbour(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for _, c := range []struct{ prefix, own string }{
		{"10.9.0.100/24", "10.9.0.1/24"},
		{"fd00:9::64/64", "fd00:9::1/64"},
	} {
		t.Run(c.prefix, func(t *testing.T) { announceUpdates(t, netip.MustParsePrefix(c.prefix), netip.MustParsePrefix(c.own)) })
	}
}

func announceUpdates(t *testing.T, prefix, own netip.Prefix) {
	h := startHolder(t, prefix.String())
	peer, err := netlink.LinkByName("peer")
	if err != nil {
		t.Fatal(err)
	}
	d := device{index: peer.Attrs().Index, name: "peer"}
	if err := (&kernel{}).add(d, own, time.Hour); err != nil {
		t.Fatal(err)
	}
	old := net.HardwareAddr{2, 0, 0, 0, 0, 99}
	family := netlink.FAMILY_V4
	if prefix.Addr().Is6() {
		family = netlink.FAMILY_V6
	}
	err = netlink.NeighSet(&netlink.Neigh{
		LinkIndex: d.index, Family: family, State: netlink.NUD_STALE, IP: prefix.Addr().AsSlice(), HardwareAddr: old,
	})
	if err != nil {
		t.Fatal(err)
	}
	known := func() net.HardwareAddr {
		neighs, err := netlink.NeighList(d.index, family)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range neighs {
			if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == prefix.Addr() {
				return n.HardwareAddr
			}
		}
		return nil
	}
	if mac := known(); mac.String() != old.String() {
		t.Fatalf("the neighbour is at %v before the test", mac)
	}
	h.acquire(t)
	held := time.Now()
	for known().String() == old.String() {
		if time.Since(held) > 3*time.Second {
			t.Fatalf("the neighbour still believes in %v", old)
		}
		time.Sleep(time.Millisecond)
	}
	t.Logf("learned %v within %v", known(), time.Since(held).Round(time.Millisecond))
}

// TestTickleResets: a client whose server has silently forgotten the connection is reset by a tickle, at once.
func TestTickleResets(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(addr, func(t *testing.T) { tickleResets(t, addr) })
	}
}

func tickleResets(t *testing.T, addr string) {
	lc := net.ListenConfig{Control: ReuseAddr}
	l, err := lc.Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	other, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	kept, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	forget(t, server.(*net.TCPConn))

	clients := []netip.AddrPort{
		netip.MustParseAddrPort(client.LocalAddr().String()),
		netip.MustParseAddrPort(other.LocalAddr().String()),
	}
	reset := make(chan error, 1)
	go func() {
		_, err := client.Read(make([]byte, 1))
		reset <- err
	}()
	start := time.Now()
	if err := Tickle(netip.MustParseAddrPort(l.Addr().String()), clients); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-reset:
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client got %v", err)
		}
		t.Logf("reset after %v", time.Since(start).Round(10*time.Microsecond))
	case <-time.After(2 * time.Second):
		t.Fatal("the client was not reset")
	}
	// A connection that is still there does not mind.
	if _, err := other.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := kept.Read(make([]byte, 1)); err != nil {
		t.Errorf("a connection that is there was hurt by a tickle: %v", err)
	}
}

// forget closes a connection without telling its peer, as the death of a machine does.
func forget(t *testing.T, c *net.TCPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err2 := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1) })
	if err := errors.Join(err, err2); err != nil {
		t.Skipf("no TCP_REPAIR here: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestListenBeforeAddress: a listener can be up before its address is.
func TestListenBeforeAddress(t *testing.T) {
	lc := net.ListenConfig{Control: ReuseAddr}
	for _, addr := range []string{"192.0.2.77:0", "[2001:db8::77]:0"} {
		l, err := lc.Listen(t.Context(), "tcp", addr)
		if err != nil {
			t.Errorf("listen on an address that is not here: %v", err)
			continue
		}
		l.Close()
	}
}
