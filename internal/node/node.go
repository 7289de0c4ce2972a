package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/address"
	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/config"
	"holdfast/internal/identity"
	"holdfast/internal/join"
	"holdfast/internal/link"
	"holdfast/internal/portmap"
	"holdfast/internal/replica/transport"
	"holdfast/internal/systemd"
)

// handOverTimeout bounds how long a node that is told to stop tries to hand over what it leads.
const handOverTimeout = 3 * time.Second

// Node is one running node.
type Node struct {
	local   *config.Local
	id      *identity.Identity
	release string
	log     *slog.Logger
	started time.Time
	tuning  tuning

	creds     *identity.Credentials
	mux       *link.Mux
	dialer    *link.Dialer
	transport *transport.Transport
	begun     *begun
	cluster   *clusterGroup
	peers     *peerClients
	ports     *portmap.Server
	clock     systemClock
	// now reads the wall clock, by which certificates end and which the status tells.
	now func() time.Time

	ctx  context.Context // ends with the node's work
	work sync.WaitGroup  // the node's own goroutines

	mu     sync.Mutex
	groups map[uint32]group // the volumes that this node keeps a part of; nil once it stops
	// broken is why parts of volumes could not be opened, cramped why there is not enough room to begin them.
	broken  map[uint32]error
	cramped map[uint32]string
	short   shortages // copies that did not fit

	emptying atomic.Bool // the trash is being deleted
	// hosts are the addresses of the other nodes that are given by name, as they were resolved last.
	hosts atomic.Pointer[map[string][]netip.Addr]

	// visits are the node ports of volumes that this node keeps no part of, by the volumes' numbers. They are reconcile's.
	visits map[uint32]*visit

	// fatal receives the first failure that a node must not survive.
	fatal chan error
}

// group is this node's part in a volume: a copy with its service, or a witness.
type group interface {
	start()
	// configure follows a change of the volume's configuration.
	configure(v *cluster.Volume)
	// handOver gives the leadership up, if it is here.
	handOver(ctx context.Context)
	close() error
	raft() member
	id() uint32
}

// tuning are sizes that only tests have a reason to change. Zero values stand for the defaults.
type tuning struct {
	segmentBytes    int64 // of the log; the configuration's
	checkpointBytes int64 // replica.Config's, as the next two
	retainBytes     int64
	retainMaxBytes  int64
	// space stands for the size of the data folder's disk, and what is free on it.
	space func(data string) (free, total uint64, err error)
	// now stands for the node's wall clock, by which certificates end and which the status tells.
	now func(data string) time.Time
}

// Run runs the node until ctx ends, then hands over what it leads and stops. It returns an error if the node cannot go on: the process must exit then, as nothing is known of
// data that a failed disk was given.
func Run(ctx context.Context, local *config.Local, release string, log *slog.Logger) error {
	return run(ctx, local, release, log, tuning{})
}

func run(ctx context.Context, local *config.Local, release string, log *slog.Logger, t tuning) error {
	n := &Node{
		local: local, release: release, log: log, started: time.Now(), tuning: t,
		groups: make(map[uint32]group), visits: make(map[uint32]*visit), broken: make(map[uint32]error), cramped: make(map[uint32]string), fatal: make(chan error, 1),
		now: time.Now,
	}
	if t.now != nil {
		n.now = func() time.Time { return t.now(local.Data) }
	}
	var err error
	switch n.id, err = identity.Load(identity.Dir(local.Data)); {
	case errors.Is(err, identity.ErrNone):
		return fmt.Errorf("%w (its data would be in %s; if there was a node, is that the right folder, and is its disk mounted?)", err, local.Data)
	case err != nil:
		return err
	}
	unlock, err := lockData(local.Data)
	if err != nil {
		return err
	}
	defer unlock()
	if err := n.makeRoom(); err != nil {
		return err
	}
	// The services outlive ctx for as long as handing over takes.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	n.ctx = work
	defer n.work.Wait()
	defer stop()
	if err := n.open(); err != nil {
		stop()
		return errors.Join(err, n.close())
	}
	if err := n.serve(); err != nil {
		stop()
		return errors.Join(err, n.close())
	}
	log.Info("node started", "node", n.id.Name, "number", n.id.Node, "cluster", n.id.ClusterName, "data", local.Data, "release", release)
	n.notify(systemd.Ready)
	select {
	case <-ctx.Done():
		log.Info("node stops")
		n.notify(systemd.Stopping)
		n.handOver()
		stop()
		return n.close()
	case err := <-n.fatal:
		// Nothing is closed: the state must stay as the failure left it, and the process is about to end.
		return err
	}
}

// open makes the node's port, the transport and the cluster's own group, whose state says what else there is.
func (n *Node) open() error {
	var err error
	if n.creds, err = n.id.Credentials(); err != nil {
		return err
	}
	n.creds.Now = n.now
	n.dialer = &link.Dialer{Creds: n.creds}
	n.peers = newPeerClients(n)
	n.ports = portmap.New(portmap.Config{Log: n.log})
	if n.begun, err = loadBegun(n.local.Data); err != nil {
		return err
	}
	hints, err := join.LoadHints(n.local.Data)
	if err != nil {
		return err
	}
	if n.cluster, err = openCluster(n); err != nil {
		return fmt.Errorf("this node's part of the cluster's own group cannot be opened: %w. If its disk cannot be mended, replace the node: `holdfast node replace %s` on another", err, n.id.Name)
	}
	if n.begun.missing && n.cluster.begun() {
		return n.begun.errMissing()
	}
	n.creds.Revoked = func(p identity.Peer) bool { return n.cluster.state().IsRevoked(p.Node, p.Serial) }
	ln, err := listenPeers(n.ctx, n.local.Listen)
	if err != nil {
		return err
	}
	n.mux = link.Listen(ln, n.creds, link.Options{Logger: n.log})
	n.transport, err = transport.New(transport.Config{ID: n.id.Node, Peers: n.without(hints.Peers), Dial: n.dialRaft, Logger: n.log}, n.mux.Listener(link.ProtoRaft))
	if err != nil {
		return fmt.Errorf("open the node's port: %w", err)
	}
	if err := n.cluster.join(hints); err != nil {
		return fmt.Errorf("the cluster's own group: %w", err)
	}
	return nil
}

// serve sets everything to work.
func (n *Node) serve() error {
	socket, err := api.Listen(n.local.Data)
	if err != nil {
		return err
	}
	n.work.Go(func() { n.fail(api.Serve(n.ctx, socket, n, api.LocalUser, n.log)) })
	remote := n.mux.Listener(link.ProtoAPI)
	n.work.Go(func() { n.fail(api.Serve(n.ctx, remote, n, n.caller, n.log)) })
	n.serveJoins()
	if err := n.serveHealth(); err != nil {
		return err
	}
	n.serveForwarded()
	// What this node knows of the cluster from before it stopped, so that its volumes need not wait for the cluster's leader.
	if err := n.reconcile(); err != nil {
		return err
	}
	n.work.Go(func() { n.fail(n.mux.Serve(n.ctx)) })
	n.cluster.start()
	n.work.Go(n.follow)
	n.work.Go(n.upkeep)
	n.work.Go(func() { n.fail(n.ports.Run(n.ctx)) })
	n.work.Go(func() { n.cluster.govern(n.ctx) })
	n.work.Go(func() { systemd.Run(n.ctx, n.log, n.alive) })
	return nil
}

// caller is who uses the API by the node's port.
func (n *Node) caller(conn net.Conn) api.Caller {
	c, ok := conn.(*link.Conn)
	if !ok {
		return api.Caller{Name: "unknown"}
	}
	p := c.Peer()
	return api.Caller{Name: p.String(), Node: p.Node}
}

// dialRaft connects to another node for the raft groups.
func (n *Node) dialRaft(ctx context.Context, node uint64, addr string) (*link.Conn, error) {
	return n.dialer.Dial(ctx, addr, node, link.ProtoRaft)
}

// without returns addresses without this node's own.
func (n *Node) without(peers map[uint64]string) map[uint64]string {
	delete(peers, n.id.Node)
	return peers
}

// listenPeers opens the port that the other nodes connect to.
func listenPeers(ctx context.Context, addr string) (net.Listener, error) {
	lc := net.ListenConfig{Control: address.ReuseAddr}
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for the other nodes on %s (`listen` in the node's file): %w", addr, err)
	}
	return ln, nil
}

// fail reports a failure that ends the node.
func (n *Node) fail(err error) {
	if err == nil {
		return
	}
	select {
	case n.fatal <- err:
	default: // one is enough
	}
}

// notify tells the service manager.
func (n *Node) notify(states ...string) {
	if err := systemd.Notify(states...); err != nil {
		n.log.Warn("the service manager could not be told", "err", err)
	}
}

// aliveTimeout is how long the parts of a node that must never stand still may take to answer the watchdog.
const aliveTimeout = 5 * time.Second

// alive reports whether the groups' loops still turn.
func (n *Node) alive() error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.cluster.replica.Status()
		for _, g := range n.allGroups() {
			g.raft().Status()
		}
	}()
	select {
	case <-done:
		return nil
	case <-time.After(aliveTimeout):
		return fmt.Errorf("the node's raft groups did not answer for %v", aliveTimeout)
	}
}

// allGroups returns this node's parts in volumes.
func (n *Node) allGroups() []group {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := make([]group, 0, len(n.groups))
	for _, g := range n.groups {
		all = append(all, g)
	}
	return all
}

// services returns the copies of volumes on this node.
func (n *Node) services() []*service {
	var all []*service
	for _, g := range n.allGroups() {
		if s, ok := g.(*service); ok {
			all = append(all, s)
		}
	}
	return all
}

// handOver transfers the leadership of every group that this node leads.
func (n *Node) handOver() {
	ctx, cancel := context.WithTimeout(context.Background(), handOverTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, g := range n.allGroups() {
		wg.Go(func() { g.handOver(ctx) })
	}
	wg.Go(func() { n.cluster.handOver(ctx) })
	wg.Wait()
}

func (n *Node) close() error {
	var errs []error
	n.mu.Lock()
	groups := n.groups
	n.groups = nil // reconcile starts nothing from here on
	n.mu.Unlock()
	for _, g := range groups {
		errs = append(errs, g.close())
	}
	if n.cluster != nil {
		errs = append(errs, n.cluster.close())
	}
	if n.transport != nil {
		if err := n.transport.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if n.mux != nil {
		// It has closed already if it served until now.
		if err := n.mux.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if n.peers != nil {
		n.peers.close()
	}
	return errors.Join(errs...)
}

// lockData makes sure that no other process uses the data folder. The kernel drops the lock when the process ends, however it ends.
func lockData(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the data folder's lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("the data folder %s is in use by another holdfast process: stop that one first, or give this node a folder of its own (%w)", dir, err)
	}
	return func() { f.Close() }, nil
}

// randomID draws a number that nobody else has.
func randomID(clock systemClock) string {
	return strconv.FormatUint(clock.Random(), 36)
}
