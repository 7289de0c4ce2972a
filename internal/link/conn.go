package link

import (
	"crypto/tls"
	"sync"
	"time"

	"holdfast/internal/identity"
)

// Conn is a connection whose other side is known.
type Conn struct {
	*tls.Conn
	wire  *wire
	peer  identity.Peer
	proto string

	// gathering and record belong to the one goroutine that writes.
	gathering bool
	record    []byte

	closing sync.Once
	onClose func() // may be nil
}

// Peer returns who is at the other end: a stranger, if it was not asked for a certificate.
func (c *Conn) Peer() identity.Peer { return c.peer }

// Proto returns what the connection is for.
func (c *Conn) Proto() string { return c.proto }

// Read reads as tls.Conn does. The error of a connection that the other side refused says so (ErrRefused).
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		err = explain(err, c.proto)
	}
	return n, err
}

// Close closes the connection at once, also while others read and write, and when the other side reads nothing.
func (c *Conn) Close() error {
	c.closing.Do(func() {
		c.wire.startClosing()
		if c.onClose != nil {
			c.onClose()
		}
	})
	return c.Conn.Close()
}

// CloseWrite tells the other side that nothing more comes, after what was written before.
func (c *Conn) CloseWrite() error {
	if err := c.wire.flush(); err != nil {
		return err
	}
	if err := c.Conn.CloseWrite(); err != nil || !c.gathering {
		return err
	}
	// TLS lets all writes fail from here on, but what it wrote last is held back still.
	if err := c.Conn.SetWriteDeadline(time.Now().Add(closeTimeout)); err != nil {
		return err
	}
	return c.wire.flush()
}

// closeTimeout is how long CloseWrite waits for room, as that of tls.Conn does.
const closeTimeout = 5 * time.Second

// Sizes of writes.
const (
	recordBytes = 16 << 10  // the most that a TLS record holds
	flushBytes  = 256 << 10 // what is encrypted before it is written
)

// gather makes the wire hold back what is written from now on. It has to stay so: TLS answers some messages by itself, while it reads, and may not be
// caught waiting for room then, when somebody calls TryWrite.
func (c *Conn) gather() {
	if !c.gathering {
		c.wire.startGathering()
		c.gathering = true
		c.record = make([]byte, 0, recordBytes)
	}
}

// Write writes b and waits for room.
func (c *Conn) Write(b []byte) (int, error) {
	if !c.gathering {
		return c.Conn.Write(b)
	}
	if err := c.WriteBuffers([][]byte{b}); err != nil {
		return 0, err
	}
	return len(b), nil
}

// WriteBuffers writes all buffers, back to back, in as few records and system calls as that takes, and waits for room. Write, WriteBuffers, TryWrite and Flush
// must not be called at the same time.
func (c *Conn) WriteBuffers(bufs [][]byte) error {
	c.gather()
	if err := c.encrypt(bufs, c.wire.flush); err != nil {
		return err
	}
	return c.wire.flush()
}

// TryWrite writes all buffers, back to back, without ever waiting: what the socket has no room for stays in memory, encrypted. It reports whether nothing stays;
// if something does, Flush must be called by who can wait, before too much piles up.
func (c *Conn) TryWrite(bufs [][]byte) (done bool, err error) {
	c.gather()
	if err := c.encrypt(bufs, nil); err != nil {
		return false, err
	}
	return c.wire.tryFlush(), nil
}

// Flush writes what TryWrite had no room for, and waits for it.
func (c *Conn) Flush() error { return c.wire.flush() }

// encrypt puts buffers into records, full ones as far as possible. full, if not nil, is called whenever flushBytes are held back.
func (c *Conn) encrypt(bufs [][]byte, full func() error) error {
	put := func(b []byte) error {
		if _, err := c.Conn.Write(b); err != nil {
			return err
		}
		if full != nil && c.wire.held() >= flushBytes {
			return full()
		}
		return nil
	}
	record := c.record[:0]
	for _, b := range bufs {
		for len(b) > 0 {
			if len(record) == 0 && len(b) >= recordBytes {
				// As it lies. TLS copies while it encrypts.
				if err := put(b[:recordBytes]); err != nil {
					return err
				}
				b = b[recordBytes:]
				continue
			}
			n := min(len(b), recordBytes-len(record))
			record, b = append(record, b[:n]...), b[n:]
			if len(record) == recordBytes {
				if err := put(record); err != nil {
					return err
				}
				record = record[:0]
			}
		}
	}
	if len(record) == 0 {
		return nil
	}
	return put(record)
}
