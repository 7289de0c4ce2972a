package state

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

// RFC 8881 section 18.36.4, phase 2: the one-slot cache of CREATE_SESSION.
func TestCreateSessionSequence(t *testing.T) {
	w := newWorld(t)
	begin := func(id ClientID, seq uint32) (Verdict, string, Status) {
		v, r, st := w.BeginCreateSession(id, seq)
		return v, string(r), st
	}
	_, _, st := w.BeginCreateSession(99, 1)
	w.want("unknown client", st, ErrStaleClientID)
	r, _ := w.ExchangeID(w.kv, exchange("a", 1))
	if r.Sequence != 1 {
		t.Fatalf("first sequence %d", r.Sequence)
	}
	for _, seq := range []uint32{0, 2, ^uint32(0)} {
		if _, _, st := begin(r.Client, seq); st != ErrSeqMisordered {
			t.Errorf("sequence %d at first: %d", seq, st)
		}
	}
	if v, _, st := begin(r.Client, 1); v != New || st != OK {
		t.Fatalf("sequence 1: %d, %d", v, st)
	}
	// A failure of phase 3 or 4 is recorded too.
	w.RecordCreateSession(w.kv, r.Client, 1, []byte("failed"))
	if v, reply, st := begin(r.Client, 1); v != Replay || reply != "failed" || st != OK {
		t.Errorf("retry: %d %q %d", v, reply, st)
	}
	w.session(r.Client)
	if v, reply, _ := begin(r.Client, 2); v != Replay || len(reply) != 16 {
		t.Errorf("retry of 2: %d, %d bytes", v, len(reply))
	}
	w.Tables = checkLoad(t, w.Tables, w.kv)
	if v, reply, _ := begin(r.Client, 2); v != Replay || len(reply) != 16 {
		t.Errorf("retry of 2 on another replica: %d, %d bytes", v, len(reply))
	}
	if _, _, st := begin(r.Client, 1); st != ErrSeqMisordered {
		t.Errorf("sequence 1 after 2: %d", st)
	}
	// Wraparound.
	w.clients[r.Client].createSeq = ^uint32(0)
	if v, _, st := begin(r.Client, 0); v != New || st != OK {
		t.Errorf("sequence 0 after 2^32-1: %d, %d", v, st)
	}
}

func TestCreateSessionPhases(t *testing.T) {
	change := func(fn func(*CreateSessionArgs)) CreateSessionArgs {
		a := CreateSessionArgs{Principal: root, Flags: SessionBackChan, Fore: chanAttrs, Back: chanAttrs}
		fn(&a)
		return a
	}
	tests := []struct {
		name string
		args CreateSessionArgs
		st   Status
	}{
		{"as it should be", change(func(*CreateSessionArgs) {}), OK},
		{"18.36.4 phase 3: another principal", change(func(a *CreateSessionArgs) { a.Principal.UID = 5 }), ErrClientInUse},
		{"fore request too small", change(func(a *CreateSessionArgs) { a.Fore.MaxRequest = 20 }), ErrTooSmall},
		{"fore response too small", change(func(a *CreateSessionArgs) { a.Fore.MaxResponse = 20 }), ErrTooSmall},
		{"no slots", change(func(a *CreateSessionArgs) { a.Fore.MaxRequests = 0 }), ErrInval},
		{"no operations", change(func(a *CreateSessionArgs) { a.Fore.MaxOps = 0 }), ErrInval},
		{"back channel too small", change(func(a *CreateSessionArgs) { a.Back.MaxRequest = 20 }), ErrTooSmall},
		{"back channel of one operation", change(func(a *CreateSessionArgs) { a.Back.MaxOps = 1 }), ErrTooSmall},
		{"no back slots", change(func(a *CreateSessionArgs) { a.Back.MaxRequests = 0 }), ErrInval},
		{"useless back channel not wanted", change(func(a *CreateSessionArgs) { a.Flags, a.Back = 0, ChannelAttrs{} }), OK},
		{"endless callback security", change(func(a *CreateSessionArgs) { a.CBSec = make([]byte, 5000) }), ErrInval},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			id := w.unconfirmed("a", 1)
			tt.args.Client = id
			_, st := w.CreateSession(w.kv, &tt.args)
			w.want("CreateSession", st, tt.st)
			if w.clients[id].confirmed != (tt.st == OK) {
				t.Errorf("confirmed = %v", w.clients[id].confirmed)
			}
			w.check()
		})
	}
}

// RFC 8881 section 18.36.3: the server may grant less, never more.
func TestNegotiation(t *testing.T) {
	w := newWorld(t)
	id := w.unconfirmed("a", 1)
	huge := ChannelAttrs{HeaderPad: 77, MaxRequest: 1 << 30, MaxResponse: 1 << 30, MaxCached: 1 << 30, MaxOps: 1 << 20, MaxRequests: 1 << 20}
	r, st := w.CreateSession(w.kv, &CreateSessionArgs{Client: id, Principal: root, Flags: SessionPersist | SessionBackChan | SessionRDMA | 64, Fore: huge, Back: huge})
	w.want("CreateSession", st, OK)
	if want := (ChannelAttrs{0, 1<<20 + 8192, 1<<20 + 8192, 64 << 10, 64, 64}); r.Fore != want {
		t.Errorf("fore %+v, want %+v", r.Fore, want)
	}
	if want := (ChannelAttrs{0, 4096, 4096, 0, 64, 16}); r.Back != want {
		t.Errorf("back %+v, want %+v", r.Back, want)
	}
	if r.Flags != SessionPersist|SessionBackChan {
		t.Errorf("flags %x", r.Flags)
	}
	if r.Session.Client() != id {
		t.Errorf("session %v is not client %x's", r.Session, id)
	}
	w.want("BackChannel", w.BackChannel(w.kv, r.Session, 7, []byte("sec")), OK)
	info, st := w.Session(r.Session)
	w.want("Session", st, OK)
	if info.Client != id || info.CBProgram != 7 || string(info.CBSec) != "sec" || info.Fore != r.Fore || info.Principal != root {
		t.Errorf("info %+v", info)
	}
	small, st := w.CreateSession(w.kv, &CreateSessionArgs{Client: id, Principal: root, Fore: ChannelAttrs{MaxRequest: 4096, MaxResponse: 4096, MaxOps: 8, MaxRequests: 1}})
	w.want("CreateSession", st, OK)
	if want := (ChannelAttrs{0, 4096, 4096, 0, 8, 1}); small.Fore != want {
		t.Errorf("small fore %+v, want %+v", small.Fore, want)
	}
	w.check()
}

func TestSessionLimit(t *testing.T) {
	w := newWorld(t, func(l *Limits) { l.SessionsPerClient = 2 })
	id := w.unconfirmed("a", 1)
	s := w.session(id)
	w.session(id)
	_, st := w.CreateSession(w.kv, &CreateSessionArgs{Client: id, Principal: root, Fore: chanAttrs})
	w.want("third session", st, ErrNoSpace)
	w.want("DestroySession", w.DestroySession(w.kv, s.Session), OK)
	if again := w.session(id); again.Session == s.Session {
		t.Error("a session id came back")
	}
	w.check()
}

// The rule of BeginMutating, RFC 8881 section 2.10.6.1 as replicated state can apply it.
func TestBeginMutating(t *testing.T) {
	recorded := uint32(1000)
	tests := []struct {
		name  string
		slot  uint32
		seq   uint32
		print uint32
		v     Verdict
		st    Status
	}{
		{"the next", 0, recorded + 1, 5, New, OK},
		{"after reads", 0, recorded + 77, 5, New, OK},
		{"a retry", 0, recorded, 5, Replay, OK},
		{"a retry, fingerprint unknown", 0, recorded, 0, Replay, OK},
		{"a false retry", 0, recorded, 6, New, ErrSeqFalseRetry},
		{"just overtaken", 0, recorded - 1, 5, New, ErrSeqMisordered},
		{"overtaken long ago", 0, recorded - 999, 5, New, ErrSeqMisordered},
		{"overtaken before the number went around", 0, recorded - lateWindow, 5, New, ErrSeqMisordered},
		{"around by reads", 0, recorded - lateWindow - 1, 5, New, OK},
		{"half around", 0, recorded + 1<<31, 5, New, OK},
		{"unused slot, first", 1, 1, 5, New, OK},
		{"unused slot, after reads", 1, 4321, 5, New, OK},
		{"unused slot, 0", 1, 0, 5, New, OK},
		{"no such slot", 8, 1, 5, New, ErrBadSlot},
		{"no such slot at all", 1 << 31, 1, 5, New, ErrBadSlot},
	}
	w := newWorld(t)
	_, s := w.client("a")
	w.Record(w.kv, s, 0, recorded, 5, []byte("the reply"))
	for _, tables := range []*Tables{w.Tables, checkLoad(t, w.Tables, w.kv)} {
		for _, tt := range tests {
			v, reply, st := tables.BeginMutating(s, tt.slot, tt.seq, tt.print)
			if v != tt.v || st != tt.st {
				t.Errorf("%s: verdict %d, status %d, want %d, %d", tt.name, v, st, tt.v, tt.st)
			}
			if (v == Replay) != (string(reply) == "the reply") {
				t.Errorf("%s: reply %q", tt.name, reply)
			}
		}
	}
	_, _, st := w.BeginMutating(SessionID{1}, 0, 1, 0)
	w.want("no session", st, ErrBadSession)
}

func TestSlotWraparound(t *testing.T) {
	w := newWorld(t)
	_, s := w.client("a")
	for i, seq := range []uint32{^uint32(0) - 1, ^uint32(0), 0, 1, 2} {
		v, _, st := w.BeginMutating(s, 0, seq, 0)
		if v != New || st != OK {
			t.Fatalf("step %d: verdict %d, status %d", i, v, st)
		}
		w.Record(w.kv, s, 0, seq, 0, []byte{byte(i)})
		if v, r, _ := w.BeginMutating(s, 0, seq, 0); v != Replay || r[0] != byte(i) {
			t.Fatalf("step %d: not replayed", i)
		}
		if _, _, st := w.BeginMutating(s, 0, seq-1, 0); i > 0 && st != ErrSeqMisordered {
			t.Fatalf("step %d: the one before: %d", i, st)
		}
	}
	w.check()
}

func TestRecordLimits(t *testing.T) {
	w := newWorld(t, func(l *Limits) { l.MaxCached, l.ReplyPerClient = 1000, 1500 })
	_, s := w.client("a")
	replay := func(slot uint32) Status {
		_, _, st := w.BeginMutating(s, slot, 1, 0)
		return st
	}
	w.Record(w.kv, s, 0, 1, 0, make([]byte, 1001))
	w.want("too long", replay(0), ErrRetryUncachedRep)
	w.Record(w.kv, s, 1, 1, 0, make([]byte, 1000))
	w.want("just right", replay(1), OK)
	w.Record(w.kv, s, 2, 1, 0, make([]byte, 501))
	w.want("too much together", replay(2), ErrRetryUncachedRep)
	w.Record(w.kv, s, 3, 1, 0, make([]byte, 500))
	w.want("the last that fits", replay(3), OK)
	w.Record(w.kv, s, 1, 2, 0, nil)
	w.Record(w.kv, s, 2, 1, 0, make([]byte, 1000))
	w.want("after room was made", replay(2), OK)
	if c := cap(w.sessions[s].slots[1]); c > slotKeepBytes {
		t.Errorf("a slot of an empty reply keeps %d bytes", c)
	}
	w.check()
	w.want("DestroySession", w.DestroySession(w.kv, s), OK)
	w.Record(w.kv, s, 0, 2, 0, []byte("late")) // a compound that destroyed its own session
	w.check()
}

// A recorded reply is the slot's own copy.
func TestRecordCopies(t *testing.T) {
	w := newWorld(t)
	_, s := w.client("a")
	reply := []byte("reply one")
	w.Record(w.kv, s, 0, 1, 0, reply)
	copy(reply, "XXXXX")
	_, got, _ := w.BeginMutating(s, 0, 1, 0)
	equalBytes(t, "replay", got, []byte("reply one"))
	w.Record(w.kv, s, 0, 2, 0, []byte("two"))
	_, got, _ = w.BeginMutating(s, 0, 2, 0)
	equalBytes(t, "replay", got, []byte("two"))
}

func TestLoadRefusesRubbish(t *testing.T) {
	w := newWorld(t)
	id, s := w.client("a")
	sid := w.open(id, "oo", 7, AccessBoth, 0)
	_, st := w.lockNew(id, 7, sid, "lo", LockRead, 0, 1)
	w.want("Lock", st, OK)
	w.Record(w.kv, s, 0, 1, 0, []byte("reply"))
	for key, value := range w.kv.m {
		damage := map[string]func(m map[string]string){
			"short value": func(m map[string]string) { m[key] = value[:max(len(value)-5, 0)] },
			"long key":    func(m map[string]string) { delete(m, key); m[key+"x"] = value },
		}
		if key[0] != keySlot {
			damage["long value"] = func(m map[string]string) { m[key] = value + "xxxx" }
		}
		if key[0] == keySlot { // any tail is a reply
			damage["short value"] = func(m map[string]string) { m[key] = value[:5] }
		}
		if strings.IndexByte("cdfg", key[0]) >= 0 {
			damage["missing"] = func(m map[string]string) { delete(m, key) }
		}
		for name, do := range damage {
			kv := newKV(t)
			for k, v := range w.kv.m {
				kv.m[k] = v
			}
			do(kv.m)
			ts := NewTables(DefaultLimits)
			err := ts.Load(kv.scan)
			if err == nil {
				t.Errorf("key %x, %s: Load took it", key, name)
			}
			if len(ts.clients) != 0 {
				t.Errorf("key %x, %s: tables are not empty after the error", key, name)
			}
		}
	}
}

// FuzzLoad feeds records of length-prefixed keys and values: Load must refuse or take them, and what it takes must be consistent.
func FuzzLoad(f *testing.F) {
	w := newWorld(f)
	id, s := w.client("a")
	sid := w.open(id, "oo", 7, AccessBoth, 0)
	w.lockNew(id, 7, sid, "lo", LockRead, 0, 1)
	w.Record(w.kv, s, 0, 1, 0, []byte("reply"))
	var seed []byte
	_ = w.kv.scan(func(key, value []byte) error {
		seed = append(binary.BigEndian.AppendUint16(seed, uint16(len(key))), key...)
		seed = append(binary.BigEndian.AppendUint16(seed, uint16(len(value))), value...)
		return nil
	})
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		next := func() []byte {
			if len(data) < 2 {
				return nil
			}
			n := min(int(binary.BigEndian.Uint16(data)), len(data)-2)
			out := data[2 : 2+n]
			data = data[2+n:]
			return bytes.Clone(out)
		}
		ts := NewTables(DefaultLimits)
		_ = ts.Load(func(fn func(key, value []byte) error) error {
			for len(data) > 0 {
				if err := fn(next(), next()); err != nil {
					return err
				}
			}
			return nil
		})
		ts.Clients()
		ts.Opens()
		ts.Locks()
		ts.ExpireClient(&discard{}, id)
	})
}
