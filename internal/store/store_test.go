package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

func openDisk(t testing.TB, dir string) *Disk {
	t.Helper()
	d, err := Open(dir, Options{OpenFiles: 4})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// dump lists all pairs.
func dump(t testing.TB, scan func(lo, hi []byte, fn func(k, v []byte) bool) error) []string {
	t.Helper()
	var all []string
	check(t, scan(nil, nil, func(k, v []byte) bool {
		all = append(all, fmt.Sprintf("%x=%x", k, v))
		return true
	}))
	return all
}

func randomBatch(rnd *rand.Rand) *Batch {
	var b Batch
	key := func() []byte { return binary.BigEndian.AppendUint16(nil, uint16(rnd.IntN(300))) }
	for range 1 + rnd.IntN(4) {
		switch rnd.IntN(8) {
		default:
			b.Set(key(), binary.BigEndian.AppendUint64(nil, rnd.Uint64())[:rnd.IntN(9)])
		case 5, 6:
			b.Delete(key())
		case 7:
			lo := key()
			hi := binary.BigEndian.AppendUint16(nil, binary.BigEndian.Uint16(lo)+uint16(rnd.IntN(10)))
			b.DeleteRange(lo, hi)
		}
	}
	return &b
}

// objectSizes are offsets around which things go wrong: pages, chunks, the end of what off_t can say.
func randomOffset(rnd *rand.Rand) int64 {
	base := []int64{0, 0, 4096, 40960, chunkBytes, 3 * chunkBytes}[rnd.IntN(6)]
	return max(0, base+int64(rnd.IntN(20000))-10000)
}

func randomObjectChange(rnd *rand.Rand, stores ...Store) error {
	id, off, length := uint64(1+rnd.IntN(6)), randomOffset(rnd), int64(1+rnd.IntN(9000))
	data := make([]byte, length)
	for i := range data {
		data[i] = byte(rnd.Uint32())
	}
	kind := rnd.IntN(10)
	for _, s := range stores {
		var err error
		switch kind {
		default:
			err = s.WriteObject(id, off, data)
		case 5:
			err = s.TruncateObject(id, off)
		case 6:
			err = s.PunchObject(id, off, length)
		case 7:
			err = s.AllocateObject(id, off, length)
		case 8:
			err = s.RemoveObject(id)
		case 9:
			err = s.TruncateObject(id, 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func compareObjects(t *testing.T, a, b Store, rnd *rand.Rand) {
	t.Helper()
	for id := uint64(1); id < 7; id++ {
		x, y := make([]byte, 12000), make([]byte, 12000)
		off := randomOffset(rnd)
		check(t, a.ReadObject(id, off, x))
		check(t, b.ReadObject(id, off, y))
		if !bytes.Equal(x, y) {
			t.Fatalf("object %d differs at %d", id, off)
		}
		for _, size := range []int64{5000, chunkBytes + 5000, 5 * chunkBytes} {
			sx, err := a.ObjectChecksum(context.Background(), id, size)
			check(t, err)
			sy, err := b.ObjectChecksum(context.Background(), id, size)
			check(t, err)
			if sx != sy {
				t.Fatalf("checksum of object %d to %d is %x and %x", id, size, sx, sy)
			}
		}
	}
}

func TestMemAndDiskAgree(t *testing.T) {
	dir := t.TempDir()
	d, m := openDisk(t, dir), NewMem()
	defer func() { check(t, d.Close()) }()
	rnd := newRand(1)
	for i := range 3000 {
		b := randomBatch(rnd)
		check(t, m.Commit(b))
		check(t, d.Commit(b))
		check(t, randomObjectChange(rnd, m, d))
		switch rnd.IntN(60) {
		case 0:
			compareObjects(t, m, d, rnd)
		case 1:
			if x, y := dump(t, m.Scan), dump(t, d.Scan); !slices.Equal(x, y) {
				t.Fatalf("after %d batches: %v and %v", i, x, y)
			}
		case 2:
			key := binary.BigEndian.AppendUint16(nil, uint16(rnd.IntN(300)))
			x, errX := m.Get(key)
			y, errY := d.Get(key)
			if !bytes.Equal(x, y) || errors.Is(errX, ErrNotFound) != errors.Is(errY, ErrNotFound) {
				t.Fatalf("get %x: %x %v and %x %v", key, x, errX, y, errY)
			}
		case 3:
			check(t, d.SyncObjects(context.Background()))
			check(t, d.FlushMeta(context.Background()))
		case 4:
			check(t, d.Close())
			d = openDisk(t, dir)
		}
	}
	compareObjects(t, m, d, rnd)
	for _, s := range []Store{m, d} {
		for id := range uint64(7) {
			check(t, s.RemoveObject(id))
		}
		check(t, s.ListObjects(func(id uint64) bool {
			t.Errorf("%T: object %d is still there", s, id)
			return true
		}))
	}
}

// TestStreamsInterchange installs the stream of each kind of store in each.
func TestStreamsInterchange(t *testing.T) {
	ctx := context.Background()
	rnd := newRand(2)
	for _, pair := range [][2]string{{"mem", "disk"}, {"disk", "mem"}, {"disk", "disk"}} {
		open := func(kind, dir string) Store {
			if kind == "mem" {
				return NewMem()
			}
			return openDisk(t, dir)
		}
		toDir := t.TempDir()
		from, to := open(pair[0], t.TempDir()), open(pair[1], toDir)
		for range 2000 {
			check(t, from.Commit(randomBatch(rnd)))
			check(t, to.Commit(randomBatch(rnd)))
		}
		before := dump(t, to.Scan)
		old, err := to.SnapshotMeta()
		check(t, err)
		snap, err := from.SnapshotMeta()
		check(t, err)
		want := dump(t, from.Scan)
		check(t, from.Commit(randomBatch(rnd)))
		var stream bytes.Buffer
		n, err := snap.WriteTo(&stream)
		check(t, err)
		if n != int64(stream.Len()) {
			t.Fatalf("WriteTo says %d bytes, wrote %d", n, stream.Len())
		}
		whole := append([]byte(nil), stream.Bytes()...)
		for _, cut := range []int{0, 7, 20, len(whole) / 2, len(whole) - 1} {
			if err := to.InstallMeta(bytes.NewReader(whole[:cut]), &Batch{}); err == nil {
				t.Fatalf("installed %d of %d bytes", cut, len(whole))
			}
		}
		flipped := append([]byte(nil), whole...)
		flipped[len(flipped)/2] ^= 1
		if err := to.InstallMeta(bytes.NewReader(flipped), &Batch{}); !errors.Is(err, ErrBadStream) {
			t.Fatalf("damaged stream: %v", err)
		}
		if got := dump(t, to.Scan); !slices.Equal(got, before) {
			t.Fatal("an install that failed changed something")
		}
		var last Batch
		last.Set([]byte{0xff, 0xff}, []byte("last"))
		stream.WriteString("what follows")
		check(t, to.InstallMeta(&stream, &last))
		if stream.String() != "what follows" {
			t.Errorf("%v: read beyond the stream", pair)
		}
		want = append(want, fmt.Sprintf("ffff=%x", "last"))
		if got := dump(t, to.Scan); !slices.Equal(got, want) {
			t.Errorf("%v: installed %v, want %v", pair, got, want)
		}
		if got := dump(t, old.Scan); !slices.Equal(got, before) {
			t.Errorf("%v: a snapshot from before does not read the old state", pair)
		}
		check(t, old.Close())
		check(t, snap.Close())
		check(t, to.Close())
		if pair[1] == "disk" {
			to = openDisk(t, toDir)
			if got := dump(t, to.Scan); !slices.Equal(got, want) {
				t.Errorf("%v: after reopening %v", pair, got)
			}
			check(t, to.FlushMeta(ctx))
			check(t, to.Close())
		}
		check(t, from.Close())
	}
}

// TestMemCrash checks both promises of a crash: the metadata is that after some commit since the flush, and every page of an object holds
// something that was written to it since the sync.
func TestMemCrash(t *testing.T) {
	ctx := context.Background()
	for seed := range uint64(50) {
		rnd := newRand(seed)
		m := NewMem()
		var states [][]string
		for i := range 60 {
			check(t, m.Commit(randomBatch(rnd)))
			states = append(states, dump(t, m.Scan))
			check(t, m.WriteObject(1, 0, bytes.Repeat([]byte{byte(i + 1)}, 100)))
			if i == 30 {
				check(t, m.FlushMeta(ctx))
				check(t, m.SyncObjects(ctx))
			}
		}
		m.Crash(rnd)
		got := dump(t, m.Scan)
		at := slices.IndexFunc(states, func(s []string) bool { return slices.Equal(s, got) })
		if at < 0 {
			t.Fatal("metadata is no prefix of the commits")
		}
		if last := lastIndexFunc(states, func(s []string) bool { return slices.Equal(s, got) }); last < 30 {
			t.Fatalf("metadata of commit %d: flushed batches are gone", last)
		}
		page := make([]byte, 100)
		check(t, m.ReadObject(1, 0, page))
		for _, b := range page {
			if b < 31 {
				t.Fatalf("byte %d: synced data is gone", b)
			}
		}
	}
}

func lastIndexFunc[T any](s []T, fn func(T) bool) int {
	for i := len(s) - 1; i >= 0; i-- {
		if fn(s[i]) {
			return i
		}
	}
	return -1
}

// TestDiskCrashLeavesPrefix cuts the power of Pebble's file system at random moments.
func TestDiskCrashLeavesPrefix(t *testing.T) {
	ctx := context.Background()
	opt := Options{MemTableBytes: 256 << 10, CacheBytes: 1 << 20}.withDefaults()
	for seed := range uint64(12) {
		rnd := newRand(seed)
		fs := vfs.NewCrashableMem()
		m, err := openMetadata(fs, "meta", opt)
		check(t, err)
		syncRoot(t, fs)
		flushed, count := 0, 200+rnd.IntN(1500)
		for i := 1; i <= count; i++ {
			var b Batch
			b.Set([]byte("count"), binary.BigEndian.AppendUint32(nil, uint32(i)))
			b.Set(binary.BigEndian.AppendUint32([]byte("key"), uint32(i)), bytes.Repeat([]byte{byte(i)}, 500))
			check(t, m.Commit(&b))
			if rnd.IntN(300) == 0 {
				check(t, m.FlushMeta(ctx))
				flushed = i
			}
		}
		crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: newRand(seed)})
		check(t, m.close())
		after, err := openMetadata(crashed, "meta", opt)
		check(t, err)
		kept := 0
		if v, err := after.Get([]byte("count")); err == nil {
			kept = int(binary.BigEndian.Uint32(v))
		}
		if kept < flushed || kept > count {
			t.Fatalf("seed %d: %d of %d batches are there, %d were flushed", seed, kept, count, flushed)
		}
		for i := 1; i <= count; i++ {
			_, err := after.Get(binary.BigEndian.AppendUint32([]byte("key"), uint32(i)))
			if (err == nil) != (i <= kept) {
				t.Fatalf("seed %d: batch %d of %d kept: %v", seed, i, kept, err)
			}
		}
		check(t, after.close())
	}
}

// syncRoot does what Open does for the folder of the store.
func syncRoot(t *testing.T, fs vfs.FS) {
	root, err := fs.OpenDir("/")
	check(t, err)
	check(t, root.Sync())
	check(t, root.Close())
}

// TestInstallCrash cuts the power in the middle of an install and right after it.
func TestInstallCrash(t *testing.T) {
	opt := Options{MemTableBytes: 256 << 10, CacheBytes: 1 << 20}.withDefaults()
	source := NewMem()
	for i := range 3000 {
		var b Batch
		b.Set(binary.BigEndian.AppendUint32(nil, uint32(i)), bytes.Repeat([]byte{'n'}, 400))
		check(t, source.Commit(&b))
	}
	snap, err := source.SnapshotMeta()
	check(t, err)
	var stream bytes.Buffer
	_, err = snap.WriteTo(&stream)
	check(t, err)
	for seed := range uint64(8) {
		fs := vfs.NewCrashableMem()
		m, err := openMetadata(fs, "meta", opt)
		check(t, err)
		syncRoot(t, fs)
		var b Batch
		b.Set([]byte("old"), nil)
		check(t, m.Commit(&b))
		check(t, m.FlushMeta(context.Background()))

		var crashed *vfs.MemFS
		crash := func() {
			if crashed == nil {
				crashed = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: newRand(seed)})
			}
		}
		at := int(seed) * stream.Len() / 7
		r := &hookReader{r: bytes.NewReader(stream.Bytes()), at: at, hook: crash}
		check(t, m.InstallMeta(r, &Batch{}))
		crash()
		check(t, m.close())
		after, err := openMetadata(crashed, "meta", opt)
		check(t, err)
		keys := 0
		check(t, after.Scan(nil, nil, func(k, _ []byte) bool { keys++; return true }))
		want := 1
		if at >= stream.Len() {
			want = 3000
		}
		if keys != want {
			t.Errorf("crash at byte %d of %d: %d keys, want %d", at, stream.Len(), keys, want)
		}
		check(t, after.close())
	}
}

// hookReader calls hook before the read that follows byte at.
type hookReader struct {
	r    *bytes.Reader
	at   int
	hook func()
}

func (h *hookReader) Read(p []byte) (int, error) {
	if int(h.r.Size())-h.r.Len() >= h.at && h.r.Len() > 0 {
		h.hook()
	}
	return h.r.Read(p)
}

func TestCRCZeros(t *testing.T) {
	rnd := newRand(3)
	for range 200 {
		data := make([]byte, rnd.IntN(50))
		for i := range data {
			data[i] = byte(rnd.Uint32())
		}
		n := rnd.IntN(5000)
		got := crcZeros(crc32.Checksum(data, castagnoli), int64(n))
		if want := crc32.Checksum(append(data, make([]byte, n)...), castagnoli); got != want {
			t.Fatalf("%d bytes and %d zeros: %x, want %x", len(data), n, got, want)
		}
	}
}

func TestSeekObject(t *testing.T) {
	d := openDisk(t, t.TempDir())
	defer d.Close()
	for _, s := range []Store{NewMem(), d} {
		check(t, s.WriteObject(1, 1<<20, make([]byte, 8192)))
		check(t, s.WriteObject(1, 2*chunkBytes+1<<20, []byte("x")))
		tests := []struct {
			off  int64
			hole bool
			want int64
		}{
			{0, false, 1 << 20},
			{0, true, 0},
			{1 << 20, true, 1<<20 + 8192},
			{1<<20 + 5000, false, 1<<20 + 5000},
			{1<<20 + 8192, false, 2*chunkBytes + 1<<20},
			{chunkBytes + 5, true, chunkBytes + 5},
			{2*chunkBytes + 1<<20, true, 2*chunkBytes + 1<<20 + 1},
			{2*chunkBytes + 1<<20 + 1, true, -1},
			{2*chunkBytes + 1<<20 + 1, false, -1},
		}
		for _, test := range tests {
			got, err := s.SeekObject(1, test.off, test.hole)
			if errors.Is(err, ErrNoData) {
				got, err = -1, nil
			}
			check(t, err)
			if got != test.want {
				t.Errorf("%T: seek from %d, hole %v: %d, want %d", s, test.off, test.hole, got, test.want)
			}
		}
	}
}

// TestTrashIsEmptied waits for what it looks at: a closed store has let its trash goroutine end.
func TestTrashIsEmptied(t *testing.T) {
	d := openDisk(t, t.TempDir())
	for id := range uint64(600) {
		check(t, d.WriteObject(id, 0, []byte("x")))
		check(t, d.RemoveObject(id))
	}
	d.trash.empty()
	names, err := vfs.Default.List(d.trash.dir)
	check(t, err)
	if len(names) > 0 {
		t.Errorf("%d files left in the trash", len(names))
	}
	check(t, d.Close())
}

func FuzzReadStream(f *testing.F) {
	m := NewMem()
	for i := range 100 {
		check(f, m.Commit(&Batch{Ops: []Op{{OpSet, []byte{byte(i)}, bytes.Repeat([]byte{1}, i)}}}))
	}
	snap, _ := m.SnapshotMeta()
	var b bytes.Buffer
	_, err := snap.WriteTo(&b)
	check(f, err)
	f.Add(b.Bytes())
	f.Add([]byte(streamMagic + "\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		total := 0
		_ = readStream(bytes.NewReader(stream), func(k, v []byte) error {
			total += len(k) + len(v)
			return nil
		})
		if total > len(stream) {
			t.Fatalf("%d bytes of pairs out of %d", total, len(stream))
		}
	})
}

func TestMemFlipObject(t *testing.T) {
	ctx := context.Background()
	m := NewMem()
	if err := errors.Join(m.WriteObject(1, 0, []byte("abcd")), m.SyncObjects(ctx)); err != nil {
		t.Fatal(err)
	}
	if m.FlipObject(2, 0, 0) || m.FlipObject(1, 4, 0) || !m.FlipObject(1, 1, 0) {
		t.Error("a bit flips where nothing is, or none where something is")
	}
	read := func(want string) {
		t.Helper()
		got := make([]byte, 4)
		if err := m.ReadObject(1, 0, got); err != nil || string(got) != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	read("accd")
	m.Crash(rand.New(rand.NewPCG(1, 1)))
	read("accd")
	if err := m.WriteObject(1, 1, []byte("b")); err != nil {
		t.Fatal(err)
	}
	read("abcd")
}
