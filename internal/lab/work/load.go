package work

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

func init() { registry["load"] = with(runLoad) }

// LoadArgs describes the load that one guest puts on a mount, until it is told to stop.
type LoadArgs struct {
	Dir string // on the mount, the same for all guests
	// Name tells the guests apart.
	Name string
	// Holds makes this guest hold a lock all the time, which the others try to get.
	Holds bool
	// ProbeOnly leaves out all but the probe for gaps.
	ProbeOnly bool
	// NoLocks leaves out the locks, for mounts whose locks are not the server's.
	NoLocks bool
	// Fsx is the number of files that get random operations, reproducible from Seed; Sparse includes those that came
	// with version 4.2.
	Fsx    int
	Seed   uint64
	Sparse bool
	// Fills tells that the file system may be full at times: ENOSPC is then counted and tried again.
	Fills bool
}

// Beat is an event of a load: what the probe saw since the last one. A probe that is stuck sends none.
type Beat struct {
	// OK is how many of its writes were acknowledged.
	OK int
	// LongestGap is the longest time between two acknowledgements in a row, the last of which is in this beat.
	LongestGap time.Duration
	// Holding is set in an event of its own: the lock of LoadArgs.Holds is there.
	Holding bool `json:",omitempty"`
	// Full is set in an event of its own: the file system refused for lack of space, see LoadArgs.Fills.
	Full bool `json:",omitempty"`
	// Error is set in an event of its own: something that must not happen did.
	Error string `json:",omitempty"`
}

// LoadResult is what a load did, and thereby what must be found afterwards.
type LoadResult struct {
	Name       string
	Probes     int
	LongestGap time.Duration
	Written    []int // by writer: how many records were acknowledged
	Appended   int   // records
	Increments int   // of the shared counter
	Won        []int // claims that this guest made first
	Tried      int   // claims that this guest tried, from 0
	Named      int   // rounds of creating, renaming and linking
	Full       int   // refusals for lack of space
	Fsx        []FsxResult
	Errors     []string
	// ErrorCount is the number of all errors; Errors holds the first ones.
	ErrorCount int
}

// AckedBytes is how much data the server has confirmed to be on disk.
func (r *LoadResult) AckedBytes() int64 {
	records := 0
	for _, n := range r.Written {
		records += n
	}
	return int64(records)*recordSize + int64(r.Appended)*appendSize + int64(r.Probes)*probeSize
}

// FsxOps is the number of random operations.
func (r *LoadResult) FsxOps() (ops int) {
	for _, f := range r.Fsx {
		ops += f.Ops
	}
	return ops
}

const (
	writers       = 2
	recordSize    = 8 << 10
	writerRecords = 2048 // a writer starts over at the beginning of its file after so many
	appendSize    = 120
	probeSize     = 4 << 10
	probeEvery    = 10 * time.Millisecond
	beatEvery     = 100 * time.Millisecond
	keepNames     = 20 // rounds of names that are left in place
	maxErrors     = 50
)

// load is a running load. Each activity is a loop that ends with the context, and reports what must not happen.
type load struct {
	args LoadArgs
	emit func(any)

	mu  sync.Mutex // guards res
	res LoadResult
}

func runLoad(ctx context.Context, args LoadArgs, emit func(any)) (*LoadResult, error) {
	l := &load{args: args, emit: emit, res: LoadResult{Name: args.Name, Written: make([]int, writers), Fsx: make([]FsxResult, args.Fsx)}}
	activities := map[string]func(context.Context) error{"probe": l.probe}
	if !args.ProbeOnly {
		for i := range writers {
			activities[fmt.Sprintf("writer %d", i)] = func(ctx context.Context) error { return l.writer(ctx, i) }
		}
		activities["append"] = l.appender
		activities["names"] = l.names
		activities["claims"] = l.claims
	}
	if !args.ProbeOnly && !args.NoLocks {
		activities["counter"] = l.counter
		activities["held lock"] = l.contender
		if args.Holds {
			activities["held lock"] = l.holder
		}
	}
	for i := range args.Fsx {
		activities[fmt.Sprintf("fsx %d", i)] = func(ctx context.Context) error { return l.fsx(ctx, i) }
	}
	var wg sync.WaitGroup
	for name, run := range activities {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := run(ctx); err != nil {
					if !l.refused(err) {
						l.fail(name, err)
					}
					pause(ctx, 100*time.Millisecond)
				}
			}
		})
	}
	wg.Wait()
	return &l.res, nil
}

// fail records what must not happen.
func (l *load) fail(activity string, err error) {
	text := activity + ": " + err.Error()
	l.mu.Lock()
	l.res.ErrorCount++
	if len(l.res.Errors) < maxErrors {
		l.res.Errors = append(l.res.Errors, text)
	}
	l.mu.Unlock()
	l.emit(Beat{Error: text})
}

// refused tells whether an error is a refusal for lack of space that is to be expected, and counts it.
func (l *load) refused(err error) bool {
	if !l.args.Fills || !errors.Is(err, unix.ENOSPC) {
		return false
	}
	l.count(func(r *LoadResult) { r.Full++ })
	l.emit(Beat{Full: true})
	return true
}

// room does f again as long as there is no space for it.
func (l *load) room(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil || ctx.Err() != nil || !l.refused(err) {
			return err
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// count changes the result.
func (l *load) count(f func(r *LoadResult)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.res)
}

func (l *load) path(name string) string { return filepath.Join(l.args.Dir, name) }

// own is the path of a file that no other guest touches.
func (l *load) own(name string) string { return l.path(l.args.Name + "-" + name) }

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
