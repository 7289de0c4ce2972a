package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"holdfast/internal/lab/control"
	"holdfast/internal/lab/work"
)

// bootTimeout is generous: a guest needs about two seconds on an idle machine.
const bootTimeout = 60 * time.Second

// Guest is a booted user-mode Linux kernel with the agent in it.
type Guest struct {
	// Name is the guest's host name and the name of its tap.
	Name string
	// Addr is its IPv4 address.
	Addr string

	lab     *Lab
	cmd     *exec.Cmd
	console string // file with the console's output
	ready   chan struct{}
	done    chan struct{}
}

// Boot starts guests with 256 MiB each, side by side, and waits until they are ready.
func (l *Lab) Boot(ctx context.Context, count int) ([]*Guest, error) {
	guests, err := l.StartGuests(ctx, count)
	if err != nil {
		return nil, err
	}
	return guests, AwaitGuests(ctx, guests)
}

// StartGuests starts guests and does not wait: they boot while other things are prepared. AwaitGuests follows.
func (l *Lab) StartGuests(ctx context.Context, count int) ([]*Guest, error) {
	l.image.once.Do(func() { l.image.path, l.image.err = writeImage(ctx, l.Dir) })
	if l.image.err != nil {
		return nil, l.image.err
	}
	var guests []*Guest
	for range count {
		g, err := l.startGuest()
		if err != nil {
			return nil, err
		}
		guests = append(guests, g)
	}
	return guests, nil
}

// AwaitGuests waits until guests are ready.
func AwaitGuests(ctx context.Context, guests []*Guest) error {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	for _, g := range guests {
		select {
		case <-g.ready:
		case <-g.done:
			return fmt.Errorf("guest %s ended while booting; its console:\n%s", g.Name, g.Console(40))
		case <-ctx.Done():
			return fmt.Errorf("guest %s did not become ready: %w; its console:\n%s", g.Name, ctx.Err(), g.Console(40))
		}
	}
	return nil
}

func (l *Lab) startGuest() (*Guest, error) {
	l.mu.Lock()
	l.guests++
	index := l.guests
	l.mu.Unlock()
	g := &Guest{
		Name: fmt.Sprintf("guest%d", index), Addr: fmt.Sprintf("10.94.0.%d", 50+index),
		lab: l, ready: make(chan struct{}), done: make(chan struct{}),
	}
	g.console = filepath.Join(l.Dir, g.Name+".console")
	if err := l.Net.addTap(g.Name); err != nil {
		return nil, err
	}
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	// A user-mode kernel hands over between its own processes all the time, which is far cheaper on one core.
	core := runtime.NumCPU() - 1 - (index-1)%runtime.NumCPU()
	g.cmd = l.Net.Command(context.Background(), "taskset", "-c", strconv.Itoa(core), "linux.uml",
		"initrd="+l.image.path, "rdinit=/init", "mem=256M",
		"vec0:transport=tap,ifname="+g.Name+",depth=128,gro=1",
		"con=null", "con0=null,fd:1", "loglevel=6", "panic=-1",
		"uml_dir="+l.Dir, "umid="+g.Name,
		"lab.host="+g.Name, "lab.addr="+g.Addr+"/24", "lab.addr6="+addr6(g.Addr)+"/64")
	g.cmd.Stdout, g.cmd.Stderr = in, in
	if err := l.spawn.start(g.cmd); err != nil {
		out.Close()
		return nil, fmt.Errorf("start guest: %w", err)
	}
	go g.watch(out)
	l.onClose(func() error { return g.PowerOff() })
	return g, g.keepAwake()
}

// watch copies the console to its file, notices readiness, and reaps the kernel's process when the console ends.
func (g *Guest) watch(console io.ReadCloser) {
	defer close(g.done)
	defer console.Close()
	f, err := os.Create(g.console)
	if err != nil {
		f = nil
	} else {
		defer f.Close()
	}
	lines := bufio.NewScanner(console)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		if f != nil {
			fmt.Fprintln(f, line)
		}
		if strings.HasSuffix(line, "guest: ready") {
			close(g.ready)
		}
	}
	g.cmd.Wait()
}

// isReady reports whether the agent runs.
func (g *Guest) isReady() bool {
	select {
	case <-g.ready:
		return true
	default:
		return false
	}
}

// Console returns the last lines of the console.
func (g *Guest) Console(lines int) string { return tailFile(g.console, lines) }

// Start begins a piece of work, see package work; events go to onEvent.
func (g *Guest) Start(ctx context.Context, name string, args any, onEvent func(json.RawMessage)) (*control.Task, error) {
	c, err := g.lab.Net.Dial(ctx, fmt.Sprintf("%s:%d", g.Addr, control.Port))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", g.Name, err)
	}
	t, err := control.Start(ctx, c, name, args, onEvent)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", g.Name, err)
	}
	return t, nil
}

// Run carries out a piece of work and decodes what it returns into result, unless that is nil.
func (g *Guest) Run(ctx context.Context, name string, args, result any) error {
	t, err := g.Start(ctx, name, args, nil)
	if err != nil {
		return err
	}
	if err := t.Wait(result); err != nil {
		return fmt.Errorf("%s: %w", g.Name, err)
	}
	return nil
}

// Mount mounts an export of the server.
func (g *Guest) Mount(ctx context.Context, e Export, version, dir string) error {
	return g.Run(ctx, "mount", work.MountArgs{
		Server: e.Addr, Path: e.Path, Dir: dir, Version: version, Port: e.Port, MountPort: e.MountPort,
	}, nil)
}

// Unmount unmounts what Mount has mounted.
func (g *Guest) Unmount(ctx context.Context, dir string) error {
	return g.Run(ctx, "umount", work.UnmountArgs{Dir: dir}, nil)
}

// PowerOff ends the guest as a machine goes that has nothing more to do: nothing is unmounted.
func (g *Guest) PowerOff() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	select {
	case <-g.ready:
		if t, err := g.Start(ctx, "poweroff", nil, nil); err == nil {
			t.Wait(nil)
		}
	default:
	}
	select {
	case <-g.done:
		return nil
	case <-ctx.Done():
		return g.Kill()
	}
}

// Kill ends the guest as a power cut would.
func (g *Guest) Kill() error {
	p := &Process{Name: g.Name, cmd: g.cmd, done: g.done}
	return p.Kill()
}
