package volume

const (
	// clockVersion is the cluster version from which on times follow a leader's clock that was set back. Before, they stood still until the clock had caught up, for years if it had been wrong by
	// years.
	clockVersion = 3
	// clockSkew is how far apart, in nanoseconds, the clocks of nodes are at most if somebody looks after them. So much less than the last time is the clock of another leader, and the times of
	// files do not go back for it: what was changed later looks newer, and nothing that goes by that (make) is led astray. More is a clock that was set, and then the new one counts.
	clockSkew = 60e9
)

// timeOf is the time of an entry. Each that was stamped has one of its own, as clients of NFSv3 know from the times alone that a file was changed. What was not changes nothing: replicas
// pass over the entries that are none of the volume's one by one or many at once (AdvanceTo).
func (s *state) timeOf(e *Entry) int64 {
	switch behind := s.lastTime - e.Time; {
	case behind < 0:
		return e.Time
	case s.version < clockVersion || e.Time == 0:
		return s.lastTime
	case behind <= clockSkew:
		return s.lastTime + 1
	}
	return e.Time
}
