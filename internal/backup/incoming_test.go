package backup

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"holdfast/internal/store"
)

// writerEnv is the folder into which the test's own process, run again, writes a backup from its standard input.
const writerEnv = "HOLDFAST_TEST_BACKUP_FOLDER"

// TestWriter is the other process of TestKilled.
func TestWriter(t *testing.T) {
	folder := os.Getenv(writerEnv)
	if folder == "" {
		t.Skip("run by TestKilled")
	}
	// Whoever reads the line knows that the file is there and its beginning in it.
	in := io.TeeReader(os.Stdin, writerFunc(func(b []byte) (int, error) { return os.Stdout.WriteString("read\n") }))
	_, err := Folder(folder).Save(in)
	t.Errorf("the stream ended: %v", err)
}

type writerFunc func(b []byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// TestKilled kills a process that writes a backup: the next one removes what it left, and nothing else.
func TestKilled(t *testing.T) {
	m := newMember(t, store.NewMem(), 10)
	m.advance(20)
	good, _ := m.backup(0)
	dir := t.TempDir()
	for name, text := range map[string]string{
		".incoming-1": "of another program", ".incoming-x": "", ".incoming-": "", ".incoming-2": "", ".incoming-3": magic[:5], ".incoming-4": magic + "more", "incoming-5": magic,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stay := []string{".incoming-", ".incoming-1", ".incoming-x", "incoming-5"}
	other := exec.Command(os.Args[0], "-test.run=^TestWriter$")
	other.Env = append(os.Environ(), writerEnv+"="+dir)
	in, inErr := other.StdinPipe()
	out, outErr := other.StdoutPipe()
	if err := errors.Join(inErr, outErr, other.Start()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Process.Kill() }() // it may be gone
	if _, err := in.Write(good[:len(good)-1]); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 5)
	if _, err := io.ReadFull(out, line); err != nil || string(line) != "read\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	names := func() []string {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), Suffix) {
				names = append(names, e.Name())
			}
		}
		return names
	}
	save := func() {
		t.Helper()
		if _, err := Folder(dir).Save(bytes.NewReader(good)); err != nil {
			t.Fatal(err)
		}
	}
	save()
	during := names()
	if len(during) != len(stay)+1 {
		t.Fatalf("while another backup is written there are %q", during)
	}
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := other.Wait(); err == nil {
		t.Fatal("the other process was not killed")
	}
	if left := names(); !slices.Equal(left, during) {
		t.Fatalf("killed, it left %q of %q", left, during)
	}
	if _, err := SaveFile(filepath.Join(dir, "one"+Suffix), bytes.NewReader(good)); err != nil {
		t.Fatal(err)
	}
	if left := names(); !slices.Equal(left, stay) {
		t.Errorf("left are %q, want %q", left, stay)
	}
}

// TestNoFolder is about a folder whose disk is not mounted.
func TestNoFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	for _, save := range []func() error{
		func() error { _, err := Folder(dir).Save(strings.NewReader("")); return err },
		func() error { _, err := SaveFile(filepath.Join(dir, "one"), strings.NewReader("")); return err },
	} {
		if err := save(); err == nil || !strings.Contains(err.Error(), "mount it") {
			t.Errorf("%v", err)
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the folder was made")
	}
}
