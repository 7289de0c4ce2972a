package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

type testServer struct {
	*Server
	addr string
	stop func()
}

func startServer(t testing.TB, cfg ServerConfig) *testServer {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = quiet()
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, ln) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return &testServer{Server: s, addr: ln.Addr().String(), stop: stop}
}

func TestRubbish(t *testing.T) {
	mark := func(m uint32, rest ...byte) []byte { return append(binary.BigEndian.AppendUint32(nil, m), rest...) }
	tests := []struct {
		name string
		in   []byte
		want error
		log  bool
	}{
		{"http", []byte("GET / HTTP/1.1\r\n\r\n"), ErrTooLarge, true},
		{"a balancer's header, version 1", []byte("PROXY TCP4 192.0.2.1 192.0.2.2 1000 2049\r\n"), ErrBadMark, true},
		{"a balancer's header, version 2", []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"), ErrBadMark, true},
		{"empty record", mark(lastFragment), ErrBadMark, true},
		{"empty fragment", mark(0), ErrBadMark, true},
		{"oversized", mark(DefaultMaxRecord+1|lastFragment, 0), ErrTooLarge, true},
		{"oversized in sum", append(mark(8, 0, 0, 0, 1, 0, 0, 0, 0), mark(DefaultMaxRecord|lastFragment)...), ErrTooLarge, true},
		{"too short", mark(4|lastFragment, 1, 2, 3, 4), ErrNotRPC, true},
		{"third message type", mark(8|lastFragment, 0, 0, 0, 1, 0, 0, 0, 2), ErrNotRPC, true},
		{"unexpected reply", mark(8|lastFragment, 0, 0, 0, 1, 0, 0, 0, 1), io.EOF, false},
		{"ends in a mark", []byte{0x80, 0}, io.ErrUnexpectedEOF, false},
		{"ends in a record", mark(100|lastFragment, 1, 2), io.ErrUnexpectedEOF, false},
		{"nothing", nil, io.EOF, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var lines syncBuffer
			ended := make(chan error, 2)
			s := startServer(t, ServerConfig{
				Conn:   ConnConfig{Handler: HandlerFunc(echo)},
				Log:    slog.New(slog.NewTextHandler(&lines, nil)),
				Closed: func(_ *Conn, err error) { ended <- err },
			})
			other := dial(t, s.addr, ConnConfig{})
			nc, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			if _, err := nc.Write(tt.in); err != nil {
				t.Fatal(err)
			}
			if tt.want == io.EOF || tt.want == io.ErrUnexpectedEOF {
				_ = nc.(*net.TCPConn).CloseWrite()
			}
			if err := <-ended; !errors.Is(err, tt.want) {
				t.Errorf("ended with %v, want %v", err, tt.want)
			}
			if n := strings.Count(lines.String(), "\n"); n > 1 || (n == 1) != tt.log {
				t.Errorf("logged %q", lines.String())
			}
			if strings.Contains(tt.name, "balancer") && !strings.Contains(lines.String(), "list it under `balancers`") {
				t.Errorf("logged %q, which does not say what to do", lines.String())
			}
			if _, err := other.Call(t.Context(), 1, 1, 1, &Auth{}, nil); err != nil {
				t.Errorf("another connection suffered: %v", err)
			}
		})
	}
}

// TestInflightLimit checks that a connection is not read from while its limit of calls is with the handler.
func TestInflightLimit(t *testing.T) {
	const limit = 4
	got := make(chan Record, 100)
	s := startServer(t, ServerConfig{Conn: ConnConfig{MaxInflight: limit, Handler: HandlerFunc(func(_ *Conn, rec Record) { got <- rec })}})
	c := dial(t, s.addr, ConnConfig{})
	for i := range uint32(10) {
		if err := c.Send(callRecord(i, nil)); err != nil {
			t.Fatal(err)
		}
	}
	held := make([]Record, 0, limit)
	for range limit {
		held = append(held, <-got)
	}
	select {
	case <-got:
		t.Fatal("a call beyond the limit was read")
	case <-time.After(20 * time.Millisecond): // proves nothing if it passes too early, but fails surely in time if the limit is not kept
	}
	for _, rec := range held {
		rec.Done()
	}
	for range 10 - limit {
		(<-got).Done()
	}
}

// TestBudget checks that calls of all connections together stay within the bytes allowed.
func TestBudget(t *testing.T) {
	const size = 1 << 20
	got := make(chan Record, 100)
	s := startServer(t, ServerConfig{
		Conn:             ConnConfig{Handler: HandlerFunc(func(_ *Conn, rec Record) { got <- rec })},
		MaxInflightBytes: 2*size + 100000,
	})
	for i := range uint32(4) {
		c := dial(t, s.addr, ConnConfig{})
		if err := c.Send(callRecord(i, make([]byte, size))); err != nil {
			t.Fatal(err)
		}
	}
	a, b := <-got, <-got
	select {
	case <-got:
		t.Fatal("a call beyond the budget was read")
	case <-time.After(20 * time.Millisecond):
	}
	a.Done()
	b.Done()
	(<-got).Done()
	(<-got).Done()
	s.CloseConns(false)
	s.stop()
	if s.shared.budget.left != 2*size+100000 {
		t.Errorf("budget is %d at the end", s.shared.budget.left)
	}
}

func TestBudgetGivesUp(t *testing.T) {
	b := budget{left: 10}
	done := make(chan struct{})
	if !b.acquire(8, nil) {
		t.Fatal("first acquire")
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if b.acquire(5, done) {
			t.Error("acquired what is not there")
		}
	})
	close(done)
	wg.Wait()
	b.release(8)
	if b.left != 10 || len(b.waiters) != 0 {
		t.Errorf("left %d, %d waiters", b.left, len(b.waiters))
	}
}

// TestReset checks that a server's clients see a reset, and their pending calls an error, when it loses its leadership.
func TestReset(t *testing.T) {
	arrived := make(chan Record, 1)
	s := startServer(t, ServerConfig{Conn: ConnConfig{Handler: HandlerFunc(func(_ *Conn, rec Record) { arrived <- rec })}})
	c := dial(t, s.addr, ConnConfig{})
	p, err := c.Start(7, net.Buffers{callRecord(7, nil)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Start(7, net.Buffers{callRecord(7, nil)}); err == nil {
		t.Error("a second call with the same XID was accepted")
	}
	rec := <-arrived
	s.CloseConns(true)
	if _, err := p.Wait(t.Context()); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("pending call: %v", err)
	}
	rec.Done() // late, as after a commit: harmless
	if err := rec.conn.Send([]byte("late")); !errors.Is(err, ErrClosed) {
		t.Errorf("late reply: %v", err)
	}
	<-c.Done()
	if _, err := c.Call(t.Context(), 1, 1, 1, &Auth{}, nil); err == nil {
		t.Error("a call on an ended connection succeeded")
	}
}

// TestLinger checks that the kernel would forget a connection whose process dies, and that a close is an orderly end nevertheless.
func TestLinger(t *testing.T) {
	opened := make(chan *Conn, 1)
	s := startServer(t, ServerConfig{
		Conn:   ConnConfig{Handler: HandlerFunc(func(*Conn, Record) {})},
		Opened: func(c *Conn) { opened <- c },
	})
	client, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c := <-opened
	var linger *unix.Linger
	var optErr error
	if err := c.raw.Control(func(fd uintptr) { linger, optErr = unix.GetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER) }); err != nil {
		t.Fatal(err)
	}
	if optErr != nil || linger.Onoff == 0 || linger.Linger != 0 {
		t.Errorf("SO_LINGER is %+v, %v", linger, optErr)
	}
	c.Close()
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the client got %v, want the end of the stream", err)
	}
}

func TestMaxConns(t *testing.T) {
	opened := make(chan *Conn, 4)
	s := startServer(t, ServerConfig{
		Conn: ConnConfig{Handler: HandlerFunc(echo)}, MaxConns: 1,
		Opened: func(c *Conn) { opened <- c },
	})
	first := dial(t, s.addr, ConnConfig{})
	<-opened
	// The reset may come before the dialer has looked at its connection, or after.
	if second, err := net.Dial("tcp", s.addr); err == nil {
		defer second.Close()
		if _, err := second.Read(make([]byte, 1)); err == nil {
			t.Error("a connection beyond the limit got an answer")
		}
	}
	if _, err := first.Call(t.Context(), 1, 1, 1, &Auth{}, nil); err != nil {
		t.Errorf("the first connection suffered: %v", err)
	}
}

// flaky is a listener whose Accept fails a few times.
type flaky struct {
	net.Listener
	left int
}

func (f *flaky) Accept() (net.Conn, error) {
	if f.left > 0 {
		f.left--
		return nil, errors.New("too many open files")
	}
	return f.Listener.Accept()
}

func TestAcceptBackoff(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var lines syncBuffer
	s := NewServer(ServerConfig{Conn: ConnConfig{Handler: HandlerFunc(echo)}, Log: slog.New(slog.NewTextHandler(&lines, nil))})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, &flaky{Listener: ln, left: 3}) }()
	c := dial(t, ln.Addr().String(), ConnConfig{})
	if _, err := c.Call(t.Context(), 1, 1, 1, &Auth{}, nil); err != nil {
		t.Errorf("call after failed accepts: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if n := strings.Count(lines.String(), "too many open files"); n != 3 {
		t.Errorf("%d lines about 3 failures", n)
	}
}
