package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// bufferBytes is how much is read from a client at once, if there is that much, and smallBytes what is always there for each direction of a connection:
	// a record of TLS.
	bufferBytes = 256 << 10
	smallBytes  = 16 << 10
	// halfCloseTimeout is how long the rest of the replies may take after the client said that it asks nothing more.
	halfCloseTimeout = 15 * time.Second
)

// relay copies both ways between a client and the node that serves it, until either end or who serves changes.
func (p *Proxy) relay(ctx context.Context, client, stream net.Conn, t Target) {
	var (
		wg       sync.WaitGroup
		asked    atomic.Bool // the client asks nothing more
		broken   = make(chan struct{})
		answered = make(chan struct{})
	)
	wg.Go(func() {
		if !errors.Is(p.copyUp(stream, client), io.EOF) {
			close(broken)
			return
		}
		asked.Store(true)
		_ = stream.SetReadDeadline(time.Now().Add(halfCloseTimeout))
		if w, ok := stream.(interface{ CloseWrite() error }); !ok || w.CloseWrite() != nil {
			close(broken)
		}
	})
	wg.Go(func() {
		p.copyDown(client, stream)
		close(answered)
	})
	orderly := false
	for ended := false; !ended; {
		select {
		case <-broken:
			ended = true
		case <-answered:
			ended, orderly = true, asked.Load()
		case <-ctx.Done():
			ended = true
		case <-t.Changed:
			now := p.cfg.Target()
			// While nobody is known to serve, the one who did may again: if not, the stream breaks or a successor turns up.
			ended = now.Local || now.Node != 0 && now.Node != t.Node
			t.Changed = now.Changed
		}
	}
	if orderly {
		setLinger(client, -1)
		_ = client.Close()
	} else {
		breakOff(client)
	}
	breakOff(stream)
	wg.Wait()
}

// copyUp copies from the client to the stream, and returns why it ended: io.EOF if the client has closed its side.
func (p *Proxy) copyUp(stream, client net.Conn) error {
	src, err := p.buffers.source(client)
	if err != nil {
		return err
	}
	write := func(b []byte) error { _, err := stream.Write(b); return err }
	if w, ok := stream.(bufferWriter); ok {
		write = func(b []byte) error { return w.WriteBuffers([][]byte{b}) }
	}
	for {
		buf, n, err := src.read()
		if n > 0 {
			err = errors.Join(err, write((*buf)[:n]))
		}
		p.buffers.put(buf)
		if err != nil {
			return err
		}
	}
}

// copyDown copies from the stream to the client until one of them ends.
func (p *Proxy) copyDown(client, stream net.Conn) {
	// TLS hands out one record at a time: there is nothing to gain from more room.
	buf := smallPool.Get().(*[]byte)
	defer smallPool.Put(buf)
	for {
		n, err := stream.Read(*buf)
		if n > 0 {
			if _, err := client.Write((*buf)[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

var (
	bigPool   = sync.Pool{New: func() any { b := make([]byte, bufferBytes); return &b }}
	smallPool = sync.Pool{New: func() any { b := make([]byte, smallBytes); return &b }}
)

// buffers hands out big buffers as long as there are less than limit bytes of them, then small ones: nobody has to wait for a buffer that
// somebody else holds who himself waits for a slow node.
type buffers struct {
	limit int64
	used  atomic.Int64 // bytes of the big ones
}

func (b *buffers) get() *[]byte {
	if b.used.Add(bufferBytes) <= b.limit {
		return bigPool.Get().(*[]byte)
	}
	b.used.Add(-bufferBytes)
	return smallPool.Get().(*[]byte)
}

// put takes back what get returned; nil is nothing.
func (b *buffers) put(buf *[]byte) {
	switch {
	case buf == nil:
	case len(*buf) == bufferBytes:
		bigPool.Put(buf)
		b.used.Add(-bufferBytes)
	default:
		smallPool.Put(buf)
	}
}

// source reads from a client. While a socket has nothing to read no buffer is held for it.
type source struct {
	nc      net.Conn
	raw     syscall.RawConn // nil if it is no socket
	buffers *buffers
	try     func(fd uintptr) bool // made once, to not allocate for every read

	buf *[]byte
	n   int
	err error
}

func (b *buffers) source(nc net.Conn) (*source, error) {
	s := &source{nc: nc, buffers: b}
	if sc, ok := nc.(syscall.Conn); ok {
		raw, err := sc.SyscallConn()
		if err != nil {
			return nil, err
		}
		s.raw = raw
	}
	s.try = func(fd uintptr) bool {
		s.buf = b.get()
		for {
			s.n, s.err = unix.Read(int(fd), *s.buf)
			if s.err != unix.EINTR {
				break
			}
		}
		if s.err == unix.EAGAIN {
			b.put(s.buf)
			s.buf = nil
			return false
		}
		return true
	}
	return s, nil
}

// read waits for bytes and returns them in a buffer that the caller gives back; it may be nil if n is 0. At the end of the stream the error is io.EOF.
func (s *source) read() (buf *[]byte, n int, err error) {
	if s.raw == nil {
		buf = s.buffers.get()
		n, err = s.nc.Read(*buf)
		return buf, n, err
	}
	s.buf, s.n, s.err = nil, 0, nil
	if err := s.raw.Read(s.try); err != nil {
		return s.buf, 0, err
	}
	if s.err == nil && s.n == 0 {
		s.err = io.EOF
	}
	return s.buf, max(s.n, 0), s.err
}
