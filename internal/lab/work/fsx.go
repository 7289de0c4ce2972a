package work

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	fsxMaxSize  = 256 << 10
	fsxMaxRange = 40 << 10
	fsxHistory  = 30 // operations that a finding is reported with
)

// fsx does random operations on one file, which nobody else touches, and compares what it reads with a model in memory,
// after the fsx of Apple and the Linux Test Project. It is reproducible from its seed as long as nothing fails.
//
// A file system that is full may refuse; step then returns ENOSPC, and what was not synced before may be there or not,
// while all else must be as it was.
type fsx struct {
	path   string
	rnd    *rand.Rand
	sparse bool // holes can be punched, space be allocated, and data be found: not so in NFSv3
	f      *os.File
	model  []byte
	// unsynced tells which bytes were written after the last fsync; resized, that the size may have changed by that.
	unsynced [fsxMaxSize]bool
	resized  bool
	ops      int
	history  []string
}

// fsxOp is a kind of operation; weight is how often it is chosen.
type fsxOp struct {
	name   string
	weight int
	sparse bool // only if fsx.sparse
	run    func(x *fsx, off, length int) error
}

var fsxOps = []fsxOp{
	{"read", 20, false, (*fsx).read},
	{"write", 22, false, (*fsx).write},
	{"mapread", 8, false, (*fsx).mapRead},
	{"mapwrite", 10, false, (*fsx).mapWrite},
	{"truncate", 8, false, func(x *fsx, off, _ int) error { return x.truncate(off) }},
	{"sync", 6, false, func(x *fsx, _, _ int) error { return x.sync() }},
	{"reopen", 3, false, func(x *fsx, _, _ int) error { return x.reopen() }},
	{"verify", 6, false, func(x *fsx, _, _ int) error { return x.verify() }},
	{"punch", 8, true, (*fsx).punch},
	{"allocate", 4, true, (*fsx).allocate},
	{"copy", 4, true, (*fsx).copy},
	{"seek", 4, true, (*fsx).seek},
}

// newFsx starts over with an empty file.
func newFsx(path string, seed uint64, sparse bool) (*fsx, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, err
	}
	return &fsx{path: path, rnd: rand.New(rand.NewPCG(seed, 0x66_73_78)), sparse: sparse, f: f}, nil
}

func (x *fsx) close() error { return x.f.Close() }

// step does one operation. After ENOSPC the next step may follow, any other error is a finding.
func (x *fsx) step() error {
	total := 0
	for _, op := range fsxOps {
		total += op.weight
	}
	pick := x.rnd.IntN(total)
	op := fsxOps[0]
	for _, op = range fsxOps {
		if pick -= op.weight; pick < 0 {
			break
		}
	}
	// Half of the ranges begin or end at the size of a page, where bugs are.
	off, length := x.rnd.IntN(fsxMaxSize), 1+x.rnd.IntN(fsxMaxRange)
	if x.rnd.IntN(3) > 0 {
		off = x.rnd.IntN(len(x.model) + 1)
	}
	if x.rnd.IntN(4) == 0 {
		off &^= 4095
	}
	if x.rnd.IntN(4) == 0 {
		length = (length + 4095) &^ 4095
	}
	length = min(length, fsxMaxSize-off)
	if op.sparse && !x.sparse || length == 0 {
		return nil
	}
	x.ops++
	x.history = append(x.history[max(0, len(x.history)+1-fsxHistory):], fmt.Sprintf("%d %s(%d, %d) of %d", x.ops, op.name, off, length, len(x.model)))
	err := op.run(x, off, length)
	if err != nil && !errors.Is(err, unix.ENOSPC) {
		// The kernel writes back at any time, drops from its cache what was refused, and says so at the next fsync only.
		if refused := x.f.Sync(); errors.Is(refused, unix.ENOSPC) {
			err = fmt.Errorf("written back before: %w", refused)
		}
	}
	if errors.Is(err, unix.ENOSPC) {
		if adoptErr := x.adopt(); adoptErr != nil {
			return x.finding(fmt.Errorf("after %s: %w", err, adoptErr))
		}
		return err
	}
	return x.finding(err)
}

// finding adds to an error what led to it.
func (x *fsx) finding(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w; before: %s", x.path, err, strings.Join(x.history, ", "))
}

// within cuts a range to the size of the file.
func (x *fsx) within(off, length int) (from, to int) {
	from = min(off, len(x.model))
	return from, min(off+length, len(x.model))
}

// wrote notes that data is on its way to [off, off+len(data)).
func (x *fsx) wrote(off int, data []byte) {
	if end := off + len(data); end > len(x.model) {
		x.model = append(x.model, make([]byte, end-len(x.model))...)
		x.resized = true
	}
	copy(x.model[off:], data)
	for i := range data {
		x.unsynced[off+i] = true
	}
}

func (x *fsx) data(n int) []byte { return pattern(x.rnd.Uint64(), n) }

func (x *fsx) read(off, length int) error {
	from, to := x.within(off, length)
	got := make([]byte, length)
	n, err := x.f.ReadAt(got, int64(off))
	if err != nil && err != io.EOF {
		return fmt.Errorf("read: %w", err)
	}
	return compare("read", got[:n], x.model[from:to])
}

func (x *fsx) write(off, length int) error {
	data := x.data(length)
	x.wrote(off, data) // before, as a part may be written when it fails
	if _, err := x.f.WriteAt(data, int64(off)); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

func (x *fsx) truncate(size int) error {
	if err := x.f.Truncate(int64(size)); err != nil {
		return fmt.Errorf("truncate: %w", err)
	}
	if size > len(x.model) {
		x.model = append(x.model, make([]byte, size-len(x.model))...)
		return nil
	}
	x.model = x.model[:size:size] // so that growth makes zeros
	return nil
}

// sync makes certain what the file holds.
func (x *fsx) sync() error {
	if err := x.f.Sync(); err != nil {
		return fmt.Errorf("fsync: %w", err)
	}
	x.unsynced, x.resized = [fsxMaxSize]bool{}, false
	return nil
}

func (x *fsx) reopen() error {
	if err := x.sync(); err != nil {
		return err
	}
	return x.openAgain()
}

// openAgain closes the file and opens it, after which the client knows its size from the server (close-to-open consistency). An error of closing comes after that.
func (x *fsx) openAgain() error {
	closed := x.f.Close()
	f, err := os.OpenFile(x.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	x.f = f
	if closed != nil {
		return fmt.Errorf("close: %w", closed)
	}
	return nil
}

// stored is what the server has: it is read after the client's clean pages were dropped.
func (x *fsx) stored() ([]byte, error) {
	if err := unix.Fadvise(int(x.f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return nil, fmt.Errorf("drop pages: %w", err)
	}
	got, err := io.ReadAll(io.NewSectionReader(x.f, 0, 2*fsxMaxSize))
	if err != nil {
		return nil, fmt.Errorf("read all: %w", err)
	}
	return got, nil
}

// verify compares all of the file, as the server has it.
func (x *fsx) verify() error {
	if err := x.sync(); err != nil {
		return err
	}
	got, err := x.stored()
	if err != nil {
		return err
	}
	st, err := x.f.Stat()
	if err != nil {
		return err
	}
	if st.Size() != int64(len(x.model)) {
		return fmt.Errorf("stat says %d bytes, want %d", st.Size(), len(x.model))
	}
	return compare("verify", got, x.model)
}

// adopt takes over what the file holds after the file system was full, provided that all that was synced is there.
func (x *fsx) adopt() error {
	// The first fsync reports what went wrong before; the data that it could not write is given up.
	for range 2 {
		if err := x.f.Sync(); err != nil && !errors.Is(err, unix.ENOSPC) {
			return err
		}
	}
	// Linux goes on with the size that the file would have had.
	if err := x.openAgain(); err != nil && !errors.Is(err, unix.ENOSPC) {
		return err
	}
	got, err := x.stored()
	if err != nil {
		return err
	}
	if len(got) != len(x.model) && !x.resized || len(got) > len(x.model) {
		return fmt.Errorf("has %d bytes, want %d", len(got), len(x.model))
	}
	for i, b := range got {
		if b != x.model[i] && !x.unsynced[i] {
			return fmt.Errorf("byte %d, which was synced before, is %#x, want %#x", i, b, x.model[i])
		}
	}
	x.model = got
	x.unsynced, x.resized = [fsxMaxSize]bool{}, false
	return nil
}

// mapped maps the pages of a range of the file and runs f on the range. Memory that cannot be filled or written to is a
// SIGBUS, which becomes an error here.
func (x *fsx) mapped(from, to, prot int, f func(b []byte)) (err error) {
	page := from &^ (os.Getpagesize() - 1)
	m, err := unix.Mmap(int(x.f.Fd()), int64(page), to-page, prot, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault := recover(); fault != nil {
			err = errors.Join(fmt.Errorf("access to mapped memory: %v", fault), x.whyFault())
		}
		if unmapErr := unix.Munmap(m); err == nil && unmapErr != nil {
			err = fmt.Errorf("munmap: %w", unmapErr)
		}
	}()
	f(m[from-page:])
	return nil
}

// whyFault is the reason for a SIGBUS, if one can be found.
func (x *fsx) whyFault() error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(x.f.Fd()), &st); err == nil && st.Bavail == 0 {
		return unix.ENOSPC
	}
	return x.f.Sync()
}

func (x *fsx) mapRead(off, length int) error {
	from, to := x.within(off, length)
	if from == to {
		return nil
	}
	var differs error
	err := x.mapped(from, to, unix.PROT_READ, func(b []byte) { differs = compare("mapped", b, x.model[from:to]) })
	return errors.Join(err, differs)
}

func (x *fsx) mapWrite(off, length int) error {
	from, to := x.within(off, length)
	if from == to {
		return nil
	}
	data := x.data(to - from)
	x.wrote(from, data)
	return x.mapped(from, to, unix.PROT_READ|unix.PROT_WRITE, func(b []byte) { copy(b, data) })
}

func (x *fsx) punch(off, length int) error {
	const mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	if err := unix.Fallocate(int(x.f.Fd()), mode, int64(off), int64(length)); err != nil {
		return fmt.Errorf("punch: %w", err)
	}
	from, to := x.within(off, length)
	clear(x.model[from:to])
	return nil
}

func (x *fsx) allocate(off, length int) error {
	if err := unix.Fallocate(int(x.f.Fd()), 0, int64(off), int64(length)); err != nil {
		return fmt.Errorf("allocate: %w", err)
	}
	if end := off + length; end > len(x.model) {
		x.model = append(x.model, make([]byte, end-len(x.model))...)
	}
	return nil
}

// copy copies a range to another place of the file, which does not overlap it.
func (x *fsx) copy(off, length int) error {
	from, to := x.within(off, length)
	dest := x.rnd.IntN(fsxMaxSize)
	n := min(to-from, fsxMaxSize-dest)
	if n <= 0 || dest < from+n && from < dest+n {
		return nil
	}
	data := append([]byte(nil), x.model[from:from+n]...)
	x.wrote(dest, data)
	in, out := int64(from), int64(dest)
	for done := 0; done < n; {
		c, err := unix.CopyFileRange(int(x.f.Fd()), &in, int(x.f.Fd()), &out, n-done, 0)
		if err != nil {
			return fmt.Errorf("copy %d bytes to %d: %w", n, dest, err)
		}
		if c == 0 {
			return fmt.Errorf("copy %d bytes to %d: ended after %d", n, dest, done)
		}
		done += c
	}
	return nil
}

// seek looks for the data after off: all that is skipped must be zeros.
func (x *fsx) seek(off, _ int) error {
	if off >= len(x.model) {
		return nil
	}
	at, err := unix.Seek(int(x.f.Fd()), int64(off), unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		at, err = int64(len(x.model)), nil
	}
	if err != nil {
		return fmt.Errorf("seek for data: %w", err)
	}
	if at < int64(off) || at > int64(len(x.model)) {
		return fmt.Errorf("seek for data from %d: found at %d of %d", off, at, len(x.model))
	}
	for i, b := range x.model[off:at] {
		if b != 0 {
			return fmt.Errorf("seek for data from %d: found at %d, but there is some at %d", off, at, off+i)
		}
	}
	return nil
}

// FsxResult is what a random file must hold in the end.
type FsxResult struct {
	Ops  int
	Size int
	Sum  string // SHA-256
}

func (x *fsx) result() FsxResult {
	sum := sha256.Sum256(x.model)
	return FsxResult{Ops: x.ops, Size: len(x.model), Sum: hex.EncodeToString(sum[:])}
}

// verifyFsx compares a file with what its fsx had in memory at the end.
func verifyFsx(path string, want FsxResult) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(data) != want.Size {
		return fmt.Errorf("%d bytes, want %d", len(data), want.Size)
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != want.Sum {
		return errors.New("content differs")
	}
	return nil
}

// fsx does random operations on a file of its own until the end, and then compares all of it.
func (l *load) fsx(ctx context.Context, i int) (err error) {
	x, err := newFsx(l.own(fmt.Sprintf("fsx%d", i)), l.args.Seed+uint64(i), l.args.Sparse)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := x.close(); err == nil {
			err = closeErr
		}
	}()
	for ctx.Err() == nil {
		if err := x.step(); err != nil && !l.refused(err) {
			return err
		}
		pause(ctx, 5*time.Millisecond)
	}
	if err := x.finding(x.verify()); err != nil {
		return err
	}
	l.count(func(r *LoadResult) { r.Fsx[i] = x.result() })
	return nil
}
