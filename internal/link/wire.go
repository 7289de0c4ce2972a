package link

import (
	"bufio"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// wire is what lies under a TLS connection. It can hold back what TLS writes, so that many records are one system call, and writing one never waits.
type wire struct {
	net.Conn
	raw syscall.RawConn // nil if the connection cannot be written without waiting
	r   *bufio.Reader   // nil: reads are not buffered

	mu sync.Mutex
	// gather: writes are held back in out until flush or tryFlush.
	gather bool
	// closing: the connection is about to be closed, and what is written is written if there is room for it.
	closing bool
	// flushing: flush is writing, so nobody else may.
	flushing bool
	out      []byte
	spare    []byte // a buffer for out
}

func newWire(conn net.Conn) *wire {
	w := &wire{Conn: conn}
	if tcp, ok := conn.(*net.TCPConn); ok {
		if raw, err := tcp.SyscallConn(); err == nil {
			w.raw = raw
		}
	}
	return w
}

// readBytes is how much a buffered wire reads at once. A TLS record has at most 16 KiB.
const readBytes = 64 << 10

// bufferReads makes reads large. No read may be under way.
func (w *wire) bufferReads() { w.r = bufio.NewReaderSize(w.Conn, readBytes) }

func (w *wire) Read(b []byte) (int, error) {
	if w.r != nil {
		return w.r.Read(b)
	}
	return w.Conn.Read(b)
}

func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	if !w.gather && !w.closing {
		w.mu.Unlock()
		return w.Conn.Write(b)
	}
	defer w.mu.Unlock()
	w.out = append(w.out, b...)
	if w.closing {
		w.tryFlushLocked()
	}
	return len(b), nil
}

func (w *wire) startGathering() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gather = true
}

func (w *wire) startClosing() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closing = true
}

// held returns how much waits to be written.
func (w *wire) held() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.out)
}

// tryFlush writes what the socket takes now and reports whether that was all.
func (w *wire) tryFlush() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tryFlushLocked()
	return len(w.out) == 0
}

func (w *wire) tryFlushLocked() {
	if w.raw == nil || w.flushing || len(w.out) == 0 {
		return
	}
	n := 0
	// Errors show when the rest is written by flush: a broken connection takes nothing.
	_ = w.raw.Write(func(fd uintptr) bool {
		n, _ = unix.Write(int(fd), w.out)
		return true // not to be called again when there is room
	})
	if n > 0 {
		w.out = w.out[:copy(w.out, w.out[n:])]
	}
}

// keepBytes bounds the buffers that a wire keeps.
const keepBytes = 512 << 10

// flush writes all that is held back, and waits for it.
func (w *wire) flush() error {
	w.mu.Lock()
	b := w.out
	if len(b) == 0 {
		w.mu.Unlock()
		return nil
	}
	w.out, w.spare, w.flushing = w.spare[:0], nil, true
	w.mu.Unlock()
	_, err := w.Conn.Write(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flushing = false
	if cap(b) <= keepBytes {
		w.spare = b
	}
	return err
}

// NetConn returns the connection that the records travel on, for its socket's options.
func (w *wire) NetConn() net.Conn { return w.Conn }
