package doctor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// longestFile is what a file of a volume may grow to at least.
	longestFile = 8 << 40
	// Free space and inodes, in percent of all.
	spaceWarningPercent  = 10
	inodesWarningPercent = 5
	// inodesProblem is too few for the store to work with.
	inodesProblem = 10000
)

// suitability of a kind of file system.
type fsKind struct {
	name   string
	status Status
	why    string
}

const (
	networkFS = "is on another machine: a copy there is no copy of its own, and it may hang or lie about what is on disk"
	memoryFS  = "is in memory and gone after a restart"
)

// fsKinds are by the magic number of statfs(2).
var fsKinds = map[uint32]fsKind{
	unix.EXT4_SUPER_MAGIC:      {"ext4", OK, ""}, // ext2 and ext3 have the same number
	unix.XFS_SUPER_MAGIC:       {"xfs", OK, ""},
	unix.BTRFS_SUPER_MAGIC:     {"btrfs", Warning, "copies every block that is overwritten, which makes a log slow and files fragmented"},
	0x2fc12fc1:                 {"zfs", Warning, "writes data twice and is not among the file systems that Holdfast is tested on"},
	unix.F2FS_SUPER_MAGIC:      {"f2fs", Warning, "is not among the file systems that Holdfast is tested on"},
	0xca451a4e:                 {"bcachefs", Warning, "is not among the file systems that Holdfast is tested on"},
	unix.NFS_SUPER_MAGIC:       {"nfs", Problem, networkFS},
	unix.SMB_SUPER_MAGIC:       {"smb", Problem, networkFS},
	unix.SMB2_SUPER_MAGIC:      {"smb", Problem, networkFS},
	unix.CIFS_SUPER_MAGIC:      {"cifs", Problem, networkFS},
	unix.CEPH_SUPER_MAGIC:      {"ceph", Problem, networkFS},
	unix.V9FS_MAGIC:            {"9p", Problem, networkFS},
	unix.TMPFS_MAGIC:           {"tmpfs", Problem, memoryFS},
	unix.RAMFS_MAGIC:           {"ramfs", Problem, memoryFS},
	unix.OVERLAYFS_SUPER_MAGIC: {"overlay", Problem, "belongs to a container and is gone with it: mount a volume for the data"},
	unix.FUSE_SUPER_MAGIC:      {"fuse", Problem, "is a program's: nobody knows what its fsync means"},
	unix.ECRYPTFS_SUPER_MAGIC:  {"ecryptfs", Problem, "has no sparse files: use dm-crypt below ext4 or xfs"},
	unix.MSDOS_SUPER_MAGIC:     {"vfat", Problem, "has no sparse files and no journal"},
}

// existing returns the folder, or the nearest above it that exists, without symbolic links.
func existing(folder string) (string, error) {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return "", err
	}
	for {
		real, err := filepath.EvalSymlinks(folder)
		if err == nil || !errors.Is(err, os.ErrNotExist) || folder == "/" {
			return real, err
		}
		folder = filepath.Dir(folder)
	}
}

// statfs asks for the state of the data folder's file system. A finding is why it could not.
func statfs(cfg *Config) (folder string, st unix.Statfs_t, bad []finding) {
	if cfg.Data == "" {
		return "", st, []finding{skip("The data folder is not known.")}
	}
	folder, err := existing(cfg.Data)
	if err == nil {
		err = unix.Statfs(folder, &st)
	}
	if err != nil {
		return "", st, []finding{{Problem, fmt.Sprintf("The data folder %s cannot be looked at: %v.", cfg.Data, err), "See to its permissions, and those of the folders above."}}
	}
	return folder, st, nil
}

func checkFilesystem(_ context.Context, h *host, cfg *Config) []finding {
	folder, st, bad := statfs(cfg)
	if bad != nil {
		return bad
	}
	all := judgeKind(uint32(st.Type))
	if st.Flags&unix.ST_RDONLY != 0 {
		return append(all, finding{Problem, fmt.Sprintf("It is mounted read-only at %s.", folder), "Look into the kernel's log for errors of the disk, then remount it."})
	}
	if m, ok := findMount(parseMounts(h.read("/proc/self/mountinfo")), folder); ok {
		all = append(all, judgeMount(m)...)
	}
	return append(all, checkLongFile(folder)...)
}

func judgeKind(magic uint32) []finding {
	k, ok := fsKinds[magic]
	switch {
	case !ok:
		return []finding{{Warning, fmt.Sprintf("The data folder is on a file system of an unknown kind (%#x).", magic), "Use ext4 or xfs."}}
	case k.status == OK:
		return []finding{fine("The data folder is on %s.", k.name)}
	default:
		return []finding{{k.status, fmt.Sprintf("The data folder is on %s, which %s.", k.name, k.why), "Use ext4 or xfs on a local disk."}}
	}
}

// checkLongFile tries how long a file may be.
func checkLongFile(folder string) []finding {
	f, err := os.CreateTemp(folder, ".holdfast-doctor-*")
	if err != nil {
		return []finding{{Problem, fmt.Sprintf("No file can be made in %s: %v.", folder, err), "Run this as the user that Holdfast runs as, and see to the folder's permissions."}}
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := unix.Ftruncate(int(f.Fd()), longestFile); err != nil {
		return []finding{{Problem, fmt.Sprintf("A file cannot be %s long here: %v.", size(longestFile), err),
			"Make the file system with blocks of 4 KiB, and see that no limit is set (ulimit -f)."}}
	}
	return nil
}

// mount is a line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
type mount struct {
	point, kind, source string
	options             []string // of the mount and of the file system
}

func parseMounts(mountinfo string) []mount {
	var all []mount
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		b, a := strings.Fields(before), strings.Fields(after)
		if !ok || len(b) < 6 || len(a) < 3 {
			continue
		}
		all = append(all, mount{point: unescape(b[4]), kind: a[0], source: unescape(a[1]), options: append(strings.Split(b[5], ","), strings.Split(a[2], ",")...)})
	}
	return all
}

// unescape replaces what mountinfo has for space, tab, newline and backslash.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// findMount returns where a folder is mounted: the longest mount point above it, the last one mounted there.
func findMount(all []mount, folder string) (found mount, ok bool) {
	for _, m := range all {
		if (folder == m.point || strings.HasPrefix(folder, strings.TrimSuffix(m.point, "/")+"/")) && len(m.point) >= len(found.point) {
			found, ok = m, true
		}
	}
	return found, ok
}

func judgeMount(m mount) []finding {
	var all []finding
	for _, o := range []string{"nobarrier", "barrier=0"} {
		if slices.Contains(m.options, o) {
			all = append(all, finding{Problem, fmt.Sprintf("%s is mounted with %s: a power cut loses writes that were acknowledged.", m.point, o), "Mount it without that option."})
		}
	}
	if slices.Contains(m.options, "sync") {
		all = append(all, finding{Warning, fmt.Sprintf("%s is mounted with sync, which makes every write slow.", m.point), "Mount it without: Holdfast makes sure itself."})
	}
	if m.point == "/" {
		all = append(all, finding{OK, "It is the root file system.", "A file system of its own keeps logs and packages from filling it."})
	}
	return all
}

func checkSpace(_ context.Context, _ *host, cfg *Config) []finding {
	_, st, bad := statfs(cfg)
	if bad != nil {
		return bad
	}
	return judgeSpace(st.Bavail*uint64(st.Bsize), st.Blocks*uint64(st.Bsize), cfg.Reserve)
}

func judgeSpace(free, total, reserve uint64) []finding {
	percent := 100.0
	if total > 0 {
		percent = 100 * float64(free) / float64(total)
	}
	f := fine("%s of %s are free; %s are kept in reserve.", size(free), size(total), size(reserve))
	switch {
	case free < reserve:
		f.status, f.advice = Problem, "Make room: clients cannot write anything new while a node is below its reserve."
	case free-reserve < reserve || percent < spaceWarningPercent:
		f.status, f.advice = Warning, "Make room before the reserve is reached: clients cannot write anything new then."
	}
	return []finding{f}
}

func checkInodes(_ context.Context, _ *host, cfg *Config) []finding {
	_, st, bad := statfs(cfg)
	if bad != nil {
		return bad
	}
	return judgeInodes(st.Ffree, st.Files)
}

func judgeInodes(free, total uint64) []finding {
	if total == 0 || total > math.MaxInt64 {
		return []finding{fine("The file system makes inodes as they are needed.")}
	}
	f := fine("%d of %d inodes are free.", free, total)
	switch {
	case free < inodesProblem:
		f.status = Problem
	case free*100 < total*inodesWarningPercent:
		f.status = Warning
	}
	if f.status != OK {
		f.advice = "Make room, or make the file system anew with more inodes (mkfs.ext4 -i) or as xfs: every larger file of a volume takes one."
	}
	return []finding{f}
}
