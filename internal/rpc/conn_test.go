package rpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/internal/xdr"
)

// syncBuffer is a log that several goroutines write.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// echo answers every call with its arguments.
func echo(c *Conn, rec Record) {
	defer rec.Done()
	var call Call
	if err := ParseCall(rec.Bytes(), &call); err != nil {
		c.Fail(err)
		return
	}
	e := xdr.NewEncoder(make([]byte, 0, 24+len(call.Args)))
	AppendAccepted(e, call.XID, Success)
	e.Raw(call.Args)
	_ = c.Send(e.Bytes())
}

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

// dial connects, runs the connection and ends it with the test.
func dial(t testing.TB, addr string, cfg ConnConfig) *Conn {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = quiet()
	}
	c, err := Dial(t.Context(), addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Run() }()
	t.Cleanup(func() { c.Close(); <-ended })
	return c
}

func TestCall(t *testing.T) {
	s := startServer(t, ServerConfig{Conn: ConnConfig{Handler: HandlerFunc(echo), Headroom: 104}})
	c := dial(t, s.addr, ConnConfig{})
	auth := &Auth{Flavor: AuthSys, UID: 1000, GID: 100, Groups: []uint32{4, 5}, Machine: "here"}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			for _, n := range []int{0, 4, 1000, readBufferBytes - 100, readBufferBytes, 1 << 20} {
				want := bytes.Repeat([]byte{byte(i), 2, 3, 4}, n/4)
				got, err := c.Call(t.Context(), 1, 2, 3, auth, want)
				if err != nil {
					t.Errorf("call of %d bytes: %v", n, err)
				} else if !bytes.Equal(got, want) {
					t.Errorf("call of %d bytes: another answer of %d bytes", n, len(got))
				}
			}
		})
	}
	wg.Wait()
	if left := s.shared.output.Load(); left != 0 {
		t.Errorf("%d bytes of output are still counted", left)
	}
}

// TestCallBack calls in the direction of the client while the client's own call is open, as a delegation recall does.
func TestCallBack(t *testing.T) {
	var wg sync.WaitGroup
	defer wg.Wait()
	server := HandlerFunc(func(c *Conn, rec Record) {
		wg.Go(func() {
			got, err := c.Call(context.Background(), 9, 1, 1, &Auth{}, []byte("back"))
			if err != nil || string(got) != "back" {
				t.Errorf("call back: %q, %v", got, err)
			}
			echo(c, rec)
		})
	})
	s := startServer(t, ServerConfig{Conn: ConnConfig{Handler: server}})
	c := dial(t, s.addr, ConnConfig{Handler: HandlerFunc(echo)})
	got, err := c.Call(t.Context(), 1, 2, 3, &Auth{}, []byte("fore"))
	if err != nil || string(got) != "fore" {
		t.Fatalf("call: %q, %v", got, err)
	}
}

func callRecord(xid uint32, args []byte) []byte {
	e := xdr.NewEncoder(nil)
	AppendCall(e, xid, 1, 2, 3, &Auth{})
	e.Raw(args)
	return e.Bytes()
}

// fragments cuts a record into marked fragments of at most n bytes.
func fragments(record []byte, n int) []byte {
	var out []byte
	for len(record) > n {
		out = binary.BigEndian.AppendUint32(out, uint32(n))
		out = append(out, record[:n]...)
		record = record[n:]
	}
	out = binary.BigEndian.AppendUint32(out, uint32(len(record))|lastFragment)
	return append(out, record...)
}

func TestReadRecord(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	for _, n := range []int{1, 7, 40, 4096, 100000} {
		for _, args := range [][]byte{nil, []byte("abcd"), big} {
			in := append(fragments(callRecord(1, args), n), fragments(callRecord(2, args), n)...)
			got := readAll(t, in, ConnConfig{Headroom: 56})
			if len(got) != 2 || !bytes.Equal(got[0], callRecord(1, args)) || !bytes.Equal(got[1], callRecord(2, args)) {
				t.Errorf("fragments of %d, %d bytes: got %d records", n, len(args), len(got))
			}
		}
	}
}

// readAll feeds in to a connection and returns the calls that its handler got, checking that each has its headroom.
func readAll(t testing.TB, in []byte, cfg ConnConfig) [][]byte {
	t.Helper()
	a, b := net.Pipe()
	var got [][]byte
	cfg.Log = quiet()
	cfg.Handler = HandlerFunc(func(_ *Conn, rec Record) {
		if rec.Off != cfg.Headroom {
			t.Errorf("record at %d, headroom %d", rec.Off, cfg.Headroom)
		}
		got = append(got, rec.Bytes())
		rec.Done()
	})
	c := NewConn(a, cfg)
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		_, _ = b.Write(in)
		_ = b.Close()
	}()
	_ = c.Run()
	<-wrote
	return got
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

// TestSlowReader checks that a peer that does not read its replies stops nobody: Send returns, reading from that peer pauses, and it is given up on.
func TestSlowReader(t *testing.T) {
	ended := make(chan error, 1)
	var sent sync.Map
	s := startServer(t, ServerConfig{
		Conn: ConnConfig{
			MaxQueued:    8 << 10,
			WriteTimeout: 100 * time.Millisecond,
			Handler: HandlerFunc(func(c *Conn, rec Record) {
				rec.Done()
				sent.Store(rec.Buf[3], true)
				for range 16 {
					_ = c.Send(make([]byte, 4<<10))
				}
			}),
		},
		Closed: func(_ *Conn, err error) { ended <- err },
	})
	nc, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for i := range uint32(200) {
		if _, err := nc.Write(fragments(callRecord(i, nil), 1000)); err != nil {
			break
		}
	}
	err = <-ended
	var ne net.Error
	if !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("ended with %v, want a timeout", err)
	}
	n := 0
	sent.Range(func(any, any) bool { n++; return true })
	if n >= 200 {
		t.Error("all calls were read although nobody read the replies")
	}
	if left := s.shared.output.Load(); left != 0 {
		t.Errorf("%d bytes of output are still counted", left)
	}
}

// TestOutputLimit checks that connections with much unread output are closed when all together have too much.
func TestOutputLimit(t *testing.T) {
	ended := make(chan error, 1)
	s := startServer(t, ServerConfig{
		Conn: ConnConfig{MaxQueued: 1 << 20, Handler: HandlerFunc(func(c *Conn, rec Record) {
			rec.Done()
			for range 64 {
				_ = c.Send(make([]byte, 1<<20))
			}
		})},
		MaxOutputBytes: 8 << 20,
		Closed:         func(_ *Conn, err error) { ended <- err },
	})
	nc, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Write(fragments(callRecord(1, nil), 1000)); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, ErrSlowReader) {
		t.Errorf("ended with %v", err)
	}
	if left := s.shared.output.Load(); left != 0 {
		t.Errorf("%d bytes of output are still counted", left)
	}
}

// TestSendOrder checks that records of many senders arrive whole, each once and each sender's in order, on a socket and without one.
func TestSendOrder(t *testing.T) {
	for _, kind := range []string{"tcp", "pipe"} {
		t.Run(kind, func(t *testing.T) {
			a, b := pair(t, kind)
			const senders, each = 8, 300
			var released sync.WaitGroup
			released.Add(senders * each)
			c := NewConn(a, ConnConfig{Log: quiet()})
			for s := range senders {
				go func() {
					for i := range each {
						rec := make([]byte, 16+(i%7)*3000)
						binary.BigEndian.PutUint32(rec, uint32(s))
						binary.BigEndian.PutUint32(rec[4:], 0) // a call
						binary.BigEndian.PutUint32(rec[8:], uint32(i))
						_ = c.SendRelease(rec, func([]byte) { released.Done() })
					}
				}()
			}
			var next [senders]uint32
			n := 0
			var peer *Conn
			peer = NewConn(b, ConnConfig{Log: quiet(), Handler: HandlerFunc(func(_ *Conn, rec Record) {
				m := rec.Bytes()
				s, i := binary.BigEndian.Uint32(m), binary.BigEndian.Uint32(m[8:])
				if i != next[s] || len(m) != 16+int(i%7)*3000 {
					t.Errorf("sender %d: record %d of %d bytes, want number %d", s, i, len(m), next[s])
				}
				next[s]++
				rec.Done()
				if n++; n == senders*each {
					peer.Close()
				}
			})})
			if err := peer.Run(); err != ErrClosed {
				t.Errorf("ended with %v after %d records", err, n)
			}
			c.Close()
			released.Wait()
			_ = c.Run()
		})
	}
}

func pair(t testing.TB, kind string) (a, b net.Conn) {
	t.Helper()
	if kind == "pipe" {
		return net.Pipe()
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
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

func TestCallCancelled(t *testing.T) {
	arrived := make(chan Record, 4)
	s := startServer(t, ServerConfig{Conn: ConnConfig{Handler: HandlerFunc(func(_ *Conn, rec Record) { arrived <- rec })}})
	c := dial(t, s.addr, ConnConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	p, err := c.Start(7, net.Buffers{callRecord(7, []byte("more"))})
	if err != nil {
		t.Fatal(err)
	}
	rec := <-arrived
	cancel()
	if _, err := p.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: %v", err)
	}
	echo(rec.conn, rec)
	if got, err := p.Wait(t.Context()); err != nil || string(got) != "more" {
		t.Errorf("second Wait: %q, %v", got, err)
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
	second := dial(t, s.addr, ConnConfig{})
	<-second.Done()
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

func BenchmarkEcho(b *testing.B) {
	for _, size := range []int{128, 1 << 20} {
		for _, depth := range []int{1, 16} {
			b.Run(fmt.Sprintf("%d/depth=%d", size, depth), func(b *testing.B) { benchmarkEcho(b, size, depth) })
		}
	}
}

// benchmarkEcho measures the server's connection against a plain socket that pipelines depth calls.
func benchmarkEcho(b *testing.B, size, depth int) {
	free := make(chan []byte, 64)
	put := func(p []byte) { free <- p }
	s := startServer(b, ServerConfig{Conn: ConnConfig{Headroom: 104, Handler: HandlerFunc(func(c *Conn, rec Record) {
		// The record itself becomes the reply: the benchmark is of the connection.
		m := rec.Bytes()
		m[7] = msgReply
		rec.Done()
		_ = c.SendRelease(m, put)
		<-free
	})}})
	nc, err := net.Dial("tcp", s.addr)
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	one := fragments(callRecord(1, make([]byte, size-40)), 1<<30)
	batch := bytes.Repeat(one, depth)
	in := make([]byte, len(batch))
	b.SetBytes(int64(2 * size))
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += depth {
		go func() { _, _ = nc.Write(batch) }()
		if _, err := io.ReadFull(nc, in); err != nil {
			b.Fatal(err)
		}
	}
}
