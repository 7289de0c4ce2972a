package sim

import (
	"fmt"
	"math"
	"testing"

	"github.com/anishathalye/porcupine"
)

// TestCutModel checks what may be read of a file that is cut, grown and punched: the operations are done one after the other, and the last answer is judged.
func TestCutModel(t *testing.T) {
	write := func(block int, value uint64) cutOp { return cutOp{kind: cutWrite, block: block, value: value} }
	size := func(halves int) cutOp { return cutOp{kind: cutSize, halves: halves} }
	punch := func(from, last int) cutOp { return cutOp{kind: cutPunch, halves: from, block: last} }
	for _, tt := range []struct {
		name string
		ops  []cutOp
		want cutState
	}{
		{"nothing", nil, cutState{}},
		{"a hole before what is written", []cutOp{write(2, 7)}, cutState{halves: 6, values: [cutBlocks]uint64{2: 7}}},
		{"cut within a block", []cutOp{write(1, 7), size(3)}, cutState{halves: 3, values: [cutBlocks]uint64{1: 7}, half: [cutBlocks]bool{1: true}}},
		{"grown again", []cutOp{write(1, 7), size(3), size(8)}, cutState{halves: 8, values: [cutBlocks]uint64{1: 7}, half: [cutBlocks]bool{1: true}}},
		{"cut to nothing and grown", []cutOp{write(0, 7), size(0), size(2)}, cutState{halves: 2}},
		{"punched from a block's middle", []cutOp{write(0, 7), write(1, 8), punch(1, 1)}, cutState{halves: 4, values: [cutBlocks]uint64{0: 7}, half: [cutBlocks]bool{0: true}}},
		{"punched beyond the end", []cutOp{write(0, 7), punch(2, 3)}, cutState{halves: 2, values: [cutBlocks]uint64{0: 7}}},
		{"what follows the hole stays", []cutOp{write(0, 7), write(1, 8), punch(0, 0)}, cutState{halves: 4, values: [cutBlocks]uint64{1: 8}}},
		{"written over", []cutOp{write(0, 7), punch(1, 0), write(0, 8)}, cutState{halves: 2, values: [cutBlocks]uint64{0: 8}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// Another size, another value, and the cut half again, must not be read.
			longer, other, whole := tt.want, tt.want, tt.want
			longer.halves++
			other.values[3] = 99
			whole.half = [cutBlocks]bool{}
			for got, right := range map[cutState]bool{tt.want: true, longer: false, other: false, whole: whole == tt.want} {
				if ok := porcupine.CheckOperations(cutModel, inOrder(append(tt.ops, cutOp{}), cutOp{state: got})); ok != right {
					t.Errorf("reading %+v is right: %v, want %v", got, ok, right)
				}
			}
		})
	}
}

// inOrder is a history of operations that follow each other. The last is answered.
func inOrder(ops []cutOp, answer cutOp) (history []porcupine.Operation) {
	for i, op := range ops {
		history = append(history, porcupine.Operation{Input: op, Output: answer, Call: int64(2 * i), Return: int64(2*i + 1)})
	}
	return history
}

// TestUnansweredCut checks that a cut without an answer may have happened, and need not.
func TestUnansweredCut(t *testing.T) {
	history := inOrder([]cutOp{{kind: cutWrite, value: 7}, {kind: cutSize}, {}}, cutOp{})
	history[1].Return = math.MaxInt64
	history[1].Output = nil
	for _, got := range []cutState{{}, {halves: 2, values: [cutBlocks]uint64{7}}} {
		history[2].Output = cutOp{state: got}
		if !porcupine.CheckOperations(cutModel, history) {
			t.Errorf("reading %+v is taken for wrong", got)
		}
	}
}

func TestParseCut(t *testing.T) {
	for i := range cuts {
		f := &cuts[i]
		size := f.blockBytes
		whole := append(content(7, size), content(8, size)...)
		halfGone := append(append(content(7, size)[:size/2:size/2], make([]byte, size/2)...), content(8, size)...)
		for _, tt := range []struct {
			b    []byte
			want cutState
			ok   bool
		}{
			{nil, cutState{}, true},
			{whole, cutState{halves: 4, values: [cutBlocks]uint64{7, 8}}, true},
			{whole[:size+size/2], cutState{halves: 3, values: [cutBlocks]uint64{7, 8}, half: [cutBlocks]bool{1: true}}, true},
			{halfGone, cutState{halves: 4, values: [cutBlocks]uint64{7, 8}, half: [cutBlocks]bool{0: true}}, true},
			{make([]byte, 4*size), cutState{halves: 8}, true},
			{whole[:size-1], cutState{}, false},
			{make([]byte, 5*size), cutState{}, false},
			{append(content(7, size)[:size/2:size/2], content(8, size)[size/2:]...), cutState{}, false},
		} {
			t.Run(fmt.Sprintf("%s/%d", f.name, len(tt.b)), func(t *testing.T) {
				got, ok := parseCut(f, tt.b)
				if ok != tt.ok || ok && got != tt.want {
					t.Errorf("%+v, %v, want %+v, %v", got, ok, tt.want, tt.ok)
				}
			})
		}
	}
}
