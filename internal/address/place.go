package address

import (
	"errors"
	"net/netip"
)

// place is where an address is.
type place struct {
	announce device // that the neighbours are on
	carrier  device // that has the address
	prefix   netip.Prefix
	silent   bool // the kernel does not answer the neighbours who ask for the address
}

// guarded tells that the kernel has to be kept from sending what comes from the address when it is gone, see guardPriority.
func (p place) guarded() bool { return p.carrier.carrier && p.prefix.Addr().Is6() }

// placeLocked finds the devices, and makes the carrier where it is of use. m.mu is held.
func (m *Manager) placeLocked() (place, error) {
	d, err := m.net.device(m.cfg.Device, m.cfg.Prefix)
	if err != nil {
		return place{}, err
	}
	if m.carrier == nil && !m.plain && d.member {
		carrier, opened, err := m.net.carrier()
		if err != nil {
			m.cfg.Logger.Warn("the address will outlive a killed process for its lifetime, and clients will wait for longer", "err", err)
			m.plain = true
		} else {
			m.carrier, m.opened = &carrier, opened
		}
	}
	return m.placeOn(d), nil
}

// placeOn is the place of the address if its neighbours are on d. m.mu is held.
func (m *Manager) placeOn(d device) place {
	// Where the moving address is the only one of its network, the route to the clients comes and goes with it.
	if m.plain || !d.member {
		return place{announce: d, carrier: d, prefix: m.cfg.Prefix}
	}
	carrier := device{carrier: true} // that is to be made
	if m.carrier != nil {
		carrier = *m.carrier
	}
	silent := m.cfg.Prefix.Addr().Is6() || !m.net.answersForAll(d)
	return place{announce: d, carrier: carrier, prefix: hostPrefix(m.cfg.Prefix), silent: silent}
}

// put adds the address, or renews it.
func (m *Manager) put(p place) error {
	if err := m.net.add(p.carrier, p.prefix, m.cfg.Lifetime); err != nil || !p.guarded() {
		return err
	}
	if err := m.net.guard(p.carrier, p.prefix.Addr(), m.cfg.Lifetime); err != nil {
		m.unguarded.Do(func() {
			m.cfg.Logger.Warn("clients of a killed process will be reset and try to connect before the address has moved", "address", m.cfg.Prefix, "err", err)
		})
	}
	return nil
}

// takeOff removes the address.
func (m *Manager) takeOff(p place) error {
	var err error
	if p.guarded() {
		err = m.net.closeGuard(p.carrier, p.prefix.Addr())
	}
	return errors.Join(err, m.net.remove(p.carrier, p.prefix))
}
