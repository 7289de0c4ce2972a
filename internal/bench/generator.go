package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"time"

	"holdfast/internal/loadgen"
	"holdfast/internal/nfsclient"
)

// GeneratorArg is the argument with which the program that uses this package must call Generate and nothing else: the load generator runs in a process of its own,
// so that it can do so in the network namespace of its server.
const GeneratorArg = "load-generator"

// job is what a generator process is to do; it comes on its standard input, and the []loadgen.Result leaves on its standard output.
type job struct {
	Address, MountAddress, Export, Version string
	Cases                                  []string
	Size                                   Size
	Pids                                   []int
}

// Generate is the load generator's process.
func Generate(ctx context.Context, in io.Reader, out io.Writer) error {
	var j job
	if err := json.NewDecoder(in).Decode(&j); err != nil {
		return fmt.Errorf("bench: read what to do: %w", err)
	}
	results, err := loadgen.Bench(ctx, loadgen.BenchConfig{
		Mount: nfsclient.Config{Address: j.Address, MountAddress: j.MountAddress, Export: j.Export, Version: j.Version},
		Cases: j.Cases, Bytes: j.Size.Bytes, Duration: j.Size.Duration, Files: j.Size.Files, Entries: j.Size.Entries, Settle: settle, Pids: j.Pids,
	})
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(results)
}

// settle is the pause between writing a large file and reading it.
const settle = 2 * time.Second

// groups are cases that build on each other and run in one go; the servers take turns between groups.
var groups = [][]string{{"seq-write", "seq-read"}, {"sync-write"}, {"small-files", "stat", "remove"}, {"readdir"}}

func runLoadgen(ctx context.Context, o Options, r *Report) (err error) {
	servers, err := startServers(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeServers(servers)) }()
	for _, s := range servers {
		if r.IdleRSS[s.name], err = s.idleRSS(); err != nil {
			return err
		}
	}
	for _, s := range servers {
		if o.Size.Warm == 0 || len(o.Versions) == 0 {
			break
		}
		fmt.Fprintf(o.Log, "bench: warming up %s\n", s.name)
		if _, err := s.generate(ctx, o.Versions[0], []string{"seq-write"}, Size{Bytes: o.Size.Warm}); err != nil {
			return fmt.Errorf("warm up %s: %w", s.name, err)
		}
	}
	for _, version := range o.Versions {
		for _, group := range groups {
			cases := chosen(group, o.Cases)
			if len(cases) == 0 {
				continue
			}
			for _, s := range servers {
				fmt.Fprintf(o.Log, "bench: NFS %s, %s: %v\n", version, s.name, cases)
				results, err := s.generate(ctx, version, cases, o.Size)
				if err != nil {
					return fmt.Errorf("%s, version %s: %w", s.name, version, err)
				}
				for _, res := range results {
					r.add(ClientLoadgen, version, res.Name, s.name, Figure{
						Ops: res.Ops, Bytes: res.Bytes, Seconds: res.Seconds, P50: res.P50, P99: res.P99, CPUSeconds: res.CPUSeconds,
					})
				}
			}
		}
	}
	return nil
}

// chosen returns what of group is wanted; nil: all.
func chosen(group, wanted []string) []string {
	if wanted == nil {
		return group
	}
	var out []string
	for _, c := range group {
		if slices.Contains(wanted, c) {
			out = append(out, c)
		}
	}
	return out
}

// generate runs cases against the server, from a process in the server's network namespace.
func (s *server) generate(ctx context.Context, version string, cases []string, size Size) ([]loadgen.Result, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	argv := []string{self, GeneratorArg}
	if s.namespaceOf != 0 {
		argv = append([]string{"nsenter", "--net", "--target", strconv.Itoa(s.namespaceOf)}, argv...)
	}
	input, err := json.Marshal(job{
		Address: s.addr, MountAddress: s.mount, Export: s.export, Version: version, Cases: cases, Size: size, Pids: s.pids,
	})
	if err != nil {
		return nil, err
	}
	var out, problems bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &out, &problems
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("load generator: %w: %s", err, problems.Bytes())
	}
	var results []loadgen.Result
	if err := json.Unmarshal(out.Bytes(), &results); err != nil {
		return nil, fmt.Errorf("read the load generator's results: %w", err)
	}
	return results, nil
}
