// Package rangelock keeps the byte-range locks of one file: which owner holds which ranges, shared or exclusive, with the rules of
// POSIX record locks and NFS (RFC 8881 section 9.3). An owner's locks never conflict with each other: a new one replaces what it covers,
// so that locks are upgraded, downgraded, split and merged.
//
// A Set is deterministic: its content, and every answer, depend only on which locks are held, not on the history or on hashing. It is
// not safe for concurrent use.
package rangelock

import (
	"iter"
	"slices"
	"sort"
)

// EOF as the End of a Range means that it reaches to the end of the file, however far that moves.
const EOF = ^uint64(0)

// Range is the bytes Start to End, both included.
type Range struct {
	Start, End uint64
}

// FromOffset turns the offset and length of a request into a Range. A length of all ones means to the end of file. It reports false for
// what RFC 8881 section 18.10.3 calls invalid: a length of zero, or a sum beyond 2^64-1. (Byte 2^64-1 can therefore be locked only as part of a
// range to the end of file, and EOF is unambiguous.)
func FromOffset(offset, length uint64) (Range, bool) {
	if length == EOF {
		return Range{offset, EOF}, true
	}
	if length == 0 || length > EOF-offset {
		return Range{}, false
	}
	return Range{offset, offset + length - 1}, true
}

// Length returns the number of bytes, or all ones for a range to the end of file.
func (r Range) Length() uint64 {
	if r.End == EOF {
		return EOF
	}
	return r.End - r.Start + 1
}

// Lock is one lock.
type Lock[O any] struct {
	Owner O
	Range
	Write bool // exclusive; otherwise shared
}

// Set is the locks of one file.
type Set[O any] struct {
	compare func(a, b O) int
	owners  []owned[O] // ascending by owner; none is empty
	count   int
}

// owned is the locks of one owner: ascending, disjoint, and locks of the same kind never adjacent.
type owned[O any] struct {
	owner O
	locks []span
}

type span struct {
	Range
	write bool
}

// New returns an empty set. compare orders owners (as cmp.Compare does) and says which are the same.
func New[O any](compare func(a, b O) int) *Set[O] { return &Set[O]{compare: compare} }

// Len returns the number of locks.
func (s *Set[O]) Len() int { return s.count }

// Held reports whether owner holds any lock.
func (s *Set[O]) Held(owner O) bool {
	_, ok := s.find(owner)
	return ok
}

// All returns all locks, by owner, then start.
func (s *Set[O]) All() iter.Seq[Lock[O]] {
	return func(yield func(Lock[O]) bool) {
		for _, o := range s.owners {
			for _, l := range o.locks {
				if !yield(Lock[O]{o.owner, l.Range, l.write}) {
					return
				}
			}
		}
	}
}

func (s *Set[O]) find(owner O) (int, bool) {
	return slices.BinarySearchFunc(s.owners, owner, func(o owned[O], owner O) int { return s.compare(o.owner, owner) })
}

// firstEndingAt returns the index of the first lock whose End is at or beyond at.
func firstEndingAt(locks []span, at uint64) int {
	return sort.Search(len(locks), func(i int) bool { return locks[i].End >= at })
}

// Conflict returns the first lock of another owner (lowest start, then owner) that forbids owner to lock r. Its cost is linear in the
// owners and logarithmic in the locks of each.
func (s *Set[O]) Conflict(owner O, r Range, write bool) (Lock[O], bool) {
	var first Lock[O]
	found := false
	for i := range s.owners {
		o := &s.owners[i]
		if s.compare(o.owner, owner) == 0 {
			continue
		}
		for _, l := range o.locks[firstEndingAt(o.locks, r.Start):] {
			if l.Start > r.End || found && l.Start >= first.Start {
				break
			}
			if write || l.write {
				first, found = Lock[O]{o.owner, l.Range, l.write}, true
				break
			}
		}
	}
	return first, found
}

// Changes collects what an operation did to a set, for a caller that mirrors it: first the Removed went, then the Added came.
type Changes[O any] struct {
	Removed, Added []Lock[O]
}

// Reset empties c and keeps its memory.
func (c *Changes[O]) Reset() {
	clear(c.Removed)
	clear(c.Added)
	c.Removed, c.Added = c.Removed[:0], c.Added[:0]
}

// Lock gives owner a lock on r, in place of whatever owner held there. The caller has made sure that Conflict finds none. At most two
// locks are added to the count. What changed is appended to ch, unless it is nil.
func (s *Set[O]) Lock(owner O, r Range, write bool, ch *Changes[O]) {
	i, ok := s.find(owner)
	if !ok {
		s.owners = slices.Insert(s.owners, i, owned[O]{owner: owner})
	}
	locks := s.owners[i].locks
	// Neighbours count too: of the same kind they merge. The bounds cannot overflow at either end.
	lo := firstEndingAt(locks, max(r.Start, 1)-1)
	hi := lo
	merged := span{r, write}
	var put [3]span
	n := 0
	var tail span
	hasTail := false
	for ; hi < len(locks) && (r.End == EOF || locks[hi].Start <= r.End+1); hi++ {
		l := locks[hi]
		if l.write == write {
			merged.Start, merged.End = min(merged.Start, l.Start), max(merged.End, l.End)
			continue
		}
		if l.Start < r.Start {
			put[n] = span{Range{l.Start, min(l.End, r.Start-1)}, l.write}
			n++
		}
		if l.End > r.End {
			tail, hasTail = span{Range{max(l.Start, r.End+1), l.End}, l.write}, true
		}
	}
	put[n] = merged
	n++
	if hasTail {
		put[n] = tail
		n++
	}
	s.replace(i, lo, hi, put[:n], ch)
}

// Unlock takes owner's locks on r away, splitting what reaches beyond it.
func (s *Set[O]) Unlock(owner O, r Range, ch *Changes[O]) {
	i, ok := s.find(owner)
	if !ok {
		return
	}
	locks := s.owners[i].locks
	lo := firstEndingAt(locks, r.Start)
	hi := lo
	var put [2]span
	n := 0
	for ; hi < len(locks) && locks[hi].Start <= r.End; hi++ {
		l := locks[hi]
		if l.Start < r.Start {
			put[n] = span{Range{l.Start, r.Start - 1}, l.write}
			n++
		}
		if l.End > r.End {
			put[n] = span{Range{r.End + 1, l.End}, l.write}
			n++
		}
	}
	s.replace(i, lo, hi, put[:n], ch)
}

// Splits reports whether Unlock of r would leave one lock more than before.
func (s *Set[O]) Splits(owner O, r Range) bool {
	i, ok := s.find(owner)
	if !ok {
		return false
	}
	locks := s.owners[i].locks
	k := firstEndingAt(locks, r.Start)
	return k < len(locks) && locks[k].Start < r.Start && locks[k].End > r.End
}

// Drop takes all of owner's locks away.
func (s *Set[O]) Drop(owner O, ch *Changes[O]) {
	if i, ok := s.find(owner); ok {
		s.replace(i, 0, len(s.owners[i].locks), nil, ch)
	}
}

// replace puts other spans in the place of locks lo to hi of the i-th owner and notes what really changed.
func (s *Set[O]) replace(i, lo, hi int, put []span, ch *Changes[O]) {
	o := &s.owners[i]
	old := o.locks[lo:hi]
	// Only the outermost can be the same before and after: neighbours of another kind, or a lock that already covered the request.
	for len(old) > 0 && len(put) > 0 && old[0] == put[0] {
		old, put, lo = old[1:], put[1:], lo+1
	}
	for len(old) > 0 && len(put) > 0 && old[len(old)-1] == put[len(put)-1] {
		old, put, hi = old[:len(old)-1], put[:len(put)-1], hi-1
	}
	if ch != nil {
		for _, l := range old {
			ch.Removed = append(ch.Removed, Lock[O]{o.owner, l.Range, l.write})
		}
		for _, l := range put {
			ch.Added = append(ch.Added, Lock[O]{o.owner, l.Range, l.write})
		}
	}
	s.count += len(put) - len(old)
	o.locks = slices.Replace(o.locks, lo, hi, put...)
	if len(o.locks) == 0 {
		s.owners = slices.Delete(s.owners, i, i+1)
	}
}
