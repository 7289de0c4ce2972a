package node

import (
	"math/rand/v2"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// systemClock is the machine's clock.
type systemClock struct{}

// WallNS returns the time since the epoch in nanoseconds.
func (systemClock) WallNS() int64 { return time.Now().UnixNano() }

// MonotonicNS returns CLOCK_BOOTTIME: it never steps, and it counts while the machine is suspended, so that a lease runs out meanwhile.
func (systemClock) MonotonicNS() int64 {
	var ts unix.Timespec
	// It never blocks, so the scheduler need not know of it: several calls for each request are cheaper this way.
	if _, _, errno := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		// The call cannot fail with these arguments (Linux 2.6.39 and newer).
		panic("node: CLOCK_BOOTTIME: " + errno.Error())
	}
	return ts.Nano()
}

// Random returns a random number.
func (systemClock) Random() uint64 { return rand.Uint64() }
