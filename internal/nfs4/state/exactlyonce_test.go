package state

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// The model of this test: nodes take turns in leading; the replicated state (tables, mirrored) belongs to all. A client with a
// few slots sends requests, some mutating. Each send is a copy that travels to the node that leads at that moment and may lie there, in a socket or in
// a goroutine that was not scheduled, for as long as the dice want, across any number of changes of leaders. A copy that a leader
// takes in passes its Front; a mutating one is then pending until it is proposed, which may also take its time, and is lost if the leader changes
// between proposal and commit. Replies get lost. The client sends again until it has the reply, and only then uses the slot again.

// copyOfRequest is one request on its way.
type copyOfRequest struct {
	node     int
	slot     int
	seq      uint32
	mutating bool
	id       int // of the request: what it writes, and what its reply says
}

type exactlyOnce struct {
	*world
	rng     *rand.Rand
	node    int // who leads
	front   *Front[int]
	session SessionID

	inSocket []copyOfRequest
	pending  []copyOfRequest // admitted, to be proposed
	executed map[int]int     // by request id
	current  []copyOfRequest // what each slot of the client waits for
	answered []bool
	nextID   int
	stats    struct{ done, retries, replays, late, leaders int }
}

func newExactlyOnce(t *testing.T, seed uint64, slots int) *exactlyOnce {
	w := newWorld(t)
	_, s := w.client("a")
	e := &exactlyOnce{world: w, rng: rand.New(rand.NewPCG(seed, 3)), session: s, executed: map[int]int{}}
	// Half of the runs start close to the point where sequence numbers go around.
	start := uint32(0)
	if seed%2 == 1 {
		start = ^uint32(0) - uint32(e.rng.IntN(60))
	}
	for slot := range slots {
		e.current = append(e.current, copyOfRequest{slot: slot, seq: start})
		e.answered = append(e.answered, true)
	}
	e.lead(int(start % 2))
	if start != 0 { // reads have brought the slots there under an earlier leader
		e.front.next = ^uint64(0)
	}
	return e
}

// lead makes a node the leader: it loads what is replicated and has a front of its own.
func (e *exactlyOnce) lead(node int) {
	e.node = node
	e.Tables = checkLoad(e.t, e.Tables, e.kv)
	e.front = NewFront[int](FrontConfig{}, e.NextCounter(), 0)
	e.stats.leaders++
}

func (e *exactlyOnce) step() {
	slot := e.rng.IntN(len(e.current))
	switch n := e.rng.IntN(100); {
	case n < 25:
		e.send(slot)
	case n < 60:
		if c, ok := takeOne(e.rng, &e.inSocket, e.node); ok {
			e.arrive(c)
		}
	case n < 97:
		if c, ok := takeOne(e.rng, &e.pending, e.node); ok {
			e.propose(c)
		}
	default:
		e.lead(e.rng.IntN(3)) // perhaps the same again
	}
}

// send sends the slot's request, again if it has no answer yet.
func (e *exactlyOnce) send(slot int) {
	c := &e.current[slot]
	if e.answered[slot] {
		e.nextID++
		*c = copyOfRequest{slot: slot, seq: c.seq + 1, mutating: e.rng.IntN(3) == 0, id: e.nextID}
		e.answered[slot] = false
	} else {
		e.stats.retries++
	}
	c.node = e.node
	e.inSocket = append(e.inSocket, *c)
}

// takeOne takes a copy that the node can see, in any order; now and then it leaves it there besides: a network duplicate.
func takeOne(rng *rand.Rand, from *[]copyOfRequest, node int) (copyOfRequest, bool) {
	if len(*from) == 0 {
		return copyOfRequest{}, false
	}
	i := rng.IntN(len(*from))
	c := (*from)[i]
	if c.node != node {
		return c, false
	}
	if rng.IntN(10) > 0 {
		*from = append((*from)[:i], (*from)[i+1:]...)
	}
	return c, true
}

// isCurrent reports whether the client waits for the answer to this copy's request.
func (e *exactlyOnce) isCurrent(c copyOfRequest) bool {
	return e.current[c.slot].id == c.id && !e.answered[c.slot]
}

func (e *exactlyOnce) arrive(c copyOfRequest) {
	st := e.front.Admit(e.Tables, SequenceArgs{Session: e.session, Slot: uint32(c.slot), Highest: 0, Seq: c.seq}, 0, c.mutating)
	switch {
	case st != OK && e.isCurrent(c):
		e.t.Fatalf("the request that the client waits for is refused: %+v: %d", c, st)
	case st != OK:
		e.stats.late++
	case c.mutating:
		e.pending = append(e.pending, c)
	default:
		e.reply(c, c.id)
	}
}

// propose brings the copy into the log and applies it, unless the leader is lost in between.
func (e *exactlyOnce) propose(c copyOfRequest) {
	if e.rng.IntN(20) == 0 {
		e.lead((e.node + 1) % 3)
		return
	}
	v, reply, st := e.BeginMutating(e.session, uint32(c.slot), c.seq, 0)
	switch {
	case st != OK && e.isCurrent(c):
		e.t.Fatalf("the request that the client waits for is refused in apply: %+v: %d", c, st)
	case st != OK:
		e.stats.late++
		return
	case v == Replay:
		e.stats.replays++
	default:
		e.executed[c.id]++
		if e.executed[c.id] > 1 {
			e.t.Fatalf("request executed twice: %+v", c)
		}
		reply = fmt.Append(nil, c.id)
		e.Record(e.kv, e.session, uint32(c.slot), c.seq, 0, reply)
	}
	var id int
	fmt.Sscan(string(reply), &id)
	e.reply(c, id)
}

// reply reaches the client, or not.
func (e *exactlyOnce) reply(c copyOfRequest, id int) {
	if e.rng.IntN(4) == 0 || !e.isCurrent(c) {
		return
	}
	if id != c.id {
		e.t.Fatalf("request %+v got the reply of request %d", c, id)
	}
	if c.mutating && e.executed[c.id] != 1 {
		e.t.Fatalf("request answered but executed %d times: %+v", e.executed[c.id], c)
	}
	e.answered[c.slot] = true
	e.stats.done++
}

// However copies of requests are delayed, doubled and lost, and leaders change, each mutating request is executed exactly once if it is
// answered, at most once otherwise, gets its own reply, and the client is never told that its slot is out of order.
func TestExactlyOnceAcrossFailovers(t *testing.T) {
	seeds := uint64(150)
	if testing.Short() {
		seeds = 20
	}
	var done, retries, replays, late, leaders int
	for seed := range seeds {
		e := newExactlyOnce(t, seed, 3)
		for range 1500 {
			e.step()
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
		done, retries, replays = done+e.stats.done, retries+e.stats.retries, replays+e.stats.replays
		late, leaders = late+e.stats.late, leaders+e.stats.leaders
	}
	t.Logf("%d requests answered, %d sent again, %d replayed, %d late copies refused, %d leaders", done, retries, replays, late, leaders)
	if done == 0 || replays == 0 || late == 0 {
		t.Error("the dice never fell on a retry or a late copy: the test shows nothing")
	}
}
