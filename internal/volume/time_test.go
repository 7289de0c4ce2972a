package volume

import (
	"testing"

	"holdfast/internal/store"
)

// TestTimes applies entries that were stamped by clocks that differ, and by one that was set.
func TestTimes(t *testing.T) {
	const (
		sec  = int64(1e9)
		min  = 60 * sec
		year = 365 * 24 * 3600 * sec
		at   = 56 * year
	)
	for _, test := range []struct {
		name             string
		version          uint32
		stamped, becomes []int64
	}{
		{"a clock that goes on", 3, []int64{at, at + 5, at + sec}, []int64{at, at + 5, at + sec}},
		{"one that stands still", 3, []int64{at, at, at}, []int64{at, at + 1, at + 2}},
		{"another leader's, which is behind", 3, []int64{at, at - min/2, at - min/2 + 1, at - min + 9, at + 9}, []int64{at, at + 1, at + 2, at + 3, at + 9}},
		{"one that is set back", 3, []int64{at, at - 2*min, at - min}, []int64{at, at - 2*min, at - min}},
		{"one that was ahead by years", 3, []int64{at, at + 20*year, at + 20*year + 1, at + 2*sec}, []int64{at, at + 20*year, at + 20*year + 1, at + 2*sec}},
		{"one that begins in 1970", 3, []int64{at, sec, 2 * sec, at + sec}, []int64{at, sec, 2 * sec, at + sec}},
		{"none", 3, []int64{at, 0, 0}, []int64{at, at, at}},
		{"before times went back", 2, []int64{at, at - 2*min, at - year, at, at + 1}, []int64{at, at, at, at, at + 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHarness(t, store.NewMem())
			root := h.root()
			h.now = at - 3*sec
			h.do(func(tx *Tx) { must(t)(tx.Create(nil, root, "f", TypeFile, CreateAttr{})) })
			h.mustApply(Entry{Kind: EntryVersion, Payload: VersionPayload(test.version), Time: at - 3*sec/2})
			for i, now := range test.stamped {
				h.now = now - sec // do adds it
				h.do(func(tx *Tx) {
					f := must(t)(tx.Lookup(nil, root, "f"))
					must(t)(tx.Write(nil, f, 0, []byte("x")))
				})
				h.v.View(func(tx *Tx) {
					f := must(t)(tx.Lookup(nil, root, "f"))
					if f.Mtime != test.becomes[i] || f.Ctime != test.becomes[i] {
						t.Errorf("entry %d, of %d: modified at %+d, changed at %+d, want %+d (to the first)", i, now-at, f.Mtime-at, f.Ctime-at, test.becomes[i]-at)
					}
				})
				if i == 1 {
					h.open() // the last time is kept
				}
			}
		})
	}
}
