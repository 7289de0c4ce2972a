package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"holdfast/internal/api"
)

// unit is the service that the packages install.
const unit = "holdfast.service"

// startTimeout is how long a node may take until it answers.
const startTimeout = time.Minute

// findSystemctl returns what runs systemctl, or nil where systemd does not run (sd_booted(3)) or we may not tell it anything.
func findSystemctl() func(ctx context.Context, args ...string) (string, error) {
	if info, err := os.Lstat("/run/systemd/system"); err != nil || !info.IsDir() || os.Geteuid() != 0 {
		return nil
	}
	return func(ctx context.Context, args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, "systemctl", args...).Output()
		var exit *exec.ExitError
		if errors.As(err, &exit) && len(exit.Stderr) > 0 {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		return strings.TrimSpace(string(out)), err
	}
}

// serviceInstalled reports whether systemd can run this node: the unit is for the data folder that the machine's own file names.
func (o *options) serviceInstalled(ctx context.Context) bool {
	if o.systemctl == nil || filepath.Clean(o.dataDir()) != filepath.Clean(o.local().Data) {
		return false
	}
	state, err := o.systemctl(ctx, "show", "--property=LoadState", "--value", unit)
	return err == nil && state == "loaded"
}

// startService enables and starts the node, and waits until it answers.
func (o *options) startService(ctx context.Context) error {
	if _, err := o.systemctl(ctx, "enable", unit); err != nil {
		return fmt.Errorf("enable %s: %w", unit, err)
	}
	// A start would do nothing if it ran already, with another identity.
	_, err := asking(ctx, o, "starting "+unit, func(ctx context.Context) (string, error) { return o.systemctl(ctx, "restart", unit) })
	if err != nil {
		return fmt.Errorf("start %s: %w; its log: journalctl -u holdfast", unit, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("%s is started, but after %v the node does not answer, or knows no leader of the cluster; its log: journalctl -u holdfast", unit, startTimeout))
	defer cancel()
	c := api.NewClient(o.dataDir())
	defer c.Close()
	return o.await(ctx, func(ctx context.Context) (string, bool, error) {
		s, err := c.Status(ctx, true)
		if err != nil {
			return "waiting until the node answers", false, nil
		}
		return "waiting until the node knows who leads the cluster", s.ClusterLeader != "", nil
	})
}

// ownerOf returns whose a file is.
func ownerOf(info fs.FileInfo) (uid, gid int, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false
	}
	return int(st.Uid), int(st.Gid), true
}
