package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBegun keeps what this node's parts are, reads what the first release wrote, and refuses what nobody wrote.
func TestBegun(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "groups.json")
	if err := os.WriteFile(file, []byte(`{"0":0,"3":17}`), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := loadBegun(dir)
	if err != nil {
		t.Fatal(err)
	}
	if p, ok := b.get(3); !ok || p != (part{Since: 17}) {
		t.Errorf("the first release's group 3 is %+v, %v", p, ok)
	}
	again := part{Since: 40, Part: 2}
	for _, err := range []error{b.remove(3), b.add(3, again), b.add(3, part{Since: 50, Part: 9}), b.add(4, part{Since: 41})} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if b, err = loadBegun(dir); err != nil {
		t.Fatal(err)
	}
	if p, ok := b.get(3); !ok || p != again || len(b.list()) != 3 {
		t.Errorf("group 3 is %+v, %v, of %d", p, ok, len(b.list()))
	}
	if err := os.WriteFile(file, []byte(`{"3":"x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadBegun(dir); err == nil || !strings.Contains(err.Error(), "groups.json") {
		t.Errorf("a damaged file: %v", err)
	}
}
