package link

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast/internal/identity"
	"holdfast/internal/identity/identitytest"
)

// logbook is a log that tests can wait for.
type logbook struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{}
}

func newLogbook() *logbook { return &logbook{more: make(chan struct{}, 1)} }

func (l *logbook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(b)
	select {
	case l.more <- struct{}{}:
	default:
	}
	return len(b), nil
}

func (l *logbook) await(t *testing.T, want string) {
	t.Helper()
	timeout := time.After(5 * time.Second)
	for {
		l.mu.Lock()
		text := l.text.String()
		l.mu.Unlock()
		if strings.Contains(text, want) {
			return
		}
		select {
		case <-l.more:
		case <-timeout:
			t.Fatalf("the log does not say %q:\n%s", want, text)
		}
	}
}

func checkGoroutines(t *testing.T) {
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

// port is a running Mux.
type port struct {
	*Mux
	log *logbook
}

func serve(t *testing.T, creds *identity.Credentials, opts Options) *port {
	t.Helper()
	checkGoroutines(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &port{log: newLogbook()}
	opts.Logger = slog.New(slog.NewTextHandler(p.log, nil))
	p.Mux = Listen(ln, creds, opts)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- p.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *port) addr() string { return p.Addr().String() }

// accepted returns the next connection of a listener.
func accepted(t *testing.T, ln net.Listener) *Conn {
	t.Helper()
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*Conn)
}

func connect(t *testing.T, creds *identity.Credentials, addr string, node uint64, proto string) *Conn {
	t.Helper()
	d := Dialer{Creds: creds}
	c, err := d.Dial(t.Context(), addr, node, proto)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestConnectionsAreHandedOutByProtocol(t *testing.T) {
	cluster := identitytest.New(t)
	p := serve(t, cluster.Node(1), Options{})
	raft, api, join := p.Listener(ProtoRaft), p.Listener(ProtoAPI), p.Listener(ProtoJoin)
	two, admin := cluster.Node(2), cluster.Admin("ada")

	c := connect(t, two, p.addr(), 1, ProtoRaft)
	if c.Peer().Node != 1 || c.Peer().Kind != identity.KindNode {
		t.Errorf("the dialer sees %v", c.Peer())
	}
	s := accepted(t, raft)
	if s.Peer().Node != 2 || s.Proto() != ProtoRaft {
		t.Errorf("the acceptor sees %v for %s", s.Peer(), s.Proto())
	}
	echo(t, c, s)

	c = connect(t, admin, p.addr(), 0, ProtoAPI)
	s = accepted(t, api)
	if s.Peer().Kind != identity.KindAdmin || s.Peer().Name != "ada" {
		t.Errorf("the acceptor sees %v", s.Peer())
	}
	echo(t, c, s)

	j, err := DialJoin(t.Context(), p.addr(), identity.Pin(cluster.CA.Certificate))
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if s = accepted(t, join); s.Peer().Kind != identity.KindStranger {
		t.Errorf("the acceptor sees %v", s.Peer())
	}
	if j.Peer().Cluster != cluster.CA.ClusterID() || j.Peer().Node != 1 {
		t.Errorf("who joins sees %v of %s", j.Peer(), j.Peer().Cluster)
	}
	echo(t, j, s)
}

// echo sends data both ways.
func echo(t *testing.T, a, b *Conn) {
	t.Helper()
	for _, way := range [][2]*Conn{{a, b}, {b, a}} {
		if _, err := way[0].Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(way[1], got); err != nil || string(got) != "hello" {
			t.Fatalf("%q, %v", got, err)
		}
	}
}

func TestRefusedConnections(t *testing.T) {
	cluster, other := identitytest.New(t), identitytest.New(t)
	creds := cluster.Node(1)
	creds.Revoked = func(p identity.Peer) bool { return p.Node == 7 }
	p := serve(t, creds, Options{})
	for _, proto := range []string{ProtoRaft, ProtoAPI} {
		p.Listener(proto)
	}
	tests := map[string]struct {
		creds *identity.Credentials
		proto string
		log   string // what the port's log says
	}{
		"another cluster":         {other.Node(2), ProtoRaft, "not one of this cluster"},
		"expired":                 {cluster.NodeAt(3, time.Now().Add(-100*24*time.Hour)), ProtoRaft, "has expired"},
		"revoked":                 {cluster.Node(7), ProtoRaft, "is revoked"},
		"revoked, for the API":    {cluster.Node(7), ProtoAPI, "is revoked"},
		"administrator as a node": {cluster.Admin("ada"), ProtoRaft, "not that of a node but of administrator ada"},
		"protocol not served":     {cluster.Node(2), ProtoNFS, "unsupported application protocols"},
		"unknown protocol":        {cluster.Node(2), "gopher", "unsupported application protocols"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p.complaints.mu.Lock()
			clear(p.complaints.seen)
			p.complaints.mu.Unlock()
			// One who does not verify the node gets to hear the node's verdict.
			c, err := dial(t.Context(), p.addr(), lenient(test.creds, test.proto), test.proto, 0)
			if err == nil {
				defer c.Close()
				_, err = c.Read(make([]byte, 1))
			}
			if !errors.Is(err, ErrRefused) {
				t.Errorf("the one refused sees: %v", err)
			}
			p.log.await(t, test.log)
		})
	}
}

// lenient is the configuration of a client that verifies nobody.
func lenient(creds *identity.Credentials, proto string) *tls.Config {
	cfg := creds.Client(0, proto)
	cfg.VerifyConnection = nil
	return cfg
}

func TestDialErrors(t *testing.T) {
	cluster, other := identitytest.New(t), identitytest.New(t)
	p := serve(t, cluster.Node(1), Options{})
	p.Listener(ProtoRaft)
	p.Listener(ProtoJoin)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	go func() {
		for {
			c, err := plain.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("220 mail.example.com ESMTP\r\n"))
			_, _ = c.Read(make([]byte, 10000))
			c.Close()
		}
	}()
	revoking := cluster.Node(3)
	revoking.Revoked = func(p identity.Peer) bool { return p.Node == 1 }
	late := cluster.Node(3)
	late.Now = func() time.Time { return time.Now().Add(100 * 24 * time.Hour) }
	tests := map[string]struct {
		creds *identity.Credentials
		addr  string
		node  uint64
		want  error
		text  string
	}{
		"nobody there":  {cluster.Node(3), closed.Addr().String(), 1, syscall.ECONNREFUSED, "connect to node 1"},
		"wrong node":    {cluster.Node(3), p.addr(), 2, identity.ErrWrongNode, "node 1 (n1) answers where node 2 is expected"},
		"other cluster": {other.Node(3), p.addr(), 1, identity.ErrForeign, "another CA"},
		"revoked":       {revoking, p.addr(), 1, identity.ErrRevoked, "removed from the cluster"},
		"expired":       {late, p.addr(), 1, identity.ErrExpired, "node 1"},
		"not TLS":       {cluster.Node(3), plain.Addr().String(), 1, nil, "not a Holdfast node"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d := Dialer{Creds: test.creds}
			_, err := d.Dial(t.Context(), test.addr, test.node, ProtoRaft)
			if err == nil || (test.want != nil && !errors.Is(err, test.want)) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := DialJoin(t.Context(), p.addr(), identity.Pin(other.CA.Certificate)); !errors.Is(err, identity.ErrForeign) {
		t.Errorf("joining with another cluster's token: %v", err)
	}
	d := Dialer{Creds: cluster.Admin("ada")}
	c, err := d.Dial(t.Context(), p.addr(), 1, ProtoRaft)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, ErrRefused) {
		t.Errorf("an administrator reads from a raft connection: %v", err)
	}
}

// A certificate that is replaced takes effect in the next handshake.
func TestRenewal(t *testing.T) {
	cluster := identitytest.New(t)
	creds := cluster.NodeAt(1, time.Now().Add(-100*24*time.Hour))
	p := serve(t, creds, Options{})
	ln := p.Listener(ProtoRaft)
	d := Dialer{Creds: cluster.Node(2)}
	if _, err := d.Dial(t.Context(), p.addr(), 1, ProtoRaft); !errors.Is(err, identity.ErrExpired) {
		t.Fatalf("before the renewal: %v", err)
	}
	request, err := identity.NewRequest(creds.Key(), "n1")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := cluster.CA.SignNode(request, identity.NodeInfo{Number: 1, Name: "n1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := creds.Update(cert, cluster.CA.CertificatePEM()); err != nil {
		t.Fatal(err)
	}
	echo(t, connect(t, d.Creds, p.addr(), 1, ProtoRaft), accepted(t, ln))
}

// Those who connect and say nothing keep nobody out.
func TestFloodOfSilence(t *testing.T) {
	cluster := identitytest.New(t)
	p := serve(t, cluster.Node(1), Options{MaxHandshakes: 16, MaxPerSource: 8, HandshakeTimeout: time.Minute})
	ln := p.Listener(ProtoRaft)
	for range 100 {
		c, err := net.Dial("tcp", p.addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	echo(t, connect(t, cluster.Node(2), p.addr(), 1, ProtoRaft), accepted(t, ln))
	p.handshakes.mu.Lock()
	defer p.handshakes.mu.Unlock()
	if n := p.handshakes.all.Len(); n > 8 {
		t.Errorf("%d handshakes under way", n)
	}
}

func TestStrangersAreFew(t *testing.T) {
	cluster := identitytest.New(t)
	p := serve(t, cluster.Node(1), Options{MaxStrangers: 2})
	ln := p.Listener(ProtoJoin)
	pin := identity.Pin(cluster.CA.Certificate)
	for range 2 {
		c, err := DialJoin(t.Context(), p.addr(), pin)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first := accepted(t, ln)
	accepted(t, ln)
	c, err := DialJoin(t.Context(), p.addr(), pin)
	if err == nil {
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if err == nil {
		t.Error("a third one is let in")
	}
	first.Close()
	if c, err = DialJoin(t.Context(), p.addr(), pin); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	echo(t, c, accepted(t, ln))
}

func TestClosing(t *testing.T) {
	cluster := identitytest.New(t)
	p := serve(t, cluster.Node(1), Options{})
	ln := p.Listener(ProtoRaft)
	two := cluster.Node(2)
	c := connect(t, two, p.addr(), 1, ProtoRaft)
	s := accepted(t, ln)
	waiting := connect(t, two, p.addr(), 1, ProtoRaft) // and is not accepted
	p.Disconnect(func(peer identity.Peer) bool { return peer.Node == 3 })
	echo(t, c, s)
	p.Disconnect(func(peer identity.Peer) bool { return peer.Node == 2 && peer.Serial == two.Self().Serial })
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlives Disconnect")
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept from a closed listener: %v", err)
	}
	if _, err := waiting.Read(make([]byte, 1)); err == nil {
		t.Error("a connection that nobody accepted outlives its listener")
	}
	d := Dialer{Creds: two}
	if _, err := d.Dial(t.Context(), p.addr(), 1, ProtoRaft); !errors.Is(err, ErrRefused) {
		t.Errorf("connecting to a closed listener: %v", err)
	}
	again := p.Listener(ProtoRaft)
	c = connect(t, two, p.addr(), 1, ProtoRaft)
	accepted(t, again)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlives its port")
	}
	if _, err := d.Dial(t.Context(), p.addr(), 1, ProtoRaft); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connecting to a closed port: %v", err)
	}
	if _, err := p.Listener(ProtoRaft).Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a listener of a closed port accepts: %v", err)
	}
}

// pair returns both ends of a raft connection.
func pair(t *testing.T) (client, server *Conn) {
	t.Helper()
	cluster := identitytest.New(t)
	p := serve(t, cluster.Node(1), Options{})
	ln := p.Listener(ProtoRaft)
	return connect(t, cluster.Node(2), p.addr(), 1, ProtoRaft), accepted(t, ln)
}

// Writing buffers, trying to, flushing and plain writes may follow each other in any order.
func TestWriting(t *testing.T) {
	c, s := pair(t)
	data := make([]byte, 3<<20)
	_, _ = rand.Read(data)
	got := make(chan []byte, 1)
	go func() {
		b := make([]byte, len(data))
		_, _ = io.ReadFull(s, b)
		if _, err := s.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("after all that was written: %v", err)
		}
		got <- b
	}()
	rest := data
	next := func(n int) []byte {
		b := rest[:min(n, len(rest))]
		rest = rest[len(b):]
		return b
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := c.Write(next(100))
	check(err)
	for _, size := range []int{1, 16 << 10, 100, 300 << 10, 16<<10 - 1, 40000} {
		check(c.WriteBuffers([][]byte{next(10), next(size), nil, next(size), next(1)}))
		_, err := c.TryWrite([][]byte{next(size), next(7)})
		check(err)
		_, err = c.TryWrite([][]byte{next(3)})
		check(err)
		check(c.Flush())
		_, err = c.Write(next(size))
		check(err)
	}
	_, err = c.TryWrite([][]byte{rest})
	check(err)
	check(c.CloseWrite())
	if !bytes.Equal(<-got, data) {
		t.Error("what arrives is not what was sent")
	}
}

// TryWrite does not wait for a peer that does not read, and nothing is lost.
func TestTryWriteDoesNotWait(t *testing.T) {
	c, s := pair(t)
	block := make([]byte, 1<<20)
	sent := 0
	began := time.Now()
	for done := true; done && sent < 256; sent++ {
		_, _ = rand.Read(block[:8])
		var err error
		if done, err = c.TryWrite([][]byte{block}); err != nil {
			t.Fatal(err)
		}
	}
	if sent == 256 {
		t.Fatal("the socket takes everything")
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("writing took %v", d)
	}
	read := make(chan int64)
	go func() {
		n, _ := io.Copy(io.Discard, s)
		read <- n
	}()
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if n := <-read; n != int64(sent)<<20 {
		t.Errorf("%d bytes of %d arrive", n, sent<<20)
	}
}

// Close does not wait for room, and ends a Flush that does.
func TestCloseWhileFull(t *testing.T) {
	c, _ := pair(t)
	for done := true; done; {
		var err error
		if done, err = c.TryWrite([][]byte{make([]byte, 1<<20)}); err != nil {
			t.Fatal(err)
		}
	}
	flushed := make(chan error)
	go func() { flushed <- c.Flush() }()
	began := time.Now()
	_ = c.Close()
	if err := <-flushed; err == nil {
		t.Error("Flush succeeds on a closed connection")
	}
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("closing took %v", d)
	}
}
