package forward

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"holdfast/internal/rpc"
)

// DefaultHeaderTimeout is how long a stream may take to say whose it is, and then to take the answer.
const DefaultHeaderTimeout = 5 * time.Second

// ReceiverConfig says what a Receiver hands connections to, and its limits. Zero values stand for the defaults.
type ReceiverConfig struct {
	// Server returns what serves the clients of a volume at this node; nil if this node does not serve it. What it returns owns the connection and
	// returns when that has ended, as it has to soon after ctx does: rpc.Server.ServeConn.
	Server func(volume uint64) func(ctx context.Context, nc net.Conn)
	// HeaderTimeout is DefaultHeaderTimeout.
	HeaderTimeout time.Duration
	// MaxConns is how many streams may be open, of all volumes together; DefaultMaxConns. Further ones are refused.
	MaxConns int
	// Log receives what goes wrong; nil: slog.Default.
	Log *slog.Logger
}

// Receiver takes the streams that the Proxies of other nodes open to this one.
type Receiver struct {
	cfg     ReceiverConfig
	open    atomic.Int64
	full    seldom
	strange seldom
}

// NewReceiver makes a Receiver. cfg.Server must be set.
func NewReceiver(cfg ReceiverConfig) *Receiver {
	cfg.HeaderTimeout = cmp.Or(cfg.HeaderTimeout, DefaultHeaderTimeout)
	cfg.MaxConns = cmp.Or(cfg.MaxConns, DefaultMaxConns)
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	return &Receiver{cfg: cfg}
}

// Serve accepts streams from ln until ctx ends, then closes ln, waits for the connections to end and returns nil. It returns an error if ln failed for good.
func (r *Receiver) Serve(ctx context.Context, ln net.Listener) error {
	return rpc.Accept(ctx, ln, r.cfg.Log, r.ServeConn)
}

// ServeConn takes one stream, and returns when it has ended.
func (r *Receiver) ServeConn(ctx context.Context, stream net.Conn) {
	serve, c, err := r.admit(ctx, stream)
	defer r.open.Add(-1)
	if err != nil {
		_ = stream.Close()
		if ctx.Err() == nil && r.strange.now() {
			r.cfg.Log.Warn("a forwarded NFS connection was not taken", "from", stream.RemoteAddr().String(), "err", err)
		}
		return
	}
	if serve == nil {
		_ = stream.Close()
		return
	}
	serve(ctx, c)
}

// admit reads the header and answers it. Without an error and without a server the stream was refused for an ordinary reason. It counts as open.
func (r *Receiver) admit(ctx context.Context, stream net.Conn) (serve func(context.Context, net.Conn), _ net.Conn, err error) {
	tooMany := r.open.Add(1) > int64(r.cfg.MaxConns)
	stop := context.AfterFunc(ctx, func() { breakOff(stream) })
	defer stop()
	if err := rpc.Tune(stream); err != nil {
		return nil, nil, fmt.Errorf("set its options: %w", err)
	}
	if err := stream.SetDeadline(time.Now().Add(r.cfg.HeaderTimeout)); err != nil {
		return nil, nil, err
	}
	h, headerErr := readHeader(stream)
	answer := statusServing
	switch {
	case headerErr != nil:
		answer = statusBadHeader
	case tooMany:
		answer = statusFull
	default:
		if serve = r.cfg.Server(h.Volume); serve == nil {
			answer = statusNotServing
		}
	}
	if err := stream.SetDeadline(time.Now().Add(r.cfg.HeaderTimeout)); err != nil {
		return nil, nil, err
	}
	if _, err := stream.Write([]byte{byte(answer)}); err != nil && headerErr == nil {
		return nil, nil, fmt.Errorf("answer it: %w", err)
	}
	switch {
	case headerErr != nil:
		return nil, nil, headerErr
	case tooMany:
		if r.full.now() {
			r.cfg.Log.Warn("too many forwarded NFS connections: refusing new ones", "limit", r.cfg.MaxConns)
		}
		return nil, nil, nil
	case serve == nil:
		return nil, nil, nil
	}
	if err := stream.SetDeadline(time.Time{}); err != nil {
		return nil, nil, err
	}
	return serve, newConn(stream, h), nil
}
