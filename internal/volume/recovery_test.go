package volume

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"holdfast/internal/store"
)

func openDisk(t testing.TB, dir string) store.Store {
	t.Helper()
	s, err := store.Open(dir, store.Options{OpenFiles: 8, CacheBytes: 1 << 20, MemTableBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// randomLog makes a log of random operations, as a replica that saw all of them answered them: log[i] is entry i+1.
func randomLog(t testing.TB, seed uint64, length int) (log, replies [][]byte, r *replica) {
	r = newReplica(t, store.NewMem())
	g := newRandomOps(seed)
	for i := range length {
		var entry []byte
		switch i % 50 {
		case 7: // raft's own
		case 11:
			entry = (&Entry{Kind: EntryCommand, Payload: CommandPayload(opsProg, 2, []byte{byte(i)})}).Encode()
		case 13:
			entry = (&Entry{Kind: EntryExports, Payload: EncodeExports([]ExportSpec{{Path: "/x/y"}, {Path: "/a", Mode: 0o700}})}).Encode()
		case 17:
			entry = (&Entry{Kind: EntrySpace, Payload: SpacePayload(1<<40, 1<<30+uint64(i))}).Encode()
		case 19: // tight now and then, below what is used at times
			limit := uint64(0)
			if i/50%4 == 0 {
				limit = 64 << 10
			}
			entry = (&Entry{Kind: EntryLimit, Payload: LimitPayload(limit)}).Encode()
		default:
			c := g.next()
			entry = c.entry(int64(i))
			reply := r.apply(entry)
			g.seen(decodeResult(t, c.kind, reply))
			log, replies = append(log, entry), append(replies, reply)
			continue
		}
		log, replies = append(log, entry), append(replies, r.apply(entry))
	}
	return log, replies, r
}

func TestReplicasAgree(t *testing.T) {
	for seed := range uint64(4) {
		log, replies, a := randomLog(t, seed, 600)
		b := newReplica(t, openDisk(t, t.TempDir()))
		for i, entry := range log {
			if got := b.apply(append([]byte(nil), entry...)); !bytes.Equal(got, replies[i]) {
				t.Fatalf("entry %d: reply %x, want %x", i+1, got, replies[i])
			}
			if i == 300 {
				b.reopen()
			}
		}
		if a.checksum() != b.checksum() {
			t.Fatal("checksums differ")
		}
		b.apply((&Entry{Kind: EntrySpace, Payload: SpacePayload(1, 1)}).Encode())
		if a.checksum() == b.checksum() {
			t.Fatal("different states have the same checksum")
		}
		if err := b.store.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// recoverFrom brings a replica that crashed back to the end of its log.
func recoverFrom(r *replica, log [][]byte) {
	r.t.Helper()
	r.reopen()
	for i := r.v.ReplayFrom(); i <= r.v.Applied(); i++ {
		if err := r.v.Redo(i, log[i-1]); err != nil {
			r.t.Fatal(err)
		}
	}
}

func TestCrashAndRedo(t *testing.T) {
	ctx := context.Background()
	for seed := range uint64(25) {
		log, replies, want := randomLog(t, seed, 500)
		rnd := rand.New(rand.NewPCG(seed, 3))
		mem := store.NewMem()
		r := newReplica(t, mem)
		dropped := uint64(0) // the log is gone up to here
		for crashes := 0; r.v.Applied() < uint64(len(log)); {
			i := r.v.Applied()
			if reply := r.apply(log[i]); !bytes.Equal(reply, replies[i]) {
				t.Fatalf("seed %d, entry %d: reply %x, want %x", seed, i+1, reply, replies[i])
			}
			switch k := rnd.IntN(200); {
			case k < 4:
				var err error
				if dropped, err = r.v.Checkpoint(ctx); err != nil {
					t.Fatal(err)
				}
			case k == 4 && crashes < 6:
				crashes++
				mem.Crash(rnd)
				recoverFrom(r, log)
				if r.v.Applied() < dropped || r.v.ReplayFrom() <= dropped {
					t.Fatalf("seed %d: after the crash applied is %d, replay from %d, but the log is gone up to %d",
						seed, r.v.Applied(), r.v.ReplayFrom(), dropped)
				}
			}
		}
		mem.Crash(rnd)
		recoverFrom(r, log)
		for i := r.v.Applied(); i < uint64(len(log)); i++ {
			r.apply(log[i])
		}
		if r.checksum() != want.checksum() {
			t.Fatalf("seed %d: checksum differs from that of a replica that never crashed", seed)
		}
	}
}

// TestRedoIsNeeded makes sure that the crashes of the test above would be noticed.
func TestRedoIsNeeded(t *testing.T) {
	missed := 0
	for seed := range uint64(25) {
		log, _, want := randomLog(t, seed, 300)
		mem := store.NewMem()
		r := newReplica(t, mem)
		for _, entry := range log {
			r.apply(entry)
		}
		if err := mem.FlushMeta(context.Background()); err != nil {
			t.Fatal(err)
		}
		mem.Crash(rand.New(rand.NewPCG(seed, 3)))
		r.reopen()
		if r.checksum() != want.checksum() {
			missed++
		}
	}
	if missed < 5 {
		t.Errorf("only %d of 25 crashes lost data without Redo", missed)
	}
}

func TestSnapshotWhileApplying(t *testing.T) {
	for seed := range uint64(16) {
		log, replies, want := randomLog(t, seed, 500)
		rnd := rand.New(rand.NewPCG(seed, 5))
		leader := newReplica(t, store.NewMem())
		lagging := newReplica(t, store.NewMem())
		if seed%4 == 0 {
			lagging = newReplica(t, openDisk(t, t.TempDir()))
		}
		advance := func(r *replica, n int) {
			for ; n > 0 && r.v.Applied() < uint64(len(log)); n-- {
				i := r.v.Applied()
				if reply := r.apply(log[i]); !bytes.Equal(reply, replies[i]) {
					t.Fatalf("entry %d: reply %x, want %x", i+1, reply, replies[i])
				}
			}
		}
		advance(leader, 100+rnd.IntN(200))
		since := uint64(0)
		if seed%2 == 1 {
			advance(lagging, rnd.IntN(100))
			since = lagging.v.Applied()
		}
		snap, err := leader.v.Snapshot(since)
		if err != nil {
			t.Fatal(err)
		}
		var stream bytes.Buffer
		// Apply goes on between any two pieces of the snapshot.
		n, err := snap.WriteTo(writerFunc(func(p []byte) (int, error) {
			advance(leader, rnd.IntN(5))
			return stream.Write(p)
		}))
		if err != nil || n != int64(stream.Len()) {
			t.Fatalf("wrote %d of %d bytes: %v", n, stream.Len(), err)
		}
		if err := snap.Close(); err != nil {
			t.Fatal(err)
		}
		if err := lagging.v.Install(&stream); err != nil {
			t.Fatal(err)
		}
		if !lagging.v.Valid() || lagging.v.Applied() != snap.Index || lagging.v.ReplayFrom() != snap.Index+1 {
			t.Fatalf("after install of %d: valid %v, applied %d, replay from %d",
				snap.Index, lagging.v.Valid(), lagging.v.Applied(), lagging.v.ReplayFrom())
		}
		if mem, ok := lagging.store.(*store.Mem); ok {
			mem.Crash(rnd)
			recoverFrom(lagging, log)
		}
		if lagging.v.Applied() != snap.Index {
			t.Fatalf("a crash after install leaves %d applied, want %d", lagging.v.Applied(), snap.Index)
		}
		advance(lagging, len(log))
		if lagging.checksum() != want.checksum() {
			t.Fatalf("seed %d: checksum differs after a snapshot", seed)
		}
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestInstallFailure(t *testing.T) {
	log, _, leader := randomLog(t, 1, 300)
	snap, err := leader.v.Snapshot(0)
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	var whole bytes.Buffer
	if _, err := snap.WriteTo(&whole); err != nil {
		t.Fatal(err)
	}
	fresh := func() (*replica, *store.Mem) {
		mem := store.NewMem()
		r := newReplica(t, mem)
		for _, entry := range log[:50] {
			r.apply(entry)
		}
		return r, mem
	}
	r, _ := fresh()
	if err := r.v.Install(bytes.NewReader(whole.Bytes()[:10])); err == nil || r.v.Applied() != 50 || !r.v.Valid() {
		t.Fatalf("install of a bad header: %v, applied %d", err, r.v.Applied())
	}
	for cut := 30; cut < whole.Len(); cut += whole.Len() / 9 {
		r, mem := fresh()
		damaged := append([]byte(nil), whole.Bytes()...)
		damaged[cut] ^= 0x10
		if err := r.v.Install(bytes.NewReader(damaged)); err == nil {
			t.Fatalf("installed with byte %d of %d damaged", cut, whole.Len())
		}
		if err := r.v.Install(bytes.NewReader(whole.Bytes()[:cut])); err == nil {
			t.Fatalf("installed %d of %d bytes", cut, whole.Len())
		}
		mem.Crash(rand.New(rand.NewPCG(1, 1)))
		r.reopen()
		if r.v.Valid() || r.v.Applied() != 0 {
			t.Fatalf("after a failed install valid is %v, applied %d", r.v.Valid(), r.v.Applied())
		}
		if _, err := r.v.Apply(1, nil); !errors.Is(err, ErrInvalid) {
			t.Fatalf("apply on an invalid state: %v", err)
		}
		if _, err := r.v.Snapshot(0); !errors.Is(err, ErrInvalid) {
			t.Fatalf("snapshot of an invalid state: %v", err)
		}
		r.v.View(func(tx *Tx) {
			if _, errno := tx.Inode(RootIno, 0); errno != ErrStale {
				t.Fatalf("an invalid state shows its root: %v", errno)
			}
		})
		if err := r.v.Install(bytes.NewReader(whole.Bytes())); err != nil {
			t.Fatal(err)
		}
		r.v.hash = collidingHash
		if r.checksum() != leader.checksum() {
			t.Fatal("checksum differs after a second install")
		}
	}
}

func TestCheckpointWhileApplying(t *testing.T) {
	ctx := context.Background()
	log, _, want := randomLog(t, 3, 600)
	mem := store.NewMem()
	r := newReplica(t, mem)
	done := make(chan error)
	stop := make(chan struct{})
	go func() {
		for {
			if _, err := r.v.Checkpoint(ctx); err != nil {
				done <- err
				return
			}
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
		}
	}()
	for _, entry := range log {
		r.apply(entry)
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if index, err := r.v.Checkpoint(ctx); err != nil || index != uint64(len(log)) {
		t.Fatalf("checkpoint at %d: %v", index, err)
	}
	effects := 0
	err := mem.Scan([]byte{prefixEffects}, []byte{prefixEffects + 1}, func(_, _ []byte) bool { effects++; return true })
	if err != nil || effects > 0 {
		t.Fatalf("%d effects left after the checkpoint, %v", effects, err)
	}
	mem.Crash(rand.New(rand.NewPCG(1, 1)))
	r.reopen()
	if r.checksum() != want.checksum() {
		t.Fatal("checksum differs")
	}
}

// failingStore fails object writes.
type failingStore struct {
	store.Store
	err error
}

func (f *failingStore) WriteObject(id uint64, off int64, data []byte) error {
	if f.err != nil {
		return f.err
	}
	return f.Store.WriteObject(id, off, data)
}

func TestDiskErrorStopsApply(t *testing.T) {
	s := &failingStore{Store: store.NewMem()}
	h := newHarness(t, s)
	root := h.root()
	var f *Inode
	h.do(func(tx *Tx) { f = must(t)(tx.Create(nil, root, "f", TypeFile, CreateAttr{})) })
	before := h.v.Applied()
	s.err = errors.New("disk on fire")
	h.fn = func(tx *Tx) { must(t)(tx.Write(nil, f, 0, make([]byte, 10000))) }
	e := Entry{Kind: EntryCall, Payload: record(harnessProg, 1, 0, nil)}
	if _, err := h.v.Apply(before+1, e.Encode()); !errors.Is(err, s.err) {
		t.Fatalf("apply on a failing disk: %v", err)
	}
	if h.v.Applied() != before || h.current(f).Size != 0 {
		t.Fatal("an entry that failed left traces")
	}
	if !h.v.Failed() {
		t.Error("readers are not told that an entry was left half done")
	}
}
