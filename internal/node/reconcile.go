package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"holdfast/internal/cluster"
	"holdfast/internal/identity"
	"holdfast/internal/portmap"
	"holdfast/internal/replica"
)

// reconcileRetry is how soon it is tried again to start a volume that could not be started.
const reconcileRetry = 2 * time.Second

// follow keeps the node as the cluster's state says, until the node stops.
func (n *Node) follow() {
	t := time.NewTicker(reconcileRetry)
	defer t.Stop()
	for n.ctx.Err() == nil {
		changed := n.cluster.changes.wait()
		if err := n.reconcile(); err != nil {
			n.fail(err)
			return
		}
		select {
		case <-changed:
		case <-t.C:
		case <-n.ctx.Done():
		}
	}
}

// reconcile brings the node to what the cluster's state says, durably: whom it talks to, and which volumes it keeps. An error is the end of the node.
func (n *Node) reconcile() error {
	s := n.cluster.state()
	if s.ID == "" {
		return nil
	}
	n.meet(s)
	n.endVisits(s)
	for i := range s.Volumes {
		v := &s.Volumes[i]
		if p, begun := n.begun.get(uint64(v.ID)); !slices.Contains(v.Keepers(), n.id.Node) || begun && p.Part != v.Parts[n.id.Node] {
			continue // what it has of an earlier time goes first; or the state is older than what it has
		}
		n.reopenUnfit(v)
		n.noteBroken(v, n.keep(v))
	}
	// Before anything goes: after a crash this node must know that it is not to have it.
	saved, err := clusterMachine{n.cluster.machine, n}.Checkpoint(n.ctx)
	if err != nil {
		return err
	}
	if saved > 0 {
		err = n.letGo(s)
	} else {
		err = n.emptyTrash() // the disk is full
	}
	if err != nil {
		return err
	}
	n.beginVisits(s)
	n.mapPorts()
	return nil
}

// noteBroken remembers why this node's part of a volume could not be opened; the others must not suffer. It is tried again.
func (n *Node) noteBroken(v *cluster.Volume, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	was := n.cramped[v.ID]
	if n.broken[v.ID] != nil {
		was = n.broken[v.ID].Error()
	}
	delete(n.broken, v.ID)
	delete(n.cramped, v.ID)
	if err == nil {
		return
	}
	if errors.Is(err, errNoRoom) {
		n.cramped[v.ID] = err.Error()
	} else {
		n.broken[v.ID] = err
	}
	if was != err.Error() {
		n.log.Error("this node's part of a volume cannot be opened; trying on", "volume", v.Spec.Name, "err", err)
	}
}

// mapPorts tells NFSv3 clients that ask for ports where the volumes' addresses serve what. The addresses need not be here.
func (n *Node) mapPorts() {
	var mappings []portmap.Mapping
	for _, s := range n.services() {
		if ip, moves := addressOf(s.spec.Load()); moves {
			port := s.spec.Load().MountAddr().Port()
			mappings = append(mappings, portmap.Mapping{Addr: ip.Addr(), Services: portmap.NFS(port, port)})
		}
	}
	slices.SortFunc(mappings, func(a, b portmap.Mapping) int { return a.Addr.Compare(b.Addr) })
	n.ports.Set(mappings)
}

// meet tells the transport who the others are, and ends the connections of those who are not let in any more.
func (n *Node) meet(s *cluster.State) {
	peers := make(map[uint64]string)
	for i := range s.Nodes {
		peers[s.Nodes[i].Number] = s.Nodes[i].Peer
	}
	n.transport.SetPeers(n.without(peers))
	n.mux.Disconnect(func(p identity.Peer) bool { return s.IsRevoked(p.Node, p.Serial) })
	self := s.Node(n.id.Node)
	if self == nil {
		return
	}
	for _, g := range n.allGroups() {
		r := g.raft()
		if r.Status().Leader == 0 && !self.Standby && !self.Leaving {
			continue // it may be reluctant because it is not the volume's home, until there is a first leader
		}
		r.SetReluctant(self.Standby || self.Leaving || damaged(g))
	}
}

// keep starts this node's part of a volume, or tells it of what has changed.
func (n *Node) keep(v *cluster.Volume) error {
	n.mu.Lock()
	g, open := n.groups[v.ID], n.groups != nil
	n.mu.Unlock()
	switch {
	case !open:
		return nil
	case g != nil:
		g.configure(v)
		return nil
	}
	_, begun := n.begun.get(uint64(v.ID))
	g, err := n.openGroup(v)
	if err != nil {
		return err
	}
	n.mu.Lock()
	open = n.groups != nil
	if open {
		n.groups[v.ID] = g
	}
	n.mu.Unlock()
	if !open {
		return g.close()
	}
	g.start()
	state := n.cluster.state()
	self := state.Node(n.id.Node)
	// A new volume is led first by the node that is its home, if that is there.
	away := !begun && state.Home(v) != n.id.Node
	g.raft().SetReluctant(away || self != nil && (self.Standby || self.Leaving) || damaged(g))
	n.log.Info("this node keeps the volume", "volume", v.Spec.Name, "id", v.ID)
	n.cluster.changes.signal()
	return nil
}

func (n *Node) openGroup(v *cluster.Volume) (group, error) {
	if replica.IsWitness(n.id.Node) {
		return openWitness(n, v)
	}
	if err := n.roomToOpen(v); err != nil {
		return nil, err
	}
	return newService(n.ctx, n, v)
}

// volumesDir is the folder of the volumes' folders within the data folder, trashDir that of what is being deleted.
const (
	volumesDir = "volumes"
	trashDir   = "trash"
)

// volumeDir returns the folder of a volume, which has its name, for people, and its number.
func (n *Node) volumeDir(v *cluster.Volume) string {
	return filepath.Join(n.local.Data, volumesDir, v.Spec.Name+"-"+strconv.FormatUint(uint64(v.ID), 10))
}

// letGo ends this node's part in volumes that the state has not given it, and deletes their files.
func (n *Node) letGo(s *cluster.State) error {
	index := n.cluster.machine.Applied()
	for _, id := range n.begun.list() {
		p, _ := n.begun.get(id)
		if id == cluster.Group || index < p.Since {
			continue // the state is older than this node's part in the group
		}
		v := s.VolumeByID(uint32(id))
		if v != nil && slices.Contains(v.Keepers(), n.id.Node) && v.Parts[n.id.Node] == p.Part {
			continue
		}
		if err := n.drop(uint32(id)); err != nil {
			return fmt.Errorf("drop this node's part of volume %d: %w", id, err)
		}
	}
	return n.emptyTrash()
}

// drop ends this node's part in a volume and deletes it.
func (n *Node) drop(id uint32) error {
	n.mu.Lock()
	g, open := n.groups[id], n.groups != nil
	delete(n.groups, id)
	n.mu.Unlock()
	if !open {
		return nil
	}
	if g != nil {
		if err := g.close(); err != nil {
			n.log.Warn("this node's part of a volume that is being deleted did not close in order", "id", id, "err", err)
		}
	}
	dir, err := n.findVolumeDir(id)
	if err != nil {
		return err
	}
	if dir != "" {
		if err := n.toTrash(dir, filepath.Base(dir)); err != nil {
			return err
		}
		n.log.Info("this node keeps the volume no longer", "folder", filepath.Base(dir))
	}
	defer n.cluster.changes.signal() // upkeep may have to tell
	return n.begun.remove(uint64(id))
}

// findVolumeDir returns the folder of a volume whose name is not known any more, "" if there is none.
func (n *Node) findVolumeDir(id uint32) (string, error) {
	parent := filepath.Join(n.local.Data, volumesDir)
	entries, err := os.ReadDir(parent)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	suffix := "-" + strconv.FormatUint(uint64(id), 10)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) {
			return filepath.Join(parent, e.Name()), nil
		}
	}
	return "", nil
}

// emptyTrash deletes what drop has put aside, in the background: a volume may hold many files.
func (n *Node) emptyTrash() error {
	trash := filepath.Join(n.local.Data, trashDir)
	entries, err := os.ReadDir(trash)
	if errors.Is(err, os.ErrNotExist) || len(entries) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the folder of what is being deleted: %w", err)
	}
	if !n.emptying.CompareAndSwap(false, true) {
		return nil
	}
	n.work.Go(func() {
		defer n.emptying.Store(false)
		for _, e := range entries {
			if err := os.RemoveAll(filepath.Join(trash, e.Name())); err != nil {
				n.log.Warn("cannot delete what is left of a volume", "folder", e.Name(), "err", err)
			}
		}
	})
	return nil
}
