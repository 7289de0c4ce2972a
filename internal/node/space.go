package node

import (
	"net/netip"

	"holdfast/internal/volume"
)

// spaceStep is by which part of the total the figures must have changed before they are logged again: they are for display and for limits that need no more.
const spaceStep = 100

// publishSpace logs the space that the volume has, which is that of its poorest copy, so that apply can answer with figures that are the same everywhere.
func (s *service) publishSpace() {
	free, total, err := s.node.space()
	if err != nil {
		return // sendReport has said so
	}
	for _, p := range s.replica.Status().Peers {
		if r, ok := decodeReport(p.Report); ok && p.Active {
			free, total = min(free, r.Free), min(total, r.Total)
		}
	}
	var have volume.FSStat
	s.volume.View(func(tx *volume.Tx) { have = tx.ReplicatedSpace() })
	if have.TotalBytes == total && difference(have.FreeBytes, free) <= total/spaceStep {
		return
	}
	// If this fails the node no longer leads, and the next leader publishes its own.
	_ = s.gate.Command(volume.EntrySpace, netip.AddrPort{}, volume.SpacePayload(total, free))
}

func difference(a, b uint64) uint64 { return max(a, b) - min(a, b) }
