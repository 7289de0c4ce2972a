package rpc

import (
	"encoding/binary"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxBatch is how many records one writev carries: two or more vectors a record, and IOV_MAX is 1024.
	maxBatch = 256
	// maxBatchBytes bounds a batch, unless it is a single record, so that the time a slow peer is given is bounded too.
	maxBatchBytes = 1 << 20
	// maxVectors bounds the vectors of a single system call.
	maxVectors = 1000
	// maxRounds is how many batches a sender writes, its own and other people's, before it hands the queue to a goroutine: a sender is often a
	// worker with better things to do.
	maxRounds = 8
	// slowPeerBytesPerSecond is the least that a peer must take for us to go on beyond WriteTimeout.
	slowPeerBytesPerSecond = 64 << 10
	// gatherBytes is what a connection without writev writes at a time, in one piece; longer vectors are not copied. TLS has records of 16 KiB.
	gatherBytes = 16 << 10
)

// outRecord is one record of the queue: head, then tail.
type outRecord struct {
	head    []byte
	tail    net.Buffers
	release func([]byte) // called with head once the record is written or dropped; may be nil
	call    bool         // a call of ours; otherwise a reply
}

// size returns the bytes on the wire, the record mark included.
func (r *outRecord) size() int {
	n := 4 + len(r.head)
	for _, b := range r.tail {
		n += len(b)
	}
	return n
}

func (r *outRecord) drop() {
	if r.release != nil {
		r.release(r.head)
	}
	*r = outRecord{}
}

// output is the writing side of a Conn.
//
// Invariant: while driven is true exactly one goroutine, the driver, owns batch, marks and vecs; it alone writes to the socket. Whoever queues a
// record and finds driven false becomes the driver.
type output struct {
	conn *Conn

	mu      sync.Mutex // guards the fields below
	queue   []outRecord
	queued  int // bytes in queue and batch
	replies int // those of queued that are replies
	driven  bool
	err     error // set once by abort

	// The driver's.
	batch        []outRecord
	batchSize    int         // bytes of batch
	batchReplies int         // those of batchSize that are replies
	marks        []byte      // the record marks of batch
	vecs         net.Buffers // what of batch is still to be written
	store        net.Buffers // the array behind vecs
	gathered     []byte      // small vectors in one piece, where there is no writev
	// writeOnce is called by RawConn.Write: made once, to not allocate for every reply.
	writeOnce func(fd uintptr) bool
	wrote     int
	writeErr  error
}

func (o *output) init(c *Conn) {
	o.conn = c
	o.writeOnce = func(fd uintptr) bool {
		o.wrote, o.writeErr = writev(int(fd), o.vecs)
		return true // never wait in here: that is for flush
	}
}

// Send queues one record (without its record mark) and writes as much of the queue as the socket takes at once. It never waits for
// the peer. The record must not change afterwards. An error means that the connection has ended; success does not mean that the record arrived.
func (c *Conn) Send(record []byte) error { return c.out.send(outRecord{head: record}) }

// SendRelease is Send, with release called for the record as soon as it is no longer needed, whether it was written or not.
func (c *Conn) SendRelease(record []byte, release func([]byte)) error {
	return c.out.send(outRecord{head: record, release: release})
}

// unreadReplies returns how many bytes of replies wait for the peer. Calls do not count: if both ends stopped reading while their calls
// wait for each other's reader, neither would ever go on.
func (o *output) unreadReplies() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.replies
}

func (o *output) send(r outRecord) error {
	n := r.size()
	o.mu.Lock()
	if err := o.err; err != nil {
		o.mu.Unlock()
		r.drop()
		return err
	}
	tooSlow := o.conn.shared.addOutput(n) && o.replies > o.conn.cfg.MaxQueued
	o.queue = append(o.queue, r)
	o.queued += n
	if !r.call {
		o.replies += n
	}
	drive := !o.driven
	o.driven = true
	o.mu.Unlock()
	if tooSlow {
		o.conn.Fail(ErrSlowReader)
	}
	if drive {
		o.drive()
	}
	return nil
}

// drive writes batches until the queue is empty, the socket is full or it has done its share. The caller is the driver and no longer is afterwards.
func (o *output) drive() {
	for range maxRounds {
		if !o.next() {
			return
		}
		if !o.tryWrite() {
			break
		}
	}
	o.mu.Lock()
	ended := o.err != nil
	if !ended {
		o.conn.flushWait.Add(1) // under mu, so that after abort none is added
	}
	o.mu.Unlock()
	if ended {
		o.vecs = nil
		o.next()
		return
	}
	go o.flush()
}

// next takes a batch off the queue once the last one is out; false: there is none, and the caller is no longer the driver.
func (o *output) next() bool {
	if len(o.vecs) > 0 {
		return true
	}
	released := o.batch
	for i := range released {
		released[i].drop()
	}
	o.mu.Lock()
	before := o.replies
	o.queued -= o.batchSize
	o.replies -= o.batchReplies
	o.conn.shared.subOutput(o.batchSize)
	o.takeLocked()
	more := len(o.batch) > 0
	o.driven = more // if not, batch is no longer ours once mu is released
	relieved := before > o.conn.cfg.MaxQueued && o.replies <= o.conn.cfg.MaxQueued
	o.mu.Unlock()
	if relieved {
		o.conn.mu.Lock()
		o.conn.turn.Broadcast()
		o.conn.mu.Unlock()
	}
	if more {
		o.lay()
	}
	return more
}

// takeLocked moves records from the queue to batch, which must be done with.
func (o *output) takeLocked() {
	o.batchSize, o.batchReplies = 0, 0
	n := 0
	for n < min(len(o.queue), maxBatch) {
		r := &o.queue[n]
		size := r.size()
		if n > 0 && o.batchSize+size > maxBatchBytes {
			break
		}
		o.batchSize += size
		if !r.call {
			o.batchReplies += size
		}
		n++
	}
	o.batch = append(o.batch[:0], o.queue[:n]...)
	rest := copy(o.queue, o.queue[n:])
	clear(o.queue[rest:])
	o.queue = o.queue[:rest]
}

// lay makes the vectors of batch.
func (o *output) lay() {
	o.marks = o.marks[:0]
	if cap(o.marks) < 4*len(o.batch) {
		o.marks = make([]byte, 0, 4*max(len(o.batch), 8))
	}
	o.vecs = o.store[:0]
	for i := range o.batch {
		r := &o.batch[i]
		at := len(o.marks)
		o.marks = binary.BigEndian.AppendUint32(o.marks, uint32(r.size()-4)|lastFragment)
		o.vecs = append(o.vecs, o.marks[at:at+4], r.head)
		o.vecs = append(o.vecs, r.tail...)
	}
	o.store = o.vecs
}

// tryWrite writes what the socket takes without waiting and reports whether that was all.
func (o *output) tryWrite() bool {
	if o.conn.raw == nil {
		return false
	}
	for len(o.vecs) > 0 {
		if err := o.conn.raw.Write(o.writeOnce); err != nil {
			o.fail(err)
			return true
		}
		consume(&o.vecs, o.wrote)
		switch o.writeErr {
		case nil:
		case unix.EAGAIN:
			return false
		default:
			o.fail(o.writeErr)
			return true
		}
	}
	return true
}

func writev(fd int, vecs net.Buffers) (int, error) {
	for {
		n, err := unix.Writev(fd, vecs[:min(len(vecs), maxVectors)])
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

// consume drops the first n bytes of vecs.
func consume(vecs *net.Buffers, n int) {
	v := *vecs
	for len(v) > 0 && n >= len(v[0]) {
		n -= len(v[0])
		v[0] = nil
		v = v[1:]
	}
	if len(v) > 0 {
		v[0] = v[0][n:]
	}
	*vecs = v
}

// flush drives while the peer is slow, or where the connection is no socket.
func (o *output) flush() {
	defer o.conn.flushWait.Done()
	for o.next() {
		wait := o.conn.cfg.WriteTimeout + time.Duration(o.batchSize)*time.Second/slowPeerBytesPerSecond
		err := o.conn.nc.SetWriteDeadline(time.Now().Add(wait))
		if err == nil {
			err = o.write()
		}
		if err != nil {
			o.fail(err)
		}
	}
}

// write writes all of the batch, and waits for the peer.
func (o *output) write() error {
	if o.conn.raw != nil {
		_, err := o.vecs.WriteTo(o.conn.nc)
		if err == nil {
			err = o.conn.nc.SetWriteDeadline(time.Time{}) // or it would end the connection when something is sent after it has passed
		}
		return err
	}
	if w, ok := o.conn.nc.(interface{ WriteBuffers([][]byte) error }); ok {
		if err := w.WriteBuffers(o.vecs); err != nil {
			return err
		}
		clear(o.vecs)
		o.vecs = nil
		return nil
	}
	for len(o.vecs) > 0 {
		piece := o.vecs[0]
		if len(piece) < gatherBytes {
			piece = o.gather()
		}
		if _, err := o.conn.nc.Write(piece); err != nil {
			return err
		}
		consume(&o.vecs, len(piece))
	}
	return nil
}

// gather copies the first vectors into one piece of at most gatherBytes.
func (o *output) gather() []byte {
	if o.gathered == nil {
		o.gathered = make([]byte, 0, gatherBytes)
	}
	o.gathered = o.gathered[:0]
	for _, v := range o.vecs {
		if len(o.gathered)+len(v) > gatherBytes {
			break
		}
		o.gathered = append(o.gathered, v...)
	}
	return o.gathered
}

// fail ends the connection because it could not be written to; what is left of the batch is dropped by the next call of next.
func (o *output) fail(err error) {
	o.vecs = nil
	o.conn.end(err)
}

// abort drops the queue; the batch is the driver's to drop.
func (o *output) abort(err error) {
	o.mu.Lock()
	if o.err == nil {
		o.err = err
	}
	dropped := o.queue
	o.queue = nil
	n := 0
	for i := range dropped {
		size := dropped[i].size()
		n += size
		if !dropped[i].call {
			o.replies -= size
		}
	}
	o.queued -= n
	o.mu.Unlock()
	o.conn.shared.subOutput(n)
	for i := range dropped {
		dropped[i].drop()
	}
}
