package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
)

func TestCrashKeepsWhatWasSynced(t *testing.T) {
	outcomes := map[string]int{}
	for seed := range uint64(200) {
		s := NewSim(seed)
		f := mustCreate(t, s, "f")
		mustWrite(t, f, strings.Repeat("a", 1024), 0)
		must(t, f.Sync())
		must(t, s.SyncDir("/"))
		mustWrite(t, f, strings.Repeat("b", 1024), 512)
		s.Crash()
		if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrCrashed) {
			t.Fatalf("read from before the crash: %v", err)
		}
		got := readAll(t, s, "f")
		if len(got) < 1024 || got[:512] != strings.Repeat("a", 512) {
			t.Fatalf("seed %d: synced bytes are gone: %d left", seed, len(got))
		}
		var pattern strings.Builder
		for i := 0; i < len(got); i += 512 {
			sector := got[i : i+512]
			if strings.Trim(sector, sector[:1]) != "" {
				t.Fatalf("seed %d: torn sector %d", seed, i/512)
			}
			pattern.WriteByte(max(sector[0], '0'))
		}
		outcomes[pattern.String()]++
	}
	for _, want := range []string{"aa", "aa0", "aab", "ab", "abb", "ab0"} {
		if outcomes[want] == 0 {
			t.Errorf("no crash left %s; seen: %v", want, outcomes)
		}
	}
	if len(outcomes) != 6 {
		t.Errorf("unexpected outcomes: %v", outcomes)
	}
}

func TestCrashKeepsPrefixOfNames(t *testing.T) {
	outcomes := map[string]int{}
	for seed := range uint64(200) {
		s := NewSim(seed)
		must(t, s.MkdirAll("d"))
		must(t, s.SyncDir("/"))
		mustCreate(t, s, "d/a")
		must(t, s.SyncDir("d"))
		mustCreate(t, s, "d/b")
		must(t, s.Rename("d/a", "d/c"))
		must(t, s.Remove("d/b"))
		s.Crash()
		names, err := s.List("d")
		must(t, err)
		outcomes[strings.Join(names, "")]++
	}
	for _, want := range []string{"a", "ab", "bc", "c"} {
		if outcomes[want] == 0 {
			t.Errorf("no crash left %s; seen: %v", want, outcomes)
		}
	}
	if len(outcomes) != 4 {
		t.Errorf("unexpected outcomes: %v", outcomes)
	}
}

func TestCrashNeverSplitsRename(t *testing.T) {
	for seed := range uint64(100) {
		s := NewSim(seed)
		must(t, s.MkdirAll("p"))
		must(t, s.MkdirAll("q"))
		must(t, s.SyncDir("/"))
		mustCreate(t, s, "p/f")
		must(t, s.SyncDir("p"))
		mustCreate(t, s, "q/before")
		must(t, s.Rename("p/f", "q/f"))
		if seed%2 == 0 {
			must(t, s.SyncDir("p"))
		}
		s.Crash()
		_, errP := s.Stat("p/f")
		_, errQ := s.Stat("q/f")
		if (errP == nil) == (errQ == nil) {
			t.Fatalf("seed %d: file in both or neither: %v, %v", seed, errP, errQ)
		}
		if seed%2 == 0 && errQ != nil {
			t.Fatalf("seed %d: synced rename is gone: %v", seed, errQ)
		}
		if _, err := s.Stat("q/before"); errQ == nil && err != nil {
			t.Fatalf("seed %d: rename survived without what came before it", seed)
		}
	}
}

func TestCrashIsDeterministic(t *testing.T) {
	run := func() string {
		s := NewSim(7)
		var out strings.Builder
		for i := range 20 {
			f, err := s.OpenOrCreate(fmt.Sprintf("f%d", i%3))
			must(t, err)
			mustWrite(t, f, strings.Repeat(string(rune('a'+i)), 3000), int64(i*100))
			if i%4 == 0 {
				must(t, f.Sync())
				must(t, s.SyncDir("/"))
			}
			if i%7 == 6 {
				s.Crash()
			}
			names, err := s.List("/")
			must(t, err)
			for _, name := range names {
				fmt.Fprintln(&out, name, readAll(t, s, name))
			}
		}
		return out.String()
	}
	if first, second := run(), run(); first != second {
		t.Error("two runs from one seed differ")
	}
}

func TestTornSectors(t *testing.T) {
	torn := false
	for seed := uint64(0); seed < 100 && !torn; seed++ {
		s := NewSim(seed)
		s.SetTornSectors(true)
		f := mustCreate(t, s, "f")
		mustWrite(t, f, strings.Repeat("a", 512), 0)
		must(t, f.Sync())
		must(t, s.SyncDir("/"))
		mustWrite(t, f, strings.Repeat("b", 512), 0)
		s.Crash()
		got := readAll(t, s, "f")
		torn = strings.HasPrefix(got, "b") && strings.HasSuffix(got, "a")
	}
	if !torn {
		t.Error("no sector was ever torn")
	}
}

func TestFailedSyncForgets(t *testing.T) {
	lost := 0
	for seed := range uint64(50) {
		s := NewSim(seed)
		f := mustCreate(t, s, "f")
		mustWrite(t, f, strings.Repeat("a", 512), 0)
		must(t, f.Sync())
		must(t, s.SyncDir("/"))
		mustWrite(t, f, strings.Repeat("b", 512), 0)
		s.AddFault(Fault{Ops: OpSync, Times: 1})
		if err := f.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatalf("Sync: %v, want EIO", err)
		}
		must(t, f.Sync())
		if got := readAll(t, s, "f"); got != strings.Repeat("b", 512) {
			t.Fatal("a failed Sync changed what is read")
		}
		s.Crash()
		if strings.HasPrefix(readAll(t, s, "f"), "a") {
			lost++
		}
	}
	if lost == 0 {
		t.Error("a Sync that succeeded after a failed one made the data durable every time")
	}
}

func TestFaults(t *testing.T) {
	s := NewSim(1)
	f := mustCreate(t, s, "first")
	must(t, s.Rename("first", "renamed.seg"))
	g := mustCreate(t, s, "other")
	remove := s.AddFault(Fault{Ops: OpWrite, Name: "*.seg", Nth: 2, Err: syscall.ENOSPC})
	mustWrite(t, g, "x", 0)
	mustWrite(t, f, "x", 0)
	mustWrite(t, g, "x", 0)
	if _, err := f.WriteAt([]byte("y"), 0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("second matching write: %v", err)
	}
	if err := f.Truncate(0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("third matching write: %v", err)
	}
	remove()
	mustWrite(t, f, "x", 0)
	s.AddFault(Fault{Ops: OpRead, Rate: 0.5})
	failed := 0
	for range 100 {
		if _, err := f.ReadAt(make([]byte, 1), 0); err != nil {
			failed++
		}
	}
	if failed < 20 || failed > 80 {
		t.Errorf("%d of 100 reads failed at a rate of 0.5", failed)
	}
	if c := s.Counters(); c.Reads != 100 || c.Writes != 5 {
		t.Errorf("counters %+v", c)
	}
}

func TestStopAfter(t *testing.T) {
	s := NewSim(3)
	f := mustCreate(t, s, "f")
	must(t, s.SyncDir("/"))
	s.StopAfter(3)
	mustWrite(t, f, "x", 0)
	must(t, f.Sync())
	if s.Stopped() {
		t.Fatal("stopped too early")
	}
	if _, err := f.WriteAt([]byte("y"), 0); !errors.Is(err, ErrStopped) {
		t.Fatalf("third change: %v", err)
	}
	if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrStopped) {
		t.Errorf("read without power: %v", err)
	}
	if _, err := s.Open("f"); !errors.Is(err, ErrStopped) {
		t.Errorf("open without power: %v", err)
	}
	s.Crash()
	if got := readAll(t, s, "f"); got != "x" && got != "y" {
		t.Errorf("content %q", got)
	}
}

func TestFullDisk(t *testing.T) {
	s := NewSim(1)
	f := mustCreate(t, s, "f")
	mustWrite(t, f, "x", 0)
	s.SetFree(8 << 10)
	n, err := f.WriteAt(bytes.Repeat([]byte("y"), 16<<10), 0)
	if n != 12<<10 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write on a full disk: %d, %v", n, err)
	}
	mustWrite(t, f, "over", 0)
	if err := f.Preallocate(12<<10, 1, true); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Preallocate on a full disk: %v", err)
	}
	g := mustCreate(t, s, "g")
	must(t, s.Remove("f"))
	if _, err := g.WriteAt([]byte("x"), 0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the space of an open removed file was given away: %v", err)
	}
	must(t, f.Close())
	mustWrite(t, g, "x", 0)
	if free, total, err := s.Space("/"); free != 8<<10 || total != 12<<10 || err != nil {
		t.Errorf("Space: %d of %d, %v", free, total, err)
	}
}

func TestFlipBit(t *testing.T) {
	s := NewSim(1)
	f := mustCreate(t, s, "f")
	mustWrite(t, f, "aaaa", 0)
	must(t, f.Sync())
	must(t, s.SyncDir("/"))
	must(t, s.FlipBit("f", 2, 1))
	if got := readAll(t, s, "f"); got != "aaca" {
		t.Errorf("content %q", got)
	}
	s.Crash()
	if got := readAll(t, s, "f"); got != "aaca" {
		t.Errorf("content after a crash %q", got)
	}
	if err := s.FlipBit("f", 4, 0); !errors.Is(err, ErrNoData) {
		t.Errorf("flip beyond the end: %v", err)
	}
	if err := s.FlipBit("g", 0, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("flip in no file: %v", err)
	}
}
