// Command swarm runs fresh seeds of the simulator on all cores, or one seed with its log.
//
//	go run ./internal/sim/cmd/swarm -duration 10m
//	go run ./internal/sim/cmd/swarm -seed 42 -log
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
	"sync"
	"time"

	"holdfast/internal/sim"
)

type options struct {
	duration  time.Duration
	workers   int
	seed      uint64
	single    bool
	first     uint64
	log       bool
	nodes     int
	kind      sim.Kind
	simulated time.Duration
	mutation  sim.Mutation
	keepGoing bool
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
	var mutation, kind string
	flag.DurationVar(&opt.duration, "duration", time.Minute, "how long to run fresh seeds, in real time")
	flag.IntVar(&opt.workers, "workers", runtime.GOMAXPROCS(0), "runs at a time")
	flag.Uint64Var(&opt.seed, "seed", 0, "run this seed only")
	flag.Uint64Var(&opt.first, "first", 0, "begin with this seed and count up; 0: begin anywhere")
	flag.BoolVar(&opt.log, "log", false, "with -seed: write everything that happens to standard output")
	flag.IntVar(&opt.nodes, "nodes", 0, "nodes of the cluster; 0: by the seed")
	flag.StringVar(&kind, "kind", "any", "the sort of cluster: fixed, elastic or witnessed; any: by the seed")
	flag.DurationVar(&opt.simulated, "simulated", 0, "how long each run lasts in simulated time; 0: the default")
	flag.StringVar(&mutation, "mutation", "none", "break the system on purpose: see sim.Mutation")
	flag.BoolVar(&opt.keepGoing, "keep-going", false, "go on after a failure")
	flag.Parse()
	flag.Visit(func(f *flag.Flag) { opt.single = opt.single || f.Name == "seed" })
	var ok bool
	if opt.mutation, ok = sim.ParseMutation(mutation); !ok {
		return opt, fmt.Errorf("there is no mutation %q", mutation)
	}
	if opt.kind, ok = sim.ParseKind(kind); !ok {
		return opt, fmt.Errorf("there is no kind of cluster %q", kind)
	}
	return opt, nil
}

func (o *options) config(seed uint64) sim.Config {
	return sim.Config{Seed: seed, Nodes: o.nodes, Kind: o.kind, Duration: o.simulated, Mutation: o.mutation}
}

// replay is the command that runs a seed again.
func (o *options) replay(seed uint64) string {
	cmd := fmt.Sprintf("go run ./internal/sim/cmd/swarm -seed %d -log", seed)
	if o.nodes != 0 {
		cmd += fmt.Sprintf(" -nodes %d", o.nodes)
	}
	if o.kind != sim.AnyKind {
		cmd += " -kind " + o.kind.String()
	}
	if o.simulated != 0 {
		cmd += fmt.Sprintf(" -simulated %v", o.simulated)
	}
	if o.mutation != sim.NoMutation {
		cmd += " -mutation " + o.mutation.String()
	}
	return cmd
}

// one runs one seed.
func one(opt options) error {
	cfg := opt.config(opt.seed)
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	if opt.log {
		cfg.Log = out
	}
	w := sim.New(cfg)
	began := time.Now()
	err := w.Run()
	st := w.Stats()
	fmt.Fprintf(out, "seed %d: %d events, %v simulated in %v, %d calls answered, %d entries, digest %016x\n",
		opt.seed, st.Events, st.Simulated.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), st.Calls, st.Entries, w.Digest())
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
				w := sim.New(opt.config(seed))
				err := w.Run()
				t.mu.Lock()
				t.add(w.Stats())
				if err != nil {
					t.failures = append(t.failures, seed)
					fmt.Printf("FAIL %v\n     replay: %s\n", err, opt.replay(seed))
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
	if len(t.failures) > 0 {
		return errors.New("a seed failed")
	}
	return nil
}
