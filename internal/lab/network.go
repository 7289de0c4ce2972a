package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	netnsDir    = "/run/netns"
	netnsPrefix = "hflab-" // followed by the harness's process id, a sequence number, and the name of the part
	hubAddr     = "10.94.0.254"
	bridge      = "br0"
)

// networks numbers the networks of this process.
var networks atomic.Int32

// Network is a bridge in a namespace, and links from it to nodes and guests.
type Network struct {
	spawn      *spawner
	prefix     string
	hub        string   // namespace of the bridge, the taps and the harness's sockets
	namespaces []string // all that were made, the hub among them
}

func newNetwork(s *spawner) (*Network, error) {
	n := &Network{spawn: s, prefix: fmt.Sprintf("%s%d-%d-", netnsPrefix, os.Getpid(), networks.Add(1))}
	n.hub = n.prefix + "hub"
	if err := n.addNamespace(n.hub); err != nil {
		return nil, err
	}
	for _, args := range []string{
		// With an address of its own. That of the lowest port, which it would take otherwise, changes when a port is cut off,
		// and guests would send what they have to tell the harness to the old one until they ask again.
		"link add " + bridge + " address 02:48:46:00:00:fe type bridge mcast_snooping 0",
		"addr add " + hubAddr + "/24 dev " + bridge,
		"link set " + bridge + " up",
		// The far end of dropped directions, see DropFrom: a pair whose other half stays down.
		"link add sink type veth peer name drain",
		"link set sink up",
	} {
		if err := ip(n.hub, strings.Fields(args)...); err != nil {
			return nil, errors.Join(err, n.close())
		}
	}
	return n, nil
}

func (n *Network) addNamespace(name string) error {
	if err := ip("", "netns", "add", name); err != nil {
		return err
	}
	n.namespaces = append(n.namespaces, name)
	return ip(name, "link", "set", "lo", "up")
}

// addTap makes a tap for a guest, on the bridge.
func (n *Network) addTap(name string) error {
	if err := ip(n.hub, "tuntap", "add", "dev", name, "mode", "tap"); err != nil {
		return err
	}
	if err := ip(n.hub, "link", "set", "dev", name, "master", bridge); err != nil {
		return err
	}
	return ip(n.hub, "link", "set", "dev", name, "up")
}

// AddNode makes a namespace with one interface, eth0, that has the address, and the one of IPv6 that goes with it, and hangs on the bridge as port NAME. It
// returns the name of the namespace.
func (n *Network) AddNode(name, addr string) (netns string, err error) {
	netns = n.prefix + name
	if err := n.addNamespace(netns); err != nil {
		return "", err
	}
	if err := ip(n.hub, "link", "add", "name", name, "type", "veth", "peer", "name", "eth0", "netns", netns); err != nil {
		return "", err
	}
	for _, c := range []struct{ netns, args string }{
		{n.hub, "link set dev " + name + " master " + bridge},
		{n.hub, "link set dev " + name + " up"},
		{netns, "addr add " + addr + "/24 dev eth0"},
		{netns, "link set eth0 up"},
		{netns, "addr add " + addr6(addr) + "/64 dev eth0 nodad"},
	} {
		if err := ip(c.netns, strings.Fields(c.args)...); err != nil {
			return "", err
		}
	}
	return netns, nil
}

// addr6 is the IPv6 address of a node or guest: the last number is the same.
func addr6(addr string) string { return "fd94::" + addr[strings.LastIndexByte(addr, '.')+1:] }

// LinkDown takes the bridge's port of a node down: the node sees its carrier go.
func (n *Network) LinkDown(port string) error { return ip(n.hub, "link", "set", "dev", port, "down") }

// LinkUp undoes LinkDown.
func (n *Network) LinkUp(port string) error { return ip(n.hub, "link", "set", "dev", port, "up") }

// Cut takes a port off the bridge: a partition that neither side can see on its interface. It is also the way to cut off
// a guest, whose tap may not come back after it was down.
func (n *Network) Cut(port string) error { return ip(n.hub, "link", "set", "dev", port, "nomaster") }

// Mend undoes Cut.
func (n *Network) Mend(port string) error {
	return ip(n.hub, "link", "set", "dev", port, "master", bridge)
}

// DropFrom loses everything that a node or guest sends, while what is sent to it still arrives.
func (n *Network) DropFrom(port string) error { return n.drop(port, "ingress") }

// DropTo loses everything that is sent to a node or guest, while what it sends still arrives.
func (n *Network) DropTo(port string) error { return n.drop(port, "egress") }

// drop loses what comes out of a port into the bridge (ingress), or goes into it (egress).
func (n *Network) drop(port, direction string) error {
	if err := run("tc", "-n", n.hub, "qdisc", "add", "dev", port, "clsact"); err != nil {
		return err
	}
	return run("tc", "-n", n.hub, "filter", "add", "dev", port, direction, "protocol", "all", "u32",
		"match", "u32", "0", "0", "action", "mirred", "egress", "redirect", "dev", "sink")
}

// Pass undoes DropFrom and DropTo.
func (n *Network) Pass(port string) error {
	return run("tc", "-n", n.hub, "qdisc", "del", "dev", port, "clsact")
}

// Dial connects from the hub, to a TCP port of a node or guest.
func (n *Network) Dial(ctx context.Context, addr string) (c net.Conn, err error) {
	err = inNamespace(n.hub, func() error {
		// The address is literal, so that the socket is made by this goroutine and so in the namespace.
		c, err = (&net.Dialer{}).DialContext(ctx, "tcp4", addr)
		return err
	})
	return c, err
}

// Command prepares a program to run in the hub.
func (n *Network) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", n.hub, name}, args...)...)
}

func (n *Network) close() error {
	var errs []error
	for i := len(n.namespaces) - 1; i >= 0; i-- {
		errs = append(errs, ip("", "netns", "del", n.namespaces[i]))
	}
	n.namespaces = nil
	return errors.Join(errs...)
}

// inNamespace runs f on a thread that is inside the namespace.
func inNamespace(name string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		// The thread is not unlocked unless it was brought back to where it came from; then it ends with the goroutine.
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		ns, err := os.Open(filepath.Join(netnsDir, name))
		if err != nil {
			done <- err
			return
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter namespace %s: %w", name, err)
			return
		}
		err = f()
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// removeStale removes what harnesses that are gone have left: namespaces, with the processes in them, and folders.
func removeStale() {
	for _, name := range staleNames(netnsDir, netnsPrefix) {
		// Processes die with their harness, see spawner; those that outlived it were started by the dead ones.
		if out, err := exec.Command("ip", "netns", "pids", name).Output(); err == nil {
			for _, field := range strings.Fields(string(out)) {
				var p int
				if _, err := fmt.Sscan(field, &p); err == nil && p > 1 {
					syscall.Kill(p, syscall.SIGKILL)
				}
			}
		}
		ip("", "netns", "del", name)
	}
	for _, name := range staleNames(labsDir, labPrefix) {
		unmountStale(filepath.Join(labsDir, name))
		os.RemoveAll(filepath.Join(labsDir, name))
	}
}

// staleNames lists entries of a folder whose names are the prefix, the id of a process that is gone, and a rest.
func staleNames(dir, prefix string) (stale []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), prefix)
		if !ok {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(rest, "%d-", &pid); err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			stale = append(stale, e.Name())
		}
	}
	return stale
}

// ip runs the ip command, in a namespace unless that is empty.
func ip(netns string, args ...string) error {
	if netns != "" {
		args = append([]string{"-n", netns}, args...)
	}
	return run("ip", args...)
}

func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
