package transport

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
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

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func start(t *testing.T, id uint64, ln net.Listener, peers map[uint64]string, tweak func(*Config)) *node {
	t.Helper()
	cfg := Config{Cluster: "c", ID: id, Peers: peers, Secret: []byte("secret"), Logger: quiet, RedialMin: 5 * time.Millisecond}
	if tweak != nil {
		tweak(&cfg)
	}
	tr, err := New(cfg, ln)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Transport: tr, recorder: newRecorder()}
	n.group = tr.Join(1, n)
	t.Cleanup(func() { _ = tr.Close() })
	return n
}

func pair(t *testing.T, tweak func(*Config)) (a, b *node, peers map[uint64]string) {
	t.Helper()
	checkGoroutines(t)
	la, lb := listen(t), listen(t)
	peers = map[uint64]string{1: la.Addr().String(), 2: lb.Addr().String()}
	return start(t, 1, la, peers, tweak), start(t, 2, lb, peers, tweak), peers
}

// reach sends until something arrives.
func reach(t *testing.T, from, to *node, m raftpb.Message) {
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
	a, b, _ := pair(t, nil)
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
	tests := map[string]func(*Config){
		"secret":  func(c *Config) { c.Secret = []byte("guess") },
		"none":    func(c *Config) { c.Secret = nil },
		"cluster": func(c *Config) { c.Cluster = "other" },
		"id":      func(c *Config) { c.ID = 3 },
	}
	for name, tweak := range tests {
		t.Run(name, func(t *testing.T) {
			checkGoroutines(t)
			la, lb := listen(t), listen(t)
			peers := map[uint64]string{1: la.Addr().String(), 2: lb.Addr().String()}
			b := start(t, 2, lb, peers, nil)
			a := start(t, 1, la, peers, tweak)
			_, err := a.group.OpenSnapshot(context.Background(), 2)
			var r refusal
			if !errors.As(err, &r) {
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
	a, b, peers := pair(t, nil)
	for _, garbage := range []string{"GET / HTTP/1.1\r\n\r\n", "HFT\x01", string(make([]byte, 1000)), "HFT\x63" + string(make([]byte, 200))} {
		conn, err := net.Dial("tcp", peers[2])
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte(garbage))
		_ = conn.(*net.TCPConn).CloseWrite()
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.ReadAll(conn); errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%q: the connection stays open", garbage)
		}
		_ = conn.Close()
	}
	reach(t, a, b, beat)
}

func TestDeadProcessIsNoticed(t *testing.T) {
	a, b, peers := pair(t, nil)
	reach(t, a, b, beat)
	reach(t, b, a, raftpb.Message{Type: raftpb.MsgHeartbeatResp, From: 2, To: 1})
	began := time.Now()
	_ = b.Transport.Close()
	if id := <-a.gone; id != 2 {
		t.Fatalf("%d is gone", id)
	}
	t.Logf("noticed after %v", time.Since(began))
	ln, err := net.Listen("tcp", peers[2])
	if err != nil {
		t.Fatal(err)
	}
	again := start(t, 2, ln, peers, nil)
	reach(t, a, again, beat)
	if len(a.gone) > 0 {
		t.Error("one death was reported twice")
	}
}

// A peer that was never there is not dead.
func TestAbsentPeerIsNotGone(t *testing.T) {
	checkGoroutines(t)
	la, lb := listen(t), listen(t)
	peers := map[uint64]string{1: la.Addr().String(), 2: lb.Addr().String()}
	_ = lb.Close()
	a := start(t, 1, la, peers, nil)
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
	checkGoroutines(t)
	la, lb := listen(t), listen(t)
	peers := map[uint64]string{1: la.Addr().String(), 2: lb.Addr().String()}
	b := start(t, 2, lb, peers, nil)
	a := start(t, 1, la, peers, nil)
	reach(t, a, b, bulk)
	drain(b.received)
	stuck := make(chan struct{})
	var once sync.Once
	release := func() { once.Do(func() { close(stuck) }) }
	defer release()
	slow := &stuckHandler{recorder: b.recorder, stuck: stuck}
	b.Transport.Join(1, slow)
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
	b.Transport.Join(1, b)
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
	a, b, _ := pair(t, nil)
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
	a, b, _ := pair(t, nil)
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

func TestTLS(t *testing.T) {
	cfg := testTLS(t)
	a, b, _ := pair(t, func(c *Config) { c.TLS = cfg })
	reach(t, a, b, beat)
	reach(t, a, b, bulk)
}

// testTLS returns a configuration with which nodes accept nobody but each other.
func testTLS(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"holdfast"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: "holdfast", RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}
}
