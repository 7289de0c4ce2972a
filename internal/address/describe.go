package address

import (
	"context"
	"net"
	"net/netip"
)

// Description is the state of an address at this node.
type Description struct {
	Address netip.Prefix
	// Device is the interface whose neighbours reach the address, and MAC its link address, nil where there are none.
	Device string
	MAC    net.HardwareAddr
	// Carrier is the interface that has, or would have, the address: Device, or one that is made for it and goes with the process; it is empty
	// before it is made.
	Carrier string
	// Vanishes tells that the address goes with the process in the instant in which it dies. Where it does not, the kernel keeps it for its
	// lifetime, and clients that connect meanwhile are refused, and wait.
	Vanishes bool
	// Held tells whether this node keeps the address up.
	Held bool
	// Conflict is a machine outside the cluster that has the address too; nil if none was seen.
	Conflict *Conflict
	// Err tells why this machine cannot have the address; nil if it can.
	Err error
}

// Describe tells where the address is or would be, and what is wrong with it.
func (m *Manager) Describe() Description {
	m.mu.Lock()
	defer m.mu.Unlock()
	var p place
	var err error
	held := m.heldLocked()
	if held {
		p = m.hold.place
	} else {
		p, err = m.wouldLocked()
	}
	return Description{
		Address: m.cfg.Prefix, Device: p.announce.name, MAC: p.announce.mac, Carrier: p.carrier.name, Vanishes: p.carrier.carrier, Held: held,
		Conflict: m.currentConflict(), Err: err,
	}
}

// wouldLocked finds where the address would be, and makes nothing for that. m.mu is held.
func (m *Manager) wouldLocked() (place, error) {
	d, err := m.net.device(m.cfg.Device, m.cfg.Prefix)
	if err != nil {
		return place{}, err
	}
	return m.placeOn(d), nil
}

// Check is Describe after it asked the neighbours, for half a second, whether a machine outside the cluster has the address. It takes
// nothing, and may be called by any node at any time.
func (m *Manager) Check(ctx context.Context) (Description, error) {
	d := m.Describe()
	if d.Err != nil || d.Held || m.cfg.Peers == nil {
		return d, nil // the holder watches all the time
	}
	m.mu.Lock()
	p, err := m.wouldLocked()
	m.mu.Unlock()
	if err != nil || len(p.announce.mac) == 0 {
		return d, err
	}
	// One of its own: the node may take the address meanwhile.
	s, err := startSentry(m.net, m.cfg.Logger, p.announce, p.prefix.Addr(), m.cfg.Peers, &m.known)
	if err != nil {
		return d, err
	}
	defer s.close()
	s.begin()
	mac, found, err := s.stranger(ctx, checkWait)
	if found {
		d.Conflict = &Conflict{MAC: mac[:], Since: s.began, Last: s.began}
	}
	return d, err
}
