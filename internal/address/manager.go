package address

import (
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
	// Device is the interface to put it on; if empty, the one that has an address in the same network.
	Device string
	// Lifetime is how long the kernel keeps the address when it is not renewed, in whole seconds; DefaultLifetime if zero.
	Lifetime time.Duration
	// MayHold tells whether this node still is the one to hold the address: whether it leads, and under a lease. It is
	// asked before every renewal, because a process that was stopped for a while does not know what it missed.
	MayHold func() bool
	// Logger gets what goes wrong in the background; the default one if nil.
	Logger *slog.Logger
}

// Manager adds, keeps and removes one address. Its methods may be called from several goroutines.
type Manager struct {
	cfg Config
	net network

	mu      sync.Mutex
	hold    *hold   // nil when the address is not held
	carrier *device // made at first use; nil before, and where there is none
	opened  io.Closer
	plain   bool // there is no carrier: the address is on the device that it is announced on
}

// place is where an address is.
type place struct {
	announce device // that the neighbours are on
	carrier  device // that has the address
	prefix   netip.Prefix
}

// hold is the time between Acquire and Release.
type hold struct {
	place
	stop context.CancelFunc
	done chan struct{} // closed when the loop has ended and the address is removed

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
	return &Manager{cfg: cfg, net: kernel{}}, nil
}

// Acquire puts the address on this machine, announces it, and keeps renewing and announcing it until Release is called,
// ctx ends, or MayHold denies it. It returns after the first announcement; an error means that the address is not held.
// Acquire of an address that is held already takes it anew.
func (m *Manager) Acquire(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.endLocked()
	p, err := m.placeLocked()
	if err != nil {
		return fmt.Errorf("take over %s: %w", m.cfg.Prefix, err)
	}
	added := time.Now()
	if err := m.net.add(p.carrier, p.prefix, m.cfg.Lifetime); err != nil {
		return fmt.Errorf("take over: %w", err)
	}
	if err := m.announce(p.announce); err != nil {
		// Neighbours that do not know the address yet will ask for it, and it is announced again.
		m.cfg.Logger.Warn("cannot announce the address", "address", m.cfg.Prefix, "err", err)
	}
	ctx, stop := context.WithCancel(ctx)
	h := &hold{place: p, stop: stop, done: make(chan struct{})}
	m.hold = h
	go m.keep(ctx, h, added)
	return nil
}

// Release removes the address at once. It also removes one that an earlier process has left behind, and prepares what a
// later Acquire needs, so that it is quick.
func (m *Manager) Release() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.endLocked()
	p, err := m.placeLocked()
	if err != nil {
		return fmt.Errorf("release %s: %w", m.cfg.Prefix, err)
	}
	return errors.Join(m.net.remove(p.carrier, p.prefix), m.net.remove(p.announce, m.cfg.Prefix))
}

// Close releases the address and what the Manager keeps open. The Manager is not to be used afterwards.
func (m *Manager) Close() error {
	err := m.Release()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.opened != nil {
		err = errors.Join(err, m.opened.Close())
		m.opened, m.carrier = nil, nil
	}
	return err
}

// placeLocked finds the devices. m.mu is held.
func (m *Manager) placeLocked() (place, error) {
	d, err := m.net.device(m.cfg.Device, m.cfg.Prefix)
	if err != nil {
		return place{}, err
	}
	// Linux answers for an IPv4 address of any device, but advertises an IPv6 address on its own only. And where the
	// moving address is the only one of its network, the route to the clients comes and goes with it.
	fits := d.member && m.cfg.Prefix.Addr().Is4()
	if m.carrier == nil && !m.plain && fits {
		carrier, opened, err := m.net.carrier()
		if err != nil {
			m.cfg.Logger.Warn("the address will outlive a killed process for its lifetime, and clients will wait for longer", "err", err)
			m.plain = true
		} else {
			m.carrier, m.opened = &carrier, opened
		}
	}
	if m.carrier == nil || !fits {
		return place{announce: d, carrier: d, prefix: m.cfg.Prefix}, nil
	}
	return place{announce: d, carrier: *m.carrier, prefix: hostPrefix(m.cfg.Prefix)}, nil
}

// Held tells whether the address is being kept up.
func (m *Manager) Held() bool {
	m.mu.Lock()
	h := m.hold
	m.mu.Unlock()
	if h == nil {
		return false
	}
	select {
	case <-h.done:
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
			err := m.net.add(h.carrier, h.prefix, m.cfg.Lifetime)
			if err != nil && !failing {
				m.cfg.Logger.Error("cannot renew the address", "address", m.cfg.Prefix, "err", err)
			}
			failing = err != nil
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
	if err := m.net.remove(p.carrier, p.prefix); err != nil {
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
