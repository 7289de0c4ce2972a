package lab

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"holdfast/internal/identity"
)

// chaosFault impairs one node. Two of different parts can be had at once.
type chaosFault struct {
	name string
	part string // "process", "files", "network", "disk", "clock" or "role"
	// apply impairs the node and returns what undoes that.
	apply func(ctx context.Context, c *Cluster, n *Node) (heal func() error, err error)
}

// chaosFaults are chosen from with equal chances.
var chaosFaults = []chaosFault{
	{string(LossKill), "process", kill},
	{string(LossStop), "process", lossOf(LossStop)},
	{"SIGTERM", "process", terminate},
	{"files of its copy gone", "files", filesGone},
	{string(LossLink), "network", lossOf(LossLink)},
	{"cut off at the bridge", "network", network((*Network).Cut, (*Network).Mend)},
	{"loss of what it sends", "network", network((*Network).DropFrom, (*Network).Pass)},
	{"loss of what it is sent", "network", network((*Network).DropTo, (*Network).Pass)},
	{"disk below the reserve", "disk", fill(chaosReserve / 2)},
	{"disk full", "disk", fill(0)},
	{"wall clock an hour ahead", "clock", stepClock(time.Hour)},
	{"wall clock in 1970", "clock", stepClock(-time.Since(time.Unix(0, 0)))},
	{"wall clock after the end of certificates", "clock", stepClock(10 * identity.NodeValidity)},
	{string(LossTransfer), "role", transfer},
}

// chaosReserve is the reserve in the configuration of nodes.
const chaosReserve = 64 << 20

// goesWith reports whether a node can have both faults at once. A process that is stopped does not start without its files, and one without room does not ask for them.
func (f chaosFault) goesWith(o chaosFault) bool {
	files := f.part == "files" || o.part == "files"
	other := func(part string) bool { return f.part == part || o.part == part }
	return f.part != o.part && !other("role") && !(files && (other("process") || other("disk")))
}

func lossOf(how Loss) func(context.Context, *Cluster, *Node) (func() error, error) {
	return func(ctx context.Context, c *Cluster, n *Node) (func() error, error) { return c.Lose(ctx, n, how) }
}

func kill(_ context.Context, _ *Cluster, n *Node) (func() error, error) {
	return func() error { return restart(n) }, n.Process.Kill()
}

// terminate is an orderly stop. A node that does not end in time is killed, which is an error.
func terminate(ctx context.Context, _ *Cluster, n *Node) (func() error, error) {
	return func() error { return restart(n) }, n.Process.Stop(ctx)
}

// restart starts a node unless it runs.
func restart(n *Node) error {
	select {
	case <-n.Process.Done():
		return n.Start()
	default:
		return nil
	}
}

func network(do, undo func(n *Network, port string) error) func(context.Context, *Cluster, *Node) (func() error, error) {
	return func(_ context.Context, c *Cluster, n *Node) (func() error, error) {
		return func() error { return undo(c.lab.Net, n.Name) }, do(c.lab.Net, n.Name)
	}
}

// fill leaves so much space on a node's disk. A node without any may end itself, and is then started again.
func fill(leave int64) func(context.Context, *Cluster, *Node) (func() error, error) {
	return func(_ context.Context, _ *Cluster, n *Node) (func() error, error) {
		heal := func() error {
			if err := n.Disk.Free(); err != nil {
				return err
			}
			return restart(n)
		}
		return heal, n.Disk.Fill(leave)
	}
}

// stepClock makes the wall clock of a node's machine wrong.
func stepClock(ahead time.Duration) func(context.Context, *Cluster, *Node) (func() error, error) {
	return func(ctx context.Context, _ *Cluster, n *Node) (func() error, error) {
		return func() error { return n.SetClock(ctx, 0) }, n.SetClock(ctx, ahead)
	}
}

// transfer hands over if the node leads, and else takes the leadership over. There is nothing to undo, and a cluster that
// changes its leader just now may refuse.
func transfer(ctx context.Context, c *Cluster, n *Node) (func() error, error) {
	nothing := func() error { return nil }
	leader, err := c.AwaitLeader(ctx, nil)
	if err != nil {
		return nothing, err
	}
	to := n
	for _, other := range c.Nodes {
		if leader == n && other != n {
			to = other
		}
	}
	return nothing, c.Transfer(ctx, leader, to)
}

// killAll kills all nodes at once and starts them again.
func killAll(c *Cluster) error {
	var errs []error
	for _, n := range c.Nodes {
		if err := n.Process.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
			errs = append(errs, err)
		}
	}
	for _, n := range c.Nodes {
		<-n.Process.Done()
	}
	for _, n := range c.Nodes {
		errs = append(errs, n.Start())
	}
	return errors.Join(errs...)
}
