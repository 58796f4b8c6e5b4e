package history

import (
	"fmt"

	"github.com/anishathalye/porcupine"
)

// register is the model of one block. Its state is a set of Values, since a write
// that may have happened leaves two possibilities: most often one.
//
// It is written out, rather than made by porcupine's NondeterministicModel, since
// that one allocates in every step.
var register = porcupine.Model{
	Init: func() any { return possible{} },
	Step: func(state, input, _ any) (bool, any) { return state.(possible).step(input.(Op)) },
	Equal: func(a, b any) bool {
		return a.(possible).equal(b.(possible))
	},
	DescribeOperation: func(input, _ any) string { return input.(Op).brief() },
	DescribeState:     func(state any) string { return state.(possible).String() },
}

// possible is the set of values that a block may hold: one, and perhaps more.
type possible struct {
	one  Value
	more []Value // distinct, never changed
}

// step applies an operation; false: it is impossible.
func (p possible) step(op Op) (bool, any) {
	switch {
	case op.Swap:
		return p.swap(op)
	case op.Write && !op.Maybe:
		return true, possible{one: op.Value}
	case op.Write && !p.has(op.Value):
		return true, possible{one: p.one, more: append(p.more[:len(p.more):len(p.more)], op.Value)}
	case op.Write:
		return true, p
	case p.has(op.Value):
		return true, possible{one: op.Value}
	}
	return false, p
}

// swap applies a compare-and-write.
func (p possible) swap(op Op) (bool, any) {
	switch found := p.has(op.Expect); {
	case !op.Write:
		return p.without(op.Expect)
	case op.Maybe && found && !p.has(op.Value):
		return true, possible{one: p.one, more: append(p.more[:len(p.more):len(p.more)], op.Value)}
	case op.Maybe:
		return true, p
	default:
		return found, possible{one: op.Value}
	}
}

// without is what is left when one value is known not to be there; false: nothing.
func (p possible) without(v Value) (bool, any) {
	if !p.has(v) {
		return true, p
	}
	var left []Value
	for _, other := range append([]Value{p.one}, p.more...) {
		if other != v {
			left = append(left, other)
		}
	}
	if len(left) == 0 {
		return false, p
	}
	return true, possible{one: left[0], more: left[1:]}
}

func (p possible) has(v Value) bool {
	if p.one == v {
		return true
	}
	for _, m := range p.more {
		if m == v {
			return true
		}
	}
	return false
}

func (p possible) equal(q possible) bool {
	if len(p.more) != len(q.more) || !q.has(p.one) {
		return false
	}
	for _, m := range p.more {
		if !q.has(m) {
			return false
		}
	}
	return true
}

func (p possible) String() string {
	s := p.one.String()
	for _, m := range p.more {
		s += " or " + m.String()
	}
	return s
}

func (op Op) brief() string {
	switch {
	case op.Swap && op.Maybe:
		return fmt.Sprintf("swap %v for %v?", op.Expect, op.Value)
	case op.Swap && op.Write:
		return fmt.Sprintf("swap %v for %v", op.Expect, op.Value)
	case op.Swap:
		return fmt.Sprintf("not %v", op.Expect)
	case op.Write && op.Maybe:
		return fmt.Sprintf("write %v?", op.Value)
	case op.Write:
		return fmt.Sprintf("write %v", op.Value)
	}
	return fmt.Sprintf("read %v", op.Value)
}

// simplify makes a block's history cheaper to check without changing the answer.
// Every value belongs to one write (or to the tries of one), so
//   - a write that may have happened and that nobody saw can as well not have:
//     take it out of an order, and what is left is an order still. But for swaps that
//     found something else than they expected: it may have been what they found, so it
//     is left in, up to the end of the last one of them;
//   - a write of a single try that may have happened and was seen, has happened,
//     before the first read or swap that saw it returned;
//   - a try of several that has not happened when its value was seen for the last time
//     (and the last swap has found something else) is as good as one that never does.
//
// The last two turn open intervals, which cost exponentially, into ordinary ones.
func simplify(ops []Op) []Op {
	tries, seen, lastMiss := map[Value]int{}, sightings(ops), int64(-1)
	last := lastSightings(ops)
	for _, op := range ops {
		if op.Write {
			tries[op.Value]++
		} else if op.Swap {
			lastMiss = max(lastMiss, op.Return)
		}
	}
	simple := make([]Op, 0, len(ops))
	for _, op := range ops {
		if op.Write && op.Maybe {
			first, ok := seen[op.Value]
			switch {
			case !ok && lastMiss < op.Call:
				continue
			case !ok:
				op.Return = min(op.Return, lastMiss)
			case tries[op.Value] == 1:
				op.Maybe, op.Return = false, min(op.Return, max(first, op.Call))
			case max(last[op.Value], lastMiss) < op.Call:
				continue
			default:
				op.Return = min(op.Return, max(last[op.Value], lastMiss))
			}
		}
		simple = append(simple, op)
	}
	return simple
}

// sightings are the values that were surely there, and when at the latest.
func sightings(ops []Op) map[Value]int64 {
	seen := map[Value]int64{}
	see := func(v Value, at int64) (news bool) {
		first, ok := seen[v]
		if news = !ok || at < first; news {
			seen[v] = at
		}
		return news
	}
	for _, op := range ops {
		switch {
		case !op.Write && !op.Swap:
			see(op.Value, op.Return)
		case op.Swap && op.Write && !op.Maybe:
			see(op.Expect, op.Return)
		}
	}
	for news := true; news; { // a swap whose value was seen has found what it expects
		news = false
		for _, op := range ops {
			if at, ok := seen[op.Value]; ok && op.Swap && op.Maybe {
				news = see(op.Expect, at) || news
			}
		}
	}
	return seen
}

// lastSightings are the values that were or may have been seen, and until when at most. A
// swap that may have happened has seen what it expects, if at all, before its own value was
// seen for the last time.
func lastSightings(ops []Op) map[Value]int64 {
	last := map[Value]int64{}
	for _, op := range ops {
		switch {
		case !op.Write && !op.Swap:
			last[op.Value] = max(last[op.Value], op.Return)
		case op.Swap && op.Write && !op.Maybe:
			last[op.Expect] = max(last[op.Expect], op.Return)
		}
	}
	for news := true; news; {
		news = false
		for _, op := range ops {
			if at := min(op.Return, last[op.Value]); op.Swap && op.Maybe && at > last[op.Expect] {
				last[op.Expect], news = at, true
			}
		}
	}
	return last
}

// operations gives porcupine the history. In the picture a client whose write is
// open goes on under another number, as its operations would overlap otherwise.
func operations(ops []Op) []porcupine.Operation {
	clients := 0
	for _, op := range ops {
		clients = max(clients, op.Client+1)
	}
	list := make([]porcupine.Operation, len(ops))
	for i, op := range ops {
		list[i] = porcupine.Operation{ClientId: op.Client, Input: op, Call: op.Call, Return: op.Return}
		if op.Write && op.Maybe && op.Return == Open {
			list[i].ClientId = clients
			clients++
		}
	}
	return list
}
