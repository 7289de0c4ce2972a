package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"holdfast/internal/store"
	"holdfast/internal/volume"
)

func TestDamage(t *testing.T) {
	m := newMember(t, store.NewMem(), 2)
	m.advance(40)
	good, _ := m.backup(0)
	restore := func(b []byte) (store.Store, error) {
		s := store.NewMem()
		_, _, err := Restore(t.Context(), Target{Config: config(s), Now: 1e18}, bytes.NewReader(b))
		return s, err
	}
	step := max(1, len(good)/150)
	for at := 0; at < len(good); at += step {
		bad := bytes.Clone(good)
		bad[at] ^= 0x20
		s, err := restore(bad)
		if err == nil {
			t.Fatalf("restored with byte %d of %d damaged", at, len(good))
		}
		if at%(7*step) == 0 {
			wantNothing(t, fmt.Sprintf("byte %d damaged: %v", at, err), s, good)
		}
		s, err = restore(good[:at])
		if !errors.Is(err, ErrTruncated) {
			t.Fatalf("restored %d of %d bytes: %v", at, len(good), err)
		}
		if at%(7*step) == 0 {
			wantNothing(t, fmt.Sprintf("cut off at %d", at), s, good)
		}
		if _, err := Inspect(bytes.NewReader(good[:at]), int64(at)); err == nil {
			t.Fatalf("inspected %d of %d bytes", at, len(good))
		}
	}
	for _, test := range []struct {
		name string
		b    []byte
		want error
	}{
		{"something else", []byte("PK\x03\x04 and so on, for some bytes"), ErrNotBackup},
		{"something behind it", append(bytes.Clone(good), "tail"...), ErrNotBackup},
		{"twice", append(bytes.Clone(good), good...), ErrChain},
		{"of a newer release", withHeader(t, Header{Format: 2}), ErrTooNew},
	} {
		s, err := restore(test.b)
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
		wantNothing(t, test.name, s, good)
	}
	s := store.NewMem()
	newMember(t, s, 1)
	if _, _, err := Restore(t.Context(), Target{Config: config(s)}, bytes.NewReader(good)); !errors.Is(err, volume.ErrOccupied) {
		t.Errorf("restored over a volume: %v", err)
	}
}

// withHeader is the beginning of a backup.
func withHeader(t *testing.T, h Header) []byte {
	var b bytes.Buffer
	w := newWriter(&b)
	if err := errors.Join(w.begin(&h), w.w.Flush()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestCrashDuringRestore cuts the power at any step of a restore.
func TestCrashDuringRestore(t *testing.T) {
	m := newMember(t, store.NewMem(), 8)
	m.advance(80)
	first, s := m.backup(0)
	m.advance(40)
	second, _ := m.backup(s.Index)
	chain := append(bytes.Clone(first), second...)
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 30 {
		mem := store.NewMem()
		at := rnd.IntN(len(chain))
		_, _, err := Restore(t.Context(), Target{Config: config(mem), Now: 1e18}, io.MultiReader(bytes.NewReader(chain[:at]), crashing{mem, rnd}))
		if !errors.Is(err, errPower) {
			t.Fatal(err)
		}
		mem.Crash(rnd)
		wantNothing(t, fmt.Sprintf("power cut at byte %d of %d", at, len(chain)), mem, chain)
	}
	// After it has returned a crash loses nothing.
	mem := store.NewMem()
	v, _, err := Restore(t.Context(), Target{Config: config(mem), Now: 1e18}, bytes.NewReader(chain))
	if err != nil {
		t.Fatal(err)
	}
	_, want, err := v.Checksum(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	mem.Crash(rnd)
	if _, got, err := newMember(t, mem, 0).v.Checksum(context.Background()); err != nil || got != want {
		t.Errorf("a crash after the restore lost something: %v", err)
	}
}

var errPower = errors.New("the power failed")

// crashing is a reader at whose place the power fails.
type crashing struct {
	mem *store.Mem
	rnd *rand.Rand
}

func (c crashing) Read([]byte) (int, error) { return 0, errPower }

func TestChains(t *testing.T) {
	m := newMember(t, store.NewMem(), 9)
	folder := Folder(t.TempDir())
	save := func(since uint64) File {
		m.advance(20)
		b, _ := m.backup(since)
		file, err := folder.Save(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	full := save(0)
	a := save(full.Index)
	b := save(a.Index)
	c := save(a.Index) // another branch
	full2 := save(0)
	d := save(full2.Index)

	v, err := volume.Open(volume.Config{ID: 8, Name: "other", Store: store.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	other := &member{t: t, v: v}
	for i := range d.Index + 1 {
		if _, err := v.Apply(i+1, nil); err != nil {
			t.Fatal(err)
		}
	}
	stream, _ := other.backup(a.Index)
	foreign, err := folder.Save(bytes.NewReader(stream))
	if err != nil {
		t.Fatal(err)
	}

	for _, test := range []struct {
		name  string
		files []File
		want  string // in the error
	}{
		{"nothing", nil, "no file is named"},
		{"one", []File{full}, ""},
		{"chain", []File{full, a, b}, ""},
		{"branch", []File{full, a, c}, ""},
		{"gap", []File{full, b}, "what is between is missing"},
		{"wrong order", []File{full, a, b, a}, "wrong order"},
		{"of two branches", []File{full, a, b, c}, "wrong order"},
		{"not full", []File{a, b}, "the first one is not full"},
		{"two full ones", []File{full, full2}, "restore it alone"},
		{"another volume", []File{full, a, foreign}, "volume other"},
	} {
		wrong := func(err error) bool {
			return test.want == "" && err != nil || test.want != "" && (!errors.Is(err, ErrChain) || !strings.Contains(err.Error(), test.want))
		}
		var paths []string
		var stream bytes.Buffer
		for _, f := range test.files {
			b, err := os.ReadFile(f.Path)
			if err != nil {
				t.Fatal(err)
			}
			paths = append(paths, f.Path)
			stream.Write(b)
		}
		files, err := Files(paths...)
		if wrong(err) || err == nil && !slices.Equal(files, test.files) {
			t.Errorf("%s: %v, %v, want %q", test.name, files, err, test.want)
		}
		if len(paths) == 0 {
			continue
		}
		s := store.NewMem()
		if _, _, err := Restore(t.Context(), Target{Config: config(s), Now: 1e18}, &stream); wrong(err) {
			t.Errorf("%s: restored with %v, want %q", test.name, err, test.want)
		}
		if b, err := s.Get([]byte("xvalid")); test.want != "" && string(b) == "\x01" {
			t.Errorf("%s: a volume was made although the chain is wrong: %x, %v", test.name, b, err)
		}
	}

	for index, want := range map[uint64][]File{0: {full2, d}, c.Index: {full, a, c}, b.Index: {full, a, b}, full.Index: {full}} {
		got, err := folder.Chain("home", index)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("chain for %d: %v, %v, want %v", index, got, err, want)
		}
	}
	for _, name := range []string{"nobody", "other"} {
		if _, err := folder.Chain(name, 0); !errors.Is(err, ErrChain) {
			t.Errorf("a chain of volume %s: %v", name, err)
		}
	}
	if err := os.Truncate(d.Path, d.Bytes-1); err != nil {
		t.Fatal(err)
	}
	if _, err := folder.List("home"); !errors.Is(err, ErrTruncated) || !strings.Contains(err.Error(), filepath.Base(d.Path)) {
		t.Errorf("a file that is cut off: %v", err)
	}
}

func TestSaveRefuses(t *testing.T) {
	m := newMember(t, store.NewMem(), 10)
	m.advance(20)
	good, _ := m.backup(0)
	for name, b := range map[string][]byte{
		"cut off": good[:len(good)-1],
		"longer":  append(bytes.Clone(good), good...),
		"named like a path": func() []byte {
			var b bytes.Buffer
			w := newWriter(&b)
			h := Header{Format: formatVersion, Volume: "../x"}
			if err := errors.Join(w.begin(&h), w.end(&Summary{Index: 1})); err != nil {
				t.Fatal(err)
			}
			return b.Bytes()
		}(),
	} {
		dir := t.TempDir()
		if _, err := Folder(dir).Save(bytes.NewReader(b)); err == nil {
			t.Errorf("saved one that is %s", name)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
	}
}

func FuzzReader(f *testing.F) {
	var b bytes.Buffer
	w := newWriter(&b)
	h := Header{Format: formatVersion, Cluster: "c", Volume: "home", VolumeID: testVolume}
	err := w.begin(&h)
	for _, p := range []volume.Piece{
		{Kind: volume.PieceClear, Ino: 5}, {Kind: volume.PieceData, Ino: 5, Off: 4096, Data: []byte("data")},
		{Kind: volume.PiecePunch, Ino: 5, Off: 1, Length: 2}, {Kind: volume.PieceTruncate, Ino: 5, Off: 4097},
		{Kind: volume.PieceSet, Key: []byte("mexports"), Data: []byte{1}}, {Kind: volume.PieceDelete, Key: []byte("c"), Data: []byte("d")},
		{Kind: volume.PieceGone, Ino: 6, Length: 10},
	} {
		err = errors.Join(err, w.piece(&p))
	}
	if err = errors.Join(err, w.end(&Summary{Header: h, Index: 3})); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(b.Bytes()[:40])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		want, err := Verify(bytes.NewReader(b))
		if err == nil && want.Bytes == int64(len(b)) { // nothing follows
			if got, err := Inspect(bytes.NewReader(b), int64(len(b))); err != nil || got.Index != want.Index || got.Pieces != want.Pieces {
				t.Fatalf("inspected %+v, %v; it is %+v", got, err, want)
			}
		}
		s := store.NewMem()
		v, _, err := Restore(context.Background(), Target{Config: config(s), Now: 1e18}, bytes.NewReader(b))
		if err == nil && !v.Valid() {
			t.Fatal("restored an invalid volume")
		}
	})
}

func FuzzPiece(f *testing.F) {
	f.Add(byte(5), []byte{0, 0, 0, 1, 'k', 'v'})
	f.Add(byte(2), []byte{5, 0x80, 0x20, 0, 0, 'd', 'a', 't', 'a'})
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		var p, q volume.Piece
		if decodePiece(kind, body, &p) != nil {
			return
		}
		again := appendPiece(nil, &p)
		if err := decodePiece(again[0], again[recordHeadBytes:], &q); err != nil || q.Ino != p.Ino || q.Off != p.Off || q.Length != p.Length ||
			!bytes.Equal(q.Key, p.Key) || !bytes.Equal(q.Data, p.Data) || q.Kind != p.Kind {
			t.Fatalf("%+v became %+v, %v", p, q, err)
		}
		// Whatever a piece says, a Restorer takes or refuses it.
		r, err := volume.NewRestorer(store.NewMem())
		if err != nil {
			t.Fatal(err)
		}
		if p.Off < 1<<24 { // the store in memory zeroes what lies between
			_ = r.Put(&p)
		}
	})
}
