package rpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"

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
	s.stop() // a reply arrives before its sender has taken it off the count
	if left := s.shared.output.Load(); left != 0 {
		t.Errorf("%d bytes of output are still counted", left)
	}
}

// TestCallBack calls in the direction of the client while the client's own call is open, as a delegation recall does.
func TestCallBack(t *testing.T) {
	handled := make(chan struct{})
	server := HandlerFunc(func(c *Conn, rec Record) {
		go func() {
			defer close(handled)
			got, err := c.Call(context.Background(), 9, 1, 1, &Auth{}, []byte("back"))
			if err != nil || string(got) != "back" {
				t.Errorf("call back: %q, %v", got, err)
			}
			echo(c, rec)
		}()
	})
	s := startServer(t, ServerConfig{Conn: ConnConfig{Handler: server}})
	c := dial(t, s.addr, ConnConfig{Handler: HandlerFunc(echo)})
	got, err := c.Call(t.Context(), 1, 2, 3, &Auth{}, []byte("fore"))
	if err != nil || string(got) != "fore" {
		t.Fatalf("call: %q, %v", got, err)
	}
	<-handled
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
