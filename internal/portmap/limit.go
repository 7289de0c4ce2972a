package portmap

import (
	"hash/maphash"
	"net/netip"
	"time"
)

const (
	// maxAmplification is how many times as long as its question an answer by UDP may be.
	maxAmplification = 2
	// networkRate and networkBurst bound the answers by UDP to one network, in answers a second and at once: enough for all machines of a
	// network that mount after a power cut.
	networkRate  = 200
	networkBurst = 400
	// totalRate and totalBurst bound the answers by UDP to everybody.
	totalRate  = 2000
	totalBurst = 2000
	// buckets is how many networks are told apart; those that share a bucket share its rate.
	buckets = 1024
)

// limiter bounds the answers to senders that may be forged. It belongs to one goroutine.
type limiter struct {
	seed     maphash.Seed
	total    bucket
	networks [buckets]bucket
}

func newLimiter() *limiter { return &limiter{seed: maphash.MakeSeed()} }

// allow tells whether the sender may have an answer now.
func (l *limiter) allow(from netip.Addr, now time.Time) bool {
	bits := 24
	if from.Is6() {
		bits = 56
	}
	network, err := from.WithZone("").Prefix(bits)
	if err != nil {
		return false
	}
	b := &l.networks[maphash.Comparable(l.seed, network)%buckets]
	return b.take(now, networkRate, networkBurst) && l.total.take(now, totalRate, totalBurst)
}

// bucket is a token bucket; the zero value is full.
type bucket struct {
	used float64 // tokens that are gone
	at   time.Time
}

func (b *bucket) take(now time.Time, rate, burst float64) bool {
	b.used = max(0, b.used-rate*now.Sub(b.at).Seconds())
	b.at = now
	if b.used+1 > burst {
		return false
	}
	b.used++
	return true
}
