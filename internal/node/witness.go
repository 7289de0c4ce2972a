package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"holdfast/internal/cluster"
	"holdfast/internal/replica"
	"holdfast/internal/replica/transport"
	"holdfast/internal/vfs"
	"holdfast/internal/wal"
)

// witnessSegmentBytes is the size of a segment of a witness's log, whose entries have no content: this is room for some 100,000 of them.
const witnessSegmentBytes = 4 << 20

// witness is a volume's third vote at this node: terms and indexes, no data.
type witness struct {
	number  uint32
	log     *slog.Logger
	wal     *wal.Log
	group   *transport.Group
	replica *replica.Replica
}

// openWitness opens this node's vote in a volume.
func openWitness(n *Node, v *cluster.Volume) (_ *witness, err error) {
	w := &witness{number: v.ID, log: n.log.With("volume", v.Spec.Name)}
	dir := n.volumeDir(v)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make its folder: %w", err)
	}
	defer func() {
		if err != nil && w.wal != nil {
			err = errors.Join(err, w.wal.Close())
		}
	}()
	if w.wal, err = wal.Open(vfs.OS(), filepath.Join(dir, "log"), wal.Options{SegmentBytes: witnessSegmentBytes}); err != nil {
		return nil, fmt.Errorf("open its log: %w", err)
	}
	var link groupLink
	w.replica, err = n.newReplica(v, dir, replica.Config{
		Log: w.wal, Transport: &link, Logger: w.log,
		CheckpointBytes: witnessSegmentBytes, RetainBytes: witnessSegmentBytes / 2, RetainMaxBytes: 4 * witnessSegmentBytes,
	})
	if err != nil {
		return nil, err
	}
	link.Group = n.transport.Join(uint64(v.ID), w.replica)
	w.group = link.Group
	return w, nil
}

func (w *witness) raft() *replica.Replica       { return w.replica }
func (w *witness) id() uint32                   { return w.number }
func (w *witness) start()                       { w.replica.Start() }
func (w *witness) configure(*cluster.Volume)    {}
func (w *witness) handOver(ctx context.Context) {}

func (w *witness) close() error {
	err := w.replica.Close()
	w.group.Leave()
	return errors.Join(err, w.wal.Close())
}
