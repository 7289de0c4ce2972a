package loadgen

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"holdfast/internal/nfsclient"
)

const (
	probeName  = "probe"
	probeBytes = 512
	probeSlots = 128 // places that the probe writes to in turn
	// ackHistory is how many acknowledgements are remembered: 20 minutes at 100 a second.
	ackHistory = 120_000
)

// probe writes a few bytes every few milliseconds, waiting for each to be stable, as a database does. How long it waits at worst is the outage that a user feels.
type probe struct {
	w    *Workload
	file nfsclient.File
	next uint64 // number of the next write
	due  time.Time
	acks ackLog
}

func (w *Workload) newProbe(ctx context.Context) (worker, error) {
	c, err := w.mount(ctx)
	if err != nil {
		return nil, err
	}
	p := &probe{w: w}
	if p.file, err = c.Open(ctx, w.dir, probeName, nfsclient.OpenOptions{Create: nfsclient.Guarded}); err != nil {
		return nil, fmt.Errorf("creating %s: %w", probeName, err)
	}
	w.probe = p
	return p, nil
}

func probeRecord(n uint64) []byte {
	b := make([]byte, 0, probeBytes)
	for len(b) < probeBytes {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b
}

func (p *probe) step(ctx context.Context) error {
	p.w.pause(ctx, time.Until(p.due))
	p.due = time.Now().Add(p.w.cfg.ProbeInterval)
	if err := p.file.Write(ctx, probeRecord(p.next), p.next%probeSlots*probeBytes, nfsclient.FileSync); err != nil {
		return fmt.Errorf("writing to %s: %w", probeName, err)
	}
	p.acks.add(time.Now())
	p.next++
	p.w.did(1, probeBytes)
	return nil
}

func (p *probe) verify(ctx context.Context, fresh Client) error {
	f, err := fresh.Open(ctx, p.w.dir, probeName, nfsclient.OpenOptions{Read: true})
	if err != nil {
		return fmt.Errorf("opening %s: %w", probeName, err)
	}
	got := make([]byte, probeBytes)
	// The write after the last one acknowledged may have been cut off, and then its place holds either.
	for n := p.next - min(p.next, probeSlots-1); n < p.next; n++ {
		read, _, err := f.Read(ctx, got, n%probeSlots*probeBytes)
		if err != nil {
			return fmt.Errorf("reading %s: %w", probeName, err)
		}
		var bad differences
		if bad.compare(probeRecord(n), got[:read], 0); bad.count > 0 {
			p.w.findings.lost(uint64(bad.count), "%s: write number %d is not there", probeName, n)
		}
	}
	return f.Close(ctx)
}

// ackLog remembers when writes were acknowledged. The zero value is ready for use.
type ackLog struct {
	mu    sync.Mutex // guards the fields below
	times []time.Time
	at    int // where the oldest is, once times is full
}

func (l *ackLog) add(t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.times) < ackHistory {
		l.times = append(l.times, t)
		return
	}
	l.times[l.at] = t
	l.at = (l.at + 1) % len(l.times)
}

// gap returns the longest time between two acknowledgements that reaches into the window, or from the last one to the window's end.
func (l *ackLog) gap(from, to time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var longest time.Duration
	last := from
	for i := range l.times {
		t := l.times[(l.at+i)%len(l.times)]
		if !t.After(from) {
			last = t
			continue
		}
		longest = max(longest, t.Sub(last))
		if last = t; t.After(to) {
			return longest
		}
	}
	if to.After(last) {
		longest = max(longest, to.Sub(last))
	}
	return longest
}
