package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"holdfast/internal/config"
)

// maxVolumes bounds the raft groups of a cluster.
const maxVolumes = 256

func (c *change) addVolume(a *AddVolume) error {
	if c.Volume(a.Spec.Name) != nil {
		return refuse(CodeConflict, "there is a volume %s already", a.Spec.Name)
	}
	if err := c.checkVolume(&a.Spec); err != nil {
		return err
	}
	if len(c.Volumes) >= maxVolumes {
		return refuse(CodeConflict, "there are %d volumes, the most there can be", len(c.Volumes))
	}
	v := Volume{ID: c.NextVolume, Handle: c.NextVolume, Spec: a.Spec, Created: c.cmd.Time, Restored: a.Restored}
	v.Members = c.wantMembers(&v)
	if a.Restored != "" {
		if c.handleTaken(a.Handle) {
			return refuse(CodeConflict, "another volume has the file handles of number %d meanwhile: restore again", a.Handle)
		}
		v.Handle, v.Members = a.Handle, []uint64{a.On}
	}
	if len(v.Members) == 0 {
		return refuse(CodeConflict, "there is no data node that could keep volume %s", a.Spec.Name)
	}
	v.First = v.Members
	c.NextVolume = max(c.NextVolume, v.Handle) + 1
	c.Revision++
	c.Volumes = append(c.Volumes, v)
	c.result.Number = uint64(v.ID)
	c.event(EventConfig, "", v.Spec.Name, "is made, on %s", c.names(v.Members))
	return nil
}

// handleTaken reports whether a volume has file handles with a number.
func (s *State) handleTaken(handle uint32) bool {
	return handle == 0 || slices.ContainsFunc(s.Volumes, func(v Volume) bool { return v.Handle == handle })
}

// FreeHandle returns the number that the file handles of a restored volume should have: that of the volume that was backed up, unless another has it.
func (s *State) FreeHandle(wanted uint32) uint32 {
	if s.handleTaken(wanted) {
		return s.NextVolume
	}
	return wanted
}

// names lists nodes for messages.
func (s *State) names(numbers []uint64) string {
	var names []string
	for _, n := range numbers {
		names = append(names, s.NodeName(n))
	}
	return strings.Join(names, ", ")
}

// checkVolume checks a volume's configuration against the rest of the cluster. What can be said of it alone, package config has said.
func (s *State) checkVolume(spec *config.VolumeSpec) error {
	if err := CheckName("volume", spec.Name); err != nil {
		return err
	}
	for _, name := range slices.Concat(spec.Nodes, spec.Prefer) {
		n := s.NodeNamed(name)
		switch {
		case n == nil:
			return refuse(CodeNotFound, "volume %s: there is no node %q; the nodes are %s", spec.Name, name, s.nodeList())
		case n.Role != RoleData:
			return refuse(CodeInvalid, "volume %s: node %s is a witness: it keeps no data", spec.Name, name)
		}
	}
	addr := spec.MountAddr()
	for i := range s.Volumes {
		other := &s.Volumes[i].Spec
		if other.Name == spec.Name {
			continue
		}
		if o := other.MountAddr(); o == addr {
			return refuse(CodeConflict, "volume %s has the address %s already; each volume needs its own", other.Name, o)
		}
		if spec.NodePort != 0 && other.NodePort == spec.NodePort {
			return refuse(CodeConflict, "volume %s has the node port %d already", other.Name, spec.NodePort)
		}
	}
	for i := range s.Nodes {
		peer, err := netip.ParseAddrPort(s.Nodes[i].Peer)
		if err == nil && spec.Address.Kind == config.AddressIP && peer.Addr() == addr.Addr() {
			return refuse(CodeConflict, "volume %s: %s is the own address of node %s; a volume needs one that can move", spec.Name, addr.Addr(), s.Nodes[i].Name)
		}
	}
	return nil
}

func (c *change) setVolume(set *SetVolume) error {
	if set.Base != 0 && set.Base != c.Revision {
		return refuse(CodeConflict, "the configuration was changed by somebody else meanwhile: look at it, and try again")
	}
	v := c.Volume(set.Spec.Name)
	if v == nil {
		return refuse(CodeNotFound, "there is no volume %q%s", set.Spec.Name, c.volumeList())
	}
	if err := c.checkVolume(&set.Spec); err != nil {
		return err
	}
	return c.changeVolume(v, &set.Spec)
}

// volumeList names the volumes, for messages.
func (s *State) volumeList() string {
	var names []string
	for i := range s.Volumes {
		names = append(names, s.Volumes[i].Spec.Name)
	}
	if len(names) == 0 {
		return "; there is none yet: make one with `holdfast volume create`"
	}
	return "; there are " + strings.Join(names, ", ")
}

// changeVolume gives v another configuration, if it differs. What has changed, in words, comes with the command, as words differ among releases.
func (c *change) changeVolume(v *Volume, spec *config.VolumeSpec) error {
	same, err := equalSpecs(&v.Spec, spec)
	if err != nil || same {
		return err
	}
	v.Spec = *spec
	c.Revision++
	text := c.cmd.What
	if text == "" {
		text = "is configured anew"
	}
	c.event(EventConfig, "", spec.Name, "%s", text)
	return nil
}

// equalSpecs reports whether two configurations are stored alike.
func equalSpecs(a, b *config.VolumeSpec) (bool, error) {
	x, err := json.Marshal(a)
	if err != nil {
		return false, fmt.Errorf("encode the configuration of volume %s: %w", a.Name, err)
	}
	y, err := json.Marshal(b)
	if err != nil {
		return false, fmt.Errorf("encode the configuration of volume %s: %w", b.Name, err)
	}
	return bytes.Equal(x, y), nil
}

func (c *change) removeVolume(name string) error {
	v := c.Volume(name)
	if v == nil {
		return refuse(CodeNotFound, "there is no volume %q%s", name, c.volumeList())
	}
	c.Volumes = slices.DeleteFunc(c.Volumes, func(v Volume) bool { return v.Spec.Name == name })
	c.Revision++
	c.event(EventConfig, "", name, "is deleted, with its data")
	return nil
}

func (c *change) applySpec(a *ApplySpec) error {
	if a.Base != c.Revision {
		return refuse(CodeConflict, "the configuration was changed by somebody else meanwhile: look at `holdfast diff`, and apply again")
	}
	if a.Spec.Cluster != "" && a.Spec.Cluster != c.Name {
		return refuse(CodeConflict, "the file is for cluster %q, this is %q", a.Spec.Cluster, c.Name)
	}
	for _, n := range a.Spec.Nodes {
		if err := c.setNode(&SetNode{Name: n.Name, Zone: &n.Zone}); err != nil {
			return err
		}
	}
	wanted := map[string]bool{}
	for i := range a.Spec.Volumes {
		wanted[a.Spec.Volumes[i].Name] = true
	}
	for _, v := range slices.Clone(c.Volumes) {
		if wanted[v.Spec.Name] {
			continue
		}
		if !a.Delete {
			return refuse(CodeConflict, "volume %s is not in the file: to delete it with its data, apply with --delete", v.Spec.Name)
		}
		if err := c.removeVolume(v.Spec.Name); err != nil {
			return err
		}
	}
	for i := range a.Spec.Volumes {
		if err := c.applyVolume(&a.Spec.Volumes[i]); err != nil {
			return err
		}
	}
	// Volumes may have exchanged addresses, so only now is it known whether any two collide.
	for i := range c.Volumes {
		if err := c.checkVolume(&c.Volumes[i].Spec); err != nil {
			return err
		}
	}
	return nil
}

// applyVolume makes or changes a volume on behalf of applySpec, which looks for collisions afterwards.
func (c *change) applyVolume(spec *config.VolumeSpec) error {
	if v := c.Volume(spec.Name); v != nil {
		return c.changeVolume(v, spec)
	}
	return c.addVolume(&AddVolume{Spec: *spec})
}

func (c *change) setMembers(set *SetMembers) error {
	v := c.VolumeByID(set.Volume)
	if v == nil {
		return refuse(CodeNotFound, "there is no volume %d any more", set.Volume)
	}
	if !slices.Equal(v.Members, set.Was) {
		return refuse(CodeConflict, "the members of volume %s have changed meanwhile", v.Spec.Name)
	}
	if len(v.Former) > 0 && c.Version < versionParts {
		return refuse(CodeConflict, "volume %s is still moving from the last change", v.Spec.Name)
	}
	if len(set.Members) == 0 {
		return refuse(CodeInvalid, "a volume has at least one member")
	}
	for _, n := range set.Members {
		if c.State.Node(n) == nil {
			return refuse(CodeNotFound, "there is no node %s", formatNumber(n))
		}
	}
	from := c.names(v.Members)
	v.setMembers(set.Members, c.Version)
	why := set.Why
	if why != "" {
		why = ": " + why
	}
	c.event(EventMember, "", v.Spec.Name, "moves to %s (was on %s)%s", c.names(v.Members), from, why)
	return nil
}

func (c *change) membersDone(d *MembersDone) error {
	v := c.VolumeByID(d.Volume)
	if v == nil || !slices.Equal(v.Members, d.Members) || v.Changes != d.Changes {
		return refuse(CodeConflict, "the members have changed meanwhile")
	}
	if len(v.Former) == 0 {
		return nil
	}
	c.event(EventMember, "", v.Spec.Name, "%s", fmt.Sprintf("is on %s now; %s may drop the copy", c.names(v.Members), c.names(v.Former)))
	parts := maps.Clone(v.Parts)
	for _, n := range v.Former {
		delete(parts, n)
	}
	v.Parts, v.Former = parts, nil
	return nil
}

func (c *change) rebuildCopy(r *RebuildCopy) error {
	v := c.Volume(r.Volume)
	if v == nil {
		return refuse(CodeNotFound, "there is no volume %q%s", r.Volume, c.volumeList())
	}
	n := c.NodeNamed(r.Node)
	switch {
	case n == nil:
		return refuse(CodeNotFound, "there is no node %q; the nodes are %s", r.Node, c.nodeList())
	case !slices.Contains(v.DataMembers(), n.Number):
		return refuse(CodeConflict, "node %s keeps no copy of volume %s, which is on %s", n.Name, v.Spec.Name, c.names(v.DataMembers()))
	case len(v.DataMembers()) == 1:
		return refuse(CodeConflict, "the copy on node %s is the only one of volume %s", n.Name, v.Spec.Name)
	case len(v.Former) > 0 || len(v.Rebuild) > 0:
		return refuse(CodeConflict, "the copies of volume %s are moving: wait until `holdfast status` shows them in sync", v.Spec.Name)
	}
	v.Rebuild = []uint64{n.Number}
	why := r.Why
	if why == "" {
		why = "as told"
	}
	c.event(EventMember, n.Name, v.Spec.Name, "the copy on node %s is made anew: %s", n.Name, why)
	return nil
}

func (c *change) copyDropped(d *CopyDropped) error {
	v := c.VolumeByID(d.Volume)
	if v == nil || slices.Contains(v.Keepers(), d.Node) {
		return refuse(CodeConflict, "node %s has not given the volume up", c.NodeName(d.Node))
	}
	v.Rebuild = slices.DeleteFunc(slices.Clone(v.Rebuild), func(n uint64) bool { return n == d.Node })
	return nil
}
