package work

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// MountArgs describes an NFS mount. The kernel takes it from mount(2) directly, so what mount.nfs would look up (addresses) is given here.
type MountArgs struct {
	Server  string // IP address of the server
	Path    string // exported path
	Dir     string // mount point, made if it is missing
	Version string // "3", "4.1" or "4.2"
	Port    int    // of NFS; if 0, the server's port mapper is asked by version 3, and it is 2049 for others
	// MountPort is the port of the MOUNT protocol, for version 3; if 0, the port mapper is asked.
	MountPort int
	Options   string // further options, comma separated
}

// data is the option string for mount(2).
func (a MountArgs) data() (fsType, data string, err error) {
	server, err := netip.ParseAddr(a.Server)
	if err != nil {
		return "", "", err
	}
	proto := "tcp"
	if server.Is6() {
		proto = "tcp6"
	}
	opts := []string{"vers=" + a.Version, "proto=" + proto, "addr=" + a.Server}
	if a.Port != 0 {
		opts = append(opts, fmt.Sprintf("port=%d", a.Port))
	}
	if a.Version == "3" {
		fsType = "nfs"
		opts = append(opts, "nolock", "mountproto="+proto, "mountvers=3", "mountaddr="+a.Server)
		if a.MountPort != 0 {
			opts = append(opts, fmt.Sprintf("mountport=%d", a.MountPort))
		}
	} else {
		fsType = "nfs4"
		client, err := localAddr(server.Is6())
		if err != nil {
			return "", "", err
		}
		opts = append(opts, "clientaddr="+client)
	}
	if a.Options != "" {
		opts = append(opts, a.Options)
	}
	return fsType, strings.Join(opts, ","), nil
}

// localAddr is the guest's address.
func localAddr(ipv6 bool) (string, error) {
	ifi, err := net.InterfaceByName("vec0")
	if err != nil {
		return "", err
	}
	addrs, err := ifi.Addrs()
	if err != nil {
		return "", err
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && (n.IP.To4() == nil) == ipv6 {
			return n.IP.String(), nil
		}
	}
	return "", fmt.Errorf("vec0 has no such address (IPv6: %v)", ipv6)
}

func mount(_ context.Context, a MountArgs, _ func(any)) (any, error) {
	if err := os.MkdirAll(a.Dir, 0o755); err != nil {
		return nil, err
	}
	fsType, data, err := a.data()
	if err != nil {
		return nil, err
	}
	source := a.Server + ":" + a.Path
	if strings.Contains(a.Server, ":") {
		source = "[" + a.Server + "]:" + a.Path
	}
	if err := unix.Mount(source, a.Dir, fsType, 0, data); err != nil {
		return nil, fmt.Errorf("mount %s of type %s with %s: %w", source, fsType, data, err)
	}
	return nil, nil
}

// UnmountArgs names a mount point; Force also abandons what waits for the server.
type UnmountArgs struct {
	Dir   string
	Force bool
}

func unmount(_ context.Context, a UnmountArgs, _ func(any)) (any, error) {
	flags := 0
	if a.Force {
		flags = unix.MNT_FORCE | unix.MNT_DETACH
	}
	if err := unix.Unmount(a.Dir, flags); err != nil {
		return nil, fmt.Errorf("unmount %s: %w", a.Dir, err)
	}
	return nil, nil
}
