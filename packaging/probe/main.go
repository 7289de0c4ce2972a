// Command probe takes the daemon's place in a test of the unit: it does what the daemon needs to be allowed to do, and says what it was refused.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/address"
	"holdfast/internal/systemd"
)

const data = "/var/lib/holdfast"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Println("probe:", err)
		os.Exit(1)
	}
	fmt.Println("probe: stopped")
}

func run(ctx context.Context) error {
	holder, err := address.New(address.Config{
		Prefix: netip.MustParsePrefix("10.94.0.100/24"), Device: "v0", MayHold: func() bool { return true },
	})
	if err != nil {
		return err
	}
	defer holder.Close()
	for _, check := range []struct {
		name string
		try  func() error
	}{
		{"address", func() error { return tryAddress(ctx, holder) }},
		{"privileged port", tryPort},
		{"data folder", func() error { return tryFolder(data) }},
		{"runtime folder", func() error { return tryFolder("/run/holdfast") }},
		{"timer slack", func() error { return unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(500*time.Microsecond), 0, 0, 0) }},
		{"listen backlog", tryBacklog},
		{"files", tryFiles},
		{"confinement", tryConfinement},
	} {
		err := check.try()
		if err != nil {
			fmt.Printf("probe: %s: %v\n", check.name, err)
			continue
		}
		fmt.Printf("probe: %s: ok\n", check.name)
	}
	if err := systemd.Notify(systemd.Ready, systemd.Status("holds the address")); err != nil {
		return err
	}
	systemd.Run(ctx, slog.Default(), func() error {
		if _, err := os.Stat(filepath.Join(data, "hang")); err == nil {
			return errors.New("told to hang")
		}
		return nil
	})
	<-ctx.Done()
	return systemd.Notify(systemd.Stopping)
}

// tryAddress takes the address, which has to sit on a device of the process, and sends what wakes up clients.
func tryAddress(ctx context.Context, m *address.Manager) error {
	if err := m.Release(); err != nil {
		return err
	}
	if err := m.Acquire(ctx); err != nil {
		return err
	}
	devices, err := net.Interfaces()
	if err != nil {
		return err
	}
	carrier := false
	for _, d := range devices {
		carrier = carrier || strings.HasPrefix(d.Name, "holdfast")
	}
	if !carrier {
		return errors.New("the address is there, but not on a device that goes with the process")
	}
	return m.Tickle(2049, []netip.AddrPort{netip.MustParseAddrPort("10.94.0.7:1023")})
}

func tryPort() error {
	ln, err := net.Listen("tcp", ":111")
	if err != nil {
		return err
	}
	return ln.Close()
}

// tryFolder makes a file as the store does: space is reserved, and given back in the middle.
func tryFolder(dir string) error {
	f, err := os.Create(filepath.Join(dir, "probe"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Chmod(0o660); err != nil {
		return err
	}
	if err := unix.Fallocate(int(f.Fd()), 0, 0, 1<<16); err != nil {
		return fmt.Errorf("fallocate: %w", err)
	}
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4096, 4096); err != nil {
		return fmt.Errorf("fallocate: %w", err)
	}
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return fmt.Errorf("fdatasync: %w", err)
	}
	return os.Remove(f.Name())
}

// tryBacklog reads what the Go runtime sizes the queue of new connections by.
func tryBacklog() error {
	_, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	return err
}

func tryFiles() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if limit.Cur < 500_000 {
		return fmt.Errorf("only %d may be open", limit.Cur)
	}
	return nil
}

// tryConfinement does what the daemon has no business to do.
func tryConfinement() error {
	if os.Getuid() == 0 {
		return errors.New("the daemon runs as root")
	}
	for _, name := range []string{"/etc/holdfast/probe", "/var/lib/probe", "/usr/bin/probe", "/proc/sys/net/ipv4/ip_forward"} {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			f.Close()
			return fmt.Errorf("could open %s to write to it", name)
		}
	}
	if _, err := os.ReadDir("/root"); err == nil {
		return errors.New("could read /root")
	}
	if err := unix.Mount("none", data, "tmpfs", 0, ""); err == nil {
		return errors.New("could mount")
	}
	return nil
}
