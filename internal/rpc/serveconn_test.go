package rpc

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// tlsPair returns the two ends of a TLS connection. Each is read from and written to as a stream only: neither is a socket.
func tlsPair(t testing.TB) (client, server net.Conn) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	a, b := pair(t, "tcp")
	s := tls.Server(b, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	c := tls.Client(a, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true})
	ended := make(chan error, 1)
	go func() { ended <- s.Handshake() }()
	if err := errors.Join(c.Handshake(), <-ended); err != nil {
		t.Fatal(err)
	}
	return c, s
}

// serveConn serves nc by a server until stop is called, which returns once nothing of it is left.
func serveConn(t testing.TB, s *Server, nc net.Conn) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); s.ServeConn(ctx, nc) }()
	stop = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(stop)
	return stop
}

// TestServeConn checks calls in both sizes over connections that are no sockets, many at once.
func TestServeConn(t *testing.T) {
	pipe := func(t testing.TB) (net.Conn, net.Conn) { return net.Pipe() }
	for name, connect := range map[string]func(testing.TB) (net.Conn, net.Conn){"tls": tlsPair, "pipe": pipe} {
		t.Run(name, func(t *testing.T) {
			a, b := connect(t)
			s := NewServer(ServerConfig{Conn: ConnConfig{Handler: HandlerFunc(echo), Headroom: 104}, Log: quiet()})
			stop := serveConn(t, s, b)
			c := NewConn(a, ConnConfig{Log: quiet()})
			var running sync.WaitGroup
			running.Go(func() { _ = c.Run() })
			var calls sync.WaitGroup
			for i := range 8 {
				calls.Go(func() {
					for _, size := range []int{0, 4, 5000, gatherBytes - 28, gatherBytes, 70000, 1 << 20} {
						args := bytes.Repeat([]byte{byte(i)}, size)
						got, err := c.Call(t.Context(), 1, 1, 1, &Auth{}, args)
						if err != nil || !bytes.Equal(got, args) {
							t.Errorf("%d bytes came back as %d: %v", size, len(got), err)
						}
					}
				})
			}
			calls.Wait()
			if n := len(s.Conns()); n != 1 {
				t.Errorf("%d connections are open, want 1", n)
			}
			stop()
			running.Wait()
			if err := c.Err(); err == nil {
				t.Error("the connection outlives the context")
			}
			if n := len(s.Conns()); n != 0 {
				t.Errorf("%d connections are left", n)
			}
		})
	}
}

// TestServeConnLimit checks that a connection beyond the limit is closed at once.
func TestServeConnLimit(t *testing.T) {
	opened := make(chan struct{}, 2)
	s := NewServer(ServerConfig{
		Conn: ConnConfig{Handler: HandlerFunc(echo)}, MaxConns: 1, Opened: func(*Conn) { opened <- struct{}{} }, Log: quiet(),
	})
	_, first := net.Pipe()
	_, loser := net.Pipe()
	serveConn(t, s, first)
	<-opened
	s.ServeConn(t.Context(), loser)
	if _, err := loser.Write([]byte{1}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("writing to the connection beyond the limit: %v", err)
	}
}

// deadlineConn remembers whether there is a deadline for writing.
type deadlineConn struct {
	*net.TCPConn
	set atomic.Bool
}

func (c *deadlineConn) SetWriteDeadline(t time.Time) error {
	c.set.Store(!t.IsZero())
	return c.TCPConn.SetWriteDeadline(t)
}

// TestSlowOnce checks that a connection whose peer was slow once is still good when the time that the peer was given then is over.
func TestSlowOnce(t *testing.T) {
	a, b := pair(t, "tcp")
	defer a.Close()
	nc := &deadlineConn{TCPConn: b.(*net.TCPConn)}
	c := NewConn(nc, ConnConfig{Log: quiet()})
	defer c.Close()
	big := make([]byte, 16<<20) // more than sockets take at once
	if err := c.Send(big); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(a, make([]byte, 4+len(big))); err != nil {
		t.Fatal(err)
	}
	c.flushWait.Wait()
	if nc.set.Load() {
		_ = nc.TCPConn.SetWriteDeadline(time.Unix(1, 0)) // the time is over now
	}
	if err := c.Send([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(a, make([]byte, 5)); err != nil {
		t.Errorf("reading what was sent later: %v; the connection ended with %v", err, c.Err())
	}
}

func BenchmarkEchoTLS(b *testing.B) {
	for _, size := range []int{128, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			client, server := tlsPair(b)
			s := NewServer(ServerConfig{Conn: ConnConfig{Handler: HandlerFunc(echo), Headroom: 104}, Log: quiet()})
			serveConn(b, s, server)
			c := NewConn(client, ConnConfig{Log: quiet()})
			var running sync.WaitGroup
			running.Go(func() { _ = c.Run() })
			args := make([]byte, size)
			b.SetBytes(int64(2 * size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Call(b.Context(), 1, 1, 1, &Auth{}, args); err != nil {
					b.Fatal(err)
				}
			}
			c.Close()
			running.Wait()
		})
	}
}
