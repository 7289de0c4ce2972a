package cli

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/internal/api"
	"holdfast/internal/backup"
)

// stream makes a backup of an empty volume, as package backup describes it. It is longer than what HTTP sends in one piece.
func stream(t *testing.T, volume string, since, index uint64) []byte {
	t.Helper()
	record := func(b []byte, kind byte, body []byte) []byte {
		head := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)))
		sum := crc32.Checksum(append(head[:5:5], body...), crc32.MakeTable(crc32.Castagnoli))
		return append(append(b, binary.BigEndian.AppendUint32(head, sum)...), body...)
	}
	header, err := json.Marshal(backup.Header{Format: 1, Cluster: strings.Repeat("long", 2<<10), Volume: volume, VolumeID: 1, Since: since, Begun: began})
	if err != nil {
		t.Fatal(err)
	}
	b := record([]byte("Holdfast backup 1\n"), 'H', header)
	var end []byte
	end = binary.BigEndian.AppendUint64(end, index)
	end = binary.BigEndian.AppendUint64(end, uint64(began.UnixNano()))
	end = binary.BigEndian.AppendUint64(end, 0)
	sum := sha256.Sum256(append(b[:len(b):len(b)], end...))
	b = record(b, 'E', append(end, sum[:]...))
	if _, err := backup.Verify(strings.NewReader(string(b))); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBackups(t *testing.T) {
	f := newFake(t)
	s := newSession(f)
	folder := filepath.Join(t.TempDir(), "001")
	f.backups = map[uint64][]byte{0: stream(t, "main", 0, 100), 100: stream(t, "main", 100, 250)}
	s.run(ExitUsage, "backup", "main", folder+"/", "--incremental") // its disk may not be mounted
	s.run(ExitUsage, "backup", "main", filepath.Join(folder, "one"))
	s.run(ExitOK, "backup", "main", folder+"/", "--incremental", "--mkdir") // the first is a full one
	s.run(ExitOK, "backup", "main", folder, "--incremental")
	s.run(ExitFailed, "backup", "main", folder, "--incremental") // the node has nothing since 250
	f.tweakWith(func(s *api.Status) { s.Volumes = []api.VolumeStatus{{Name: "main", Applied: 250}} })
	s.run(ExitOK, "backup", "main", folder, "--incremental")
	f.tweakWith(nil)
	file := filepath.Join(folder, "one")
	s.run(ExitUsage, "backup", "main", file, "--incremental")
	s.run(ExitOK, "backup", "main", file)
	s.run(ExitUsage, "backup", "main", file)
	s.run(ExitUsage, "backup", "main", file+"/")
	s.run(ExitUsage, "backup", "main", filepath.Join(file, "two"))
	f.err = errors.New("the disk is gone")
	s.run(ExitFailed, "backup", "main", file+"2")
	s.run(ExitFailed, "backup", "main", folder)
	f.err = nil
	full, more := filepath.Join(folder, "main-00000000000000000100-full.holdfast"), filepath.Join(folder, "main-00000000000000000250-since-00000000000000000100.holdfast")
	s.run(ExitOK, "restore", "main", folder, "--address", "10.0.0.50/24", "--export", "/data", "--client", "*")
	if string(f.restored) != string(f.backups[0])+string(f.backups[100]) {
		t.Errorf("%d bytes were restored", len(f.restored))
	}
	s.run(ExitOK, "restore", "lab", folder, "--from", "main", "--index", "100", "--address", "10.0.0.51/24")
	if string(f.restored) != string(f.backups[0]) {
		t.Errorf("%d bytes were restored", len(f.restored))
	}
	s.run(ExitOK, "restore", "third", full, more, "--address", "10.0.0.52/24", "-o", "json")
	s.run(ExitUsage, "restore", "x", more, "--address", "10.0.0.53/24")
	s.run(ExitUsage, "restore", "x", full, full, "--address", "10.0.0.53/24")
	s.run(ExitUsage, "restore", "x", folder, "--address", "10.0.0.53/24")
	s.run(ExitUsage, "restore", "x", filepath.Join(folder, "none"), "--address", "10.0.0.53/24")
	s.run(ExitUsage, "restore", "main", folder)
	golden(t, "backup.txt", s.text.String())
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != 3 {
		t.Errorf("%v in the folder, %v", entries, err)
	}
}

func TestMeter(t *testing.T) {
	m := &meter{what: "restoring", total: 3 << 20, n: 1 << 20}
	if got, want := m.text(2*time.Second), "restoring: 1.0 MiB of 3.0 MiB, 512.0 KiB/s, 4 s left"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
