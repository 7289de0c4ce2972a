package forward

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"holdfast/internal/rpc"
	"holdfast/internal/xdr"
)

const testVolume = 7

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// testTLS returns the configurations of both ends of a stream.
var testTLS = sync.OnceValues(func() (client, server *tls.Config) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	client = &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}
	return client, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
})

// leadership is who serves, as all nodes of a test see it at once.
type leadership struct {
	mu      sync.Mutex
	node    uint64
	changed chan struct{}
}

func newLeadership(node uint64) *leadership {
	return &leadership{node: node, changed: make(chan struct{})}
}

func (l *leadership) set(node uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.node = node
	close(l.changed)
	l.changed = make(chan struct{})
}

// seenBy returns the Target that a node has.
func (l *leadership) seenBy(self uint64) func() Target {
	return func() Target {
		l.mu.Lock()
		defer l.mu.Unlock()
		return Target{Node: l.node, Local: l.node == self, Changed: l.changed}
	}
}

// node is a server, with the Receiver in front of it.
type node struct {
	id      uint64
	server  *rpc.Server
	stream  string // where the Receiver listens
	refuses sync.Map
}

// cluster is some nodes that can dial each other.
type cluster struct {
	leader *leadership
	nodes  map[uint64]*node
	// serve, if set, takes the place of the nodes' servers.
	serve func(ctx context.Context, nc net.Conn)
	// dialer, if set, takes the place of dial.
	dialer func(ctx context.Context, id uint64) (net.Conn, error)
}

// whoami answers each call with its arguments, on the node whose number the call's procedure is.
func (n *node) whoami(c *rpc.Conn, rec rpc.Record) {
	defer rec.Done()
	var call rpc.Call
	if err := rpc.ParseCall(rec.Bytes(), &call); err != nil {
		c.Fail(err)
		return
	}
	e := xdr.NewEncoder(make([]byte, 0, 128+len(call.Args)))
	rpc.AppendAccepted(e, call.XID, rpc.Success)
	e.Uint64(n.id)
	e.String(c.RemoteAddr().String())
	e.String(c.LocalAddr().String())
	e.Raw(call.Args)
	_ = c.Send(e.Bytes())
}

// seen is what a node answers.
type seen struct {
	node           uint64
	client, server netip.AddrPort
	args           []byte
}

func call(t testing.TB, c *rpc.Conn, args []byte) (seen, error) {
	t.Helper()
	b, err := c.Call(t.Context(), rpc.ProgNFS, 4, 1, &rpc.Auth{}, args)
	if err != nil {
		return seen{}, err
	}
	d := xdr.NewDecoder(b)
	s := seen{node: d.Uint64()}
	s.client, _ = netip.ParseAddrPort(d.String(100))
	s.server, _ = netip.ParseAddrPort(d.String(100))
	s.args = d.Rest()
	return s, d.Err()
}

func newCluster(t testing.TB, leader uint64, ids ...uint64) *cluster {
	c := &cluster{leader: newLeadership(leader), nodes: make(map[uint64]*node)}
	for _, id := range ids {
		n := &node{id: id}
		n.server = rpc.NewServer(rpc.ServerConfig{Conn: rpc.ConnConfig{Handler: rpc.HandlerFunc(n.whoami)}, Log: quiet()})
		c.nodes[id] = n
		r := NewReceiver(ReceiverConfig{Log: quiet(), Server: func(volume uint64) func(context.Context, net.Conn) {
			if _, refuses := n.refuses.LoadAndDelete(volume); refuses || volume != testVolume || !c.leader.seenBy(id)().Local {
				return nil
			}
			if c.serve != nil {
				return c.serve
			}
			return n.server.ServeConn
		}})
		ln := listen(t)
		_, cfg := testTLS()
		n.stream = ln.Addr().String()
		run(t, func(ctx context.Context) error { return r.Serve(ctx, tls.NewListener(ln, cfg)) })
	}
	return c
}

func (c *cluster) dial(ctx context.Context, id uint64) (net.Conn, error) {
	n := c.nodes[id]
	if n == nil {
		return nil, errors.New("no such node")
	}
	cfg, _ := testTLS()
	return (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", n.stream)
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// run runs f until the test ends or stop is called; it must return nil.
func run(t testing.TB, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// testProxy is a Proxy of node self.
type testProxy struct {
	*Proxy
	addr string
	stop func()
}

func (c *cluster) proxy(t testing.TB, self uint64, change func(*ProxyConfig)) *testProxy {
	cfg := ProxyConfig{Volume: testVolume, Target: c.leader.seenBy(self), Dial: c.dial, Log: quiet()}
	cfg.Serve = c.serve
	if c.dialer != nil {
		cfg.Dial = c.dialer
	}
	if n := c.nodes[self]; n != nil && c.serve == nil {
		cfg.Serve = n.server.ServeConn
	}
	if change != nil {
		change(&cfg)
	}
	p := NewProxy(cfg)
	ln := listen(t)
	stop := run(t, func(ctx context.Context) error { return p.Serve(ctx, ln) })
	return &testProxy{Proxy: p, addr: ln.Addr().String(), stop: stop}
}

// connect makes an RPC connection to addr that ends with the test.
func connect(t testing.TB, addr string) *rpc.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return converse(t, nc)
}

func converse(t testing.TB, nc net.Conn) *rpc.Conn {
	c := rpc.NewConn(nc, rpc.ConnConfig{MaxRecord: 4 << 20, Log: quiet()})
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Run() }()
	t.Cleanup(func() { c.Close(); <-ended })
	return c
}

// awaitEnd waits for the connection to end and returns why.
func awaitEnd(t testing.TB, c *rpc.Conn) error {
	t.Helper()
	select {
	case <-c.Done():
		return c.Err()
	case <-time.After(10 * time.Second):
		t.Fatal("the connection does not end")
		return nil
	}
}

// until waits for what no event tells of; what says what it is.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%s: not so after 10 s; the goroutines:\n%s", what, buf[:runtime.Stack(buf, true)])
		}
	}
}
