package loadgen

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/internal/nfsclient"
)

// WorkloadConfig is what StartWorkload needs. Zero values stand for the defaults.
type WorkloadConfig struct {
	// Mount makes the clients: MountWith. Each worker has one of its own.
	Mount MountFunc
	// Dir is the name of the folder that the workload makes in the export, and that must not be there; empty: a name with the time in it.
	Dir string
	// Writers is how many workers append records. Default 2.
	Writers int
	// FileBytes is when a writer goes on in a new file, and Files how many it keeps (older ones are verified and removed). Defaults 8 MiB and 8.
	FileBytes int
	Files     int
	// Names is how many of the files that are created and renamed stay; older ones are removed. Default 200.
	Names int
	// ProbeInterval is how often the probe writes. Default 10 ms.
	ProbeInterval time.Duration
	// LockInterval is how often another client tries a held lock. Default 20 ms.
	LockInterval time.Duration
}

func (cfg *WorkloadConfig) setDefaults() {
	if cfg.Dir == "" {
		cfg.Dir = fmt.Sprintf("workload-%d", time.Now().UnixNano())
	}
	setDefault(&cfg.Writers, 2)
	setDefault(&cfg.FileBytes, 8<<20)
	setDefault(&cfg.Files, 8)
	setDefault(&cfg.Names, 200)
	setDefault(&cfg.ProbeInterval, 10*time.Millisecond)
	setDefault(&cfg.LockInterval, 20*time.Millisecond)
}

func setDefault[T int | int64 | time.Duration](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}

// errorPause keeps a worker whose calls fail from spinning.
const errorPause = 50 * time.Millisecond

// worker is one activity of the workload. run repeats step until the workload stops; verify then compares what the worker had acknowledged
// with what a fresh client finds.
type worker interface {
	// step does one thing and returns an error if the server failed at it. It ends as a whole: what it began it knows the outcome of, unless ctx ends.
	step(ctx context.Context) error
	verify(ctx context.Context, fresh Client) error
}

// Workload is a running workload.
type Workload struct {
	cfg     WorkloadConfig
	dir     nfsclient.Handle
	probe   *probe
	held    *held
	workers []worker

	stopping chan struct{} // closed by Stop
	stopOnce sync.Once
	running  sync.WaitGroup

	ops, acked atomic.Uint64
	findings   findings

	mu      sync.Mutex // guards clients
	clients []Client
}

// Live are counters for display while the workload runs.
type Live struct {
	Ops        uint64 // operations that succeeded
	AckedBytes uint64 // of data, acknowledged as stable
	Errors     int
	LocksLost  int
	LocksHeld  int
	Reconnects uint64
	Retries    uint64
}

// StartWorkload mounts the clients and starts the workers. They run until Stop; if ctx ends they are cut off, and Verify may then report
// outcomes that are unknown.
func StartWorkload(ctx context.Context, cfg WorkloadConfig) (*Workload, error) {
	cfg.setDefaults()
	w := &Workload{cfg: cfg, stopping: make(chan struct{})}
	if err := w.prepare(ctx); err != nil {
		w.closeClients(ctx)
		return nil, fmt.Errorf("loadgen: starting the workload: %w", err)
	}
	for _, wk := range w.workers {
		w.running.Go(func() { w.run(ctx, wk) })
	}
	return w, nil
}

// prepare makes the folder, the clients and the workers.
func (w *Workload) prepare(ctx context.Context) error {
	first, err := w.mount(ctx)
	if err != nil {
		return err
	}
	if w.dir, err = first.Mkdir(ctx, first.Root(), w.cfg.Dir, 0o755); err != nil {
		return err
	}
	makers := []func(context.Context) (worker, error){w.newProbe, w.newHeld, w.newCounter, w.newNames}
	for i := range w.cfg.Writers {
		makers = append(makers, func(ctx context.Context) (worker, error) { return w.newWriter(ctx, i) })
	}
	for _, mk := range makers {
		wk, err := mk(ctx)
		if err != nil {
			return err
		}
		w.workers = append(w.workers, wk)
	}
	return nil
}

func (w *Workload) mount(ctx context.Context) (Client, error) {
	c, err := w.cfg.Mount(ctx)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.clients = append(w.clients, c)
	w.mu.Unlock()
	return c, nil
}

func (w *Workload) closeClients(ctx context.Context) {
	w.mu.Lock()
	clients := w.clients
	w.clients = nil
	w.mu.Unlock()
	var wg sync.WaitGroup
	for _, c := range clients {
		// What is left on the server expires with its lease.
		wg.Go(func() { _ = c.Close(ctx) })
	}
	wg.Wait()
}

func (w *Workload) run(ctx context.Context, wk worker) {
	for {
		select {
		case <-w.stopping:
			return
		case <-ctx.Done():
			return
		default:
		}
		err := wk.step(ctx)
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return
		}
		w.findings.failed(err)
		w.pause(ctx, errorPause)
	}
}

// pause waits for d, or until the workload stops.
func (w *Workload) pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-w.stopping:
	case <-ctx.Done():
	}
}

// did notes operations that succeeded, and the bytes that they made stable.
func (w *Workload) did(ops, bytes int) {
	w.ops.Add(uint64(ops))
	w.acked.Add(uint64(bytes))
}

// Live returns the counters.
func (w *Workload) Live() Live {
	l := Live{Ops: w.ops.Load(), AckedBytes: w.acked.Load(), LocksHeld: heldLocks}
	l.Errors, l.LocksLost = w.findings.counts()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.clients {
		s := c.Stats()
		l.Reconnects += s.Reconnects
		l.Retries += s.Retries
	}
	return l
}

// Gap returns the longest time, within from and to, that the probe went without an acknowledged write. A gap that reaches beyond the window counts
// in full; one that has not ended yet counts up to to.
func (w *Workload) Gap(from, to time.Time) time.Duration { return w.probe.acks.gap(from, to) }

// Stop lets every worker end what it is doing, and waits for that. The locks stay held. It may be called more than once.
func (w *Workload) Stop() {
	w.stopOnce.Do(func() { close(w.stopping) })
	w.running.Wait()
}

// Verify stops the workload, reads everything back through a new client and reports what it found. The error is for a verification
// that could not be done; what was lost is in the report.
func (w *Workload) Verify(ctx context.Context) (Report, error) {
	w.Stop()
	fresh, err := w.mount(ctx)
	if err != nil {
		return w.report(), fmt.Errorf("loadgen: verifying: %w", err)
	}
	for _, wk := range w.workers {
		if err := wk.verify(ctx, fresh); err != nil {
			return w.report(), fmt.Errorf("loadgen: verifying: %w", err)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.clients {
		if n := c.Stats().LostState; n > 0 {
			w.findings.failed(fmt.Errorf("the server told a client %d times that its state is lost", n))
		}
	}
	return w.report(), nil
}

func (w *Workload) report() Report {
	r := w.findings.report()
	r.Ops, r.AckedBytes = w.ops.Load(), w.acked.Load()
	return r
}

// Close stops the workload if it runs and gives up its clients, and with them its locks. The folder stays; see Remove.
func (w *Workload) Close(ctx context.Context) {
	w.Stop()
	w.closeClients(ctx)
}

// Remove removes the workload's folder from the server. Call it after Verify and before Close.
func (w *Workload) Remove(ctx context.Context) error {
	w.Stop()
	c, err := w.mount(ctx)
	if err != nil {
		return fmt.Errorf("loadgen: removing: %w", err)
	}
	if err := removeTree(ctx, c, w.dir); err != nil {
		return fmt.Errorf("loadgen: removing: %w", err)
	}
	return c.Rmdir(ctx, c.Root(), w.cfg.Dir)
}

// removeTree removes all that a folder holds.
func removeTree(ctx context.Context, c nfsclient.Client, dir nfsclient.Handle) error {
	var names []string
	err := c.ReadDir(ctx, dir, false, func(e nfsclient.DirEntry) error {
		names = append(names, e.Name)
		return nil
	})
	for _, name := range names {
		if err != nil {
			return err
		}
		var h nfsclient.Handle
		var a nfsclient.Attr
		if h, a, err = c.Lookup(ctx, dir, name); err != nil {
			return err
		}
		if a.Type != nfsclient.TypeDir {
			err = c.Remove(ctx, dir, name)
			continue
		}
		if err = removeTree(ctx, c, h); err == nil {
			err = c.Rmdir(ctx, dir, name)
		}
	}
	return err
}

// isStatus reports whether err is one of the statuses.
func isStatus(err error, statuses ...nfsclient.Status) bool {
	for _, s := range statuses {
		if errors.Is(err, s) {
			return true
		}
	}
	return false
}
