package node

import (
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"
)

// systemClock is the machine's clock.
type systemClock struct{}

// WallNS returns the time since the epoch in nanoseconds.
func (systemClock) WallNS() int64 { return time.Now().UnixNano() }

// MonotonicNS returns CLOCK_BOOTTIME: it never steps, and it counts while the machine is suspended, so that a lease runs out meanwhile.
func (systemClock) MonotonicNS() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		// The call cannot fail with these arguments (Linux 2.6.39 and newer).
		panic("node: CLOCK_BOOTTIME: " + err.Error())
	}
	return ts.Nano()
}

// Random returns a random number.
func (systemClock) Random() uint64 { return rand.Uint64() }
