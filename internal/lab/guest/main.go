// Command guest is /init of the user-mode Linux guests that the lab boots: it prepares the machine, then serves the
// workloads of internal/lab/work to the harness until it is told to power off.
//
// The kernel command line configures it: lab.host=NAME, lab.addr=ADDRESS/BITS, lab.addr6=ADDRESS/BITS (may be left out).
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"holdfast/internal/lab/control"
	"holdfast/internal/lab/work"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
	}
	powerOff()
}

func run() error {
	if os.Getpid() != 1 {
		return fmt.Errorf("this program is the first process of a test guest and nothing else")
	}
	params, err := prepare()
	if err != nil {
		return err
	}
	if err := loadModules("/modules"); err != nil {
		return err
	}
	if err := configureNetwork(params["lab.host"], params["lab.addr"], params["lab.addr6"]); err != nil {
		return err
	}
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", control.Port))
	if err != nil {
		return err
	}
	fmt.Println("guest: ready")
	off := make(chan struct{})
	go control.Serve(l, func(ctx context.Context, req control.Request, emit func(any)) (any, error) {
		if req.Name == "poweroff" {
			defer close(off)
			return nil, nil
		}
		return work.Run(ctx, req.Name, req.Args, emit)
	})
	<-off
	return nil
}

// prepare mounts the kernel's file systems and returns the parameters of the command line.
func prepare() (map[string]string, error) {
	for _, m := range []struct{ fs, dir string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"tmpfs", "/tmp"}, {"tmpfs", "/var/lib/nfs"}, {"devtmpfs", "/dev"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return nil, err
		}
		if err := unix.Mount(m.fs, m.dir, m.fs, 0, ""); err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil, err
	}
	params := make(map[string]string)
	for _, field := range strings.Fields(string(line)) {
		if key, value, ok := strings.Cut(field, "="); ok {
			params[key] = value
		}
	}
	return params, nil
}

// powerOff does not return. There is nothing on a disk here that would have to be synced.
func powerOff() {
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}
