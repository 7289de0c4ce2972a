// Command run measures Holdfast beside NFS-Ganesha and prints a table or, with -o json, one object; see package bench. `./dev bench` builds everything and runs it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"holdfast/internal/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if slices.Equal(os.Args[1:], []string{bench.GeneratorArg}) {
		err = bench.Generate(ctx, os.Stdin, os.Stdout)
	} else {
		err = run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	o, output := options()
	if output != "text" && output != "json" {
		return fmt.Errorf("unknown output format %q: use -o text or -o json", output)
	}
	o.Log = os.Stderr
	report, err := bench.Run(ctx, o)
	if output == "text" {
		return errors.Join(err, report.Print(os.Stdout))
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	return errors.Join(err, enc.Encode(report))
}

// options reads the flags; those that are not given stay as the full or the quick run has them.
func options() (bench.Options, string) {
	o := bench.Defaults()
	if slices.Contains(os.Args[1:], "-quick") || slices.Contains(os.Args[1:], "--quick") {
		o = bench.Quick()
	}
	list := func(p *[]string) func(string) error {
		return func(s string) error {
			*p = strings.Split(s, ",")
			return nil
		}
	}
	output := flag.String("o", "text", "`format` of the output: text or json")
	flag.Bool("quick", false, "less of everything, version 4.1 and no Linux client: under a minute")
	flag.StringVar(&o.Holdfast, "holdfast", "./holdfast", "`binary` to measure")
	flag.Func("clients", "`list` of clients: loadgen, linux", list(&o.Clients))
	flag.Func("servers", "`list` of servers: ganesha, holdfast-1, holdfast-3", list(&o.Servers))
	flag.Func("versions", "`list` of NFS versions for the load generator: 4.1, 3", list(&o.Versions))
	flag.Func("linux-versions", "`list` of NFS versions for the Linux client: 4.2, 4.1, 3", list(&o.LinuxVersions))
	flag.Func("cases", "`list` of the load generator's cases (default all)", list(&o.Cases))
	flag.Int64Var(&o.Size.Bytes, "bytes", o.Size.Bytes, "size of the file for sequential I/O")
	flag.Int64Var(&o.Size.Warm, "warm", o.Size.Warm, "bytes written before anything is measured")
	flag.DurationVar(&o.Size.Duration, "duration", o.Size.Duration, "duration of the cases without a natural end")
	flag.IntVar(&o.Size.Files, "files", o.Size.Files, "number of small files")
	flag.IntVar(&o.Size.Entries, "entries", o.Size.Entries, "entries of the large directory")
	flag.Parse()
	return o, *output
}
