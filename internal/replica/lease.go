package replica

import (
	"encoding/binary"
	"math"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// lease is both sides of the leader lease: what this replica promised, and what others promised to it.
//
// A heartbeat carries the leader's clock when it was sent. A follower that accepts it promises, until the lease's length after it was received, not to
// campaign and not to vote for another, and returns the leader's clock value. The leader's lease reaches to the newest value that a majority
// returned, plus the lease's length, less the drift. As sending came before receiving, the leader's lease ends before the promises.
type lease struct {
	promisedUntil int64
	promisedTo    uint64 // 0: to nobody, but bound all the same (after a start)

	// end is until when the leader's lease lasts by its own clock.
	end int64
	// firstOwn is the index of the first entry of the leader's term.
	firstOwn uint64
	// released: given up for a transfer; it does not come back in this term.
	released bool
	// ready: LeaderReady was sent for readyTerm and not taken back; lapsed: LeaseLapsed was sent and not taken back.
	ready, lapsed bool
	readyTerm     uint64
}

// Context of a MsgHeartbeat: the leader's clock and the length of the promise asked for, in ns.
// Context of a MsgHeartbeatResp: the clock value returned (0: no promise), the sender's applied index, the index of the last change of membership that it durably
// knows to be committed, flags, and its report.
const (
	heartbeatBytes = 16
	echoBytes      = 25

	flagNeedsSnapshot = 1 // the state machine holds nothing valid
	flagRecovering    = 2 // may not vote or lead yet
	flagReluctant     = 4 // should rather not lead
)

// MaxReportBytes is the most that SetReport takes.
const MaxReportBytes = 64

// peerReport is what a member says about itself in its answers to heartbeats.
type peerReport struct {
	applied uint64
	conf    uint64
	flags   byte
	report  []byte
}

func (c *Core) heartbeatContext() []byte {
	b := make([]byte, 0, heartbeatBytes)
	b = binary.BigEndian.AppendUint64(b, uint64(c.now))
	return binary.BigEndian.AppendUint64(b, uint64(c.cfg.Timing.Lease))
}

// promised returns the clock value of a heartbeat that asks for a promise which this replica can make. After a restart it keeps away for its own
// lease time, so it cannot promise more than that.
func (c *Core) promised(context []byte) (sent uint64, ok bool) {
	if len(context) < heartbeatBytes {
		return 0, false
	}
	want := binary.BigEndian.Uint64(context[8:])
	return binary.BigEndian.Uint64(context), want <= uint64(c.cfg.Timing.Lease)
}

// promise binds this replica to the leader whose heartbeat it has just accepted.
func (c *Core) promise(m *Message) {
	if _, ok := c.promised(m.Context); !ok {
		return
	}
	c.lease.promisedUntil = max(c.lease.promisedUntil, c.now+int64(c.cfg.Timing.Lease))
	c.lease.promisedTo = m.From
	c.election.deferred = nil
}

// echoContext makes the context of a MsgHeartbeatResp of the one that raft copied from the heartbeat. The promise was made when the heartbeat was stepped.
func (c *Core) echoContext(heartbeat []byte) []byte {
	sent, ok := c.promised(heartbeat)
	if !ok {
		sent = 0
	}
	var flags byte
	if c.install.needed {
		flags |= flagNeedsSnapshot
	}
	if c.recover != 0 {
		flags |= flagRecovering
	}
	if c.reluctant {
		flags |= flagReluctant
	}
	b := make([]byte, 0, echoBytes+len(c.report))
	b = binary.BigEndian.AppendUint64(b, sent)
	b = binary.BigEndian.AppendUint64(b, c.applied)
	b = binary.BigEndian.AppendUint64(b, c.confStable)
	b = append(b, flags)
	return append(b, c.report...)
}

// takeEcho notes the answer to a heartbeat.
func (c *Core) takeEcho(m *Message) {
	if c.state.role != raft.StateLeader || m.Term != c.state.term || len(m.Context) < echoBytes {
		return
	}
	p := c.peer(m.From)
	p.report = peerReport{
		applied: binary.BigEndian.Uint64(m.Context[8:]),
		conf:    binary.BigEndian.Uint64(m.Context[16:]),
		flags:   m.Context[24],
		report:  slices.Clone(m.Context[echoBytes:min(len(m.Context), echoBytes+MaxReportBytes)]),
	}
	// A value from the future was not sent by us.
	if sent := int64(binary.BigEndian.Uint64(m.Context)); sent > p.echo && sent <= c.now {
		p.echo = sent
		c.renewLease()
	}
	if p.report.flags&flagNeedsSnapshot != 0 {
		c.offerSnapshot(m.From)
	}
}

// renewLease computes until when a majority (both, in a joint configuration) keeps its promise to this leader.
func (c *Core) renewLease() {
	if c.state.role != raft.StateLeader {
		return
	}
	oldest := int64(math.MaxInt64)
	for _, voters := range c.voters {
		if len(voters) == 0 {
			continue
		}
		sent := make([]int64, 0, 8)
		for _, id := range voters {
			switch p := c.peers[id]; {
			case id == c.cfg.ID:
				sent = append(sent, c.now)
			case p != nil:
				sent = append(sent, p.echo)
			default:
				sent = append(sent, 0)
			}
		}
		slices.Sort(sent)
		majority := len(sent)/2 + 1
		oldest = min(oldest, sent[len(sent)-majority])
	}
	if oldest == 0 || oldest == math.MaxInt64 {
		return
	}
	c.lease.end = max(c.lease.end, oldest+int64(c.cfg.Timing.Lease-c.cfg.Timing.Drift))
}

// ServingUntil returns until when this replica may serve by what it knows now: the end of its lease if it leads, has applied an entry of its
// term and has not released the lease; otherwise 0.
func (c *Core) ServingUntil() int64 {
	if c.state.role != raft.StateLeader || c.lease.released || c.applied < c.lease.firstOwn || c.install.needed {
		return 0
	}
	return c.lease.end
}

// Serving reports whether this replica may answer from its own state at now.
func (c *Core) Serving(now int64) bool { return now < c.ServingUntil() }

// Term returns the term that this replica is in, 0 if it is blank.
func (c *Core) Term() uint64 { return c.state.term }

// noteServing sends the events about leadership.
func (c *Core) noteServing() {
	l := &c.lease
	if l.ready && (c.state.role != raft.StateLeader || c.state.term != l.readyTerm || l.released) {
		l.ready, l.lapsed = false, false
		c.event(LeaderLost, l.readyTerm)
	}
	serving := c.Serving(c.now)
	switch {
	case serving && !l.ready:
		l.ready, l.readyTerm = true, c.state.term
		c.event(LeaderReady, l.readyTerm)
	case serving && l.lapsed:
		l.lapsed = false
		c.event(LeaseRegained, l.readyTerm)
	case l.ready && !serving && !l.lapsed:
		l.lapsed = true
		c.event(LeaseLapsed, l.readyTerm)
	}
}

func (c *Core) event(kind EventKind, term uint64) {
	c.out.Events = append(c.out.Events, Event{Kind: kind, Term: term})
}

// dress puts our part into raft's heartbeats on their way out.
func (c *Core) dress(m *Message) {
	switch m.Type {
	case raftpb.MsgHeartbeat:
		m.Context = c.heartbeatContext()
	case raftpb.MsgHeartbeatResp:
		m.Context = c.echoContext(m.Context)
	case raftpb.MsgVoteResp, raftpb.MsgPreVoteResp:
		if m.Reject {
			c.tellCommit(m)
		}
	}
}
