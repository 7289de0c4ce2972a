package cluster

import "holdfast/internal/config"

// Peers returns the data nodes' own addresses, host and port, by their names.
func (s *State) Peers() map[string]string {
	peers := make(map[string]string)
	for i := range s.Nodes {
		if n := &s.Nodes[i]; n.Role == RoleData {
			peers[n.Name] = n.Peer
		}
	}
	return peers
}

// CheckListeners returns as config.Errors where a volume, which is valid for itself, would listen at a port that a node or another volume has, or nil. It is asked before a command
// is proposed and not when one is applied, as releases may differ in what they find.
func (s *State) CheckListeners(v *config.VolumeSpec) error {
	alone := config.Spec{Volumes: []config.VolumeSpec{*v}}
	if err := alone.CheckPorts(s.Peers()); err != nil {
		return err
	}
	return s.Spec().CheckListeners(v)
}
