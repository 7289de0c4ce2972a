package transport

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"holdfast/internal/identity"
	"holdfast/internal/identity/identitytest"
	"holdfast/internal/link"
)

var quiet = slog.New(slog.DiscardHandler)

// recorder is a Handler that keeps what it gets.
type recorder struct {
	received    chan raftpb.Message
	gone        chan uint64
	unreachable chan uint64
	snapshot    func(ctx context.Context, from uint64, s Stream) error
}

func newRecorder() *recorder {
	return &recorder{received: make(chan raftpb.Message, 10000), gone: make(chan uint64, 100), unreachable: make(chan uint64, 10000)}
}

func (r *recorder) Receive(msgs []raftpb.Message) {
	for _, m := range msgs {
		r.received <- m
	}
}
func (r *recorder) PeerGone(id uint64) { r.gone <- id }
func (r *recorder) Unreachable(id uint64) {
	select {
	case r.unreachable <- id:
	default:
	}
}
func (r *recorder) ReceiveSnapshot(ctx context.Context, from uint64, s Stream) error {
	return r.snapshot(ctx, from, s)
}

type node struct {
	*Transport
	*recorder
	group *Group
	port  *port
}

// Close ends a node as the end of its process would.
func (n *node) Close() {
	n.port.close()
	_ = n.Transport.Close()
}

func checkGoroutines(t testing.TB) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				buf := make([]byte, 1<<20)
				t.Errorf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
				return
			}
		}
	})
}

// cluster makes nodes that find each other.
type cluster struct {
	*identitytest.Cluster
	t     testing.TB
	ports map[uint64]*port
	addrs map[uint64]string
}

// port is a node's port, served.
type port struct {
	ln    net.Listener // for raft
	creds *identity.Credentials
	close func()
}

func newCluster(t testing.TB, nodes ...uint64) *cluster {
	t.Helper()
	checkGoroutines(t)
	c := &cluster{Cluster: identitytest.New(t), t: t, ports: make(map[uint64]*port), addrs: make(map[uint64]string)}
	for _, id := range nodes {
		c.listen(id, "127.0.0.1:0")
	}
	return c
}

func (c *cluster) listen(id uint64, addr string) {
	c.t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		c.t.Fatal(err)
	}
	creds := c.Node(id)
	mux := link.Listen(ln, creds, link.Options{Logger: quiet})
	p := &port{ln: mux.Listener(link.ProtoRaft), creds: creds}
	served := make(chan error)
	go func() { served <- mux.Serve(context.Background()) }()
	p.close = sync.OnceFunc(func() {
		_ = mux.Close()
		if err := <-served; err != nil {
			c.t.Error(err)
		}
	})
	c.t.Cleanup(p.close)
	c.ports[id], c.addrs[id] = p, ln.Addr().String()
}

func (c *cluster) start(id uint64, tweak func(*Config)) *node {
	c.t.Helper()
	p := c.ports[id]
	cfg := Config{ID: id, Peers: c.addrs, Dial: dialer(p.creds), Logger: quiet, RedialMin: 5 * time.Millisecond}
	if tweak != nil {
		tweak(&cfg)
	}
	tr, err := New(cfg, p.ln)
	if err != nil {
		c.t.Fatal(err)
	}
	n := &node{Transport: tr, recorder: newRecorder(), port: p}
	n.group = tr.Join(1, id, n)
	c.t.Cleanup(n.Close)
	return n
}

func dialer(creds *identity.Credentials) func(ctx context.Context, id uint64, addr string) (*link.Conn, error) {
	d := link.Dialer{Creds: creds}
	return func(ctx context.Context, id uint64, addr string) (*link.Conn, error) {
		return d.Dial(ctx, addr, id, link.ProtoRaft)
	}
}

func pair(t *testing.T) (a, b *node, c *cluster) {
	t.Helper()
	c = newCluster(t, 1, 2)
	return c.start(1, nil), c.start(2, nil), c
}

// reach sends until something arrives.
func reach(t testing.TB, from, to *node, m raftpb.Message) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		from.group.Send([]raftpb.Message{m})
		select {
		case <-to.received:
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
	t.Fatal("nothing arrives")
}

var (
	beat = raftpb.Message{Type: raftpb.MsgHeartbeat, From: 1, To: 2, Term: 1}
	bulk = raftpb.Message{Type: raftpb.MsgApp, From: 1, To: 2, Term: 1, Entries: []raftpb.Entry{{Index: 1, Term: 1, Data: make([]byte, 100000)}}}
)

func TestMessagesArriveInOrder(t *testing.T) {
	a, b, _ := pair(t)
	reach(t, a, b, bulk)
	drain(b.received)
	for i := range uint64(200) {
		m := bulk
		m.Index = i
		m.Entries = []raftpb.Entry{{Index: i + 1, Term: 1, Data: bytes.Repeat([]byte{byte(i)}, 50000)}}
		a.group.Send([]raftpb.Message{m})
	}
	for i := range uint64(200) {
		m := <-b.received
		if m.Index != i || len(m.Entries) != 1 || m.Entries[0].Data[49999] != byte(i) {
			t.Fatalf("message %d is %d with %d entries", i, m.Index, len(m.Entries))
		}
	}
}

func drain[T any](c chan T) {
	for {
		select {
		case <-c:
		case <-time.After(50 * time.Millisecond):
			return
		}
	}
}

func TestStrangersAreTurnedAway(t *testing.T) {
	tests := map[string]struct {
		tweak func(c *cluster, cfg *Config) // of node 1, who connects to node 2
		want  error
	}{
		"another cluster": {func(c *cluster, cfg *Config) { cfg.Dial = dialer(identitytest.New(c.t).Node(1)) }, identity.ErrForeign},
		"another number":  {func(c *cluster, cfg *Config) { cfg.ID = 3 }, refusedIdentity},
		"no peer":         {func(c *cluster, cfg *Config) { cfg.ID = 4; cfg.Dial = dialer(c.Node(4)) }, refusedUnknown},
		"administrator":   {func(c *cluster, cfg *Config) { cfg.Dial = dialer(c.Admin("ada")) }, link.ErrRefused},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 1, 2, 3)
			b := c.start(2, nil)
			a := c.start(1, func(cfg *Config) { test.tweak(c, cfg) })
			if _, err := a.group.OpenSnapshot(context.Background(), 2); !errors.Is(err, test.want) {
				t.Errorf("dialing fails with %v", err)
			}
			a.group.Send([]raftpb.Message{beat})
			select {
			case m := <-b.received:
				t.Errorf("got %v", m)
			case <-time.After(50 * time.Millisecond):
			}
		})
	}
}

func TestGarbageEndsAConnectionOnly(t *testing.T) {
	a, b, c := pair(t)
	for _, garbage := range []string{"GET / HTTP/1.1\r\n\r\n", "HFT\x02", string(make([]byte, 1000)), "HFT\x63" + string(make([]byte, 200))} {
		conn, err := dialer(c.ports[1].creds)(t.Context(), 2, c.addrs[2])
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte(garbage))
		_ = conn.CloseWrite()
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.ReadAll(conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: the connection stays open", garbage)
		}
		_ = conn.Close()
	}
	reach(t, a, b, beat)
}

func TestDeadProcessIsNoticed(t *testing.T) {
	a, b, c := pair(t)
	reach(t, a, b, beat)
	reach(t, b, a, raftpb.Message{Type: raftpb.MsgHeartbeatResp, From: 2, To: 1})
	began := time.Now()
	b.Close()
	if id := <-a.gone; id != 2 {
		t.Fatalf("%d is gone", id)
	}
	t.Logf("noticed after %v", time.Since(began))
	c.listen(2, c.addrs[2])
	again := c.start(2, nil)
	reach(t, a, again, beat)
	if len(a.gone) > 0 {
		t.Error("one death was reported twice")
	}
}

// A peer that was never there is not dead.
func TestAbsentPeerIsNotGone(t *testing.T) {
	c := newCluster(t, 1, 2)
	c.ports[2].close()
	a := c.start(1, nil)
	for deadline := time.Now().Add(5 * time.Second); len(a.unreachable) == 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		a.group.Send([]raftpb.Message{bulk})
	}
	if len(a.unreachable) == 0 {
		t.Error("messages to nobody are not reported as lost")
	}
	if len(a.gone) > 0 {
		t.Error("a peer that was never there is reported as dead")
	}
}

func TestSlowPeerBlocksNobody(t *testing.T) {
	a, b, _ := pair(t)
	reach(t, a, b, bulk)
	drain(b.received)
	stuck := make(chan struct{})
	var once sync.Once
	release := func() { once.Do(func() { close(stuck) }) }
	defer release()
	slow := &stuckHandler{recorder: b.recorder, stuck: stuck}
	b.Transport.Join(1, 2, slow)
	m := bulk
	m.Entries = []raftpb.Entry{{Index: 1, Term: 1, Data: make([]byte, 8<<20)}}
	began := time.Now()
	for range 40 { // 320 MiB: more than the queue and the sockets take
		a.group.Send([]raftpb.Message{m})
	}
	if d := time.Since(began); d > time.Second {
		t.Errorf("sending to a peer that does not read took %v", d)
	}
	if len(a.unreachable) == 0 {
		t.Error("what was dropped was not reported")
	}
	// Heartbeats have a connection of their own.
	b.Transport.Join(1, 2, b)
	drain(b.received)
	reach(t, a, b, beat)
	release()
}

type stuckHandler struct {
	*recorder
	stuck chan struct{}
}

func (h *stuckHandler) Receive([]raftpb.Message) { <-h.stuck }

func TestSnapshotStream(t *testing.T) {
	a, b, _ := pair(t)
	data := make([]byte, 3<<20)
	_, _ = rand.Read(data)
	b.snapshot = func(_ context.Context, from uint64, s Stream) error {
		var got []byte
		for len(got) < len(data) {
			f, err := s.Receive()
			if err != nil {
				return err
			}
			got = append(got, f...)
		}
		answer := "same"
		if !bytes.Equal(got, data) || from != 1 {
			answer = "different"
		}
		return s.Send([]byte(answer))
	}
	s, err := a.group.OpenSnapshot(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	for c := range slices.Chunk(data, 256<<10) {
		if err := s.Send(c); err != nil {
			t.Fatal(err)
		}
	}
	if answer, err := s.Receive(); string(answer) != "same" {
		t.Errorf("answer %q, %v", answer, err)
	}
	if err := s.Send(make([]byte, MaxStreamFrameBytes+1)); err == nil {
		t.Error("a frame that is too large was sent")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestSnapshotEndsWithItsContext(t *testing.T) {
	a, b, _ := pair(t)
	b.snapshot = func(_ context.Context, _ uint64, s Stream) error {
		_, err := s.Receive()
		return err
	}
	ctx, cancel := context.WithCancel(t.Context())
	s, err := a.group.OpenSnapshot(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := s.Receive(); err == nil {
		t.Error("a stream outlives its context")
	}
	_ = s.Close()
}

func heartbeat(from, to uint64) raftpb.Message {
	return raftpb.Message{Type: raftpb.MsgHeartbeat, From: from, To: to, Term: 1}
}

func TestPeersAreAddedAndRemoved(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	two := map[uint64]string{1: c.addrs[1], 2: c.addrs[2]}
	only := func(cfg *Config) { cfg.Peers = two }
	a, b, d := c.start(1, only), c.start(2, only), c.start(3, nil)
	reach(t, a, b, beat)
	if _, err := a.group.OpenSnapshot(t.Context(), 3); !errors.Is(err, ErrUnknownPeer) {
		t.Errorf("a snapshot for a stranger: %v", err)
	}
	a.SetPeers(c.addrs)
	reach(t, a, d, heartbeat(1, 3))
	reach(t, d, a, heartbeat(3, 1))
	reach(t, a, b, beat)

	// Both ways end when one side removes the other, and that is not a death.
	d.snapshot = func(_ context.Context, _ uint64, s Stream) error {
		_, err := s.Receive()
		return err
	}
	s, err := a.group.OpenSnapshot(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	p, q := a.peer(3), d.peer(1)
	a.SetPeers(two)
	if _, err := s.Receive(); err == nil {
		t.Error("a snapshot outlives the peer that it is for")
	}
	eventually(t, func() bool { return p.inbound.Load() == 0 && q.inbound.Load() == 0 })
	drain(d.unreachable)
	eventually(t, func() bool {
		d.group.Send([]raftpb.Message{{Type: raftpb.MsgApp, From: 3, To: 1, Term: 1}})
		return len(d.unreachable) > 0
	})
	drain(a.received)
	a.group.Send([]raftpb.Message{heartbeat(1, 3)}) // to nobody
	d.group.Send([]raftpb.Message{heartbeat(3, 1)})
	reach(t, a, b, beat)
	if len(a.received)+len(a.gone)+len(d.gone) > 0 {
		t.Error("something came from a peer that was removed, or it counts as dead")
	}
	// It may come back.
	a.SetPeers(c.addrs)
	reach(t, d, a, heartbeat(3, 1))
}

func TestPeerMoves(t *testing.T) {
	a, b, c := pair(t)
	reach(t, a, b, beat)
	b.Close()
	<-a.gone
	c.listen(2, "127.0.0.1:0")
	again := c.start(2, nil)
	a.SetPeers(c.addrs)
	reach(t, a, again, beat)
	reach(t, a, again, bulk)

	// Also while it is connected where it was: to an address where nobody is, that says nothing of it.
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	p := again.peer(1)
	a.SetPeers(map[uint64]string{2: nobody.Addr().String()})
	eventually(t, func() bool { return p.inbound.Load() == 0 })
	if len(a.gone) > 0 {
		t.Error("a peer that moves counts as dead")
	}
	a.SetPeers(c.addrs)
	reach(t, a, again, beat)
}

// eventually waits until something is true that no event tells.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not become true")
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, cfg := range []Config{{}, {ID: 1}, {Dial: dialer(nil)}} {
		if _, err := New(cfg, nil); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
}

func FuzzHello(f *testing.F) {
	f.Add(hello{kind: kindBulk, from: 1, to: 2}.encode())
	f.Add([]byte("HFT\x63"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < helloBytes {
			return
		}
		h, err := decodeHello(b[:helloBytes])
		if err != nil {
			return
		}
		again, err := decodeHello(h.encode())
		if err != nil || again != h {
			t.Errorf("%+v is decoded as %+v, %v", h, again, err)
		}
	})
}

// TestParts: what is said to or by an earlier part of a node in a group does not reach the one that it has.
func TestParts(t *testing.T) {
	for _, part := range []uint32{0, 1, 1<<24 - 1} {
		if id := MemberID(1<<32|7, part); NodeOf(id) != 1<<32|7 {
			t.Errorf("part %d of a node is member %d, on node %d", part, id, NodeOf(id))
		}
	}
	a, b, _ := pair(t)
	was, is := MemberID(2, 3), MemberID(2, 4)
	b.Join(1, is, b)
	m := beat
	m.To = is
	reach(t, a, b, m)
	installed := make(chan uint64, 1)
	b.snapshot = func(_ context.Context, from uint64, s Stream) error {
		installed <- from
		return s.Send([]byte("welcome"))
	}
	for _, tt := range []struct {
		to   uint64
		want bool
	}{{was, false}, {2, false}, {is, true}} {
		s, err := a.group.OpenSnapshot(t.Context(), tt.to)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Receive()
		if (err == nil) != tt.want || len(installed) > 0 != tt.want {
			t.Errorf("a snapshot to member %d: %v", tt.to, err)
		}
		_ = s.Close()
	}
	if from := <-installed; from != 1 {
		t.Errorf("the snapshot came from %d", from)
	}
}
