package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"holdfast/internal/api"
	"holdfast/internal/backup"
	"holdfast/internal/cluster"
	"holdfast/internal/config"
	"holdfast/internal/replica"
	"holdfast/internal/store"
	"holdfast/internal/vfs"
	"holdfast/internal/volume"
	"holdfast/internal/wal"
)

// Backup implements api.Backend. It reads a copy that does not lead, if one is in sync, so that clients notice as little as possible.
func (n *Node) Backup(ctx context.Context, by, name string, o api.BackupOptions, w io.Writer) error {
	v, err := n.volume(name)
	if err != nil {
		return err
	}
	leader, err := n.served(ctx, name)
	if err != nil {
		return err
	}
	if s := n.serviceByID(v.ID); s != nil && (s.name == leader.Name) && (o.Here || n.bestForBackup(leader) == n.id.Node) {
		_, err := backup.Write(ctx, s.volume, w, backup.Options{
			Cluster: n.id.ClusterName, Since: o.Since, After: leader.Commit, SpoolDir: filepath.Join(n.local.Data, spoolDir),
		})
		return err
	}
	if o.Here {
		return api.Errorf(http.StatusConflict, "node %s keeps no copy of volume %s any more: try again", n.id.Name, name)
	}
	c, err := n.peers.client(n.bestForBackup(leader), by)
	if err != nil {
		return err
	}
	o.Here = true
	r, err := c.Backup(ctx, name, o)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(w, r)
	return err
}

// served returns a volume's status as its leader sees it; it waits a little for there to be a leader.
func (n *Node) served(ctx context.Context, name string) (*api.VolumeStatus, error) {
	limited, cancel := context.WithTimeout(ctx, leaderPatience)
	defer cancel()
	for limited.Err() == nil {
		status := n.Status(limited, false)
		at := slices.IndexFunc(status.Volumes, func(s api.VolumeStatus) bool { return s.Name == name })
		if at >= 0 && status.Volumes[at].Serving {
			return &status.Volumes[at], nil
		}
		pause(limited, leaderPoll)
	}
	return nil, api.Errorf(http.StatusServiceUnavailable, "volume %s has no leader at the moment, so that nobody knows what its newest state is", name)
}

// bestForBackup is the node whose copy is read: one that is in sync and does not lead, this one if it is among them, else the leader.
func (n *Node) bestForBackup(v *api.VolumeStatus) uint64 {
	best, leader := uint64(0), uint64(0)
	for _, r := range v.Replicas {
		switch {
		case r.Role == "leader":
			leader = r.ID
		case r.InSync && !r.Witness && !r.Learner && (best == 0 || r.ID == n.id.Node):
			best = r.ID
		}
	}
	if best == 0 {
		return leader
	}
	return best
}

const (
	// restoreDir holds what is being restored, spoolDir what a backup in progress has to add, both within the data folder.
	restoreDir = "restore"
	spoolDir   = "spool"
)

// Restore implements api.Backend.
func (n *Node) Restore(ctx context.Context, by string, spec config.VolumeSpec, r io.Reader) error {
	if err := checkVolume(&spec); err != nil {
		return api.Errorf(http.StatusBadRequest, "%v", err)
	}
	if replica.IsWitness(n.id.Node) {
		return api.Errorf(http.StatusConflict, "node %s is a witness and keeps no data: restore on a data node", n.id.Name)
	}
	state := n.cluster.state()
	if state.Volume(spec.Name) != nil {
		return api.Errorf(http.StatusConflict, "there is a volume %s already: restore under another name, or delete it first", spec.Name)
	}
	if err := n.checkListeners(&cluster.Command{AddVolume: &cluster.AddVolume{Spec: spec}}); err != nil {
		return api.Errorf(http.StatusConflict, "%v", err)
	}
	// The header says what number the file handles should have; what was read for it is read again.
	var read bytes.Buffer
	header, err := backup.NewReader(io.TeeReader(r, &read)).Begin()
	if err != nil {
		return api.Errorf(http.StatusBadRequest, "%v", err)
	}
	handle := state.FreeHandle(header.VolumeID)
	id := randomID(n.clock)
	dir := filepath.Join(n.local.Data, restoreDir, id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make a folder for what is restored: %w", err)
	}
	if err := n.restoreInto(ctx, dir, handle, spec.Name, io.MultiReader(&read, r)); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	result, err := n.cluster.do(ctx, by, cluster.Command{AddVolume: &cluster.AddVolume{Spec: spec, Restored: id, On: n.id.Node, Handle: handle}})
	if err == nil {
		err = result.Err()
	}
	if err != nil && !errors.Is(err, errUnknownOutcome) {
		return errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// restoreInto makes a store of backups.
func (n *Node) restoreInto(ctx context.Context, dir string, handle uint32, name string, r io.Reader) (err error) {
	st, err := store.Open(filepath.Join(dir, storeDir), store.Options{})
	if err != nil {
		return fmt.Errorf("make a store for what is restored: %w", err)
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	_, programs := newPrograms(handle, name)
	_, summary, err := backup.Restore(ctx, backup.Target{
		Config: volume.Config{ID: handle, Name: name, Store: st, Programs: programs},
		Now:    time.Now().UnixNano(), Random: n.clock.Random(),
	}, r)
	if err != nil {
		return api.Errorf(http.StatusBadRequest, "%v", err)
	}
	n.log.Info("a backup is restored", "volume", name, "backup", summary.String())
	return nil
}

// storeDir is the folder of a volume's state within its folder.
const storeDir = "store"

// restoredHere reports whether a volume begins at this node with what was restored.
func (n *Node) restoredHere(v *cluster.Volume) bool {
	_, begun := n.begun.get(uint64(v.ID))
	return v.Restored != "" && !begun && slices.Equal(v.First, []uint64{v.MemberID(n.id.Node)})
}

// fetchRestored puts what was restored where the volume's state is looked for.
func (n *Node) fetchRestored(v *cluster.Volume, dir string) error {
	if !n.restoredHere(v) {
		return nil
	}
	if _, err := os.Stat(dir); err == nil {
		return nil // it was fetched before a crash
	}
	from := filepath.Join(n.local.Data, restoreDir, v.Restored)
	if _, err := os.Stat(from); err != nil {
		return fmt.Errorf("what was restored from the backup is gone: delete the volume and restore it again (%w)", err)
	}
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return fmt.Errorf("make the folder of volumes: %w", err)
	}
	if err := errors.Join(os.Rename(from, dir), vfs.OS().SyncDir(parent)); err != nil {
		return fmt.Errorf("fetch what was restored: %w", err)
	}
	return nil
}

// beginRestored makes the log and the membership that a restored state goes on with. It is repeated after a crash.
func (n *Node) beginRestored(v *cluster.Volume, s *service, dir string) error {
	if !n.restoredHere(v) {
		return nil
	}
	index := s.volume.Applied()
	if index == 0 {
		return errors.New("what was restored from the backup is not whole: delete the volume and restore it again")
	}
	const term = 1
	if err := s.wal.Reset(index, term); err != nil {
		return fmt.Errorf("begin the log after what was restored: %w", err)
	}
	if err := s.wal.Append(wal.Batch{HardState: raftpb.HardState{Term: term, Commit: index}}); err != nil {
		return fmt.Errorf("begin the log after what was restored: %w", err)
	}
	meta := replica.Meta{Conf: replica.ConfState{Voters: v.First}, ConfIndex: index, Files: replica.Files{Group: n.groupName(v), Member: v.MemberID(n.id.Node)}}
	if err := (replica.MetaFile{FS: vfs.OS(), Name: filepath.Join(dir, metaFile)}).Save(&meta); err != nil {
		return err
	}
	return n.begun.add(uint64(v.ID), part{Since: n.cluster.machine.Applied()})
}

// metaFile holds a replica's metadata within the volume's folder.
const metaFile = "replica.json"
