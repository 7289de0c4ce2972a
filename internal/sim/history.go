package sim

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// record is an operation of a client in the history of one object.
type record struct {
	o         *oracle
	process   int
	call, ret int64 // in the oracle's count, so that no two are equal
	at        int64 // true time of the call
	in, out   any
	state     recordState
}

type recordState uint8

const (
	recordOpen    recordState = iota // no answer yet
	recordDone                       // answered
	recordUnknown                    // never answered: it may have happened, or happen still
	recordDropped                    // never answered, and changes nothing
)

// begin adds an operation to the history of an object.
func (o *oracle) begin(p *process, key string, in any) *record {
	o.stamp++
	r := &record{o: o, process: p.id, call: o.stamp, at: o.w.now, in: in}
	if _, ok := o.histories[key]; !ok {
		o.keys = append(o.keys, key)
	}
	o.histories[key] = append(o.histories[key], r)
	return r
}

// end: the operation was answered.
func (r *record) end(out any) {
	r.o.stamp++
	r.ret, r.out, r.state = r.o.stamp, out, recordDone
}

// lost: nobody knows whether it happened, or still will.
func (r *record) lost() { r.state = recordUnknown }

// drop forgets an operation that changes nothing.
func (r *record) drop() { r.state = recordDropped }

func registerKey(f *file, block int) string { return fmt.Sprintf("register %s/%d", f.name, block) }
func spaceKey(space int) string             { return fmt.Sprintf("namespace %d", space) }

// registerOp is a read or a write of a block.
type registerOp struct {
	write bool
	value uint64
}

// registerModel is a block of a file.
var registerModel = porcupine.Model{
	Init: func() any { return uint64(0) },
	Step: func(state, in, out any) (bool, any) {
		if op := in.(registerOp); op.write {
			return true, op.value
		}
		return out.(registerOp).value == state.(uint64), state
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v -> %+v", in, out) },
}

// nameState is a namespace: the file that each name leads to, "" for none.
type nameState [spaceDirs * names]string

// anyFile is a file whose handle nobody was told.
const anyFile = "?"

var nameModel = porcupine.Model{
	Init: func() any { return nameState{} },
	Step: func(state, in, out any) (bool, any) {
		next := state.(nameState)
		op := in.(nameOp)
		st, id := next.do(op, out)
		if out == nil {
			return true, next
		}
		got := out.(nameOp)
		ok := got.st == st
		if op.kind == nameLookup && st == stOK {
			ok = ok && (got.id == id || id == anyFile)
		}
		if op.kind == nameList {
			ok = ok && next.shows(op.a, got.list)
		}
		return ok, next
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%v -> %v", in, out) },
}

// do executes an operation and returns what its answer must be.
func (s *nameState) do(op nameOp, out any) (st status, id string) {
	switch op.kind {
	case nameLookup:
		if s[op.a] == "" {
			return stNoEnt, ""
		}
		return stOK, s[op.a]
	case nameList:
		return stOK, ""
	case nameCreate:
		if s[op.a] != "" {
			return stExist, ""
		}
		s[op.a] = anyFile
		if out != nil && out.(nameOp).st == stOK && out.(nameOp).id != "" {
			s[op.a] = out.(nameOp).id
		}
		return stOK, s[op.a]
	case nameRemove:
		if s[op.a] == "" {
			return stNoEnt, ""
		}
		s[op.a] = ""
		return stOK, ""
	case nameRename:
		if s[op.a] == "" {
			return stNoEnt, ""
		}
		if op.a != op.b && (s[op.a] != s[op.b] || s[op.a] == anyFile) {
			s[op.a], s[op.b] = "", s[op.a]
		}
		return stOK, ""
	case nameLink:
		switch {
		case s[op.a] == "":
			return stNoEnt, ""
		case s[op.b] != "":
			return stExist, ""
		}
		s[op.b] = s[op.a]
		return stOK, ""
	}
	return statusBroken, ""
}

// shows reports whether a listing of a folder is what is in it.
func (s *nameState) shows(dir int, list [names]string) bool {
	for i, got := range list {
		if want := s[dir*names+i]; got != want && (want != anyFile || got == "") {
			return false
		}
	}
	return true
}

// judgeTimeout bounds the checking of one history, in real time: the search can explode. What is not decided by then counts as unknown.
const judgeTimeout = 20 * time.Second

// judge checks the histories.
func (o *oracle) judge() {
	for _, key := range o.keys {
		model := registerModel
		if strings.HasPrefix(key, "namespace") {
			model = nameModel
		}
		var ops []porcupine.Operation
		for _, r := range o.histories[key] {
			if r.state == recordDropped {
				continue
			}
			if r.state != recordDone {
				r.ret = math.MaxInt64
			}
			ops = append(ops, porcupine.Operation{ClientId: r.process, Input: r.in, Call: r.call, Output: r.out, Return: r.ret})
		}
		o.w.stats.Histories++
		o.w.stats.Operations += len(ops)
		switch porcupine.CheckOperationsTimeout(model, ops, judgeTimeout) {
		case porcupine.Illegal:
			o.describeHistory(key)
			o.w.fail("%s is not linearizable", key)
			return
		case porcupine.Unknown:
			o.w.stats.Unknown++
		}
	}
}

// describeHistory writes a history to the log.
func (o *oracle) describeHistory(key string) {
	if o.w.cfg.Log == nil {
		return
	}
	all := slices.Clone(o.histories[key])
	slices.SortStableFunc(all, func(a, b *record) int { return int(a.call - b.call) })
	fmt.Fprintf(o.w.cfg.Log, "history of %s:\n", key)
	for _, r := range all {
		fmt.Fprintf(o.w.cfg.Log, "  %8d..%-8d %10.6f process %d: %s -> %s\n", r.call, r.ret, float64(r.at)/1e9, r.process, brief(r.in), brief(r.out))
	}
}

// brief shows an operation with handles shortened.
func brief(v any) string {
	if op, ok := v.(nameOp); ok {
		short := func(id string) string { return fmt.Sprintf("%x", digest([]byte(id))&0xffff) }
		return fmt.Sprintf("%v %d %d status %d file %s list %s %s %s %s", op.kind, op.a, op.b, op.st, short(op.id),
			short(op.list[0]), short(op.list[1]), short(op.list[2]), short(op.list[3]))
	}
	return fmt.Sprintf("%+v", v)
}
