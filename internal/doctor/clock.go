package doctor

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Differences between the clocks of nodes from which on a person is told, and from which on it is urgent. Holdfast's leases do not depend on them; times of files and in logs do,
// and whether a certificate has ended.
const (
	ClockWarning = time.Second
	ClockProblem = time.Minute
)

const (
	// Pauses beyond these risk elections (which begin after 200 ms of silence), and lose leases.
	pauseWarning = 50 * time.Millisecond
	pauseProblem = 150 * time.Millisecond
	// pauseMeasured is how long is measured.
	pauseMeasured = 200 * time.Millisecond
	// stealWarning is the part of the time, in percent, that the hypervisor gave to others.
	stealWarning = 10
)

// clockDaemons keep clocks, by the names of their processes (15 characters are kept).
var clockDaemons = []string{"chronyd", "ntpd", "systemd-timesyn", "openntpd", "ptp4l", "phc2sys", "ntpd-rs", "ntp-daemon", "vmtoolsd"}

// clockState is what is known of the clock.
type clockState struct {
	synchronised bool
	maxError     time.Duration // the kernel's estimate
	daemons      []string
}

func checkClock(_ context.Context, h *host, cfg *Config) []finding {
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	if err != nil {
		return []finding{skip("The kernel does not tell the state of the clock (%v).", err)}
	}
	const timeError = 5 // TIME_ERROR
	s := clockState{
		synchronised: state != timeError && tx.Status&unix.STA_UNSYNC == 0,
		maxError:     time.Duration(tx.Maxerror) * time.Microsecond,
	}
	for _, p := range h.processes() {
		if slices.Contains(clockDaemons, p.comm) {
			s.daemons = appendNew(s.daemons, p.comm)
		}
	}
	return judgeClock(s, cfg.Peers)
}

func judgeClock(s clockState, peers []Peer) []finding {
	var all []finding
	who := strings.Join(s.daemons, ", ")
	switch {
	case s.synchronised && who != "":
		all = append(all, fine("The clock is kept by %s, to within %v.", who, s.maxError.Round(time.Millisecond)))
	case s.synchronised:
		all = append(all, fine("The clock is synchronised, to within %v.", s.maxError.Round(time.Millisecond)))
	case who != "":
		all = append(all, finding{Warning, fmt.Sprintf("The clock is not synchronised, although %s runs.", who),
			"Wait for a minute if it was just started; otherwise see whether it reaches its time servers (chronyc sources, timedatectl timesync-status)."})
	default:
		all = append(all, finding{Warning, "The clock is not synchronised, and nothing runs that would keep it.",
			"Install chrony: the times of files, and in the logs of several nodes, come from this clock."})
	}
	for _, p := range peers {
		if p.ClockKnown {
			all = append(all, judgeOffset(&p))
		}
	}
	return all
}

// judgeOffset compares a peer's clock with this machine's. What the uncertainty explains is no difference.
func judgeOffset(p *Peer) finding {
	off := p.ClockOffset.Abs()
	sure := off - p.ClockUncertainty
	if sure < ClockWarning {
		return fine("The clock of %s agrees, to within %v.", p.Name, (off+p.ClockUncertainty).Truncate(time.Millisecond)+time.Millisecond)
	}
	direction := "ahead of"
	if p.ClockOffset < 0 {
		direction = "behind"
	}
	f := finding{Warning, fmt.Sprintf("The clock of %s is %v %s this one.", p.Name, off.Round(time.Millisecond), direction),
		"Keep the clocks of all nodes by the same time servers: times of files come from the node that leads, and certificates end too early or too late."}
	if sure >= ClockProblem {
		f.status = Problem
	}
	return f
}

func checkPauses(ctx context.Context, h *host, _ *Config) []finding {
	before, ok := stolen(h.read("/proc/stat"))
	start := time.Now()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var longest time.Duration
	const step = time.Millisecond
	for time.Since(start) < pauseMeasured && ctx.Err() == nil {
		at := time.Now()
		ts := unix.NsecToTimespec(int64(step))
		_ = unix.Nanosleep(&ts, nil) // an interrupted one is just shorter
		longest = max(longest, time.Since(at)-step)
	}
	elapsed := time.Since(start)
	percent := 0.0
	if after, ok2 := stolen(h.read("/proc/stat")); ok && ok2 {
		percent = 100 * (after - before).Seconds() / elapsed.Seconds() / float64(runtime.NumCPU())
	}
	return judgePauses(longest, percent)
}

func judgePauses(longest time.Duration, steal float64) []finding {
	f := fine("The longest pause in %v was %v.", pauseMeasured, longest.Round(10*time.Microsecond))
	if longest >= pauseWarning {
		f.status = Warning
		f.advice = "Nodes that stand still for longer than 200 ms lose their leadership. See whether the hypervisor has too many machines, takes snapshots of this one, " +
			"or limits its processor time."
	}
	if longest >= pauseProblem {
		f.status = Problem
	}
	all := []finding{f}
	if steal >= stealWarning {
		all = append(all, finding{Warning, fmt.Sprintf("The hypervisor gave %.0f %% of this machine's processor time to others.", steal),
			"Give the machine processors of its own."})
	}
	return all
}

// stolen returns the processor time that a hypervisor kept from this machine since it was started: the eighth column of /proc/stat, in hundredths
// of a second.
func stolen(stat string) (time.Duration, bool) {
	line, _, _ := strings.Cut(stat, "\n")
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return 0, false
	}
	n, err := strconv.ParseInt(f[8], 10, 64)
	return time.Duration(n) * 10 * time.Millisecond, err == nil
}

// process is a process of this machine.
type process struct {
	pid  int
	comm string // its name, at most 15 characters
}

// processes lists the processes that can be seen.
func (h *host) processes() []process {
	entries, err := os.ReadDir(h.path("/proc"))
	if err != nil {
		return nil
	}
	var all []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if comm := h.read("/proc/" + e.Name() + "/comm"); comm != "" {
			all = append(all, process{pid, comm})
		}
	}
	return all
}
