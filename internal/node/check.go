package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/gateway"
	"holdfast/internal/replica"
	"holdfast/internal/volume"
)

// A check marks an index in the log; each replica digests its state at that index and reports the digest to the leader with its heartbeats.

const (
	// checkPoll is how often the leader looks whether the digests have arrived: they come with heartbeats, so it cannot be told sooner than a tick.
	checkPoll = 20 * time.Millisecond
	// checkTries is how often a check is begun anew because file data changed while it was read, before it does more about that: it then has clients wait
	// with what they change, where that is over within checkHold.
	checkTries = 5
	checkHold  = time.Second
	// checkLimit is how long a check is begun anew.
	checkLimit = 5 * time.Minute
	// checkPause is how long a check waits that was interrupted.
	checkPause = 300 * time.Millisecond
	// checkPauseMost is how long it waits between tries in the end; it is twice as long each time, checkDoublings times.
	checkPauseMost = 20 * time.Second
	checkDoublings = 8
	// checkSilence is how long a member may be silent before a check goes on without it.
	checkSilence = 3 * time.Second
)

// digests holds the newest digest of this replica.
type digests struct {
	mu   sync.Mutex
	last report // the digest fields only
	// failed is the newest index that could not be digested for another reason than damage, and err why.
	failed uint64
	err    error
}

// begin notes that the state at index is being digested.
func (d *digests) begin(index uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if index > d.last.DigestIndex {
		d.last = report{DigestIndex: index, Digesting: true}
	}
}

// end notes what begin(index) came to, unless a newer one has begun meanwhile.
func (d *digests) end(index uint64, sum volume.Digest, stable bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	damaged := volume.IsDamage(err)
	if err != nil && !damaged {
		d.failed, d.err = max(d.failed, index), err
	}
	if index != d.last.DigestIndex {
		return
	}
	switch {
	case damaged:
		d.last = report{DigestIndex: index, Unreadable: true}
	case err != nil:
		d.last = report{}
	default:
		d.last = report{DigestIndex: index, Digest: sum, DigestBusy: !stable}
	}
}

// after returns this replica's digest of an index beyond floor, if there is one, or why there is none.
func (d *digests) after(floor uint64) (own report, ok bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failed > floor {
		return own, false, d.err
	}
	return d.last, d.last.DigestIndex > floor && !d.last.Digesting, nil
}

// digest begins to digest the state as of index, the entry that was just applied. It is called by the apply worker, so that nothing is applied
// between the mark and the capture.
func (s *service) digest(index uint64) {
	s.digests.begin(index)
	c, err := s.volume.BeginChecksum()
	if err != nil {
		s.log.Error("cannot capture the state for a check", "err", err)
		s.digests.end(index, volume.Digest{}, false, err)
		return
	}
	began := time.Now()
	s.work.Go(func() {
		s.sendReport()
		sum, stable, err := c.Sum(s.ctx)
		if err != nil && s.ctx.Err() == nil {
			s.log.Error("cannot digest the state for a check", "index", index, "err", err)
		}
		if err == nil {
			s.couldRead(began)
		}
		s.digests.end(index, sum, stable, err)
		s.sendReport()
	})
}

// sendReport tells the leader of this replica's space and of its newest digest.
func (s *service) sendReport() {
	s.digests.mu.Lock()
	r := s.digests.last
	s.digests.mu.Unlock()
	free, total, err := s.node.space()
	if err != nil {
		s.log.Error("cannot ask for free space", "err", err)
		return
	}
	r.Free, r.Total, r.Below, r.Damaged = free, total, free < uint64(s.spec.Load().Reserve), s.damage.marked()
	r.NoRoom = s.scarce.now.Load() || s.node.short.waits(s.number, total) != ""
	s.replica.SetReport(r.encode())
}

// watchSpace reports this replica's space and, on the leader, notes whether growth must be refused.
func (s *service) watchSpace() {
	s.sendReport()
	if !s.replica.Serving() {
		return
	}
	low := s.belowReserve(s.replica.Status().Peers)
	if full := len(low) > 0; s.full.Swap(full) != full {
		s.log.Warn("free space crossed the reserve", "growth_refused", full, "nodes", low)
	}
}

// belowReserve names the nodes whose copies have less room than the volume's reserve: this one, and those of its peers that are in sync.
func (s *service) belowReserve(peers []replica.PeerStatus) []string {
	var low []string
	if free, _, err := s.node.space(); err == nil && free < uint64(s.spec.Load().Reserve) {
		low = append(low, s.node.id.Name)
	}
	for _, p := range peers {
		if r, ok := decodeReport(p.Report); ok && p.InSync && r.Below {
			low = append(low, s.node.nodeName(p.ID))
		}
	}
	return low
}

// statusLeadLost is the answer of a node that has begun to check and leads no more: the next leader can begin anew.
const statusLeadLost = http.StatusGone

// check compares the volume's copies, on the leader.
func (s *service) check(ctx context.Context) (api.CheckResult, error) {
	defer s.checking.Store(nil)
	var took time.Duration
	began := time.Now()
	for try := 1; ; try++ {
		res, busy, err := s.checkTry(ctx, try, &took)
		if errors.Is(err, gateway.ErrNotServing) && !s.isLeader() {
			return res, api.Errorf(statusLeadLost, "%v", err)
		}
		if errors.Is(err, gateway.ErrNotServing) && time.Since(began) < checkLimit && ctx.Err() == nil {
			// The lease lapsed for a moment, which machines that are too busy can do again and again.
			pause(ctx, checkPause)
			continue
		}
		if err != nil || !busy {
			return res, err
		}
		if try >= checkTries && time.Since(began) > checkLimit {
			return res, fmt.Errorf("volume %s: file data changed while it was compared, %d times in %v: reading it takes %v, for which clients cannot be kept waiting. Check again when less is written",
				s.name, try, time.Since(began).Round(time.Second), took.Round(time.Millisecond))
		}
		if try >= checkTries {
			pause(ctx, min(checkPause<<min(try-checkTries, checkDoublings), checkPauseMost))
		}
	}
}

// checkTry compares the copies once, and says so in the status. When that has failed often enough it has clients wait meanwhile with what they change, if took, how long the last try has
// taken, says that they can be asked to.
func (s *service) checkTry(ctx context.Context, try int, took *time.Duration) (res api.CheckResult, busy bool, err error) {
	text := "its copies are being compared"
	if try > 1 {
		text = fmt.Sprintf("its copies are being compared, for the %d. time, as file data changed meanwhile", try)
	}
	s.checking.Store(&text)
	if try > checkTries && *took < checkHold/2 {
		defer s.held.take(checkHold)()
	}
	began := time.Now()
	defer func() { *took = time.Since(began) }()
	return s.checkOnce(ctx)
}

// isLeader reports whether this node leads, with the lease or without.
func (s *service) isLeader() bool { return s.replica.Status().Role == replica.RoleLeader }

// checkOnce marks an index, waits for the digests, and compares them. busy: file data changed meanwhile somewhere, and the outcome means nothing.
func (s *service) checkOnce(ctx context.Context) (res api.CheckResult, busy bool, err error) {
	floor := s.replica.Status().Last
	if err := s.gate.Command(volume.EntryMark, netip.AddrPort{}, nil); err != nil {
		return res, false, fmt.Errorf("volume %s: mark an index: %w", s.name, err)
	}
	var skipped patience
	for {
		own, ok, err := s.digests.after(floor)
		if err != nil {
			return res, false, fmt.Errorf("volume %s: digest this node's copy: %w", s.name, err)
		}
		if ok && own.Unreadable && s.escape(errDigestDamaged) {
			return res, false, api.Errorf(statusLeadLost, "volume %s: this node's copy turned out to be damaged, and it leads no more: check again", s.name)
		}
		if ok {
			res, busy, done := s.compare(own, s.replica.Status().Peers, &skipped)
			if done {
				return res, busy, nil
			}
		}
		if !s.replica.Serving() {
			return res, false, fmt.Errorf("volume %s: this node stopped leading during the check: check again: %w", s.name, gateway.ErrNotServing)
		}
		if pause(ctx, checkPoll); ctx.Err() != nil {
			return res, false, fmt.Errorf("volume %s: check: %w", s.name, context.Cause(ctx))
		}
	}
}

// patience remembers since when members have applied the mark of a check without a word of a digest.
type patience map[uint64]time.Time

// over reports whether a member has had checkSilence to say that it digests. It has passed over the mark then: it got a snapshot, or was restarted.
func (p *patience) over(id uint64, passed bool) bool {
	if *p == nil {
		*p = patience{}
	}
	since, ok := (*p)[id]
	switch {
	case !passed:
		delete(*p, id)
	case !ok:
		(*p)[id] = time.Now()
	default:
		return time.Since(since) > checkSilence
	}
	return false
}

// errDigestDamaged stands for the error that the digest's goroutine met.
var errDigestDamaged = errors.New("it could not be digested")

// compare compares the peers' digests and our own; done is false while some are still to come.
func (s *service) compare(own report, peers []replica.PeerStatus, skipped *patience) (res api.CheckResult, busy, done bool) {
	res.Volume, res.Equal = s.name, true
	var first *volume.Digest // of those that could be read
	add := func(id uint64, r report) {
		d := api.ReplicaDigest{Node: s.node.nodeName(id), Index: own.DigestIndex}
		switch {
		case r.Unreadable:
			d.Damaged, d.Error, res.Equal = true, "is damaged: its disk gives bad data or none, as the node's log says", false
		case first == nil:
			first = &r.Digest
		default:
			res.Equal = res.Equal && r.Digest == *first
		}
		if !r.Unreadable {
			d.Digest, busy = hex.EncodeToString(r.Digest[:]), busy || r.DigestBusy
		}
		res.Replicas = append(res.Replicas, d)
	}
	add(s.node.id.Node, own)
	for _, p := range peers {
		if replica.IsWitness(p.ID) {
			continue
		}
		r, ok := decodeReport(p.Report)
		if ok && r.DigestIndex == own.DigestIndex && !r.Digesting {
			add(p.ID, r)
			continue
		}
		why := "does not answer"
		if p.SeenNS >= 0 && p.SeenNS < int64(checkSilence) {
			if !skipped.over(p.ID, p.Applied >= own.DigestIndex && r.DigestIndex < own.DigestIndex) {
				return res, false, false
			}
			why = "was restarted or rebuilt during the check"
		}
		name := s.node.nodeName(p.ID)
		res.Missing = append(res.Missing, name)
		res.Replicas = append(res.Replicas, api.ReplicaDigest{Node: name, Error: why})
	}
	res.Equal = res.Equal && len(res.Missing) == 0
	return res, busy, true
}
