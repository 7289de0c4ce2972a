// Command bench measures what a Linux client gets from NFS servers: Holdfast as one node and as three nodes on one disk,
// and NFS-Ganesha on one node where it is installed, all in one run so that the ratios mean something. It needs root and
// user-mode-linux, see package lab.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"holdfast/internal/lab"
	"holdfast/internal/lab/work"
)

// options are the command's flags.
type options struct {
	holdfast string
	versions string
	servers  string
	json     bool
	size     work.BenchSize
}

func main() {
	var o options
	flag.StringVar(&o.holdfast, "holdfast", "", "`binary` to measure (default: built from this module)")
	flag.StringVar(&o.versions, "versions", "4.2,3", "NFS versions to mount with")
	flag.StringVar(&o.servers, "servers", "ganesha,one,three", "what to measure: ganesha, one (node), three (nodes)")
	flag.BoolVar(&o.json, "json", false, "print one JSON object for each server and version")
	flag.Int64Var(&o.size.FileBytes, "bytes", 256<<20, "size of the file that is written and read")
	flag.IntVar(&o.size.SyncWrites, "sync", 500, "number of O_SYNC writes, one in flight")
	flag.IntVar(&o.size.SmallFiles, "files", 1000, "number of small files")
	flag.IntVar(&o.size.Entries, "entries", 10000, "number of entries of the folder that is listed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if reason := lab.Missing(); reason != "" {
		return fmt.Errorf("%s", reason)
	}
	for _, version := range strings.Split(o.versions, ",") {
		var runs []*result
		for _, server := range strings.Split(o.servers, ",") {
			if reason := lab.GaneshaMissing(); server == "ganesha" && reason != "" {
				fmt.Fprintln(os.Stderr, "bench: leaving out the yardstick:", reason)
				continue
			}
			fmt.Fprintf(os.Stderr, "bench: %s, vers=%s\n", server, version)
			r, err := measure(ctx, o, server, version)
			if err != nil {
				return fmt.Errorf("%s, vers=%s: %w", server, version, err)
			}
			runs = append(runs, r)
			if o.json {
				if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
					return err
				}
			}
		}
		if !o.json {
			printTable(os.Stdout, version, runs)
		}
	}
	return nil
}

// result is what one server gave over one version.
type result struct {
	Server  string
	Version string
	// IdleRSS is the largest memory in bytes of one of the server's processes before the load.
	IdleRSS int64
	Phases  []phase
}

// phase is one phase, and the processor time that all of the server's processes together spent on it.
type phase struct {
	work.Measure
	CPUSeconds float64
}

// measure runs all phases against a fresh server, from a fresh client.
func measure(ctx context.Context, o options, server, version string) (r *result, err error) {
	l, err := lab.New()
	if err != nil {
		return nil, err
	}
	defer func() {
		if closeErr := l.Close(); err == nil {
			err = closeErr
		}
	}()
	s, err := start(ctx, l, o, server)
	if err != nil {
		return nil, err
	}
	r = &result{Server: server, Version: version}
	for _, p := range s.Processes() {
		rss, err := p.RSS()
		if err != nil {
			return nil, err
		}
		r.IdleRSS = max(r.IdleRSS, rss)
	}
	guests, err := l.Boot(ctx, 1)
	if err != nil {
		return nil, err
	}
	if err := guests[0].Mount(ctx, s.Export(), version, "/mnt"); err != nil {
		return nil, err
	}
	for _, p := range work.BenchPhases {
		before, err := cpu(s)
		if err != nil {
			return nil, err
		}
		var m phase
		if err := guests[0].Run(ctx, "bench", work.BenchArgs{Dir: "/mnt", Phase: p.Name, Size: o.size}, &m.Measure); err != nil {
			return nil, fmt.Errorf("phase %s: %w", p.Name, err)
		}
		after, err := cpu(s)
		if err != nil {
			return nil, err
		}
		m.CPUSeconds = (after - before).Seconds()
		r.Phases = append(r.Phases, m)
	}
	return r, nil
}

func start(ctx context.Context, l *lab.Lab, o options, server string) (lab.Server, error) {
	switch server {
	case "ganesha":
		return l.StartGanesha(ctx)
	case "one":
		return l.StartCluster(ctx, 1, o.holdfast)
	case "three":
		return l.StartCluster(ctx, 3, o.holdfast)
	}
	return nil, fmt.Errorf("no server %q: there are ganesha, one and three", server)
}

// cpu is the processor time of all the server's processes.
func cpu(s lab.Server) (time.Duration, error) {
	var sum time.Duration
	for _, p := range s.Processes() {
		used, err := p.CPU()
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

// printTable prints the servers beside each other; the ratio is to the first of them.
func printTable(out io.Writer, version string, runs []*result) {
	if len(runs) == 0 {
		return
	}
	fmt.Fprintf(out, "Linux client, vers=%s\n\n", version)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "phase")
	for i, r := range runs {
		fmt.Fprintf(w, "\t%s\tmedian\tCPU", r.Server)
		if i > 0 {
			fmt.Fprintf(w, "\tto %s", runs[0].Server)
		}
	}
	fmt.Fprintln(w)
	for i, p := range work.BenchPhases {
		fmt.Fprint(w, p.Name)
		for j, r := range runs {
			m := r.Phases[i]
			fmt.Fprintf(w, "\t%s\t%s\t%s", rate(m.Measure), median(m.Measure), cpuPer(m))
			if j > 0 {
				fmt.Fprintf(w, "\t%.2f", runs[0].Phases[i].Seconds/m.Seconds)
			}
		}
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, "idle RSS")
	for j, r := range runs {
		fmt.Fprintf(w, "\t%d MiB\t\t", r.IdleRSS>>20)
		if j > 0 {
			fmt.Fprint(w, "\t")
		}
	}
	fmt.Fprintln(w)
	w.Flush()
	fmt.Fprintln(out)
	for _, p := range work.BenchPhases {
		fmt.Fprintf(out, "%-10s %s\n", p.Name, p.What)
	}
	fmt.Fprint(out, "\nCPU is that of all server processes: seconds per GB for write and read, milliseconds per operation else.\n\n")
}

// bulk tells whether a phase is about bytes rather than operations.
func bulk(m work.Measure) bool { return m.Bytes >= 1<<20*int64(m.Ops) && m.Bytes > 0 }

func rate(m work.Measure) string {
	if bulk(m) {
		return fmt.Sprintf("%.0f MB/s", float64(m.Bytes)/1e6/m.Seconds)
	}
	return fmt.Sprintf("%.0f/s", float64(m.Ops)/m.Seconds)
}

func median(m work.Measure) string {
	if m.P50 == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f ms", float64(m.P50)/1e6)
}

func cpuPer(p phase) string {
	if bulk(p.Measure) {
		return fmt.Sprintf("%.2f s/GB", p.CPUSeconds/(float64(p.Bytes)/1e9))
	}
	return fmt.Sprintf("%.2f ms", p.CPUSeconds*1e3/float64(p.Ops))
}
