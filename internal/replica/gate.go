package replica

import (
	"math"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

// gate holds back what a leader sends to a witness until this replica's disk and all data members that are in sync have it (DESIGN.md, "The witness"): MsgApps without
// payloads, in the order in which raft sent them.
type gate []Message

// emit puts a message of raft's on its way.
func (c *Core) emit(m Message) {
	if m.Type == raftpb.MsgApp && c.isWitness(m.To) {
		c.hold(m)
		return
	}
	c.dress(&m)
	c.out.Messages = append(c.out.Messages, m)
}

// hold queues a MsgApp to a witness. Raft sends in order, and goes back only to send again what may be lost: then what is queued from there on is superseded.
func (c *Core) hold(m Message) {
	held := c.gates[m.To]
	n := len(held)
	for n > 0 && held[n-1].Index >= m.Index {
		n--
	}
	m.Entries = strip(m.Entries)
	c.gates[m.To] = append(held[:n], m)
}

// release lets through what may pass.
func (c *Core) release() {
	if len(c.gates) == 0 || c.state.role != raft.StateLeader {
		return
	}
	limit, known := uint64(0), false
	for _, id := range c.witnesses {
		if len(c.gates[id]) == 0 {
			continue
		}
		if !known {
			limit, known = c.witnessLimit(), true
		}
		c.gates[id] = c.releaseUpTo(limit, c.gates[id])
	}
}

// releaseUpTo lets through what of held lies up to limit, and returns the rest.
func (c *Core) releaseUpTo(limit uint64, held gate) gate {
	passed := 0
	for i := range held {
		m := &held[i]
		if m.Index > limit || len(m.Entries) > 0 && m.Index == limit {
			break
		}
		out := *m
		if n := limit - m.Index; n < uint64(len(m.Entries)) {
			out.Entries = m.Entries[:n:n]
			m.Index, m.LogTerm, m.Entries = limit, m.Entries[n-1].Term, m.Entries[n:]
		} else {
			passed++
		}
		c.out.Messages = append(c.out.Messages, out)
	}
	return slices.Delete(held, 0, passed)
}

// witnessLimit returns up to which index a witness may have the log.
func (c *Core) witnessLimit() uint64 {
	limit := uint64(math.MaxUint64)
	c.rn.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id == c.cfg.ID || !c.ahead && c.gating(id) {
			limit = min(limit, pr.Match)
		}
	})
	if c.ahead {
		limit = math.MaxUint64
	}
	return limit
}

// gating reports whether witnesses wait for a member: a data voter that is in sync.
func (c *Core) gating(id uint64) bool {
	p := c.peers[id]
	return p != nil && p.sync.gates && !c.isWitness(id) && c.inVoters(id)
}
