package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast/internal/rpc"
)

// TestForward checks that calls reach the node that serves, with the client's address, whichever node they come to.
func TestForward(t *testing.T) {
	c := newCluster(t, 2, 1, 2)
	for _, self := range []uint64{1, 2, 3} {
		t.Run(fmt.Sprint(self), func(t *testing.T) {
			p := c.proxy(t, self, nil)
			nc, err := net.Dial("tcp", p.addr)
			if err != nil {
				t.Fatal(err)
			}
			conn := converse(t, nc)
			var calls sync.WaitGroup
			for i := range 8 {
				calls.Go(func() {
					args := bytes.Repeat([]byte{byte(i + 1)}, i*140<<10)
					got, err := call(t, conn, args)
					switch {
					case err != nil:
						t.Error(err)
					case got.node != 2 || got.client != addrPort(nc.LocalAddr()) || got.server != addrPort(nc.RemoteAddr()):
						t.Errorf("node %d served client %v at %v, want node 2, client %v at %v", got.node, got.client, got.server, nc.LocalAddr(), nc.RemoteAddr())
					case !bytes.Equal(got.args, args):
						t.Errorf("%d bytes came back as %d", len(args), len(got.args))
					}
				})
			}
			calls.Wait()
			want := ProxyStats{Conns: 1, Forwarded: 1}
			if self == 2 {
				want.Forwarded = 0
			}
			if got := p.Stats(); got != want {
				t.Errorf("stats are %+v, want %+v", got, want)
			}
			p.stop()
			if got := p.Stats(); got != (ProxyStats{}) {
				t.Errorf("after the end stats are %+v", got)
			}
			if err := awaitEnd(t, conn); self != 2 && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client's connection ended with %v, want a reset", err)
			}
		})
	}
}

// TestLocalSocket checks that the node that serves gets the socket itself.
func TestLocalSocket(t *testing.T) {
	got := make(chan net.Conn, 1)
	c := newCluster(t, 1)
	c.serve = func(ctx context.Context, nc net.Conn) { got <- nc; <-ctx.Done(); _ = nc.Close() }
	p := c.proxy(t, 1, nil)
	connect(t, p.addr)
	if nc, ok := (<-got).(*net.TCPConn); !ok {
		t.Errorf("the server got a %T", nc)
	}
}

// TestLeaderChange checks that a client is reset when another node serves, also by a leader that just stops answering, and then reaches that one.
func TestLeaderChange(t *testing.T) {
	for _, successor := range []uint64{1, 3} {
		t.Run(fmt.Sprint(successor), func(t *testing.T) {
			c := newCluster(t, 2, 1, 2, 3)
			p := c.proxy(t, 1, nil)
			old := connect(t, p.addr)
			if _, err := call(t, old, nil); err != nil {
				t.Fatal(err)
			}
			c.leader.set(successor)
			if err := awaitEnd(t, old); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the connection ended with %v, want a reset", err)
			}
			got, err := call(t, connect(t, p.addr), nil)
			if err != nil || got.node != successor {
				t.Errorf("a new connection reached node %d: %v", got.node, err)
			}
		})
	}
}

// TestLeaderKept checks that a client stays connected while it is unknown for a moment who serves.
func TestLeaderKept(t *testing.T) {
	c := newCluster(t, 2, 1, 2)
	p := c.proxy(t, 1, nil)
	conn := connect(t, p.addr)
	for _, node := range []uint64{2, 0, 2} {
		c.leader.set(node)
		if _, err := call(t, conn, nil); err != nil {
			t.Fatalf("with leader %d: %v", node, err)
		}
	}
}

// TestStreamEnds checks that the client is reset when the serving node ends its connection, in order or not.
func TestStreamEnds(t *testing.T) {
	for _, reset := range []bool{true, false} {
		t.Run(fmt.Sprintf("reset=%v", reset), func(t *testing.T) {
			c := newCluster(t, 2, 1, 2)
			p := c.proxy(t, 1, nil)
			conn := connect(t, p.addr)
			if _, err := call(t, conn, nil); err != nil {
				t.Fatal(err)
			}
			c.nodes[2].server.CloseConns(reset)
			if err := awaitEnd(t, conn); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the connection ended with %v, want a reset", err)
			}
		})
	}
}

// TestClientGone checks that the serving node notices a client that was reset.
func TestClientGone(t *testing.T) {
	ended := make(chan error, 1)
	c := newCluster(t, 2, 1, 2)
	c.serve = func(_ context.Context, nc net.Conn) {
		defer nc.Close()
		_, err := io.Copy(nc, nc)
		ended <- err
	}
	p := c.proxy(t, 1, nil)
	nc, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, nc)
	_ = nc.(*net.TCPConn).SetLinger(0)
	_ = nc.Close()
	if err := <-ended; err == nil {
		t.Error("the server saw an orderly end of a client that was reset")
	}
}

func echo(t *testing.T, nc net.Conn) {
	t.Helper()
	if _, err := nc.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(nc, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

// TestHalfClose checks that a client that asks nothing more gets the rest of its answers, and an orderly end.
func TestHalfClose(t *testing.T) {
	question, answer := bytes.Repeat([]byte("question"), 100<<10), bytes.Repeat([]byte("answer"), 100<<10)
	c := newCluster(t, 2, 1, 2)
	c.serve = func(_ context.Context, nc net.Conn) {
		defer nc.Close()
		if got, err := io.ReadAll(nc); err != nil || !bytes.Equal(got, question) {
			t.Errorf("the server read %d bytes: %v", len(got), err)
		}
		if _, err := nc.Write(answer); err != nil {
			t.Error(err)
		}
	}
	p := c.proxy(t, 1, nil)
	nc, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Write(question); err != nil {
		t.Fatal(err)
	}
	if err := nc.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(nc); err != nil || !bytes.Equal(got, answer) {
		t.Errorf("the client read %d bytes: %v", len(got), err)
	}
}

// TestNoLeader checks that a connection waits for a leader, and is reset if there is none for too long.
func TestNoLeader(t *testing.T) {
	c := newCluster(t, 0, 1, 2)
	p := c.proxy(t, 1, func(cfg *ProxyConfig) { cfg.Patience = time.Minute })
	conn := connect(t, p.addr)
	answered := make(chan error, 1)
	go func() {
		got, err := call(t, conn, nil)
		if err == nil && got.node != 2 {
			err = fmt.Errorf("node %d served", got.node)
		}
		answered <- err
	}()
	until(t, "the connection waits", func() bool { return p.Stats().Waiting > 0 })
	c.leader.set(2)
	if err := <-answered; err != nil {
		t.Error(err)
	}

	c.leader.set(0)
	p = c.proxy(t, 1, func(cfg *ProxyConfig) { cfg.Patience = 20 * time.Millisecond })
	if err := awaitEnd(t, connect(t, p.addr)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection ended with %v, want a reset", err)
	}
}

// TestRetry checks that a node that refuses is asked again, as it may be about to serve, and one that cannot be reached is given up on when another serves.
func TestRetry(t *testing.T) {
	c := newCluster(t, 2, 1, 2)
	p := c.proxy(t, 1, nil)
	c.nodes[2].refuses.Store(uint64(testVolume), true)
	if got, err := call(t, connect(t, p.addr), nil); err != nil || got.node != 2 {
		t.Errorf("node %d served: %v", got.node, err)
	}

	silent := listen(t) // accepts, as far as TCP goes, and says nothing
	defer silent.Close()
	c.nodes[9] = &node{id: 9, stream: silent.Addr().String()}
	c.leader.set(9)
	conn := connect(t, p.addr)
	if _, err := silent.Accept(); err != nil {
		t.Fatal(err)
	}
	c.leader.set(2)
	if got, err := call(t, conn, nil); err != nil || got.node != 2 {
		t.Errorf("node %d served: %v", got.node, err)
	}
}

// TestMaxConns checks that connections beyond the limit are reset, and others not disturbed.
func TestMaxConns(t *testing.T) {
	c := newCluster(t, 2, 1, 2)
	p := c.proxy(t, 1, func(cfg *ProxyConfig) { cfg.MaxConns = 1 })
	first := connect(t, p.addr)
	if _, err := call(t, first, nil); err != nil {
		t.Fatal(err)
	}
	nc, err := net.Dial("tcp", p.addr)
	if err == nil {
		_, err = nc.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection beyond the limit ended with %v, want a reset", err)
	}
	if _, err := call(t, first, nil); err != nil {
		t.Error(err)
	}
}

// TestBuffers checks that the big buffers are bounded, and that there is always a small one.
func TestBuffers(t *testing.T) {
	b := buffers{limit: 2 * bufferBytes}
	one, two, three := b.get(), b.get(), b.get()
	if len(*one) != bufferBytes || len(*two) != bufferBytes || len(*three) != smallBytes {
		t.Errorf("buffers of %d, %d and %d bytes", len(*one), len(*two), len(*three))
	}
	b.put(one)
	if four := b.get(); len(*four) != bufferBytes {
		t.Errorf("after one was given back: %d bytes", len(*four))
	}
	b.put(two)
	b.put(three)
	if b.used.Load() != bufferBytes {
		t.Errorf("%d bytes are in use, want %d", b.used.Load(), bufferBytes)
	}
}

// TestIdle checks that idle connections hold no buffers.
func TestIdle(t *testing.T) {
	c := newCluster(t, 2, 1, 2)
	p := c.proxy(t, 1, nil)
	for range 10 {
		if _, err := call(t, connect(t, p.addr), make([]byte, 500<<10)); err != nil {
			t.Fatal(err)
		}
	}
	// The last one is given back soon after its bytes have arrived.
	until(t, "no buffer is in use", func() bool { return p.buffers.used.Load() == 0 })
}

func BenchmarkForward(b *testing.B) {
	for _, size := range []int{128, 1 << 20} {
		for _, self := range []uint64{2, 1} {
			name := map[uint64]string{2: "local", 1: "forwarded"}[self]
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				c := newCluster(b, 2, 1, 2)
				p := c.proxy(b, self, nil)
				conn := connect(b, p.addr)
				args := make([]byte, size)
				b.SetBytes(int64(2 * size))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := conn.Call(b.Context(), rpc.ProgNFS, 4, 1, &rpc.Auth{}, args); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
