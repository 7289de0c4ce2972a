package loadgen

import (
	"context"
	"fmt"
	"slices"
	"time"

	"holdfast/internal/nfsclient"
)

// BenchConfig is what Bench needs. Zero values stand for the defaults.
type BenchConfig struct {
	// Mount says what to mount, and with which version.
	Mount nfsclient.Config
	// Cases are the names of the cases to run, out of Cases; nil: all.
	Cases []string
	// Bytes is the size of the file for sequential I/O. Default 256 MiB.
	Bytes int64
	// Duration is how long the cases run that have no natural end. Default 5 s.
	Duration time.Duration
	// Files is how many small files are made. Default 2000.
	Files int
	// Entries is how many entries the listed directory has. Default 100000.
	Entries int
	// Settle is how long to wait between writing a large file and reading it, so that what the server still does about the writes is not taken for reading. Default 0.
	Settle time.Duration
	// Pids are the server's processes, whose CPU time is measured too.
	Pids []int
	// Progress, if set, is called with each result.
	Progress func(Result)
}

// Sizes of the cases.
const (
	chunkBytes      = 1 << 20 // of sequential I/O
	chunksInFlight  = 8       // as a kernel's read-ahead and write-back
	smallBytes      = 4 << 10
	smallFolders    = 16 // small files are spread over folders
	manyInFlight    = 16
	prepareInFlight = 32
)

// A benchCase measures one or several things and leaves the folder as it found it, except for what a later case needs.
type benchCase struct {
	name  string
	needs []string // cases that must run before
	run   func(b *bench, ctx context.Context) error
}

var benchCases = []benchCase{
	{"seq-write", nil, (*bench).seqWrite},
	{"seq-read", []string{"seq-write"}, (*bench).seqRead},
	{"sync-write", nil, (*bench).syncWrite},
	{"small-files", nil, (*bench).smallFiles},
	{"stat", []string{"small-files"}, (*bench).stat},
	{"remove", []string{"small-files"}, (*bench).remove},
	{"readdir", nil, (*bench).readDir},
}

// Cases returns the names of all cases, in the order in which they run.
func Cases() []string {
	names := make([]string, len(benchCases))
	for i, c := range benchCases {
		names[i] = c.name
	}
	return names
}

// bench is one run.
type bench struct {
	cfg     BenchConfig
	client  nfsclient.Client
	dir     nfsclient.Handle
	cpu     *cpuMeter
	results []Result

	file    nfsclient.File     // of seqWrite
	folders []nfsclient.Handle // of smallFiles
	files   []nfsclient.Handle
}

// Bench runs the cases and the ones that they need, in a folder of its own that it removes, and returns their results in order.
func Bench(ctx context.Context, cfg BenchConfig) ([]Result, error) {
	setDefault(&cfg.Bytes, 256<<20)
	setDefault(&cfg.Duration, 5*time.Second)
	setDefault(&cfg.Files, 2000)
	setDefault(&cfg.Entries, 100_000)
	cases, err := selectCases(cfg.Cases)
	if err != nil {
		return nil, err
	}
	cpu, err := newCPUMeter(cfg.Pids)
	if err != nil {
		return nil, err
	}
	client, err := nfsclient.Mount(ctx, cfg.Mount)
	if err != nil {
		return nil, err
	}
	defer func() { _ = client.Close(ctx) }() // what stays on the server expires
	b := &bench{cfg: cfg, client: client, cpu: cpu}
	name := fmt.Sprintf("bench-%d", time.Now().UnixNano())
	if b.dir, err = client.Mkdir(ctx, client.Root(), name, 0o755); err != nil {
		return nil, fmt.Errorf("loadgen: preparing: %w", err)
	}
	for _, c := range cases {
		if err := c.run(b, ctx); err != nil {
			return b.results, fmt.Errorf("loadgen: %s: %w", c.name, err)
		}
	}
	if b.file != nil {
		if err := b.file.Close(ctx); err != nil {
			return b.results, fmt.Errorf("loadgen: clearing up: %w", err)
		}
	}
	if err := removeTree(ctx, client, b.dir); err != nil {
		return b.results, fmt.Errorf("loadgen: clearing up: %w", err)
	}
	if err := client.Rmdir(ctx, client.Root(), name); err != nil {
		return b.results, fmt.Errorf("loadgen: clearing up: %w", err)
	}
	return b.results, nil
}

// selectCases returns the named cases with what they need, in order.
func selectCases(names []string) ([]benchCase, error) {
	if len(names) == 0 {
		return benchCases, nil
	}
	wanted := make(map[string]bool)
	for _, name := range names {
		i := slices.IndexFunc(benchCases, func(c benchCase) bool { return c.name == name })
		if i < 0 {
			return nil, fmt.Errorf("loadgen: no case %q: there are %v", name, Cases())
		}
		wanted[name] = true
		for _, need := range benchCases[i].needs {
			wanted[need] = true
		}
	}
	var cases []benchCase
	for _, c := range benchCases {
		if wanted[c.name] {
			cases = append(cases, c)
		}
	}
	return cases, nil
}

// run measures op under a name; opBytes is the payload of one.
func (b *bench) run(ctx context.Context, name string, p plan, opBytes int, op func(ctx context.Context, worker, i int) error) error {
	r, err := measure(ctx, p, b.cpu, op)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	r.Name, r.Version, r.Bytes = name, b.client.Version(), int64(r.Ops)*int64(opBytes)
	b.add(r)
	return nil
}

func (b *bench) add(r Result) {
	r.finish()
	b.results = append(b.results, r)
	if b.cfg.Progress != nil {
		b.cfg.Progress(r)
	}
}
