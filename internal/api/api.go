// Package api is how programs and people talk to a running node: JSON over HTTP on a Unix socket in the node's data folder. The types here
// are what `-o json` prints.
package api

import (
	"context"
	"fmt"
	"time"
)

// SocketName is the name of the admin socket within a node's data folder.
const SocketName = "holdfast.sock"

// Status is one node's view of itself and of its peers.
type Status struct {
	Cluster string         `json:"cluster,omitempty"`
	Node    string         `json:"node"`
	ID      uint64         `json:"id"`
	Version string         `json:"version"`
	Started time.Time      `json:"started"`
	Nodes   []NodeStatus   `json:"nodes"`
	Volumes []VolumeStatus `json:"volumes"`
	// RSSBytes is the memory that the process holds.
	RSSBytes uint64 `json:"rss_bytes"`
	// Warnings are the things that a person should look at, worst first, each with what to do.
	Warnings []string `json:"warnings,omitempty"`
}

// NodeStatus is what this node knows of one member of the cluster.
type NodeStatus struct {
	Name  string    `json:"name"`
	ID    uint64    `json:"id"`
	Peer  string    `json:"peer"`
	State NodeState `json:"state"`
}

// NodeState is what a node knows of another's being there.
type NodeState string

// The values of NodeState. Followers exchange nothing with each other while there is a leader, so that a node that leads nothing knows of the leaders only.
const (
	NodeSelf    NodeState = "self"
	NodeAnswers NodeState = "answers"
	NodeSilent  NodeState = "silent"  // a leader hears nothing of it
	NodeUnknown NodeState = "unknown" // not asked from here
)

// VolumeStatus is one volume as this node sees it.
type VolumeStatus struct {
	Name    string `json:"name"`
	ID      uint32 `json:"id"`
	Address string `json:"address,omitempty"` // where clients mount
	Role    string `json:"role"`              // leader, follower, candidate, ...
	Leader  string `json:"leader"`            // name of the leader, empty if none is known
	Term    uint64 `json:"term"`
	Commit  uint64 `json:"commit_index"`
	Applied uint64 `json:"applied_index"`
	First   uint64 `json:"first_index"`
	Last    uint64 `json:"last_index"`
	// Serving tells that this node answers clients now: it leads, holds the lease and has applied an entry of its own term.
	Serving bool `json:"serving"`
	// LeaseMS is how long the lease still runs, in milliseconds; leader only.
	LeaseMS  int64           `json:"lease_ms"`
	Replicas []ReplicaStatus `json:"replicas,omitempty"` // as the leader sees them; leader only
	Clients  []ClientStatus  `json:"clients,omitempty"`  // leader only
	Exports  []string        `json:"exports"`
	Space    SpaceStatus     `json:"space"`
	Log      LogStatus       `json:"log"`
	// MissedTicks counts ticks that came late since the node started: a loaded or paused machine.
	MissedTicks uint64 `json:"missed_ticks"`
}

// ReplicaStatus is one copy of a volume as the leader sees it.
type ReplicaStatus struct {
	Node     string `json:"node"`
	ID       uint64 `json:"id"`
	Role     string `json:"role"`
	Match    uint64 `json:"match_index"`
	Lag      uint64 `json:"lag_entries"`
	Active   bool   `json:"active"`
	InSync   bool   `json:"in_sync"`
	Snapshot bool   `json:"snapshot,omitempty"` // a snapshot is being sent to it
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

// Error is what the API answers when it cannot do what was asked; Message says why and what to do.
type Error struct {
	Status  int    `json:"-"`
	Message string `json:"error"`
}

func (e *Error) Error() string { return e.Message }

// Errorf makes an Error with an HTTP status.
func Errorf(status int, format string, args ...any) *Error {
	return &Error{Status: status, Message: fmt.Sprintf(format, args...)}
}

// Backend is what the API needs of a node.
type Backend interface {
	Status(ctx context.Context) Status
	Check(ctx context.Context, volume string) (CheckResult, error)
	// Transfer moves the leadership of a volume to the named node, or to the best one if to is empty, and returns when the new leader is known.
	Transfer(ctx context.Context, volume, to string) (TransferResult, error)
}
