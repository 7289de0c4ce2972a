package wal

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"holdfast/internal/vfs"
)

// damageLog builds a log of some segments with frames of many kinds; always the same one.
func damageLog(t *testing.T, closed bool) (*vfs.Sim, Options, *model) {
	t.Helper()
	fsys := vfs.NewSim(1)
	opts := testOptions(newRand(1))
	opts.CacheBytes = -1
	l := mustOpen(t, fsys, opts)
	m := newModel()
	for i := uint64(1); i <= 30; i++ {
		entries := span(i, i+2, i, int(i*37%1500))
		m.append(entries)
		m.hard = raftpb.HardState{Term: i, Vote: 1, Commit: i - 1}
		must(t, l.Append(Batch{Entries: entries, HardState: m.hard}))
		m.hard.Commit = i
		must(t, l.Append(Batch{HardState: m.hard, NoSync: true}))
	}
	m.first, m.trunc = 5, 4
	must(t, l.TruncatePrefix(4))
	must(t, l.Append(Batch{Entries: span(33, 33, 30, 100)}))
	m.append(span(33, 33, 30, 100))
	if closed {
		must(t, l.Close())
	}
	return fsys, opts, m
}

// usedBytes returns where the frames of a segment end, and the last one.
func usedBytes(t *testing.T, fsys vfs.FS, name string) (end int64, last frameHeader) {
	t.Helper()
	f, err := fsys.Open(name)
	must(t, err)
	defer f.Close()
	b := make([]byte, segmentFieldBytes)
	_, err = f.ReadAt(b, 0)
	must(t, err)
	h, err := decodeSegmentHeader(b)
	must(t, err)
	sc := scanner{file: f, size: h.size, salt: h.salt}
	for end = segmentHeaderBytes; ; {
		fh, _, ok, err := sc.frame(end)
		must(t, err)
		if !ok {
			return end, last
		}
		last = fh
		end += fh.length
	}
}

func segmentFiles(t *testing.T, fsys vfs.FS) []string {
	t.Helper()
	names, err := fsys.List(testDir)
	must(t, err)
	var out []string
	for _, name := range names {
		if strings.HasSuffix(name, segmentSuffix) {
			out = append(out, path.Join(testDir, name))
		}
	}
	return out
}

// TestFlippedBits flips a bit of nearly every byte that was synced: either the log says that it is damaged, or nothing that it holds is different.
// Only what the last sync made durable may be taken for torn, if the log was not closed.
func TestFlippedBits(t *testing.T) {
	for _, closed := range []bool{true, false} {
		t.Run(fmt.Sprintf("closed=%v", closed), func(t *testing.T) {
			fsys, opts, want := damageLog(t, closed)
			rnd := newRand(2)
			files := segmentFiles(t, fsys)
			if len(files) < 3 {
				t.Fatalf("only %d segments", len(files))
			}
			found, harmless := 0, 0
			for k, name := range files {
				end, last := usedBytes(t, fsys, name)
				if !closed && k == len(files)-1 {
					end = last.synced
				}
				for off := int64(0); off < end; off += 1 + rnd.Int64N(12) {
					if off >= segmentFieldBytes && off < segmentHeaderBytes {
						off = segmentHeaderBytes // the rest of the page is not used
					}
					bit := uint(rnd.IntN(8))
					must(t, fsys.FlipBit(name, off, bit))
					l, err := Open(fsys, testDir, opts)
					if err == nil {
						if err = want.matches(l); err == nil {
							harmless++
							must(t, l.Close())
							fsys, opts, want = damageLog(t, closed)
							continue
						}
					}
					if ve := (*VersionError)(nil); !errors.Is(err, ErrCorrupt) && !errors.As(err, &ve) {
						t.Fatalf("%s, offset %d, bit %d: %v", name, off, bit, err)
					}
					found++
					must(t, fsys.FlipBit(name, off, bit))
				}
			}
			// Harmless are paddings and, if closed, the frame that Close wrote.
			if found < 50*harmless {
				t.Errorf("found %d, harmless %d", found, harmless)
			}
		})
	}
}

func TestFlippedBitIsFoundOnRead(t *testing.T) {
	fsys := vfs.NewSim(1)
	opts := testOptions(newRand(1))
	opts.CacheBytes = -1
	l := mustOpen(t, fsys, opts)
	must(t, l.Append(Batch{Entries: span(1, 3, 1, 500)}))
	name := segmentFiles(t, fsys)[0]
	must(t, fsys.FlipBit(name, segmentHeaderBytes+frameHeaderBytes+3*descriptorBytes+600, 3))
	if _, err := l.Entries(1, 2, 1000); err != nil {
		t.Errorf("Entries before the damage: %v", err)
	}
	_, err := l.Entries(1, 4, 5000)
	var bad *CorruptError
	if !errors.As(err, &bad) || bad.File != name || !strings.Contains(err.Error(), "rebuilt from its peers") {
		t.Errorf("Entries across the damage: %v", err)
	}
	fsys.AddFault(vfs.Fault{Ops: vfs.OpRead})
	if _, err := l.Entries(1, 2, 1000); err == nil || errors.Is(err, ErrCorrupt) {
		t.Errorf("Entries from a disk that does not read: %v", err)
	}
}

func TestDamagedFolder(t *testing.T) {
	tests := []struct {
		name   string
		damage func(t *testing.T, fsys vfs.FS, files []string) error
		want   string // in the error; "": the log is as it was
	}{
		{"oldest segment missing", func(t *testing.T, fsys vfs.FS, files []string) error { return fsys.Remove(files[0]) }, "the log begins with entry"},
		{"middle segment missing", func(t *testing.T, fsys vfs.FS, files []string) error { return fsys.Remove(files[1]) }, "is missing"},
		{"empty segment", func(t *testing.T, fsys vfs.FS, files []string) error { return resize(fsys, files[len(files)-1], 0) }, "ends in the segment header"},
		{"short segment", func(t *testing.T, fsys vfs.FS, files []string) error { return resize(fsys, files[0], 8192) }, "was made with 16384 bytes"},
		{"segments swapped", func(t *testing.T, fsys vfs.FS, files []string) error {
			return errors.Join(fsys.Rename(files[0], "/tmp"), fsys.Rename(files[1], files[0]), fsys.Rename("/tmp", files[1]))
		}, "under the name of another"},
		{"other version", func(t *testing.T, fsys vfs.FS, files []string) error {
			return overwrite(fsys, files[0], 8, []byte{9})
		}, "format version 9"},
		{"no segment at all", func(t *testing.T, fsys vfs.FS, files []string) error {
			return overwrite(fsys, files[0], 0, []byte("other"))
		}, "does not begin with"},
		{"tail of zeros in an old segment", func(t *testing.T, fsys vfs.FS, files []string) error {
			end, last := usedBytes(t, fsys, files[0])
			return overwrite(fsys, files[0], last.offset, make([]byte, end-last.offset))
		}, "the next segment says that frames go on to"},
		{"leftover of preparing", func(t *testing.T, fsys vfs.FS, files []string) error {
			return errors.Join(create(fsys, prepareName, 100), create(fsys, "0000000000000077.spare", 0),
				create(fsys, "0000000000000078.spare", MinSegmentBytes), create(fsys, "notes.txt", 10))
		}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			fsys, opts, want := damageLog(t, true)
			must(t, test.damage(t, fsys, segmentFiles(t, fsys)))
			l, err := Open(fsys, testDir, opts)
			if test.want == "" {
				must(t, err)
				must(t, want.matches(l))
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("Open: %v, want %q", err, test.want)
			}
			if ve := (*VersionError)(nil); !errors.Is(err, ErrCorrupt) && !errors.As(err, &ve) {
				t.Errorf("error is neither a CorruptError nor a VersionError: %v", err)
			}
		})
	}
}

func withFile(fsys vfs.FS, name string, fn func(vfs.File) error) error {
	f, err := fsys.OpenOrCreate(name)
	if err != nil {
		return err
	}
	return errors.Join(fn(f), f.Close())
}

func resize(fsys vfs.FS, name string, size int64) error {
	return withFile(fsys, name, func(f vfs.File) error { return f.Truncate(size) })
}

func overwrite(fsys vfs.FS, name string, off int64, b []byte) error {
	return withFile(fsys, name, func(f vfs.File) error { _, err := f.WriteAt(b, off); return err })
}

func create(fsys vfs.FS, name string, size int64) error {
	return resize(fsys, path.Join(testDir, name), size)
}

// TestTornFrameIsNotBroughtBack cuts an unsynced frame that has a whole one behind it, and writes one of the same length in its place: the frame behind must stay
// gone. The torn one ends with a page, or the zeros behind the new one would be enough.
func TestTornFrameIsNotBroughtBack(t *testing.T) {
	fsys := vfs.NewSim(1)
	opts := testOptions(newRand(1))
	l := mustOpen(t, fsys, opts)
	commit := func(index uint64) {
		t.Helper()
		must(t, l.Append(Batch{HardState: raftpb.HardState{Term: 1, Commit: index}, NoSync: true}))
	}
	must(t, l.Append(Batch{Entries: span(1, 9, 1, (pageBytes-2*frameHeaderBytes-9*descriptorBytes)/9), HardState: raftpb.HardState{Term: 1, Commit: 1}}))
	name := segmentFiles(t, fsys)[0]
	end, _ := usedBytes(t, fsys, name)
	commit(2)
	if end, _ := usedBytes(t, fsys, name); end%pageBytes != 0 {
		t.Fatalf("the frame to be torn ends at %d", end)
	}
	commit(3)
	must(t, fsys.FlipBit(name, end+60, 0))
	for _, step := range []struct{ found, next uint64 }{{1, 2}, {2, 4}, {4, 5}} {
		l = mustOpen(t, fsys, opts)
		if c := l.HardState().Commit; c != step.found {
			t.Fatalf("commit index %d, want %d", c, step.found)
		}
		commit(step.next)
	}
}

// TestTornEndIsCut keeps only a part of the last frame's bytes.
func TestTornEndIsCut(t *testing.T) {
	for cut := int64(0); cut < 1300; cut += 13 {
		fsys := vfs.NewSim(1)
		opts := testOptions(newRand(1))
		l := mustOpen(t, fsys, opts)
		must(t, l.Append(Batch{Entries: span(1, 2, 1, 700)}))
		name := segmentFiles(t, fsys)[0]
		end, _ := usedBytes(t, fsys, name)
		must(t, l.Append(Batch{Entries: span(3, 4, 1, 570)}))
		last, _ := usedBytes(t, fsys, name)
		must(t, overwrite(fsys, name, end+cut, make([]byte, last-end-cut)))
		l = mustOpen(t, fsys, opts)
		wantLog(t, l, 1, span(1, 2, 1, 700))
		must(t, l.Append(Batch{Entries: span(3, 3, 2, 570)}))
		l = mustOpen(t, fsys, opts)
		wantLog(t, l, 1, append(span(1, 2, 1, 700), entry(3, 2, 570)))
	}
}
