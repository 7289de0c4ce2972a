package replica

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"
)

// Role is a replica's part in its group.
type Role uint8

// The roles.
const (
	// RoleBlank: has lost its state and waits for answers of all other members.
	RoleBlank Role = iota
	RoleFollower
	RoleCandidate
	RoleLeader
)

func (r Role) String() string {
	return [...]string{"blank", "follower", "candidate", "leader"}[r&3]
}

// Status describes a replica at one moment.
type Status struct {
	ID     uint64
	Role   Role
	Term   uint64
	Leader uint64 // 0: none known
	// Commit is the last index known to be on a majority; Applied what the state machine has; Last the end of the log; First its begin.
	First, Last, Commit, Applied uint64
	// Serving reports whether the replica may answer; LeaseNS is what is left of the lease.
	Serving bool
	LeaseNS int64
	// Transferring: leadership is being handed over.
	Transferring bool
	// NeedsSnapshot: the state machine holds nothing valid. Recovering: its files were gone, and it may not vote or lead before its log has caught up.
	NeedsSnapshot, Recovering bool
	// Voters and Learners are the configuration as of the entry ConfIndex. While it is Joint, on its way from one set of voters to another, Outgoing are those of before, and
	// decisions take a majority of both.
	Voters, Outgoing, Learners []uint64
	Joint                      bool
	ConfIndex                  uint64
	// Reluctant: see SetReluctant.
	Reluctant bool
	// Out are, in a group with a witness, the data members that may lack something that is committed: what the log says, and the leader knows a little more. OneCopy: so the newest data
	// has one copy, and its loss is a loss of data; InSync: every data member has everything.
	Out             []uint64
	OneCopy, InSync bool
	Peers           []PeerStatus
	// MissedTicks counts ticks that came late by a tick or more since the start; the driver fills it in, as it does Installing.
	MissedTicks uint64
	Installing  bool
	// InstalledBytes is how much of a snapshot was received.
	InstalledBytes int64
}

// PeerStatus is what a replica knows of another; most of it the leader only.
type PeerStatus struct {
	ID uint64
	// Active: heard of within an election timeout. SeenNS is for how long it was not heard of; -1: never.
	Active bool
	SeenNS int64
	Voter  bool
	// Learner: it gets everything and has no vote, as a member that is being added does until it has caught up.
	Learner bool
	// Witness: it holds no data.
	Witness bool
	// Match is the last index known to be in its log, Lag how many entries it lacks, Applied what its state machine has.
	Match, Lag, Applied uint64
	// InSync: it is sent entries as they come and lacks none that is committed.
	InSync        bool
	Snapshot      bool // it is being sent a snapshot
	SnapshotBytes int64
	NeedsSnapshot bool
	Recovering    bool
	Blank         bool
	// Reluctant: it would rather not lead.
	Reluctant bool
	// Report is what its SetReport was given.
	Report []byte
}

// Status describes the replica at now.
func (c *Core) Status(now int64) Status {
	s := Status{
		ID: c.cfg.ID, Term: c.state.term, Leader: c.state.lead,
		First: c.cfg.Log.FirstIndex(), Last: c.last, Applied: c.applied,
		Serving: c.Serving(now), Transferring: c.transfer.active,
		NeedsSnapshot: c.install.needed, Recovering: c.recover != 0, Installing: c.install.active,
		Voters: c.voters[0], Outgoing: c.voters[1], Learners: c.conf.Learners, Joint: c.conf.Joint(), ConfIndex: c.confIndex,
		Reluctant: c.reluctant,
	}
	if end := c.ServingUntil(); end > now {
		s.LeaseNS = end - now
	}
	if c.rn == nil {
		s.Voters = c.cfg.Peers
		return s
	}
	s.Commit = c.rn.BasicStatus().Commit
	if len(c.witnesses) > 0 {
		s.Out = c.outNow()
		s.InSync = len(s.Out) == 0
		s.OneCopy = len(c.dataVoters())-len(s.Out) <= 1
	}
	switch c.state.role {
	case raft.StateLeader:
		s.Role = RoleLeader
	case raft.StateFollower:
		s.Role = RoleFollower
	default:
		s.Role = RoleCandidate
	}
	var progress map[uint64]tracker.Progress
	if s.Role == RoleLeader {
		progress = c.rn.Status().Progress
	}
	for _, id := range c.members {
		if id != c.cfg.ID {
			s.Peers = append(s.Peers, c.peerStatus(now, id, progress, s.Commit))
		}
	}
	return s
}

func (c *Core) peerStatus(now int64, id uint64, progress map[uint64]tracker.Progress, commit uint64) PeerStatus {
	ps := PeerStatus{ID: id, SeenNS: -1, Voter: c.inVoters(id), Learner: slices.Contains(c.conf.Learners, id), Witness: c.isWitness(id)}
	if p := c.peers[id]; p != nil && p.seen != 0 {
		ps.SeenNS = now - p.seen
		ps.Active = ps.SeenNS < c.electionTimeout()
		ps.Blank = p.blank
		ps.Applied, ps.Report = p.report.applied, p.report.report
		ps.NeedsSnapshot = p.report.flags&flagNeedsSnapshot != 0
		ps.Recovering = p.report.flags&flagRecovering != 0
		ps.Reluctant = p.report.flags&flagReluctant != 0
	}
	_, ps.Snapshot = c.sends[id]
	if pr, ok := progress[id]; ok {
		ps.Match = pr.Match
		ps.Lag = c.last - min(c.last, pr.Match)
		ps.InSync = ps.Active && pr.State == tracker.StateReplicate && pr.Match >= commit && !ps.NeedsSnapshot
	}
	return ps
}
