package node

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/replica"
	"holdfast/internal/volume"
)

// A check marks an index in the log; each replica digests its state at that index and reports the digest to the leader with its heartbeats.

const (
	// checkPoll is how often the leader looks whether the digests have arrived: they come with heartbeats, so it cannot be told sooner than a tick.
	checkPoll = 20 * time.Millisecond
	// checkTries is how often a check is begun anew because file data changed while it was read.
	checkTries = 5
	// checkSilence is how long a member may be silent before a check goes on without it.
	checkSilence = 3 * time.Second
)

// digests holds the newest digest of this replica.
type digests struct {
	mu   sync.Mutex
	last report // the digest fields only
}

// digest begins to digest the state as of index, the entry that was just applied. It is called by the apply worker, so that nothing is applied
// between the mark and the capture.
func (s *service) digest(index uint64) {
	c, err := s.volume.BeginChecksum()
	if err != nil {
		s.log.Error("cannot capture the state for a check", "err", err)
		return
	}
	s.work.Go(func() {
		sum, stable, err := c.Sum(s.ctx)
		if err != nil {
			if s.ctx.Err() == nil {
				s.log.Error("cannot digest the state for a check", "index", index, "err", err)
			}
			return
		}
		s.digests.mu.Lock()
		if index > s.digests.last.DigestIndex {
			s.digests.last = report{DigestIndex: index, Digest: sum, DigestBusy: !stable}
		}
		s.digests.mu.Unlock()
		s.sendReport()
	})
}

// sendReport tells the leader of this replica's space and of its newest digest.
func (s *service) sendReport() {
	s.digests.mu.Lock()
	r := s.digests.last
	s.digests.mu.Unlock()
	free, total, err := s.store.Space()
	if err != nil {
		s.log.Error("cannot ask for free space", "err", err)
		return
	}
	r.Free, r.Total, r.Below = free, total, free < uint64(s.cfg.Reserve)
	s.replica.SetReport(r.encode())
}

// watchSpace reports this replica's space and, on the leader, notes whether growth must be refused.
func (s *service) watchSpace() {
	s.sendReport()
	if !s.replica.Serving() {
		return
	}
	free, _, err := s.store.Space()
	full := err == nil && free < uint64(s.cfg.Reserve)
	for _, p := range s.replica.Status().Peers {
		if r, ok := decodeReport(p.Report); ok && p.InSync {
			full = full || r.Below
		}
	}
	if s.full.Swap(full) != full {
		s.log.Warn("free space crossed the reserve", "growth_refused", full)
	}
}

// Check implements api.Backend.
func (n *Node) Check(ctx context.Context, name string) (api.CheckResult, error) {
	s, err := n.service(name)
	if err != nil {
		return api.CheckResult{}, err
	}
	if err := n.mustLead(s); err != nil {
		return api.CheckResult{}, err
	}
	for try := 1; ; try++ {
		res, busy, err := s.checkOnce(ctx)
		if err != nil || !busy {
			return res, err
		}
		if try == checkTries {
			return res, fmt.Errorf("volume %s: file data changed while it was compared, %d times; check again when less is written", name, try)
		}
	}
}

// checkOnce marks an index, waits for the digests, and compares them. busy: file data changed meanwhile somewhere, and the outcome means nothing.
func (s *service) checkOnce(ctx context.Context) (res api.CheckResult, busy bool, err error) {
	floor := s.replica.Status().Last
	if err := s.gate.Command(volume.EntryMark, netip.AddrPort{}, nil); err != nil {
		return res, false, fmt.Errorf("volume %s: mark an index: %w", s.cfg.Name, err)
	}
	for {
		own, peers := s.reports()
		if own.DigestIndex > floor {
			res, busy, done := s.compare(own, peers)
			if done {
				return res, busy, nil
			}
		}
		if !s.replica.Serving() {
			return res, false, fmt.Errorf("volume %s: this node stopped leading during the check: check again on the new leader", s.cfg.Name)
		}
		if pause(ctx, checkPoll); ctx.Err() != nil {
			return res, false, fmt.Errorf("volume %s: check: %w", s.cfg.Name, context.Cause(ctx))
		}
	}
}

// reports returns this replica's digest and what its peers reported.
func (s *service) reports() (own report, peers []replica.PeerStatus) {
	s.digests.mu.Lock()
	defer s.digests.mu.Unlock()
	return s.digests.last, s.replica.Status().Peers
}

// compare compares the peers' digests with our own; done is false while some are still to come.
func (s *service) compare(own report, peers []replica.PeerStatus) (res api.CheckResult, busy, done bool) {
	add := func(id uint64, sum volume.Digest) {
		res.Replicas = append(res.Replicas, api.ReplicaDigest{Node: s.node.nodeName(id), Index: own.DigestIndex, Digest: hex.EncodeToString(sum[:])})
	}
	res.Volume, res.Equal, busy = s.cfg.Name, true, own.DigestBusy
	add(s.node.cfg.Self().ID, own.Digest)
	for _, p := range peers {
		r, ok := decodeReport(p.Report)
		if ok && r.DigestIndex == own.DigestIndex {
			busy = busy || r.DigestBusy
			res.Equal = res.Equal && r.Digest == own.Digest
			add(p.ID, r.Digest)
			continue
		}
		if p.SeenNS >= 0 && p.SeenNS < int64(checkSilence) {
			return res, false, false
		}
		name := s.node.nodeName(p.ID)
		res.Missing = append(res.Missing, name)
		res.Replicas = append(res.Replicas, api.ReplicaDigest{Node: name, Error: "does not answer"})
	}
	res.Equal = res.Equal && len(res.Missing) == 0
	return res, busy, true
}
