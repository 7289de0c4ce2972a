package docs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// patience bounds what is waited for: much more than it takes.
const patience = 45 * time.Second

// addresses are the machines that the documentation speaks of. Those with a node's name come with the package installed, as it were.
var addresses = map[string]string{
	"a": "10.0.0.11", "b": "10.0.0.12", "c": "10.0.0.13", "d": "10.0.0.14", "e": "10.0.0.15", "w": "10.0.0.19",
	"client": "10.0.0.90", "admin": "10.0.0.91", "lb": "10.0.0.92",
}

// site is a number of machines on one network.
type site struct {
	t   testing.TB
	dir string // for the machines' files
	bin string // what is in their PATH besides the system's

	mu       sync.Mutex
	machines map[string]*machine
}

// find returns a machine, or nil if there is none of that name yet.
func (s *site) find(name string) *machine {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.machines[name]
}

// list returns all machines.
func (s *site) list() []*machine {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.machines))
}

// machine has a network, folders and a host name of its own.
type machine struct {
	site *site
	name string
	dir  string
	host *exec.Cmd // the process whose namespaces are the machine's

	mu   sync.Mutex
	node *exec.Cmd // holdfast serve, while it runs
	done chan error
}

// newSite makes a network without machines: they come when something is typed on them.
func newSite(t testing.TB, dir, bin string) *site {
	t.Helper()
	s := &site{t: t, dir: dir, bin: bin, machines: map[string]*machine{}}
	s.must(os.MkdirAll(dir, 0o755))
	if _, err := netlink.LinkByName(bridge); err != nil {
		s.must(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge}}))
		br, err := netlink.LinkByName(bridge)
		s.must(err)
		s.must(netlink.LinkSetUp(br))
	}
	return s
}

const bridge = "br0"

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// machine returns a machine, which is made if it is not there.
func (s *site) machine(name string) *machine {
	s.t.Helper()
	if m := s.find(name); m != nil {
		return m
	}
	if addresses[name] == "" {
		s.t.Fatalf("there is no machine %q", name)
	}
	m := &machine{site: s, name: name, dir: filepath.Join(s.dir, name)}
	s.must(m.furnish())
	m.host = exec.Command("/proc/self/exe")
	m.host.Env = append(os.Environ(), machineEnv+"="+name, "DIR="+m.dir)
	m.host.Stderr = os.Stderr
	m.host.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS, Pdeathsig: syscall.SIGKILL}
	in, err := m.host.StdinPipe()
	s.must(err)
	out, err := m.host.StdoutPipe()
	s.must(err)
	s.must(m.host.Start())
	s.mu.Lock()
	s.machines[name] = m
	s.mu.Unlock()

	attrs := netlink.NewLinkAttrs()
	attrs.Name = "to-" + name
	s.must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsPid(m.host.Process.Pid)}))
	link, err := netlink.LinkByName(attrs.Name)
	s.must(err)
	br, err := netlink.LinkByName(bridge)
	s.must(err)
	s.must(netlink.LinkSetMaster(link, br))
	s.must(netlink.LinkSetUp(link))
	_, err = io.WriteString(in, "the network is there\n")
	s.must(err)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		s.t.Fatalf("machine %s: %q, %v", name, line, err)
	}
	return m
}

// folders are those that a machine has of its own.
var folders = map[string]string{"etc": "/etc", "lib": "/var/lib", "run": "/run", "root": "/root", "srv": "/srv", "mnt": "/mnt"}

// furnish makes the machine's folders.
func (m *machine) furnish() error {
	for f := range folders {
		if err := os.MkdirAll(filepath.Join(m.dir, f), 0o755); err != nil {
			return err
		}
	}
	var hosts strings.Builder
	hosts.WriteString("127.0.0.1 localhost\n10.0.0.50 files files.example.com\n")
	for name, addr := range addresses {
		fmt.Fprintf(&hosts, "%s %s %s.example.com\n", addr, name, name)
	}
	for name, text := range map[string]string{
		"etc/hosts":         hosts.String(),
		"etc/hostname":      m.name + "\n",
		"etc/nsswitch.conf": "hosts: files\n",
		"etc/passwd":        "root:x:0:0:root:/root:/bin/sh\n",
		"etc/group":         "root:x:0:\n",
		"etc/fstab":         "",
	} {
		if err := os.WriteFile(filepath.Join(m.dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	// What sd_booted(3) looks for: package cli then asks systemctl, which is a shim here.
	for _, f := range []string{"etc/holdfast", "lib/holdfast", "run/systemd/system"} {
		if err := os.MkdirAll(filepath.Join(m.dir, f), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// beMachine is what the process of a machine does: set itself up, and stay until its standard input ends.
func beMachine() error {
	name, dir := os.Getenv(machineEnv), os.Getenv("DIR")
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for f, at := range folders {
		if err := unix.Mount(filepath.Join(dir, f), at, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", at, err)
		}
	}
	in := bufio.NewReader(os.Stdin)
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(addresses[name] + "/24")
	if err != nil {
		return err
	}
	for _, device := range []string{"lo", "eth0"} {
		link, err := netlink.LinkByName(device)
		if err != nil {
			return fmt.Errorf("device %s: %w", device, err)
		}
		if device == "eth0" {
			if err := netlink.AddrAdd(link, addr); err != nil {
				return fmt.Errorf("add %v: %w", addr, err)
			}
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("set %s up: %w", device, err)
		}
	}
	// By its route to elsewhere a machine finds its own address; nothing is sent there.
	if err := netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP("10.0.0.1")}); err != nil {
		return fmt.Errorf("add a default route: %w", err)
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, in)
	return err
}

// command prepares a program on the machine.
func (m *machine) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	enter := []string{"-t", fmt.Sprint(m.host.Process.Pid), "-m", "-n", "-u", program}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	cmd.Env = []string{"PATH=" + m.site.bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8",
		hubEnv + "=1", controlEnv + "=" + m.site.control(), nameEnv + "=" + m.name}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// start starts the node, as the unit would.
func (m *machine) start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.node != nil {
		return nil
	}
	log, err := os.OpenFile(filepath.Join(m.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	unit := m.unit()
	cmd := m.command(context.Background(), unit[0], unit[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	m.node, m.done = cmd, make(chan error, 1)
	done := m.done
	go func() { done <- cmd.Wait() }()
	return m.ready()
}

// ready waits until the service is ready, as systemd does.
func (m *machine) ready() error {
	if m.name == "lb" {
		return nil
	}
	for deadline := time.Now().Add(patience); ; {
		c, err := net.Dial("unix", filepath.Join(m.dir, "lib", "holdfast", "holdfast.sock"))
		if err == nil {
			return c.Close()
		}
		select {
		case err := <-m.done:
			m.node = nil
			return fmt.Errorf("the node on %s ended: %w", m.name, err)
		case <-time.After(10 * time.Millisecond): // nothing tells
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the node on %s is not ready after %v: %w", m.name, patience, err)
		}
	}
}

// balancer is the program that the machine lb runs.
const balancer = "haproxy"

// unit is what the machine's service runs.
func (m *machine) unit() []string {
	if m.name == "lb" {
		return []string{balancer, "-db", "-f", "/etc/haproxy/haproxy.cfg"}
	}
	return []string{"holdfast", "serve"}
}

// stop ends the node by a signal: SIGTERM, which must end it in good order, or SIGKILL.
func (m *machine) stop(sig syscall.Signal) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.node == nil {
		return nil
	}
	if err := m.node.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-m.done:
		m.node = nil
		if sig == syscall.SIGKILL {
			return nil
		}
		return err
	case <-time.After(patience):
		return fmt.Errorf("the node on %s does not end", m.name)
	}
}

// runs reports whether the node runs.
func (m *machine) runs() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.node != nil
}

// wipe is the loss of the machine's disks.
func (m *machine) wipe() error {
	if err := m.stop(syscall.SIGKILL); err != nil {
		return err
	}
	data := filepath.Join(m.dir, "lib", "holdfast")
	if err := os.RemoveAll(data); err != nil {
		return err
	}
	return os.Mkdir(data, 0o755)
}

// close ends all machines, and what runs on them.
func (s *site) close() {
	for _, m := range s.list() {
		if err := m.stop(syscall.SIGKILL); err != nil {
			s.t.Error(err)
		}
		if s.t.Failed() {
			s.t.Logf("log of %s:\n%s", m.name, m.log())
		}
		_ = m.host.Process.Kill()
		_ = m.host.Wait() // it was killed
		if link, err := netlink.LinkByName("to-" + m.name); err == nil {
			_ = netlink.LinkDel(link) // it may go with the namespace
		}
	}
}

// log returns the end of the node's log.
func (m *machine) log() string {
	const most = 4000
	b, err := os.ReadFile(filepath.Join(m.dir, "log"))
	if err != nil {
		return "none"
	}
	return string(b[max(0, len(b)-most):])
}

// control is the socket at which shims tell what shall happen to a machine.
func (s *site) control() string { return filepath.Join(s.dir, "control") }

// obey does what shims ask for, until the listener is closed.
func (s *site) obey(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go s.answer(c) // it ends with the shim that asks, which the test waits for
	}
}

// answer does what one shim asks for.
func (s *site) answer(c net.Conn) {
	defer c.Close()
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil {
		words := strings.Fields(line)
		err = s.change(s.find(words[0]), words[1], words[2:]...)
	}
	answer := "done"
	if err != nil {
		answer = err.Error()
	}
	_, _ = io.WriteString(c, answer) // whoever asked fails without it
}

// change is what can happen to a machine.
func (s *site) change(m *machine, verb string, args ...string) error {
	if m == nil {
		return errors.New("there is no such machine")
	}
	switch verb {
	case "start":
		return m.start()
	case "stop":
		return m.stop(syscall.SIGTERM)
	case "restart":
		return errors.Join(m.stop(syscall.SIGTERM), m.start())
	case "upgrade": // try-restart
		if !m.runs() {
			return nil
		}
		return errors.Join(m.stop(syscall.SIGTERM), m.start())
	case "ssh":
		return s.at(args[0], strings.Join(args[1:], " "))
	case "scp":
		name, file, ok := strings.Cut(args[0], ":")
		from := s.find(name)
		if !ok || from == nil || len(args) != 2 {
			return fmt.Errorf("scp %q: not known", args)
		}
		if out, err := exec.Command("cp", filepath.Join(from.dir, "root", file), filepath.Join(m.dir, "root", args[1])).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	case "lose":
		return m.stop(syscall.SIGKILL)
	case "wipe":
		return m.wipe()
	}
	return fmt.Errorf("%q: what shall that be?", verb)
}

// at runs a command on the machine of an address.
func (s *site) at(host, line string) error {
	for _, m := range s.list() {
		if host == addresses[m.name] {
			if out, err := m.command(context.Background(), "sh", "-c", line).CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		}
	}
	return fmt.Errorf("there is no machine %s", host)
}
