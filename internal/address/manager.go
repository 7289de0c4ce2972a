package address

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

const (
	// DefaultLifetime is how long the kernel keeps an address that is not renewed. It must outlast a pause of the daemon
	// that is no reason to fail over, and bounds how long the kernel of a hung node claims the address.
	DefaultLifetime = 3 * time.Second
	// MinLifetime is the kernel's resolution.
	MinLifetime = time.Second
	// renewals per lifetime, so that two in a row may fail.
	renewals = 3
)

// announceAfter is when, after the address was added, it is announced again, in case that an announcement was lost or a
// switch was not yet ready for it. Clients are tickled again at the same times.
var announceAfter = []time.Duration{50 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second}

// Config describes an address that moves.
type Config struct {
	// Prefix is the address, and the length of its network's prefix.
	Prefix netip.Prefix
	// Device is the interface whose neighbours are to reach it; if empty, the one that has an address in the same network, or a route to it.
	Device string
	// Lifetime is how long the kernel keeps the address when it is not renewed, in whole seconds; DefaultLifetime if zero.
	Lifetime time.Duration
	// MayHold tells whether this node still is the one to hold the address: whether it leads, and under a lease. It is
	// asked before every renewal, because a process that was stopped for a while does not know what it missed.
	MayHold func() bool
	// Peers returns the IP addresses of the cluster's other nodes, to tell a node from a stranger who has the address: nodes are asked for
	// their link addresses on the same interface. If nil, nobody is asked who has the address before it is taken. It is called with each
	// Probe, Acquire and suspicion and must not wait.
	Peers func() []netip.Addr
	// Logger gets what goes wrong in the background; the default one if nil.
	Logger *slog.Logger
}

// Manager adds, keeps and removes one address. Its methods may be called from several goroutines.
type Manager struct {
	cfg  Config
	net  network
	wait time.Duration // for the neighbours' answers; probeWait but in tests

	mu      sync.Mutex
	hold    *hold   // nil when the address is not held
	carrier *device // made at first use; nil before, and where there is none
	opened  io.Closer
	plain   bool    // there is no carrier: the address is on the device that it is announced on
	sentry  *sentry // made at first use; nil before, and where there are no neighbours

	known     nodes
	unguarded sync.Once // logs that there is no guard

	seen     sync.Mutex
	conflict *Conflict // nil without
}

// hold is the time between Acquire and Release.
type hold struct {
	place
	sentry *sentry // nil where there are no neighbours
	stop   context.CancelFunc
	done   chan struct{} // closed when the loop has ended and the address is removed

	mu      sync.Mutex
	server  netip.AddrPort   // of the connections to tickle again
	clients []netip.AddrPort // to tickle again
}

// New makes a Manager. What an earlier process has left of the address is removed by Release, which a node calls once on
// start-up.
func New(cfg Config) (*Manager, error) {
	if !cfg.Prefix.IsValid() {
		return nil, errors.New("an address manager needs an address")
	}
	if cfg.MayHold == nil {
		return nil, errors.New("an address manager must be able to ask whether it may hold the address")
	}
	if cfg.Lifetime == 0 {
		cfg.Lifetime = DefaultLifetime
	}
	if cfg.Lifetime < MinLifetime || cfg.Lifetime%time.Second != 0 {
		return nil, fmt.Errorf("a lifetime of %v: it must be whole seconds, and at least one", cfg.Lifetime)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Manager{cfg: cfg, net: &kernel{}, wait: probeWait}, nil
}

// Probe begins to ask the neighbours who has the address, for an Acquire that may follow within a second, and returns at once. A node calls it
// when it begins to campaign: when it leads the answers are there, and Acquire need not wait for them.
func (m *Manager) Probe() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.heldLocked() || m.cfg.Peers == nil {
		return
	}
	// What goes wrong here goes wrong in Acquire, too, which says so.
	if p, err := m.placeLocked(); err == nil {
		if s, err := m.sentryLocked(p); err == nil && s != nil && time.Since(s.began) > probeFresh/2 {
			s.begin()
		}
	}
}

// sentryLocked returns the sentry, or nil where there are no neighbours. m.mu is held, and the address is not.
func (m *Manager) sentryLocked(p place) (*sentry, error) {
	if m.sentry != nil && m.sentry.dev.index == p.announce.index && bytes.Equal(m.sentry.dev.mac, p.announce.mac) {
		return m.sentry, nil
	}
	m.closeSentryLocked()
	if len(p.announce.mac) == 0 || m.cfg.Peers == nil && !p.silent {
		return nil, nil
	}
	s, err := startSentry(m.net, m.cfg.Logger, p.announce, p.prefix.Addr(), m.cfg.Peers, &m.known)
	if err != nil {
		return nil, err
	}
	m.sentry = s
	return s, nil
}

func (m *Manager) closeSentryLocked() {
	if m.sentry != nil {
		m.sentry.close()
		m.sentry = nil
	}
}

// Acquire puts the address on this machine, announces it, and keeps renewing and announcing it until Release is called,
// ctx ends, or MayHold denies it. It returns after the first announcement; an error means that the address is not held: a *ConflictError that a
// machine outside the cluster has it, a *DeviceError that no interface of this machine can have it.
// Acquire of an address that is held already takes it anew.
func (m *Manager) Acquire(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	held := m.heldLocked()
	m.endLocked()
	p, err := m.placeLocked()
	if err != nil {
		return fmt.Errorf("take over %s: %w", m.cfg.Prefix, err)
	}
	s, err := m.sentryLocked(p)
	if err != nil {
		m.cfg.Logger.Warn("cannot see who else has the address", "address", m.cfg.Prefix, "err", err)
		if p.silent {
			p = place{announce: p.announce, carrier: p.announce, prefix: m.cfg.Prefix}
		}
	}
	if err := m.take(ctx, p, s, held); err != nil {
		return fmt.Errorf("take over %s: %w", m.cfg.Prefix, err)
	}
	if err := m.announce(p.announce); err != nil {
		// Neighbours that do not know the address yet will ask for it, and it is announced again.
		m.cfg.Logger.Warn("cannot announce the address", "address", m.cfg.Prefix, "err", err)
	}
	ctx, stop := context.WithCancel(ctx)
	h := &hold{place: p, sentry: s, stop: stop, done: make(chan struct{})}
	m.hold = h
	go m.keep(ctx, h, time.Now())
	return nil
}

// take adds the address unless a stranger has it. What was held until now is not asked for.
func (m *Manager) take(ctx context.Context, p place, s *sentry, held bool) error {
	if s != nil && !held {
		if time.Since(s.began) > probeFresh {
			s.begin()
		}
		mac, found, err := s.stranger(ctx, m.wait)
		if err != nil {
			return err
		}
		if found {
			m.sighted(mac)
			return &ConflictError{Address: m.cfg.Prefix.Addr(), Device: p.announce.name, MAC: mac[:]}
		}
		m.noConflict()
		if !m.cfg.MayHold() {
			return errors.New("this node may no longer hold it")
		}
	}
	if err := m.put(p); err != nil {
		return err
	}
	if s != nil {
		s.answers.Store(p.silent)
	}
	return nil
}

// Release removes the address at once. It also removes one that an earlier process has left behind, and prepares what a
// later Acquire needs, so that it is quick.
func (m *Manager) Release() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.endLocked()
	m.noConflict()
	p, err := m.placeLocked()
	if err != nil {
		return fmt.Errorf("release %s: %w", m.cfg.Prefix, err)
	}
	if _, err := m.sentryLocked(p); err != nil {
		m.cfg.Logger.Debug("cannot see who else has the address", "address", m.cfg.Prefix, "err", err) // Acquire warns
	}
	return errors.Join(m.takeOff(p), m.net.remove(p.announce, m.cfg.Prefix))
}

// Close releases the address and what the Manager keeps open. The Manager is not to be used afterwards.
func (m *Manager) Close() error {
	err := m.Release()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closeSentryLocked()
	err = errors.Join(err, m.net.Close())
	if m.opened != nil {
		err = errors.Join(err, m.opened.Close())
		m.opened, m.carrier = nil, nil
		if ip := m.cfg.Prefix.Addr(); ip.Is6() {
			err = errors.Join(err, m.net.unguard(ip))
		}
	}
	return err
}

// heldLocked tells whether the address is being kept up. m.mu is held.
func (m *Manager) heldLocked() bool {
	if m.hold == nil {
		return false
	}
	select {
	case <-m.hold.done:
		return false
	default:
		return true
	}
}

// Tickle makes the clients that were connected to the address at port notice that their connections are gone, now and
// again with the announcements of the next two seconds. It does nothing unless the address is held.
func (m *Manager) Tickle(port uint16, clients []netip.AddrPort) error {
	m.mu.Lock()
	h := m.hold
	m.mu.Unlock()
	if h == nil || len(clients) == 0 {
		return nil
	}
	server := netip.AddrPortFrom(m.cfg.Prefix.Addr(), port)
	h.mu.Lock()
	h.server, h.clients = server, clients
	h.mu.Unlock()
	return m.net.tickle(server, clients)
}

// endLocked ends the loop of a hold, which removes the address. m.mu is held.
func (m *Manager) endLocked() {
	if m.hold == nil {
		return
	}
	m.hold.stop()
	<-m.hold.done
	m.hold = nil
}

// keep renews and announces the address until ctx ends or the address may no longer be held; then it removes it.
func (m *Manager) keep(ctx context.Context, h *hold, added time.Time) {
	defer close(h.done)
	defer h.stop()
	var claims chan macAddr
	if h.sentry != nil {
		defer h.sentry.answers.Store(false)
		claims = h.sentry.claims
	}
	d := &defence{m: m, h: h, timer: time.NewTimer(0)}
	if m.currentConflict() == nil {
		d.timer.Stop()
	}
	defer d.timer.Stop()
	renew := time.NewTicker(m.cfg.Lifetime / renewals)
	defer renew.Stop()
	again := time.NewTimer(announceAfter[0])
	defer again.Stop()
	announced := 0
	failing := false
	for {
		select {
		case <-ctx.Done():
			m.drop(h.place)
			return
		case <-renew.C:
			if !m.cfg.MayHold() {
				m.cfg.Logger.Warn("giving the address up: another node may hold it now", "address", m.cfg.Prefix)
				m.drop(h.place)
				return
			}
			err := m.put(h.place)
			if err != nil && !failing {
				m.cfg.Logger.Error("cannot renew the address", "address", m.cfg.Prefix, "err", err)
			}
			failing = err != nil
		case mac := <-claims:
			d.claimed(mac)
		case <-d.timer.C:
			d.look()
		case <-again.C:
			m.repeat(h)
			announced++
			if announced < len(announceAfter) {
				again.Reset(time.Until(added.Add(announceAfter[announced])))
			}
		}
	}
}

// drop removes the address on behalf of keep.
func (m *Manager) drop(p place) {
	if err := m.takeOff(p); err != nil {
		m.cfg.Logger.Error("cannot remove the address; the kernel will when its lifetime ends", "address", m.cfg.Prefix, "err", err)
	}
}

// repeat announces the address and tickles its clients once more.
func (m *Manager) repeat(h *hold) {
	if !m.cfg.MayHold() {
		return // the next renewal gives the address up
	}
	if err := m.announce(h.announce); err != nil {
		m.cfg.Logger.Warn("cannot announce the address", "address", m.cfg.Prefix, "err", err)
	}
	h.mu.Lock()
	server, clients := h.server, h.clients
	h.mu.Unlock()
	if len(clients) == 0 {
		return
	}
	if err := m.net.tickle(server, clients); err != nil {
		m.cfg.Logger.Debug("cannot tickle all clients", "err", err)
	}
}

// announce tells the neighbours where the address is now.
func (m *Manager) announce(d device) error {
	if len(d.mac) == 0 {
		return nil // no neighbours
	}
	ip := m.cfg.Prefix.Addr()
	if ip.Is6() {
		return m.net.send(d, advertisementFrame(d.mac, ip))
	}
	return errors.Join(
		m.net.send(d, arpFrame(d.mac, ip, arpRequest)),
		m.net.send(d, arpFrame(d.mac, ip, arpReply)))
}
