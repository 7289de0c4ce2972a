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

// listenRetry is how soon a listener is tried again whose address another process still holds.
const listenRetry = 5 * time.Millisecond

// service is one volume at this node.
type service struct {
	node    *Node
	cfg     *config.Volume
	log     *slog.Logger
	clock   systemClock
	store   store.Store
	wal     *wal.Log
	volume  *volume.Volume
	nfs4    *nfs4.Program
	group   *transport.Group
	replica *replica.Replica
	gate    *gateway.Gateway
	server  *rpc.Server
	exports *export.Table
	address *address.Manager // nil for the kind listen
	phases  *phases
	full    atomic.Bool // a replica is below its reserve
	digests digests

	ctx  context.Context // ends with the service
	stop context.CancelFunc
	// listening ends only when the address is given up: until then nobody may be refused, and no connection may end.
	listening     context.Context
	stopListening context.CancelFunc
	work          sync.WaitGroup // the service's goroutines
	requests      sync.WaitGroup // those of requests that only read

	// While this node leads; touched by replica's event goroutine only.
	leadCtx     context.Context
	stopLeading context.CancelFunc
	leading     *sync.WaitGroup
}

// newService opens a volume's state on this node. Nothing is served before start.
func newService(ctx context.Context, n *Node, vc *config.Volume) (_ *service, err error) {
	s := &service{node: n, cfg: vc, log: n.log.With("volume", vc.Name), phases: newPhases()}
	s.ctx, s.stop = context.WithCancel(ctx)
	s.listening, s.stopListening = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	dir := filepath.Join(n.cfg.Data, "volumes", vc.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make its folder: %w", err)
	}
	s.exports = export.NewTable(net.DefaultResolver)
	if err := s.exports.Set(vc.Table()); err != nil {
		return nil, err
	}
	if s.store, err = store.Open(filepath.Join(dir, "store"), store.Options{}); err != nil {
		return nil, fmt.Errorf("open its store: %w", err)
	}
	if s.wal, err = wal.Open(vfs.OS(), filepath.Join(dir, "log"), wal.Options{SegmentBytes: cmp.Or(n.tuning.segmentBytes, int64(n.cfg.Log.Segment))}); err != nil {
		return nil, fmt.Errorf("open its log: %w", err)
	}
	s.nfs4 = nfs4.New(nfs4.Config{Volume: vc.ID, Name: vc.Name})
	programs := []volume.Program{s.nfs4, nfs3.New(vc.ID), mount.New(vc.ID)}
	s.volume, err = volume.Open(volume.Config{ID: vc.ID, Name: vc.Name, Store: s.store, Programs: programs})
	if err != nil {
		return nil, err
	}
	if err := s.openReplica(dir); err != nil {
		return nil, err
	}
	if err := s.openAddress(); err != nil {
		return nil, err
	}
	s.gate = gateway.New(gateway.Config{
		Volume: s.volume, Raft: raft{s}, NFS4: s.nfs4, Programs: programs, Clock: s.clock, Node: n.cfg.Self().ID,
		Rules: s.exports.Rules, Full: s.full.Load,
	})
	s.server = rpc.NewServer(rpc.ServerConfig{
		Conn:     rpc.ConnConfig{Headroom: gateway.HeadroomBytes(len(vc.Exports)), Handler: s, Log: s.log},
		MaxConns: n.cfg.Limits.Connections, MaxInflightBytes: int(n.cfg.Limits.InflightBytes),
		Opened: s.connOpened, Closed: s.connClosed, Log: s.log,
	})
	return s, nil
}

// openAddress prepares an address that moves, and takes away what an earlier process may have left of it.
func (s *service) openAddress() error {
	if s.cfg.Address.Kind != config.AddressIP {
		return nil
	}
	m, err := address.New(address.Config{
		Prefix: netip.Prefix(s.cfg.Address.IP), Device: s.cfg.Address.Device, Lifetime: time.Duration(s.cfg.Address.Lifetime),
		MayHold: func() bool { return s.replica.Serving() }, Logger: s.log,
	})
	if err != nil {
		return fmt.Errorf("address: %w", err)
	}
	if err := m.Release(); err != nil {
		return fmt.Errorf("address: %w", err)
	}
	s.address = m
	return nil
}

// start sets the service to work.
func (s *service) start() {
	s.work.Go(func() { s.exports.Run(s.ctx) })
	s.work.Go(s.tick)
	if s.cfg.Address.Kind == config.AddressIP {
		// The listener is there before the address is: a client that follows the address is never refused.
		s.work.Go(func() { s.listen(s.listening) })
	}
	s.replica.Start()
}

// close ends the service. It is called for a service that was opened in part, too.
func (s *service) close() error {
	s.stop()
	var errs []error
	if s.replica != nil {
		errs = append(errs, s.replica.Close())
		s.follow()
	}
	s.stopListening()
	s.work.Wait()
	s.requests.Wait()
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

// event follows what raft says of this replica. It is called by one goroutine.
func (s *service) event(e replica.Event) {
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
		if s.address != nil {
			// It may have been given up meanwhile, or be about to be.
			s.takeAddress(s.leadCtx)
		}
	case replica.LeaderChanged:
		s.log.Info("leader", "node", s.node.nodeName(e.Leader), "term", e.Term)
	}
}

// lead begins to serve: this node leads, holds the lease, and has applied all that its predecessors acknowledged.
func (s *service) lead(term uint64) {
	// Before anybody can ask: a client that mounts a new export must not hear that there is none.
	if err := s.publishExports(term); err != nil {
		if !s.leads(term) {
			return
		}
		s.log.Warn("the exports could not be published; the next leader does it", "err", err)
	}
	front := s.gate.Lead()
	ctx, cancel := context.WithCancel(s.ctx)
	s.leadCtx, s.stopLeading, s.leading = ctx, cancel, new(sync.WaitGroup)
	s.phases.set(serving)
	s.leading.Go(func() { front.Run(ctx) })
	if s.address == nil {
		s.leading.Go(func() { s.listen(ctx) })
	} else {
		s.takeAddress(ctx)
	}
	s.log.Info("this node serves the volume now", "term", term, "address", s.cfg.MountAddr().String())
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
	if s.address != nil {
		if err := s.address.Release(); err != nil {
			s.log.Error("the address could not be removed; the kernel does when its lifetime ends", "err", err)
		}
	}
	s.server.CloseConns(true)
	s.leading.Wait()
	s.stopLeading = nil
	s.log.Info("this node no longer serves the volume")
}

// takeAddress brings the volume's address here, and wakes the clients that were connected to the last leader.
func (s *service) takeAddress(ctx context.Context) {
	if !s.replica.Serving() {
		// The lease is gone already. If it comes back this is called again.
		return
	}
	if err := s.address.Acquire(ctx); err != nil {
		s.log.Error("the address could not be taken: clients do not reach this node", "err", err)
		return
	}
	if err := s.address.Tickle(s.cfg.MountAddr().Port(), s.volume.Clients()); err != nil {
		s.log.Warn("not all clients could be tickled; they reconnect when they retransmit", "err", err)
	}
}

// listen serves clients on the volume's address until ctx ends. The last leader's process may hold the port for a moment longer.
func (s *service) listen(ctx context.Context) {
	lc := net.ListenConfig{Control: address.ReuseAddr}
	complained := false
	for ctx.Err() == nil {
		ln, err := lc.Listen(ctx, "tcp", s.cfg.Listen)
		if err == nil {
			err = s.server.Serve(ctx, ln)
		}
		if err != nil && ctx.Err() == nil && !complained {
			complained = true
			s.log.Warn("cannot listen yet; trying on", "address", s.cfg.Listen, "err", err)
		}
		pause(ctx, listenRetry)
	}
}

const (
	// publishTimeout is how long a new leader waits for its export table, and publishPoll how often it looks. Usually the table is as it should be.
	publishTimeout = 5 * time.Second
	publishPoll    = time.Millisecond
)

// publishExports makes the replicated export table say what the configuration says, and waits until it does or this node leads no more.
func (s *service) publishExports(term uint64) error {
	var want []volume.ExportSpec
	for _, e := range s.exports.Exports() {
		want = append(want, volume.ExportSpec{Path: e.Path, UID: e.UID, GID: e.GID, Mode: e.Mode})
	}
	slices.SortFunc(want, func(a, b volume.ExportSpec) int { return cmp.Compare(a.Path, b.Path) })
	if s.published(want) {
		return nil
	}
	limited, cancel := context.WithTimeout(s.ctx, publishTimeout)
	defer cancel()
	for proposed := false; ; {
		if !proposed {
			// It fails while the lease is interrupted.
			err := s.gate.Command(volume.EntryExports, netip.AddrPort{}, volume.EncodeExports(want))
			if err != nil && !errors.Is(err, gateway.ErrNotServing) {
				return fmt.Errorf("propose the export table: %w", err)
			}
			proposed = err == nil
		}
		pause(limited, publishPoll)
		switch {
		case s.published(want):
			return nil
		case limited.Err() != nil:
			return fmt.Errorf("wait for the export table: %w", limited.Err())
		case !s.leads(term):
			return fmt.Errorf("publish the export table: %w", gateway.ErrNotServing)
		}
	}
}

// published reports whether the replicated export table has the paths of want, which are sorted.
func (s *service) published(want []volume.ExportSpec) bool {
	var paths []string
	for _, e := range s.volume.Exports() {
		paths = append(paths, e.Path)
	}
	slices.Sort(paths)
	return slices.EqualFunc(want, paths, func(w volume.ExportSpec, p string) bool { return w.Path == p })
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
	if s.address == nil {
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
