package replica

import (
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// Errors of a Core and a Replica.
var (
	// ErrNotLeader is returned by a replica that is not its group's leader, or not ready to serve yet.
	ErrNotLeader = errors.New("replica: not the leader")
	// ErrTransferring is returned while a leader hands over.
	ErrTransferring = errors.New("replica: leadership is being handed over")
	// ErrNoSuccessor is returned by TransferLeader when nobody can take over.
	ErrNoSuccessor = errors.New("replica: no member is able to take over")
	// ErrSnapshotRefused is returned to the sender of a snapshot that the receiver has no use for.
	ErrSnapshotRefused = errors.New("replica: snapshot refused")
)

// CoreConfig is what a Core starts from. Replica fills it from the log, the Meta and the state machine; see Start there.
type CoreConfig struct {
	// ID is this replica's number in the group, not 0.
	ID uint64
	// Peers are the members of the group's first configuration; the same everywhere. A replica without Meta must be among them.
	Peers  []uint64
	Timing Timing
	// Log is the stable log.
	Log LogReader
	// HardState is the log's, with Commit raised to Applied.
	HardState raftpb.HardState
	// Meta is the replica's Meta, with Conf containing every change up to Applied; nil if it is blank.
	Meta *Meta
	// Files says whose files it begins if it is blank.
	Files Files
	// Applied is the state machine's applied index; 0 if it holds nothing valid.
	Applied uint64
	// Invalid tells that an installation was begun and not finished, so that not even an empty state is there to apply the log to.
	Invalid bool
	// Seed makes the random choices: election timeouts and the nonce of a blank replica.
	Seed uint64
	// MessageBytes bounds the entries in one message; InflightBytes those sent to one follower and not acknowledged, and those proposed and
	// not applied. 0 picks a default.
	MessageBytes, InflightBytes uint64
	// ApplyBytes bounds the committed entries handed out for applying and not applied.
	ApplyBytes uint64
	// FullMembers and SyncTimeout are Config's.
	FullMembers bool
	SyncTimeout time.Duration
	// Logger gets what raft has to say. Not nil.
	Logger *slog.Logger
}

// Defaults of CoreConfig. 32 MiB in flight fill a link of 10 Gbit/s with a round trip of 25 ms.
const (
	DefaultMessageBytes  = 1 << 20
	DefaultInflightBytes = 32 << 20
	DefaultApplyBytes    = 16 << 20

	maxInflightMessages = 1024
)

func (c CoreConfig) withDefaults() CoreConfig {
	c.Timing = c.Timing.withDefaults()
	orDefault(&c.SyncTimeout, DefaultSyncTimeout)
	setDefault := func(v *uint64, d uint64) {
		if *v == 0 {
			*v = d
		}
	}
	setDefault(&c.MessageBytes, DefaultMessageBytes)
	setDefault(&c.InflightBytes, max(DefaultInflightBytes, c.MessageBytes))
	setDefault(&c.ApplyBytes, DefaultApplyBytes)
	return c
}

// Core is one member of a raft group, without a world around it. Its methods must be called from one goroutine at a time; now is a monotonic time in
// nanoseconds that never goes back. After any call, Take returns what there is to do. A Core panics when an invariant is broken: the replica
// must stop then.
type Core struct {
	cfg  CoreConfig
	log  *logView
	rn   *raft.RawNode // nil while blank
	rng  *rand.Rand
	now  int64
	tick int64 // Timing.Tick in ns

	lastTick int64
	// state is raft's as of the last call, to notice changes.
	state state
	// peers has an element for each other member that was ever heard of.
	peers map[uint64]*peer
	// voters are the one or two majorities that a decision takes (two in a joint configuration); members is everybody, sorted.
	voters  [2][]uint64
	members []uint64

	election election
	lease    lease
	blank    blank
	transfer transfer
	install  install

	// last is the index of the last entry, stable or not. Raft's Ready is taken at the end of every call, so that it is always known.
	last uint64
	// applied is the last index that the state machine and the Core agree on.
	applied uint64
	// conf contains the membership changes up to confIndex.
	conf      ConfState
	confIndex uint64
	// confStable is a confIndex of which this replica will know after a restart that it is committed; confWrite: that is to be written.
	confStable uint64
	confWrite  bool
	// insync, gates and witnesses are of use in groups with a witness only; gates are those of this term. shownOut is what events told of conf.Out; ahead: see
	// LetWitnessesRunAhead.
	insync    insync
	gates     map[uint64]gate
	witnesses []uint64
	shownOut  []uint64
	ahead     bool
	// recover is the term of which an entry must be in the stable log before this replica votes; 0 if it may.
	recover uint64
	// reluctant: see SetReluctant.
	reluctant bool
	// proposedBytes are those proposed in this term and not applied.
	proposedBytes uint64
	// sends are the snapshots being sent: the index from which on the log is kept for each receiver.
	sends map[uint64]uint64
	// report is what the driver lets the leader know.
	report []byte

	out Output
}

// state is the part of raft's state whose changes matter.
type state struct {
	role raft.StateType
	term uint64
	lead uint64
}

// peer is what a member tells with its messages.
type peer struct {
	seen   int64 // when it was last heard of
	echo   int64 // our clock when we sent the newest heartbeat of this term that it answered with a promise
	gone   bool  // its process is known to be dead, and it was not heard of since
	blank  bool  // it probes, so it has no state
	report peerReport
	sync   peerSync
	// retry is when a snapshot may be sent again after one failed.
	retry int64
	// sent is the index of the last entry sent to it in this term, 0 if there was none; commit is a message of this term that was held back, see holdCommit.
	sent   uint64
	commit *Message
}

// ErrFilesGone is why a replica does not start that has lost its files and must not come back without them.
var ErrFilesGone = errors.New("its files are gone")

// NewCore returns a Core for a replica that starts at now.
func NewCore(now int64, cfg CoreConfig) (*Core, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Timing.validate(); err != nil {
		return nil, err
	}
	if cfg.Meta == nil && !slices.Contains(cfg.Peers, cfg.ID) {
		return nil, fmt.Errorf("replica: %w: %d is not among the first members %v, who could be asked what it has forgotten: it has to be added as a new member", ErrFilesGone, cfg.ID, cfg.Peers)
	}
	cfg.Peers = slices.Clone(cfg.Peers)
	slices.Sort(cfg.Peers)
	c := &Core{
		cfg:      cfg,
		rng:      rand.New(rand.NewPCG(cfg.Seed, cfg.ID)),
		now:      now,
		tick:     int64(cfg.Timing.Tick),
		lastTick: now,
		peers:    make(map[uint64]*peer),
		sends:    make(map[uint64]uint64),
		gates:    make(map[uint64]gate),
		log:      &logView{log: cfg.Log},
	}
	c.log.snapshot = c.snapshotSource
	// Whatever this replica promised before it stopped, it promised for no longer than this.
	c.lease.promisedUntil = now + int64(cfg.Timing.Lease)
	c.resetElection(now)
	if cfg.Meta == nil {
		c.blank.nonce = c.rng.Uint64()
		c.blank.members = hashMembers(cfg.Peers)
		c.members = cfg.Peers
		c.tryEnter()
		return c, nil
	}
	if err := c.enter(*cfg.Meta, cfg.HardState); err != nil {
		return nil, err
	}
	return c, nil
}

// enter makes the replica a member that takes part.
func (c *Core) enter(m Meta, hs raftpb.HardState) error {
	c.recover = m.Recover
	c.conf, c.confIndex = m.Conf, m.ConfIndex
	c.shownOut = c.conf.Out
	c.log.hs, c.log.conf = hs, c.conf.raft()
	c.applied = c.cfg.Applied
	first := c.cfg.Log.FirstIndex()
	if c.applied+1 < first || c.cfg.Invalid {
		// The state machine holds nothing that the log continues. Take part in everything but applying and leading.
		c.install.needed = true
	}
	c.last = c.cfg.Log.LastIndex()
	term, err := c.log.Term(c.last)
	if err != nil {
		return fmt.Errorf("read the last term of the log: %w", err)
	}
	c.noteStable(term)
	rn, err := raft.NewRawNode(&raft.Config{
		ID: c.cfg.ID,
		// Raft's own clock ticks while this replica leads only: its election timeouts are drawn from a source that no seed controls, and it
		// knows nothing of promises.
		ElectionTick:              c.cfg.Timing.ElectionTicks,
		HeartbeatTick:             1,
		Storage:                   c.log,
		Applied:                   max(c.applied, first-1),
		AsyncStorageWrites:        true,
		MaxSizePerMsg:             c.cfg.MessageBytes,
		MaxCommittedSizePerReady:  c.cfg.ApplyBytes,
		MaxUncommittedEntriesSize: 4 * c.cfg.InflightBytes,
		MaxInflightMsgs:           maxInflightMessages,
		MaxInflightBytes:          c.cfg.InflightBytes,
		CheckQuorum:               true,
		PreVote:                   true,
		DisableProposalForwarding: true,
		Logger:                    raftLogger{c.cfg.Logger},
	})
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	c.rn = rn
	st := rn.BasicStatus()
	c.state = state{role: st.RaftState, term: st.Term, lead: st.Lead}
	c.setMembers()
	return nil
}

// noteStable notes that the stable log ends in an entry of term.
func (c *Core) noteStable(term uint64) {
	if c.recover != 0 && term >= c.recover {
		c.recover = 0
	}
}

// setMembers caches what conf says.
func (c *Core) setMembers() {
	c.voters = [2][]uint64{slices.Clone(c.conf.Voters), slices.Clone(c.conf.VotersOutgoing)}
	m := slices.Concat(c.conf.Voters, c.conf.VotersOutgoing, c.conf.Learners, c.conf.LearnersNext)
	slices.Sort(m)
	c.members = slices.Compact(m)
	c.confWrite = c.confIndex > 0
	c.witnesses = slices.DeleteFunc(slices.Clone(c.members), func(id uint64) bool { return !c.isWitness(id) })
	for id := range c.gates {
		if !slices.Contains(c.witnesses, id) {
			delete(c.gates, id)
		}
	}
	c.noteOut()
	// A lease counts the promises of the new voters only (DESIGN.md, "Membership").
	c.lease.end = 0
	c.renewLease()
}

// peer returns what is known of a member.
func (c *Core) peer(id uint64) *peer {
	p := c.peers[id]
	if p == nil {
		p = &peer{}
		c.peers[id] = p
	}
	return p
}

// known reports whether a message may come from id. That is any other node of the cluster, which the transport has made sure of: a member may have been added by
// an entry that did not come here yet, and a replica that joins hears of the group from whoever leads it.
func (c *Core) known(id uint64) bool { return id != c.cfg.ID && id != 0 }

// forgetPeers drops what was noted about those that are no members any more.
func (c *Core) forgetPeers() {
	for id := range c.peers {
		if !slices.Contains(c.members, id) && !slices.Contains(c.cfg.Peers, id) {
			delete(c.peers, id)
		}
	}
}

// Tick tells the time. It should be called every Timing.Tick.
func (c *Core) Tick(now int64) {
	c.now = now
	late := now - c.lastTick
	c.lastTick = now
	if late > 3*c.tick {
		// This replica itself stood still. What was said meanwhile is still to be read: hear it before blaming the leader.
		c.election.campaignAt = max(c.election.campaignAt, now+3*c.tick)
	}
	if c.rn == nil {
		c.tickBlank()
		return
	}
	if c.state.role == raft.StateLeader {
		c.rn.Tick()
		c.sendCommits()
		c.renewLease() // matters to a group of one only: others renew it with their answers
		c.tickTransfer()
		c.tickStandIn()
		c.tickRemoved()
		c.tickSync()
	} else {
		c.tickElection()
	}
	c.after()
}

// Step takes a message from another replica. Messages that make no sense are dropped.
func (c *Core) Step(now int64, m Message) {
	c.now = now
	if m.To != c.cfg.ID || !c.known(m.From) {
		return
	}
	p := c.peer(m.From)
	p.seen, p.gone = now, false
	switch m.Type {
	case MsgProbe:
		p.blank = true
		c.answerProbe(&m)
		return
	case MsgProbeReply:
		c.stepProbeReply(&m)
		return
	}
	p.blank = false
	if c.rn == nil || !c.admit(&m) {
		return
	}
	c.step(m)
	c.after()
}

// step hands a message to raft and notes what it tells about the leader.
func (c *Core) step(m Message) {
	vote := c.rn.BasicStatus().Vote
	if err := c.rn.Step(m); err != nil {
		c.cfg.Logger.Debug("raft ignores a message", "type", m.Type.String(), "from", m.From, "err", err)
		return
	}
	st := c.rn.BasicStatus()
	switch m.Type {
	case raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgSnap:
		if st.RaftState == raft.StateFollower && st.Term == m.Term && st.Lead == m.From {
			c.election.gone = false
			c.resetElection(c.now)
			if m.Type == raftpb.MsgHeartbeat {
				c.promise(&m)
			}
		}
	case raftpb.MsgVote:
		if st.Vote == m.From && vote != m.From {
			c.resetElection(c.now) // give the candidate time
		}
	}
}

// admit decides whether raft may see a message.
func (c *Core) admit(m *Message) bool {
	switch m.Type {
	case raftpb.MsgApp:
		return true
	case raftpb.MsgAppResp:
		// Raft makes a leader of an earlier term step down by an acknowledgement of nothing. One that is elected in the very term of it would take the follower's log for empty.
		return m.Reject || m.Index > 0 || m.Term != c.state.term
	case raftpb.MsgVoteResp, raftpb.MsgPreVoteResp:
		c.learnCommit(m)
		return true
	case raftpb.MsgHeartbeat:
		// A leader of this term that believes in more than there is knew this replica before it lost its disk. One of an earlier term has to hear
		// of this term, which makes it step down and forget what it knew (DESIGN.md, "A blank replica").
		return m.Commit <= c.last || m.Term < c.state.term
	case raftpb.MsgHeartbeatResp:
		c.takeEcho(m)
		m.Context = nil
		return true
	case raftpb.MsgVote, raftpb.MsgPreVote:
		c.learnCommit(m)
		return c.admitVote(m)
	case raftpb.MsgTimeoutNow:
		// Only the leader that this replica follows, in its term, and heard of since it started (DESIGN.md, "A late MsgTimeoutNow").
		return m.From == c.state.lead && m.Term == c.state.term && c.mayLead() && !c.install.needed
	}
	return false // MsgSnap comes by BeginInstall; others are not for the network
}

// after notices what has changed and brings Serving up to date.
func (c *Core) after() {
	st := c.rn.BasicStatus()
	now := state{role: st.RaftState, term: st.Term, lead: st.Lead}
	was := c.state
	c.state = now
	if was.lead != 0 && was.lead != now.lead && was.lead != c.cfg.ID {
		c.election.lost = was.lead
	}
	if now.role == raft.StateLeader && (was.role != raft.StateLeader || was.term != now.term) {
		c.startTerm()
	}
	if was.role == raft.StateLeader && now.role != raft.StateLeader {
		c.endTerm()
	}
	if now.lead != was.lead || now.term != was.term {
		if now.lead != was.lead && now.lead != 0 {
			c.election.gone = false
		}
		c.out.Events = append(c.out.Events, Event{Kind: LeaderChanged, Term: now.term, Leader: now.lead})
	}
	c.noteServing()
	c.collect()
}

// startTerm begins this replica's leadership.
func (c *Core) startTerm() {
	for _, p := range c.peers {
		p.echo, p.sent, p.commit = 0, 0, nil
	}
	c.proposedBytes = 0
	c.lease.firstOwn = c.last + 1 // the empty entry that raft has just appended
	c.lease.released = false
	c.lease.end = 0
	c.transfer = transfer{err: c.transfer.err}
	c.election.deferred = nil
	c.startSync()
	c.rn.Tick() // heartbeats at once: the lease begins with them
	c.renewLease()
}

func (c *Core) endTerm() {
	for _, p := range c.peers {
		p.commit = nil
	}
	clear(c.gates)
	c.insync = insync{}
	c.proposedBytes = 0
	c.lease.end = 0
	c.transfer.end()
	c.resetElection(c.now)
}

// mayLead reports whether this replica may campaign at all. One whose state machine is invalid may, as the last to try: it may be the only one that has
// the newest entries. It never serves, and hands over as soon as somebody else has them (tickStandIn).
func (c *Core) mayLead() bool {
	return c.rn != nil && c.recover == 0 && !c.install.active && !c.isWitness(c.cfg.ID)
}

// Propose appends data to the log as one entry each, and returns how many of them it took: fewer when too many bytes are under way. An entry that was
// taken may still be lost when this replica stops leading (LeaderLost). The slices belong to the log from then on.
func (c *Core) Propose(now int64, data [][]byte) (int, error) {
	c.now = now
	if c.rn == nil || c.state.role != raft.StateLeader || !c.lease.ready {
		return 0, ErrNotLeader
	}
	if c.transfer.active {
		return 0, ErrTransferring
	}
	taken := 0
	for taken < len(data) && c.proposedBytes < c.cfg.InflightBytes {
		n, size := 0, uint64(0)
		for _, d := range data[taken:] {
			if n > 0 && size+uint64(len(d)) > c.cfg.MessageBytes {
				break
			}
			n++
			size += uint64(len(d))
		}
		entries := make([]raftpb.Entry, n)
		for i, d := range data[taken : taken+n] {
			entries[i].Data = d
		}
		if err := c.rn.Step(Message{Type: raftpb.MsgProp, From: c.cfg.ID, Entries: entries}); err != nil {
			break // raft's own limit: try again when something was applied
		}
		c.proposedBytes += size
		taken += n
	}
	c.after()
	return taken, nil
}

// ProposeConfChange proposes a change of the membership.
func (c *Core) ProposeConfChange(now int64, cc raftpb.ConfChangeV2) error {
	c.now = now
	if c.rn == nil || c.state.role != raft.StateLeader || !c.lease.ready {
		return ErrNotLeader
	}
	if c.transfer.active {
		return ErrTransferring
	}
	if err := c.rn.ProposeConfChange(cc); err != nil {
		return fmt.Errorf("propose a change of membership: %w", err)
	}
	c.after()
	return nil
}

// Unreachable notes that messages to a member were lost.
func (c *Core) Unreachable(now int64, id uint64) {
	c.now = now
	if c.rn != nil {
		c.rn.ReportUnreachable(id)
		c.after()
	}
}

// SetReport sets what the leader gets to know of this replica with its heartbeats (Status.Peers); at most MaxReportBytes.
func (c *Core) SetReport(b []byte) { c.report = slices.Clone(b[:min(len(b), MaxReportBytes)]) }

func hashMembers(ids []uint64) uint64 {
	h := fnv.New64a()
	for _, id := range ids {
		fmt.Fprintf(h, "%d,", id)
	}
	return h.Sum64()
}
