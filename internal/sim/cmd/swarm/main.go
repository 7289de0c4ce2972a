// Command swarm runs fresh seeds of the simulator on all cores, or one seed with its log.
//
//	go run ./internal/sim/cmd/swarm -duration 10m
//	go run ./internal/sim/cmd/swarm -seed 42 -log
//
// A run that fails is shrunk: faults, processes, operations and time are left out as long as it still fails in the same way. Printed are the end of what is left and the
// command that runs it again.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"time"

	"holdfast/internal/sim"
)

type options struct {
	duration  time.Duration
	workers   int
	single    bool
	first     uint64
	log       bool
	keepGoing bool
	shrink    time.Duration
	config    sim.Config
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "swarm:", err)
		os.Exit(1)
	}
}

func run() error {
	opt, err := parse()
	if err != nil {
		return err
	}
	if opt.single {
		return one(opt)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	return swarm(ctx, opt)
}

func parse() (options, error) {
	var opt options
	flag.DurationVar(&opt.duration, "duration", time.Minute, "how long to run fresh seeds, in real time")
	flag.IntVar(&opt.workers, "workers", runtime.GOMAXPROCS(0), "runs at a time")
	flag.Uint64Var(&opt.first, "first", 0, "begin with this seed and count up; 0: begin anywhere")
	flag.BoolVar(&opt.log, "log", false, "with -seed: write everything that happens to standard output")
	flag.BoolVar(&opt.keepGoing, "keep-going", false, "go on after a failure")
	flag.DurationVar(&opt.shrink, "shrink", time.Minute, "how long to look for a smaller run that fails in the same way, in real time; 0: not at all")
	opt.config.Flags(flag.CommandLine)
	flag.Parse()
	if flag.NArg() > 0 {
		return opt, fmt.Errorf("what is %q to mean?", flag.Arg(0))
	}
	flag.Visit(func(f *flag.Flag) { opt.single = opt.single || f.Name == "seed" })
	return opt, nil
}

// replay is the command that runs something again with everything that happens.
func replay(cfg sim.Config) string {
	return "go run ./internal/sim/cmd/swarm " + strings.Join(cfg.Args(), " ") + " -log"
}

// shrink looks for a smaller run that fails as cfg does, and describes it.
func shrink(ctx context.Context, cfg sim.Config, limit time.Duration) string {
	if limit <= 0 {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	s := sim.Shrink(ctx, cfg)
	if s == nil {
		return "the run does not fail when it is repeated\n"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "shrunk in %d runs from %v to %v:\n", s.Runs, s.Before, s.After)
	for _, line := range s.Events {
		b.WriteString(line + "\n")
	}
	fmt.Fprintf(&b, "FAIL %v\n     replay: %s\n", s.Err, replay(s.Config))
	return b.String()
}

// one runs one seed.
func one(opt options) error {
	cfg := opt.config
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	if opt.log {
		cfg.Log = out
	}
	w := sim.New(cfg)
	began := time.Now()
	err := w.Run()
	st := w.Stats()
	if err != nil && !opt.log {
		fmt.Fprintf(out, "FAIL %v\n     replay: %s\n%s", err, replay(opt.config), shrink(context.Background(), opt.config, opt.shrink))
	}
	fmt.Fprintf(out, "seed %d: %d events, %v simulated in %v, %d calls answered, %d entries, digest %016x\n",
		cfg.Seed, st.Events, st.Simulated.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), st.Calls, st.Entries, w.Digest())
	if ferr := out.Flush(); err == nil {
		err = ferr
	}
	return err
}

// totals sums up what the workers did.
type totals struct {
	mu       sync.Mutex
	seeds    int
	failures []uint64
	stats    sim.Stats
	faults   []int
}

func (t *totals) add(st sim.Stats) {
	t.seeds++
	t.stats.Events += st.Events
	t.stats.Simulated += st.Simulated
	t.stats.Calls += st.Calls
	t.stats.Entries += st.Entries
	t.stats.Leaders += st.Leaders
	t.stats.Snapshots += st.Snapshots
	t.stats.Unknown += st.Unknown
	t.stats.Histories += st.Histories
	t.stats.Operations += st.Operations
	t.stats.Expired += st.Expired
	t.stats.Outdated += st.Outdated
	if t.faults == nil {
		t.faults = make([]int, len(st.Faults))
	}
	for i, n := range st.Faults {
		t.faults[i] += n
	}
}

func (t *totals) print(took time.Duration) {
	fmt.Printf("%d seeds in %v (%.1f/s), %.2f simulated hours, %d calls, %d entries, %d leaderships, %d snapshots, %d operations in %d histories (%d undecided), %d failures\n",
		t.seeds, took.Round(time.Second), float64(t.seeds)/took.Seconds(), t.stats.Simulated.Hours(), t.stats.Calls, t.stats.Entries, t.stats.Leaders, t.stats.Snapshots,
		t.stats.Operations, t.stats.Histories, t.stats.Unknown, len(t.failures))
}

// swarm runs fresh seeds until the time is up or one fails.
func swarm(ctx context.Context, opt options) error {
	ctx, cancel := context.WithTimeout(ctx, opt.duration)
	defer cancel()
	began := time.Now()
	next := opt.first
	if next == 0 {
		next = rand.Uint64() >> 16
	}
	fmt.Printf("seeds from %d\n", next)
	var t totals
	var wg sync.WaitGroup
	for range opt.workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				t.mu.Lock()
				seed := next
				next++
				t.mu.Unlock()
				cfg := opt.config
				cfg.Seed = seed
				w := sim.New(cfg)
				err := w.Run()
				story := ""
				if err != nil {
					t.mu.Lock()
					fmt.Printf("FAIL %v\n     replay: %s\n", err, replay(cfg))
					t.mu.Unlock()
					story = shrink(context.WithoutCancel(ctx), cfg, opt.shrink)
				}
				t.mu.Lock()
				t.add(w.Stats())
				if err != nil {
					t.failures = append(t.failures, seed)
					fmt.Print(story)
					if !opt.keepGoing {
						cancel()
					}
				}
				t.mu.Unlock()
			}
		})
	}
	report := time.NewTicker(30 * time.Second)
	defer report.Stop()
	finished := make(chan struct{})
	go func() { wg.Wait(); close(finished) }()
	for done := false; !done; {
		select {
		case <-report.C:
			t.mu.Lock()
			t.print(time.Since(began))
			t.mu.Unlock()
		case <-finished:
			done = true
		}
	}
	t.print(time.Since(began))
	for i, name := range sim.FaultNames() {
		if t.faults != nil {
			fmt.Printf("%20s %d\n", name, t.faults[i])
		}
	}
	fmt.Printf("%d sessions lost, by silent clients; %d starts with old files refused\n", t.stats.Expired, t.stats.Outdated)
	if len(t.failures) > 0 {
		return errors.New("a seed failed")
	}
	return nil
}
