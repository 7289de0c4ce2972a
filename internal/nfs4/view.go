package nfs4

import (
	"holdfast/internal/nfs4/state"
	"holdfast/internal/volume"
)

// Clients lists the clients that the volume knows, by id, for status displays.
func (p *Program) Clients(v *volume.Volume) (out []state.ClientView) {
	v.View(func(*volume.Tx) { out = p.tables.Clients() })
	return out
}
