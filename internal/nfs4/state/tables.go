package state

import (
	"cmp"
	"slices"

	"holdfast/internal/rangelock"
	"holdfast/internal/volume"
	"holdfast/internal/xdr"
)

// Tables is the replicated protocol state of one volume.
type Tables struct {
	limits Limits

	instance   uint32 // upper half of client ids; tells a restored volume's clients from those of its former life
	nextClient uint32 // lower half of the next client id
	next       uint64 // counter behind session ids, stateids and lock owners

	grace      bool
	graceUntil int64           // in nanoseconds since the epoch; 0: no client has come back yet
	graceEnded bool            // see TakeGraceEnded
	reclaimers map[string]bool // owners of clients that may reclaim while grace is on

	clients  map[ClientID]*client
	owners   map[string]records
	sessions map[SessionID]*session
	files    map[volume.Ino]*file
	opens    map[uint64]*open
	locks    map[uint64]*lockState

	// Totals over all clients, for the limits.
	ranges     int
	replyBytes int
	waiting    int

	// Scratch of methods that change the tables.
	key     []byte
	value   xdr.Encoder
	changes rangelock.Changes[*lockOwner]
}

// records are a client owner's records: at most one of each kind (RFC 8881 section 18.35.4).
type records struct {
	confirmed, unconfirmed *client
}

// client is one client record and everything that hangs on it.
type client struct {
	id              ClientID
	owner           string
	verifier        [8]byte
	principal       Principal
	addr, impl      string
	confirmed       bool
	reclaimComplete bool

	// The one-slot reply cache of CREATE_SESSION. The sequence number starts at 0, unused.
	createSeq    uint32
	createUsed   bool
	createResult []byte

	sessions   []*session // by age
	opens      map[openKey]*open
	lockOwners map[string]*lockOwner
	lockStates int
	ranges     int
	replyBytes int // in the slots of all sessions
}

type openKey struct {
	owner string
	ino   volume.Ino
}

// file is an inode that somebody has open. It goes with its last open.
type file struct {
	ino     volume.Ino
	opens   []*open // by age
	access  [2]int  // opens with read, with write access
	deny    [2]int  // opens that deny read, write
	locks   *rangelock.Set[*lockOwner]
	waiters []Waiter // first come first
}

// open is the state behind an open stateid: one open-owner's opens of one file, merged (RFC 8881 section 9.8).
type open struct {
	id     uint64
	client *client
	owner  string
	file   *file
	seqid  uint32
	combos uint16 // share reservations in effect: bit access<<2|deny, see OPEN_DOWNGRADE
	access uint32 // union over combos
	deny   uint32
	locks  []*lockState // by age
}

// lockOwner is a lock owner that has lock states. Its id gives it a place in the order of a file's locks.
type lockOwner struct {
	id     uint64
	client *client
	owner  string
	states []*lockState
}

// lockState is the state behind a lock stateid: a lock owner on an open.
type lockState struct {
	id    uint64
	open  *open
	owner *lockOwner
	seqid uint32
}

// NewTables returns empty tables.
func NewTables(limits Limits) *Tables {
	return &Tables{
		limits:     limits,
		nextClient: 1,
		next:       1,
		reclaimers: make(map[string]bool),
		clients:    make(map[ClientID]*client),
		owners:     make(map[string]records),
		sessions:   make(map[SessionID]*session),
		files:      make(map[volume.Ino]*file),
		opens:      make(map[uint64]*open),
		locks:      make(map[uint64]*lockState),
	}
}

// NextCounter returns the next number of the counter behind session ids and stateids.
func (t *Tables) NextCounter() uint64 { return t.next }

// InUse reports whether anybody has the inode open.
func (t *Tables) InUse(ino volume.Ino) bool { return t.files[ino] != nil }

// take hands out the next counter. The caller mirrors it with putMeta.
func (t *Tables) take() uint64 {
	n := t.next
	t.next++
	return n
}

// Seed gives the volume's protocol state its instance number, the upper half of all client ids, when it has none yet; otherwise it does
// nothing. Call it before ExchangeID with the entry's random number.
func (t *Tables) Seed(kv KV, random uint64) {
	if t.instance != 0 {
		return
	}
	t.setInstance(random)
	t.putMeta(kv)
}

// setInstance takes an instance number that is neither zero nor the present one.
func (t *Tables) setInstance(random uint64) {
	n := uint32(random>>32) ^ uint32(random)
	for n == 0 || n == t.instance {
		n++
	}
	t.instance = n
}

// file returns the entry of an inode that is about to be opened.
func (t *Tables) fileFor(ino volume.Ino) *file {
	f := t.files[ino]
	if f == nil {
		f = &file{ino: ino, locks: rangelock.New(compareLockOwners)}
		t.files[ino] = f
	}
	return f
}

func compareLockOwners(a, b *lockOwner) int { return cmp.Compare(a.id, b.id) }

// nobody stands for a lock owner that holds nothing anywhere.
var nobody = &lockOwner{id: ^uint64(0)}

// Restored is for a volume that was restored from a backup: it drops all clients, takes a new instance number, and, if any client held
// opens, starts a grace period in which just those clients may reclaim. It ends when they all have sent RECLAIM_COMPLETE, by Tick, or by EndGrace.
func (t *Tables) Restored(kv KV, random uint64) Dropped {
	var d Dropped
	for _, c := range t.sortedClients() {
		if len(c.opens) > 0 && !t.reclaimers[c.owner] {
			t.reclaimers[c.owner] = true
			kv.Put(t.reclaimerKey(c.owner), nil)
		}
		closed := t.drop(kv, c)
		d.Closed = append(d.Closed, closed.Closed...)
	}
	slices.Sort(d.Closed)
	t.setInstance(random)
	t.grace, t.graceUntil = len(t.reclaimers) > 0, 0
	t.putMeta(kv)
	return d
}

// InGrace reports whether a grace period is on.
func (t *Tables) InGrace() bool { return t.grace }

// EndGrace ends the grace period.
func (t *Tables) EndGrace(kv KV) {
	if !t.grace {
		return
	}
	for _, owner := range t.sortedReclaimers() {
		kv.Del(t.reclaimerKey(owner))
	}
	clear(t.reclaimers)
	t.grace, t.graceUntil, t.graceEnded = false, 0, true
	t.putMeta(kv)
}

// Tick lets time pass for a grace period: it lasts for length (nanoseconds) from the first call on, which is for the first request after the restore, as nobody knows for how long the volume
// was away. A clock that is set back begins it anew, as it would last for as long as the clock was ahead. Call it first for every request that mutates.
func (t *Tables) Tick(kv KV, now, length int64) {
	switch {
	case !t.grace:
	case t.graceUntil == 0 || t.graceUntil-now > length:
		t.graceUntil = now + length
		t.putMeta(kv)
	case now > t.graceUntil:
		t.EndGrace(kv)
	}
}

// TakeGraceEnded reports whether a grace period has ended since it was last asked: what was kept for clients that might have reclaimed it can go.
func (t *Tables) TakeGraceEnded() bool {
	ended := t.graceEnded
	t.graceEnded = false
	return ended
}

func (t *Tables) sortedReclaimers() []string {
	out := make([]string, 0, len(t.reclaimers))
	for owner := range t.reclaimers {
		out = append(out, owner)
	}
	slices.Sort(out)
	return out
}

// mayLock applies the grace period to a request that creates or tests locking state (RFC 8881 sections 8.4.2.1 and 18.51.3).
func (t *Tables) mayLock(c *client, reclaim bool) Status {
	switch {
	case reclaim && (!t.grace || c.reclaimComplete || !t.reclaimers[c.owner]):
		return ErrNoGrace
	case !reclaim && (t.grace || !c.reclaimComplete):
		return ErrGrace
	}
	return OK
}
