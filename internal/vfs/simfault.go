package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"syscall"
)

// ErrCrashed is what a file returns that was open when Crash was called.
var ErrCrashed = errors.New("vfs: the simulated machine has crashed since the file was opened")

// ErrStopped is what every operation returns between the power cut that StopAfter set and Crash.
var ErrStopped = errors.New("vfs: the simulated machine is without power")

// Op is a set of kinds of operation for a Fault to strike.
type Op uint8

// The kinds of operation.
const (
	OpOpen    Op = 1 << iota // Open, Create, OpenOrCreate, List, Stat, Space
	OpRead                   // ReadAt, SeekData, SeekHole, Size
	OpWrite                  // WriteAt, WriteVAt, Truncate, Preallocate, PunchHole
	OpSync                   // File.Sync
	OpSyncDir                // SyncDir
	OpNames                  // the creation of a name by Create, OpenOrCreate or MkdirAll; Rename, Remove
)

// Fault says which operations fail and how. A write that fails may have written a part. After a Sync that failed, what was not durable
// may be lost in a crash whatever later Syncs say.
type Fault struct {
	Ops   Op
	Name  string  // pattern as of path.Match for the last part of the name that the file has by now; "": any
	Nth   int     // strike the nth matching operation from now on and no earlier one; 0: from the first on
	Rate  float64 // chance to strike; 0: always
	Times int     // strikes before the fault goes away; 0: it stays
	Err   error   // nil: EIO
}

type fault struct {
	Fault
	seen, struck int
}

// faultError marks an error as injected, as opposed to one that follows from the state of the disk.
type faultError struct{ error }

func (e faultError) Unwrap() error { return e.error }

func isFault(err error) bool {
	var fe faultError
	return errors.As(err, &fe)
}

// AddFault arms f and returns a function that disarms it.
func (s *Sim) AddFault(f Fault) (remove func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	armed := &fault{Fault: f}
	s.faults = append(s.faults, armed)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.faults = slices.DeleteFunc(s.faults, func(f *fault) bool { return f == armed })
	}
}

// strikes counts an operation on name and reports whether the fault hits it.
func (f *fault) strikes(s *Sim, op Op, name string) bool {
	if f.Ops&op == 0 || f.Times > 0 && f.struck >= f.Times {
		return false
	}
	if f.Name != "" {
		if ok, err := path.Match(f.Name, path.Base(name)); err != nil || !ok {
			return false
		}
	}
	f.seen++
	if f.seen < f.Nth || f.Rate > 0 && s.rand.Float64() >= f.Rate {
		return false
	}
	f.struck++
	return true
}

// check returns the error of an operation that must not go on.
func (s *Sim) check(op Op, verb, name string) error {
	if s.stopped {
		return pathError(verb, name, ErrStopped)
	}
	for _, f := range s.faults {
		if f.strikes(s, op, name) {
			err := f.Err
			if err == nil {
				err = syscall.EIO
			}
			return pathError(verb, name, faultError{err})
		}
	}
	return nil
}

// StopAfter cuts the power during the nth operation from now on that changes something (writes, syncs, names): that operation is carried
// out in part, and it and all that follow return ErrStopped until Crash. 0 takes the order back.
func (s *Sim) StopAfter(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopAfter = n
}

// Stopped reports whether the power cut of StopAfter has happened.
func (s *Sim) Stopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped
}

// powerFails counts a changing operation and reports whether the power fails during it.
func (s *Sim) powerFails() bool {
	if s.stopAfter == 0 {
		return false
	}
	s.stopAfter--
	s.stopped = s.stopAfter == 0
	return s.stopped
}

// SetTornSectors chooses whether a crash may also leave a sector that is the old one from some byte on. Disks promise not to do that.
func (s *Sim) SetTornSectors(torn bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.torn = torn
}

// SetFree limits the disk so that free bytes (rounded up to a page of 4 KiB) are left; negative: no limit.
func (s *Sim) SetFree(free int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.capacity = 0
	if free >= 0 {
		s.capacity = max(s.used+(free+pageBytes-1)/pageBytes*pageBytes, 1)
	}
}

// allocate takes one page and reports whether there was one.
func (s *Sim) allocate() bool {
	if s.capacity > 0 && s.used+pageBytes > s.capacity {
		return false
	}
	s.used += pageBytes
	return true
}

// FlipBit inverts a bit of the file that has the name now, as a failing disk would: no Sync and no crash brings it back. Bytes in holes and beyond the
// end are not stored, so flipping them is an error.
func (s *Sim) FlipBit(name string, off int64, bit uint) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.lookup(name)
	if n == nil || n.dir {
		return pathError("flip", name, fs.ErrNotExist)
	}
	if off < 0 || off >= n.size || n.sector(off/sectorBytes) == nil {
		return fmt.Errorf("%s: offset %d: %w", name, off, ErrNoData)
	}
	n.flip(off, bit)
	return nil
}

// Crash cuts the power and turns it on again: what was not durable is lost in part, in whole or not at all, and every open file is dead.
// Faults and limits stay armed.
func (s *Sim) Crash() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
	s.stopped = false
	s.stopAfter = 0
	s.crashNames()
	// One chance per crash, the extremes being likely: nothing survives, everything does.
	keep := []float64{0, 0.5, 0.9, 1}[s.rand.IntN(4)]
	s.walk("/", s.root, func(_ string, n *node) {
		n.handles = 0
		n.revert(s, s.rand, keep, s.torn)
		n.links = 1 // there are no hard links
	})
	s.recount()
}

// crashNames lets a prefix of the pending changes of each folder survive; a change that touches two folders survives in both or neither.
func (s *Sim) crashNames() {
	cutChance := []float64{0, 0.1, 0.5, 1}[s.rand.IntN(4)]
	cut := map[*node]bool{}
	for _, op := range s.pending {
		lost := s.rand.Float64() < cutChance || slices.ContainsFunc(op, func(c dirChange) bool { return cut[c.dir] })
		if !lost {
			op.settle()
			continue
		}
		for _, c := range op {
			cut[c.dir] = true
		}
	}
	s.pending = nil
	restoreNames(s.root)
}

// restoreNames makes the durable names below n the current ones.
func restoreNames(n *node) {
	if !n.dir {
		return
	}
	n.entries = maps.Clone(n.durable)
	for name, child := range n.entries {
		child.name = name
		restoreNames(child)
	}
}

// recount works out the space taken from the files that are left.
func (s *Sim) recount() {
	s.used = 0
	s.walk("/", s.root, func(_ string, n *node) { s.used += n.allocated() })
}
