package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/internal/identity"
	"holdfast/internal/identity/identitytest"
	"holdfast/internal/link"
	"holdfast/internal/replica/transport"
	"holdfast/internal/vfs"
	"holdfast/internal/wal"
)

type bootClock struct{}

func (bootClock) MonotonicNS() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err)
	}
	return ts.Nano()
}

// cluster is a group of Replicas in one process, over real connections and real logs.
type cluster struct {
	t     testing.TB
	dir   string
	ids   *identitytest.Cluster
	creds map[uint64]*identity.Credentials
	addrs map[uint64]string
	first []uint64 // members of the first configuration; there is an address for one node beyond them
	mu    sync.Mutex
	nodes map[uint64]*clusterNode
	begun map[uint64]bool // they had the group
	tweak func(*Config)
}

type clusterNode struct {
	id      uint64
	port    *port
	tr      *transport.Transport
	group   *transport.Group
	log     *wal.Log
	sm      *toySM
	replica *Replica
	events  chan Event
	mu      sync.Mutex
	waiting map[uint64]chan struct{}
	fatal   atomic.Pointer[error]
}

func newCluster(t testing.TB, n int, tweak func(*Config)) *cluster {
	var ids []uint64
	for id := range uint64(n) {
		ids = append(ids, id+1)
	}
	return newClusterOf(t, ids, tweak)
}

func newClusterOf(t testing.TB, ids []uint64, tweak func(*Config)) *cluster {
	c := &cluster{
		t: t, dir: t.TempDir(), ids: identitytest.New(t), creds: map[uint64]*identity.Credentials{}, addrs: map[uint64]string{},
		nodes: map[uint64]*clusterNode{}, begun: map[uint64]bool{}, tweak: tweak,
	}
	listeners := map[uint64]net.Listener{}
	c.first = ids
	for _, id := range append(slices.Clone(ids), uint64(len(ids))+1) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c.addrs[id], c.creds[id] = ln.Addr().String(), c.ids.Node(id)
		if slices.Contains(ids, id) {
			listeners[id] = ln
		} else {
			_ = ln.Close()
		}
	}
	for id, ln := range listeners {
		c.start(id, ln, newToySM())
	}
	t.Cleanup(func() {
		for id := range c.addrs {
			c.stop(id)
		}
	})
	return c
}

func (c *cluster) start(id uint64, ln net.Listener, sm *toySM) *clusterNode {
	c.t.Helper()
	if ln == nil {
		var err error
		if ln, err = net.Listen("tcp", c.addrs[id]); err != nil {
			c.t.Fatal(err)
		}
	}
	n := &clusterNode{id: id, sm: sm, events: make(chan Event, 1000), waiting: map[uint64]chan struct{}{}}
	dir := filepath.Join(c.dir, fmt.Sprint(id))
	var err error
	if n.log, err = wal.Open(vfs.OS(), dir+"/log", wal.Options{SegmentBytes: 16 << 20, Spares: 2}); err != nil {
		c.t.Fatal(err)
	}
	n.port = c.serve(c.creds[id], ln)
	if n.tr, err = transport.New(transport.Config{ID: id, Peers: c.addrs, Dial: n.port.dial, Logger: quiet}, n.port.raft); err != nil {
		c.t.Fatal(err)
	}
	lateGroup := &lateTransport{}
	cfg := Config{
		ID: id, Peers: c.first, Fresh: !c.begun[id], Log: n.log, Meta: MetaFile{FS: vfs.OS(), Name: dir + "/replica.json"}, StateMachine: sm,
		Transport: lateGroup, Clock: bootClock{}, Applied: n.applied, Logger: quiet,
		Event: func(e Event) {
			n.events <- e
		},
		Fatal: func(err error) { n.fatal.Store(&err) },
	}
	if c.tweak != nil {
		c.tweak(&cfg)
	}
	if n.replica, err = New(cfg); err != nil {
		c.t.Fatal(err)
	}
	c.begun[id] = true
	n.group = n.tr.Join(7, id, n.replica)
	lateGroup.Group = n.group
	n.replica.Start()
	c.mu.Lock()
	c.nodes[id] = n
	c.mu.Unlock()
	return n
}

// port is a node's port, served.
type port struct {
	dialer link.Dialer
	raft   net.Listener
	mux    *link.Mux
	served chan error
}

func (c *cluster) serve(creds *identity.Credentials, ln net.Listener) *port {
	p := &port{dialer: link.Dialer{Creds: creds}, mux: link.Listen(ln, creds, link.Options{Logger: quiet}), served: make(chan error, 1)}
	p.raft = p.mux.Listener(link.ProtoRaft)
	go func() { p.served <- p.mux.Serve(context.Background()) }()
	return p
}

func (p *port) dial(ctx context.Context, id uint64, addr string) (*link.Conn, error) {
	return p.dialer.Dial(ctx, addr, id, link.ProtoRaft)
}

func (p *port) close() error {
	_ = p.mux.Close() // Serve tells of what went wrong
	return <-p.served
}

type lateTransport struct{ *transport.Group }

// stop ends a node as a crash would, as far as the others see it: its listener and its connections close.
func (c *cluster) stop(id uint64) *clusterNode {
	c.mu.Lock()
	n := c.nodes[id]
	delete(c.nodes, id)
	c.mu.Unlock()
	if n == nil {
		return nil
	}
	if err := n.port.close(); err != nil {
		c.t.Error(err)
	}
	_ = n.tr.Close()
	if err := n.replica.Close(); err != nil && n.fatal.Load() == nil {
		c.t.Error(err)
	}
	if err := n.log.Close(); err != nil && n.fatal.Load() == nil {
		c.t.Error(err)
	}
	return n
}

func (c *cluster) all() []*clusterNode {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*clusterNode
	for _, n := range c.nodes {
		all = append(all, n)
	}
	return all
}

// leader waits for a node that serves.
func (c *cluster) leader() *clusterNode {
	c.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		for _, n := range c.all() {
			if n.replica.Serving() {
				return n
			}
		}
	}
	for _, n := range c.all() {
		c.t.Logf("%+v", n.replica.Status())
	}
	c.t.Fatal("nobody serves")
	return nil
}

func (n *clusterNode) applied(_ uint64, entry, _ []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k := binary.BigEndian.Uint64(entry)
	if done := n.waiting[k]; done != nil {
		close(done)
		delete(n.waiting, k)
	}
}

var proposalNumber atomic.Uint64

// do proposes size bytes and waits until they are applied here.
func (n *clusterNode) do(ctx context.Context, size int) error {
	data := make([]byte, size)
	k := proposalNumber.Add(1)
	binary.BigEndian.PutUint64(data, k)
	done := make(chan struct{})
	n.mu.Lock()
	n.waiting[k] = done
	n.mu.Unlock()
	if err := n.replica.Propose(ctx, data); err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// mustDo does it on n, or on the next leader where n was so slow that another took over, which a busy machine can bring about. It returns the one that did.
func (c *cluster) mustDo(n *clusterNode, size int) *clusterNode {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		try, stop := context.WithTimeout(ctx, 3*time.Second)
		err := n.do(try, size)
		stop()
		if err == nil {
			return n
		}
		if !errors.Is(err, ErrNotLeader) && !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			c.t.Fatal(err)
		}
		n = c.leader()
	}
}

// agree waits until all nodes have applied the same.
func (c *cluster) agree() {
	c.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		l := c.leader()
		want, hash := l.sm.hash()
		same := true
		for _, n := range c.all() {
			if IsWitness(n.id) {
				continue
			}
			a, h := n.sm.hash()
			same = same && a == want && h == hash
		}
		if same {
			return
		}
		if time.Now().After(deadline) {
			for _, n := range c.all() {
				c.t.Logf("%+v", n.replica.Status())
			}
			c.t.Fatal("the replicas do not agree")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func checkGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		deadline := time.Now().Add(5 * time.Second)
		for runtime.NumGoroutine() > before {
			if time.Now().After(deadline) {
				buf := make([]byte, 1<<20)
				t.Errorf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
}

func TestReplicasFailOver(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, 3, nil)
	l := c.leader()
	for range 100 {
		l = c.mustDo(l, 1000)
	}
	applied := l.sm.Applied()
	began := time.Now()
	dead := c.stop(l.id)
	next := c.leader()
	t.Logf("another leader serves %v after a crash", time.Since(began))
	if got := next.sm.Applied(); got < applied {
		t.Fatalf("the new leader has applied %d of %d", got, applied)
	}
	c.mustDo(next, 1000)
	back := c.start(dead.id, nil, dead.sm)
	c.mustDo(next, 1000)
	c.agree()
	if back.sm.redone == 0 {
		t.Error("a restart without a checkpoint repeats nothing")
	}
}

func TestReplicasHandOver(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, 3, nil)
	l := c.leader()
	for range 3 {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		stop := make(chan struct{})
		var load sync.WaitGroup
		first := l
		for range 4 {
			load.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if err := first.do(ctx, 1000); err != nil && !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrTransferring) && ctx.Err() == nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for range 20 {
			l = c.mustDo(l, 1000)
		}
		began := time.Now()
		for err := l.replica.Transfer(ctx, 0); err != nil; err = l.replica.Transfer(ctx, 0) {
			if !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrNotTakenOver) {
				t.Fatal(err)
			}
			l, began = c.leader(), time.Now() // the machine is busy
		}
		transferred := time.Since(began)
		next := c.leader()
		t.Logf("transfer took %v, another serves after %v", transferred, time.Since(began))
		if next == l {
			t.Fatal("the old leader serves on")
		}
		close(stop)
		cancel()
		load.Wait()
		l = next
	}
	c.agree()
}

func TestReplicaLeadsOnWhenNobodyCanTakeOver(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, 1, nil)
	l := c.leader()
	if err := l.replica.Transfer(t.Context(), 0); !errors.Is(err, ErrNoSuccessor) {
		t.Errorf("Transfer returns %v", err)
	}
	c.mustDo(l, 100)
}

func TestReplicaCatchesUpWithSnapshot(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, 3, func(cfg *Config) {
		cfg.RetainBytes, cfg.RetainMaxBytes = 1<<20, 2<<20
		cfg.CheckpointBytes, cfg.CheckpointInterval = 2<<20, 50*time.Millisecond
	})
	l := c.mustDo(c.leader(), 100)
	c.agree()
	var victim *clusterNode
	for _, n := range c.all() {
		if n != l {
			victim = n
		}
	}
	c.stop(victim.id)
	for _, n := range c.all() {
		n.sm.mu.Lock()
		n.sm.padding = 5 << 20
		n.sm.mu.Unlock()
	}
	for l.log.FirstIndex() < 100 {
		l = c.mustDo(l, 256<<10)
	}
	c.start(victim.id, nil, victim.sm)
	c.agree()
	c.mustDo(c.leader(), 100)
	c.agree()
}

func TestReplicaThatLostItsDisk(t *testing.T) {
	checkGoroutines(t)
	c := newCluster(t, 3, nil)
	l := c.leader()
	for range 10 {
		l = c.mustDo(l, 1000)
	}
	var victim uint64
	for _, n := range c.all() {
		if n != l {
			victim = n.id
		}
	}
	c.stop(victim)
	if err := os.RemoveAll(filepath.Join(c.dir, fmt.Sprint(victim))); err != nil {
		t.Fatal(err)
	}
	back := c.start(victim, nil, newToySM())
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if s := back.replica.Status(); s.Role == RoleFollower && !s.Recovering && s.Applied > 10 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", back.replica.Status())
		}
	}
	c.mustDo(c.leader(), 1000)
	c.agree()
}

func TestReplicaStopsWhenItsLogFails(t *testing.T) {
	checkGoroutines(t)
	broken := errors.New("disk is broken")
	log, fatal := &memLog{}, make(chan error, 1)
	r, err := New(Config{
		ID: 1, Peers: []uint64{1}, Fresh: true, Log: log, Meta: &memMeta{}, StateMachine: newToySM(), Transport: noTransport{}, Clock: bootClock{},
		Fatal: func(err error) { fatal <- err }, Logger: quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Start()
	for !r.Serving() {
		time.Sleep(time.Millisecond)
	}
	log.mu.Lock()
	log.err = broken
	log.mu.Unlock()
	if err := r.Propose(context.Background(), []byte("12345678")); err != nil {
		t.Fatal(err)
	}
	if err := <-fatal; !errors.Is(err, broken) {
		t.Errorf("fatal error is %v", err)
	}
	if r.Serving() {
		t.Error("still serving")
	}
	if err := r.Propose(context.Background(), []byte("12345678")); !errors.Is(err, ErrStopped) {
		t.Errorf("Propose returns %v", err)
	}
	if err := r.Close(); !errors.Is(err, broken) {
		t.Errorf("Close returns %v", err)
	}
}

type noTransport struct{}

func (noTransport) Send([]Message) {}
func (noTransport) OpenSnapshot(context.Context, uint64) (transport.Stream, error) {
	return nil, errors.New("no transport")
}

func TestStartRefusesMissingFiles(t *testing.T) {
	config := func() Config {
		return Config{ID: 1, Peers: []uint64{1}, Log: &memLog{}, Meta: &memMeta{}, StateMachine: newToySM(), Transport: noTransport{}, Clock: bootClock{}, Fatal: func(error) {}, Logger: quiet}
	}
	tests := []struct {
		name  string
		spoil func(*Config)
		want  error
	}{
		{"log without meta", func(c *Config) { c.Log.(*memLog).hs.Term = 3 }, errNoMeta},
		{"state without meta", func(c *Config) { c.StateMachine.(*toySM).state.applied = 3 }, errNoMeta},
		{"state without log", func(c *Config) {
			c.StateMachine.(*toySM).state.applied = 3
			_ = c.Meta.Save(&Meta{Conf: ConfState{Voters: []uint64{1}}})
		}, errNoLog},
		{"nothing to replay", func(c *Config) {
			c.StateMachine.(*toySM).state.applied = 3
			c.Log.(*memLog).trunc = 3
			_ = c.Meta.Save(&Meta{Conf: ConfState{Voters: []uint64{1}}})
		}, errReplay},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config()
			tt.spoil(&cfg)
			if _, err := New(cfg); !errors.Is(err, tt.want) {
				t.Errorf("New returns %v, want %v", err, tt.want)
			}
		})
	}
}

func BenchmarkPropose(b *testing.B) {
	for _, inflight := range []int{1, 64} {
		b.Run(fmt.Sprintf("inflight=%d", inflight), func(b *testing.B) {
			c := newCluster(b, 3, nil)
			l := c.leader()
			ctx := context.Background()
			b.SetBytes(4096)
			b.ReportAllocs()
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for range inflight {
				wg.Go(func() {
					for next.Add(1) <= int64(b.N) {
						if err := l.do(ctx, 4096); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			if s := l.replica.Status(); s.MissedTicks > 0 {
				b.ReportMetric(float64(s.MissedTicks), "missed-ticks")
			}
		})
	}
}

func TestEventKindsHaveNames(t *testing.T) {
	for k := LeaderReady; k <= InSync; k++ {
		if s := k.String(); s == "?" || strings.TrimSpace(s) == "" {
			t.Errorf("kind %d has no name", k)
		}
	}
}
