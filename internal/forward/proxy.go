package forward

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"holdfast/internal/rpc"
)

// Defaults of ProxyConfig.
const (
	DefaultPatience    = 10 * time.Second
	DefaultMaxConns    = 4096
	DefaultMaxBuffered = 64 << 20
)

const (
	// openTimeout bounds one attempt to open a stream: the node may have died just now, without anybody knowing.
	openTimeout = 3 * time.Second
	// Pauses between attempts while it is not known that the leader changed: it may be about to serve, or have stopped.
	retryMin = 10 * time.Millisecond
	retryMax = 250 * time.Millisecond
)

// Target is who serves a volume, as far as this node knows.
type Target struct {
	// Node is who serves; 0: nobody that this node knows of. It is ignored if Local.
	Node uint64
	// Local: this node serves.
	Local bool
	// Changed is closed when this is no longer so.
	Changed <-chan struct{}
}

// ProxyConfig says where a Proxy's connections go, and its limits. Zero values stand for the defaults.
type ProxyConfig struct {
	// Volume is the number of the volume's raft group.
	Volume uint64
	// Target returns who serves the volume now.
	Target func() Target
	// Dial opens a stream to the Receiver of another node.
	Dial func(ctx context.Context, node uint64) (net.Conn, error)
	// Serve serves a connection at this node. It owns the connection, and returns when that has ended, as it has to soon after ctx does: rpc.Server.ServeConn.
	Serve func(ctx context.Context, nc net.Conn)
	// Balancers are the networks of TCP balancers that begin each connection with a PROXY header (versions 1 and 2, haproxy's send-proxy and
	// send-proxy-v2), which says who the client is. Connections from there without one are reset.
	Balancers []netip.Prefix
	// Patience is how long a new connection waits for a node that serves, before it is reset; DefaultPatience.
	Patience time.Duration
	// MaxConns is how many connections may be open; DefaultMaxConns. Further ones are reset.
	MaxConns int
	// MaxBuffered bounds the bytes on their way to leaders, of all connections together, besides 16 KiB for each direction of each connection;
	// DefaultMaxBuffered.
	MaxBuffered int
	// Log receives what goes wrong; nil: slog.Default.
	Log *slog.Logger
}

// Proxy accepts the connections of a volume's clients on an address of this node. It may serve several listeners.
type Proxy struct {
	cfg     ProxyConfig
	buffers buffers

	open, waiting, forwarded atomic.Int64
	full, failed, strange    seldom
}

// ProxyStats counts what a Proxy does.
type ProxyStats struct {
	Conns     int64 `json:"conns"`     // open, those that this node serves included
	Waiting   int64 `json:"waiting"`   // those of Conns that wait for a node that serves
	Forwarded int64 `json:"forwarded"` // those of Conns that another node serves
}

// NewProxy makes a Proxy. cfg.Target, Dial and Serve must be set.
func NewProxy(cfg ProxyConfig) *Proxy {
	cfg.Patience = cmp.Or(cfg.Patience, DefaultPatience)
	cfg.MaxConns = cmp.Or(cfg.MaxConns, DefaultMaxConns)
	cfg.MaxBuffered = cmp.Or(cfg.MaxBuffered, DefaultMaxBuffered)
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	p := &Proxy{cfg: cfg}
	p.buffers.limit = int64(cfg.MaxBuffered)
	return p
}

// Serve accepts connections from ln until ctx ends, then closes ln, resets the connections that are forwarded, waits for all to end and returns nil.
// It returns an error if ln failed for good.
func (p *Proxy) Serve(ctx context.Context, ln net.Listener) error {
	return rpc.Accept(ctx, ln, p.cfg.Log, p.serveConn)
}

// Stats returns what goes on now.
func (p *Proxy) Stats() ProxyStats {
	return ProxyStats{Conns: p.open.Load(), Waiting: p.waiting.Load(), Forwarded: p.forwarded.Load()}
}

func (p *Proxy) serveConn(ctx context.Context, client net.Conn) {
	defer p.open.Add(-1)
	if p.open.Add(1) > int64(p.cfg.MaxConns) {
		breakOff(client)
		if p.full.now() {
			p.cfg.Log.Warn("too many NFS connections: refusing new ones", "limit", p.cfg.MaxConns, "peer", client.RemoteAddr().String())
		}
		return
	}
	if err := rpc.Tune(client); err != nil {
		breakOff(client) // the client is gone already
		return
	}
	setLinger(client, 0)
	client, err := p.identify(ctx, client)
	if err != nil {
		breakOff(client)
		if ctx.Err() == nil && p.strange.now() {
			p.cfg.Log.Warn("an NFS connection was reset: it comes from the address of a balancer, but without a PROXY header that can be read; "+
				"give haproxy's server line send-proxy-v2, or take the address off the list", "peer", client.RemoteAddr().String(), "err", err)
		}
		return
	}
	stream, target, err := p.connect(ctx, client)
	switch {
	case err != nil:
		breakOff(client)
		if ctx.Err() == nil && p.failed.now() {
			p.cfg.Log.Warn("an NFS connection was reset: no node was found that serves the volume", "peer", client.RemoteAddr().String(), "err", err)
		}
	case target.Local:
		p.cfg.Serve(ctx, client)
	default:
		p.forwarded.Add(1)
		p.relay(ctx, client, stream, target)
		p.forwarded.Add(-1)
	}
}

// connect finds the node that serves, and opens a stream to it unless that is this node.
func (p *Proxy) connect(ctx context.Context, client net.Conn) (net.Conn, Target, error) {
	p.waiting.Add(1)
	defer p.waiting.Add(-1)
	header, err := Header{Volume: p.cfg.Volume, Client: addrPort(client.RemoteAddr()), Local: addrPort(client.LocalAddr())}.AppendBinary(nil)
	if err != nil {
		return nil, Target{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Patience)
	defer cancel()
	last := errors.New("no node is known to serve it")
	retry := retryMin
	for {
		t := p.cfg.Target()
		wait := p.cfg.Patience
		switch {
		case t.Local:
			return nil, t, nil
		case t.Node != 0:
			stream, err := p.openStream(ctx, t, header)
			if err == nil {
				return stream, t, nil
			}
			last = err
			wait, retry = retry, min(2*retry, retryMax)
		}
		if !pause(ctx, t.Changed, wait) {
			return nil, t, fmt.Errorf("waited for %v: %w", p.cfg.Patience, last)
		}
	}
}

// openStream makes one attempt, which ends when the target changes.
func (p *Proxy) openStream(ctx context.Context, t Target, header []byte) (_ net.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-t.Changed:
			cancel()
		case <-ctx.Done():
		}
	}()
	defer func() { cancel(); <-watched }()

	stream, err := p.cfg.Dial(ctx, t.Node)
	if err != nil {
		return nil, fmt.Errorf("connect to node %d: %w", t.Node, err)
	}
	stop := context.AfterFunc(ctx, func() { breakOff(stream) })
	defer func() {
		if !stop() && err == nil {
			err = fmt.Errorf("node %d answered too late", t.Node)
		}
		if err != nil {
			breakOff(stream)
		}
	}()
	if err := rpc.Tune(stream); err != nil {
		return nil, fmt.Errorf("connect to node %d: %w", t.Node, err)
	}
	if _, err := stream.Write(header); err != nil {
		return nil, fmt.Errorf("tell node %d of a client: %w", t.Node, err)
	}
	var answer [1]byte
	if _, err := io.ReadFull(stream, answer[:]); err != nil {
		return nil, fmt.Errorf("wait for the answer of node %d: %w", t.Node, err)
	}
	if s := status(answer[0]); s != statusServing {
		return nil, fmt.Errorf("node %d %v", t.Node, s)
	}
	setLinger(stream, 0)
	return stream, nil
}

// pause waits for d or until changed is closed, whichever comes first; false: ctx ended before.
func pause(ctx context.Context, changed <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-changed:
	case <-ctx.Done():
		return false
	}
	return true
}

// seldom lets one log line through in ten seconds.
type seldom struct{ next atomic.Int64 }

func (s *seldom) now() bool {
	now, next := time.Now().UnixNano(), s.next.Load()
	return now >= next && s.next.CompareAndSwap(next, now+int64(10*time.Second))
}
