package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"holdfast/internal/store"
)

// copyLog is as randomLog, with more files that live longer.
func copyLog(t *testing.T, seed uint64, length int) (log [][]byte) {
	r, g := newReplica(t, store.NewMem()), newRandomOps(seed)
	for i := range length {
		c := g.next()
		c.name, c.name2 = fmt.Sprint(g.rnd.IntN(60)), fmt.Sprint(g.rnd.IntN(60))
		if (c.kind == opsRemove || c.kind == opsRename) && g.rnd.IntN(6) > 0 {
			c.kind = opsCreate
		}
		if c.kind == opsWriteFile && g.rnd.IntN(2) == 0 {
			c.off += 4096
		}
		entry := c.entry(int64(i))
		if i%40 == 7 {
			entry = nil
		}
		log = append(log, entry)
		if reply := r.apply(entry); entry != nil {
			g.seen(decodeResult(t, c.kind, reply))
		}
	}
	return log
}

// steppingStore calls step before an object is looked at from outside of apply.
type steppingStore struct {
	store.Store
	step    func()
	stepped bool // within step
}

func (s *steppingStore) do() {
	if s.step == nil || s.stepped {
		return
	}
	s.stepped = true
	s.step()
	s.stepped = false
}

func (s *steppingStore) SeekObject(id uint64, off int64, hole bool) (int64, error) {
	s.do()
	return s.Store.SeekObject(id, off, hole)
}

func (s *steppingStore) ReadObject(id uint64, off int64, buf []byte) error {
	s.do()
	if err := s.Store.ReadObject(id, off, buf[:len(buf)/2]); err != nil {
		return err
	}
	s.do() // in the middle of a piece
	return s.Store.ReadObject(id, off+int64(len(buf)/2), buf[len(buf)/2:])
}

// copyAll collects the pieces of a copy in which step happens between any two reads.
func copyAll(t *testing.T, r *replica, since uint64, page int) (pieces []Piece, index uint64) {
	t.Helper()
	ctx := context.Background()
	keep := func(p *Piece) error {
		k := *p
		k.Key, k.Data = bytes.Clone(p.Key), bytes.Clone(p.Data)
		pieces = append(pieces, k)
		return nil
	}
	var watched []Piece
	c, err := r.v.BeginCopy(since, func(p *Piece) {
		k := *p
		k.Data = bytes.Clone(p.Data)
		watched = append(watched, k)
	})
	if err != nil {
		t.Fatal(err)
	}
	c.page = page
	err = c.Objects(ctx, func(p *Piece) error {
		err := keep(p)
		pieces = append(pieces, watched...)
		watched = nil
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if index, err = c.Finish(); err != nil {
		t.Fatal(err)
	}
	pieces = append(pieces, watched...)
	r.store.(*steppingStore).do() // what happens now is not in the copy
	if err := c.Metadata(ctx, keep); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return pieces, index
}

func putAll(t *testing.T, r *Restorer, pieces []Piece, index uint64) {
	t.Helper()
	for i := range pieces {
		if err := r.Put(&pieces[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.EndPart(index); err != nil {
		t.Fatal(err)
	}
}

// digestsOf applies a log and returns the digest at each of the given indexes.
func digestsOf(t *testing.T, log [][]byte, at []uint64) []Digest {
	r := newReplica(t, store.NewMem())
	var out []Digest
	for _, index := range at {
		for r.v.Applied() < index {
			r.apply(log[r.v.Applied()])
		}
		out = append(out, r.checksum())
	}
	return out
}

// TestCopyIsOfOneIndex makes chains of copies of a volume that changes between any two reads, and compares what they restore with a replica that stopped there.
func TestCopyIsOfOneIndex(t *testing.T) {
	for seed := range uint64(12) {
		log := copyLog(t, seed, 900)
		rnd := rand.New(rand.NewPCG(seed, 11))
		s := &steppingStore{Store: store.NewMem()}
		if seed%4 == 3 {
			s.Store = openDisk(t, t.TempDir())
		}
		r := newReplica(t, s)
		advance := func(n int) {
			was := s.stepped
			s.stepped = true // apply reads objects as well
			for ; n > 0 && r.v.Applied() < uint64(len(log)); n-- {
				r.apply(log[r.v.Applied()])
			}
			s.stepped = was
		}
		advance(150 + rnd.IntN(200))
		s.step = func() { advance(rnd.IntN(4)) }
		var chain [][]Piece
		var indexes []uint64
		moved := 0
		for part := range 4 {
			since := uint64(0)
			if part > 0 {
				since = indexes[part-1]
				advance(20 + rnd.IntN(60))
			}
			before := r.v.Applied()
			pieces, index := copyAll(t, r, since, 1+rnd.IntN(20))
			if index > before {
				moved++
			}
			chain, indexes = append(chain, pieces), append(indexes, index)
		}
		if moved < 2 {
			t.Fatalf("seed %d: only %d copies were overtaken", seed, moved)
		}
		s.step = nil
		want := digestsOf(t, log, indexes)
		out, err := NewRestorer(store.NewMem())
		if err != nil {
			t.Fatal(err)
		}
		for i := range chain {
			putAll(t, out, chain[i], indexes[i])
			if got, err := out.Checksum(context.Background()); err != nil || got != want[i] {
				t.Fatalf("seed %d: part %d at %d restores something else (%v)", seed, i, indexes[i], err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCopyNeedsWhatIsWatched makes sure that the test above would notice if changes were not watched.
func TestCopyNeedsWhatIsWatched(t *testing.T) {
	missed := 0
	for seed := range uint64(8) {
		log := copyLog(t, seed, 700)
		rnd := rand.New(rand.NewPCG(seed, 11))
		s := &steppingStore{Store: store.NewMem()}
		r := newReplica(t, s)
		advance := func(n int) {
			was := s.stepped
			s.stepped = true // apply reads objects as well
			for ; n > 0 && r.v.Applied() < uint64(len(log)); n-- {
				r.apply(log[r.v.Applied()])
			}
			s.stepped = was
		}
		advance(300)
		s.step = func() { advance(rnd.IntN(8)) }
		ctx := context.Background()
		out, err := NewRestorer(store.NewMem())
		if err != nil {
			t.Fatal(err)
		}
		c, err := r.v.BeginCopy(0, func(*Piece) {})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Objects(ctx, out.Put); err != nil {
			t.Fatal(err)
		}
		index, err := c.Finish()
		if err == nil {
			err = c.Metadata(ctx, out.Put)
		}
		if err = errors.Join(err, c.Close(), out.EndPart(index)); err != nil {
			t.Fatal(err)
		}
		s.step = nil
		if sum, err := out.Checksum(ctx); err != nil || sum != digestsOf(t, log, []uint64{index})[0] {
			missed++
		}
	}
	if missed < 4 {
		t.Errorf("only %d of 8 copies lack what was not watched", missed)
	}
}

func TestCopyRefusals(t *testing.T) {
	h := newHarness(t, store.NewMem())
	root := h.root()
	h.do(func(tx *Tx) { must(t)(tx.Create(nil, root, "f", TypeFile, CreateAttr{})) })
	if _, err := h.v.BeginCopy(2, nil); !errors.Is(err, ErrNotInHistory) {
		t.Errorf("a copy that continues the future: %v", err)
	}
	c, err := h.v.BeginCopy(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.v.BeginCopy(0, nil); !errors.Is(err, ErrCopyBusy) {
		t.Errorf("a second copy: %v", err)
	}
	snap, err := h.v.Snapshot(0)
	if err != nil {
		t.Fatal(err)
	}
	var stream bytes.Buffer
	if _, err := snap.WriteTo(&stream); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(snap.Close(), h.v.Install(&stream)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Finish(); !errors.Is(err, ErrCopyLost) {
		t.Errorf("finished a copy of a state that is gone: %v", err)
	}
	if err := c.Objects(context.Background(), nil); !errors.Is(err, ErrCopyLost) {
		t.Errorf("went on with a copy of a state that is gone: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if c, err = h.v.BeginCopy(0, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := NewRestorer(h.store); !errors.Is(err, ErrOccupied) {
		t.Errorf("restore over a volume: %v", err)
	}
}

func TestRestorerRefusesPieces(t *testing.T) {
	r, err := NewRestorer(store.NewMem())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []Piece{
		{Kind: 99},
		{Kind: PieceSet, Key: keyValid, Data: []byte{1}},
		{Kind: PieceSet, Key: effectsKey(1)},
		{Kind: PieceSet},
		{Kind: PieceDelete, Key: inodeKey(1)},
		{Kind: PieceDelete, Key: inodeKey(1), Data: []byte{0xff}},
		{Kind: PieceGone, Ino: 5, Length: ^uint64(0)},
		{Kind: PieceData, Off: 1 << 63, Data: []byte{1}},
		{Kind: PieceTruncate, Off: 1 << 63},
		{Kind: PiecePunch, Off: 5, Length: 1<<63 - 3},
	} {
		if err := r.Put(&p); !errors.Is(err, ErrBadPiece) {
			t.Errorf("%+v: %v", p, err)
		}
	}
	if err := r.EndPart(1); err == nil {
		t.Error("ended a part without a state")
	}
	if _, err := r.Finish(Config{}, 0, 0); !errors.Is(err, ErrBadPiece) {
		t.Errorf("finished without a part: %v", err)
	}
}

// TestRestoredVolume follows a volume into its next life.
func TestRestoredVolume(t *testing.T) {
	const now = 1_800_000_000e9
	s := &steppingStore{Store: store.NewMem()}
	r := newReplica(t, s)
	log := copyLog(t, 5, 400)
	for _, entry := range log {
		r.apply(entry)
	}
	pieces, backup := copyAll(t, r, 0, 10)
	mem := store.NewMem()
	out, err := NewRestorer(mem)
	if err != nil {
		t.Fatal(err)
	}
	putAll(t, out, pieces, backup)
	cfg := Config{ID: 7, Name: "test", Store: mem, Programs: []Program{&opsProgram{}}}
	if v, err := Open(cfg); err != nil || v.Valid() || v.Applied() != 0 {
		t.Fatalf("an unfinished restore opens as a volume: %v", err)
	}
	v, err := out.Finish(cfg, now, 1)
	if err != nil {
		t.Fatal(err)
	}
	restored := uint64(now/1e9) << lifeBits
	if v.Applied() != restored || !v.Valid() || v.ReplayFrom() != restored+1 || len(v.Clients()) != 0 {
		t.Fatalf("valid %v at %d, replay from %d, %d clients", v.Valid(), v.Applied(), v.ReplayFrom(), len(v.Clients()))
	}
	mem.Crash(rand.New(rand.NewPCG(1, 1)))
	next := newReplica(t, mem)
	if next.v.Applied() != restored {
		t.Fatalf("after a crash it is at %d", next.v.Applied())
	}
	// The other members get it by a snapshot.
	other := newReplica(t, store.NewMem())
	snap, err := next.v.Snapshot(0)
	if err != nil {
		t.Fatal(err)
	}
	var stream bytes.Buffer
	if _, err := snap.WriteTo(&stream); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(snap.Close(), other.v.Install(&stream)); err != nil {
		t.Fatal(err)
	}
	other.v.hash = collidingHash
	// An inode number that the former life gave out after the backup comes again, with another generation.
	made := func(r *replica) *Inode {
		c := opsCall{kind: opsCreate, dir: RootIno, name: "new in this life"}
		return decodeResult(t, c.kind, r.apply(c.entry(now))).n
	}
	a, b, c := made(r), made(next), made(other)
	if a.Ino != b.Ino || a.Gen == b.Gen || *b != *c || b.Change != restored+1 {
		t.Errorf("former life %+v, this one %+v and %+v", a, b, c)
	}
	if next.checksum() != other.checksum() {
		t.Error("checksums differ")
	}
	// Chains go on from before the backup, or from after the restore, not from between.
	for since, want := range map[uint64]error{0: nil, backup - 1: nil, backup: nil, backup + 1: ErrNotInHistory, restored - 1: ErrNotInHistory, restored: nil} {
		c, err := next.v.BeginCopy(since, nil)
		if !errors.Is(err, want) {
			t.Errorf("a copy since %d: %v, want %v", since, err, want)
		}
		if err == nil {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestRestoredIndex(t *testing.T) {
	for _, test := range []struct {
		applied uint64
		now     int64
		want    uint64
	}{
		{100, 1_800_000_000e9, 1_800_000_000 << 24},
		{1_800_000_000<<24 + 5, 1_800_000_000e9, 1_800_000_001 << 24}, // restored twice within a second
		{100, -1, 1 << 24},
		{0, 0, 1 << 24},
	} {
		if got := restoredIndex(test.applied, test.now); got != test.want || got <= test.applied {
			t.Errorf("restoredIndex(%d, %d) = %d, want %d", test.applied, test.now, got, test.want)
		}
	}
	seen := []uint32{generation(1), generation(1_800_000_000 << 24), generation(1_800_000_001 << 24)}
	if seen[0] != 1 || len(slices.Compact(slices.Sorted(slices.Values(seen)))) != 3 {
		t.Errorf("generations %v", seen)
	}
}

func TestWaitApplied(t *testing.T) {
	r := newReplica(t, store.NewMem())
	done := make(chan error, 1)
	go func() { done <- r.v.WaitApplied(context.Background(), 3) }()
	for range 3 {
		select {
		case err := <-done:
			t.Fatalf("waited for entry 3 until %d: %v", r.v.Applied(), err)
		default:
		}
		r.apply(nil)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := r.v.WaitApplied(context.Background(), 2); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := r.v.WaitApplied(ctx, 100); !errors.Is(err, context.DeadlineExceeded) || len(r.v.waiting) != 0 {
		t.Fatalf("%v, %d wait", err, len(r.v.waiting))
	}
}
