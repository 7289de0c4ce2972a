package rpc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

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
