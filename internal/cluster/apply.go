package cluster

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// maxRevoked and maxTokens bound lists that people could let grow for ever.
const (
	maxRevoked = 4096
	maxTokens  = 256
)

// change is one command being applied to a copy of the state.
type change struct {
	*State
	cmd    *Command
	result Result
}

// apply executes a command on a copy of s and returns it, and what became of the command. An error means that this release cannot go on.
func (s *State) apply(cmd *Command) (*State, Result, error) {
	c := &change{State: s.clone(), cmd: cmd}
	err := c.run()
	var refused *Error
	switch {
	case errors.As(err, &refused):
		return s, Result{Error: refused.Message, Code: refused.Code, Revision: s.Revision}, nil
	case err != nil:
		return s, Result{}, err
	}
	c.result.Revision = c.Revision
	return c.State, c.result, nil
}

func (c *change) run() error {
	cmd := c.cmd
	if (c.ID == "") != (cmd.Init != nil) {
		return refuse(CodeConflict, "the cluster is made by its first command, and only by that")
	}
	switch {
	case cmd.Init != nil:
		return c.init(cmd.Init)
	case cmd.AddToken != nil:
		return c.addToken(cmd.AddToken)
	case cmd.RemoveToken != nil:
		return c.removeToken(cmd.RemoveToken)
	case cmd.AddNode != nil:
		return c.addNode(cmd.AddNode)
	case cmd.ReportNode != nil:
		return c.reportNode(cmd.ReportNode)
	case cmd.SetNode != nil:
		return c.setNode(cmd.SetNode)
	case cmd.RemoveNode != nil:
		return c.removeNode(cmd.RemoveNode)
	case cmd.ForgetNode != nil:
		return c.forgetNode(cmd.ForgetNode)
	case cmd.Revoke != nil:
		return c.revoke(*cmd.Revoke)
	case cmd.SetMaintenance != nil:
		return c.setMaintenance(cmd.SetMaintenance)
	case cmd.AddVolume != nil:
		return c.addVolume(cmd.AddVolume)
	case cmd.SetVolume != nil:
		return c.setVolume(cmd.SetVolume)
	case cmd.RemoveVolume != nil:
		return c.removeVolume(cmd.RemoveVolume.Name)
	case cmd.ApplySpec != nil:
		return c.applySpec(cmd.ApplySpec)
	case cmd.SetMembers != nil:
		return c.setMembers(cmd.SetMembers)
	case cmd.MembersDone != nil:
		return c.membersDone(cmd.MembersDone)
	case cmd.RebuildCopy != nil:
		return c.rebuildCopy(cmd.RebuildCopy)
	case cmd.CopyDropped != nil:
		return c.copyDropped(cmd.CopyDropped)
	case cmd.RaiseVersion != nil:
		return c.raiseVersion(cmd.RaiseVersion)
	case cmd.Note != nil:
		e := *cmd.Note
		c.event(e.Kind, e.Node, e.Volume, "%s", e.Text)
		return nil
	}
	return errUnknownCommand
}

// event records something for people.
func (c *change) event(kind EventKind, node, volume, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	c.NextEvent++
	events := append(c.Events, Event{Seq: c.NextEvent, Time: c.cmd.Time, Kind: kind, Node: node, Volume: volume, By: c.cmd.By, Text: text})
	if len(events) > maxEvents {
		events = slices.Clone(events[len(events)-maxEvents:])
	}
	c.Events = events
}

func (c *change) init(in *Init) error {
	if in.ID == "" || in.Node.Number != 1 {
		return refuse(CodeInvalid, "a cluster begins with an identity and node 1")
	}
	c.ID, c.Name, c.CA, c.SealedKey, c.Timing = in.ID, in.Name, in.CA, in.SealedKey, in.Timing
	c.Version, c.Created = min(in.Node.MaxVersion, MaxVersion), c.cmd.Time
	n := in.Node
	n.Role, n.Joined = RoleData, c.cmd.Time
	c.Nodes = []Node{n}
	c.NextNode, c.NextVolume, c.Revision = 2, 1, 1
	c.event(EventCluster, n.Name, "", "cluster %s is made", in.Name)
	return nil
}

func (c *change) addToken(t *Token) error {
	c.dropTokens()
	switch {
	case t.ID == "" || len(t.Hash) == 0:
		return refuse(CodeInvalid, "a token has an id and a hash")
	case t.Role != RoleData && t.Role != RoleWitness:
		return refuse(CodeInvalid, "unknown role %q: a node's role is %s or %s", t.Role, RoleData, RoleWitness)
	case !t.Expires.After(c.cmd.Time):
		return refuse(CodeInvalid, "the token would expire before it exists")
	case c.Token(t.ID) != nil:
		return refuse(CodeConflict, "there is a token %s already", t.ID)
	case len(c.Tokens) >= maxTokens:
		return refuse(CodeConflict, "there are %d tokens that have not expired: remove some with `holdfast token remove`", len(c.Tokens))
	}
	if t.Replaces != "" {
		n := c.NodeNamed(t.Replaces)
		if n == nil {
			return refuse(CodeNotFound, "there is no node %q to replace; the nodes are %s", t.Replaces, c.nodeList())
		}
		if n.Role != t.Role {
			return refuse(CodeInvalid, "node %s has the role %s: what replaces it must have the same", n.Name, n.Role)
		}
	}
	c.Tokens = append(c.Tokens, *t)
	c.event(EventConfig, "", "", "token %s lets one %s node join until %s", t.ID, t.Role, t.Expires.UTC().Format(time.RFC3339))
	return nil
}

func (c *change) dropTokens() {
	c.Tokens = slices.DeleteFunc(c.Tokens, func(t Token) bool { return !t.Expires.After(c.cmd.Time) })
}

func (c *change) removeToken(r *RemoveToken) error {
	if c.Token(r.ID) == nil {
		return refuse(CodeNotFound, "there is no token %s: it was used, has expired, or never existed", r.ID)
	}
	c.Tokens = slices.DeleteFunc(c.Tokens, func(t Token) bool { return t.ID == r.ID })
	c.event(EventConfig, "", "", "token %s is withdrawn", r.ID)
	return nil
}

func (c *change) setMaintenance(m *SetMaintenance) error {
	if !m.On {
		if c.Maintenance == nil {
			return nil
		}
		c.Maintenance = nil
		c.event(EventConfig, "", "", "maintenance ends: volumes move by themselves again")
		return nil
	}
	if !m.Until.IsZero() && !m.Until.After(c.cmd.Time) {
		return refuse(CodeInvalid, "maintenance would end before it begins")
	}
	c.Maintenance = &Maintenance{Since: c.cmd.Time, Until: m.Until, Why: m.Why}
	c.event(EventConfig, "", "", "maintenance begins: volumes move only when their leader is lost, or when told to")
	return nil
}

func (c *change) raiseVersion(r *RaiseVersion) error {
	if r.To <= c.Version {
		return refuse(CodeConflict, "the cluster version is %d already", c.Version)
	}
	for i := range c.Nodes {
		if c.Nodes[i].MaxVersion < r.To {
			return refuse(CodeConflict, "node %s supports cluster versions up to %d only", c.Nodes[i].Name, c.Nodes[i].MaxVersion)
		}
	}
	if r.To > MaxVersion {
		// Cannot happen while this node's own report is true.
		return fmt.Errorf("%w: cluster version %d", errUnknownCommand, r.To)
	}
	c.Version = r.To
	c.event(EventCluster, "", "", "the cluster version is %d now: all nodes support it", r.To)
	return nil
}

func (c *change) revoke(r Revocation) error {
	if r.Node == 0 && r.Serial == "" {
		return refuse(CodeInvalid, "name a node or a certificate's serial number")
	}
	if r.Node != 0 && c.State.Node(r.Node) != nil {
		return refuse(CodeConflict, "node %s is a member: remove it with `holdfast node remove`", c.NodeName(r.Node))
	}
	for i := range c.Nodes {
		if r.Serial != "" && c.Nodes[i].Serial == r.Serial {
			return refuse(CodeConflict, "that is the certificate of node %s: remove the node with `holdfast node remove`", c.Nodes[i].Name)
		}
	}
	r.Time = c.cmd.Time
	c.addRevoked(r)
	c.event(EventConfig, "", "", "a certificate is revoked: %s", r.Why)
	return nil
}

func (c *change) addRevoked(r Revocation) {
	c.Revoked = append(c.Revoked, r)
	if len(c.Revoked) > maxRevoked {
		c.Revoked = c.Revoked[len(c.Revoked)-maxRevoked:]
	}
}
