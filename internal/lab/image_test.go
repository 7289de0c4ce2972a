package lab

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestArchive compares an archive with what the format's description says, field by field.
func TestArchive(t *testing.T) {
	var out bytes.Buffer
	a := &archive{w: &out}
	a.dir("dev")
	a.charDev("dev/console", 5, 1)
	a.file("init", modeProgram, []byte("12345"))
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	header := func(ino, mode, size, major, minor, name int) string {
		return fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", ino, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name, 0)
	}
	want := header(1, 0o040755, 0, 0, 0, 4) + "dev\x00\x00\x00" +
		header(2, 0o020600, 0, 5, 1, 12) + "dev/console\x00\x00\x00" +
		header(3, 0o100755, 5, 0, 0, 5) + "init\x00" + "\x00" + "12345\x00\x00\x00" +
		header(4, 0, 0, 0, 0, 11) + "TRAILER!!!\x00\x00\x00\x00"
	if got := out.String(); got != want {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

type failingWriter struct{ left int }

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, fmt.Errorf("full")
	}
	return len(p), nil
}

func TestArchiveReportsErrors(t *testing.T) {
	for _, room := range []int{0, 50, 115, 130} {
		a := &archive{w: &failingWriter{left: room}}
		a.file("f", modeFile, make([]byte, 20))
		if err := a.close(); err == nil {
			t.Errorf("no error with room for %d bytes", room)
		}
	}
}

func TestLoadOrder(t *testing.T) {
	const dep = `kernel/a.ko:
kernel/b.ko: kernel/a.ko
kernel/c.ko: kernel/b.ko kernel/a.ko
kernel/d.ko: kernel/e.ko kernel/a.ko
kernel/e.ko:
`
	for _, c := range []struct {
		names []string
		want  string
	}{
		{[]string{"a"}, "kernel/a.ko"},
		{[]string{"c"}, "kernel/a.ko kernel/b.ko kernel/c.ko"},
		{[]string{"d", "c"}, "kernel/a.ko kernel/e.ko kernel/d.ko kernel/b.ko kernel/c.ko"},
	} {
		got, err := loadOrder([]byte(dep), c.names)
		if err != nil || !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("%v: got %v, %v, want %s", c.names, got, err, c.want)
		}
	}
	if _, err := loadOrder([]byte(dep), []string{"x"}); err == nil {
		t.Error("a module that does not exist was found")
	}
}

func TestParseCPU(t *testing.T) {
	got, err := parseCPU("42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 27 0 0 20")
	if err != nil || got != 177*clockTick {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", "42 (x) S 1 2", "42 (x) S 1 2 3 4 5 6 7 8 9 10 x 27"} {
		if _, err := parseCPU(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
