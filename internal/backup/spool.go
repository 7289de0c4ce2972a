package backup

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"holdfast/internal/volume"
)

// spoolChunk is about how much of a spool is in memory, and how much is moved at once.
const spoolChunk = 1 << 20

// ErrTooSlow is returned by Write when more waits to be sent than Options.SpoolBytes.
var ErrTooSlow = errors.New("backup: clients write faster than the backup is taken away: use a faster target, a quieter time or a larger spool")

// spool holds the records of changes on their way to the stream: the youngest in memory, the others in a file without a name.
type spool struct {
	dir   string
	limit int64

	mu         sync.Mutex
	mem, spare []byte
	file       *os.File
	head, tail int64 // of what is in the file
	chunks     []int // lengths of what was written to the file at once, whole records each
	pieces     uint64
	in, out    int64 // bytes that ever came and went
	err        error
}

// put takes a change (volume.BeginCopy's watch).
func (s *spool) put(p *volume.Piece) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	before := len(s.mem)
	s.mem = appendPiece(s.mem, p)
	s.in += int64(len(s.mem) - before)
	s.pieces++
	if len(s.mem) >= spoolChunk {
		s.err = s.spillLocked()
	}
}

func (s *spool) spillLocked() error {
	if waiting := s.tail - s.head + int64(len(s.mem)); waiting > s.limit {
		return fmt.Errorf("%w: %d bytes wait", ErrTooSlow, waiting)
	}
	if s.file == nil {
		f, err := os.CreateTemp(s.dir, "backup-spool-")
		if err != nil {
			return fmt.Errorf("backup: make the spool: %w", err)
		}
		s.file = f
		if err := os.Remove(f.Name()); err != nil {
			return fmt.Errorf("backup: make the spool: %w", err)
		}
	}
	if _, err := s.file.WriteAt(s.mem, s.tail); err != nil {
		return fmt.Errorf("backup: write to the spool: %w", err)
	}
	s.tail += int64(len(s.mem))
	s.chunks = append(s.chunks, len(s.mem))
	s.mem = s.mem[:0]
	return nil
}

// drain passes to fn, in order, what was there when it was called, but no more than about limit bytes.
func (s *spool) drain(limit int64, fn func(records []byte) error) error {
	s.mu.Lock()
	until := s.in
	if limit < until-s.out {
		until = s.out + limit
	}
	s.mu.Unlock()
	for {
		chunk, err := s.next(until)
		if err != nil || chunk == nil {
			return err
		}
		if err := fn(chunk); err != nil {
			return err
		}
	}
}

// next takes the oldest records out, nil if those up to until are. They are valid until the next call.
func (s *spool) next(until int64) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || s.out >= until {
		return nil, s.err
	}
	if s.head == s.tail {
		if s.tail > 0 {
			s.head, s.tail = 0, 0
			if err := s.file.Truncate(0); err != nil {
				return nil, fmt.Errorf("backup: empty the spool: %w", err)
			}
		}
		s.mem, s.spare = s.spare[:0], s.mem
		s.out += int64(len(s.spare))
		return s.spare, nil
	}
	n := s.chunks[0]
	s.chunks = s.chunks[1:]
	if cap(s.spare) < n {
		s.spare = make([]byte, n)
	}
	s.spare = s.spare[:n]
	if _, err := s.file.ReadAt(s.spare, s.head); err != nil {
		return nil, fmt.Errorf("backup: read the spool: %w", err)
	}
	s.head += int64(n)
	s.out += int64(n)
	return s.spare, nil
}

func (s *spool) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	if err := s.file.Close(); err != nil {
		return fmt.Errorf("backup: close the spool: %w", err)
	}
	return nil
}
