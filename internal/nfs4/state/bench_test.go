package state

import (
	"fmt"
	"testing"
)

func benchWorld(b *testing.B) (*Tables, ClientID, SessionID) {
	w := newWorld(b)
	id, s := w.client("bench")
	return w.Tables, id, s
}

// What every mutating request pays: a duplicate check and the record of a reply the size of a WRITE's or an OPEN's.
func BenchmarkMutating(b *testing.B) {
	for _, size := range []int{160, 400} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			ts, _, s := benchWorld(b)
			kv := &discard{}
			reply := make([]byte, size)
			seq := uint32(0)
			b.ReportAllocs()
			for b.Loop() {
				seq++
				if _, _, st := ts.BeginMutating(s, seq%8, seq, 7); st != OK {
					b.Fatal(st)
				}
				ts.Record(kv, s, seq%8, seq, 7, reply)
			}
		})
	}
}

func BenchmarkCheckIO(b *testing.B) {
	ts, id, _ := benchWorld(b)
	kv := &discard{}
	var sid StateID
	for ino := range 10000 {
		var st Status
		if sid, st = ts.Open(kv, &OpenArgs{Client: id, Owner: []byte("oo"), Ino: inoOf(ino), Access: AccessBoth}); st != OK {
			b.Fatal(st)
		}
	}
	for name, sid := range map[string]StateID{"open": sid, "anonymous": AnonymousStateID} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if st := ts.CheckIO(id, 9999, sid, AccessWrite); st != OK {
					b.Fatal(st)
				}
			}
		})
	}
}

func BenchmarkAdmit(b *testing.B) {
	ts, _, s := benchWorld(b)
	f := NewFront[int](FrontConfig{}, 0, 0)
	seq := uint32(0)
	b.ReportAllocs()
	for b.Loop() {
		seq++
		if st := f.Admit(ts, SequenceArgs{Session: s, Seq: seq}, int64(seq), false); st != OK {
			b.Fatal(st)
		}
	}
}

func BenchmarkOpenClose(b *testing.B) {
	ts, id, _ := benchWorld(b)
	kv := &discard{}
	owner := []byte("open id:0123456789abcdef")
	b.ReportAllocs()
	for b.Loop() {
		sid, st := ts.Open(kv, &OpenArgs{Client: id, Owner: owner, Ino: 7, Access: AccessBoth})
		if st != OK {
			b.Fatal(st)
		}
		if _, st = ts.Close(kv, id, 7, sid); st != OK {
			b.Fatal(st)
		}
	}
}

func BenchmarkLockUnlock(b *testing.B) {
	ts, id, _ := benchWorld(b)
	kv := &discard{}
	o, _ := ts.Open(kv, &OpenArgs{Client: id, Owner: []byte("oo"), Ino: 7, Access: AccessBoth})
	l, st := ts.Lock(kv, &LockArgs{Client: id, Ino: 7, Type: LockRead, Offset: 1 << 40, Length: 1, NewOwner: true, StateID: o, Owner: []byte("lo")})
	if st != OK {
		b.Fatal(st)
	}
	args := LockArgs{Client: id, Ino: 7, Type: LockWrite, Length: 10, StateID: l.StateID}
	b.ReportAllocs()
	for b.Loop() {
		r, st := ts.Lock(kv, &args)
		if st != OK {
			b.Fatal(st)
		}
		if args.StateID, _, st = ts.Unlock(kv, id, 7, r.StateID, 0, 10); st != OK {
			b.Fatal(st)
		}
	}
}

// The paths of every READ and WRITE do not allocate.
func TestNoAllocations(t *testing.T) {
	w := newWorld(t)
	id, s := w.client("a")
	sid := w.open(id, "oo", 7, AccessBoth, 0)
	kv := &discard{}
	reply := make([]byte, 200)
	seq := uint32(0)
	f := NewFront[int](FrontConfig{}, 0, 0)
	for name, fn := range map[string]func(){
		"BeginMutating and Record": func() {
			seq++
			w.BeginMutating(s, 0, seq, 1)
			w.Record(kv, s, 0, seq, 1, reply[:100+seq%100])
		},
		"CheckIO": func() { w.CheckIO(id, 7, sid, AccessRead) },
		"Admit":   func() { seq++; f.Admit(w.Tables, SequenceArgs{Session: s, Slot: 1, Seq: seq}, 0, false) },
	} {
		for range 200 { // buffers reach their size
			fn()
		}
		if n := testing.AllocsPerRun(100, fn); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
