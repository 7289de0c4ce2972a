package state

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// fakeRecorder answers with fixed slots.
type fakeRecorder struct {
	slots uint32
	seq   map[uint32]uint32 // recorded numbers by slot
	asked int
}

func (r *fakeRecorder) Slot(id SessionID, slot uint32) (SlotInfo, Status) {
	r.asked++
	if r.slots == 0 {
		return SlotInfo{}, ErrBadSession
	}
	if slot >= r.slots {
		return SlotInfo{Slots: r.slots}, ErrBadSlot
	}
	seq, ok := r.seq[slot]
	return SlotInfo{Slots: r.slots, Seq: seq, Used: ok}, OK
}

func sessionOf(client ClientID, counter byte) SessionID {
	var id SessionID
	id[7], id[15] = byte(client), counter
	return id
}

// TestAdmit runs sequences of requests against one slot of a front: RFC 8881 section 2.10.6.1, and DESIGN's rules after a change of leaders.
func TestAdmit(t *testing.T) {
	const read, mut = false, true
	type req struct {
		seq      uint32
		mutating bool
		want     Status
	}
	const top = math.MaxUint32
	tests := []struct {
		name     string
		born     bool   // the session is this front's own
		recorded uint32 // in the slot; 0: unused
		reqs     []req
	}{
		{"new session starts at 1", true, 0, []req{{2, read, ErrSeqMisordered}, {0, read, ErrSeqMisordered}, {1, read, OK}, {2, mut, OK}, {3, read, OK}}},
		{"retries of the same kind", true, 0, []req{{1, read, OK}, {1, read, OK}, {2, mut, OK}, {2, mut, OK}, {3, read, OK}}},
		{"others are misordered", true, 0, []req{{1, read, OK}, {2, mut, OK}, {1, read, ErrSeqMisordered}, {4, read, ErrSeqMisordered}, {3, read, OK}}},
		{"probe of an interrupted mutation", true, 0, []req{{1, mut, OK}, {1, read, ErrSeqFalseRetry}, {2, read, OK}}},
		{"mutation under a read's number", true, 0, []req{{1, read, OK}, {1, mut, ErrSeqFalseRetry}, {2, mut, OK}}},
		{"failover, unused slot", false, 0, []req{{4711, read, OK}, {4712, mut, OK}, {4714, mut, OK}, {4713, read, ErrSeqMisordered}}},
		{"failover, retry of the recorded", false, 10, []req{{10, mut, OK}, {11, read, OK}, {10, mut, ErrSeqMisordered}}},
		{"failover, after reads", false, 10, []req{{17, read, OK}, {17, read, OK}, {18, mut, OK}}},
		{"failover, retry of a read", false, 10, []req{{14, read, OK}, {15, read, OK}}},
		{"failover, the next mutation", false, 10, []req{{11, mut, OK}, {12, mut, OK}}},
		{"failover, probe at the recorded", false, 10, []req{{10, read, OK}, {10, read, OK}, {11, mut, OK}}},
		{"failover, probe at the recorded, then its retry", false, 10, []req{{10, read, OK}, {10, mut, OK}, {11, mut, OK}}},
		{"failover, late copies", false, 10, []req{{9, mut, ErrSeqMisordered}, {8, read, ErrSeqMisordered}, {11, read, OK}}},
		{"failover, an old read first, then the client", false, 10, []req{{12, read, OK}, {15, read, OK}, {16, read, OK}, {18, read, OK}}},
		{"failover, no jump back", false, 10, []req{{15, read, OK}, {12, read, ErrSeqMisordered}, {16, read, OK}}},
		{"wraparound", false, top - 1, []req{{top, mut, OK}, {0, read, OK}, {1, mut, OK}, {0, read, ErrSeqMisordered}}},
		{"wraparound at once", false, top, []req{{0, mut, OK}, {1, read, OK}}},
		{"wraparound, late copy", false, 3, []req{{top, mut, ErrSeqMisordered}, {4, mut, OK}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rec := &fakeRecorder{slots: 4, seq: map[uint32]uint32{}}
			if tt.recorded != 0 {
				rec.seq[1] = tt.recorded
			}
			next := uint64(200)
			if tt.born {
				next = 50
			}
			f := NewFront[int](FrontConfig{}, next, 0)
			for i, r := range tt.reqs {
				a := SequenceArgs{Session: sessionOf(9, 100), Slot: 1, Highest: 3, Seq: r.seq}
				if st := f.Admit(rec, a, int64(i), r.mutating); st != r.want {
					t.Errorf("request %d (%d): status %d, want %d", i, r.seq, st, r.want)
				}
			}
		})
	}
}

func TestAdmitBounds(t *testing.T) {
	for _, known := range []bool{false, true} {
		rec := &fakeRecorder{slots: 4}
		f := NewFront[int](FrontConfig{}, 200, 0)
		id := sessionOf(9, 100)
		if known {
			f.Admit(rec, SequenceArgs{Session: id, Slot: 0, Seq: 1}, 0, false)
			f.Admit(rec, SequenceArgs{Session: id, Slot: 3, Seq: 1}, 0, false)
		}
		for _, tt := range []struct {
			slot, highest uint32
			want          Status
		}{{4, 3, ErrBadSlot}, {1 << 31, 3, ErrBadSlot}, {3, 4, ErrBadHighSlot}, {3, math.MaxUint32, ErrBadHighSlot}, {3, 3, OK}} {
			if st := f.Admit(rec, SequenceArgs{Session: id, Slot: tt.slot, Highest: tt.highest, Seq: 1}, 0, false); st != tt.want {
				t.Errorf("known %v, slot %d, highest %d: %d, want %d", known, tt.slot, tt.highest, st, tt.want)
			}
		}
	}
	f := NewFront[int](FrontConfig{}, 200, 0)
	if st := f.Admit(&fakeRecorder{}, SequenceArgs{}, 0, false); st != ErrBadSession {
		t.Errorf("no session: %d", st)
	}
	if len(f.sessions) != 0 || len(f.clients) != 0 {
		t.Error("a session that does not exist left an entry")
	}
}

// The recorder is asked once per slot, not per request: behind it is the volume's lock.
func TestAdmitAsksOnce(t *testing.T) {
	rec := &fakeRecorder{slots: 2}
	f := NewFront[int](FrontConfig{}, 200, 0)
	for seq := range uint32(100) {
		for slot := range uint32(2) {
			if st := f.Admit(rec, SequenceArgs{Session: sessionOf(9, 100), Slot: slot, Seq: seq}, 0, seq%2 == 0); st != OK {
				t.Fatal(st)
			}
		}
	}
	if rec.asked != 2 {
		t.Errorf("asked %d times, want 2", rec.asked)
	}
}

func TestLease(t *testing.T) {
	const second = int64(1e9)
	w := newWorld(t)
	a, sa := w.client("a")
	b, _ := w.client("b")
	c := w.unconfirmed("c", 1)
	f := NewFront[int](FrontConfig{Lease: 60 * second}, w.NextCounter(), 1000*second)
	expired := func(at int64) string {
		// The caller sweeps every 5 s; so does the test.
		var out []ClientID
		for now := f.lastSweep; now < at*second; {
			now = min(now+5*second, at*second)
			out = f.Expired(w.Tables, now)
		}
		return fmt.Sprintf("%x", out)
	}
	want := func(at int64, ids ...ClientID) {
		t.Helper()
		if got, w := expired(at), fmt.Sprintf("%x", ids); got != w {
			t.Errorf("at %d s: expired %s, want %s", at, got, w)
		}
	}
	want(1001)
	want(1080)
	if st := f.Admit(w.Tables, SequenceArgs{Session: sa, Seq: 1}, 1080*second, false); st != OK {
		t.Fatal(st)
	}
	// The leases began when the front saw the clients for the first time, at 1001 s.
	f.Renew(c, 1090*second)
	want(1091)
	want(1092, b)
	want(1093, b)
	w.ExpireClient(w.kv, b)
	want(1094)
	// A request that is refused renews too: the client is alive.
	if st := f.Admit(w.Tables, SequenceArgs{Session: sa, Seq: 99}, 1160*second, false); st != OK {
		t.Fatal(st)
	}
	if st := f.Admit(w.Tables, SequenceArgs{Session: sa, Seq: 50}, 1165*second, false); st != ErrSeqMisordered {
		t.Fatal(st)
	}
	want(1180)
	want(1181, c)
	want(1255, c)
	// The process was stopped for a while: nobody is to blame for silence, but for what had come to its end before.
	if got := f.Expired(w.Tables, 2000*second); len(got) != 1 || got[0] != c {
		t.Errorf("expired %x after a pause", got)
	}
	want(2090, c)
	want(2091, a, c)
	w.ExpireClient(w.kv, a)
	want(2092, c)
	if len(f.sessions) != 0 || len(f.clients) != 1 {
		t.Errorf("%d sessions and %d clients remembered", len(f.sessions), len(f.clients))
	}
}

// TestLapse has a client come back when its end is under way already: nobody tells it that its lease goes on.
func TestLapse(t *testing.T) {
	w := newWorld(t)
	id, session := w.client("a")
	f := NewFront[string](FrontConfig{Lease: 60}, 0, 0)
	f.Expired(w.Tables, 0)
	if got := f.Expired(w.Tables, 29); len(got) != 0 {
		t.Fatalf("expired %x", got)
	}
	for now := int64(58); now <= 116; now += 29 {
		f.Expired(w.Tables, now)
	}
	for _, mutating := range []bool{false, true} {
		if st := f.Admit(w.Tables, SequenceArgs{Session: session, Seq: 1}, 120, mutating); st != ErrDelay {
			t.Errorf("SEQUENCE: status %d", st)
		}
	}
	f.Bind(session, "c", 120)
	if st := f.Renew(id, 120); st != ErrDelay {
		t.Errorf("CREATE_SESSION: status %d", st)
	}
	if got := f.Expired(w.Tables, 120); len(got) != 1 || got[0] != id {
		t.Errorf("expired %x", got)
	}
	w.ExpireClient(w.kv, id)
	if st := f.Admit(w.Tables, SequenceArgs{Session: session, Seq: 1}, 121, false); st != ErrBadSession {
		t.Errorf("SEQUENCE after its end: status %d", st)
	}
}

// RFC 8881 section 18.46.3: the flags tell the client to bind its connection again after a failover.
func TestBackChannels(t *testing.T) {
	const down, sessionDown = StatusCBPathDown, StatusCBPathDownSession
	w := newWorld(t)
	id, s1 := w.client("a")
	s2 := w.session(id).Session
	f := NewFront[string](FrontConfig{}, 0, 0)
	flags := func(want1, want2 uint32) {
		t.Helper()
		if g1, g2 := f.StatusFlags(s1, true), f.StatusFlags(s2, true); g1 != want1 || g2 != want2 {
			t.Errorf("flags %x, %x, want %x, %x", g1, g2, want1, want2)
		}
	}
	flags(down|sessionDown, down|sessionDown)
	if f.StatusFlags(s1, false) != 0 {
		t.Error("flags for a session without a back channel")
	}
	f.Bind(s1, "c1", 0)
	flags(0, sessionDown)
	f.Bind(s1, "c2", 0)
	f.Bind(s2, "c2", 0)
	flags(0, 0)
	if c, ok := f.backChannel(s1); !ok || c != "c2" {
		t.Errorf("back channel %q, %v, want the last bound", c, ok)
	}
	f.Bind(s1, "c1", 0)
	if c, _ := f.backChannel(s1); c != "c1" {
		t.Errorf("back channel %q, want the one bound again", c)
	}
	f.Unbind("c2")
	f.Unbind("never bound")
	if s, c, ok := f.BackChannelOf(id); !ok || s != s1 || c != "c1" {
		t.Errorf("back channel of the client: %v %q %v", s, c, ok)
	}
	f.Unbind("c1")
	flags(down|sessionDown, down|sessionDown)
	if _, _, ok := f.BackChannelOf(id); ok {
		t.Error("a back channel after all are closed")
	}
	for i := range 40 {
		f.Bind(s1, fmt.Sprint(i), 0)
	}
	if n := len(f.sessions[s1].conns); n != maxBackConns || len(f.conns) != maxBackConns {
		t.Errorf("%d connections kept, %d indexed", n, len(f.conns))
	}
	w.DestroySession(w.kv, s1)
	f.Expired(w.Tables, 1)
	if len(f.conns) != 0 || slices.Contains(f.clients[id].sessions, s1) {
		t.Error("a destroyed session is remembered")
	}
}
