package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"holdfast/internal/replica/transport"
)

// A snapshot travels on a connection of its own. Each frame begins with a byte that says what it is; those that are not data hold JSON.
//
//	sender:   offer    what it would send
//	receiver: answer   whether it wants it, and since which index
//	sender:   meta     what of the log the snapshot stands for
//	sender:   data...  the state machine's stream
//	sender:   end
//	receiver: answer   whether it is installed
const (
	frameOffer  = 'O'
	frameAnswer = 'A'
	frameMeta   = 'M'
	frameData   = 'D'
	frameEnd    = 'E'
)

// snapshotChunk is the most data in one frame.
const snapshotChunk = 256 << 10

type snapshotOffer struct {
	Term  uint64 `json:"term"`
	Index uint64 `json:"index"`
}

type snapshotAnswer struct {
	OK     bool   `json:"ok"`
	Since  uint64 `json:"since,omitempty"`
	Reason string `json:"reason,omitempty"`
}

var errSnapshotProtocol = errors.New("replica: snapshot: unexpected frame")

func sendFrame(s transport.Stream, kind byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode a snapshot frame: %w", err)
	}
	return s.Send(append([]byte{kind}, b...))
}

func receiveFrame(s transport.Stream, kind byte, v any) error {
	b, err := s.Receive()
	if err != nil {
		return err
	}
	if len(b) == 0 || b[0] != kind {
		return errSnapshotProtocol
	}
	if err := json.Unmarshal(b[1:], v); err != nil {
		return fmt.Errorf("decode a snapshot frame: %w", err)
	}
	return nil
}

// snapshotWriter turns a stream into data frames.
type snapshotWriter struct {
	s    transport.Stream
	buf  []byte
	sent *atomic.Int64
}

func (w *snapshotWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if len(w.buf) == 0 {
			w.buf = append(w.buf, frameData)
		}
		k := min(len(p), snapshotChunk+1-len(w.buf))
		w.buf = append(w.buf, p[:k]...)
		p = p[k:]
		if len(w.buf) == snapshotChunk+1 {
			if err := w.flush(); err != nil {
				return n - len(p), err
			}
		}
	}
	return n, nil
}

func (w *snapshotWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	if err := w.s.Send(w.buf); err != nil {
		return err
	}
	w.sent.Add(int64(len(w.buf) - 1))
	w.buf = w.buf[:0]
	return nil
}

// snapshotReader turns data frames into a stream, which ends with the end frame.
type snapshotReader struct {
	s        transport.Stream
	rest     []byte
	received *atomic.Int64
	err      error // why the stream ended; io.EOF at its proper end
}

func (r *snapshotReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 && r.err == nil {
		b, err := r.s.Receive()
		switch {
		case err != nil:
			r.err = fmt.Errorf("receive a snapshot: %w", err)
		case len(b) > 0 && b[0] == frameData:
			r.rest = b[1:]
			r.received.Add(int64(len(r.rest)))
		case len(b) == 1 && b[0] == frameEnd:
			r.err = io.EOF
		default:
			r.err = errSnapshotProtocol
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	if n == 0 && len(p) > 0 {
		return 0, r.err
	}
	return n, nil
}

// sendSnapshot does a SnapshotWork.
func (r *Replica) sendSnapshot(w SnapshotWork, sent *atomic.Int64) {
	began := r.cfg.Clock.MonotonicNS()
	log := r.cfg.Logger.With("peer", r.cfg.Name(w.To))
	log.Info("sending a snapshot", "index", w.Index)
	index, err := r.trySnapshot(r.ctx, w, sent)
	if err != nil {
		log.Warn("sending a snapshot failed", "bytes", sent.Load(), "err", err)
	} else {
		log.Info("sent a snapshot", "index", index, "bytes", sent.Load(), "took", time.Duration(r.cfg.Clock.MonotonicNS()-began))
	}
	r.call(func(now int64) {
		delete(r.sentBytes, w.To)
		r.core.SnapshotDone(now, w.To, err == nil)
	})
}

func (r *Replica) trySnapshot(ctx context.Context, w SnapshotWork, sent *atomic.Int64) (index uint64, err error) {
	s, err := r.cfg.Transport.OpenSnapshot(ctx, w.To)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	var answer snapshotAnswer
	if err := errors.Join(sendFrame(s, frameOffer, snapshotOffer{Term: w.Term, Index: w.Index}), receiveFrame(s, frameAnswer, &answer)); err != nil {
		return 0, err
	}
	if !answer.OK {
		return 0, fmt.Errorf("%w: %s", ErrSnapshotRefused, answer.Reason)
	}
	snap, err := r.takeSnapshot(w, answer.Since)
	if err != nil {
		return 0, fmt.Errorf("take a snapshot: %w", err)
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	meta, err := r.snapshotMeta(ctx, snap.Index())
	if err != nil {
		return 0, err
	}
	if err := sendFrame(s, frameMeta, meta); err != nil {
		return 0, err
	}
	out := &snapshotWriter{s: s, sent: sent}
	if _, err := snap.WriteTo(out); err != nil {
		return 0, fmt.Errorf("send a snapshot: %w", err)
	}
	if err := errors.Join(out.flush(), s.Send([]byte{frameEnd}), receiveFrame(s, frameAnswer, &answer)); err != nil {
		return 0, err
	}
	if !answer.OK {
		return 0, fmt.Errorf("%w: %s", ErrSnapshotRefused, answer.Reason)
	}
	return meta.Index, nil
}

// takeSnapshot captures what the receiver, whose own applied index is since, needs.
func (r *Replica) takeSnapshot(w SnapshotWork, since uint64) (Snapshot, error) {
	if IsWitness(w.To) && !r.cfg.FullMembers {
		return SnapshotForWitness(w.Index), nil
	}
	return r.cfg.StateMachine.Snapshot(since)
}

// snapshotMeta waits until the run loop knows that index is applied, and returns what it stands for.
func (r *Replica) snapshotMeta(ctx context.Context, index uint64) (SnapshotMeta, error) {
	type result struct {
		meta SnapshotMeta
		err  error
	}
	got := make(chan result, 1)
	r.call(func(int64) {
		r.waiters = append(r.waiters, func() bool {
			if index > r.core.applied {
				return false
			}
			meta, err := r.core.SnapshotMeta(index)
			got <- result{meta, err}
			return true
		})
	})
	select {
	case g := <-got:
		return g.meta, g.err
	case <-ctx.Done():
		return SnapshotMeta{}, ctx.Err()
	}
}

// ReceiveSnapshot takes a snapshot that another member sends (transport.Handler). It returns when the stream is done with.
func (r *Replica) ReceiveSnapshot(ctx context.Context, from uint64, s transport.Stream) error {
	if !r.enter() {
		return ErrStopped
	}
	defer r.wg.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)()
	defer context.AfterFunc(ctx, func() { _ = s.Close() })() // whatever waits for the stream ends
	var offer snapshotOffer
	if err := receiveFrame(s, frameOffer, &offer); err != nil {
		return err
	}
	refused := r.beginInstall(ctx, from, offer)
	if refused != nil {
		return errors.Join(refused, sendFrame(s, frameAnswer, snapshotAnswer{Reason: refused.Error()}))
	}
	meta, err := r.receive(from, s)
	r.endInstall(from, meta)
	if err != nil {
		r.cfg.Logger.Warn("receiving a snapshot failed", "peer", r.cfg.Name(from), "bytes", r.installedBytes.Load(), "err", err)
		return errors.Join(err, sendFrame(s, frameAnswer, snapshotAnswer{Reason: err.Error()}))
	}
	r.cfg.Logger.Info("installed a snapshot", "peer", r.cfg.Name(from), "index", meta.Index, "bytes", r.installedBytes.Load())
	return sendFrame(s, frameAnswer, snapshotAnswer{OK: true})
}

// beginInstall asks the Core and waits until nothing is being applied.
func (r *Replica) beginInstall(ctx context.Context, from uint64, offer snapshotOffer) error {
	result := make(chan error, 1)
	err := r.do(func(now int64) {
		if err := r.core.BeginInstall(now, from, offer.Term, offer.Index); err != nil {
			result <- err
			return
		}
		r.waiters = append(r.waiters, func() bool {
			if !r.core.Installable() {
				return false
			}
			result <- nil
			return true
		})
	})
	if err != nil {
		return err
	}
	select {
	case err := <-result:
		return err
	case <-r.ctx.Done():
		return ErrStopped
	}
}

// receive installs what the stream brings. It returns nil and an error if that failed.
func (r *Replica) receive(from uint64, s transport.Stream) (*SnapshotMeta, error) {
	since := r.cfg.StateMachine.Applied()
	r.installedBytes.Store(0)
	r.cfg.Logger.Info("receiving a snapshot", "peer", r.cfg.Name(from), "since", since)
	if err := sendFrame(s, frameAnswer, snapshotAnswer{OK: true, Since: since}); err != nil {
		return nil, err
	}
	var in SnapshotMeta
	if err := receiveFrame(s, frameMeta, &in); err != nil {
		return nil, err
	}
	reader := &snapshotReader{s: s, received: &r.installedBytes}
	// A connection that is gone may end as a file does, too, but within another error.
	return r.installStream(in, since, reader, func() bool { return reader.err == nil || reader.err == io.EOF })
}

// installStream replaces the state machine's state, which is at since, by what stream brings. whole tells afterwards whether the stream came whole: if it did and
// the installation failed all the same, it was our own storage, or a snapshot that nobody can install.
func (r *Replica) installStream(in SnapshotMeta, since uint64, stream io.Reader, whole func() bool) (*SnapshotMeta, error) {
	if in.Index <= since || in.Term == 0 || len(in.Conf.Voters) == 0 {
		return nil, fmt.Errorf("%w: index %d, term %d, %d voters", errSnapshotProtocol, in.Index, in.Term, len(in.Conf.Voters))
	}
	if !in.Conf.has(r.cfg.ID) {
		// The log would not take it: raft installs nothing where it is not a member.
		return nil, fmt.Errorf("%w: this is not a member any more", ErrSnapshotRefused)
	}
	if err := r.meta.update(func(m *Meta) { m.Installing = &in }); err != nil {
		r.fail(err)
		return nil, err
	}
	r.exclusive.Lock()
	defer r.exclusive.Unlock()
	if err := r.cfg.StateMachine.Install(stream); err != nil {
		err = fmt.Errorf("install a snapshot: %w", err)
		if whole() {
			r.fail(err)
		}
		return nil, err
	}
	if got := r.cfg.StateMachine.Applied(); got != in.Index {
		err := fmt.Errorf("replica: a snapshot of index %d installed as %d", in.Index, got)
		r.fail(err)
		return nil, err
	}
	return &in, nil
}

func (r *Replica) endInstall(from uint64, meta *SnapshotMeta) {
	_ = r.do(func(now int64) { r.endInstallNow(now, from, meta) })
}

func (r *Replica) endInstallNow(now int64, from uint64, meta *SnapshotMeta) {
	r.core.EndInstall(now, from, meta, r.cfg.StateMachine.Applied(), r.meta.installing() && !r.cfg.isWitness())
}
