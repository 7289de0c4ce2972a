package gateway

import (
	"bytes"
	"errors"
	"testing"

	"github.com/buildbarn/go-xdr/pkg/protocols/nfsv4"

	"holdfast/internal/rpc"
	"holdfast/internal/store"
	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

const (
	statusOK    = 0
	statusDelay = 10008
	statusExist = 17
)

func TestDecode(t *testing.T) {
	h := newHarness(t)
	unknown := h.record(3, 0, 9, func(*xdr.Encoder) {})
	unknown[4*3+3]++ // the program's number
	badVersion := bytes.Clone(unknown)
	badVersion[4*2+3] = 3 // RPC version
	for _, tt := range []struct {
		name   string
		record []byte
		reply  bool
		err    error
	}{
		{"a call", h.getattr(), false, nil},
		{"another program is the volume's to refuse", unknown, false, nil},
		{"another RPC version is refused here", badVersion, true, nil},
		{"no call at all", []byte("GET / HTTP/1.1\r\n\r\n"), false, ErrHangUp},
		{"nothing", nil, false, ErrHangUp},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var req Request
			reply, err := h.g.Decode(h.conn, tt.record, &req)
			if !errors.Is(err, tt.err) || (reply != nil) != tt.reply {
				t.Errorf("reply %x, error %v", reply, err)
			}
			if tt.err == nil && !tt.reply && (req.Client != h.conn.addr || req.Mutates) {
				t.Errorf("request %+v", req)
			}
		})
	}
	var req Request
	_, err := h.g.Decode(h.conn, unknown, &req)
	h.must(err)
	var e xdr.Encoder
	h.must(h.g.Read(h.conn, &req, &e))
	var rejected *rpc.ReplyError
	if _, _, err := rpc.ParseReply(e.Bytes()); !errors.As(err, &rejected) {
		t.Errorf("an unknown program is answered with %v", err)
	}
}

func TestReadUnderLease(t *testing.T) {
	h := newHarness(t)
	var e xdr.Encoder
	e.Uint32(1) // what was there before stays
	h.must(h.g.Read(h.conn, h.decode(h.getattr(), false), &e))
	if st := h.status(e.Bytes()[4:]); st != statusOK {
		t.Errorf("status %d", st)
	}
	looks := 0
	for _, tt := range []struct {
		name    string
		serving func() bool
		looks   int
	}{
		{"no lease before", func() bool { looks++; return false }, 1},
		{"lease lost in the middle", func() bool { looks++; return looks == 1 }, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			looks = 0
			h.raft.serving = tt.serving
			var e xdr.Encoder
			e.Uint32(1)
			if err := h.g.Read(h.conn, h.decode(h.getattr(), false), &e); !errors.Is(err, ErrNotServing) {
				t.Errorf("error %v", err)
			}
			if e.Len() != 4 {
				t.Errorf("%d bytes of a reply that must not leave", e.Len()-4)
			}
			if looks != tt.looks {
				t.Errorf("looked %d times at the lease, want %d", looks, tt.looks)
			}
		})
	}
}

// TestReadAfterFailedApply reads between the moment at which an entry fails half done and that at which the replica notices.
func TestReadAfterFailedApply(t *testing.T) {
	h := newHarness(t)
	e := volume.Entry{Kind: 77}
	if _, err := h.volume.Apply(h.index+1, e.Encode()); err == nil {
		t.Fatal("an entry of an unknown kind was applied")
	}
	var reply xdr.Encoder
	if err := h.g.Read(h.conn, h.decode(h.getattr(), false), &reply); !errors.Is(err, ErrNotServing) || reply.Len() != 0 {
		t.Errorf("error %v and %d bytes of a reply", err, reply.Len())
	}
}

// TestReadDamaged reads what the node's own disk does not give back any more: the caller learns of it, and decides whether the client hears of it.
func TestReadDamaged(t *testing.T) {
	const statusIO = 5
	h := newHarness(t)
	s := h.newSession()
	lookup := func() []byte { // looks for a name that nobody has asked for yet, which no cache knows
		return h.call(proc3Lookup, func(e *xdr.Encoder) { e.Opaque(h.fh); e.String("x") })
	}
	h.store.rotten = true
	for _, tt := range []struct {
		name   string
		record []byte
	}{
		{"version 3", lookup()},
		{"version 4", s.next(s.putfh(), &nfsv4.NfsArgop4_OP_LOOKUP{Oplookup: nfsv4.Lookup4args{Objname: "x"}})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := h.decode(tt.record, false)
			for range 2 { // it may be tried again
				var e xdr.Encoder
				if err := h.g.Read(h.conn, req, &e); !errors.Is(err, ErrDamaged) || !errors.Is(err, store.ErrUnreadable) {
					t.Fatalf("error %v", err)
				}
				if st := h.status(e.Bytes()); st != statusIO {
					t.Errorf("status %d", st)
				}
			}
			// Who does not serve says nothing of its disk.
			looks := 0
			h.raft.serving = func() bool { looks++; return looks%2 == 1 }
			defer func() { h.raft.serving = func() bool { return true } }()
			var e xdr.Encoder
			if err := h.g.Read(h.conn, req, &e); !errors.Is(err, ErrNotServing) || errors.Is(err, ErrDamaged) || e.Len() > 0 {
				t.Errorf("error %v and %d bytes of a reply", err, e.Len())
			}
		})
	}
	var e xdr.Encoder
	h.must(h.g.Read(h.conn, h.decode(h.getattr(), false), &e)) // what is in memory is whole
	if _, err := h.volume.Apply(h.index+1, (&volume.Entry{Kind: volume.EntryCall, Rules: h.rules, Payload: h.mkdir("y")}).Encode()); !errors.Is(err, store.ErrUnreadable) {
		t.Errorf("an entry that needs what cannot be read: %v", err)
	}
}

// TestReadAgain sends a version 4 request that lost the lease in its middle through the gateway once more, as the node does when the lease is back.
func TestReadAgain(t *testing.T) {
	h := newHarness(t)
	s := h.newSession()
	req := h.decode(s.next(s.putfh(), getattr4()), false)
	looks := 0
	h.raft.serving = func() bool { looks++; return looks != 2 }
	var e xdr.Encoder
	if err := h.g.Read(h.conn, req, &e); !errors.Is(err, ErrNotServing) {
		t.Fatalf("error %v", err)
	}
	h.must(h.g.Read(h.conn, req, &e))
	h.result(e.Bytes())
}

func TestProposeAnswersOnce(t *testing.T) {
	h := newHarness(t)
	done, err := h.propose(h.mkdir("a"))
	h.must(err)
	if *done != 0 || len(h.conn.replies) != 0 || h.g.Waiting() != 1 {
		t.Fatalf("before the entry is applied: done %d, %d replies, %d waiting", *done, len(h.conn.replies), h.g.Waiting())
	}
	entry := h.raft.entries[0]
	h.applyAll()
	if st := h.status(h.lastReply()); st != statusOK || *done != 1 || h.g.Waiting() != 0 {
		t.Errorf("status %d, done %d, %d waiting", st, *done, h.g.Waiting())
	}
	// A former leader's entry that gets into the log again, or a replay, answers nobody.
	h.g.Applied(entry, []byte("reply"))
	h.g.Applied(entry[:15], []byte("reply"))
	if len(h.conn.replies) != 0 || *done != 1 {
		t.Errorf("answered again: %d replies, done %d", len(h.conn.replies), *done)
	}
}

func TestAppliedOfOtherNode(t *testing.T) {
	h := newHarness(t)
	done, err := h.propose(h.mkdir("a"))
	h.must(err)
	var e volume.Entry
	h.must(volume.DecodeEntry(h.raft.entries[0], &e))
	e.Proposal ^= 1 << counterBits
	h.g.Applied(e.Encode(), []byte("reply"))
	if *done != 0 || len(h.conn.replies) != 0 {
		t.Error("another node's entry answered this node's waiter")
	}
}

// TestDone counts the calls of done on every path that a proposal can take.
func TestDone(t *testing.T) {
	for _, tt := range []struct {
		name string
		run  func(h *harness) (done *int, err error)
		done int
		err  error
	}{
		{"applied", func(h *harness) (*int, error) {
			done, err := h.propose(h.mkdir("a"))
			h.applyAll()
			return done, err
		}, 1, nil},
		{"not serving", func(h *harness) (*int, error) {
			record := h.mkdir("a")
			h.raft.serving = func() bool { return false }
			return h.propose(record)
		}, 0, ErrNotServing},
		{"refused by raft", func(h *harness) (*int, error) {
			h.raft.refuse = func() error { return errRefused }
			return h.propose(h.mkdir("a"))
		}, 0, errRefused},
		{"dropped while it waits", func(h *harness) (*int, error) {
			done, err := h.propose(h.mkdir("a"))
			h.g.Follow()
			return done, err
		}, 1, nil},
		{"dropped, then applied after all", func(h *harness) (*int, error) {
			done, err := h.propose(h.mkdir("a"))
			h.g.Follow()
			h.applyAll()
			if n := len(h.conn.replies); n != 0 {
				h.t.Errorf("%d replies after Follow", n)
			}
			return done, err
		}, 1, nil},
		{"dropped while raft decides, and refused", func(h *harness) (*int, error) {
			h.raft.refuse = func() error { h.g.Follow(); return errRefused }
			return h.propose(h.mkdir("a"))
		}, 1, nil},
		{"applied before Propose returns", func(h *harness) (*int, error) {
			off := HeadroomBytes(1)
			buf := append(make([]byte, off), h.mkdir("a")...)
			h.raft.refuse = func() error { h.applyEntry(buf); return nil }
			done := 0
			err := h.g.Propose(h.conn, h.decode(buf[off:], true), buf, off, func() { done++ })
			return &done, err
		}, 1, nil},
		{"answered by the front", func(h *harness) (*int, error) {
			s := h.newSession()
			s.seq += 7
			done, err := h.propose(s.next(s.putfh(), mkdir4("a")))
			if len(h.raft.entries) != 0 {
				h.t.Error("a request out of order was proposed")
			}
			h.lastReply()
			return done, err
		}, 1, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHarness(t)
			done, err := tt.run(h)
			if !errors.Is(err, tt.err) || tt.err == nil && err != nil {
				t.Errorf("error %v, want %v", err, tt.err)
			}
			if *done != tt.done {
				t.Errorf("done was called %d times, want %d", *done, tt.done)
			}
			if h.g.Waiting() != 0 {
				t.Errorf("%d still wait", h.g.Waiting())
			}
		})
	}
}

func TestFollowStopsServing(t *testing.T) {
	h := newHarness(t)
	s := h.newSession()
	h.g.Follow()
	var e xdr.Encoder
	// The lease is still there for a moment; the leader's own tables are not.
	if err := h.g.Read(h.conn, h.decode(s.next(s.putfh(), getattr4()), false), &e); !errors.Is(err, ErrNotServing) {
		t.Errorf("Read: %v", err)
	}
	if _, err := h.propose(s.same(s.putfh(), mkdir4("a"))); !errors.Is(err, ErrNotServing) {
		t.Errorf("Propose: %v", err)
	}
	h.g.ConnClosed(h.conn) // finds nothing to forget
	h.g.Tick()
	h.raft.serving = func() bool { return false }
	if err := h.g.Command(volume.EntryMark, h.conn.addr, nil); !errors.Is(err, ErrNotServing) {
		t.Errorf("Command: %v", err)
	}
}

// TestAnotherTerm loses the leadership and has it again before the gateway is told: what it saw of slots and leases in the first one is not held against clients, who were served elsewhere since.
func TestAnotherTerm(t *testing.T) {
	h := newHarness(t)
	s := h.newSession()
	h.raft.term = 3
	elsewhere := s.next(s.putfh(), mkdir4("a"))
	for range 5 {
		elsewhere = s.next(s.putfh(), getattr4())
	}
	var e xdr.Encoder
	if err := h.g.Read(h.conn, h.decode(elsewhere, false), &e); !errors.Is(err, ErrNotServing) || e.Len() > 0 {
		t.Errorf("Read: %v, %d bytes", err, e.Len())
	}
	if _, err := h.propose(s.same(s.putfh(), mkdir4("b"))); !errors.Is(err, ErrNotServing) || len(h.conn.replies) > 0 {
		t.Errorf("Propose: %v, %d replies", err, len(h.conn.replies))
	}
	for range 12 {
		h.clock.now += 10e9
		h.g.Tick()
	}
	if len(h.raft.entries) > 0 {
		t.Error("a client was expired by the leases of an earlier leadership")
	}
	h.g.Follow()
	h.g.Lead(3)
	e.Reset(nil)
	h.must(h.g.Read(h.conn, h.decode(s.same(s.putfh(), getattr4()), false), &e))
	if st := h.status(e.Bytes()); st != statusOK {
		t.Errorf("status %d", st)
	}
}

// TestDuplicates sends a request again after a change of leaders that lost its reply: what was executed is not executed again, and the reply is the first one.
func TestDuplicates(t *testing.T) {
	h := newHarness(t)
	s := h.newSession()
	for _, tt := range []struct {
		name     string
		record   []byte
		mustFail func() []byte
	}{
		{"version 3", h.mkdir("three"), func() []byte { return h.mkdir("three") }},
		{"version 4", s.next(s.putfh(), mkdir4("four")), func() []byte { return s.next(s.putfh(), mkdir4("four")) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := h.propose(tt.record)
			h.must(err)
			// The leader changes before the entry is applied; its client connects to the next one, from another port.
			h.g.Follow()
			h.g.Lead(1)
			h.conn = &fakeConn{addr: h.conn.addr}
			_, err = h.propose(tt.record)
			h.must(err)
			if n := h.applyAll(); n != 2 {
				t.Fatalf("%d entries", n)
			}
			if st := h.status(h.lastReply()); st != statusOK {
				t.Errorf("the copy got status %d", st)
			}
			_, err = h.propose(tt.mustFail())
			h.must(err)
			h.applyAll()
			if st := h.status(h.lastReply()); st != statusExist {
				t.Errorf("a new request got status %d, want %d", st, statusExist)
			}
		})
	}
}

func TestHeader(t *testing.T) {
	for _, tt := range []struct {
		name    string
		off     int
		inPlace bool
	}{
		{"exact room", HeadroomBytes(1), true},
		{"more room than needed", HeadroomBytes(1) + 64, true},
		{"a byte too little", HeadroomBytes(1) - 1, false},
		{"no room", 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHarness(t)
			h.full = true
			record := h.mkdir("a")
			buf := append(make([]byte, tt.off), record...)
			req := h.decode(buf[tt.off:], true)
			h.must(h.g.Propose(h.conn, req, buf, tt.off, nil))
			entry := h.raft.entries[0]
			if got := &entry[len(entry)-1] == &buf[len(buf)-1]; got != tt.inPlace {
				t.Errorf("in place: %t, want %t", got, tt.inPlace)
			}
			var e volume.Entry
			h.must(volume.DecodeEntry(entry, &e))
			if e.Kind != volume.EntryCall || e.Client != h.conn.addr || !e.Full || e.Time == 0 || e.Random != h.clock.Random() || e.Proposal>>counterBits != testNode {
				t.Errorf("header %+v", e)
			}
			if len(e.Rules) != 1 || e.Rules[0] != h.rules[0] {
				t.Errorf("rules %+v", e.Rules)
			}
			if !bytes.Equal(e.Payload, record) {
				t.Errorf("payload %x, want %x", e.Payload, record)
			}
			h.full = false
			h.applyAll() // with done nil
			h.lastReply()
		})
	}
}

// TestProposalNumbers checks that numbers differ and keep their node, also where the counter runs over.
func TestProposalNumbers(t *testing.T) {
	h := newHarness(t)
	h.g.counter.Store(1<<counterBits - 2)
	seen := map[uint64]bool{}
	for _, name := range []string{"a", "b", "c"} {
		_, err := h.propose(h.mkdir(name))
		h.must(err)
	}
	for _, b := range h.raft.entries {
		var e volume.Entry
		h.must(volume.DecodeEntry(b, &e))
		if e.Proposal>>counterBits != testNode || seen[e.Proposal] {
			t.Errorf("proposal %x", e.Proposal)
		}
		seen[e.Proposal] = true
	}
	h.applyAll()
	if len(h.conn.replies) != 3 {
		t.Errorf("%d replies", len(h.conn.replies))
	}
}

func TestTickExpires(t *testing.T) {
	h := newHarness(t)
	s := h.newSession()
	h.g.Tick()
	if len(h.raft.entries) != 0 {
		t.Fatal("a client with a lease was expired")
	}
	for range 10 {
		h.clock.now += 10e9
		h.raft.serving = func() bool { return false }
		h.g.Tick()
	}
	if len(h.raft.entries) != 0 {
		t.Fatal("a node without the lease expired a client")
	}
	h.raft.serving = func() bool { return true }
	// What is a pause of this node's ticks is not held against the clients.
	h.g.Tick()
	if len(h.raft.entries) != 0 {
		t.Fatal("a client was expired because the node did not look")
	}
	for range 8 {
		h.clock.now += 10e9
		h.g.Tick()
	}
	if len(h.raft.entries) != 0 {
		t.Fatal("a client was expired too soon")
	}
	h.clock.now += 15e9
	h.g.Tick()
	// It comes back before its end is applied: nobody tells it that its lease goes on.
	var e xdr.Encoder
	h.must(h.g.Read(h.conn, h.decode(s.next(s.putfh(), getattr4()), false), &e))
	if st := h.status(e.Bytes()); st != statusDelay {
		t.Errorf("status %d", st)
	}
	if n := h.applyAll(); n != 1 {
		t.Fatalf("%d commands", n)
	}
	h.g.Tick()
	if len(h.raft.entries) != 0 {
		t.Error("expired again")
	}
}

// TestTickInOneTerm has the leadership end and begin anew between two expiries: the second was decided by the leases of the first leadership.
func TestTickInOneTerm(t *testing.T) {
	h := newHarness(t)
	h.newClient("a")
	h.newClient("b")
	proposed := 0
	h.raft.refuse = func() error {
		proposed++
		h.raft.term++
		return nil
	}
	for range 12 {
		h.clock.now += 10e9
		h.g.Tick()
	}
	if proposed != 1 {
		t.Errorf("%d expiries were proposed, want 1", proposed)
	}
}

func BenchmarkRead(b *testing.B) {
	for _, bb := range []struct {
		name   string
		record func(h *harness) []byte
	}{
		{"v3/GETATTR", (*harness).getattr},
		{"v4/GETATTR", func(h *harness) []byte {
			s := h.newSession()
			return s.next(s.putfh(), getattr4())
		}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			h := newHarness(b)
			record := bb.record(h)
			buf := make([]byte, 0, 4096)
			var req Request
			var e xdr.Encoder
			b.ReportAllocs()
			for b.Loop() {
				if _, err := h.g.Decode(h.conn, record, &req); err != nil {
					b.Fatal(err)
				}
				e.Reset(buf)
				if err := h.g.Read(h.conn, &req, &e); err != nil {
					b.Fatal(err)
				}
			}
			if st := h.status(e.Bytes()); st != statusOK {
				b.Fatal(st)
			}
		})
	}
}

// BenchmarkPropose measures the gateway's part of a proposal, from the record to the waiter, and back with the reply.
func BenchmarkPropose(b *testing.B) {
	h := newHarness(b)
	s := h.newSession()
	record := s.next(s.putfh(), mkdir4("a"))
	off := HeadroomBytes(1)
	buf := append(make([]byte, off), record...)
	var entry []byte
	h.raft.refuse = func() error { return nil }
	h.g.cfg.Raft = sink{h.raft, &entry}
	done := 0
	onDone := func() { done++ }
	reply := []byte("reply")
	var req Request
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.g.Decode(h.conn, buf[off:], &req); err != nil {
			b.Fatal(err)
		}
		if err := h.g.Propose(h.conn, &req, buf, off, onDone); err != nil {
			b.Fatal(err)
		}
		h.conn.replies = h.conn.replies[:0]
		h.g.Applied(entry, reply)
	}
	if done != b.N || len(h.conn.replies) != 1 {
		b.Fatalf("done %d of %d", done, b.N)
	}
}

// sink takes entries and forgets all but the last.
type sink struct {
	*fakeRaft
	last *[]byte
}

func (s sink) Propose(entry []byte) error { *s.last = entry; return nil }
