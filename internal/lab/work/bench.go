package work

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

func init() { registry["bench"] = with(bench) }

// BenchArgs is one phase of a benchmark in a folder on the mount. The phases build on each other and are to be run in the
// order of BenchPhases.
type BenchArgs struct {
	Dir   string
	Phase string
	Size  BenchSize
}

// BenchSize is how much a benchmark does.
type BenchSize struct {
	FileBytes  int64 // of the file that is written and read in sequence
	SyncWrites int   // writes of 4 KiB with O_SYNC, one at a time; eight times as many with 16 in flight
	SmallFiles int   // files of 4 KiB
	Entries    int   // empty files in one folder
}

// Measure is what one phase took.
type Measure struct {
	Phase   string
	Ops     int
	Bytes   int64
	Seconds float64
	// P50 and P99 are of the time that one operation takes, where operations are timed one by one.
	P50, P99 time.Duration `json:",omitempty"`
}

// BenchPhases are the phases in order, and what they do.
var BenchPhases = []struct{ Name, What string }{
	{"write", "one file in sequence, 1 MiB a write, fsync at the end"},
	{"read", "the same file, not in the client's cache"},
	{"sync-1", "4 KiB with O_SYNC, one in flight"},
	{"sync-16", "4 KiB with O_SYNC, 16 in flight, a file each"},
	{"create", "small files: create, write 4 KiB, close; one at a time"},
	{"create-16", "the same, 16 in flight"},
	{"stat", "of the small files, not in the client's cache"},
	{"fill", "empty files in one folder, 16 in flight"},
	{"readdir", "of that folder, not in the client's cache, without attributes of the entries"},
	{"remove", "of small files, one at a time"},
}

var benchPhases = map[string]func(context.Context, string, BenchSize) (Measure, error){
	"write": benchWrite, "read": benchRead,
	"sync-1": func(ctx context.Context, dir string, s BenchSize) (Measure, error) {
		return benchSync(ctx, dir, s.SyncWrites, 1)
	},
	"sync-16": func(ctx context.Context, dir string, s BenchSize) (Measure, error) {
		return benchSync(ctx, dir, 8*s.SyncWrites, 16)
	},
	"create": func(ctx context.Context, dir string, s BenchSize) (Measure, error) {
		return benchCreate(ctx, dir, s.SmallFiles, 1)
	},
	"create-16": func(ctx context.Context, dir string, s BenchSize) (Measure, error) {
		return benchCreate(ctx, dir, s.SmallFiles, 16)
	},
	"stat": benchStat, "fill": benchFill, "readdir": benchReaddir, "remove": benchRemove,
}

func bench(ctx context.Context, args BenchArgs, _ func(any)) (Measure, error) {
	phase, ok := benchPhases[args.Phase]
	if !ok {
		return Measure{}, fmt.Errorf("no phase %q", args.Phase)
	}
	dir := filepath.Join(args.Dir, "bench")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Measure{}, err
	}
	if err := dropCaches(); err != nil {
		return Measure{}, err
	}
	m, err := phase(ctx, dir, args.Size)
	m.Phase = args.Phase
	return m, err
}

// inFlight runs n operations, some at once, and measures them; bytes is what each moves.
func inFlight(ctx context.Context, n, workers int, bytes int64, op func(worker, i int) error) (Measure, error) {
	took := make([]time.Duration, n)
	errs := make([]error, workers)
	start := time.Now()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil && ctx.Err() == nil; i += workers {
				begin := time.Now()
				errs[w] = op(w, i)
				took[i] = time.Since(begin)
			}
		})
	}
	wg.Wait()
	m := Measure{Ops: n, Bytes: bytes * int64(n), Seconds: time.Since(start).Seconds()}
	for _, err := range append(errs, ctx.Err()) {
		if err != nil {
			return m, err
		}
	}
	if n > 0 {
		slices.Sort(took)
		m.P50, m.P99 = took[n/2], took[n*99/100]
	}
	return m, nil
}

func benchWrite(ctx context.Context, dir string, s BenchSize) (Measure, error) {
	const chunk = 1 << 20
	f, err := os.Create(filepath.Join(dir, "large"))
	if err != nil {
		return Measure{}, err
	}
	defer f.Close()
	data := pattern(1, chunk)
	n := int(s.FileBytes / chunk)
	start := time.Now()
	m, err := inFlight(ctx, n, 1, chunk, func(_, i int) error {
		_, err := f.WriteAt(data, int64(i)*chunk)
		return err
	})
	if err != nil {
		return m, err
	}
	err = f.Sync()
	// Single writes go to the client's cache: only the whole means something.
	return Measure{Ops: n, Bytes: m.Bytes, Seconds: time.Since(start).Seconds()}, err
}

func benchRead(_ context.Context, dir string, s BenchSize) (Measure, error) {
	f, err := os.Open(filepath.Join(dir, "large"))
	if err != nil {
		return Measure{}, err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	start := time.Now()
	m := Measure{}
	for {
		n, err := f.Read(buf)
		m.Bytes += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return m, err
		}
		m.Ops++
	}
	m.Seconds = time.Since(start).Seconds()
	if m.Bytes != s.FileBytes {
		return m, fmt.Errorf("read %d bytes of %d", m.Bytes, s.FileBytes)
	}
	return m, nil
}

func benchSync(ctx context.Context, dir string, n, workers int) (Measure, error) {
	const size = 4 << 10
	files := make([]*os.File, workers)
	for i := range files {
		f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("sync%d", i)), os.O_CREATE|os.O_WRONLY|os.O_SYNC, 0o644)
		if err != nil {
			return Measure{}, err
		}
		defer f.Close()
		files[i] = f
	}
	data := pattern(2, size)
	return inFlight(ctx, n, workers, size, func(w, i int) error {
		_, err := files[w].WriteAt(data, int64(i/workers)*size)
		return err
	})
}

func smallFile(dir string, workers, i int) string {
	return filepath.Join(dir, fmt.Sprintf("small%d", workers), fmt.Sprintf("file%d", i))
}

func benchCreate(ctx context.Context, dir string, n, workers int) (Measure, error) {
	const size = 4 << 10
	if err := os.Mkdir(filepath.Dir(smallFile(dir, workers, 0)), 0o755); err != nil {
		return Measure{}, err
	}
	data := pattern(3, size)
	return inFlight(ctx, n, workers, size, func(_, i int) error { return os.WriteFile(smallFile(dir, workers, i), data, 0o644) })
}

func benchStat(ctx context.Context, dir string, s BenchSize) (Measure, error) {
	return inFlight(ctx, s.SmallFiles, 1, 0, func(_, i int) error {
		_, err := stat(smallFile(dir, 1, i))
		return err
	})
}

func benchFill(ctx context.Context, dir string, s BenchSize) (Measure, error) {
	if err := os.Mkdir(filepath.Join(dir, "entries"), 0o755); err != nil {
		return Measure{}, err
	}
	return inFlight(ctx, s.Entries, 16, 0, func(_, i int) error {
		return touch(filepath.Join(dir, "entries", fmt.Sprintf("entry%d", i)), 0o644)
	})
}

func benchReaddir(_ context.Context, dir string, s BenchSize) (Measure, error) {
	fd, err := unix.Open(filepath.Join(dir, "entries"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return Measure{}, err
	}
	defer unix.Close(fd)
	start := time.Now()
	m := Measure{}
	for {
		entries, end, err := readEntries(fd, 64<<10)
		if err != nil {
			return m, err
		}
		if end {
			break
		}
		m.Ops += len(entries)
	}
	m.Seconds = time.Since(start).Seconds()
	if m.Ops != s.Entries {
		return m, fmt.Errorf("%d entries of %d", m.Ops, s.Entries)
	}
	return m, nil
}

func benchRemove(ctx context.Context, dir string, s BenchSize) (Measure, error) {
	return inFlight(ctx, s.SmallFiles, 1, 0, func(_, i int) error { return unix.Unlink(smallFile(dir, 1, i)) })
}
