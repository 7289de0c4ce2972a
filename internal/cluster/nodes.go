package cluster

import (
	"crypto/subtle"
	"slices"
	"strings"

	"holdfast/internal/config"
	"holdfast/internal/replica"
)

// nodeList names all nodes, for messages.
func (s *State) nodeList() string {
	var names []string
	for i := range s.Nodes {
		names = append(names, s.Nodes[i].Name)
	}
	return strings.Join(names, ", ")
}

func (c *change) addNode(a *AddNode) error {
	t := c.Token(a.Token)
	if t == nil {
		return refuse(CodeDenied, "the token is not known: it was used, withdrawn, or belongs to another cluster. Make one with `holdfast token create` on a node of the cluster")
	}
	if subtle.ConstantTimeCompare(t.Hash, a.Hash) != 1 {
		return refuse(CodeDenied, "the token's secret is wrong: copy it whole")
	}
	if !t.Expires.After(c.cmd.Time) {
		return refuse(CodeDenied, "the token expired at %s: make another with `holdfast token create`", t.Expires.UTC().Format("2006-01-02 15:04:05 MST"))
	}
	n := a.Node
	if err := CheckName("node", n.Name); err != nil {
		return err
	}
	old := c.NodeNamed(n.Name)
	if t.Replaces != "" && (old == nil || old.Name == t.Replaces) {
		old = nil // it may take the name of the one that it replaces
	}
	if old != nil {
		return refuse(CodeConflict, "there is a node %s already: join under another name (--name), or with a token made by `holdfast node replace %s`", n.Name, n.Name)
	}
	if other := c.nodeAt(n.Peer); other != nil && other.Name != t.Replaces {
		return refuse(CodeConflict, "node %s has the address %s already", other.Name, n.Peer)
	}
	switch {
	case len(c.Nodes) >= MaxNodes:
		return refuse(CodeConflict, "the cluster has %d nodes, the most there can be", len(c.Nodes))
	case n.MaxVersion < c.Version:
		return refuse(CodeConflict, "the cluster runs at version %d, this release supports up to %d: install the release that the other nodes run", c.Version, n.MaxVersion)
	case t.Role == RoleWitness && t.Replaces == "" && c.witness() != nil:
		return refuse(CodeConflict, "node %s is the witness already; a cluster has one", c.witness().Name)
	}
	n.Number, n.Role, n.Joined = c.NextNode, t.Role, c.cmd.Time
	n.Standby, n.Leaving, n.ReplacedBy = false, false, 0
	c.NextNode++
	if n.Role == RoleWitness {
		n.Number |= replica.WitnessBit
	}
	if t.Replaces != "" {
		c.replaceNode(t.Replaces, &n)
	}
	c.Nodes = append(c.Nodes, n)
	c.Tokens = slices.DeleteFunc(c.Tokens, func(t Token) bool { return t.ID == a.Token })
	c.Revision++
	c.result.Number = n.Number
	c.event(EventNode, n.Name, "", "joins as node %s (%s), at %s", formatNumber(n.Number), n.Role, n.Peer)
	return nil
}

// replaceNode makes the node of that name give its place to n.
func (c *change) replaceNode(name string, n *Node) {
	old := c.NodeNamed(name)
	if old == nil {
		return // it was removed meanwhile
	}
	old.Leaving, old.ReplacedBy = true, n.Number
	n.Zone = old.Zone
	if n.Name == old.Name {
		old.Name += "-" + formatNumber(old.Number)
	}
	c.rename(name, n.Name)
	c.event(EventNode, old.Name, "", "is being replaced by %s", n.Name)
}

// nodeAt returns the node with a peer address, or nil.
func (s *State) nodeAt(peer string) *Node {
	for i := range s.Nodes {
		if s.Nodes[i].Peer == peer && !s.Nodes[i].Leaving {
			return &s.Nodes[i]
		}
	}
	return nil
}

// witness returns the witness that is to stay, or nil.
func (s *State) witness() *Node {
	for i := range s.Nodes {
		if s.Nodes[i].Role == RoleWitness && !s.Nodes[i].Leaving {
			return &s.Nodes[i]
		}
	}
	return nil
}

func (c *change) reportNode(r *ReportNode) error {
	n := c.State.Node(r.Number)
	if n == nil {
		return refuse(CodeNotFound, "there is no node %s any more", formatNumber(r.Number))
	}
	if r.MaxVersion != 0 && r.MaxVersion < c.Version {
		return refuse(CodeConflict, "the cluster runs at version %d, this release supports up to %d: a node cannot go back to it", c.Version, r.MaxVersion)
	}
	if r.Peer != "" && r.Peer != n.Peer {
		c.event(EventNode, n.Name, "", "has the address %s now (was %s)", r.Peer, n.Peer)
		n.Peer = r.Peer
	}
	if r.Release != "" && r.Release != n.Release {
		if n.Release != "" {
			c.event(EventNode, n.Name, "", "runs release %s now (was %s)", r.Release, n.Release)
		}
		n.Release = r.Release
	}
	if r.MaxVersion != 0 {
		n.MaxVersion = r.MaxVersion
	}
	if r.Serial != "" && r.Serial != n.Serial {
		n.Serial, n.Expires = r.Serial, r.Expires
	}
	return nil
}

func (c *change) setNode(set *SetNode) error {
	n := c.NodeNamed(set.Name)
	if n == nil {
		return refuse(CodeNotFound, "there is no node %q; the nodes are %s", set.Name, c.nodeList())
	}
	if set.Standby != nil && *set.Standby != n.Standby {
		if n.Role == RoleWitness {
			return refuse(CodeInvalid, "node %s is a witness: it leads nothing anyway", n.Name)
		}
		n.Standby = *set.Standby
		c.Revision++
		if n.Standby {
			c.event(EventNode, n.Name, "", "is in standby: it keeps its copies and leads nothing while another node can")
		} else {
			c.event(EventNode, n.Name, "", "is no longer in standby")
		}
	}
	if set.Zone != nil && *set.Zone != n.Zone {
		n.Zone = *set.Zone
		c.Revision++
		c.event(EventConfig, n.Name, "", "is in zone %q now", n.Zone)
	}
	return nil
}

func (c *change) removeNode(r *RemoveNode) error {
	n := c.NodeNamed(r.Name)
	if n == nil {
		return refuse(CodeNotFound, "there is no node %q; the nodes are %s", r.Name, c.nodeList())
	}
	if n.Leaving {
		return nil
	}
	if c.dataNodes() == 1 && n.Role == RoleData {
		return refuse(CodeConflict, "node %s is the only data node: stop it and delete its data folder to end the cluster", n.Name)
	}
	n.Leaving = true
	if c.Version >= versionPins {
		if err := c.stranded(n); err != nil {
			return err
		}
	}
	if !r.Force {
		if err := c.fewerCopies(n); err != nil {
			return err
		}
	}
	c.rename(n.Name, "")
	c.Revision++
	c.event(EventNode, n.Name, "", "is being removed")
	return nil
}

// stranded complains about volumes that nobody but n, which leaves, may keep: its removal would never end. It does so as well where those that are left of the nodes that a volume is for
// are as many as there cannot be copies.
func (c *change) stranded(n *Node) error {
	for i := range c.Volumes {
		v := &c.Volumes[i]
		if left := len(v.Spec.Nodes) - 1; left == 4 && slices.Contains(v.Spec.Nodes, n.Name) {
			return refuse(CodeConflict, "volume %s is for five nodes, %s, and there cannot be four copies: say first which nodes shall keep it without node %s (`holdfast volume set %s --nodes NAMES`, or `--nodes ''` for any)",
				v.Spec.Name, strings.Join(v.Spec.Nodes, ", "), n.Name, v.Spec.Name)
		}
		if !slices.Contains(v.Members, n.Number) || replica.IsWitness(n.Number) || len(c.wantMembers(v)) > 0 {
			continue
		}
		name := v.Spec.Name
		if len(v.Spec.Nodes) > 0 {
			return refuse(CodeConflict, "volume %s is for %s only, so that node %s could never go: let other nodes keep it first (`holdfast volume set %s --nodes NAMES`, or `--nodes ''` for any), or delete it",
				name, strings.Join(v.Spec.Nodes, ", "), n.Name, name)
		}
		return refuse(CodeConflict, "no other node may keep volume %s, so that node %s could never go: add a data node first (`holdfast node add`), or delete the volume", name, n.Name)
	}
	return nil
}

// rename puts a node's name in the place of another's wherever volumes' configurations name that; "" only takes it out. A list of the nodes that keep a volume does not become empty by that,
// as it would mean all nodes; there are as many copies as it has names.
func (c *change) rename(from, to string) {
	if c.Version < versionPins {
		return
	}
	for i := range c.Volumes {
		spec := &c.Volumes[i].Spec
		if left := replaceName(spec.Nodes, from, to); len(left) > 0 {
			spec.Nodes, spec.Copies = left, len(left)
		}
		spec.Prefer = replaceName(spec.Prefer, from, to)
	}
}

// replaceName returns names with to in the place of from, or without from if to is empty.
func replaceName(names []string, from, to string) []string {
	if !slices.Contains(names, from) {
		return names
	}
	var left []string
	for _, name := range names {
		if name == from {
			name = to
		}
		if name != "" && !slices.Contains(left, name) {
			left = append(left, name)
		}
	}
	return left
}

// fewerCopies complains if the removal of n leaves volumes with fewer copies, or none that could go on after another loss.
func (c *change) fewerCopies(n *Node) error {
	var hurt []string
	var pinned *config.VolumeSpec
	for i := range c.Volumes {
		v := &c.Volumes[i]
		if !slices.Contains(v.Members, n.Number) {
			continue
		}
		if want := c.wantMembers(v); len(want) < len(v.Members) {
			hurt = append(hurt, v.Spec.Name)
			if slices.Contains(v.Spec.Nodes, n.Name) && pinned == nil {
				pinned = &v.Spec
			}
		}
	}
	if pinned != nil {
		return refuse(CodeConflict, "without node %s there is nobody to take its place for volume %s, which is for %s only, and would survive fewer losses: let other nodes keep it first (`holdfast volume set %s --nodes NAMES`, "+
			"or `--nodes ''` for any), or tell this command --force, which takes the node out of that list", n.Name, pinned.Name, strings.Join(pinned.Nodes, ", "), pinned.Name)
	}
	if len(hurt) == 0 {
		return nil
	}
	return refuse(CodeConflict, "without node %s there is nobody to take its place for %s, which would survive fewer losses: add a node first (`holdfast token create`), or tell this command --force",
		n.Name, strings.Join(hurt, ", "))
}

// dataNodes counts the data nodes that are to stay.
func (s *State) dataNodes() int {
	count := 0
	for i := range s.Nodes {
		if s.Nodes[i].Role == RoleData && !s.Nodes[i].Leaving {
			count++
		}
	}
	return count
}

func (c *change) forgetNode(f *ForgetNode) error {
	n := c.State.Node(f.Number)
	if n == nil {
		return nil
	}
	if !n.Leaving {
		return refuse(CodeConflict, "node %s is not being removed", n.Name)
	}
	for i := range c.Volumes {
		if slices.Contains(c.Volumes[i].Keepers(), f.Number) {
			return refuse(CodeConflict, "node %s still keeps volume %s", n.Name, c.Volumes[i].Spec.Name)
		}
	}
	name := n.Name
	c.addRevoked(Revocation{Node: f.Number, Why: "node " + name + " was removed", Time: c.cmd.Time})
	c.Nodes = slices.DeleteFunc(c.Nodes, func(n Node) bool { return n.Number == f.Number })
	c.Revision++
	c.event(EventNode, name, "", "is removed; its certificate is not accepted any more")
	return nil
}

// maxNameBytes is that of a DNS label.
const maxNameBytes = 63

// CheckName checks a name that ends up in file names, metrics and messages; what says what it names.
func CheckName(what, name string) error {
	ok := name != "" && len(name) <= maxNameBytes
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_'
		ok = ok && (letter || (i > 0 && (r == '-' || r == '.')))
	}
	if !ok {
		return refuse(CodeInvalid, "%q: the name of a %s has 1 to %d letters, digits, - _ and ., the first a letter, digit or _", name, what, maxNameBytes)
	}
	return nil
}
