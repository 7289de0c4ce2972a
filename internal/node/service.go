package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/internal/address"
	"holdfast/internal/api"
	"holdfast/internal/cluster"
	"holdfast/internal/config"
	"holdfast/internal/export"
	"holdfast/internal/gateway"
	"holdfast/internal/mount"
	"holdfast/internal/nfs3"
	"holdfast/internal/nfs4"
	"holdfast/internal/replica"
	"holdfast/internal/replica/transport"
	"holdfast/internal/rpc"
	"holdfast/internal/store"
	"holdfast/internal/vfs"
	"holdfast/internal/volume"
	"holdfast/internal/wal"
)

// tickInterval is how often a node looks at its free space, and a leader for clients whose lease has run out.
const tickInterval = time.Second

// service is one volume's copy at this node.
type service struct {
	node    *Node
	number  uint32
	name    string
	log     *slog.Logger
	clock   systemClock
	store   store.Store
	wal     *wal.Log
	volume  *volume.Volume
	nfs4    *nfs4.Program
	group   *transport.Group
	replica member
	gate    *gateway.Gateway
	server  *rpc.Server
	exports *export.Table
	door    *door
	phases  *phases
	full    atomic.Bool // a replica is below its reserve
	digests digests
	damage  *damage
	leader  leaderState
	// changing is the change of members that was begun last; only govern uses it.
	changing  *memberChange
	held      hold                   // requests that mutate, while copies are compared
	checking  atomic.Pointer[string] // how far a comparison of the copies is
	placement atomic.Pointer[cluster.Placement]
	progress  progress
	cramped   cramped     // the members that have no room, on the leader
	unfit     atomic.Bool // this copy did not fit: the service is about to be opened anew
	scarce    scarcity
	dir       string

	// spec is what is configured; it is replaced as a whole.
	spec atomic.Pointer[config.VolumeSpec]
	// kicked is signalled when what the leader has to publish may have changed.
	kicked chan struct{}

	ctx  context.Context // ends with the service
	stop context.CancelFunc

	work     sync.WaitGroup // the service's goroutines
	requests sync.WaitGroup // those of requests that only read

	// turn keeps what raft says and what is configured from being followed at the same time. It guards what follows.
	turn        sync.Mutex
	leadCtx     context.Context // while this node leads
	stopLeading context.CancelFunc
	leading     *sync.WaitGroup
}

// headroomRules is for how many exports a request's buffer has room to say what the client may do; with more of them the request is copied once.
const headroomRules = 16

// newService opens a volume's state on this node. Nothing is served before start.
func newService(ctx context.Context, n *Node, v *cluster.Volume) (_ *service, err error) {
	s := &service{
		node: n, number: v.ID, name: v.Spec.Name, log: n.log.With("volume", v.Spec.Name), phases: newPhases(), kicked: make(chan struct{}, 1),
	}
	s.spec.Store(&v.Spec)
	s.ctx, s.stop = context.WithCancel(ctx)
	s.door = newDoor(s)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	dir := n.volumeDir(v)
	if err := n.fetchRestored(v, dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make its folder: %w", err)
	}
	s.dir = dir
	if err := n.discardPartial(dir); err != nil {
		return nil, err
	}
	if err := s.openDamage(dir); err != nil {
		return nil, err
	}
	s.exports = export.NewTable(net.DefaultResolver)
	table, err := v.Spec.Table()
	if err != nil {
		return nil, err
	}
	if err := s.exports.Set(table); err != nil {
		return nil, err
	}
	if s.store, err = store.Open(filepath.Join(dir, storeDir), store.Options{Damaged: func(err error) { s.metDamage(err, false) }}); err != nil {
		return nil, fmt.Errorf("open its store: %w", err)
	}
	if s.wal, err = wal.Open(vfs.OS(), filepath.Join(dir, "log"), wal.Options{SegmentBytes: cmp.Or(n.tuning.segmentBytes, int64(n.local.LogSegment))}); err != nil {
		return nil, fmt.Errorf("open its log: %w", err)
	}
	nfs, programs := newPrograms(v.Handle, s.name)
	s.nfs4 = nfs
	s.volume, err = volume.Open(volume.Config{ID: v.Handle, Name: s.name, Store: s.store, Programs: programs, Damaged: s.metDamage})
	if err != nil {
		return nil, err
	}
	s.volume.NoteAhead(s.wal.LastIndex())
	if err := n.beginRestored(v, s, dir); err != nil {
		return nil, err
	}
	if err := s.openReplica(dir, v); err != nil {
		return nil, err
	}
	if err := s.door.prepare(&v.Spec); err != nil {
		return nil, err
	}
	s.gate = gateway.New(gateway.Config{
		Volume: s.volume, Raft: raft{s}, NFS4: s.nfs4, Programs: programs, Clock: s.clock, Node: n.id.Node,
		Rules: s.exports.Rules, Full: s.full.Load,
	})
	s.server = rpc.NewServer(rpc.ServerConfig{
		Conn:     rpc.ConnConfig{Headroom: gateway.HeadroomBytes(headroomRules), Handler: s, Log: s.log},
		MaxConns: n.local.Limits.Connections, MaxInflightBytes: int(n.local.Limits.InflightBytes),
		Opened: s.connOpened, Closed: s.connClosed, Log: s.log,
	})
	return s, nil
}

// newPrograms makes the protocols that a volume speaks; handle is the number in its file handles.
func newPrograms(handle uint32, name string) (*nfs4.Program, []volume.Program) {
	p := nfs4.New(nfs4.Config{Volume: handle, Name: name})
	return p, []volume.Program{p, nfs3.New(handle), mount.New(handle)}
}

func (s *service) raft() member { return s.replica }
func (s *service) id() uint32   { return s.number }

// start sets the service to work.
func (s *service) start() {
	s.work.Go(func() { s.exports.Run(s.ctx) })
	s.work.Go(s.tick)
	s.work.Go(s.watchDamage)
	if s.damage.marked() {
		s.damage.signal()
	}
	s.door.start()
	s.replica.Start()
	s.sendReport()
}

// configure implements group.
func (s *service) configure(v *cluster.Volume) {
	old := s.spec.Load()
	if sameSpec(old, &v.Spec) {
		s.kick() // members may have changed
		return
	}
	s.log.Info("the volume is configured anew")
	table, err := v.Spec.Table()
	if err == nil {
		err = s.exports.Set(table)
	}
	if err != nil {
		// The cluster has checked it; an older release may know less.
		s.log.Error("the volume's exports cannot be used by this release: they stay as they were", "err", err)
	}
	spec := v.Spec
	s.spec.Store(&spec)
	s.turn.Lock()
	defer s.turn.Unlock()
	s.door.change(old, &spec, s.leadCtx)
	s.kick()
}

// sameSpec reports whether two configurations are the same.
func sameSpec(a, b *config.VolumeSpec) bool {
	return len(config.Diff(&config.Spec{Volumes: []config.VolumeSpec{*a}}, &config.Spec{Volumes: []config.VolumeSpec{*b}})) == 0
}

// kick wakes the leader's loop.
func (s *service) kick() {
	select {
	case s.kicked <- struct{}{}:
	default:
	}
}

// close ends the service. It is called for a service that was opened in part, too.
func (s *service) close() error {
	s.stop()
	var errs []error
	if s.replica.Replica != nil {
		errs = append(errs, s.replica.Close())
		s.turn.Lock()
		s.follow()
		s.turn.Unlock()
	}
	errs = append(errs, s.door.close())
	s.work.Wait()
	s.requests.Wait()
	if s.group != nil {
		s.group.Leave()
	}
	if s.volume != nil {
		if s.volume.Valid() {
			// So that the next start has little to repeat.
			_, err := s.volume.Checkpoint(context.Background())
			errs = append(errs, err)
		}
	}
	if s.wal != nil {
		errs = append(errs, s.wal.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	return errors.Join(errs...)
}

// handOver implements group.
func (s *service) handOver(ctx context.Context) {
	if !s.replica.Serving() {
		return
	}
	others := slices.ContainsFunc(s.replica.Voters(), func(id uint64) bool {
		node := transport.NodeOf(id)
		return node != s.node.id.Node && !replica.IsWitness(node)
	})
	if !others {
		s.log.Info("no other node has a copy of the volume: nobody serves it until this node is back")
		return
	}
	switch err := s.replica.Transfer(ctx, 0); {
	case err == nil:
	case errors.Is(err, replica.ErrNoSuccessor):
		s.log.Warn("nobody could take the volume over before stopping: clients wait until most of its nodes are up and one of them has the newest data", "err", err)
	default:
		s.log.Warn("could not hand the volume over before stopping; another node takes it over when the lease has run out", "err", err)
	}
}

// event follows what raft says of this replica. It is called by one goroutine.
func (s *service) event(e replica.Event) {
	s.turn.Lock()
	defer s.turn.Unlock()
	switch e.Kind {
	case replica.LeaderReady:
		s.lead(e.Term)
	case replica.LeaderLost:
		s.follow()
	case replica.LeaseLapsed:
		s.log.Warn("the lease ran out: too few nodes answer; clients wait", "term", e.Term)
		s.phases.set(pausing)
	case replica.LeaseRegained:
		s.log.Info("the lease is back", "term", e.Term)
		s.phases.set(serving)
		s.leader.announce(s.node.id.Node)
		// The address may have been given up meanwhile, or be about to be.
		s.door.regain(s.leadCtx)
	case replica.LeaderChanged:
		leader := transport.NodeOf(e.Leader)
		s.log.Info("leader", "node", s.node.nodeName(leader), "term", e.Term)
		s.leader.set(leader)
		if leader == 0 {
			s.door.probe() // there is going to be another leader, perhaps this node
		}
	}
	s.node.cluster.changes.signal()
}

// lead begins to serve: this node leads, holds the lease, and has applied all that its predecessors acknowledged.
func (s *service) lead(term uint64) {
	// Before anybody can ask: a client that mounts a new export must not hear that there is none.
	if err := s.publishExports(term); err != nil {
		if !s.leads(term) {
			return
		}
		s.log.Warn("the exports could not be published; it is tried again", "err", err)
	}
	s.full.Store(false) // says how it was when this node led before; the next look is soon
	front := s.gate.Lead(term)
	ctx, cancel := context.WithCancel(s.ctx)
	s.leadCtx, s.stopLeading, s.leading = ctx, cancel, new(sync.WaitGroup)
	s.phases.set(serving)
	s.leader.announce(s.node.id.Node)
	s.leading.Go(func() { front.Run(ctx) })
	s.leading.Go(func() { s.govern(ctx, term) })
	s.leading.Go(func() { s.noteTakeover(ctx, s.leader.former()) })
	s.door.open(ctx)
	s.log.Info("this node serves the volume now", "term", term, "address", s.spec.Load().MountAddr().String())
}

// leads reports whether this node leads in that term, with the lease or without.
func (s *service) leads(term uint64) bool {
	st := s.replica.Status()
	return st.Role == replica.RoleLeader && st.Term == term
}

// follow ends serving. When it returns no client is connected and the address is given up.
func (s *service) follow() {
	s.phases.set(following)
	if s.stopLeading == nil {
		return
	}
	s.stopLeading()
	s.gate.Follow()
	s.door.shut()
	s.server.CloseConns(true)
	s.leading.Wait()
	s.stopLeading, s.leadCtx = nil, nil
	s.log.Info("this node no longer serves the volume")
}

// connOpened prepares a client's connection before its first request.
func (s *service) connOpened(c *rpc.Conn) {
	c.SetValue(&clientConn{Conn: c})
	if phase, _ := s.phases.get(); phase == following {
		// Only the leader serves. The address may have been here a moment ago.
		c.Reset()
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, nameTimeout)
	defer cancel()
	// Without an answer the rules that need the client's name do not apply to it yet.
	_ = s.exports.Prepare(ctx, c.RemoteAddr().Addr())
	s.noteClient(c, 1)
}

// nameTimeout bounds how long a new connection waits for the client's name, where an export's rules ask for it.
const nameTimeout = 2 * time.Second

func (s *service) connClosed(c *rpc.Conn, _ error) {
	s.gate.ConnClosed(connOf(c))
	s.noteClient(c, 0)
}

// noteClient tells the replicated state of a connection that came or went, so that the next leader can tickle its client.
func (s *service) noteClient(c *rpc.Conn, open byte) {
	// Connections to a node's own address end with that node.
	if ip, moves := addressOf(s.spec.Load()); !moves || c.LocalAddr().Addr() != ip.Addr() {
		return
	}
	// If this fails the node no longer leads, and the connection is reset anyway.
	_ = s.gate.Command(volume.EntryClient, c.RemoteAddr(), []byte{open})
}

// tick does the periodic work.
func (s *service) tick() {
	t := time.NewTicker(tickInterval)
	defer t.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-t.C:
			s.gate.Tick()
			s.watchSpace()
			if s.replica.Serving() {
				s.publishSpace()
			}
		}
	}
}

// isServing reports whether this node answers clients.
func (s *service) isServing() bool {
	phase, _ := s.phases.get()
	return phase == serving && s.replica.Serving()
}

// clients lists the NFSv4 clients.
func (s *service) clients() []api.ClientStatus {
	var out []api.ClientStatus
	for _, c := range s.nfs4.Clients(s.volume) {
		out = append(out, api.ClientStatus{
			ID: fmt.Sprintf("%016x", uint64(c.ID)), Owner: c.Owner, Address: c.Addr, Sessions: len(c.Sessions), Opens: c.Opens, Locks: c.Locks,
		})
	}
	return out
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// leaderState is who leads a volume as far as this node knows, for those who forward clients to it.
type leaderState struct {
	mu      sync.Mutex
	node    uint64
	before  uint64        // who was the last leader before; 0 if none is known
	changed chan struct{} // closed at the next change
}

// get returns the leader, 0 if none is known, and a channel that is closed when that changes.
func (l *leaderState) get() (uint64, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.node, l.changed
}

// former returns who led before the leader, 0 if nobody is known.
func (l *leaderState) former() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.before
}

func (l *leaderState) set(node uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.node != node {
		l.change(node)
	}
}

// announce says that a node serves now, which wakes those who wait for that although it was known to lead.
func (l *leaderState) announce(node uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.change(node)
}

func (l *leaderState) change(node uint64) {
	if l.node != 0 && l.node != node {
		l.before = l.node
	}
	l.node = node
	if l.changed != nil {
		close(l.changed)
	}
	l.changed = make(chan struct{})
}

// addressOf is the volume's moving address, if it has one.
func addressOf(spec *config.VolumeSpec) (netip.Prefix, bool) {
	return netip.Prefix(spec.Address.IP), spec.Address.Kind == config.AddressIP
}

// newManager makes what holds the volume's address.
func (s *service) newManager(spec *config.VolumeSpec) (*address.Manager, error) {
	prefix, _ := addressOf(spec)
	m, err := address.New(address.Config{
		Prefix: prefix, Device: spec.Address.Device, Lifetime: time.Duration(spec.Address.Lifetime),
		MayHold: func() bool { return s.replica.Serving() }, Peers: s.node.peerAddresses, Logger: s.log,
	})
	if err != nil {
		return nil, fmt.Errorf("address: %w", err)
	}
	return m, nil
}
