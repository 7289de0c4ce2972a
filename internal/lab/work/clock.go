package work

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

func init() { registry["clock"] = with(setClock) }

// ClockArgs is a time that the guest's wall clock is set to.
type ClockArgs struct {
	Unix int64 // seconds since 1970
}

func setClock(_ context.Context, a ClockArgs, _ func(any)) (any, error) {
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &unix.Timespec{Sec: a.Unix}); err != nil {
		return nil, fmt.Errorf("set the clock to %d: %w", a.Unix, err)
	}
	return nil, nil
}
