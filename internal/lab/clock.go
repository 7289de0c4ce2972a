package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"holdfast/internal/lab/work"
)

// SetClock makes the wall clock of the node's machine run so much ahead of the true time, or behind it if that is negative, in whole seconds. It stays so when the node is started
// again, and may be set while the node does not run.
func (n *Node) SetClock(ctx context.Context, ahead time.Duration) error {
	n.ahead = ahead.Truncate(time.Second)
	return n.applyClock(ctx)
}

// applyClock gives the current process, if there is one, the machine's clock as soon as it can take it: it begins as ip, which enters the namespace.
func (n *Node) applyClock(ctx context.Context) error {
	binary, err := os.Stat(n.cluster.options.Binary)
	if err != nil {
		return err
	}
	for {
		err := errNoClockYet
		if program, statErr := os.Stat(fmt.Sprintf("/proc/%d/exe", n.Process.Pid())); statErr == nil && os.SameFile(program, binary) {
			err = setProcessClock(n.Process.Pid(), n.ahead)
		}
		if err == nil {
			return nil
		}
		wait := time.Millisecond // nobody tells when a process has become another program
		if !errors.Is(err, errNoClockYet) {
			wait = time.Second // it may be about to end
		}
		select {
		case <-n.Process.Done():
			return nil
		case <-ctx.Done():
			return fmt.Errorf("set the clock of node %s: %w: %w", n.Name, ctx.Err(), err)
		case <-time.After(wait):
			if wait == time.Second {
				return fmt.Errorf("set the clock of node %s: %w", n.Name, err)
			}
		}
	}
}

// startClock gives a process that just begins the machine's clock, until the node itself says the time: the program executes itself anew in the beginning, and has forgotten then. A process
// that ends is no error here.
func (n *Node) startClock(ctx context.Context) error {
	for {
		if err := n.applyClock(ctx); err != nil {
			return err
		}
		asked, cancel := context.WithTimeout(ctx, statusTimeout)
		s, err := n.api.Status(asked, true)
		cancel()
		if off := time.Until(s.Time) - n.ahead; err == nil && off.Abs() < time.Minute {
			return nil
		}
		select {
		case <-n.Process.Done():
			return nil
		case <-ctx.Done():
			return fmt.Errorf("node %s does not go by the clock of its machine: it says %v, %w", n.Name, s.Time, errors.Join(ctx.Err(), err))
		case <-time.After(pollEvery):
		}
	}
}

// SetClock makes the guest's wall clock run so much ahead of the true time, or behind it.
func (g *Guest) SetClock(ctx context.Context, ahead time.Duration) error {
	return g.Run(ctx, "clock", work.ClockArgs{Unix: time.Now().Add(ahead).Unix()}, nil)
}
