package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"holdfast/internal/cluster"
	"holdfast/internal/replica"
	"holdfast/internal/vfs"
)

// A node cannot start on a full disk: it writes down what it hears from the cluster, even that it need not keep a copy any more. So it keeps some space that it gives up then.

const (
	ballastFile = "ballast"
	// ballastBytes is its size: room for some segments of the cluster's log, and its state.
	ballastBytes = 16 << 20
	// ballastShare: it is kept where it is at most one part in so many of what is free.
	ballastShare = 8
	// startRoom is with how much free space a node starts without more ado.
	startRoom = 8 << 20
)

// makeRoom frees space if the disk is full, before the node writes anything: the ballast, copies that did not come whole, and what is to be deleted anyway.
func (n *Node) makeRoom() error {
	free, total, err := n.space()
	if err != nil || free >= startRoom {
		return err
	}
	n.log.Warn("THE DISK IS FULL: free space, or enlarge it. The node starts with what it keeps free for this", "data", n.local.Data, "free", bytesText(free), "disk", bytesText(total))
	if err := n.dropBallast(); err != nil {
		return err
	}
	volumes, err := os.ReadDir(filepath.Join(n.local.Data, volumesDir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("free space: %w", err)
	}
	for _, v := range volumes {
		if err := n.discardPartial(filepath.Join(n.local.Data, volumesDir, v.Name())); err != nil {
			n.log.Error("what was received of a copy cannot be thrown away", "folder", v.Name(), "err", err)
		}
	}
	if err := os.RemoveAll(filepath.Join(n.local.Data, trashDir)); err != nil {
		return fmt.Errorf("free space: %w", err)
	}
	return nil
}

// dropBallast gives the ballast up.
func (n *Node) dropBallast() error {
	if err := os.Remove(filepath.Join(n.local.Data, ballastFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("free space: %w", err)
	}
	return nil
}

// clusterMachine is the cluster's state as its raft group takes it. A full disk does not end the node: what is not saved now is in the log, and is saved later.
type clusterMachine struct {
	*cluster.Machine
	node *Node
}

// Checkpoint implements replica.StateMachine. It returns 0 if the disk is full, even without the ballast.
func (m clusterMachine) Checkpoint(ctx context.Context) (uint64, error) {
	index, err := m.Machine.Checkpoint(ctx)
	if !isFull(err) {
		return index, err
	}
	m.node.log.Error("THE DISK IS FULL: free space, or enlarge it. What this node keeps free for this is used now", "data", m.node.local.Data, "err", err)
	if err := m.node.dropBallast(); err != nil {
		return 0, err
	}
	if index, err = m.Machine.Checkpoint(ctx); isFull(err) {
		return 0, nil
	}
	return index, err
}

// keepBallast makes the ballast, if it is not there and there is enough space for it.
func (n *Node) keepBallast() error {
	file := filepath.Join(n.local.Data, ballastFile)
	if _, err := os.Lstat(file); err == nil || replica.IsWitness(n.id.Node) { // a witness keeps no copies, and is to be small
		return nil
	}
	if free, _, err := n.space(); err != nil || free < ballastShare*ballastBytes {
		return err
	}
	if err := reserve(file); err != nil {
		return fmt.Errorf("keep space for a start on a full disk: %w", err)
	}
	return nil
}

// reserve makes the ballast's file.
func reserve(file string) error {
	f, err := vfs.OS().Create(file)
	if err != nil {
		return err
	}
	err = f.Preallocate(0, ballastBytes, false)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(file))
	}
	return nil
}
