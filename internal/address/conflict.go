package address

import (
	"fmt"
	"net"
	"net/netip"
	"time"
)

const (
	// probeWait is how long the neighbours have to say that they have the address, before it is taken. On a wire they need less than a
	// millisecond; the rest is for machines that are busy. Who answers later is found while the address is held.
	probeWait = 20 * time.Millisecond
	// probeFresh is how long the answers to a probe are good for.
	probeFresh = time.Second
	// checkWait is how long Check waits for answers: nobody waits for the address meanwhile.
	checkWait = 500 * time.Millisecond
	// defendEvery is how often the address is announced against a stranger (RFC 5227 section 2.4), and a stranger is asked whether it is
	// still there.
	defendEvery = 10 * time.Second
	// reassertEvery is the same against a node of the cluster whose kernel has the address for a moment longer than its daemon.
	reassertEvery = time.Second
	// conflictOver is how long a stranger is silent before it counts as gone.
	conflictOver = 25 * time.Second
)

// Conflict is a machine outside the cluster that has the address too.
type Conflict struct {
	// MAC is its link address.
	MAC net.HardwareAddr
	// Since and Last are when it was seen first and last.
	Since, Last time.Time
}

// ConflictError says that an address was not taken, as a machine outside the cluster has it.
type ConflictError struct {
	Address netip.Addr
	Device  string           // the interface that the machine is behind
	MAC     net.HardwareAddr // the machine's link address
}

// Error says who has the address, and what to do.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s is in use by another machine, whose link address on %s is %s and which is no node of this cluster: "+
		"take the address away from that machine, or give the volume another one", e.Address, e.Device, e.MAC)
}

// sighted notes that a stranger has the address, and tells whether that is news.
func (m *Manager) sighted(mac macAddr) bool {
	m.seen.Lock()
	defer m.seen.Unlock()
	now := time.Now()
	if m.conflict != nil && string(m.conflict.MAC) == string(mac[:]) {
		m.conflict.Last = now
		return false
	}
	m.conflict = &Conflict{MAC: mac[:], Since: now, Last: now}
	return true
}

// currentConflict returns a copy of the conflict, or nil.
func (m *Manager) currentConflict() *Conflict {
	m.seen.Lock()
	defer m.seen.Unlock()
	if m.conflict == nil {
		return nil
	}
	c := *m.conflict
	return &c
}

func (m *Manager) noConflict() {
	m.seen.Lock()
	defer m.seen.Unlock()
	m.conflict = nil
}

// defence is what the holder of an address does about others who say that they have it. It belongs to one keep.
type defence struct {
	m *Manager
	h *hold
	// timer is when to look again: at the suspect, after the nodes had time to say whether it is one of them; else at the conflict.
	timer     *time.Timer
	suspect   *macAddr
	announced time.Time // the last time on this account
}

// claimed is told of another machine that says that it has the address.
func (d *defence) claimed(mac macAddr) {
	c := d.m.currentConflict()
	switch {
	case d.h.sentry.known.has(mac):
		d.reassert(reassertEvery)
	case c != nil && string(c.MAC) == string(mac[:]):
		d.m.sighted(mac)
		d.oppose(mac)
	case d.suspect == nil:
		d.suspect = &mac
		d.h.sentry.askPeers()
		d.timer.Reset(probeWait)
	}
}

// look is called when the timer has fired.
func (d *defence) look() {
	if d.suspect != nil {
		mac := *d.suspect
		d.suspect = nil
		if d.h.sentry.known.has(mac) {
			d.reassert(reassertEvery)
		} else {
			d.m.sighted(mac)
			d.m.cfg.Logger.Error("another machine uses the address, too, and is no node of this cluster: some clients reach it instead of this volume",
				"address", d.m.cfg.Prefix, "mac", mac, "device", d.h.announce.name)
			d.oppose(mac)
		}
	}
	c := d.m.currentConflict()
	switch {
	case c == nil:
		return
	case time.Since(c.Last) >= conflictOver:
		d.m.cfg.Logger.Info("the other machine no longer uses the address", "address", d.m.cfg.Prefix, "mac", c.MAC)
		d.m.noConflict()
		return
	}
	d.h.sentry.ask()
	d.timer.Reset(defendEvery)
}

// oppose announces the address against a stranger, unless that was done a short while ago.
func (d *defence) oppose(mac macAddr) {
	if d.reassert(defendEvery) {
		d.m.cfg.Logger.Warn("announced the address again, as another machine uses it, too", "address", d.m.cfg.Prefix, "mac", mac)
	}
}

// reassert announces the address unless that was done within the time given, and tells whether it did.
func (d *defence) reassert(within time.Duration) bool {
	if !d.announced.IsZero() && time.Since(d.announced) < within || !d.m.cfg.MayHold() {
		return false
	}
	d.announced = time.Now()
	if err := d.m.announce(d.h.announce); err != nil {
		d.m.cfg.Logger.Warn("cannot announce the address", "address", d.m.cfg.Prefix, "err", err)
	}
	return true
}
