package transport

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"

	"holdfast/internal/link"
)

// benchmarkBoth runs a benchmark with connections of link, as nodes always have, and with plain TCP, to see what TLS costs.
func benchmarkBoth(b *testing.B, run func(b *testing.B, x, y *node)) {
	for _, plain := range []bool{false, true} {
		b.Run(fmt.Sprintf("plain=%t", plain), func(b *testing.B) {
			c := newCluster(b, 1, 2)
			nodes := map[uint64]*node{}
			if plain {
				lns := map[uint64]net.Listener{}
				for id := uint64(1); id <= 2; id++ {
					ln, err := net.Listen("tcp", "127.0.0.1:0")
					if err != nil {
						b.Fatal(err)
					}
					lns[id], c.addrs[id] = ln, ln.Addr().String()
				}
				for id, ln := range lns {
					c.ports[id].ln = ln
				}
			}
			for id := uint64(1); id <= 2; id++ {
				nodes[id] = c.start(id, func(cfg *Config) {
					if plain {
						cfg.Dial = dialPlain
					}
				})
			}
			before := cpu(b)
			run(b, nodes[1], nodes[2])
			b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}

var _ writer = (*link.Conn)(nil)

// BenchmarkEntries sends entries of 1 MiB, one acknowledged after the other, eight under way.
func BenchmarkEntries(b *testing.B) {
	benchmarkBoth(b, func(b *testing.B, x, y *node) {
		m := raftpb.Message{Type: raftpb.MsgApp, From: 1, To: 2, Term: 1, Entries: []raftpb.Entry{{Index: 1, Term: 1, Data: make([]byte, 1<<20)}}}
		reach(b, x, y, m)
		drain(y.received)
		b.SetBytes(1 << 20)
		b.ReportAllocs()
		under := 0
		for b.Loop() {
			if under == 8 {
				<-y.received
				under--
			}
			x.group.Send([]raftpb.Message{m})
			under++
		}
		for ; under > 0; under-- {
			<-y.received
		}
	})
}

// BenchmarkRoundTrip sends an entry of 4 KiB and waits for its acknowledgement.
func BenchmarkRoundTrip(b *testing.B) {
	benchmarkBoth(b, func(b *testing.B, x, y *node) {
		m := raftpb.Message{Type: raftpb.MsgApp, From: 1, To: 2, Term: 1, Entries: []raftpb.Entry{{Index: 1, Term: 1, Data: make([]byte, 4<<10)}}}
		ack := raftpb.Message{Type: raftpb.MsgAppResp, From: 2, To: 1, Term: 1, Index: 1}
		reach(b, x, y, m)
		reach(b, y, x, ack)
		drain(y.received)
		drain(x.received)
		y.Join(1, echoHandler{y.recorder, y.group, ack})
		b.ReportAllocs()
		for b.Loop() {
			x.group.Send([]raftpb.Message{m})
			<-x.received
		}
	})
}

// echoHandler acknowledges whatever comes.
type echoHandler struct {
	*recorder
	group *Group
	ack   raftpb.Message
}

func (h echoHandler) Receive(msgs []raftpb.Message) {
	for range msgs {
		h.group.Send([]raftpb.Message{h.ack})
	}
}

func dialPlain(ctx context.Context, _ uint64, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

// cpu returns how much processor time the process has taken, which other load on the machine changes less than the time that passes.
func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
