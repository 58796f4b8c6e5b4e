package history

import (
	"testing"

	"github.com/anishathalye/porcupine"
	"pgregory.net/rapid"
)

// explained tries all orders, by the definition and nothing else.
func explained(left []Op, now Value) bool {
	if len(left) == 0 {
		return true
	}
	for i, op := range left {
		if !mayComeFirst(left, op) {
			continue
		}
		rest := append(append([]Op(nil), left[:i]...), left[i+1:]...)
		switch {
		case op.Swap && !op.Write:
			if now != op.Expect && explained(rest, now) {
				return true
			}
		case op.Swap:
			if now == op.Expect && explained(rest, op.Value) || op.Maybe && explained(rest, now) {
				return true
			}
		case op.Write:
			if explained(rest, op.Value) || op.Maybe && explained(rest, now) {
				return true
			}
		case op.Value == now && explained(rest, now):
			return true
		}
	}
	return false
}

// mayComeFirst: no other operation was over before op began.
func mayComeFirst(left []Op, op Op) bool {
	for _, other := range left {
		if other.Return < op.Call {
			return false
		}
	}
	return true
}

// TestAgainstDefinition compares the answers for random small histories: with the
// model, the simplifications and porcupine on one side, the definition on the
// other.
func TestAgainstDefinition(t *testing.T) {
	verdicts := map[bool]int{}
	rapid.Check(t, func(t *rapid.T) {
		ops := drawHistory(t)
		want := explained(ops, Value{})
		got := decide(ops, limit) == porcupine.Ok
		if got != want {
			t.Fatalf("decided %v, by the definition %v", got, want)
		}
		verdicts[want]++
	})
	if verdicts[true] == 0 || verdicts[false] == 0 {
		t.Errorf("one-sided: %v", verdicts)
	}
}

// drawHistory makes up to three values, each written or swapped in, in one or two tries,
// some reads of them, and some swaps that find something else.
func drawHistory(t *rapid.T) []Op {
	var ops []Op
	interval := func(op Op, from int64) Op {
		op.Call = rapid.Int64Range(from, 20).Draw(t, "call")
		op.Return = rapid.Int64Range(op.Call+1, 22).Draw(t, "return")
		op.Client = len(ops)
		return op
	}
	values := rapid.IntRange(1, 3).Draw(t, "values")
	for v := range values {
		op := Op{Write: true, Value: number(uint64(v + 1))}
		if rapid.Bool().Draw(t, "swap") {
			op.Swap, op.Expect = true, number(uint64(rapid.IntRange(0, values).Draw(t, "expect")))
		}
		from := int64(0)
		if rapid.Bool().Draw(t, "repeated") {
			op.Maybe = true
			first := interval(op, 0)
			from = min(first.Return, 19)
			if rapid.Bool().Draw(t, "straggles") { // it may outlive the next one
				from = min(first.Call+1, 19)
				if rapid.Bool().Draw(t, "for ever") {
					first.Return = Open
				}
			}
			ops = append(ops, first)
		}
		op.Maybe = rapid.Bool().Draw(t, "maybe")
		op = interval(op, from)
		if op.Maybe {
			op.Return = Open
		}
		ops = append(ops, op)
	}
	for range rapid.IntRange(1, 4).Draw(t, "reads") {
		ops = append(ops, interval(Op{Value: Value{1, uint64(rapid.IntRange(1, values).Draw(t, "v"))}}, 0))
	}
	for range rapid.IntRange(0, 2).Draw(t, "misses") {
		ops = append(ops, interval(Op{Swap: true, Expect: number(uint64(rapid.IntRange(0, values).Draw(t, "v")))}, 0))
	}
	return ops
}
