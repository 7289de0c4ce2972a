package sim

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// record is an operation of a client in the history of one object.
type record struct {
	o         *oracle
	process   int
	call, ret int64 // in the oracle's count, so that no two are equal
	at, until int64 // true time of the call and of its answer
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
	r.ret, r.out, r.state, r.until = r.o.stamp, out, recordDone, r.o.w.now
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

// untold begins what stands for the handle of a file that nobody was told. Links to it are to be known as those of one file.
const untold = "untold "

// unknown reports whether a file's handle is not known.
func unknown(file string) bool { return strings.HasPrefix(file, untold) }

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
			ok = ok && (got.id == id || unknown(id))
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
		s[op.a] = untold + strconv.FormatInt(op.serial, 10)
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
		if s[op.a] != s[op.b] { // of two names of one file both stay (RFC 8881 section 18.26.3)
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
		if want := s[dir*names+i]; got != want && (!unknown(want) || got == "") {
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
		switch {
		case strings.HasPrefix(key, "namespace"):
			model = nameModel
		case strings.HasPrefix(key, "cuts"):
			model = cutModel
		}
		ops := o.operations(key, math.MaxInt64-1)
		o.w.stats.Histories++
		o.w.stats.Operations += len(ops)
		switch porcupine.CheckOperationsTimeout(model, ops, judgeTimeout) {
		case porcupine.Illegal:
			wrong := o.culprit(key, model)
			o.describeHistory(key, wrong)
			o.w.fail("%s is not linearizable: nothing explains the answer to process %d at %.6f s: %s -> %s", key, wrong.process, float64(wrong.until)/1e9, brief(wrong.in), brief(wrong.out))
			return
		case porcupine.Unknown:
			o.w.stats.Unknown++
		}
	}
}

// operations returns an object's history as it was known at a count: what was answered later is still open.
func (o *oracle) operations(key string, count int64) (ops []porcupine.Operation) {
	for _, r := range o.histories[key] {
		op := porcupine.Operation{ClientId: r.process, Input: r.in, Call: r.call, Output: r.out, Return: r.ret}
		open := r.state != recordDone || r.ret > count
		switch {
		case r.state == recordDropped || r.call > count || open && readsOnly(r.in):
			continue
		case open:
			op.Output, op.Return = nil, math.MaxInt64
		}
		ops = append(ops, op)
	}
	return ops
}

// readsOnly reports whether an operation changes nothing, so that without its answer it says nothing.
func readsOnly(in any) bool {
	switch op := in.(type) {
	case registerOp:
		return !op.write
	case nameOp:
		return op.kind == nameLookup || op.kind == nameList
	case cutOp:
		return op.kind == cutRead
	}
	return false
}

// culprit returns the first operation whose answer makes a history one that cannot be: with it known, and all before it, the check fails.
func (o *oracle) culprit(key string, model porcupine.Model) *record {
	var done []*record
	for _, r := range o.histories[key] {
		if r.state == recordDone {
			done = append(done, r)
		}
	}
	slices.SortFunc(done, func(a, b *record) int { return cmp.Compare(a.ret, b.ret) })
	i := sort.Search(len(done)-1, func(i int) bool {
		return porcupine.CheckOperationsTimeout(model, o.operations(key, done[i].ret), judgeTimeout) == porcupine.Illegal
	})
	return done[i]
}

// historyLines is how much of a history is written to the log.
const historyLines = 24

// describeHistory writes the end of a history to the log, up to the operation that spoils it.
func (o *oracle) describeHistory(key string, wrong *record) {
	if o.w.cfg.Log == nil {
		return
	}
	all := slices.Clone(o.histories[key])
	all = slices.DeleteFunc(all, func(r *record) bool { return r.call > wrong.ret })
	slices.SortStableFunc(all, func(a, b *record) int { return cmp.Compare(a.call, b.call) })
	if skip := len(all) - historyLines; skip > 0 {
		all = all[skip:]
	}
	fmt.Fprintf(o.w.cfg.Log, "history of %s:\n", key)
	for _, r := range all {
		mark := " "
		if r == wrong {
			mark = "*"
		}
		until := "-"
		if r.until != 0 {
			until = fmt.Sprintf("%.6f", float64(r.until)/1e9)
		}
		fmt.Fprintf(o.w.cfg.Log, " %s %10.6f..%-10s process %d: %s -> %s\n", mark, float64(r.at)/1e9, until, r.process, brief(r.in), brief(r.out))
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
