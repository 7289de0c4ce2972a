package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"holdfast/internal/lab"
	"holdfast/internal/lab/work"
)

// runLinux measures with the Linux client: one server after the other, each fresh and with a fresh guest, as a guest is too slow to share the machine.
func runLinux(ctx context.Context, o Options, r *Report) error {
	if reason := lab.Missing(); reason != "" {
		fmt.Fprintln(o.Log, "bench: without the Linux client:", reason)
		return nil
	}
	for _, version := range o.LinuxVersions {
		for _, name := range o.Servers {
			if reason := lab.GaneshaMissing(); name == ServerYardstick && reason != "" {
				fmt.Fprintln(o.Log, "bench: without the yardstick:", reason)
				continue
			}
			fmt.Fprintf(o.Log, "bench: Linux client, vers=%s, %s\n", version, name)
			if err := r.linux(ctx, o, name, version); err != nil {
				return fmt.Errorf("%s, vers=%s: %w", name, version, err)
			}
		}
	}
	return nil
}

func (r *Report) linux(ctx context.Context, o Options, name, version string) (err error) {
	l, err := lab.New()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	s, err := startInLab(ctx, l, o, name)
	if err != nil {
		return err
	}
	guests, err := l.Boot(ctx, 1)
	if err != nil {
		return err
	}
	if err := guests[0].Mount(ctx, s.Export(), version, "/mnt"); err != nil {
		return err
	}
	size := work.BenchSize{FileBytes: o.Size.Bytes, SyncWrites: o.Size.LinuxSyncWrites, SmallFiles: o.Size.Files / 2, Entries: o.Size.LinuxEntries}
	for _, p := range work.BenchPhases {
		before, err := processorTime(s)
		if err != nil {
			return err
		}
		var m work.Measure
		if err := guests[0].Run(ctx, "bench", work.BenchArgs{Dir: "/mnt", Phase: p.Name, Size: size}, &m); err != nil {
			return fmt.Errorf("phase %s: %w", p.Name, err)
		}
		after, err := processorTime(s)
		if err != nil {
			return err
		}
		r.add(ClientLinux, version, p.Name+": "+p.What, name, Figure{
			Ops: m.Ops, Bytes: m.Bytes, Seconds: m.Seconds, P50: m.P50.Seconds() * 1e3, P99: m.P99.Seconds() * 1e3, CPUSeconds: (after - before).Seconds(),
		})
	}
	return nil
}

func startInLab(ctx context.Context, l *lab.Lab, o Options, name string) (lab.Server, error) {
	switch name {
	case ServerYardstick:
		return l.StartGanesha(ctx)
	case ServerOne:
		return l.StartCluster(ctx, 1, o.Holdfast)
	case ServerThree:
		return l.StartCluster(ctx, 3, o.Holdfast)
	}
	return nil, fmt.Errorf("there is no server %q", name)
}

// processorTime is what all of the server's processes have used so far.
func processorTime(s lab.Server) (time.Duration, error) {
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
