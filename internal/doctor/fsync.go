package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// syncRounds and syncTime bound the measurement, and syncBytes is one write.
	syncRounds = 100
	syncTime   = 700 * time.Millisecond
	syncBytes  = 4 << 10
	// No disk that has a cache to empty, and no host below a virtual one, does it faster than syncFast; no platter turns faster than syncPlatter.
	syncFast    = 20 * time.Microsecond
	syncPlatter = time.Millisecond
	// Every write of a client waits for this at least once.
	syncSlow     = 20 * time.Millisecond
	syncVerySlow = 100 * time.Millisecond
	syncStall    = 500 * time.Millisecond
)

// disk is what the kernel says of the disk below a folder.
type disk struct {
	name       string // like sda; "" if unknown
	rotational bool
	virtual    bool
	cached     bool // it has a volatile write cache that must be emptied
}

// String describes the disk.
func (d disk) String() string {
	if d.name == "" {
		return "an unknown disk"
	}
	words := []string{"disk", d.name}
	if d.rotational {
		words = slices.Insert(words, 0, "rotating")
	}
	if d.virtual {
		words = slices.Insert(words, 0, "virtual")
	}
	if d.cached {
		words = append(words, "with a write cache")
	}
	return strings.Join(words, " ")
}

func checkSync(ctx context.Context, h *host, cfg *Config) []finding {
	folder, st, bad := statfs(cfg)
	if bad != nil {
		return bad
	}
	if k := fsKinds[uint32(st.Type)]; k.why == memoryFS {
		return []finding{skip("The data folder is in memory.")}
	}
	times, err := measureSync(ctx, folder)
	if err != nil {
		return []finding{{Problem, fmt.Sprintf("The disk could not be measured: %v.", err), "Run this as the user that Holdfast runs as, and look into the kernel's log for errors of the disk."}}
	}
	return judgeSync(times, h.diskOf(folder))
}

// measureSync writes to a file that was allocated before, as the log is, and returns how long each write took to be on disk.
func measureSync(ctx context.Context, folder string) (times []time.Duration, err error) {
	f, err := os.CreateTemp(folder, ".holdfast-doctor-*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	block := make([]byte, syncBytes)
	for i := range block {
		block[i] = byte(i*7 + 1)
	}
	for i := range syncRounds {
		if _, err := f.WriteAt(block, int64(i)*syncBytes); err != nil {
			return nil, err
		}
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	start := time.Now()
	for i := range syncRounds {
		block[0] = byte(i)
		at := time.Now()
		if _, err := f.WriteAt(block, int64(i)*syncBytes); err != nil {
			return nil, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return nil, fmt.Errorf("fdatasync: %w", err)
		}
		times = append(times, time.Since(at))
		if time.Since(start) > syncTime || ctx.Err() != nil {
			break
		}
	}
	return times, nil
}

func judgeSync(times []time.Duration, d disk) []finding {
	times = slices.Sorted(slices.Values(times))
	median, longest := times[len(times)/2], times[len(times)-1]
	round := func(t time.Duration) time.Duration { return t.Round(max(time.Microsecond, t/1000)) }
	f := fine("A write of 4 KiB is on %v after %v (median of %d; the longest took %v).", d, round(median), len(times), round(longest))
	liar := "A power cut may lose writes that were acknowledged, on this node. Turn the write cache off, or let the hypervisor pass flushes on (QEMU: cache=none or " +
		"writethrough, never unsafe); with a controller whose cache has a battery all is well."
	switch {
	case median < syncFast && (d.rotational || d.virtual && d.cached):
		f.status, f.advice = Problem, liar
		f.found += " No such disk is that fast: it acknowledges what it has not written."
	case median < syncFast && d.cached, median < syncPlatter && d.rotational:
		f.status, f.advice = Warning, liar
		f.found += " That is faster than such disks are."
	case median > syncVerySlow:
		f.status, f.advice = Problem, "Use a faster disk, one with power-loss protection: every write of a client waits for this."
	case median > syncSlow:
		f.status, f.advice = Warning, "Use a faster disk, one with power-loss protection: every write of a client waits for this."
	case longest > syncStall:
		f.status, f.advice = Warning, "See what else uses the disk: clients feel such stalls."
	}
	return []finding{f}
}

// virtualVendors are of SCSI disks that a hypervisor makes.
var virtualVendors = []string{"QEMU", "VMware", "Msft", "VBOX", "Google", "XENSRC"}

// diskOf finds the disk below a folder.
func (h *host) diskOf(folder string) disk {
	var st unix.Stat_t
	if err := unix.Stat(folder, &st); err != nil {
		return disk{}
	}
	return h.diskAt(fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
}

// diskAt describes the disk with that device number.
func (h *host) diskAt(number string) disk {
	dir, err := filepath.EvalSymlinks(h.path("/sys/dev/block/" + number))
	if err != nil {
		return disk{}
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		dir = filepath.Dir(dir)
	}
	read := func(name string) string {
		b, _ := os.ReadFile(filepath.Join(dir, name)) // a kernel that does not say is like one that says nothing
		return strings.TrimSpace(string(b))
	}
	d := disk{name: filepath.Base(dir), rotational: read("queue/rotational") == "1", cached: read("queue/write_cache") == "write back"}
	d.virtual = strings.HasPrefix(d.name, "vd") || strings.HasPrefix(d.name, "xvd") || slices.Contains(virtualVendors, read("device/vendor"))
	// Virtual disks call themselves rotating when nobody told them otherwise.
	d.rotational = d.rotational && !d.virtual
	return d
}
