package replica

import (
	"encoding/binary"
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// blank is the state of a replica that has none any more: it lost its disk. It asks all other members for their term and last
// index before it takes part (DESIGN.md, "A blank replica").
type blank struct {
	nonce   uint64
	members uint64 // hash of the configured members
	heard   map[uint64]probeReply
	lost    bool  // most have lost theirs, too
	again   int64 // when they are asked again
	entered bool  // the Meta is being written
	meta    Meta
	hs      raftpb.HardState
	warned  bool
}

// probeReply is an answer to a probe. recovering: who answered has lost its disk, too, and not got back yet what it may have acknowledged.
type probeReply struct {
	term, last uint64
	recovering bool
}

// knows reports whether who answered has all that it ever had: members begin in term 1.
func (r probeReply) knows() bool { return r.term > 0 && !r.recovering }

// blankRetry is how long a replica waits that has heard of too few who have what they had, in ns. Files may come back, with a restart of their node.
const blankRetry = int64(time.Second)

// tickBlank asks those members that have not answered.
func (c *Core) tickBlank() {
	if c.blank.entered {
		return
	}
	if c.blank.lost {
		if c.now < c.blank.again {
			return
		}
		c.blank.again = c.now + blankRetry
		clear(c.blank.heard)
	}
	for _, id := range c.cfg.Peers {
		if _, ok := c.blank.heard[id]; ok || id == c.cfg.ID {
			continue
		}
		c.out.Messages = append(c.out.Messages, Message{
			Type: MsgProbe, From: c.cfg.ID, To: id, LogTerm: c.blank.members,
			Context: binary.BigEndian.AppendUint64(nil, c.blank.nonce),
		})
	}
}

// answerProbe tells a blank replica what it has to know. Raft's term and last index in memory are at least those on disk, and everything that this
// replica ever acknowledged is in them, unless it has lost that itself: then it does not call its log empty.
func (c *Core) answerProbe(m *Message) {
	if len(m.Context) != 8 {
		return
	}
	if c.rn != nil && (c.conf.Joint() || !slices.Equal(c.members, c.cfg.Peers) || c.membersMayHaveChanged()) {
		return // the first members are not all that count any more, or may not be: a lost member has to be replaced by a new one
	}
	members := hashMembers(c.cfg.Peers)
	if m.LogTerm != members {
		c.warnMembers(m.From)
		return
	}
	r := Message{Type: MsgProbeReply, From: c.cfg.ID, To: m.From, LogTerm: members, Context: m.Context}
	if c.rn != nil {
		r.Term, r.Index = c.state.term, c.last
		r.Reject = c.recover != 0 // which raft does not use here
		if r.Reject {
			r.Index = max(r.Index, 1)
		}
	}
	c.out.Messages = append(c.out.Messages, r)
}

// membersMayHaveChanged reports whether there is a change of the membership in the log that is not applied. It may be committed, and this replica a member no more, without its knowledge.
func (c *Core) membersMayHaveChanged() bool {
	changed := false
	err := scan(c.cfg.Log, max(c.applied+1, c.cfg.Log.FirstIndex()), c.cfg.Log.LastIndex(), func(e *raftpb.Entry) error {
		if e.Type == raftpb.EntryNormal {
			return nil
		}
		cc, err := decodeConfChange(e)
		if err != nil {
			return err
		}
		if _, _, ok := syncStep(cc); !ok {
			changed = true
		}
		return nil
	})
	if err != nil {
		c.cfg.Logger.Error("cannot read the log to answer a replica that lost its own", "err", err)
		return true
	}
	return changed
}

func (c *Core) warnMembers(from uint64) {
	if !c.blank.warned {
		c.blank.warned = true
		c.cfg.Logger.Error("another replica was configured with other members; they must be the same everywhere", "peer", from, "members", c.cfg.Peers)
	}
}

func (c *Core) stepProbeReply(m *Message) {
	if c.rn != nil || c.blank.entered || len(m.Context) != 8 || binary.BigEndian.Uint64(m.Context) != c.blank.nonce {
		return
	}
	if m.LogTerm != c.blank.members {
		c.warnMembers(m.From)
		return
	}
	if c.blank.heard == nil {
		c.blank.heard = make(map[uint64]probeReply)
	}
	c.blank.heard[m.From] = probeReply{term: m.Term, last: m.Index, recovering: m.Reject}
	c.tryEnter()
}

// tryEnter takes part once every other member has answered, if so many have what they had that one of them is among any majority.
func (c *Core) tryEnter() {
	var term, last uint64
	without := 1
	for _, id := range c.cfg.Peers {
		if id == c.cfg.ID {
			continue
		}
		r, ok := c.blank.heard[id]
		if !ok {
			return
		}
		term, last = max(term, r.term), max(last, r.last)
		if !r.knows() {
			without++
		}
	}
	if 2*without > len(c.cfg.Peers) {
		if !c.blank.lost {
			c.blank.lost, c.blank.again = true, c.now+blankRetry
			c.cfg.Logger.Error("THE FILES OF THIS COPY ARE GONE, and those of most others, or they have not yet got back what was in theirs: it takes no part, as to go on would be to forget what was acknowledged",
				"members", len(c.cfg.Peers), "without", without)
		}
		return
	}
	// In term and before, this replica may have voted. In term+1 it votes for itself, and so never for another.
	c.blank.entered = true
	c.blank.hs = raftpb.HardState{Term: term + 1, Vote: c.cfg.ID}
	c.blank.meta = Meta{Conf: ConfState{Voters: c.cfg.Peers}, Files: c.cfg.Files}
	if last > 0 {
		c.blank.meta.Recover = term + 1
	}
	c.cfg.Logger.Warn("a replica whose files are gone takes part", "term", term+1, "recover", c.blank.meta.Recover, "members_without_files", without)
	c.out.Appends = append(c.out.Appends, AppendWork{Meta: &c.blank.meta, HardState: c.blank.hs, Sync: true})
}

// blankDone takes part for real: the Meta and the hard state are durable.
func (c *Core) blankDone(w *AppendWork) {
	if err := c.enter(*w.Meta, w.HardState); err != nil {
		panic("replica: " + err.Error())
	}
	c.resetElection(c.now)
	c.after()
}
