package replica

import (
	"testing"
	"time"
)

// A member whose state machine is invalid may be the only one that has the newest entries: the other member that had them lost its disk. It has to lead until
// somebody else has them too, or the group stays without a leader for ever. Found by package sim.
func TestInvalidStateMachineHoldsNewestEntries(t *testing.T) {
	for seed := range uint64(20) {
		s := newSim(t, seed, 3)
		if !s.until(5*time.Second, func() bool { return s.leader() != nil }) {
			t.Fatal("no leader")
		}
		lead := s.leader()
		behind, lost := s.nodes[lead.id%3], s.nodes[(lead.id+1)%3]
		load := func() {
			for range 10 {
				s.propose()
				s.run(20 * time.Millisecond)
			}
		}
		load()
		lead.checkpoint()
		if lead.log.FirstIndex() == 1 {
			t.Fatal("the log still begins at 1")
		}
		s.chaos = true
		s.isolate(behind)
		load()
		if lead.sm.Applied() <= behind.sm.Applied() {
			t.Fatal("the isolated node is not behind")
		}
		for _, n := range s.nodes {
			n.crash()
		}
		// As after a crash during an installation, and after a new disk.
		lead.sm = newToySM()
		lost.log, lost.meta, lost.sm = &memLog{}, &memMeta{}, newToySM()
		s.settle()
	}
}
