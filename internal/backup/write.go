package backup

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"time"

	"holdfast/internal/volume"
)

// DefaultSpoolBytes bounds a spool if Options does not.
const DefaultSpoolBytes = 4 << 30

// drainBytes is how much goes from the spool to the stream after each piece of an object, which is of half as much: so however fast clients write, reading the objects takes
// no more than three times as long as it would alone.
const drainBytes = 512 << 10

// Options say what a backup holds and what it may take.
type Options struct {
	// Cluster is the name of the cluster, for the header.
	Cluster string
	// Since is the index of the backup that this one continues; 0 for a full one.
	Since uint64
	// After is an index that the replica must have applied before the backup begins: see the package documentation.
	After uint64
	// SpoolDir is where changes wait to be sent, on a disk with SpoolBytes to spare; the system's folder for temporary files if empty.
	SpoolDir string
	// SpoolBytes bounds the spool; 0: DefaultSpoolBytes.
	SpoolBytes int64
}

// ErrNothing is returned by Write if the log holds nothing after Options.Since. With an Options.After of a mark of its own that cannot be.
var ErrNothing = errors.New("backup: nothing has happened since the backup that this one is to continue")

// Write writes a backup of v to w and returns what it is of. It may take hours; only one at a time can be made of a volume's replica.
func Write(ctx context.Context, v *volume.Volume, w io.Writer, o Options) (s Summary, err error) {
	if o.SpoolBytes == 0 {
		o.SpoolBytes = DefaultSpoolBytes
	}
	if err := v.WaitApplied(ctx, o.After); err != nil {
		return s, fmt.Errorf("backup: %w", err)
	}
	sp := &spool{dir: o.SpoolDir, limit: o.SpoolBytes}
	defer func() { err = errors.Join(err, sp.close()) }()
	c, err := v.BeginCopy(o.Since, sp.put)
	if err != nil {
		return s, fmt.Errorf("backup: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()

	s.Header = Header{Format: formatVersion, Cluster: o.Cluster, Volume: v.Name(), VolumeID: v.ID(), Since: o.Since, Begun: time.Now().UTC()}
	out := newWriter(w)
	if err := out.begin(&s.Header); err != nil {
		return s, err
	}
	err = c.Objects(ctx, func(p *volume.Piece) error {
		if err := out.piece(p); err != nil {
			return err
		}
		return sp.drain(drainBytes, out.write)
	})
	if err != nil {
		return s, fmt.Errorf("backup: %w", err)
	}
	if s.Index, err = c.Finish(); err != nil {
		return s, fmt.Errorf("backup: %w", err)
	}
	if s.Index <= o.Since {
		return s, fmt.Errorf("%w: volume %s is still at entry %d", ErrNothing, s.Volume, s.Index)
	}
	s.Ended = time.Now().UTC()
	if err := sp.drain(math.MaxInt64, out.write); err != nil {
		return s, err
	}
	out.pieces += sp.pieces
	if err := c.Metadata(ctx, out.piece); err != nil {
		return s, fmt.Errorf("backup: %w", err)
	}
	if err := out.end(&s); err != nil {
		return s, err
	}
	return s, nil
}

// writer writes records.
type writer struct {
	w      *bufio.Writer
	sum    hash.Hash
	buf    []byte
	pieces uint64
	bytes  int64
}

func newWriter(w io.Writer) *writer {
	return &writer{w: bufio.NewWriterSize(w, 256<<10), sum: sha256.New()}
}

// write writes whole records.
func (w *writer) write(b []byte) error {
	w.sum.Write(b)
	w.bytes += int64(len(b))
	if _, err := w.w.Write(b); err != nil {
		return fmt.Errorf("backup: write: %w", err)
	}
	return nil
}

func (w *writer) begin(h *Header) error {
	body, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("backup: encode the header: %w", err)
	}
	b := append(beginRecord([]byte(magic)), body...)
	return w.write(endRecord(b, len(magic), kindHeader))
}

func (w *writer) piece(p *volume.Piece) error {
	w.pieces++
	w.buf = appendPiece(w.buf[:0], p)
	return w.write(w.buf)
}

func (w *writer) end(s *Summary) error {
	b := beginRecord(nil)
	b = binary.BigEndian.AppendUint64(b, s.Index)
	b = binary.BigEndian.AppendUint64(b, uint64(s.Ended.UnixNano()))
	b = binary.BigEndian.AppendUint64(b, w.pieces)
	w.sum.Write(b[recordHeadBytes:])
	b = w.sum.Sum(b)
	if err := w.write(endRecord(b, 0, kindEnd)); err != nil {
		return err
	}
	s.Pieces, s.Bytes = w.pieces, w.bytes
	if err := w.w.Flush(); err != nil {
		return fmt.Errorf("backup: write: %w", err)
	}
	return nil
}
