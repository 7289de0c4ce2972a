package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// loadModules loads the files listed in dir/order, in that order.
func loadModules(dir string) error {
	order, err := os.ReadFile(filepath.Join(dir, "order"))
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(order)) {
		if err := loadModule(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("load module %s: %w", name, err)
		}
	}
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && err != unix.EEXIST {
		return err
	}
	return nil
}

// configureNetwork names the machine and brings up lo and vec0. Every guest needs a name of its own: two clients of one
// name are one NFSv4 client to a server.
func configureNetwork(host, cidr, cidr6 string) error {
	if host == "" {
		return fmt.Errorf("no lab.host= on the kernel command line")
	}
	if err := unix.Sethostname([]byte(host)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	addr, err := netlink.ParseAddr(cidr)
	if err != nil {
		return fmt.Errorf("lab.addr=%s: %w", cidr, err)
	}
	for _, name := range []string{"lo", "vec0"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("interface %s: %w", name, err)
		}
		if name == "vec0" {
			// The address is the harness's choice; a MAC address derived from it is stable over reboots.
			if ip := addr.IP.To4(); ip != nil {
				mac := net.HardwareAddr{0x02, 0x10, ip[0], ip[1], ip[2], ip[3]}
				if err := netlink.LinkSetHardwareAddr(link, mac); err != nil {
					return fmt.Errorf("set MAC address: %w", err)
				}
			}
			if err := netlink.AddrAdd(link, addr); err != nil {
				return fmt.Errorf("add %s: %w", addr, err)
			}
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("set %s up: %w", name, err)
		}
		if name == "vec0" && cidr6 != "" {
			addr6, err := netlink.ParseAddr(cidr6)
			if err != nil {
				return fmt.Errorf("lab.addr6=%s: %w", cidr6, err)
			}
			addr6.Flags = unix.IFA_F_NODAD // nobody else has it, and finding that out takes a second
			if err := netlink.AddrAdd(link, addr6); err != nil {
				return fmt.Errorf("add %s: %w", addr6, err)
			}
		}
	}
	return nil
}
