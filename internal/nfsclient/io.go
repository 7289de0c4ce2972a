package nfsclient

import (
	"errors"
	"fmt"
	"sync"

	"holdfast/internal/xdr"
)

// readAll reads into p, by READs of up to size bytes, until it is full or the file ends.
func readAll(p []byte, off uint64, size int, read func(part []byte, off uint64) (n int, eof bool, err error)) (n int, eof bool, err error) {
	for n < len(p) && !eof {
		var got int
		if got, eof, err = read(p[n:min(len(p), n+size)], off+uint64(n)); err != nil {
			return n, false, err
		}
		if got == 0 && !eof {
			return n, false, errors.New("nfsclient: READ: no data, and no end of file")
		}
		n += got
	}
	return n, eof, nil
}

// written is the result of a WRITE.
type written struct {
	count     int
	committed Stability
	verifier  [verifierBytes]byte
}

func (w *written) decode(d *xdr.Decoder) {
	w.count = int(d.Uint32())
	w.committed = Stability(d.Uint32())
	copy(w.verifier[:], d.Fixed(verifierBytes))
}

// writeState remembers what unstable writes a file has, to tell whether COMMIT kept them.
type writeState struct {
	mu       sync.Mutex // guards the fields below
	unstable bool
	mixed    bool // writes were answered with different verifiers
	verifier [verifierBytes]byte
}

// writeAll writes all of p, by WRITEs of up to size bytes, which may be answered for fewer bytes than they hold.
func (s *writeState) writeAll(p []byte, off uint64, size int, how Stability, write func(part []byte, off uint64) (written, error)) error {
	for len(p) > 0 {
		part := p[:min(len(p), size)]
		w, err := write(part, off)
		if err == nil {
			err = s.wrote(w, len(part), how)
		}
		if err != nil {
			return err
		}
		p, off = p[w.count:], off+uint64(w.count)
	}
	return nil
}

// wrote notes an answered WRITE of n bytes and checks the answer against what was asked for.
func (s *writeState) wrote(w written, n int, how Stability) error {
	if w.count < 1 || w.count > n {
		return fmt.Errorf("nfsclient: WRITE: %d of %d bytes written", w.count, n)
	}
	if w.committed < how {
		return fmt.Errorf("nfsclient: WRITE: asked for stability %d, got %d", how, w.committed)
	}
	if w.committed != Unstable {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unstable && s.verifier != w.verifier {
		s.mixed = true
	}
	s.unstable, s.verifier = true, w.verifier
	return nil
}

// commit calls send if there are unstable writes, and compares the verifiers. Writes that are answered meanwhile need a commit of their own.
func (s *writeState) commit(send func() ([verifierBytes]byte, error)) error {
	s.mu.Lock()
	if !s.unstable {
		s.mu.Unlock()
		return nil
	}
	want, mixed := s.verifier, s.mixed
	s.unstable, s.mixed = false, false
	s.mu.Unlock()
	got, err := send()
	if err != nil {
		s.mu.Lock()
		s.mixed = s.mixed || mixed || (s.unstable && s.verifier != want)
		s.unstable, s.verifier = true, want
		s.mu.Unlock()
		return err
	}
	if mixed || got != want {
		return ErrVerifierChanged
	}
	return nil
}
