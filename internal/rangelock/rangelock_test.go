package rangelock

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestFromOffset(t *testing.T) {
	tests := []struct {
		offset, length uint64
		want           Range
		ok             bool
	}{
		{0, 0, Range{}, false},
		{5, 0, Range{}, false},
		{0, 1, Range{0, 0}, true},
		{10, 5, Range{10, 14}, true},
		{0, EOF, Range{0, EOF}, true},
		{7, EOF, Range{7, EOF}, true},
		{EOF, EOF, Range{EOF, EOF}, true},
		{1, EOF - 1, Range{1, EOF - 1}, true},
		{2, EOF - 1, Range{}, false},
		{EOF, 1, Range{}, false},
		{EOF - 1, 1, Range{EOF - 1, EOF - 1}, true},
	}
	for _, tt := range tests {
		got, ok := FromOffset(tt.offset, tt.length)
		if got != tt.want || ok != tt.ok {
			t.Errorf("FromOffset(%d, %d) = %v, %v, want %v, %v", tt.offset, tt.length, got, ok, tt.want, tt.ok)
		}
		if ok && got.Length() != tt.length {
			t.Errorf("FromOffset(%d, %d).Length() = %d", tt.offset, tt.length, got.Length())
		}
	}
}

func show(s *Set[int]) string {
	var b strings.Builder
	for l := range s.All() {
		kind := "r"
		if l.Write {
			kind = "w"
		}
		end := fmt.Sprint(l.End)
		if l.End == EOF {
			end = "eof"
		}
		fmt.Fprintf(&b, "%d%s%d-%s ", l.Owner, kind, l.Start, end)
	}
	return strings.TrimSpace(b.String())
}

// The table reads: do is a list of "owner kind start end", kind r, w or u (unlock); want is show of the result.
func TestSet(t *testing.T) {
	const eof = EOF
	type op struct {
		owner int
		kind  byte
		start uint64
		end   uint64
	}
	tests := []struct {
		name string
		do   []op
		want string
	}{
		{"one", []op{{1, 'w', 0, 9}}, "1w0-9"},
		{"same again", []op{{1, 'w', 0, 9}, {1, 'w', 0, 9}}, "1w0-9"},
		{"upgrade whole", []op{{1, 'r', 0, 9}, {1, 'w', 0, 9}}, "1w0-9"},
		{"upgrade middle", []op{{1, 'r', 0, 9}, {1, 'w', 3, 5}}, "1r0-2 1w3-5 1r6-9"},
		{"downgrade middle", []op{{1, 'w', 0, eof}, {1, 'r', 3, 5}}, "1w0-2 1r3-5 1w6-eof"},
		{"merge adjacent", []op{{1, 'r', 0, 4}, {1, 'r', 5, 9}}, "1r0-9"},
		{"merge adjacent below", []op{{1, 'r', 5, 9}, {1, 'r', 0, 4}}, "1r0-9"},
		{"adjacent of another kind stays", []op{{1, 'r', 0, 4}, {1, 'w', 5, 9}, {1, 'r', 10, 12}}, "1r0-4 1w5-9 1r10-12"},
		{"filling a gap merges three", []op{{1, 'r', 0, 4}, {1, 'r', 8, 9}, {1, 'r', 5, 7}}, "1r0-9"},
		{"covering swallows", []op{{1, 'r', 2, 4}, {1, 'w', 6, 8}, {1, 'w', 0, 20}}, "1w0-20"},
		{"downgrade merges both sides", []op{{1, 'r', 0, 2}, {1, 'w', 3, 5}, {1, 'r', 6, 9}, {1, 'r', 3, 5}}, "1r0-9"},
		{"to eof", []op{{1, 'w', 5, eof}, {1, 'w', 0, 4}}, "1w0-eof"},
		{"whole unlock", []op{{1, 'w', 0, 9}, {1, 'u', 0, eof}}, ""},
		{"unlock middle splits", []op{{1, 'w', 0, eof}, {1, 'u', 4, 6}}, "1w0-3 1w7-eof"},
		{"unlock head", []op{{1, 'w', 0, 9}, {1, 'u', 0, 3}}, "1w4-9"},
		{"unlock tail to eof", []op{{1, 'w', 0, eof}, {1, 'u', 9, eof}}, "1w0-8"},
		{"unlock of nothing", []op{{1, 'w', 0, 9}, {1, 'u', 20, 30}, {2, 'u', 0, 9}}, "1w0-9"},
		{"unlock over several", []op{{1, 'w', 0, 3}, {1, 'r', 5, 8}, {1, 'w', 10, 13}, {1, 'u', 2, 11}}, "1w0-1 1w12-13"},
		{"last byte", []op{{1, 'w', eof, eof}, {1, 'w', eof - 1, eof - 1}}, "1w18446744073709551614-eof"},
		{"owners in order", []op{{3, 'r', 0, 1}, {1, 'r', 0, 1}, {2, 'r', 0, 1}}, "1r0-1 2r0-1 3r0-1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := New(cmp.Compare[int])
			for _, o := range tt.do {
				if o.kind == 'u' {
					s.Unlock(o.owner, Range{o.start, o.end}, nil)
				} else {
					s.Lock(o.owner, Range{o.start, o.end}, o.kind == 'w', nil)
				}
			}
			if got := show(s); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestConflict(t *testing.T) {
	s := New(cmp.Compare[int])
	s.Lock(1, Range{10, 19}, false, nil)
	s.Lock(2, Range{10, 14}, false, nil)
	s.Lock(3, Range{30, EOF}, true, nil)
	tests := []struct {
		owner int
		r     Range
		write bool
		want  int // owner in the way; 0: none
	}{
		{4, Range{0, 9}, true, 0},
		{4, Range{0, 10}, true, 1},
		{4, Range{0, 10}, false, 0},
		{1, Range{0, 10}, true, 2},
		{2, Range{15, 15}, true, 1},
		{2, Range{0, 40}, false, 3},
		{4, Range{20, 29}, true, 0},
		{4, Range{0, EOF}, false, 3},
		{4, Range{0, EOF}, true, 1},
		{3, Range{20, EOF}, true, 0},
		{4, Range{EOF, EOF}, false, 3},
	}
	for _, tt := range tests {
		l, ok := s.Conflict(tt.owner, tt.r, tt.write)
		if ok != (tt.want != 0) || l.Owner != tt.want {
			t.Errorf("Conflict(%d, %v, %v) = %v, %v, want owner %d", tt.owner, tt.r, tt.write, l, ok, tt.want)
		}
	}
}

// model is the plain truth over a small universe: what each owner holds of each byte (0 nothing, 1 shared, 2 exclusive). The
// universe's upper half stands for the bytes up to 2^64-1, so that the ends are exercised too.
type model [4][modelBytes]byte

const modelBytes = 64

func (m *model) at(i uint64) uint64 {
	if i < modelBytes/2 {
		return i
	}
	return EOF - (modelBytes - 1 - i)
}

func (m *model) locks(owner int) []Lock[int] {
	var out []Lock[int]
	for i := uint64(0); i < modelBytes; i++ {
		k := m[owner][i]
		if k == 0 {
			continue
		}
		if n := len(out); n > 0 && out[n-1].End+1 == m.at(i) && out[n-1].Write == (k == 2) {
			out[n-1].End = m.at(i)
			continue
		}
		out = append(out, Lock[int]{owner, Range{m.at(i), m.at(i)}, k == 2})
	}
	return out
}

func (m *model) conflict(owner int, lo, hi uint64, write bool) (Lock[int], bool) {
	var best Lock[int]
	found := false
	want := Range{m.at(lo), m.at(hi)}
	for o := range m {
		if o == owner {
			continue
		}
		for _, l := range m.locks(o) {
			if l.Start <= want.End && want.Start <= l.End && (write || l.Write) && (!found || l.Start < best.Start) {
				best, found = l, true
			}
		}
	}
	return best, found
}

func TestAgainstModel(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		s := New(cmp.Compare[int])
		var m model
		mirror := map[string]Lock[int]{}
		var ch Changes[int]
		for step := range 300 {
			owner := rng.IntN(len(m))
			// Stay within one half, as the model has no bytes in between.
			half := uint64(rng.IntN(2)) * modelBytes / 2
			lo := half + uint64(rng.IntN(modelBytes/2))
			hi := lo + uint64(rng.IntN(int(half+modelBytes/2-lo)))
			r := Range{m.at(lo), m.at(hi)}
			ch.Reset()
			before := s.Len()
			switch op := rng.IntN(10); {
			case op == 0:
				s.Drop(owner, &ch)
				m[owner] = [modelBytes]byte{}
			case op < 4:
				splits := s.Splits(owner, r)
				s.Unlock(owner, r, &ch)
				fill(m[owner][lo:hi+1], 0)
				if splits != (s.Len() > before) {
					t.Fatalf("seed %d step %d: Splits said %v, count went from %d to %d", seed, step, splits, before, s.Len())
				}
			default:
				write := rng.IntN(2) == 1
				got, ok := s.Conflict(owner, r, write)
				want, wok := m.conflict(owner, lo, hi, write)
				if ok != wok || got != want {
					t.Fatalf("seed %d step %d: Conflict = %v %v, want %v %v", seed, step, got, ok, want, wok)
				}
				if ok {
					continue
				}
				s.Lock(owner, r, write, &ch)
				k := byte(1)
				if write {
					k = 2
				}
				fill(m[owner][lo:hi+1], k)
			}
			if s.Len() > before+2 {
				t.Fatalf("seed %d step %d: count went from %d to %d", seed, step, before, s.Len())
			}
			check(t, fmt.Sprintf("seed %d step %d", seed, step), s, &m)
			apply(t, mirror, &ch)
			if len(mirror) != s.Len() {
				t.Fatalf("seed %d step %d: the mirror has %d locks, the set %d", seed, step, len(mirror), s.Len())
			}
			for l := range s.All() {
				if mirror[key(l)] != l {
					t.Fatalf("seed %d step %d: the mirror lacks %v", seed, step, l)
				}
			}
		}
	}
}

func key(l Lock[int]) string { return fmt.Sprint(l.Owner, l.Start) }

func apply(t *testing.T, mirror map[string]Lock[int], ch *Changes[int]) {
	t.Helper()
	for _, l := range ch.Removed {
		if mirror[key(l)] != l {
			t.Fatalf("removed %v, which was not there", l)
		}
		delete(mirror, key(l))
	}
	for _, l := range ch.Added {
		if _, ok := mirror[key(l)]; ok {
			t.Fatalf("added %v over another", l)
		}
		mirror[key(l)] = l
	}
}

func check(t *testing.T, at string, s *Set[int], m *model) {
	t.Helper()
	var want []Lock[int]
	for o := range m {
		want = append(want, m.locks(o)...)
		if s.Held(o) != (len(m.locks(o)) > 0) {
			t.Fatalf("%s: Held(%d) = %v", at, o, s.Held(o))
		}
	}
	got := slices.Collect(s.All())
	if !slices.Equal(got, want) || s.Len() != len(want) {
		t.Fatalf("%s: got %v (%d), want %v", at, got, s.Len(), want)
	}
}

func fill(b []byte, v byte) {
	for i := range b {
		b[i] = v
	}
}

func BenchmarkLockUnlock(b *testing.B) {
	for _, held := range []int{0, 1000} {
		b.Run(fmt.Sprint(held), func(b *testing.B) {
			s := New(cmp.Compare[int])
			for i := range held {
				s.Lock(i%10, Range{uint64(i) * 10, uint64(i)*10 + 3}, true, nil)
			}
			s.Lock(11, Range{1 << 40, 1 << 40}, true, nil)
			var ch Changes[int]
			b.ReportAllocs()
			for b.Loop() {
				ch.Reset()
				r := Range{5006, 5007}
				if _, ok := s.Conflict(11, r, true); ok {
					b.Fatal("conflict")
				}
				s.Lock(11, r, true, &ch)
				s.Unlock(11, r, &ch)
			}
		})
	}
}
