package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"

	"holdfast/internal/cluster"
	"holdfast/internal/replica"
	"holdfast/internal/replica/transport"
	"holdfast/internal/vfs"
	"holdfast/internal/wal"
)

// A witness is to be small in memory and on disk. Nobody reads its log but itself, at the end: it keeps what raft may ask for again, and no more.
const (
	// witnessSegmentBytes is the size of a segment of a witness's log, whose entries have no content: this is room for some 25,000 of them.
	witnessSegmentBytes = 1 << 20
	// witnessCacheBytes is room for some 5,000 entries in memory.
	witnessCacheBytes = 256 << 10
	// witnessGCPercent makes the process collect its garbage when it is a quarter of what is in use.
	witnessGCPercent = 25
)

// thrift sets the process up for a witness, unless the environment says how (GOGC).
var thrift = sync.OnceFunc(func() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(witnessGCPercent)
	}
})

// witness is a volume's third vote at this node: terms and indexes, no data.
type witness struct {
	number  uint32
	log     *slog.Logger
	wal     *wal.Log
	group   *transport.Group
	replica member
}

// openWitness opens this node's vote in a volume.
func openWitness(n *Node, v *cluster.Volume) (_ *witness, err error) {
	thrift()
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
	if w.wal, err = wal.Open(vfs.OS(), filepath.Join(dir, "log"), wal.Options{SegmentBytes: witnessSegmentBytes, Spares: 1, CacheBytes: witnessCacheBytes}); err != nil {
		return nil, fmt.Errorf("open its log: %w", err)
	}
	var link groupLink
	w.replica, err = n.newReplica(v, dir, replica.Config{
		Log: w.wal, Transport: &link, Logger: w.log,
		CheckpointBytes: witnessSegmentBytes, RetainBytes: witnessCacheBytes, RetainMaxBytes: witnessCacheBytes,
	})
	if err != nil {
		return nil, err
	}
	link.Group = n.transport.Join(uint64(v.ID), v.MemberID(n.id.Node), w.replica)
	w.group = link.Group
	return w, nil
}

func (w *witness) raft() member                 { return w.replica }
func (w *witness) id() uint32                   { return w.number }
func (w *witness) start()                       { w.replica.Start() }
func (w *witness) configure(*cluster.Volume)    {}
func (w *witness) handOver(ctx context.Context) {}

func (w *witness) close() error {
	err := w.replica.Close()
	w.group.Leave()
	return errors.Join(err, w.wal.Close())
}
