package transport

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"holdfast/internal/link"
)

// ErrUnknownPeer is returned for a node that is no peer.
var ErrUnknownPeer = errors.New("transport: unknown peer")

// Handler takes what arrives for a group. Methods but ReceiveSnapshot must not block.
type Handler interface {
	// Receive takes messages. Those of one connection come in order.
	Receive(msgs []raftpb.Message)
	// Unreachable says that messages to a node were lost.
	Unreachable(node uint64)
	// PeerGone says that a node's process is dead: its connections closed and a new one was refused.
	PeerGone(node uint64)
	// ReceiveSnapshot takes a snapshot from a member. ctx ends when the transport closes.
	ReceiveSnapshot(ctx context.Context, from uint64, s Stream) error
}

// Config describes a node's transport. ID and Dial must be set.
type Config struct {
	// ID is this node's number, Peers the addresses (host:port) of the others by theirs; SetPeers changes them.
	ID    uint64
	Peers map[uint64]string
	// Dial connects to a node at an address, and makes sure that it is that node. errors.Is must find ECONNREFUSED in its error if nobody listens there.
	Dial func(ctx context.Context, id uint64, addr string) (*link.Conn, error)
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// RedialMin and RedialMax are the pauses between attempts to connect; defaults 20 ms and 500 ms.
	RedialMin, RedialMax time.Duration
}

func (c Config) withDefaults() (Config, error) {
	if c.ID == 0 || c.Dial == nil {
		return c, errors.New("transport: the number of this node and a function to connect with are needed")
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
	return c, nil
}

// Transport connects a node to its peers.
type Transport struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	ln     net.Listener
	// peers is replaced as a whole, with mu held.
	peers atomic.Pointer[map[uint64]*peer]

	mu     sync.Mutex
	groups map[uint64]*Group
	conns  map[*link.Conn]*peer // accepted ones, and whose; nil before the hello
	closed bool
}

const (
	dialTimeout  = 2 * time.Second
	helloTimeout = 3 * time.Second
)

// New returns a transport that accepts connections on ln and connects to the peers. It owns ln, whose connections tell who is at the other end (link.Conn).
// Groups join before or after.
func New(cfg Config, ln net.Listener) (*Transport, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	t := &Transport{
		cfg: cfg, ln: ln,
		groups: make(map[uint64]*Group),
		conns:  make(map[*link.Conn]*peer),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.peers.Store(&map[uint64]*peer{})
	t.SetPeers(cfg.Peers)
	t.goRun(t.acceptLoop)
	return t, nil
}

// SetPeers says which nodes there are, and where; this one may be among them. New ones are connected to. Connections from and to those that are not named any more
// are closed. One whose address has changed is connected to there.
func (t *Transport) SetPeers(addrs map[uint64]string) {
	var closing []*link.Conn
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return
	}
	old, next := *t.peers.Load(), make(map[uint64]*peer, len(addrs))
	for id, addr := range addrs {
		if id == t.cfg.ID {
			continue
		}
		p := old[id]
		if p == nil {
			p = newPeer(t, id, addr)
			t.goRun(p.control.run)
			t.goRun(p.bulk.run)
		} else {
			p.move(addr)
		}
		next[id] = p
	}
	t.peers.Store(&next)
	for id, p := range old {
		if next[id] == nil {
			p.cancel()
		}
	}
	for conn, p := range t.conns {
		if p != nil && next[p.id] != p {
			closing = append(closing, conn)
		}
	}
	t.mu.Unlock()
	for _, conn := range closing {
		_ = conn.Close()
	}
}

// peer returns a node that is one, or nil.
func (t *Transport) peer(id uint64) *peer { return (*t.peers.Load())[id] }

func (t *Transport) goRun(f func()) {
	t.wg.Add(1)
	go func() {
		defer t.wg.Done()
		f()
	}()
}

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
	t          *Transport
	id, member uint64
	handler    Handler
}

// Join makes the transport deliver a group's messages for a member, which is this node's (MemberID), to h.
func (t *Transport) Join(group, member uint64, h Handler) *Group {
	g := &Group{t: t, id: group, member: member, handler: h}
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

// Send queues messages to the nodes of the members they are for. It never blocks.
func (g *Group) Send(msgs []raftpb.Message) {
	peers := *g.t.peers.Load()
	for i := range msgs {
		if p := peers[NodeOf(msgs[i].To)]; p != nil {
			p.send(g, &msgs[i])
		}
	}
	for _, p := range peers {
		p.control.flush()
		p.bulk.flush()
	}
}

// OpenSnapshot connects to a member's node for sending a snapshot. The stream closes when ctx ends.
func (g *Group) OpenSnapshot(ctx context.Context, to uint64) (Stream, error) {
	p := g.t.peer(NodeOf(to))
	if p == nil {
		return nil, fmt.Errorf("%w: %d", ErrUnknownPeer, to)
	}
	conn, err := g.t.dial(ctx, p, p.address(), kindSnapshot)
	if err != nil {
		return nil, err
	}
	s := newStream(conn, bufio.NewReader(conn))
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	stopAll := context.AfterFunc(p.ctx, func() { _ = s.Close() })
	once := s.close
	s.close = func() error { stop(); stopAll(); return once() }
	if err := s.Send(appendMessage(nil, g.id, &raftpb.Message{Type: raftpb.MsgSnap, From: g.member, To: to})); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// dial connects to a peer and says hello.
func (t *Transport) dial(ctx context.Context, p *peer, addr string, k kind) (*link.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	conn, err := t.cfg.Dial(ctx, p.id, addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(p.ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if err := greet(conn, hello{kind: k, from: t.cfg.ID, to: p.id}); err != nil {
		return nil, errors.Join(fmt.Errorf("greet node %d at %s: %w", p.id, addr, err), conn.Close())
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}
