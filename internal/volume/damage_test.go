package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"holdfast/internal/rpc"
	"holdfast/internal/store"
	"holdfast/internal/xdr"
)

// rottenStore is a Mem of which the read whose turn it is fails, and all after it.
type rottenStore struct {
	*store.Mem
	left int // reads until then; negative: none fails
}

func (s *rottenStore) read() error {
	switch {
	case s.left < 0:
		return nil
	case s.left == 0:
		return fmt.Errorf("test: %w", store.ErrUnreadable)
	}
	s.left--
	return nil
}

func (s *rottenStore) Get(key []byte) ([]byte, error) {
	if err := s.read(); err != nil {
		return nil, err
	}
	return s.Mem.Get(key)
}

func (s *rottenStore) Scan(lo, hi []byte, fn func(key, value []byte) bool) error {
	if err := s.read(); err != nil {
		return err
	}
	return s.Mem.Scan(lo, hi, fn)
}

func (s *rottenStore) ReadObject(id uint64, off int64, buf []byte) error {
	if err := s.read(); err != nil {
		return err
	}
	return s.Mem.ReadObject(id, off, buf)
}

func (s *rottenStore) SnapshotMeta() (store.MetaSnapshot, error) {
	snap, err := s.Mem.SnapshotMeta()
	return rottenSnapshot{snap, s}, err
}

// rottenSnapshot is one of a rottenStore.
type rottenSnapshot struct {
	store.MetaSnapshot
	s *rottenStore
}

func (f rottenSnapshot) Scan(lo, hi []byte, fn func(key, value []byte) bool) error {
	if err := f.s.read(); err != nil {
		return err
	}
	return f.MetaSnapshot.Scan(lo, hi, fn)
}

func (f rottenSnapshot) WriteTo(w io.Writer) (int64, error) {
	if err := f.s.read(); err != nil {
		return 0, err
	}
	return f.MetaSnapshot.WriteTo(w)
}

// contents is all metadata of a store.
func contents(t *testing.T, s store.Store) map[string]string {
	t.Helper()
	all := map[string]string{}
	if err := s.Scan([]byte{0}, []byte{0xff}, func(k, v []byte) bool { all[string(k)] = string(v); return true }); err != nil {
		t.Fatal(err)
	}
	return all
}

// told is what a volume has said of damage.
type told struct{ reads, stops int }

func (d *told) note(_ error, stops bool) {
	if stops {
		d.stops++
	} else {
		d.reads++
	}
}

// TestApplyDamaged lets each read fail, one after the other, of those that the entries of a log need: the replica stops there, without a trace of the entry in its
// metadata, and what it replied before is what the others replied.
func TestApplyDamaged(t *testing.T) {
	log, replies, _ := randomLog(t, 3, 400)
	whole := newReplica(t, store.NewMem())
	states := make([]map[string]string, 0, len(log)+1)
	states = append(states, contents(t, whole.store))
	for _, entry := range log {
		whole.apply(entry)
		states = append(states, contents(t, whole.store))
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	stopped := map[uint64]bool{}
	for n := 0; ; n += 1 + rnd.IntN(3) {
		s := &rottenStore{Mem: store.NewMem(), left: -1}
		r := newReplica(t, s)
		var damage told
		r.v.damaged = damage.note
		s.left = n
		var err error
		index := uint64(0)
		for err == nil && index < uint64(len(log)) {
			// As if the cache had forgotten it all.
			r.v.cache.clear()
			var reply []byte
			if reply, err = r.v.Apply(index+1, log[index]); err != nil {
				break
			}
			if !bytes.Equal(reply, replies[index]) {
				t.Fatalf("read %d: entry %d is answered with %x, want %x", n, index+1, reply, replies[index])
			}
			index++
		}
		if err == nil {
			break // there are no more reads
		}
		stopped[index+1] = true
		if !errors.Is(err, store.ErrUnreadable) || !r.v.Failed() || r.v.Applied() != index || damage != (told{stops: 1}) {
			t.Fatalf("read %d, in entry %d: %v; failed %t, applied %d, told %+v", n, index+1, err, r.v.Failed(), r.v.Applied(), damage)
		}
		if got := contents(t, s.Mem); !maps.Equal(got, states[index]) {
			t.Fatalf("read %d: entry %d left something in the metadata", n, index+1)
		}
	}
	if len(stopped) < len(log)/3 {
		t.Errorf("only %d of %d entries were stopped: %v", len(stopped), len(log), slices.Sorted(maps.Keys(stopped)))
	}
}

// TestReadDamaged meets damage in each of the ways that are not apply, and expects to be told.
func TestReadDamaged(t *testing.T) {
	s := &rottenStore{Mem: store.NewMem(), left: -1}
	h := newHarness(t, s)
	root := h.root()
	h.do(func(tx *Tx) {
		f := must(t)(tx.Create(nil, root, "f", TypeFile, CreateAttr{}))
		must(t)(tx.Write(nil, f, 0, make([]byte, InlineBytes+1)))
	})
	var damage told
	h.v.damaged = damage.note
	ctx := context.Background()
	digest := func(int) error {
		c, err := h.v.BeginChecksum()
		if err != nil {
			return err
		}
		_, _, err = c.Sum(ctx)
		return err
	}
	copying := func(n int) error {
		c, err := h.v.BeginCopy(0, func(*Piece) {})
		if err != nil {
			return err
		}
		defer func() { check(t, c.Close()) }()
		s.left = n
		nothing := func(*Piece) error { return nil }
		if err := c.Objects(ctx, nothing); err != nil {
			return err
		}
		if _, err := c.Finish(); err != nil {
			return err
		}
		return c.Metadata(ctx, nothing)
	}
	var e xdr.Encoder
	gone := errors.New("the receiver is gone")
	for _, tt := range []struct {
		name string
		do   func(n int) error
	}{
		{"read", func(int) error {
			h.fn = func(tx *Tx) {
				if _, errno := tx.Lookup(nil, root, "f"); errno != ErrIO {
					t.Errorf("lookup: %v", errno)
				}
			}
			var req Request
			if err := rpc.ParseCall(record(harnessProg, 1, 0, nil), &req.Call); err != nil {
				t.Fatal(err)
			}
			return h.v.Read(&req, &e)
		}},
		{"view", func(int) error {
			h.v.View(func(tx *Tx) { _, _ = tx.Lookup(nil, root, "f") })
			return store.ErrUnreadable
		}},
		{"digest", digest},
		{"checksum", func(int) error { _, _, err := h.v.Checksum(ctx); return err }},
		{"copy", copying},
		{"snapshot", func(int) error {
			snap, err := h.v.Snapshot(0)
			if err != nil {
				return err
			}
			defer func() { check(t, snap.Close()) }()
			_, err = snap.WriteTo(io.Discard)
			return err
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for n := range 2 {
				damage = told{}
				s.left = n
				h.v.cache.clear()
				err := tt.do(n)
				if n > 0 && s.left > 0 {
					break // it needs one read only
				}
				if !errors.Is(err, store.ErrUnreadable) || damage != (told{reads: 1}) {
					t.Errorf("read %d: %v, told %+v", n, err, damage)
				}
			}
			s.left = -1
		})
	}
	damage = told{}
	snap, err := h.v.Snapshot(0)
	check(t, err)
	if _, err := snap.WriteTo(writerFunc(func([]byte) (int, error) { return 0, gone })); !errors.Is(err, gone) || damage != (told{}) {
		t.Errorf("a receiver that is gone: %v, told %+v", err, damage)
	}
	check(t, snap.Close())
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
