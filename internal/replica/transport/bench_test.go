package transport

import (
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"
)

// benchmark runs a benchmark with two nodes, and tells the processor time that both take.
func benchmark(b *testing.B, run func(x, y *node)) {
	c := newCluster(b, 1, 2)
	x, y := c.start(1, nil), c.start(2, nil)
	before := cpu(b)
	run(x, y)
	b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

// BenchmarkEntries sends entries of 1 MiB, one acknowledged after the other, eight under way.
func BenchmarkEntries(b *testing.B) {
	benchmark(b, func(x, y *node) {
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
	benchmark(b, func(x, y *node) {
		m := raftpb.Message{Type: raftpb.MsgApp, From: 1, To: 2, Term: 1, Entries: []raftpb.Entry{{Index: 1, Term: 1, Data: make([]byte, 4<<10)}}}
		ack := raftpb.Message{Type: raftpb.MsgAppResp, From: 2, To: 1, Term: 1, Index: 1}
		reach(b, x, y, m)
		reach(b, y, x, ack)
		drain(y.received)
		drain(x.received)
		y.Join(1, 2, echoHandler{y.recorder, y.group, ack})
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

// cpu returns how much processor time the process has taken, which other load on the machine changes less than the time that passes.
func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
