package loadgen

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Result is one measurement.
type Result struct {
	Name     string  `json:"name"`
	Version  string  `json:"version"` // of NFS
	InFlight int     `json:"in_flight"`
	Ops      int     `json:"ops"`
	Bytes    int64   `json:"bytes,omitempty"`
	Seconds  float64 `json:"seconds"`
	PerSec   float64 `json:"ops_per_second"`
	MBPerSec float64 `json:"mb_per_second,omitempty"` // 10^6 bytes
	// Latencies of one operation, in milliseconds.
	P50  float64 `json:"p50_ms"`
	P90  float64 `json:"p90_ms"`
	P99  float64 `json:"p99_ms"`
	P999 float64 `json:"p999_ms"`
	Max  float64 `json:"max_ms"`
	// CPUSeconds is what the processes that BenchConfig.Pids names used meanwhile, and CPUPerOp that per operation in microseconds.
	CPUSeconds float64 `json:"cpu_seconds,omitempty"`
	CPUPerOp   float64 `json:"cpu_us_per_op,omitempty"`
}

// maxSamples bounds the latencies that are kept of one measurement; beyond it every second one is dropped, again and again.
const maxSamples = 1 << 20

// samples are latencies, thinned evenly when there are too many.
type samples struct {
	d    []time.Duration
	skip int // how many to leave out for each one kept
	left int // how many to leave out still
	max  time.Duration
}

func (s *samples) add(d time.Duration) {
	s.max = max(s.max, d)
	if s.left > 0 {
		s.left--
		return
	}
	s.left = s.skip
	if s.d = append(s.d, d); len(s.d) < maxSamples {
		return
	}
	for i := range len(s.d) / 2 {
		s.d[i] = s.d[2*i]
	}
	s.d = s.d[:len(s.d)/2]
	s.skip = 2*s.skip + 1
	s.left = s.skip
}

// quantile returns the q-quantile of sorted latencies, in milliseconds: the least that at least q of them do not exceed.
func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	at := int(math.Ceil(q*float64(len(sorted)))) - 1
	return milliseconds(sorted[min(max(at, 0), len(sorted)-1)])
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// plan says how often to run an operation: until count is reached, or for a duration.
type plan struct {
	inFlight int
	count    int           // 0: as often as duration allows
	duration time.Duration // 0: until count is reached
}

// measure runs op for i = 0, 1, 2, ... from inFlight goroutines and times each run. The first error ends it.
func measure(ctx context.Context, p plan, cpu *cpuMeter, op func(ctx context.Context, worker, i int) error) (Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	all := make([]samples, p.inFlight)
	var wg sync.WaitGroup
	cpuBefore := cpu.read()
	start := time.Now()
	for worker := range p.inFlight {
		wg.Go(func() {
			for ctx.Err() == nil && (p.duration == 0 || time.Since(start) < p.duration) {
				i := int(next.Add(1) - 1)
				if p.count > 0 && i >= p.count {
					return
				}
				began := time.Now()
				if err := op(ctx, worker, i); err != nil {
					cancel(err)
					return
				}
				all[worker].add(time.Since(began))
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	r := Result{InFlight: p.inFlight, Seconds: elapsed.Seconds()}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return r, cause
	}
	if err := ctx.Err(); err != nil {
		return r, err
	}
	r.CPUSeconds = cpu.read() - cpuBefore
	r.Ops = int(next.Load())
	if p.count > 0 {
		r.Ops = min(r.Ops, p.count)
	}
	r.latencies(all)
	return r, nil
}

func (r *Result) latencies(all []samples) {
	var d []time.Duration
	var longest time.Duration
	for i := range all {
		d = append(d, all[i].d...)
		longest = max(longest, all[i].max)
	}
	slices.Sort(d)
	r.P50, r.P90, r.P99, r.P999 = quantile(d, 0.5), quantile(d, 0.9), quantile(d, 0.99), quantile(d, 0.999)
	r.Max = milliseconds(longest)
}

// finish computes what follows from the measured figures.
func (r *Result) finish() {
	if r.Seconds > 0 {
		r.PerSec = float64(r.Ops) / r.Seconds
		r.MBPerSec = float64(r.Bytes) / 1e6 / r.Seconds
	}
	if r.Ops > 0 {
		r.CPUPerOp = r.CPUSeconds * 1e6 / float64(r.Ops)
	}
}
