package work

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// runLocal puts the load on a local folder until it has made some records, and returns what it did.
func runLocal(t *testing.T, dir string) LoadResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	// The lock of LoadArgs.Holds is nobody else's here: locks of one process do not exclude each other.
	r, err := runLoad(ctx, LoadArgs{Dir: dir, Name: "g", Holds: true, Fsx: 2}, func(any) {})
	if err != nil {
		t.Fatal(err)
	}
	if r.ErrorCount > 0 {
		t.Skipf("the local file system does not do: %q", r.Errors)
	}
	if r.Written[0] < 2 || r.Appended < 2 || r.Increments < 2 || r.Named < 2 || r.Tried < 2 || r.Probes < 2 {
		t.Fatalf("too little happened to be a test: %+v", r)
	}
	return *r
}

// TestVerifyFinds damages, one way after the other, what a load has left, and expects verify to notice.
func TestVerifyFinds(t *testing.T) {
	dir := t.TempDir()
	result := runLocal(t, dir)
	check := func(r LoadResult) []string {
		wrong, err := verify(t.Context(), VerifyArgs{Dir: dir, Results: []LoadResult{r}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return wrong
	}
	if wrong := check(result); len(wrong) > 0 {
		t.Fatalf("undamaged: %q", wrong)
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	flip := func(name string, at int) func() error {
		return func() error {
			data, err := os.ReadFile(path(name))
			if err != nil {
				return err
			}
			data[at] ^= 1
			return os.WriteFile(path(name), data, 0o644)
		}
	}
	// The oldest names are gone on a machine that is fast.
	last := fmt.Sprintf("link%d", result.Named-1)
	number := func(n int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }
	for _, c := range []struct {
		name         string
		damage, undo func() error
		want         string
	}{
		{"a flipped bit", flip("g-writer0", recordSize+100), flip("g-writer0", recordSize+100), "writer 0: record 1"},
		{"a doubled increment", func() error { return os.WriteFile(path("counter"), number(result.Increments+1), 0) },
			func() error { return os.WriteFile(path("counter"), number(result.Increments), 0) }, "counter"},
		{"a record appended twice", func() error { return appendTo(path("g-append"), record("g", writers, result.Appended-1, appendSize)) },
			func() error { return os.Truncate(path("g-append"), int64(result.Appended*appendSize)) }, "append"},
		{"a lost name", func() error { return os.Remove(path("g-names/" + last)) },
			func() error { return touch(path("g-names/"+last), 0o644) }, "names: " + last},
		{"a name too many", func() error { return touch(path("g-names/moved0"), 0o644) },
			func() error { return os.Remove(path("g-names/moved0")) }, "names"},
		{"a lost claim", func() error { return os.Remove(path("claims/1")) },
			func() error { return touch(path("claims/1"), 0o644) }, "claims: 1 is gone"},
		{"a byte too much in a random file", func() error { return appendTo(path("g-fsx1"), []byte{1}) },
			func() error { return os.Truncate(path("g-fsx1"), int64(result.Fsx[1].Size)) }, "fsx 1"},
		{"a truncated file", func() error { return os.Truncate(path("g-writer1"), recordSize) }, nil, "writer 1"},
	} {
		if err := c.damage(); err != nil {
			t.Fatal(err)
		}
		if wrong := strings.Join(check(result), "; "); !strings.Contains(wrong, c.want) {
			t.Errorf("%s: got %q", c.name, wrong)
		}
		if c.undo != nil {
			if err := c.undo(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func appendTo(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

func TestVerifyClaims(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"0", "1", "2"} {
		if err := touch(filepath.Join(dir, name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		a, b LoadResult
		want string
	}{
		{"each has one winner", LoadResult{Name: "a", Tried: 3, Won: []int{0, 2}}, LoadResult{Name: "b", Tried: 2, Won: []int{1}}, ""},
		{"two winners", LoadResult{Name: "a", Tried: 3, Won: []int{0, 1, 2}}, LoadResult{Name: "b", Tried: 3, Won: []int{1}}, "1 was won by a and b"},
		{"no winner", LoadResult{Name: "a", Tried: 3, Won: []int{0}}, LoadResult{Name: "b", Tried: 3, Won: []int{1}}, "2 was won by nobody"},
	} {
		err := verifyClaims(dir, []LoadResult{c.a, c.b})
		if got := errorText(err); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestTar: the archive is the same each time, and of the size that was asked for.
func TestTar(t *testing.T) {
	a, err := makeTar(200)
	if err != nil {
		t.Fatal(err)
	}
	b, err := makeTar(200)
	if err != nil {
		t.Fatal(err)
	}
	if err := compare("second archive", b, a); err != nil {
		t.Error(err)
	}
}

func TestRunUnknown(t *testing.T) {
	if _, err := Run(t.Context(), "no-such-work", nil, nil); err == nil || !strings.Contains(err.Error(), "posix") {
		t.Errorf("got %v", err)
	}
	if _, err := Run(t.Context(), "mount", []byte(`{"Port":"x"}`), nil); err == nil {
		t.Error("wrong arguments were accepted")
	}
}
