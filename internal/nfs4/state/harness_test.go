package state

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"holdfast/internal/volume"
)

// mapKV is a KV that fails the test when a key is deleted that is not there: mirror and memory agree, or there is a bug.
type mapKV struct {
	t testing.TB
	m map[string]string
}

func newKV(t testing.TB) *mapKV { return &mapKV{t, map[string]string{}} }

func (kv *mapKV) Put(key, value []byte) { kv.m[string(key)] = string(value) }

func (kv *mapKV) Del(key []byte) {
	if _, ok := kv.m[string(key)]; !ok {
		kv.t.Errorf("deleted key %x, which is not there", key)
	}
	delete(kv.m, string(key))
}

// scan calls fn in key order with buffers that it overwrites afterwards, as an iterator may.
func (kv *mapKV) scan(fn func(key, value []byte) error) error {
	keys := make([]string, 0, len(kv.m))
	for k := range kv.m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		key, value := []byte(k), []byte(kv.m[k])
		if err := fn(key, value); err != nil {
			return err
		}
		for i := range key {
			key[i] = 0xee
		}
		for i := range value {
			value[i] = 0xee
		}
	}
	return nil
}

// discard is the KV of benchmarks.
type discard struct{ bytes int }

func (d *discard) Put(key, value []byte) { d.bytes += len(key) + len(value) }
func (d *discard) Del(key []byte)        {}

// dump writes out everything that is in the tables, waiters apart, and checks their inner agreement.
func dump(t testing.TB, ts *Tables) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "instance %x nextClient %d next %d grace %v reclaimers %q\n", ts.instance, ts.nextClient, ts.next, ts.grace, ts.sortedReclaimers())
	sessions, opens, locks := 0, 0, 0
	for _, c := range ts.sortedClients() {
		fmt.Fprintf(&b, "client %x %q %x %v %q %q confirmed %v complete %v create %d %v %q\n", c.id, c.owner, c.verifier, c.principal,
			c.addr, c.impl, c.confirmed, c.reclaimComplete, c.createSeq, c.createUsed, c.createResult)
		recs := ts.owners[c.owner]
		if c.confirmed && recs.confirmed != c || !c.confirmed && recs.unconfirmed != c {
			t.Errorf("client %x is not in the index of owners", c.id)
		}
		replies := 0
		for _, s := range c.sessions {
			sessions++
			fmt.Fprintf(&b, " session %v flags %x fore %v back %v cb %d %x\n", s.id, s.flags, s.fore, s.back, s.cbProgram, s.cbSec)
			if ts.sessions[s.id] != s || s.client != c {
				t.Errorf("session %v is not in the index", s.id)
			}
			for i, sl := range s.slots {
				if sl.used() {
					fmt.Fprintf(&b, "  slot %d %x\n", i, []byte(sl))
					replies += len(sl.reply())
				}
			}
		}
		if replies != c.replyBytes {
			t.Errorf("client %x: %d reply bytes counted, %d held", c.id, c.replyBytes, replies)
		}
		opens += len(c.opens)
		states := 0
		for _, o := range c.lockOwners {
			states += len(o.states)
			if len(o.states) == 0 || o.client != c {
				t.Errorf("client %x: lock owner %q is left over", c.id, o.owner)
			}
		}
		if states != c.lockStates {
			t.Errorf("client %x: %d lock states counted, %d held", c.id, c.lockStates, states)
		}
		locks += states
	}
	if len(ts.sessions) != sessions || len(ts.opens) != opens || len(ts.locks) != locks {
		t.Errorf("indexes hold %d sessions, %d opens, %d lock states; clients hold %d, %d, %d", len(ts.sessions), len(ts.opens), len(ts.locks), sessions, opens, locks)
	}
	dumpFiles(t, ts, &b)
	return b.String()
}

func dumpFiles(t testing.TB, ts *Tables, b *strings.Builder) {
	t.Helper()
	opens := 0
	ranges := map[ClientID]int{}
	for _, f := range ts.sortedFiles() {
		fmt.Fprintf(b, "file %d access %v deny %v\n", f.ino, f.access, f.deny)
		want := file{}
		for _, o := range f.opens {
			opens++
			fmt.Fprintf(b, " open %d of %x %q seqid %d combos %x access %d deny %d\n", o.id, o.client.id, o.owner, o.seqid, o.combos, o.access, o.deny)
			want.count(o.access, o.deny, 1)
			if ts.opens[o.id] != o || o.client.opens[openKey{o.owner, f.ino}] != o || o.file != f {
				t.Errorf("open %d is not in the indexes", o.id)
			}
			for _, l := range o.locks {
				fmt.Fprintf(b, "  lock state %d owner %d %q seqid %d\n", l.id, l.owner.id, l.owner.owner, l.seqid)
				if ts.locks[l.id] != l || l.open != o || l.owner.client != o.client || o.client.lockOwners[l.owner.owner] != l.owner {
					t.Errorf("lock state %d is not in the indexes", l.id)
				}
			}
		}
		if want.access != f.access || want.deny != f.deny {
			t.Errorf("file %d: share counts %v %v, want %v %v", f.ino, f.access, f.deny, want.access, want.deny)
		}
		for l := range f.locks.All() {
			fmt.Fprintf(b, " range %d %x-%x %v\n", l.Owner.id, l.Start, l.End, l.Write)
			ranges[l.Owner.client.id]++
			if l.Owner.client.lockOwners[l.Owner.owner] != l.Owner {
				t.Errorf("file %d: a range belongs to lock owner %d, which is gone", f.ino, l.Owner.id)
			}
		}
		if len(f.opens) == 0 {
			t.Errorf("file %d has no opens", f.ino)
		}
	}
	waiting, replyBytes, total := 0, 0, 0
	for _, f := range ts.files {
		waiting += len(f.waiters)
	}
	for _, c := range ts.clients {
		replyBytes += c.replyBytes
		total += c.ranges
	}
	if waiting != ts.waiting || replyBytes != ts.replyBytes || total != ts.ranges {
		t.Errorf("totals: %d waiters, %d reply bytes, %d ranges counted; %d, %d, %d held", ts.waiting, ts.replyBytes, ts.ranges, waiting, replyBytes, total)
	}
	if opens != len(ts.opens) {
		t.Errorf("files hold %d opens, the index %d", opens, len(ts.opens))
	}
	for _, c := range ts.clients {
		if ranges[c.id] != c.ranges {
			t.Errorf("client %x: %d ranges counted, %d held", c.id, c.ranges, ranges[c.id])
		}
	}
}

// checkLoad checks that Load of the mirror gives the same tables.
func checkLoad(t testing.TB, ts *Tables, kv *mapKV) *Tables {
	t.Helper()
	loaded := NewTables(ts.limits)
	if err := loaded.Load(kv.scan); err != nil {
		t.Fatalf("Load: %v", err)
	}
	if got, want := dump(t, loaded), dump(t, ts); got != want {
		t.Fatalf("Load gave\n%s\nwant\n%s", got, want)
	}
	return loaded
}

// world is tables with their mirror, and short forms of what tests do all the time.
type world struct {
	t testing.TB
	*Tables
	kv *mapKV
}

func newWorld(t testing.TB, change ...func(*Limits)) *world {
	limits := DefaultLimits
	for _, fn := range change {
		fn(&limits)
	}
	w := &world{t, NewTables(limits), newKV(t)}
	w.Seed(w.kv, 0x1234_0000_0000)
	return w
}

var (
	chanAttrs = ChannelAttrs{MaxRequest: 2 << 20, MaxResponse: 2 << 20, MaxCached: 8192, MaxOps: 16, MaxRequests: 8}
	root      = Principal{Flavor: 1}
)

func exchange(owner string, verifier byte) *ExchangeArgs {
	return &ExchangeArgs{Owner: []byte(owner), Verifier: [8]byte{verifier}, Principal: root, Addr: "10.0.0.1:700", Impl: "Linux"}
}

func (w *world) want(what string, got, want Status) {
	w.t.Helper()
	if got != want {
		w.t.Fatalf("%s: status %d, want %d", what, got, want)
	}
}

// unconfirmed makes a client record.
func (w *world) unconfirmed(owner string, verifier byte) ClientID {
	w.t.Helper()
	r, st := w.ExchangeID(w.kv, exchange(owner, verifier))
	w.want("ExchangeID "+owner, st, OK)
	return r.Client
}

// session makes a session, with the sequence handling around it.
func (w *world) session(id ClientID) CreateSessionResult {
	w.t.Helper()
	c := w.clients[id]
	v, _, st := w.BeginCreateSession(id, c.createSeq+1)
	w.want("BeginCreateSession", st, OK)
	if v != New {
		w.t.Fatalf("BeginCreateSession: verdict %d", v)
	}
	r, st := w.CreateSession(w.kv, &CreateSessionArgs{Client: id, Principal: root, Flags: SessionBackChan | SessionPersist, Fore: chanAttrs, Back: chanAttrs, CBProgram: 0x40000000})
	w.want("CreateSession", st, OK)
	w.RecordCreateSession(w.kv, id, c.createSeq+1, r.Session[:])
	return r
}

// client makes a confirmed client with a session that has finished reclaiming.
func (w *world) client(owner string) (ClientID, SessionID) {
	w.t.Helper()
	id := w.unconfirmed(owner, 1)
	s := w.session(id)
	w.want("ReclaimComplete", w.ReclaimComplete(w.kv, id), OK)
	return id, s.Session
}

func (w *world) open(id ClientID, owner string, ino volume.Ino, access, deny uint32) StateID {
	w.t.Helper()
	sid, st := w.Open(w.kv, &OpenArgs{Client: id, Owner: []byte(owner), Ino: ino, Access: access, Deny: deny})
	w.want("Open", st, OK)
	return sid
}

func (w *world) lockNew(id ClientID, ino volume.Ino, open StateID, owner string, typ LockType, off, length uint64) (LockResult, Status) {
	return w.Lock(w.kv, &LockArgs{Client: id, Ino: ino, Handle: []byte("fh"), Type: typ, Offset: off, Length: length, NewOwner: true, StateID: open, Owner: []byte(owner)})
}

func (w *world) lockOld(id ClientID, ino volume.Ino, sid StateID, typ LockType, off, length uint64) (LockResult, Status) {
	return w.Lock(w.kv, &LockArgs{Client: id, Ino: ino, Handle: []byte("fh"), Type: typ, Offset: off, Length: length, StateID: sid})
}

// check ends a test: the mirror must load into the same tables.
func (w *world) check() {
	w.t.Helper()
	checkLoad(w.t, w.Tables, w.kv)
}

func equalBytes(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}
