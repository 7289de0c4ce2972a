// Package api is how programs and people talk to a running node: JSON over HTTP, on a Unix socket in the node's data folder, and with a certificate of the cluster on the
// node's port. The types here are what `-o json` prints.
package api

import (
	"context"
	"fmt"
	"io"
	"time"

	"holdfast/internal/cluster"
	"holdfast/internal/config"
	"holdfast/internal/doctor"
)

// SocketName is the name of the admin socket within a node's data folder.
const SocketName = "holdfast.sock"

// Status is the cluster as one node sees it: its own state, and what the other nodes said when they were asked.
type Status struct {
	Cluster   string    `json:"cluster"`
	ClusterID string    `json:"cluster_id"`
	Node      string    `json:"node"` // who answers
	ID        uint64    `json:"id"`
	Role      string    `json:"role"`
	Release   string    `json:"release"`
	Started   time.Time `json:"started"`
	// Time is what the clock of the node that answers said when it did. Older releases leave it out.
	Time time.Time `json:"time,omitzero"`
	// ClusterVersion is what all nodes have agreed to; see package cluster.
	ClusterVersion uint32 `json:"cluster_version"`
	// Revision counts changes of the configuration.
	Revision uint64 `json:"revision"`
	// ClusterLeader leads the cluster's own group: without one nothing can be configured, but volumes are served.
	ClusterLeader string         `json:"cluster_leader"`
	Group         ClusterGroup   `json:"cluster_group"`
	Maintenance   string         `json:"maintenance,omitempty"` // why and until when, empty outside of it
	Nodes         []NodeStatus   `json:"nodes"`
	Volumes       []VolumeStatus `json:"volumes"`
	// RSSBytes is the memory that the answering process holds.
	RSSBytes uint64 `json:"rss_bytes"`
	// Removed says what to do if the node that answers is no node of the cluster any more, as far as it can tell; what it knows of the others is old then.
	Removed string `json:"removed,omitempty"`
	// DiskFreeBytes and DiskTotalBytes are those of the file system of the data folder of the node that answers.
	DiskFreeBytes  uint64 `json:"disk_free_bytes,omitempty"`
	DiskTotalBytes uint64 `json:"disk_total_bytes,omitempty"`
	// Warnings are the things that a person should look at, worst first, each with what to do.
	Warnings []string `json:"warnings,omitempty"`
}

// CutOff reports whether certificates stand between the node that answers and others, and no other answers it.
func (s *Status) CutOff() bool {
	apart := false
	for i := range s.Nodes {
		switch s.Nodes[i].State {
		case NodeAnswers:
			return false
		case NodeRefuses, NodeExpired:
			apart = true
		}
	}
	return apart
}

// ClusterGroup is the cluster's own group, which decides what is configured: as its leader sees it where the leader could be asked, otherwise as the answering node does.
type ClusterGroup struct {
	Role    string `json:"role"` // in the group, of the node that said this
	Term    uint64 `json:"term"`
	Serving bool   `json:"serving"` // it leads, and a majority is there
	// Changing: nodes come or go; until that is done, both the old and the new ones have to agree.
	Changing bool          `json:"changing,omitempty"`
	Voters   []VoterStatus `json:"voters"`
	// Majority is how many of the voters must be up and reach each other.
	Majority int `json:"majority"`
}

// VoterStatus is a node that votes in the cluster's own group.
type VoterStatus struct {
	Node string `json:"node"`
	ID   uint64 `json:"id"`
	// State is whether the leader hears of it or, where there is none, whether it answered.
	State NodeState `json:"state"`
}

// NodeStatus is one member of the cluster.
type NodeStatus struct {
	Name    string    `json:"name"`
	ID      uint64    `json:"id"`
	Role    string    `json:"role"` // data or witness
	Peer    string    `json:"peer"`
	Zone    string    `json:"zone,omitempty"`
	State   NodeState `json:"state"`
	Release string    `json:"release,omitempty"`
	Started time.Time `json:"started,omitzero"` // where the node could be asked
	Standby bool      `json:"standby,omitempty"`
	Leaving bool      `json:"leaving,omitempty"` // it is being removed or replaced
	// Expires is when its certificate ends; nodes renew theirs by themselves.
	Expires time.Time `json:"certificate_expires,omitzero"`
	// ClockOffset is by how much its clock is ahead of that of the node that answers, in nanoseconds; negative if it is behind. That is an estimate, wrong by
	// ClockUncertainty (nanoseconds) at most. It is absent of the answering node itself, and where the node did not tell its time.
	ClockOffset      *time.Duration `json:"clock_offset_ns,omitempty"`
	ClockUncertainty time.Duration  `json:"clock_uncertainty_ns,omitempty"`
}

// NodeState is what the answering node knows of another's being there.
type NodeState string

// The values of NodeState.
const (
	NodeSelf    NodeState = "self"
	NodeAnswers NodeState = "answers"
	NodeSilent  NodeState = "silent"
	NodeUnknown NodeState = "unknown" // nobody has asked yet
	NodeRefuses NodeState = "refuses" // it does not accept the certificate of the node that asked
	NodeExpired NodeState = "expired" // its certificate has ended, as the clock of the node that asked says
)

// Safety says how many more losses a volume survives, in a word.
type Safety string

// The values of Safety.
const (
	// SafetyFull: every copy that is wanted is in sync.
	SafetyFull Safety = "safe"
	// SafetyReduced: a copy is missing or behind, but another loss is survived.
	SafetyReduced Safety = "reduced"
	// SafetyNone: the next loss stops the volume, or loses the newest data.
	SafetyNone Safety = "at risk"
	// SafetyDown: nobody serves it.
	SafetyDown Safety = "down"
)

// VolumeStatus is one volume, as its leader sees it where the leader could be asked, otherwise as the answering node does.
type VolumeStatus struct {
	Name    string `json:"name"`
	ID      uint32 `json:"id"`
	Address string `json:"address,omitempty"` // where clients mount
	Role    string `json:"role"`              // of the node that gave these figures: leader, follower, candidate, ...
	Leader  string `json:"leader"`            // name of the leader, empty if none is known
	Safety  Safety `json:"safety"`
	Term    uint64 `json:"term"`
	Commit  uint64 `json:"commit_index"`
	Applied uint64 `json:"applied_index"`
	First   uint64 `json:"first_index"`
	Last    uint64 `json:"last_index"`
	// Serving tells that the leader answers clients now: it holds the lease and has applied an entry of its own term.
	Serving bool `json:"serving"`
	// OneCopy: of two data nodes one is lost, and the newest data is on the other only.
	OneCopy bool `json:"one_copy,omitempty"`
	// Changing: members come or go; until that is done, both the old and the new ones have to agree.
	Changing bool `json:"changing,omitempty"`
	// LeaseMS is how long the lease still runs, in milliseconds; leader only.
	LeaseMS  int64           `json:"lease_ms"`
	Copies   int             `json:"copies"` // wanted
	Members  []string        `json:"members"`
	Replicas []ReplicaStatus `json:"replicas,omitempty"` // as the leader sees them; leader only
	Clients  []ClientStatus  `json:"clients,omitempty"`  // leader only
	Exports  []string        `json:"exports"`
	// Published are the exports that this node's copy knows of; they follow Exports in moments.
	Published []string `json:"published,omitempty"`
	Prefer    []string `json:"prefer,omitempty"`
	// Placement says why the volume is led where it is.
	Placement string `json:"placement,omitempty"`
	// Problems say on which nodes the volume's copy is damaged or could not be opened, and why.
	Problems []string `json:"problems,omitempty"`
	// Gone names the nodes at which the files of the volume's copy were gone when they started, and that have not got them again.
	Gone []string `json:"gone,omitempty"`
	// NoRoom says which nodes have too little room for the copy that they should get, and what is missing.
	NoRoom []string `json:"no_room,omitempty"`
	// Check says how far a comparison of the copies is, while there is one.
	Check string `json:"check,omitempty"`
	// AddressProblem is why the address is not where it should be.
	AddressProblem string      `json:"address_problem,omitempty"`
	SizeBytes      uint64      `json:"size_bytes,omitempty"` // the limit; 0: none
	UsedBytes      uint64      `json:"used_bytes"`
	Space          SpaceStatus `json:"space"`
	Log            LogStatus   `json:"log"`
	// MissedTicks counts ticks that came late since the node started: a loaded or paused machine.
	MissedTicks uint64 `json:"missed_ticks"`
}

// ReplicaStatus is one copy of a volume as the leader sees it.
type ReplicaStatus struct {
	Node   string `json:"node"`
	ID     uint64 `json:"id"`
	Role   string `json:"role"`
	Match  uint64 `json:"match_index"`
	Lag    uint64 `json:"lag_entries"`
	Active bool   `json:"active"`
	InSync bool   `json:"in_sync"`
	// Learner: it is catching up and has no vote yet. Witness: it votes and keeps no data.
	Learner bool `json:"learner,omitempty"`
	Witness bool `json:"witness,omitempty"`
	// Snapshot: it is sent the whole state, of which SentBytes are over, at Rate bytes a second.
	Snapshot  bool    `json:"snapshot,omitempty"`
	SentBytes int64   `json:"sent_bytes,omitempty"`
	Rate      float64 `json:"rate,omitempty"`
	// Remaining is how long it will take at that rate, in seconds; 0: not known.
	Remaining float64 `json:"remaining_seconds,omitempty"`
}

// ClientStatus is one NFSv4 client.
type ClientStatus struct {
	ID       string `json:"id"`
	Owner    string `json:"owner"`
	Address  string `json:"address"`
	Sessions int    `json:"sessions"`
	Opens    int    `json:"opens"`
	Locks    int    `json:"locks"`
}

// SpaceStatus is the room on the file system that holds the volume here.
type SpaceStatus struct {
	FreeBytes  uint64 `json:"free_bytes"`
	TotalBytes uint64 `json:"total_bytes"`
	Full       bool   `json:"full"` // growth is refused: a replica is below its reserve
	// Low are the nodes whose replicas are below it, as far as the leader knows.
	Low []string `json:"low,omitempty"`
}

// LogStatus is the raft log's size here.
type LogStatus struct {
	Segments   int    `json:"segments"`
	Bytes      uint64 `json:"bytes"`
	LastSyncUS int64  `json:"last_sync_us"`
}

// ReplicaDigest is the state of one copy at one index.
type ReplicaDigest struct {
	Node  string `json:"node"`
	Index uint64 `json:"index"`
	// Digest is a SHA-256 of the whole state, file data included, in hex; empty if Error is set.
	Digest string `json:"digest,omitempty"`
	Error  string `json:"error,omitempty"`
	// Damaged: there is no digest because the copy could not be read.
	Damaged bool `json:"damaged,omitempty"`
}

// CheckResult is the outcome of comparing a volume's replicas.
type CheckResult struct {
	Volume   string          `json:"volume"`
	Equal    bool            `json:"equal"`
	Replicas []ReplicaDigest `json:"replicas"`
	// Missing names the nodes that could not be asked.
	Missing []string `json:"missing,omitempty"`
}

// TransferResult is the outcome of a planned move of a volume's leadership.
type TransferResult struct {
	Volume  string  `json:"volume"`
	From    string  `json:"from"`
	To      string  `json:"to"`
	Seconds float64 `json:"seconds"`
}

// LeaderResult is who leads a volume, as a node that keeps it knows.
type LeaderResult struct {
	ID   uint32 `json:"id"`   // the volume's
	Node uint64 `json:"node"` // its number; 0: nobody
	Term uint64 `json:"term"` // in which that was so
}

// Error is what the API answers when it cannot do what was asked; Message says why and what to do.
type Error struct {
	Status  int    `json:"-"`
	Message string `json:"error"`
}

// Error returns Message.
func (e *Error) Error() string { return e.Message }

// Errorf makes an Error with an HTTP status.
func Errorf(status int, format string, args ...any) *Error {
	return &Error{Status: status, Message: fmt.Sprintf(format, args...)}
}

// TokenRequest asks for a join token.
type TokenRequest struct {
	Role     string        `json:"role"`               // data or witness
	Lifetime time.Duration `json:"lifetime_ns"`        // how long it can be used
	Replaces string        `json:"replaces,omitempty"` // the node whose place the new one takes
}

// TokenResult is a new join token.
type TokenResult struct {
	ID      string    `json:"id"`
	Token   string    `json:"token"` // to be given to `holdfast join`; it is shown once
	Expires time.Time `json:"expires"`
	// Address is where the new node can join: the answering node's peer address.
	Address string `json:"address"`
}

// CertificateRequest asks for an administrator's certificate, with which the API can be used from elsewhere.
type CertificateRequest struct {
	Name     string        `json:"name"`
	Lifetime time.Duration `json:"lifetime_ns"`
	// Request is a certificate signing request (PEM); its key stays with whoever asks.
	Request string `json:"request"`
}

// CertificateResult is a certificate with those of the authority, in PEM.
type CertificateResult struct {
	Certificate string    `json:"certificate"`
	CA          string    `json:"ca"`
	Serial      string    `json:"serial"`
	Expires     time.Time `json:"expires"`
}

// Explanation says why a volume is where it is.
type Explanation struct {
	Volume    string          `json:"volume"`
	Leader    string          `json:"leader"`
	Since     time.Time       `json:"since,omitzero"` // when this leader took over
	Placement string          `json:"placement"`      // why it is led there now
	Members   []string        `json:"members"`
	Plan      string          `json:"plan,omitempty"` // what the cluster is about to do with it
	Events    []cluster.Event `json:"events"`         // of this volume, the newest last
}

// BackupOptions say what a backup holds.
type BackupOptions struct {
	// Since is the index of the backup that this one continues; 0 for a full one.
	Since uint64
	// Here: read the asked node's own copy, and no other.
	Here bool
}

// Backend is what the API needs of a node. Whatever has to be done by a leader elsewhere, the node passes on.
type Backend interface {
	// Status tells of the whole cluster, or of this node alone if local is set.
	Status(ctx context.Context, local bool) Status
	// State is what is configured, without secrets.
	State(ctx context.Context) (*cluster.State, error)
	// Events returns the events after a sequence number, and waits for one if wait is set and there is none.
	Events(ctx context.Context, after uint64, wait bool) ([]cluster.Event, error)
	// Do executes a command of the cluster: it returns when this node has applied it, with what became of it. by is who asks, for the events.
	Do(ctx context.Context, by string, cmd cluster.Command) (cluster.Result, error)
	// Token makes a token with which one machine can join.
	Token(ctx context.Context, by string, r TokenRequest) (TokenResult, error)
	// NodeCertificate renews a node's certificate; node is the one that asks.
	NodeCertificate(ctx context.Context, node uint64, request string) (CertificateResult, error)
	// AdminCertificate signs a certificate for an administrator.
	AdminCertificate(ctx context.Context, by string, r CertificateRequest) (CertificateResult, error)
	// Check compares the copies of a volume. Like Transfer and Explain it is passed on to the volume's leader; by is who asks.
	Check(ctx context.Context, by, volume string) (CheckResult, error)
	// Transfer moves the leadership of a volume to the named node, or to the best one if to is empty, and returns when the new leader serves.
	Transfer(ctx context.Context, by, volume, to string) (TransferResult, error)
	// Explain says why a volume is where it is.
	Explain(ctx context.Context, by, volume string) (Explanation, error)
	// Leader says who leads a volume that the asked node keeps a copy of, as soon as that is somebody else than the node known; otherwise after a few seconds.
	Leader(ctx context.Context, volume string, known uint64) (LeaderResult, error)
	// Backup writes a backup of a volume to w.
	Backup(ctx context.Context, by, volume string, o BackupOptions, w io.Writer) error
	// Restore makes a volume from backups, a full one and those that continue it, which r yields one after the other.
	Restore(ctx context.Context, by string, spec config.VolumeSpec, r io.Reader) error
	// Doctor says what is wrong with this node's machine.
	Doctor(ctx context.Context) ([]doctor.Result, error)
}
