package replica

import (
	"math"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

// gate holds back what a leader sends to a witness until this replica's disk and all data members that are in sync have it (DESIGN.md, "The witness").
type gate struct {
	// held are MsgApps without payloads, in the order in which raft sent them.
	held []Message
	// sent is the highest index that was let through in this term.
	sent uint64
}

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
	g := c.gates[m.To]
	if g == nil {
		g = &gate{}
		c.gates[m.To] = g
	}
	m.Entries = strip(m.Entries)
	n := len(g.held)
	for n > 0 && g.held[n-1].Index >= m.Index {
		n--
	}
	g.held = append(g.held[:n], m)
}

// release lets through what may pass.
func (c *Core) release() {
	if len(c.gates) == 0 || c.state.role != raft.StateLeader {
		return
	}
	limit, known := uint64(0), false
	for _, id := range c.witnesses {
		g := c.gates[id]
		if g == nil || len(g.held) == 0 {
			continue
		}
		if !known {
			limit, known = c.witnessLimit(), true
		}
		c.releaseTo(g, limit)
	}
}

func (c *Core) releaseTo(g *gate, limit uint64) {
	passed := 0
	for i := range g.held {
		m := &g.held[i]
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
		g.sent = max(g.sent, out.Index+uint64(len(out.Entries)))
		c.out.Messages = append(c.out.Messages, out)
	}
	g.held = slices.Delete(g.held, 0, passed)
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
