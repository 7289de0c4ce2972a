// Package systemd tells the service manager how a process fares, as sd_notify(3) describes it: that it is ready, that it stops, what it is busy with, and, for the
// watchdog, that it is alive. Without systemd, when NOTIFY_SOCKET is not set, all of it does nothing, so callers need not ask.
package systemd

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// States for Notify.
const (
	Ready    = daemon.SdNotifyReady    // the service serves; what is ordered after it may start
	Stopping = daemon.SdNotifyStopping // the service is on its way down
)

// Status is a state for Notify: one line that `systemctl status` shows.
func Status(text string) string {
	// The protocol has one assignment a line.
	return "STATUS=" + strings.Join(strings.Fields(text), " ")
}

// Notify sends states to the service manager in one message, so that they take effect together.
func Notify(states ...string) error {
	if _, err := daemon.SdNotify(false, strings.Join(states, "\n")); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}

// Watchdog returns how long the service manager waits for a sign of life before it kills this process (WatchdogSec=). It is not ok where nobody waits.
func Watchdog() (interval time.Duration, ok bool, err error) {
	interval, err = daemon.SdWatchdogEnabled(false)
	if err != nil {
		return 0, false, fmt.Errorf("read the watchdog's interval from the environment: %w", err)
	}
	return interval, interval > 0, nil
}

// Run gives the watchdog a sign of life three times an interval for as long as alive returns nil, until ctx ends. Without a watchdog it returns at once.
//
// alive may wait: as long as it does there is no sign of life. It should go through whatever a hang would show in, and must not ask for anything that a healthy process
// can be without for a while, such as a majority or a fast disk. ctx may end when the process begins to stop: from then on systemd does not watch, but has TimeoutStopSec=.
func Run(ctx context.Context, log *slog.Logger, alive func() error) {
	interval, ok, err := Watchdog()
	if err != nil {
		log.Error("the watchdog gets no sign of life, so systemd will restart this process", "err", err)
		return
	}
	if !ok {
		return
	}
	tick := time.NewTicker(interval / 3)
	defer tick.Stop()
	var failing bool
	for {
		err := alive()
		if err == nil {
			err = Notify(daemon.SdNotifyWatchdog)
		}
		switch {
		case err != nil && !failing:
			log.Error("no sign of life for the watchdog: systemd restarts this process if it stays so", "after", interval, "err", err)
		case err == nil && failing:
			log.Info("alive again")
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
