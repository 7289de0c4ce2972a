package store

import (
	"hash/fnv"
	"math/bits"
)

// node is a node of a persistent treap: an ordered map in which every change makes a new root and leaves all older roots as they were. So a
// snapshot is a root, a crash goes back to an older root, and a scan needs no lock. Priorities are hashes of the keys: the shape of a
// tree depends on its keys alone, never on chance.
type node struct {
	key, value  []byte
	pri         uint64
	left, right *node
}

// priority spreads FNV-1a, whose high bits are weak for short keys.
func priority(key []byte) uint64 {
	h := fnv.New64a()
	h.Write(key)
	hi, lo := bits.Mul64(h.Sum64(), 0x9e3779b97f4a7c15)
	return hi ^ lo
}

func compare(a, b []byte) int {
	switch as, bs := string(a), string(b); {
	case as < bs:
		return -1
	case as > bs:
		return 1
	}
	return 0
}

func (n *node) get(key []byte) ([]byte, bool) {
	for n != nil {
		switch c := compare(key, n.key); {
		case c == 0:
			return n.value, true
		case c < 0:
			n = n.left
		default:
			n = n.right
		}
	}
	return nil, false
}

// split returns the nodes with keys < key and those with keys >= key.
func (n *node) split(key []byte) (less, rest *node) {
	if n == nil {
		return nil, nil
	}
	m := *n
	if compare(n.key, key) < 0 {
		m.right, rest = n.right.split(key)
		return &m, rest
	}
	less, m.left = n.left.split(key)
	return less, &m
}

// merge joins two trees of which every key of a is less than every key of b.
func merge(a, b *node) *node {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.pri >= b.pri:
		m := *a
		m.right = merge(a.right, b)
		return &m
	default:
		m := *b
		m.left = merge(a, b.left)
		return &m
	}
}

func (n *node) set(key, value []byte) *node {
	return n.insert(&node{key: key, value: value, pri: priority(key)})
}

func (n *node) insert(x *node) *node {
	if n == nil {
		return x
	}
	c := compare(x.key, n.key)
	if c == 0 {
		m := *n
		m.value = x.value
		return &m
	}
	if x.pri > n.pri {
		// Equal keys have equal priorities, so x.key cannot be below n.
		x.left, x.right = n.split(x.key)
		return x
	}
	m := *n
	if c < 0 {
		m.left = n.left.insert(x)
	} else {
		m.right = n.right.insert(x)
	}
	return &m
}

func (n *node) remove(key []byte) *node {
	if _, ok := n.get(key); !ok {
		return n
	}
	c := compare(key, n.key)
	if c == 0 {
		return merge(n.left, n.right)
	}
	m := *n
	if c < 0 {
		m.left = n.left.remove(key)
	} else {
		m.right = n.right.remove(key)
	}
	return &m
}

func (n *node) removeRange(lo, hi []byte) *node {
	if compare(lo, hi) >= 0 {
		return n
	}
	a, rest := n.split(lo)
	_, b := rest.split(hi)
	return merge(a, b)
}

// scan calls fn for the keys in [lo, hi) in order (hi nil: to the end) and reports whether fn wanted more.
func (n *node) scan(lo, hi []byte, fn func(key, value []byte) bool) bool {
	if n == nil {
		return true
	}
	above := compare(n.key, lo) >= 0
	below := hi == nil || compare(n.key, hi) < 0
	if above && !n.left.scan(lo, hi, fn) {
		return false
	}
	if above && below && !fn(n.key, n.value) {
		return false
	}
	if below {
		return n.right.scan(lo, hi, fn)
	}
	return true
}

// apply returns the tree after the changes of b; it copies what it keeps.
func (n *node) apply(b *Batch) *node {
	for _, op := range b.Ops {
		switch op.Kind {
		case OpSet:
			kv := make([]byte, len(op.Key)+len(op.Value))
			k := copy(kv, op.Key)
			copy(kv[k:], op.Value)
			n = n.set(kv[:k:k], kv[k:])
		case OpDelete:
			n = n.remove(op.Key)
		case OpDeleteRange:
			n = n.removeRange(op.Key, op.Value)
		}
	}
	return n
}
