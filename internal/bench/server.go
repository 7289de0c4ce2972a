package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"holdfast/internal/demo"
	"holdfast/internal/lab"
)

// server is one that runs.
type server struct {
	name   string
	pids   []int
	addr   string // host:port of NFS
	mount  string // host:port of MOUNT
	export string
	// namespaceOf is a process in whose network namespace the server is reached; 0: our own. All traffic runs over a loopback device either way.
	namespaceOf int
	close       func() error
}

// startTimeout bounds how long a server may take until it serves.
const startTimeout = 30 * time.Second

// startServers starts the named servers side by side. The yardstick is left out, with a word about it, where it cannot run.
func startServers(ctx context.Context, o Options) (all []*server, err error) {
	for _, name := range o.Servers {
		if name == ServerYardstick {
			if reason := yardstickMissing(); reason != "" {
				fmt.Fprintln(o.Log, "bench: without the yardstick:", reason)
				continue
			}
		}
		s, err := startServer(ctx, o, name)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), closeServers(all))
		}
		all = append(all, s)
	}
	return all, nil
}

func closeServers(all []*server) error {
	var errs []error
	for _, s := range all {
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}

// yardstickMissing says why Ganesha cannot run here.
func yardstickMissing() string {
	if os.Geteuid() != 0 {
		return "it needs root, for a network namespace of its own"
	}
	return lab.GaneshaMissing()
}

func startServer(ctx context.Context, o Options, name string) (*server, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	switch name {
	case ServerOne:
		return startHoldfast(ctx, o, name, 1)
	case ServerThree:
		return startHoldfast(ctx, o, name, 3)
	case ServerYardstick:
		return startYardstick(ctx)
	}
	return nil, fmt.Errorf("there is no such server: there are %s, %s and %s", ServerYardstick, ServerOne, ServerThree)
}

// startHoldfast runs nodes as processes of this machine, all on one disk.
func startHoldfast(ctx context.Context, o Options, name string, nodes int) (_ *server, err error) {
	dir, err := os.MkdirTemp(dataDir, "holdfast-bench-")
	if err != nil {
		return nil, err
	}
	binary, err := filepath.Abs(o.Holdfast)
	if err != nil {
		return nil, err
	}
	c, err := demo.NewCluster(binary, dir, nodes, false)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	stop := func() error { return errors.Join(c.Close(), os.RemoveAll(dir)) }
	note := func(format string, args ...any) {
		fmt.Fprintf(o.Log, "bench: %s: "+format+"\n", append([]any{name}, args...)...)
	}
	if _, err := c.Form(ctx, note); err != nil {
		return nil, errors.Join(err, stop())
	}
	return &server{name: name, pids: c.PIDs(), addr: c.Addr, mount: c.Addr, export: demo.Export, close: stop}, nil
}

// startYardstick runs Ganesha in a network namespace of its own, as it wants well-known ports.
func startYardstick(ctx context.Context) (*server, error) {
	l, err := lab.New()
	if err != nil {
		return nil, err
	}
	g, err := l.StartGanesha(ctx)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	pid, e := g.Process.Pid(), g.Export()
	return &server{
		name: ServerYardstick, pids: []int{pid}, addr: fmt.Sprintf("127.0.0.1:%d", e.Port), mount: fmt.Sprintf("127.0.0.1:%d", e.MountPort),
		export: e.Path, namespaceOf: pid, close: l.Close,
	}, nil
}

// idleRSS is the memory of the server's largest process.
func (s *server) idleRSS() (int64, error) {
	var most int64
	for _, pid := range s.pids {
		rss, err := residentBytes(pid)
		if err != nil {
			return 0, err
		}
		most = max(most, rss)
	}
	return most, nil
}
