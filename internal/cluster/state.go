package cluster

import (
	"maps"
	"slices"
	"time"

	"holdfast/internal/config"
	"holdfast/internal/replica"
	"holdfast/internal/replica/transport"
)

// Group is the number of the raft group that replicates the State; volumes have groups of their own, by their numbers, from 1.
const Group = 0

// MaxVersion is the newest cluster version that this program supports. What a command does may change with the version only; it rises when all nodes support the
// next one (RaiseVersion). It counts for volumes, too (volume.MaxVersion).
const MaxVersion = 3

// versionParts is the version from which a node that comes to a volume has a part of its own (Volume.Parts).
const versionParts = 3

// versionPins is the version from which a node that goes is taken out of the lists of nodes in volumes' configurations, and what replaces it into them.
const versionPins = 3

// MaxNodes bounds a cluster: every node votes in the cluster's own group.
const MaxNodes = 9

// State is all that a cluster agrees on. It must not be changed: Apply makes a new one.
type State struct {
	ID      string    `json:"id"` // empty before the first command
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	// Version gates what commands mean; see MaxVersion.
	Version uint32 `json:"version"`
	// CA is the certificates (PEM) that the nodes trust, and SealedKey the authority's key, which only data nodes can open.
	CA        string        `json:"ca"`
	SealedKey []byte        `json:"sealed_key,omitempty"`
	Timing    config.Timing `json:"timing"`

	Nodes   []Node   `json:"nodes"`
	Tokens  []Token  `json:"tokens,omitempty"`
	Volumes []Volume `json:"volumes,omitempty"`
	// Revoked are the node numbers and certificates that are not let in any more.
	Revoked []Revocation `json:"revoked,omitempty"`
	// Maintenance stops everything that moves volumes by itself.
	Maintenance *Maintenance `json:"maintenance,omitempty"`
	Events      []Event      `json:"events,omitempty"` // the newest maxEvents

	// Revision counts changes of what people configure; it is how ApplySpec notices that somebody else was quicker.
	Revision   uint64 `json:"revision"`
	NextNode   uint64 `json:"next_node"`
	NextVolume uint32 `json:"next_volume"`
	NextEvent  uint64 `json:"next_event"`
}

// Role is what a node keeps.
type Role string

// The roles.
const (
	RoleData    Role = "data"
	RoleWitness Role = "witness" // votes, and keeps terms and indexes of the volumes' logs, but no data
)

// Node is a member of the cluster. Its number is never used again.
type Node struct {
	Number uint64 `json:"number"`
	Name   string `json:"name"`
	Role   Role   `json:"role"`
	// Peer is the host and port that the other nodes reach it at.
	Peer   string    `json:"peer"`
	Zone   string    `json:"zone,omitempty"`
	Joined time.Time `json:"joined"`
	// Release and MaxVersion are what it runs, as it said when it started last.
	Release    string `json:"release,omitempty"`
	MaxVersion uint32 `json:"max_version"`
	// Serial is its newest certificate's serial number, in hex, and Expires when that ends.
	Serial  string    `json:"serial,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
	// Standby: it keeps its copies, but leads nothing while another can.
	Standby bool `json:"standby,omitempty"`
	// Leaving: it is being removed; its copies move to ReplacedBy, if that is set, or to whom there is.
	Leaving    bool   `json:"leaving,omitempty"`
	ReplacedBy uint64 `json:"replaced_by,omitempty"`
}

// Token lets one machine join; only a hash of its secret is kept.
type Token struct {
	ID      string    `json:"id"`
	Hash    []byte    `json:"hash,omitempty"` // SHA-256 of the secret; Public leaves it out
	Role    Role      `json:"role"`
	Expires time.Time `json:"expires"`
	// Replaces is the name of the node whose place the new one takes.
	Replaces string `json:"replaces,omitempty"`
}

// Revocation keeps a removed node, or a certificate, out.
type Revocation struct {
	Node   uint64    `json:"node,omitempty"`
	Serial string    `json:"serial,omitempty"` // of a certificate, in hex
	Why    string    `json:"why"`
	Time   time.Time `json:"time"`
}

// Maintenance is a time in which a person works on the cluster.
type Maintenance struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until,omitzero"` // zero: until told otherwise
	Why   string    `json:"why,omitempty"`
}

// Volume is a replicated volume.
type Volume struct {
	// ID is the number of the volume's raft group, which is never used again.
	ID uint32 `json:"id"`
	// Handle is the number in the volume's file handles: its own, or that of the volume whose backup it was made of, so that clients of that one go on.
	Handle uint32            `json:"handle"`
	Spec   config.VolumeSpec `json:"spec"`
	// First is the raft group's first configuration, which never changes.
	First []uint64 `json:"first"`
	// Members are the nodes that shall vote in its group: data nodes, and the witness where there are two of them.
	Members []uint64 `json:"members"`
	// Former are those that had it before Members changed, until the group has let them go.
	Former []uint64 `json:"former,omitempty"`
	// Parts are the numbers of the keepers' parts in the group (transport.MemberID): 0 for those of First, and for others the number of the change with which they came to keep the
	// volume. Changes counts those of Members.
	Parts   map[uint64]uint32 `json:"parts,omitempty"`
	Changes uint32            `json:"changes,omitempty"`
	// Rebuild are nodes whose copy is to be thrown away, and made anew when they have.
	Rebuild []uint64  `json:"rebuild,omitempty"`
	Created time.Time `json:"created"`
	// Restored is the backup that the volume begins with, empty for one that begins empty.
	Restored string `json:"restored,omitempty"`
}

// EventKind groups events.
type EventKind string

// The kinds of event.
const (
	EventConfig  EventKind = "config"  // somebody changed what is configured
	EventNode    EventKind = "node"    // a node came, went, or changed its part
	EventMove    EventKind = "move"    // a volume has another leader
	EventMember  EventKind = "member"  // a volume's copies moved
	EventCluster EventKind = "cluster" // the cluster as a whole
)

// Event is something that happened, with the reason, for people.
type Event struct {
	Seq    uint64    `json:"seq"`
	Time   time.Time `json:"time"`
	Kind   EventKind `json:"kind"`
	Node   string    `json:"node,omitempty"`
	Volume string    `json:"volume,omitempty"`
	By     string    `json:"by,omitempty"`
	Text   string    `json:"text"`
}

// maxEvents is how many events are kept.
const maxEvents = 1000

// clone copies s so deep that every element may be changed.
func (s *State) clone() *State {
	c := *s
	c.Nodes = slices.Clone(s.Nodes)
	c.Tokens = slices.Clone(s.Tokens)
	c.Revoked = slices.Clone(s.Revoked)
	c.Volumes = slices.Clone(s.Volumes)
	// Events are only ever appended to and cut, so that sharing the array needs a bound on its capacity only.
	c.Events = slices.Clip(s.Events)
	return &c
}

// Node returns the node with a number, or nil.
func (s *State) Node(number uint64) *Node {
	for i := range s.Nodes {
		if s.Nodes[i].Number == number {
			return &s.Nodes[i]
		}
	}
	return nil
}

// NodeNamed returns the node of that name, or nil.
func (s *State) NodeNamed(name string) *Node {
	for i := range s.Nodes {
		if s.Nodes[i].Name == name {
			return &s.Nodes[i]
		}
	}
	return nil
}

// NodeName returns a node's name; a node that is gone has its number.
func (s *State) NodeName(number uint64) string {
	if n := s.Node(number); n != nil {
		return n.Name
	}
	if number == 0 {
		return ""
	}
	return "node " + formatNumber(number)
}

// NodeNames lists the names of the data nodes.
func (s *State) NodeNames() []string {
	var names []string
	for i := range s.Nodes {
		if s.Nodes[i].Role == RoleData {
			names = append(names, s.Nodes[i].Name)
		}
	}
	return names
}

// Volume returns the volume of that name, or nil.
func (s *State) Volume(name string) *Volume {
	for i := range s.Volumes {
		if s.Volumes[i].Spec.Name == name {
			return &s.Volumes[i]
		}
	}
	return nil
}

// VolumeByID returns the volume with a number, or nil.
func (s *State) VolumeByID(id uint32) *Volume {
	for i := range s.Volumes {
		if s.Volumes[i].ID == id {
			return &s.Volumes[i]
		}
	}
	return nil
}

// Token returns the token with an id, or nil.
func (s *State) Token(id string) *Token {
	for i := range s.Tokens {
		if s.Tokens[i].ID == id {
			return &s.Tokens[i]
		}
	}
	return nil
}

// IsRevoked reports whether a node's number or a certificate's serial number is not let in any more.
func (s *State) IsRevoked(node uint64, serial string) bool {
	return slices.ContainsFunc(s.Revoked, func(r Revocation) bool {
		return (r.Node != 0 && r.Node == node) || (r.Serial != "" && r.Serial == serial)
	})
}

// Keepers are the nodes that keep a part of the volume's group: its members, and those that it has not let go yet.
func (v *Volume) Keepers() []uint64 {
	all := slices.Concat(v.Members, v.Former)
	slices.Sort(all)
	return slices.Compact(all)
}

// MemberID is a keeper's number in the volume's raft group.
func (v *Volume) MemberID(node uint64) uint64 { return transport.MemberID(node, v.Parts[node]) }

// MemberIDs are the numbers of Members in the volume's raft group, sorted.
func (v *Volume) MemberIDs() []uint64 {
	ids := make([]uint64, len(v.Members))
	for i, n := range v.Members {
		ids[i] = v.MemberID(n)
	}
	slices.Sort(ids)
	return ids
}

// setMembers makes members those that shall vote. Each that comes, also if it was there before, has another part from then on: what it promised in an earlier one it has forgotten, and
// what is still under way to or from that must not count. Only one that has not been let go yet comes back as what it is.
func (v *Volume) setMembers(members []uint64, version uint32) {
	keepers, parts := v.Keepers(), make(map[uint64]uint32)
	maps.Copy(parts, v.Parts)
	if version >= versionParts {
		v.Changes++
		for _, n := range members {
			if !slices.Contains(keepers, n) {
				parts[n] = v.Changes
			}
		}
	}
	v.Former = slices.DeleteFunc(keepers, func(n uint64) bool { return slices.Contains(members, n) })
	v.Parts, v.Members = parts, slices.Clone(members)
}

// DataMembers are the members that keep the data.
func (v *Volume) DataMembers() []uint64 {
	return slices.DeleteFunc(slices.Clone(v.Members), replica.IsWitness)
}

// Spec is the part of the state that people declare.
func (s *State) Spec() *config.Spec {
	spec := &config.Spec{Cluster: s.Name}
	for i := range s.Nodes {
		if n := &s.Nodes[i]; n.Zone != "" {
			spec.Nodes = append(spec.Nodes, config.NodeSpec{Name: n.Name, Zone: n.Zone})
		}
	}
	for i := range s.Volumes {
		spec.Volumes = append(spec.Volumes, s.Volumes[i].Spec)
	}
	return spec
}

// Public returns the state without what a person who looks at it must not see: the sealed key and the tokens' hashes.
func (s *State) Public() *State {
	c := s.clone()
	c.SealedKey = nil
	for i := range c.Tokens {
		c.Tokens[i].Hash = nil
	}
	return c
}
