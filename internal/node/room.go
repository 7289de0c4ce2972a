package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/cluster"
	"holdfast/internal/replica"
	"holdfast/internal/replica/transport"
	"holdfast/internal/vfs"
	"holdfast/internal/wal"
)

// A node whose disk has too little room for a volume's copy must not suffer by it: it begins none that cannot fit, stops to receive one before the disk is full, throws away what it has of it, and
// is given another try later. fit.go is the leader's part in this.

const (
	// roomLeft is how much a node leaves free when it receives a copy: the logs of its volumes and the cluster's state must go on.
	roomLeft = 32 << 20
	// roomToWrite is with how much a copy can be opened.
	roomToWrite = 2 << 20
	// roomLook is how many bytes of a copy come between two looks at what is free.
	roomLook = 1 << 20
	// roomPause is how long a node has no other try after a copy did not fit, at first; it is twice as long each time, up to roomPauseMost.
	roomPause     = time.Minute
	roomPauseMost = 32 * time.Minute
)

// errNoRoom is why a copy is not received.
var errNoRoom = errors.New("the disk has too little room for the copy")

// isFull reports whether something failed because the disk is full.
func isFull(err error) bool {
	return errors.Is(err, errNoRoom) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// shortages are the copies of volumes for which a node had no room, by the volumes' numbers.
type shortages struct {
	mu    sync.Mutex
	known map[uint32]*shortage
}

type shortage struct {
	why   string
	pause time.Duration
	until time.Time // the next try
	total uint64    // of the disk: one that was enlarged is worth a try at once
	// discard: what was received is to be thrown away.
	discard bool
}

// note remembers that a copy did not fit.
func (s *shortages) note(volume uint32, why string, total uint64, discard bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pause := roomPause
	if was := s.known[volume]; was != nil {
		pause = min(2*was.pause, roomPauseMost)
	}
	if s.known == nil {
		s.known = map[uint32]*shortage{}
	}
	s.known[volume] = &shortage{why: why, pause: pause, until: time.Now().Add(pause), total: total, discard: discard}
}

// fits forgets what note remembered.
func (s *shortages) fits(volume uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, volume)
}

// waits says why a copy is not to be received now, "" if it may be.
func (s *shortages) waits(volume uint32, total uint64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.known[volume]
	if k == nil || time.Now().After(k.until) || total > k.total {
		return ""
	}
	return fmt.Sprintf("%s; the next try is at %s", k.why, k.until.Local().Format(time.TimeOnly))
}

// discarding reports, once, whether a copy is to be thrown away.
func (s *shortages) discarding(volume uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.known[volume]
	if k == nil || !k.discard {
		return false
	}
	k.discard = false
	return true
}

// space returns how much of the data folder's disk is free, and how large it is, in bytes.
func (n *Node) space() (free, total uint64, err error) {
	if n.tuning.space != nil {
		return n.tuning.space(n.local.Data)
	}
	var s unix.Statfs_t
	if err := unix.Statfs(n.local.Data, &s); err != nil {
		return 0, 0, fmt.Errorf("ask for the free space of %s: %w", n.local.Data, err)
	}
	return s.Bavail * uint64(s.Frsize), s.Blocks * uint64(s.Frsize), nil
}

// roomToOpen refuses to open a part in a volume on a full disk, on which that would be the end of the node, and to begin one of which this node is to get a copy, if not even its log would fit.
func (n *Node) roomToOpen(v *cluster.Volume) error {
	free, _, err := n.space()
	if err != nil {
		return err
	}
	if free < roomToWrite {
		return fmt.Errorf("%w: the disk is full, %s are free", errNoRoom, bytesText(free))
	}
	if _, begun := n.begun.get(uint64(v.ID)); begun || replica.IsWitness(n.id.Node) || slices.Contains(v.First, v.MemberID(n.id.Node)) {
		return nil
	}
	segment := uint64(n.local.LogSegment)
	if n.tuning.segmentBytes != 0 {
		segment = uint64(n.tuning.segmentBytes)
	}
	if need := 2*segment + roomLeft; free < need {
		return fmt.Errorf("%w: %s are free, and its log alone takes %s", errNoRoom, bytesText(free), bytesText(need))
	}
	return nil
}

// receiver is a volume's replica, as the transport sees it. A copy that does not fit ends the stream that brings it, not the node.
type receiver struct {
	*replica.Replica
	s *service
}

// ReceiveSnapshot implements transport.Handler.
func (r receiver) ReceiveSnapshot(ctx context.Context, from uint64, st transport.Stream) error {
	n := r.s.node
	free, total, err := n.space()
	if err != nil {
		return err
	}
	why := n.short.waits(r.s.number, total)
	if why == "" && free < roomLeft {
		why = fmt.Sprintf("only %s are free", bytesText(free))
		n.short.note(r.s.number, why, total, false)
	}
	if why != "" {
		r.s.sendReport()
		pause(ctx, fitPoll) // the leader knows by then, and would try on at once before
		return fmt.Errorf("%w: %s", errNoRoom, why)
	}
	return r.Replica.ReceiveSnapshot(ctx, from, &measured{Stream: st, s: r.s})
}

// measured is the stream of a snapshot, which ends with an error before the disk is full.
type measured struct {
	transport.Stream
	s      *service
	unseen int // bytes since the last look
}

func (m *measured) Receive() ([]byte, error) {
	if m.s.unfit.Load() {
		return nil, errNoRoom
	}
	if m.unseen >= roomLook {
		m.unseen = 0
		free, _, err := m.s.node.space()
		if err == nil && free < roomLeft {
			err = fmt.Errorf("%w: %s are left free", errNoRoom, bytesText(free))
		}
		if err != nil {
			return nil, err
		}
	}
	b, err := m.Stream.Receive()
	m.unseen += len(b)
	return b, err
}

// Install implements replica.StateMachine.
func (m machine) Install(r io.Reader) error {
	err := m.s.markPartial()
	if err == nil {
		err = m.Volume.Install(r)
	}
	if err == nil {
		m.s.node.short.fits(m.s.number)
		return m.s.unmarkPartial()
	}
	if isFull(err) {
		m.s.noteUnfit(err)
		// To the replica it must be the stream that failed: a storage that fails is the end of a node. From here on the stream does.
		_, _ = io.Copy(io.Discard, r)
	}
	return err
}

// scarcity is what a copy knows of its disk that comes by the log, entry by entry: while the disk is nearly full it waits. A copy that has no vote yet may: nobody waits for it.
type scarcity struct {
	now    atomic.Bool  // it waits
	unseen atomic.Int64 // bytes since the last look
}

// awaitOwnRoom waits while this copy has no vote and the disk is nearly full, before that many bytes are written.
func (s *service) awaitOwnRoom(bytes int64) {
	if s.scarce.unseen.Add(bytes) < roomLook {
		return
	}
	s.scarce.unseen.Store(0)
	for s.ctx.Err() == nil && !s.votes() {
		free, _, err := s.node.space()
		if err != nil || free >= roomLeft {
			break
		}
		if s.scarce.now.CompareAndSwap(false, true) {
			s.log.Error("THE DISK HAS TOO LITTLE ROOM for this volume's copy, which waits for more. Free space, enlarge the disk, or let another node keep the copy", "free", bytesText(free))
		}
		pause(s.ctx, fitPoll)
	}
	s.scarce.now.Store(false)
}

// votes reports whether this copy counts.
func (s *service) votes() bool {
	r := s.replica.Replica
	return r != nil && slices.ContainsFunc(r.Voters(), func(id uint64) bool { return transport.NodeOf(id) == s.node.id.Node })
}

// sparing is a log that is not written to while a copy without a vote waits for room.
type sparing struct {
	*wal.Log
	s *service
}

// Append implements replica.Log.
func (l sparing) Append(b wal.Batch) error {
	var n int64
	for i := range b.Entries {
		n += int64(len(b.Entries[i].Data))
	}
	l.s.awaitOwnRoom(n)
	return l.Log.Append(b)
}

// Apply implements replica.StateMachine.
func (m machine) Apply(index uint64, entry []byte) ([]byte, error) {
	m.s.awaitOwnRoom(int64(len(entry)))
	return m.Volume.Apply(index, entry)
}

// noteUnfit notes that a copy had no room, and has what there is of it thrown away.
func (s *service) noteUnfit(err error) {
	n := s.node
	s.unfit.Store(true)
	free, total, spaceErr := n.space()
	if spaceErr != nil {
		s.log.Error("cannot ask for free space", "err", spaceErr)
	}
	n.short.note(s.number, fmt.Sprintf("a copy did not fit, %s were left", bytesText(free)), total, true)
	s.log.Error("THE DISK HAS TOO LITTLE ROOM for this volume's copy: what was received is thrown away, and it is tried again later. Free space, enlarge the disk, or let another node keep the copy",
		"free", bytesText(free), "disk", bytesText(total), "err", err)
	s.noteEvent(fmt.Sprintf("the copy did not fit on node %s, which threw it away: free space there, enlarge its disk, or let another node keep it", n.id.Name))
	s.sendReport()
	n.cluster.changes.signal() // reconcile opens it anew
}

// partialFile marks a volume's folder while a copy is being received.
const partialFile = "receiving"

func (s *service) markPartial() error {
	if err := vfs.WriteFile(vfs.OS(), filepath.Join(s.dir, partialFile), nil); err != nil {
		return fmt.Errorf("note that a copy is being received: %w", err)
	}
	return nil
}

func (s *service) unmarkPartial() error { return unmarkPartial(s.dir) }

// unmarkPartial is durable: the mark must not come back when the copy is in use.
func unmarkPartial(dir string) error {
	err := os.Remove(filepath.Join(dir, partialFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err = errors.Join(err, vfs.OS().SyncDir(dir)); err != nil {
		return fmt.Errorf("note that a copy was received: %w", err)
	}
	return nil
}

// discardPartial puts a copy aside, to be deleted, of which the receiving did not end. The replica knows that by itself, and goes on without a state until it gets one.
func (n *Node) discardPartial(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, partialFile)); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	meta, err := replica.MetaFile{FS: vfs.OS(), Name: filepath.Join(dir, metaFile)}.Load()
	if err != nil {
		return err
	}
	if meta != nil && meta.Installing != nil {
		if err := n.toTrash(filepath.Join(dir, storeDir), filepath.Base(dir)+"."+storeDir); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("throw away a copy that did not come whole: %w", err)
		}
		n.log.Info("a copy that did not come whole is thrown away", "folder", filepath.Base(dir))
	}
	return unmarkPartial(dir)
}

// toTrash puts a folder aside, to be deleted.
func (n *Node) toTrash(dir, name string) error {
	trash := filepath.Join(n.local.Data, trashDir)
	if err := os.MkdirAll(trash, 0o700); err != nil {
		return err
	}
	if err := os.Rename(dir, filepath.Join(trash, name+"."+randomID(n.clock))); err != nil {
		return err
	}
	return errors.Join(vfs.OS().SyncDir(filepath.Dir(dir)), vfs.OS().SyncDir(trash))
}

// reopenUnfit closes a volume's part whose copy had no room; keep opens it anew, without what was received.
func (n *Node) reopenUnfit(v *cluster.Volume) {
	if !n.short.discarding(v.ID) {
		return
	}
	n.mu.Lock()
	g := n.groups[v.ID]
	delete(n.groups, v.ID)
	n.mu.Unlock()
	if g == nil {
		return
	}
	if err := g.close(); err != nil {
		n.log.Info("a volume's part whose copy had no room did not close in order", "volume", v.Spec.Name, "err", err)
	}
}

// bytesText writes a number of bytes for people.
func bytesText(b uint64) string {
	switch {
	case b >= 1<<40:
		return fmt.Sprintf("%.1f TiB", float64(b)/(1<<40))
	case b >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(b)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", b>>20)
}
