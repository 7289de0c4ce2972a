package systemd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager is the receiving end of a notification socket.
type manager struct{ conn *net.UnixConn }

// newManager listens on name and has this process believe that it is systemd's socket.
func newManager(t *testing.T, name string) *manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return &manager{conn}
}

// received returns the messages that were sent so far. A datagram is in the socket's queue when its sender's write has returned.
func (m *manager) received(t *testing.T) []string {
	t.Helper()
	raw, err := m.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	buf := make([]byte, 4096)
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
			if err != nil {
				return true // the queue is empty
			}
			all = append(all, string(buf[:n]))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestNotify(t *testing.T) {
	for name, socket := range map[string]string{
		"path":     filepath.Join(t.TempDir(), "notify"),
		"abstract": fmt.Sprintf("@holdfast-systemd-test-%d", os.Getpid()),
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, socket)
			if err := Notify(Ready, Status("serves main,\nwith three replicas")); err != nil {
				t.Fatal(err)
			}
			if err := Notify(Stopping); err != nil {
				t.Fatal(err)
			}
			want := []string{"READY=1\nSTATUS=serves main, with three replicas", "STOPPING=1"}
			if got := m.received(t); !slices.Equal(got, want) {
				t.Errorf("the manager received %q, want %q", got, want)
			}
		})
	}
}

func TestNotifyWithoutManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Notify(Ready); err != nil {
		t.Errorf("without systemd: %v", err)
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
	if err := Notify(Ready); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("with a socket that is gone: %v", err)
	}
}

func TestWatchdog(t *testing.T) {
	self := strconv.Itoa(os.Getpid())
	for _, tt := range []struct {
		usec, pid string
		want      time.Duration
		wantErr   bool
	}{
		{usec: "", pid: ""},
		{usec: "30000000", pid: self, want: 30 * time.Second},
		{usec: "30000000", pid: "", want: 30 * time.Second},
		{usec: "30000000", pid: "1"}, // it is our parent's
		{usec: "soon", pid: self, wantErr: true},
		{usec: "-1", pid: self, wantErr: true},
	} {
		t.Setenv("WATCHDOG_USEC", tt.usec)
		t.Setenv("WATCHDOG_PID", tt.pid)
		got, ok, err := Watchdog()
		if got != tt.want || ok != (tt.want > 0) || (err != nil) != tt.wantErr {
			t.Errorf("WATCHDOG_USEC=%q WATCHDOG_PID=%q: %v, %v, %v; want %v", tt.usec, tt.pid, got, ok, err, tt.want)
		}
	}
}

// TestRun has a process that is alive, hangs for two rounds, and is alive again.
func TestRun(t *testing.T) {
	m := newManager(t, filepath.Join(t.TempDir(), "notify"))
	t.Setenv("WATCHDOG_USEC", "30000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var log bytes.Buffer
	hung := errors.New("the run loop of volume main does not answer")
	rounds := []error{nil, hung, hung, nil}
	n := 0
	Run(ctx, slog.New(slog.NewTextHandler(&log, nil)), func() error {
		err := rounds[n]
		if n++; n == len(rounds) {
			cancel()
		}
		return err
	})
	if got, want := m.received(t), []string{"WATCHDOG=1", "WATCHDOG=1"}; !slices.Equal(got, want) {
		t.Errorf("the manager received %q, want %q", got, want)
	}
	if got := strings.Count(log.String(), hung.Error()); got != 1 {
		t.Errorf("the hang was logged %d times, want once:\n%s", got, log.String())
	}
	if !strings.Contains(log.String(), "alive again") {
		t.Errorf("the recovery was not logged:\n%s", log.String())
	}
}

func TestRunWithoutWatchdog(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "")
	Run(t.Context(), slog.New(slog.DiscardHandler), func() error {
		t.Error("asked although nobody watches")
		return nil
	})
}
