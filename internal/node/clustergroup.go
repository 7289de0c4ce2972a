package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/join"
	"holdfast/internal/replica"
	"holdfast/internal/replica/transport"
	"holdfast/internal/vfs"
	"holdfast/internal/wal"
)

// clusterSegmentBytes is the size of a segment of the cluster's own log, whose entries are small and few.
const clusterSegmentBytes = 4 << 20

// clusterGroup is this node's part in the cluster's own raft group.
type clusterGroup struct {
	node    *Node
	machine *cluster.Machine
	wal     *wal.Log
	replica *replica.Replica
	group   *transport.Group
	changes *changes
	leads   atomic.Bool

	mu      sync.Mutex
	waiting map[string]chan cluster.Result // by the command's id
}

// openCluster reads what this node knows of the cluster. It takes part in the group only after join.
func openCluster(n *Node) (*clusterGroup, error) {
	dir := join.Dir(n.local.Data)
	g := &clusterGroup{node: n, waiting: make(map[string]chan cluster.Result), changes: newChanges()}
	var err error
	if g.machine, err = cluster.OpenMachine(vfs.OS(), cluster.Name(dir), func(*cluster.State) { g.changes.signal() }); err != nil {
		return nil, err
	}
	if g.wal, err = wal.Open(vfs.OS(), filepath.Join(dir, "log"), wal.Options{SegmentBytes: clusterSegmentBytes}); err != nil {
		return nil, fmt.Errorf("open its log: %w", err)
	}
	return g, nil
}

// begun reports whether this node has ever heard anything of the cluster's group.
func (g *clusterGroup) begun() bool { return g.machine.Applied() > 0 || g.wal.LastIndex() > 0 }

// join makes this node's member of the group. Nothing happens before start.
func (g *clusterGroup) join(hints join.Hints) error {
	n := g.node
	// Before the state is here, only Init and Join know the timing that all nodes share.
	agreed := hints.Timing
	if s := g.state(); s.ID != "" {
		agreed = s.Timing
	}
	_, known := n.begun.get(cluster.Group)
	var link groupLink
	var err error
	g.replica, err = replica.New(replica.Config{
		// The witness is a member like any other here: the state holds no file data.
		ID: n.id.Node, Peers: []uint64{1}, Fresh: !known, FullMembers: true, Timing: timing(agreed),
		Log: g.wal, Meta: replica.MetaFile{FS: vfs.OS(), Name: filepath.Join(join.Dir(n.local.Data), metaFile)},
		Incarnations: incarnations{n.begun, cluster.Group},
		StateMachine: clusterMachine{g.machine, n}, Transport: &link, Clock: n.clock,
		Applied: g.applied, Event: g.event, Fatal: n.fail, Logger: n.log.With("group", "cluster"), Name: func(node uint64) string { return g.state().NodeName(node) },
		RetainBytes: clusterSegmentBytes, CheckpointBytes: clusterSegmentBytes,
	})
	if err != nil {
		return err
	}
	if err := n.begun.add(cluster.Group, part{}); err != nil {
		return err
	}
	link.Group = n.transport.Join(cluster.Group, n.id.Node, g.replica)
	g.group = link.Group
	return nil
}

func (g *clusterGroup) start() {
	g.replica.Start()
	// A witness cannot sign certificates: it leads the cluster only if nobody else can.
	g.replica.SetReluctant(replica.IsWitness(g.node.id.Node))
}

func (g *clusterGroup) state() *cluster.State { return g.machine.State() }

func (g *clusterGroup) close() error {
	var errs []error
	if g.replica != nil {
		errs = append(errs, g.replica.Close())
		if g.group != nil {
			g.group.Leave()
		}
		if _, err := g.machine.Checkpoint(context.Background()); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, g.wal.Close())...)
}

func (g *clusterGroup) handOver(ctx context.Context) {
	if !g.replica.Serving() {
		return
	}
	if len(g.replica.Voters()) == 1 {
		return // there is nobody else
	}
	// If it fails the others elect a leader when the lease has run out.
	if err := g.replica.Transfer(ctx, 0); err != nil {
		g.node.log.Info("the lead of the cluster was not handed over", "err", err)
	}
}

// event follows what raft says of the cluster's group.
func (g *clusterGroup) event(e replica.Event) {
	switch e.Kind {
	case replica.LeaderReady:
		g.leads.Store(true)
		g.node.log.Info("this node leads the cluster now", "term", e.Term)
	case replica.LeaderLost:
		g.leads.Store(false)
		g.mu.Lock()
		for id, c := range g.waiting {
			close(c)
			delete(g.waiting, id)
		}
		g.mu.Unlock()
	}
	g.changes.signal()
}

// applied is called for each entry that was applied.
func (g *clusterGroup) applied(index uint64, entry, reply []byte) {
	var cmd struct {
		ID string `json:"id"`
	}
	if json.Unmarshal(entry, &cmd) != nil || cmd.ID == "" {
		return
	}
	g.mu.Lock()
	c, ok := g.waiting[cmd.ID]
	delete(g.waiting, cmd.ID)
	g.mu.Unlock()
	if !ok {
		return
	}
	var r cluster.Result
	if err := json.Unmarshal(reply, &r); err != nil {
		close(c)
		return
	}
	r.Index = index
	c <- r
}

// errUnknownOutcome: the leader was lost while the command was on its way.
var errUnknownOutcome = errors.New("the cluster's leader was lost on the way: look whether the change took effect (`holdfast events`) before trying again")

// propose executes a command, on the leader.
func (g *clusterGroup) propose(ctx context.Context, cmd cluster.Command) (cluster.Result, error) {
	cmd.Time, cmd.ID = time.Now().UTC().Round(time.Millisecond), randomID(g.node.clock)
	entry, err := cmd.Encode()
	if err != nil {
		return cluster.Result{}, err
	}
	c := make(chan cluster.Result, 1)
	g.mu.Lock()
	g.waiting[cmd.ID] = c
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		delete(g.waiting, cmd.ID)
		g.mu.Unlock()
	}()
	if err := g.replica.Propose(ctx, entry); err != nil {
		return cluster.Result{}, err
	}
	select {
	case r, ok := <-c:
		if !ok {
			return cluster.Result{}, errUnknownOutcome
		}
		return r, nil
	case <-ctx.Done():
		return cluster.Result{}, fmt.Errorf("%w (%w)", errUnknownOutcome, context.Cause(ctx))
	}
}

const (
	// leaderPatience is how long a command waits for a leader of the cluster.
	leaderPatience = 10 * time.Second
	leaderPoll     = 20 * time.Millisecond
)

// do executes a command wherever the leader is, and returns when this node has applied it.
func (g *clusterGroup) do(ctx context.Context, by string, cmd cluster.Command) (cluster.Result, error) {
	limited, cancel := context.WithTimeout(ctx, leaderPatience)
	defer cancel()
	cmd.By = by
	for {
		changed := g.changes.wait()
		r, err := g.try(limited, by, cmd)
		var refused *api.Error
		var unreached *unreachedError
		switch {
		case err == nil:
			return r, g.awaitIndex(limited, r.Index)
		case errors.Is(err, replica.ErrNotLeader), errors.Is(err, replica.ErrTransferring):
		case errors.As(err, &unreached): // there will be another leader
		case errors.As(err, &refused) && refused.Status == http.StatusServiceUnavailable:
		default:
			return r, err
		}
		t := time.NewTimer(leaderPoll)
		select {
		case <-changed:
		case <-t.C:
		case <-limited.Done():
			t.Stop()
			return r, api.Errorf(http.StatusServiceUnavailable,
				"the cluster has no leader: most of its %d nodes must be up and reach each other before anything can be configured. Volumes whose own nodes are up are served meanwhile", len(g.state().Nodes))
		}
		t.Stop()
	}
}

// try executes a command here, if this node leads, or at the leader.
func (g *clusterGroup) try(ctx context.Context, by string, cmd cluster.Command) (cluster.Result, error) {
	if g.state().ID == "" {
		return cluster.Result{}, replica.ErrNotLeader // the cluster is just being made, or this node has just joined
	}
	if g.leads.Load() {
		return g.propose(ctx, cmd)
	}
	leader := g.leader()
	if leader == 0 || leader == g.node.id.Node {
		return cluster.Result{}, replica.ErrNotLeader
	}
	c, err := g.node.peers.client(leader, by)
	if err != nil {
		return cluster.Result{}, replica.ErrNotLeader
	}
	return c.Do(ctx, cmd)
}

// made returns the state once there is one: a cluster that is being made, or a node that has just joined, has none for a moment.
func (g *clusterGroup) made(ctx context.Context) (*cluster.State, error) {
	limited, cancel := context.WithTimeout(ctx, leaderPatience)
	defer cancel()
	for {
		changed := g.changes.wait()
		if s := g.state(); s.ID != "" {
			return s, nil
		}
		select {
		case <-changed:
		case <-limited.Done():
			return nil, api.Errorf(http.StatusServiceUnavailable, "this node does not know the cluster yet: it must reach most of the other nodes; try again in a moment")
		}
	}
}

// leader returns the number of the node that leads the cluster, or 0.
func (g *clusterGroup) leader() uint64 { return g.replica.Status().Leader }

// awaitIndex waits until this node has applied an entry.
func (g *clusterGroup) awaitIndex(ctx context.Context, index uint64) error {
	for {
		changed := g.changes.wait()
		if g.machine.Applied() >= index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil // it took effect, which is what counts; this node is late
		}
	}
}

// changes lets goroutines wait for the next change of something.
type changes struct {
	mu      sync.Mutex
	changed chan struct{}
}

func newChanges() *changes { return &changes{changed: make(chan struct{})} }

// wait returns a channel that is closed at the next change.
func (c *changes) wait() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

func (c *changes) signal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.changed)
	c.changed = make(chan struct{})
}
