package bench

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// dataDir is where all servers keep their data: a real disk, unlike /tmp on many machines.
const dataDir = "/var/tmp"

// diskSyncs is how often the disk is asked.
const diskSyncs = 200

// machine notes what the figures depend on.
func (r *Report) machine() (err error) {
	r.CPUs = runtime.NumCPU()
	f, err := os.CreateTemp(dataDir, "holdfast-bench-disk-")
	if err != nil {
		return fmt.Errorf("bench: measure the disk: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	block := make([]byte, 4096)
	if _, err := f.Write(make([]byte, diskSyncs*len(block))); err != nil {
		return fmt.Errorf("bench: measure the disk: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("bench: measure the disk: %w", err)
	}
	took := make([]time.Duration, diskSyncs)
	for i := range took {
		start := time.Now()
		if _, err := f.WriteAt(block, int64(i*len(block))); err != nil {
			return fmt.Errorf("bench: measure the disk: %w", err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return fmt.Errorf("bench: measure the disk: %w", err)
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	r.DiskSyncP50MS, r.DiskSyncP99MS = took[diskSyncs/2].Seconds()*1e3, took[diskSyncs*99/100].Seconds()*1e3
	return nil
}

// residentBytes returns the memory that a process holds.
func residentBytes(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("process %d has no VmRSS", pid)
}
