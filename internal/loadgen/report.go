package loadgen

import (
	"fmt"
	"sync"
)

// maxProblems is how many problems a report describes; all are counted.
const maxProblems = 50

// Report is what a workload found.
type Report struct {
	Ops        uint64   `json:"ops"`         // operations that succeeded
	AckedBytes uint64   `json:"acked_bytes"` // bytes acknowledged as stable
	Lost       uint64   `json:"lost"`        // acknowledged bytes, increments and names that are not there
	Doubled    uint64   `json:"doubled"`     // requests that were executed more than once
	LocksLost  int      `json:"locks_lost"`  // times that a held lock was found free
	Errors     int      `json:"errors"`      // operations that failed
	Problems   []string `json:"problems,omitempty"`
}

// OK reports whether nothing was lost, doubled or failed.
func (r *Report) OK() bool {
	return r.Lost == 0 && r.Doubled == 0 && r.LocksLost == 0 && r.Errors == 0
}

// findings collect what goes wrong.
type findings struct {
	mu sync.Mutex // guards r
	r  Report
}

func (f *findings) note(format string, args ...any) {
	if len(f.r.Problems) < maxProblems {
		f.r.Problems = append(f.r.Problems, fmt.Sprintf(format, args...))
	}
}

func (f *findings) failed(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.r.Errors++
	f.note("failed: %v", err)
}

func (f *findings) lost(n uint64, format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.r.Lost += n
	f.note("lost: "+format, args...)
}

func (f *findings) doubled(n uint64, format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.r.Doubled += n
	f.note("executed twice: "+format, args...)
}

func (f *findings) lockLost(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.r.LocksLost++
	f.note("lock lost: "+format, args...)
}

func (f *findings) counts() (errors, locksLost int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.r.Errors, f.r.LocksLost
}

func (f *findings) report() Report {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.r
	r.Problems = append([]string(nil), f.r.Problems...)
	return r
}
