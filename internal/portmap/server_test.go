package portmap

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"holdfast/internal/rpc"
	"holdfast/internal/xdr"
)

// start runs a Server until the test ends.
func start(t *testing.T, cfg Config) *Server {
	t.Helper()
	cfg.Log = slog.New(slog.DiscardHandler)
	s := New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

// until waits for what no event tells of; what says how it is now.
func until(t *testing.T, what func() string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so after 10 s: %s", what())
		}
	}
}

// await waits until who answers for an address is as wanted.
func await(t *testing.T, s *Server, ip string, want By) (found Status) {
	t.Helper()
	until(t, func() string { return fmt.Sprintf("%s by %s: the status is %+v", ip, want, s.Status()) }, func() bool {
		for _, st := range s.Status() {
			if st.Addr == netip.MustParseAddr(ip) && st.By == want && (want != ByNobody || st.Err != nil) {
				found = st
				return true
			}
		}
		return false
	})
	return found
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

// askUDP asks a question by UDP; 0: no answer.
func askUDP(t *testing.T, server netip.AddrPort, record []byte) uint32 {
	t.Helper()
	c, err := net.Dial("udp", server.String()) // connected: an answer from another address does not arrive
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(record); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1000)
	n, err := c.Read(buf)
	if err != nil {
		return 0
	}
	_, res, err := rpc.ParseReply(buf[:n])
	if err != nil {
		t.Fatal(err)
	}
	return xdr.NewDecoder(res).Uint32()
}

// askTCP asks for the port of NFSv3 by TCP.
func askTCP(t *testing.T, server netip.AddrPort) (uint32, error) {
	t.Helper()
	c, err := rpc.Dial(t.Context(), server.String(), rpc.ConnConfig{})
	if err != nil {
		return 0, err
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Run() }()
	defer func() { c.Close(); <-ended }()
	args := xdr.NewEncoder(nil)
	for _, v := range []uint32{rpc.ProgNFS, 3, protoTCP, 0} {
		args.Uint32(v)
	}
	res, err := c.Call(t.Context(), rpc.ProgPortmap, versPortmap, procGet, &rpc.Auth{}, args.Bytes())
	return xdr.NewDecoder(res).Uint32(), err
}

// TestServer: two volumes at two addresses of a node, and what changes with the set.
func TestServer(t *testing.T) {
	port := freePort(t)
	s := start(t, Config{Port: port, Socket: t.TempDir() + "/none"})
	at := func(ip string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(ip), port) }
	question := getPort(rpc.ProgNFS, 3, protoTCP)
	check := func(ip string, want uint32) {
		t.Helper()
		await(t, s, ip, ByHoldfast)
		if got := askUDP(t, at(ip), question); got != want {
			t.Errorf("%s by UDP: port %d, want %d", ip, got, want)
		}
		if got, err := askTCP(t, at(ip)); err != nil || got != want {
			t.Errorf("%s by TCP: port %d, %v, want %d", ip, got, err, want)
		}
	}
	s.Set([]Mapping{
		{Addr: netip.MustParseAddr("127.0.5.1"), Services: NFS(2049, 2049)},
		{Addr: netip.MustParseAddr("127.0.5.2"), Services: NFS(2050, 2050)},
	})
	check("127.0.5.1", 2049)
	check("127.0.5.2", 2050)
	s.Set([]Mapping{{Addr: netip.MustParseAddr("127.0.5.2"), Services: NFS(2051, 2051)}})
	check("127.0.5.2", 2051)
	until(t, func() string { return "an address that was taken out is still answered for" }, func() bool {
		_, err := askTCP(t, at("127.0.5.1"))
		return err != nil
	})
	// All addresses of the node; answers come from the one that was asked.
	s.Set([]Mapping{
		{Addr: netip.IPv6Unspecified(), Services: NFS(2052, 2052)},
		{Addr: netip.MustParseAddr("127.0.5.2"), Services: NFS(2053, 2053)},
	})
	await(t, s, "0.0.0.0", ByHoldfast)
	await(t, s, "::", ByHoldfast)
	check("127.0.5.2", 2053)
	if got := askUDP(t, at("127.0.5.3"), question); got != 2052 {
		t.Errorf("any IPv4 address: port %d", got)
	}
	c := getAddr(versRPCBind3, procGet, rpc.ProgNFS, 3, "tcp6")
	if got := askUDP(t, at("::1"), c); got != uint32(len("::1.8.4")) { // the length of the string
		t.Errorf("any IPv6 address: %d", got)
	}
}

// TestPortTaken: where something holds the port that is no rpcbind, the status says so.
func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.5.4:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	s := start(t, Config{Port: port, Socket: t.TempDir() + "/none"})
	s.Set([]Mapping{{Addr: netip.MustParseAddr("127.0.5.4"), Services: NFS(2049, 2049)}})
	if st := await(t, s, "127.0.5.4", ByNobody); !strings.Contains(st.Err.Error(), fmt.Sprintf("port %d is taken", port)) {
		t.Errorf("got %v", st.Err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, s, "127.0.5.4", ByHoldfast) // without being told
}

const insideVar = "HOLDFAST_TEST_INSIDE"

// isolated returns true in a process with a network and a /run of its own. In the one that was started by go test, it runs the test in such a
// process and returns false.
func isolated(t *testing.T, programs ...string) bool {
	if os.Getenv(insideVar) != "" {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("makes namespaces; run as root")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%v: install the packages rpcbind and nfs-common", err)
		}
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), insideVar+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	t.Logf("inside:\n%s", out)
	if err != nil {
		t.Error(err)
	}
	return false
}

// run runs a command and returns what it prints.
func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// serveNull answers NULL calls of NFSv3 at a port of the machine.
func serveNull(t *testing.T, address string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := rpc.NewServer(rpc.ServerConfig{Conn: rpc.ConnConfig{Handler: rpc.HandlerFunc(func(c *rpc.Conn, rec rpc.Record) {
		defer rec.Done()
		var call rpc.Call
		if err := rpc.ParseCall(rec.Bytes(), &call); err != nil {
			c.Fail(err)
			return
		}
		e := xdr.NewEncoder(nil)
		rpc.AppendAccepted(e, call.XID, rpc.Success)
		_ = c.Send(e.Bytes())
	})}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestRPCInfo: the system's own client understands us, and finds services by us.
func TestRPCInfo(t *testing.T) {
	if !isolated(t, "rpcinfo") {
		return
	}
	serveNull(t, "127.0.0.1:2049")
	serveNull(t, "[::1]:2049")
	s := start(t, Config{})
	s.Set([]Mapping{
		{Addr: netip.MustParseAddr("127.0.0.1"), Services: NFS(2049, 2049)},
		{Addr: netip.MustParseAddr("::1"), Services: NFS(2049, 2049)},
	})
	await(t, s, "127.0.0.1", ByHoldfast)
	await(t, s, "::1", ByHoldfast)
	if out := run(t, "rpcinfo", "-p", "127.0.0.1"); !hasLine(out, "100003 3 tcp 2049 nfs") || !hasLine(out, "100005 3 tcp 2049 mountd") {
		t.Errorf("rpcinfo -p:\n%s", out)
	}
	if out := run(t, "rpcinfo", "127.0.0.1"); !hasLine(out, "100003 3 tcp 127.0.0.1.8.1 nfs holdfast") {
		t.Errorf("rpcinfo:\n%s", out)
	}
	for _, args := range [][]string{
		{"rpcinfo", "-t", "127.0.0.1", "nfs", "3"},
		{"rpcinfo", "-t", "127.0.0.1", "mountd", "3"},
		{"rpcinfo", "-T", "tcp6", "::1", "nfs", "3"},
		{"rpcinfo", "-u", "127.0.0.1", "portmapper", "2"},
		{"rpcinfo", "-u", "127.0.0.1", "portmapper", "4"},
	} {
		if out := run(t, args...); !strings.Contains(out, "ready and waiting") {
			t.Errorf("%s:\n%s", strings.Join(args, " "), out)
		}
	}
}

// TestMountNFS: the mount command finds NFS and MOUNT by us; what it does then is the kernel's affair.
func TestMountNFS(t *testing.T) {
	if !isolated(t, "mount.nfs") {
		return
	}
	for ip, host := range map[string]string{"127.0.0.1": "127.0.0.1", "::1": "[::1]"} {
		serveNull(t, host+":2049")
		s := start(t, Config{})
		s.Set([]Mapping{{Addr: netip.MustParseAddr(ip), Services: NFS(2049, 2049)}})
		await(t, s, ip, ByHoldfast)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		// That there is no export is an error; in a mount namespace of its own a mount would not matter.
		out, _ := exec.CommandContext(ctx, "mount.nfs", "-v", "-o", "vers=3,nolock,retry=0", host+":/none", "/mnt").CombinedOutput()
		cancel()
		for _, prog := range []int{rpc.ProgNFS, rpc.ProgMount} {
			if want := fmt.Sprintf("trying %s prog %d vers 3 prot TCP port 2049", ip, prog); !strings.Contains(string(out), want) {
				t.Errorf("no %q in:\n%s", want, out)
			}
		}
	}
}

// hasLine tells whether a line of text has these words, in any number of spaces.
func hasLine(text, words string) bool {
	for line := range strings.Lines(text) {
		if strings.Join(strings.Fields(line), " ") == words {
			return true
		}
	}
	return false
}

// TestRegister: where rpcbind runs it is told of the services, and that they are gone.
func TestRegister(t *testing.T) {
	if !isolated(t, "rpcbind", "rpcinfo") {
		return
	}
	for _, c := range []struct {
		name, socket string
		services     []Mapping
	}{
		{"by its socket", DefaultSocket, []Mapping{
			{Addr: netip.MustParseAddr("127.0.0.1"), Services: NFS(2049, 20048)}, {Addr: netip.MustParseAddr("::1"), Services: NFS(2049, 20048)},
		}},
		{"by TCP", "/run/none", []Mapping{{Addr: netip.MustParseAddr("127.0.0.1"), Services: NFS(2049, 20048)}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			stop := startRPCBind(t)
			s := start(t, Config{Socket: c.socket})
			s.Set(c.services)
			for _, m := range c.services {
				await(t, s, m.Addr.String(), ByRPCBind)
			}
			out := run(t, "rpcinfo", "-p", "127.0.0.1")
			if !hasLine(out, "100003 3 tcp 2049 nfs") || !hasLine(out, "100005 3 tcp 20048 mountd") {
				t.Errorf("registered:\n%s", out)
			}
			// Another port, and one service fewer.
			s.Set([]Mapping{{Addr: netip.MustParseAddr("127.0.0.1"), Services: []Service{{rpc.ProgNFS, 3, 2050}}}})
			said := func() string { return "rpcinfo says\n" + out }
			until(t, said, func() bool {
				out = run(t, "rpcinfo", "-p", "127.0.0.1")
				return hasLine(out, "100003 3 tcp 2050 nfs") && !strings.Contains(out, "20048") && !strings.Contains(out, "2049")
			})
			s.Set([]Mapping{{Addr: netip.MustParseAddr("::1"), Services: NFS(2049, 20048)}})
			if c.socket != DefaultSocket {
				await(t, s, "::1", ByNobody) // version 2 knows nothing of IPv6
			}
			s.Set(nil)
			until(t, said, func() bool {
				out = run(t, "rpcinfo", "-p", "127.0.0.1")
				return !strings.Contains(out, "100003")
			})
			s.Set(c.services)
			await(t, s, "127.0.0.1", ByRPCBind)
			stop()
			s.Set(c.services)
			await(t, s, "127.0.0.1", ByHoldfast)
		})
	}
}

// startRPCBind runs rpcbind until the test ends or stop is called.
func startRPCBind(t *testing.T) (stop func()) {
	t.Helper()
	cmd := exec.Command("rpcbind", "-f")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(stop)
	var err error
	until(t, func() string { return fmt.Sprintf("rpcbind does not answer: %v", err) }, func() bool {
		var c net.Conn
		if c, err = net.Dial("tcp", "127.0.0.1:111"); err != nil {
			return false
		}
		c.Close()
		_, err = os.Stat(DefaultSocket)
		return err == nil
	})
	return stop
}
