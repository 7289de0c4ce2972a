package address

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// maxFrame is room for what is read: messages of neighbour discovery and ARP are far shorter.
const maxFrame = 2048

// readPause is how long a sentry waits after it could not read.
const readPause = 100 * time.Millisecond

// nodes are the link addresses that were seen with the cluster's other nodes.
type nodes struct {
	mu   sync.Mutex
	macs map[macAddr]bool
}

// maxKnown bounds the link addresses that are remembered: nothing keeps a hostile neighbour from making them up.
const maxKnown = 1024

func (n *nodes) learn(mac macAddr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.macs == nil {
		n.macs = make(map[macAddr]bool)
	}
	if len(n.macs) < maxKnown {
		n.macs[mac] = true
	}
}

func (n *nodes) has(mac macAddr) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.macs[mac]
}

// sentry listens on a device for other machines that have the moving address, and answers solicitations for it where the kernel does not.
type sentry struct {
	net   network
	log   *slog.Logger
	dev   device
	ip    netip.Addr
	peers func() []netip.Addr // of the other nodes; nil: strangers cannot be told from nodes
	known *nodes
	own   []net.HardwareAddr // of this machine
	began time.Time          // when begin asked who has the address; the owner's

	asked   atomic.Pointer[[]netip.Addr] // the peers, when they were asked last
	answers atomic.Bool                  // solicitations are to be answered
	claims  chan macAddr                 // other machines that said that they have the address

	ports []io.Closer
	ended chan struct{}
	work  sync.WaitGroup
}

// startSentry opens a sentry.
func startSentry(n network, log *slog.Logger, d device, ip netip.Addr, peers func() []netip.Addr, known *nodes) (*sentry, error) {
	own, err := n.macs()
	if err != nil {
		return nil, err
	}
	s := &sentry{
		net: n, log: log, dev: d, ip: ip, peers: peers, known: known, own: append(own, d.mac),
		claims: make(chan macAddr, 64), ended: make(chan struct{}),
	}
	for _, t := range s.etherTypes() {
		group := allNodes // which everyone is in anyway
		if ip.Is6() {
			group = solicitedNode(ip)
		}
		p, err := n.listen(d, t, group)
		if err != nil {
			s.close()
			return nil, err
		}
		s.ports = append(s.ports, p)
		s.work.Go(func() { s.read(p) })
	}
	s.askPeers()
	return s, nil
}

// etherTypes returns what the address and those of the peers are resolved with.
func (s *sentry) etherTypes() []uint16 {
	var types []uint16
	for _, ip := range append(s.currentPeers(), s.ip) {
		t := uint16(etherTypeARP)
		if ip.Is6() {
			t = etherTypeIPv6
		}
		if !slices.Contains(types, t) {
			types = append(types, t)
		}
	}
	return types
}

func (s *sentry) currentPeers() []netip.Addr {
	if s.peers == nil {
		return nil
	}
	var peers []netip.Addr
	for _, p := range s.peers() {
		if p = p.Unmap().WithZone(""); p.IsValid() && !p.IsUnspecified() && p != s.ip {
			peers = append(peers, p)
		}
	}
	return peers
}

// askPeers asks for the nodes' own addresses, to learn their link addresses. Linux answers for an IPv4 address of any of its devices, so that
// it does not matter which network the nodes talk to each other on.
func (s *sentry) askPeers() {
	peers := s.currentPeers()
	s.asked.Store(&peers)
	for _, p := range peers {
		s.send(s.question(p))
	}
}

// begin asks who has the address, for stranger.
func (s *sentry) begin() {
	for len(s.claims) > 0 {
		<-s.claims
	}
	s.askPeers()
	s.began = time.Now()
	s.ask()
}

// ask asks who has the address.
func (s *sentry) ask() {
	if s.peers != nil {
		s.send(s.question(s.ip))
	}
}

func (s *sentry) question(ip netip.Addr) []byte {
	if ip.Is6() {
		return solicitationFrame(s.dev.mac, ip)
	}
	return arpProbe(s.dev.mac, ip)
}

func (s *sentry) send(frame []byte) {
	if err := s.net.send(s.dev, frame); err != nil {
		s.log.Debug("cannot ask the neighbours", "device", s.dev.name, "err", err)
	}
}

// read takes in what one port receives, until it is closed.
func (s *sentry) read(port io.Reader) {
	buf := make([]byte, maxFrame)
	for {
		n, err := port.Read(buf)
		if err == nil {
			if m, ok := parseFrame(buf[:n]); ok {
				s.heard(&m)
			}
			continue
		}
		// A device that goes down is an error once, and what arrives when it is up again can be read.
		select {
		case <-s.ended:
			return
		case <-time.After(readPause):
			s.log.Debug("cannot hear the neighbours", "device", s.dev.name, "err", err)
		}
	}
}

func (s *sentry) heard(m *message) {
	if slices.ContainsFunc(s.own, func(mac net.HardwareAddr) bool { return string(mac) == string(m.mac[:]) }) {
		return
	}
	switch {
	case m.claim == s.ip && s.peers != nil:
		select {
		case s.claims <- m.mac:
		default: // there is enough to think about
		}
	case m.claim.IsValid() && slices.Contains(*s.asked.Load(), m.claim):
		s.known.learn(m.mac)
	}
	if m.asks == s.ip && s.answers.Load() {
		s.send(answerFrame(s.dev.mac, m))
	}
}

// stranger waits until the neighbours have had the time d to answer, since begin, and returns the link address of one that has the
// address and is no node of the cluster. If a node has it, it returns at once: the cluster's possession is not given up for a stranger's sake.
func (s *sentry) stranger(ctx context.Context, d time.Duration) (_ macAddr, found bool, err error) {
	if s.peers == nil {
		return macAddr{}, false, nil
	}
	timer := time.NewTimer(time.Until(s.began.Add(d)))
	defer timer.Stop()
	var others []macAddr
	heard := func(mac macAddr) (node bool) {
		others = append(others, mac)
		return s.known.has(mac)
	}
	for {
		select {
		case mac := <-s.claims:
			if heard(mac) {
				return macAddr{}, false, nil
			}
		case <-ctx.Done():
			return macAddr{}, false, fmt.Errorf("ask the neighbours for %s: %w", s.ip, context.Cause(ctx))
		case <-timer.C:
			for len(s.claims) > 0 {
				heard(<-s.claims)
			}
			// A node's own address may have been answered for after the moving one.
			if len(others) == 0 || slices.ContainsFunc(others, s.known.has) {
				return macAddr{}, false, nil
			}
			return others[0], true, nil
		}
	}
}

// close ends the sentry. It returns when nothing of it is left.
func (s *sentry) close() {
	close(s.ended)
	var errs []error
	for _, p := range s.ports {
		errs = append(errs, p.Close())
	}
	if err := errors.Join(errs...); err != nil {
		s.log.Debug("cannot close a port", "device", s.dev.name, "err", err)
	}
	s.work.Wait()
}
