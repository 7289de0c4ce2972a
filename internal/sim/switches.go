package sim

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"holdfast/internal/volume"
)

// strikes reports whether a fault is let strike.
func (c *Config) strikes(f *fault) bool {
	return (c.Only == nil || slices.Contains(c.Only, f.ordinal)) && !slices.Contains(c.Off, f.kind.String())
}

// works reports whether a process is to work.
func (c *Config) works(process int) bool {
	return c.Processes == nil || slices.Contains(c.Processes, process)
}

// Flags defines flags that set what is in c, but for Faults and Log.
func (c *Config) Flags(fs *flag.FlagSet) {
	fs.Uint64Var(&c.Seed, "seed", c.Seed, "run this `seed` only")
	fs.IntVar(&c.Nodes, "nodes", c.Nodes, "nodes of the cluster; 0: by the seed")
	fs.Func("kind", "the sort of cluster: fixed, elastic or witnessed; any: by the seed", func(s string) error {
		var ok bool
		if c.Kind, ok = ParseKind(s); !ok {
			return errors.New("there is no such kind of cluster")
		}
		return nil
	})
	fs.DurationVar(&c.Duration, "simulated", c.Duration, "how long clients work and faults strike, in simulated time; 0: the default")
	fs.Func("mutation", "break the system on purpose: see sim.Mutation", func(s string) error {
		var ok bool
		if c.Mutation, ok = ParseMutation(s); !ok {
			return errors.New("there is no such mutation")
		}
		return nil
	})
	fs.BoolVar(&c.Ruin, "ruin", c.Ruin, "take the disks of most members away at some moment; otherwise by the seed")
	fs.IntVar(&c.Endure, "endure", c.Endure, "how often a node goes when all is well after the faults, and the others have to go on")
	fs.Func("only", "`numbers` of the faults that strike, 3,17; none for none", func(s string) (err error) {
		c.Only, err = parseNumbers(s)
		return err
	})
	fs.Func("off", "`kinds` of fault that do not strike: "+strings.Join(FaultNames(), ","), func(s string) error {
		c.Off = strings.Split(s, ",")
		for _, name := range c.Off {
			if !slices.Contains(FaultNames(), name) {
				return fmt.Errorf("there is no kind of fault %q", name)
			}
		}
		return nil
	})
	fs.Func("processes", "`numbers` of the clients' processes that work; none for none", func(s string) (err error) {
		c.Processes, err = parseNumbers(s)
		return err
	})
	fs.Func("from", "the cluster `version` that the volume begins with; 0: by the seed", func(s string) error {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil || n > volume.MaxVersion {
			return fmt.Errorf("the versions are 1 to %d", volume.MaxVersion)
		}
		c.From = uint32(n)
		return nil
	})
	fs.Func("lease", "the `lease` of NFSv4 clients, 1s or more; by default by the seed", func(s string) (err error) {
		if c.Lease, err = time.ParseDuration(s); err == nil && c.Lease < time.Second {
			err = errors.New("a lease is a second or more")
		}
		return err
	})
	fs.IntVar(&c.Operations, "operations", c.Operations, "how many operations each process does at most; 0: as many as it can")
}

// Args are the flags that make c of an empty Config, but for Faults and Log.
func (c *Config) Args() []string {
	args := []string{"-seed", strconv.FormatUint(c.Seed, 10)}
	add := func(use bool, name string, value any) {
		if use {
			args = append(args, "-"+name, fmt.Sprint(value))
		}
	}
	add(c.Nodes != 0, "nodes", c.Nodes)
	add(c.Kind != AnyKind, "kind", c.Kind)
	add(c.Duration != 0, "simulated", c.Duration)
	add(c.Mutation != NoMutation, "mutation", c.Mutation)
	add(c.From != 0, "from", c.From)
	if c.Ruin {
		args = append(args, "-ruin")
	}
	add(c.Endure != 0, "endure", c.Endure)
	add(c.Only != nil, "only", formatNumbers(c.Only))
	add(len(c.Off) > 0, "off", strings.Join(c.Off, ","))
	add(c.Processes != nil, "processes", formatNumbers(c.Processes))
	add(c.Lease != 0, "lease", c.Lease)
	add(c.Operations != 0, "operations", c.Operations)
	return args
}

const noNumbers = "none"

// parseNumbers parses "1,2,5"; the result is never nil.
func parseNumbers(s string) ([]int, error) {
	numbers := []int{}
	if s == noNumbers {
		return numbers, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%q is no number: write 1,2,5, or %s", part, noNumbers)
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

func formatNumbers(numbers []int) string {
	var parts []string
	for _, n := range numbers {
		parts = append(parts, strconv.Itoa(n))
	}
	return cmp.Or(strings.Join(parts, ","), noNumbers)
}
