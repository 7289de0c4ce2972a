// Package lab tests an NFS server with real Linux kernels on one machine: user-mode Linux guests mount its exports over a
// network of namespaces, and nodes of a cluster are killed, stopped and cut off under their load. Linux and root are
// needed; Missing says what else is.
//
// A Lab is a bridge in a network namespace of its own (the hub). Guests hang on it by a tap, servers by a veth pair into
// a namespace each. All addresses are in 10.94.0.0/24 and fd94::/64, and exist inside these namespaces only. The harness reaches both
// by opening its sockets in the hub.
//
//	Lab ── Network (namespaces, links, partitions)
//	    ├─ Guest (a booted kernel; runs the work of internal/lab/work through internal/lab/control)
//	    └─ Server: Ganesha (the yardstick) or Cluster (Holdfast nodes)
package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// A lab's folder is labsDir/labPrefix, followed by the harness's process id and a random part.
const (
	labsDir   = "/var/tmp"
	labPrefix = "holdfast-lab-"
)

// Missing says why the lab cannot run here, and what would help; it is empty when it can.
func Missing() string {
	if os.Geteuid() != 0 {
		return "the lab needs root for network namespaces; run the tests as root"
	}
	for _, need := range []struct{ program, pkg string }{{"linux.uml", "user-mode-linux"}, {"ip", "iproute2"}} {
		if _, err := exec.LookPath(need.program); err != nil {
			return fmt.Sprintf("the lab needs %s; apt-get install %s", need.program, need.pkg)
		}
	}
	if _, err := moduleDir(); err != nil {
		return fmt.Sprintf("the lab needs the modules of user-mode Linux (%v); apt-get install user-mode-linux", err)
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return "the lab needs /dev/net/tun; load the tun module"
	}
	if _, err := exec.LookPath("go"); err != nil {
		return "the lab builds the programs it runs and needs go in PATH"
	}
	return ""
}

// Lab is one set-up: a network, and the guests and servers on it.
type Lab struct {
	// Dir holds logs, consoles and images. It is on a real disk, so that what servers store there costs what it costs.
	Dir string
	// Net is the network of the lab.
	Net *Network

	spawn *spawner
	image imageCache

	mu      sync.Mutex
	closers []func() error
	guests  int
}

// New makes an empty lab, after removing what crashed runs before it have left.
func New() (*Lab, error) {
	removeStale()
	dir, err := os.MkdirTemp(labsDir, fmt.Sprintf("%s%d-", labPrefix, os.Getpid()))
	if err != nil {
		return nil, fmt.Errorf("make the lab's folder: %w", err)
	}
	l := &Lab{Dir: dir, spawn: newSpawner()}
	if l.Net, err = newNetwork(l.spawn); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// onClose registers what Close runs, last registered first.
func (l *Lab) onClose(f func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closers = append(l.closers, f)
}

// Close ends all guests and servers and removes the network and the lab's folder. Logs that are wanted longer have to be
// read before.
func (l *Lab) Close() error {
	l.mu.Lock()
	closers := l.closers
	l.closers = nil
	l.mu.Unlock()
	var errs []error
	for i := len(closers) - 1; i >= 0; i-- {
		errs = append(errs, closers[i]())
	}
	if l.Net != nil {
		errs = append(errs, l.Net.close())
	}
	l.spawn.close()
	return errors.Join(append(errs, os.RemoveAll(l.Dir))...)
}

// build compiles a command of this module into dir and returns the path of the binary. Its symbols stay, for setProcessClock.
func build(ctx context.Context, dir, pkg, name string) (string, error) {
	out := filepath.Join(dir, name)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, text)
	}
	return out, nil
}
