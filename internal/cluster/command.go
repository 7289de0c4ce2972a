package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"holdfast/internal/config"
	"holdfast/internal/replica"
)

// Command is an entry of the cluster's log: exactly one of the pointers is set.
type Command struct {
	// Time is the leader's clock when it proposed; By who asked for it, for the events.
	Time time.Time `json:"time"`
	By   string    `json:"by,omitempty"`
	// ID tells the proposer which entry is its own.
	ID string `json:"id,omitempty"`
	// What says in words what a configuration changes, for the events.
	What string `json:"what,omitempty"`

	Init           *Init           `json:"init,omitempty"`
	AddToken       *Token          `json:"add_token,omitempty"`
	RemoveToken    *RemoveToken    `json:"remove_token,omitempty"`
	AddNode        *AddNode        `json:"add_node,omitempty"`
	ReportNode     *ReportNode     `json:"report_node,omitempty"`
	SetNode        *SetNode        `json:"set_node,omitempty"`
	RemoveNode     *RemoveNode     `json:"remove_node,omitempty"`
	ForgetNode     *ForgetNode     `json:"forget_node,omitempty"`
	Revoke         *Revocation     `json:"revoke,omitempty"`
	SetMaintenance *SetMaintenance `json:"set_maintenance,omitempty"`
	AddVolume      *AddVolume      `json:"add_volume,omitempty"`
	SetVolume      *SetVolume      `json:"set_volume,omitempty"`
	RemoveVolume   *RemoveVolume   `json:"remove_volume,omitempty"`
	ApplySpec      *ApplySpec      `json:"apply_spec,omitempty"`
	SetMembers     *SetMembers     `json:"set_members,omitempty"`
	MembersDone    *MembersDone    `json:"members_done,omitempty"`
	RebuildCopy    *RebuildCopy    `json:"rebuild_copy,omitempty"`
	CopyDropped    *CopyDropped    `json:"copy_dropped,omitempty"`
	RaiseVersion   *RaiseVersion   `json:"raise_version,omitempty"`
	Note           *Event          `json:"note,omitempty"`
}

// Init makes the cluster, with its first node.
type Init struct {
	ID        string        `json:"id"`
	Name      string        `json:"name"`
	CA        string        `json:"ca"`
	SealedKey []byte        `json:"sealed_key"`
	Timing    config.Timing `json:"timing"`
	Node      Node          `json:"node"` // its number is 1
}

// RemoveToken withdraws a token.
type RemoveToken struct {
	ID string `json:"id"`
}

// AddNode lets a machine in that has shown a token. Result.Number is its number.
type AddNode struct {
	Token string `json:"token"` // id
	Hash  []byte `json:"hash"`  // SHA-256 of the secret that the machine has shown
	Node  Node   `json:"node"`  // number and role are given by the cluster
}

// ReportNode says what a node runs now. Zero values change nothing.
type ReportNode struct {
	Number     uint64    `json:"number"`
	Peer       string    `json:"peer,omitempty"`
	Release    string    `json:"release,omitempty"`
	MaxVersion uint32    `json:"max_version,omitempty"`
	Serial     string    `json:"serial,omitempty"`
	Expires    time.Time `json:"expires,omitzero"`
}

// SetNode changes what people say of a node; nil leaves a value alone.
type SetNode struct {
	Name    string  `json:"name"`
	Standby *bool   `json:"standby,omitempty"`
	Zone    *string `json:"zone,omitempty"`
}

// RemoveNode begins to remove a node: its copies move elsewhere, then it is forgotten (ForgetNode).
type RemoveNode struct {
	Name string `json:"name"`
	// Force: although data would have fewer copies, or a volume none.
	Force bool `json:"force,omitempty"`
}

// ForgetNode ends the removal of a node: it is in no group any more.
type ForgetNode struct {
	Number uint64 `json:"number"`
}

// SetMaintenance begins or ends maintenance.
type SetMaintenance struct {
	On    bool      `json:"on"`
	Until time.Time `json:"until,omitzero"`
	Why   string    `json:"why,omitempty"`
}

// AddVolume makes a volume.
type AddVolume struct {
	Spec config.VolumeSpec `json:"spec"`
	// Restored names what a node has restored from a backup, On which node that is: the volume begins there. Handle is the number that its file handles shall have.
	Restored string `json:"restored,omitempty"`
	On       uint64 `json:"on,omitempty"`
	Handle   uint32 `json:"handle,omitempty"`
}

// SetVolume replaces what is configured of a volume, its name excepted.
type SetVolume struct {
	Base uint64            `json:"base,omitempty"` // the Revision that the change was made to; 0: any
	Spec config.VolumeSpec `json:"spec"`
}

// RemoveVolume deletes a volume and its data.
type RemoveVolume struct {
	Name string `json:"name"`
}

// ApplySpec makes the configuration what Spec says, or changes nothing.
type ApplySpec struct {
	Base uint64      `json:"base"` // the Revision that the change was planned for
	Spec config.Spec `json:"spec"`
	// Delete allows that volumes which Spec does not have are deleted.
	Delete bool `json:"delete,omitempty"`
}

// SetMembers says who shall keep a volume.
type SetMembers struct {
	Volume  uint32   `json:"volume"`
	Was     []uint64 `json:"was"` // the members that the plan was made for
	Members []uint64 `json:"members"`
	Why     string   `json:"why,omitempty"`
}

// MembersDone says that a volume's group consists of these members now, as of Changes.
type MembersDone struct {
	Volume  uint32   `json:"volume"`
	Members []uint64 `json:"members"`
	Changes uint32   `json:"changes,omitempty"`
}

// RebuildCopy throws a node's copy of a volume away and makes it anew from the others.
type RebuildCopy struct {
	Volume string `json:"volume"`
	Node   string `json:"node"`
	Why    string `json:"why,omitempty"`
}

// CopyDropped says that a node has thrown its copy away.
type CopyDropped struct {
	Volume uint32 `json:"volume"`
	Node   uint64 `json:"node"`
}

// RaiseVersion raises the cluster version by one step or several.
type RaiseVersion struct {
	To uint32 `json:"to"`
}

// Result is what became of a command.
type Result struct {
	// Error is empty if the command took effect; otherwise nothing has changed.
	Error string `json:"error,omitempty"`
	// Code tells programs what kind of error it is.
	Code Code `json:"code,omitempty"`
	// Number is that of a new node or volume.
	Number uint64 `json:"number,omitempty"`
	// Revision is the state's after the command.
	Revision uint64 `json:"revision"`
	// Index is that of the command's entry in the log; the state machine leaves it to the proposer.
	Index uint64 `json:"index,omitempty"`
}

// Code is a kind of error.
type Code string

// The kinds of error.
const (
	CodeInvalid  Code = "invalid"   // the command makes no sense
	CodeNotFound Code = "not_found" // what it names is not there
	CodeConflict Code = "conflict"  // the state forbids it
	CodeDenied   Code = "denied"    // who asked has no right to it
)

// Error is why a command was refused.
type Error struct {
	Code    Code
	Message string
}

func (e *Error) Error() string { return e.Message }

func refuse(code Code, format string, args ...any) error {
	return &Error{code, fmt.Sprintf(format, args...)}
}

// Err returns the result's error as an *Error, or nil.
func (r *Result) Err() error {
	if r.Error == "" {
		return nil
	}
	return &Error{r.Code, r.Error}
}

// Encode returns the command as it is logged.
func (c *Command) Encode() ([]byte, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode a command of the cluster: %w", err)
	}
	return b, nil
}

// errUnknownCommand: the entry was written by a newer release, under a cluster version that this one must not have agreed to.
var errUnknownCommand = errors.New("cluster: a command that this release does not know: install the release that the other nodes run")

// DecodeCommand decodes what Encode returned.
func DecodeCommand(b []byte) (*Command, error) {
	c := new(Command)
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("decode a command of the cluster: %w", err)
	}
	return c, nil
}

// formatNumber writes a node's number as people see it: a witness's without its mark.
func formatNumber(n uint64) string { return strconv.FormatUint(n&^replica.WitnessBit, 10) }
