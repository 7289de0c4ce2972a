package node

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"holdfast/internal/address"
	"holdfast/internal/config"
	"holdfast/internal/doctor"
)

// Doctor implements api.Backend.
func (n *Node) Doctor(ctx context.Context) ([]doctor.Result, error) {
	limited, cancel := context.WithTimeout(ctx, 2*doctor.Limit+time.Second)
	defer cancel()
	s := n.cluster.state()
	cfg := doctor.Config{Data: n.local.Data, Listen: n.local.Listen, Prober: prober{n}}
	clocks := n.askAll(limited, s).clocks
	for i := range s.Nodes {
		if m := &s.Nodes[i]; m.Number != n.id.Node {
			r, known := clocks[m.Number]
			cfg.Peers = append(cfg.Peers, doctor.Peer{Name: m.Name, Address: m.Peer, ClockOffset: r.offset, ClockUncertainty: r.uncertainty, ClockKnown: known})
		}
	}
	for i := range s.Volumes {
		spec := &s.Volumes[i].Spec
		cfg.NFS = append(cfg.NFS, spec.MountAddr().String())
		cfg.Reserve = max(cfg.Reserve, uint64(spec.Reserve))
		if spec.Address.Kind == config.AddressIP {
			cfg.Addresses = append(cfg.Addresses, doctor.Address{Prefix: netip.Prefix(spec.Address.IP), Device: spec.Address.Device, Held: true})
		}
	}
	return doctor.Run(limited, cfg), nil
}

// prober looks for machines outside the cluster that have a volume's address.
type prober struct{ n *Node }

// Probe implements doctor.Prober. The cluster's own nodes do not count.
func (p prober) Probe(ctx context.Context, addr netip.Addr, device string) (hardware string, err error) {
	s := p.n.cluster.state()
	for i := range s.Volumes {
		prefix, moves := addressOf(&s.Volumes[i].Spec)
		if !moves || prefix.Addr() != addr {
			continue
		}
		m, err := address.New(address.Config{
			Prefix: prefix, Device: device, MayHold: func() bool { return false }, Peers: p.n.peerAddresses, Logger: p.n.log,
		})
		if err != nil {
			return "", fmt.Errorf("look for others that have %s: %w", addr, err)
		}
		d, err := m.Check(ctx)
		if err == nil && d.Conflict != nil {
			hardware = d.Conflict.MAC.String()
		}
		return hardware, err
	}
	return "", fmt.Errorf("no volume has the address %s", addr)
}
