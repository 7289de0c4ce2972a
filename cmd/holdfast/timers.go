package main

import (
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// timerSlack is how late the kernel may wake a sleeping thread of a node. Nothing in a node is timed more finely: the shortest interval is raft's tick of 20 ms,
// and no promise depends on a timer being punctual, as every lease is compared with a clock.
const timerSlack = 500 * time.Microsecond

// relaxTimers makes the Go runtime's monitor thread cheap. That thread sleeps for 20 us at a time while a program keeps going idle and busy again, which is what a node
// does while it waits for disks and peers: with the kernel's default slack of 50 us it took a fifth of all CPU time of a node under O_SYNC writes.
//
// The slack belongs to each thread and is inherited; the monitor thread is there before main is, and only a privileged process may change other threads. So the
// program executes itself anew, once: the slack outlives that, and so do process id, open files and the parent-death signal. If anything of it
// fails the node works as well, at a higher price.
func relaxTimers() {
	if os.Getenv(relaxedVariable) != "" {
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// prctl returns the slack in its result.
	slack, _, errno := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_GET_TIMERSLACK, 0, 0)
	if errno != 0 || time.Duration(slack) >= timerSlack {
		return
	}
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0, 0, 0); err != nil {
		return
	}
	exe, err := os.Executable()
	if err != nil {
		return
	}
	_ = syscall.Exec(exe, os.Args, append(os.Environ(), relaxedVariable+"=1"))
}

// relaxedVariable in the environment says that the program has executed itself already, whatever came of it.
const relaxedVariable = "HOLDFAST_TIMERS_RELAXED"
