package link

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"holdfast/internal/identity"
)

// Limits of what is logged of failed handshakes.
const (
	complaintInterval = time.Minute
	maxComplainers    = 1024
	maxReason         = 500
)

// complaints logs why connections were turned away: once a minute for each source and reason, so that who knocks without end does not fill the log.
type complaints struct {
	logger *slog.Logger
	now    func() time.Time

	mu   sync.Mutex
	seen map[complaint]*complained
}

type complaint struct {
	source netip.Prefix
	class  error // nil for all that classes does not name
}

// classes are what is told apart: few, as a stranger decides on the words of some errors.
var classes = []error{
	identity.ErrForeign, identity.ErrExpired, identity.ErrNotNode, identity.ErrRevoked, identity.ErrProtocol, ErrRefused, context.DeadlineExceeded,
}

func classOf(err error) error {
	for _, c := range classes {
		if errors.Is(err, c) {
			return c
		}
	}
	return nil
}

type complained struct {
	at     time.Time
	silent int // how many were not logged since
}

func newComplaints(logger *slog.Logger) *complaints {
	return &complaints{logger: logger, now: time.Now, seen: make(map[complaint]*complained)}
}

func (c *complaints) log(from net.Addr, err error) {
	// Somebody looks whether the port is open, or was given up.
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) {
		c.logger.Debug("a connection ended in its handshake", "from", from.String(), "err", err)
		return
	}
	silent, ok := c.take(complaint{source(from), classOf(err)})
	if !ok {
		return
	}
	args := []any{"from", from.String(), "err", reason(err)}
	if silent > 0 {
		args = append(args, "times_since_last", silent)
	}
	c.logger.Warn("a connection was turned away", args...)
}

// take reports whether to log, and how many times that was not done before.
func (c *complaints) take(key complaint) (silent int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if len(c.seen) >= maxComplainers && c.seen[key] == nil {
		for k, v := range c.seen {
			if now.Sub(v.at) >= complaintInterval {
				delete(c.seen, k)
			}
		}
		if len(c.seen) >= maxComplainers {
			return 0, false
		}
	}
	last := c.seen[key]
	if last == nil {
		c.seen[key] = &complained{at: now}
		return 0, true
	}
	if now.Sub(last.at) < complaintInterval {
		last.silent++
		return 0, false
	}
	silent = last.silent
	*last = complained{at: now}
	return silent, true
}

// reason returns what a person can make use of.
func reason(err error) string {
	var header tls.RecordHeaderError
	var timeout net.Error
	switch {
	case errors.As(err, &header):
		return "it does not speak TLS, so it is no Holdfast node; is an NFS client or a browser told this port?"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "it did not finish the TLS handshake in time"
	}
	why := explain(err, "this protocol").Error()
	if len(why) > maxReason {
		why = strings.ToValidUTF8(why[:maxReason], "") + "..."
	}
	return why
}
