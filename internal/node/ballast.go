package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

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
	if err := os.Remove(filepath.Join(n.local.Data, ballastFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("free space: %w", err)
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
