package transport

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"
)

// ErrUnknownPeer is returned for a node that Config does not name.
var ErrUnknownPeer = errors.New("transport: unknown peer")

// Handler takes what arrives for a group. Methods but ReceiveSnapshot must not block.
type Handler interface {
	// Receive takes messages. Those of one connection come in order.
	Receive(msgs []raftpb.Message)
	// Unreachable says that messages to a node were lost.
	Unreachable(id uint64)
	// PeerGone says that a node's process is dead: its connections closed and a new one was refused.
	PeerGone(id uint64)
	// ReceiveSnapshot takes a snapshot from a node. ctx ends when the transport closes.
	ReceiveSnapshot(ctx context.Context, from uint64, s Stream) error
}

// Config describes a node's transport. Cluster, ID and Peers must be set.
type Config struct {
	// Cluster is the same on all nodes; nodes of different clusters refuse each other.
	Cluster string
	// ID is this node's number, Peers the addresses (host:port) of the others by theirs.
	ID    uint64
	Peers map[uint64]string
	// Secret is shared by all nodes. If it is empty, anyone who can connect may pose as a node.
	Secret []byte
	// TLS wraps connections if it is not nil; it needs certificates for both directions.
	TLS *tls.Config
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// RedialMin and RedialMax are the pauses between attempts to connect; defaults 20 ms and 500 ms.
	RedialMin, RedialMax time.Duration
	// UserTimeout is how long sent bytes may stay unacknowledged before a connection counts as dead (TCP_USER_TIMEOUT); default 3 s.
	UserTimeout time.Duration
}

func (c Config) withDefaults() (Config, error) {
	if c.Cluster == "" || len(c.Cluster) > maxCluster || c.ID == 0 {
		return c, fmt.Errorf("transport: cluster %q and node %d: a name of 1 to %d bytes and a number are needed", c.Cluster, c.ID, maxCluster)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.RedialMin == 0 {
		c.RedialMin = 20 * time.Millisecond
	}
	if c.RedialMax == 0 {
		c.RedialMax = 500 * time.Millisecond
	}
	if c.UserTimeout == 0 {
		c.UserTimeout = 3 * time.Second
	}
	return c, nil
}

// Transport connects a node to its peers.
type Transport struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	ln     net.Listener
	peers  map[uint64]*peer

	// greeting holds a token for each connection whose other side has not proven itself yet.
	greeting chan struct{}

	mu     sync.Mutex
	groups map[uint64]*Group
	conns  map[net.Conn]struct{} // accepted ones, to be closed by Close
	closed bool
}

const (
	maxGreeting  = 64
	helloTimeout = 3 * time.Second
	dialTimeout  = time.Second
)

// New returns a transport that accepts connections on ln and connects to the peers. It owns ln. Groups join before or after.
func New(cfg Config, ln net.Listener) (*Transport, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	t := &Transport{
		cfg: cfg, ln: ln,
		peers:    make(map[uint64]*peer),
		groups:   make(map[uint64]*Group),
		conns:    make(map[net.Conn]struct{}),
		greeting: make(chan struct{}, maxGreeting),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	for id, addr := range cfg.Peers {
		if id != cfg.ID {
			t.peers[id] = newPeer(t, id, addr)
		}
	}
	t.goRun(t.acceptLoop)
	for _, p := range t.peers {
		t.goRun(p.control.run)
		t.goRun(p.bulk.run)
	}
	return t, nil
}

func (t *Transport) goRun(f func()) {
	t.wg.Add(1)
	go func() {
		defer t.wg.Done()
		f()
	}()
}

// Addr returns the address that the transport listens on.
func (t *Transport) Addr() net.Addr { return t.ln.Addr() }

// Close ends all connections and waits for the goroutines, those that receive snapshots included.
func (t *Transport) Close() error {
	t.cancel()
	err := t.ln.Close()
	t.mu.Lock()
	t.closed = true
	for c := range t.conns {
		_ = c.Close()
	}
	t.mu.Unlock()
	t.wg.Wait()
	return err
}

// Group is one raft group's use of the transport.
type Group struct {
	t       *Transport
	id      uint64
	handler Handler
}

// Join makes the transport deliver a group's messages to h.
func (t *Transport) Join(group uint64, h Handler) *Group {
	g := &Group{t: t, id: group, handler: h}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.groups[group] = g
	return g
}

// Leave ends delivery for the group.
func (g *Group) Leave() {
	g.t.mu.Lock()
	defer g.t.mu.Unlock()
	if g.t.groups[g.id] == g {
		delete(g.t.groups, g.id)
	}
}

func (t *Transport) group(id uint64) *Group {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.groups[id]
}

func (t *Transport) allGroups() []*Group {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*Group, 0, len(t.groups))
	for _, g := range t.groups {
		all = append(all, g)
	}
	return all
}

// Send queues messages to the nodes they are for. It never blocks.
func (g *Group) Send(msgs []raftpb.Message) {
	for i := range msgs {
		if p := g.t.peers[msgs[i].To]; p != nil {
			p.send(g, &msgs[i])
		}
	}
	for _, p := range g.t.peers {
		p.control.flush()
		p.bulk.flush()
	}
}

// OpenSnapshot connects to a node for sending a snapshot. The stream closes when ctx ends.
func (g *Group) OpenSnapshot(ctx context.Context, to uint64) (Stream, error) {
	p := g.t.peers[to]
	if p == nil {
		return nil, fmt.Errorf("%w: %d", ErrUnknownPeer, to)
	}
	conn, err := g.t.dial(ctx, p, kindSnapshot)
	if err != nil {
		return nil, err
	}
	s := newStream(conn, bufio.NewReader(conn))
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	stopAll := context.AfterFunc(g.t.ctx, func() { _ = s.Close() })
	once := s.close
	s.close = func() error { stop(); stopAll(); return once() }
	if err := s.Send(appendMessage(nil, g.id, &raftpb.Message{Type: raftpb.MsgSnap, From: g.t.cfg.ID, To: to})); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// dial connects to a peer and says hello.
func (t *Transport) dial(ctx context.Context, p *peer, k kind) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	dialer := net.Dialer{KeepAliveConfig: keepAlive}
	conn, err := dialer.DialContext(ctx, "tcp", p.addr)
	if err != nil {
		return nil, err
	}
	t.tune(conn)
	defer context.AfterFunc(t.ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if err := conn.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if t.cfg.TLS != nil {
		conn = tls.Client(conn, t.cfg.TLS)
	}
	if err := greet(conn, t.cfg.Secret, hello{kind: k, from: t.cfg.ID, to: p.id, cluster: t.cfg.Cluster}); err != nil {
		return nil, errors.Join(fmt.Errorf("greet node %d at %s: %w", p.id, p.addr, err), conn.Close())
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// keepAlive finds the death of a peer that an idle connection is waiting for.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3}

// tune sets what TCP needs for small messages in a hurry. Go sets TCP_NODELAY by itself.
func (t *Transport) tune(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	// A kernel that refuses has its own, longer timeout.
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(t.cfg.UserTimeout.Milliseconds()))
	})
}
