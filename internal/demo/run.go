package demo

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"holdfast/internal/loadgen"
	"holdfast/internal/nfsclient"
)

// Timing of a run.
const (
	startTimeout  = 30 * time.Second
	eventTimeout  = 30 * time.Second
	verifyTimeout = 2 * time.Minute
	closeTimeout  = 5 * time.Second
	// lookBack is how long before an event the gap that it caused may begin: the last write before it.
	lookBack = 100 * time.Millisecond
)

// Options of a run.
type Options struct {
	// Calm is how long the workload runs before, between and after the failovers.
	Calm time.Duration
	// Kills and Transfers are how many of each are done.
	Kills, Transfers int
	// Workload runs on this many appending writers.
	Writers int
}

// Failover is one change of leaders.
type Failover struct {
	Kind     string  `json:"kind"` // kill or transfer
	From     string  `json:"from"`
	To       string  `json:"to"`
	OutageMS float64 `json:"outage_ms"` // the longest time between two acknowledged writes of a client that writes every 10 ms
}

// Result is what a run found.
type Result struct {
	Failovers  []Failover `json:"failovers"`
	Ops        uint64     `json:"ops"`
	AckedBytes uint64     `json:"acked_bytes"`
	Lost       uint64     `json:"lost"`    // bytes, increments and names that were acknowledged and are not there
	Doubled    uint64     `json:"doubled"` // requests executed more than once
	LocksLost  int        `json:"locks_lost"`
	Errors     int        `json:"errors"`
	// Equal tells whether all replicas were equal at the end.
	Equal bool `json:"replicas_equal"`
	// Details are the first findings, for people.
	Details []string `json:"details,omitempty"`
}

// OK reports whether nothing was lost, nothing failed, and the replicas are equal.
func (r *Result) OK() bool {
	return r.Lost == 0 && r.Doubled == 0 && r.LocksLost == 0 && r.Errors == 0 && r.Equal
}

// Observer is told what happens, as it happens.
type Observer interface {
	// Note tells of an event.
	Note(format string, args ...any)
	// Live is called several times a second with the counters and the leader's name (empty while there is none).
	Live(leader string, l loadgen.Live)
}

// Run forms the cluster, starts the workload, does the failovers, and verifies. The cluster still runs when it returns. A run that could not be brought to its end
// counts as an error in the result, too: whoever looks at the result alone must not take it for a good one.
func Run(ctx context.Context, c *Cluster, o Options, obs Observer) (Result, error) {
	var res Result
	err := run(ctx, c, o, obs, &res)
	if err != nil {
		res.Errors++
		res.Details = append(res.Details, err.Error())
	}
	return res, err
}

func run(ctx context.Context, c *Cluster, o Options, obs Observer, res *Result) error {
	leader, err := c.Form(ctx, obs.Note)
	if err != nil {
		return err
	}
	obs.Note("all copies are in sync; node %s leads and serves NFS on %s", leader.Name, c.Addr)
	w, err := loadgen.StartWorkload(ctx, loadgen.WorkloadConfig{
		Mount:   loadgen.MountWith(nfsclient.Config{Address: c.Addr, Export: Export}),
		Writers: o.Writers,
	})
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		w.Close(closing)
	}()
	if err := failovers(ctx, c, o, w, obs, res); err != nil {
		return err
	}
	w.Stop()
	obs.Note("the workload has stopped; reading back every acknowledged byte")
	return verify(ctx, c, w, obs, res)
}

// failovers does what the run is about.
func failovers(ctx context.Context, c *Cluster, o Options, w *loadgen.Workload, obs Observer, res *Result) error {
	if err := watch(ctx, c, w, obs, o.Calm); err != nil {
		return err
	}
	for range o.Kills {
		f, err := kill(ctx, c, o, w, obs)
		if err != nil {
			return err
		}
		res.Failovers = append(res.Failovers, f)
	}
	for range o.Transfers {
		f, err := transfer(ctx, c, o, w, obs)
		if err != nil {
			return err
		}
		res.Failovers = append(res.Failovers, f)
	}
	return nil
}

// watch shows the counters for d.
func watch(ctx context.Context, c *Cluster, w *loadgen.Workload, obs Observer, d time.Duration) error {
	const frame = 100 * time.Millisecond
	for end := time.Now().Add(d); time.Now().Before(end); {
		name := ""
		look, cancel := context.WithTimeout(ctx, frame)
		if n, _, err := c.Leader(look); err == nil {
			name = n.Name
		}
		cancel()
		obs.Live(name, w.Live())
		if !pause(ctx, frame) {
			return context.Cause(ctx)
		}
	}
	return nil
}

// kill ends the leader with SIGKILL, lets the workload go on, and starts the node again.
func kill(ctx context.Context, c *Cluster, o Options, w *loadgen.Workload, obs Observer) (Failover, error) {
	old, err := c.awaitLeader(ctx, eventTimeout)
	if err != nil {
		return Failover{}, err
	}
	obs.Note("SIGKILL for node %s, which leads", old.Name)
	from := time.Now()
	if err := c.Kill(old); err != nil {
		return Failover{}, err
	}
	now, err := c.awaitLeader(ctx, eventTimeout)
	if err != nil {
		return Failover{}, err
	}
	if err := watch(ctx, c, w, obs, o.Calm); err != nil {
		return Failover{}, err
	}
	f := Failover{Kind: "kill", From: old.Name, To: now.Name, OutageMS: milliseconds(w.Gap(from.Add(-lookBack), time.Now()))}
	obs.Note("node %s took over; the client's longest wait between two writes was %.0f ms", now.Name, f.OutageMS)
	if err := c.Start(old); err != nil {
		return f, err
	}
	obs.Note("node %s is started again and catches up", old.Name)
	_, err = c.awaitInSync(ctx, eventTimeout)
	return f, err
}

// transfer hands the leadership over.
func transfer(ctx context.Context, c *Cluster, o Options, w *loadgen.Workload, obs Observer) (Failover, error) {
	old, err := c.awaitLeader(ctx, eventTimeout)
	if err != nil {
		return Failover{}, err
	}
	from := time.Now()
	r, err := old.api.Transfer(ctx, volumeName, "")
	if err != nil {
		return Failover{}, fmt.Errorf("transfer: %w", err)
	}
	if err := watch(ctx, c, w, obs, o.Calm); err != nil {
		return Failover{}, err
	}
	f := Failover{Kind: "transfer", From: r.From, To: r.To, OutageMS: milliseconds(w.Gap(from.Add(-lookBack), time.Now()))}
	obs.Note("node %s handed over to node %s; the longest wait was %.0f ms", f.From, f.To, f.OutageMS)
	return f, nil
}

// verify compares everything that was acknowledged with what is there, and the replicas with each other.
func verify(ctx context.Context, c *Cluster, w *loadgen.Workload, obs Observer, res *Result) error {
	ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	rep, err := w.Verify(ctx)
	res.Ops, res.AckedBytes, res.Lost, res.Doubled = rep.Ops, rep.AckedBytes, rep.Lost, rep.Doubled
	res.LocksLost, res.Errors, res.Details = rep.LocksLost, rep.Errors, rep.Problems
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	leader, err := c.awaitLeader(ctx, eventTimeout)
	if err != nil {
		return err
	}
	check, err := leader.api.Check(ctx, volumeName)
	if err != nil {
		return fmt.Errorf("compare the replicas: %w", err)
	}
	res.Equal = check.Equal
	obs.Note("verified")
	return nil
}

// awaitLeader is Leader with a time limit.
func (c *Cluster) awaitLeader(ctx context.Context, limit time.Duration) (*Node, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errors.New("no node became the leader within "+limit.String()))
	defer cancel()
	n, _, err := c.Leader(ctx)
	return n, err
}

// awaitInSync waits until the leader sees all copies and the witness in sync, and all have applied what it has: one that has not yet cannot take over. It returns the leader.
func (c *Cluster) awaitInSync(ctx context.Context, limit time.Duration) (*Node, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errors.New("the nodes were not in sync within "+limit.String()))
	defer cancel()
	var applied uint64 // what all must have
	for {
		n, v, err := c.Leader(ctx)
		if err != nil {
			return nil, err
		}
		synced := 0
		for _, r := range v.Replicas {
			if r.InSync {
				synced++
			}
		}
		if synced < len(c.Nodes) {
			applied = 0
		} else {
			if applied == 0 {
				applied = v.Commit
			}
			if c.applied(ctx) >= applied {
				return n, nil
			}
		}
		if !pause(ctx, 20*time.Millisecond) {
			return nil, context.Cause(ctx)
		}
	}
}

// applied returns up to where all nodes have applied the log, 0 if one does not tell.
func (c *Cluster) applied(ctx context.Context) uint64 {
	least := uint64(math.MaxUint64)
	for _, n := range c.Nodes {
		s, err := n.api.Status(ctx, true)
		if err != nil || len(s.Volumes) != 1 {
			return 0
		}
		least = min(least, s.Volumes[0].Applied)
	}
	return least
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
