package sim

import (
	"encoding/binary"
	"hash/fnv"
	"io"
	"math/rand/v2"
)

// stream is a source of randomness. Each thing that draws has one of its own: each fault, process of a client, node, link. So what is left out of a run (see
// Config.Only, Config.Processes) does not change what the others draw, and what is left stays as near as can be to what it was.
type stream struct{ *rand.Rand }

// stream returns the source of something by its name and numbers; it follows from those and the seed.
func (w *World) stream(name string, numbers ...uint64) stream {
	h := fnv.New64a()
	io.WriteString(h, name)
	var b [8]byte
	for _, n := range numbers {
		binary.BigEndian.PutUint64(b[:], n)
		h.Write(b[:])
	}
	return stream{rand.New(rand.NewPCG(w.cfg.Seed, h.Sum64()))}
}

// between draws a duration.
func (s stream) between(lo, hi int64) int64 { return lo + s.Int64N(hi-lo+1) }

// chance draws true with probability p.
func (s stream) chance(p float64) bool { return p > 0 && s.Float64() < p }
