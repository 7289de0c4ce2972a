package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"holdfast/internal/address"
	"holdfast/internal/config"
	"holdfast/internal/forward"
)

// listenRetry is how soon a listener is tried again whose address another process still holds.
const listenRetry = 5 * time.Millisecond

// door is where a volume's clients come in at this node: the address that follows the leader with its listener, or the listener that the leader opens, and the
// node's own port, which forwards to the leader. Its methods are called under service.turn, close excepted.
type door struct {
	s *service

	// address holds the address that moves, nil for the kind listen. It changes under mu, too, for trouble.
	address *address.Manager
	// stopListening ends the listener of an address that moves: it is there before the address, and until nobody can be refused any more, as no connection may end before.
	listening     context.Context
	stopListening context.CancelFunc
	// stopOpen ends the listener that the leader of a volume of the kind listen has opened.
	stopOpen     context.CancelFunc
	stopNodePort context.CancelFunc
	// stopTrying ends the attempts to take an address that could not be taken at once, and returns when they have ended.
	stopTrying func()
	work       sync.WaitGroup

	mu      sync.Mutex
	problem string // why the address is not here although it should be
}

func newDoor(s *service) *door { return &door{s: s} }

// prepare makes ready what spec says, and takes away what an earlier process may have left of the address.
func (d *door) prepare(spec *config.VolumeSpec) error {
	if _, moves := addressOf(spec); !moves {
		return nil
	}
	m, err := d.s.newManager(spec)
	if err != nil {
		return err
	}
	d.setAddress(m)
	if err := m.Release(); err != nil {
		// It may be mended while the node runs, and other nodes may do better.
		d.setProblem(err)
		d.s.log.Error("this node cannot hold the volume's address", "err", err)
	}
	return nil
}

// start opens the listener of an address that moves: it is there before the address is, so that a client that follows the address is never refused.
func (d *door) start() {
	spec := d.s.spec.Load()
	d.listenFor(spec)
	d.openNodePort(spec)
}

func (d *door) listenFor(spec *config.VolumeSpec) {
	if d.address == nil {
		return
	}
	d.listening, d.stopListening = context.WithCancel(context.WithoutCancel(d.s.ctx))
	ctx := d.listening
	d.work.Go(func() { d.listen(ctx, spec.Listen) })
}

// openNodePort serves the volume at this node's own address.
func (d *door) openNodePort(spec *config.VolumeSpec) {
	if spec.NodePort == 0 {
		return
	}
	s := d.s
	ctx, cancel := context.WithCancel(s.ctx)
	d.stopNodePort = cancel
	port := nodePort{volume: s.number, name: s.name, port: spec.NodePort, target: s.target, serve: s.server.ServeConn}
	d.work.Go(func() { s.node.serveNodePort(ctx, port) })
}

// target says where clients of this volume are served.
func (s *service) target() forward.Target {
	node, changed := s.leader.get()
	if node == s.node.id.Node {
		return forward.Target{Local: s.isServing(), Changed: changed}
	}
	return forward.Target{Node: node, Changed: changed}
}

// open lets clients in: this node leads. ctx ends when it does not any more.
func (d *door) open(ctx context.Context) {
	if ctx == nil {
		return
	}
	s := d.s
	if d.address == nil {
		listen := s.spec.Load().Listen
		ctx, d.stopOpen = context.WithCancel(ctx)
		s.leading.Go(func() { d.listen(ctx, listen) })
		return
	}
	d.takeAddress(ctx)
}

// regain takes the address again after an interruption of the lease.
func (d *door) regain(ctx context.Context) {
	if d.address != nil && ctx != nil {
		d.takeAddress(ctx)
	}
}

// addressRetry is how soon it is tried again to take an address that another machine holds.
const addressRetry = time.Second

// takeAddress brings the volume's address here, and wakes the clients that were connected to the last leader.
func (d *door) takeAddress(ctx context.Context) {
	s := d.s
	if !s.replica.Serving() {
		// The lease is gone already. If it comes back this is called again.
		return
	}
	d.endTrying()
	m, port := d.address, s.spec.Load().MountAddr().Port()
	if err := d.tryAddress(ctx, m, port); err != nil {
		s.log.Error("the address could not be taken: clients do not reach this node; trying on", "err", err)
		trying, stop := context.WithCancel(ctx)
		ended := make(chan struct{})
		d.stopTrying = func() { stop(); <-ended }
		s.leading.Go(func() {
			defer close(ended)
			defer stop()
			for err != nil {
				pause(trying, addressRetry)
				if trying.Err() != nil {
					return
				}
				if s.replica.Serving() {
					err = d.tryAddress(ctx, m, port) // it is kept as long as this node leads
				}
			}
		})
	}
}

// endTrying ends the attempts to take the address: it is another one now, or is tried anew.
func (d *door) endTrying() {
	if d.stopTrying != nil {
		d.stopTrying()
		d.stopTrying = nil
	}
}

func (d *door) tryAddress(ctx context.Context, m *address.Manager, port uint16) error {
	err := m.Acquire(ctx)
	d.setProblem(err)
	if err != nil {
		return err
	}
	if err := m.Tickle(port, d.s.volume.Clients()); err != nil {
		d.s.log.Warn("not all clients could be tickled; they reconnect when they retransmit", "err", err)
	}
	return nil
}

// probe asks who has the address, so that the answer is there if this node is about to take it.
func (d *door) probe() {
	if d.address != nil {
		d.address.Probe()
	}
}

func (d *door) setAddress(m *address.Manager) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.address = m
}

func (d *door) setProblem(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.problem = ""
	if err != nil {
		d.problem = err.Error()
	}
}

// trouble is why the address is not here although it should be. Anybody may ask.
func (d *door) trouble() string {
	d.mu.Lock()
	problem, m := d.problem, d.address
	d.mu.Unlock()
	if problem == "" && m != nil {
		now := m.Describe()
		if c := now.Conflict; c == nil && !now.Held && d.s.isServing() {
			return "it is about to be taken"
		} else if c != nil {
			return fmt.Sprintf("the machine with the link address %s has it too, last seen %s: find it in the network and take the address from it", c.MAC, c.Last.Format(time.TimeOnly))
		}
	}
	return problem
}

// shut gives the address up. Connections are the caller's to end, afterwards.
func (d *door) shut() {
	if d.address == nil {
		return
	}
	if err := d.address.Release(); err != nil {
		d.s.log.Error("the address could not be removed; the kernel does when its lifetime ends", "err", err)
	}
}

// change follows a change of the configuration. leading is the context of this node's leadership, nil if it does not lead.
func (d *door) change(old, spec *config.VolumeSpec, leading context.Context) {
	if old.NodePort != spec.NodePort {
		if d.stopNodePort != nil {
			d.stopNodePort()
			d.stopNodePort = nil
		}
		d.openNodePort(spec)
	}
	if old.Address == spec.Address && old.Listen == spec.Listen {
		return
	}
	d.s.log.Info("the volume has another address now; its clients have to mount that", "was", old.MountAddr(), "is", spec.MountAddr())
	d.endTrying()
	d.setProblem(nil)
	d.shut()
	for _, stop := range []*context.CancelFunc{&d.stopListening, &d.stopOpen} {
		if *stop != nil {
			(*stop)()
			*stop = nil
		}
	}
	if d.address != nil {
		if err := d.address.Close(); err != nil {
			d.s.log.Warn("the former address was not given up in order", "err", err)
		}
		d.setAddress(nil)
	}
	d.s.server.CloseConns(true)
	if err := d.prepare(spec); err != nil {
		d.setProblem(err)
		d.s.log.Error("this node cannot hold the volume's new address", "err", err)
		return
	}
	d.listenFor(spec)
	d.open(leading)
}

// close ends everything.
func (d *door) close() error {
	var errs []error
	if d.address != nil {
		errs = append(errs, d.address.Close())
	}
	if d.stopListening != nil {
		d.stopListening()
	}
	if d.stopNodePort != nil {
		d.stopNodePort()
	}
	d.work.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("give the address up: %w", err)
	}
	return nil
}

// listen serves clients until ctx ends. The last leader's process may hold the port for a moment longer.
func (d *door) listen(ctx context.Context, addr string) {
	s := d.s
	lc := net.ListenConfig{Control: address.ReuseAddr}
	complained := false
	for ctx.Err() == nil {
		ln, err := lc.Listen(ctx, "tcp", addr)
		if err == nil {
			err = s.server.Serve(ctx, ln)
		}
		if err != nil && ctx.Err() == nil && !complained {
			complained = true
			s.log.Warn("cannot listen yet; trying on", "address", addr, "err", err)
		}
		pause(ctx, listenRetry)
	}
}
