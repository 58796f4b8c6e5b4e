package catalog

import (
	"fmt"
	"strings"
	"testing"
)

// serving reads a command: NODE (takes|joins|leaves|forces) TERM.
func serving(t *testing.T, text string, luns ...int) Body {
	var node NodeID
	var what string
	var term uint64
	if _, err := fmt.Sscan(text, &node, &what, &term); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	s := Steps{Node: node, Epoch: id(5000 + len(text) + int(term)*100 + int(node[0]))}
	for _, n := range luns {
		s.LUNs = append(s.LUNs, Step{LUN: id(n), Term: term, Join: 9})
	}
	return map[string]Body{"takes": &TakeAlone{s}, "joins": &JoinBoth{s}, "leaves": &Leave{s}, "forces": &ForceAlone{s}}[what]
}

// show is "a b @3".
func showServing(s *State, n int) string {
	l, _ := s.LUN(id(n))
	return fmt.Sprintf("%s @%d", strings.Trim(fmt.Sprint(l.Serving), "[]"), l.Term)
}

// TestServing runs scripts on a LUN with replicas at a and b: a command, and who serves
// in which term then; or why it is refused, when nothing has changed.
func TestServing(t *testing.T) {
	for _, tt := range []struct{ name, script string }{
		{"the first one takes it", `
			a takes 1  | a @2
			b takes 1  ! its term is 2, not 1
			b takes 2  ! it does not serve it`},
		{"a new term alone", `
			a takes 1  | a @2
			a takes 2  | a @3
			a joins 2  ! its term is 3, not 2`},
		{"take, join, take by the other", `
			a takes 1  | a @2
			a joins 2  | a b @3
			b takes 3  | b @4
			a joins 4  ! it does not serve it alone
			b joins 3  ! its term is 4
			b joins 4  | a b @5`},
		{"join needs one that serves alone", `
			a joins 1  ! it does not serve it alone
			b takes 1  | b @2
			a joins 2  ! it does not serve it alone
			c joins 2  ! it does not serve it alone`},
		{"leave", `
			a leaves 1 | b @2
			a leaves 2 ! it does not serve it
			b leaves 2 ! nobody else serves it
			b joins 2  | a b @3
			b leaves 2 ! its term is 3
			b leaves 3 | a @4`},
		{"strangers", `
			c takes 1  ! it does not serve it
			c leaves 1 ! it does not serve it
			c forces 1 ! it has no replica of it
			x takes 1  ! there is no node x`},
		{"forced, and nothing happened since", `
			a takes 1  | a @2
			b forces 2 | b @4294967296
			b takes 4294967296 | b @4294967297
			a forces 4294967297 | a @8589934592`},
		{"forced, when it was to serve alone already", `
			b takes 1  | b @2
			b takes 2  | b @3
			b forces 1 | b @4294967296
			b forces 1 ! its term is 4294967296, not 1`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := cluster(t)
			r.must(lun(20, "disk", "a b"))
			for line := range strings.Lines(strings.TrimSpace(tt.script)) {
				text, want, refused := strings.Cut(line, "!")
				if refused {
					code := StaleTerm
					if strings.Contains(want, "no node") {
						code = NotFound
					}
					r.refused(serving(t, text, 20), code, strings.TrimSpace(want))
					continue
				}
				text, want, _ = strings.Cut(line, "|")
				before, _ := r.s.LUN(id(20))
				b := serving(t, text, 20)
				r.must(b)
				if got := showServing(r.s, 20); got != strings.TrimSpace(want) {
					t.Fatalf("%s: %s, want %s", strings.TrimSpace(text), got, want)
				}
				l, _ := r.s.LUN(id(20))
				if l.Decided != r.index || r.s.Decided() != r.index || len(l.Chain) != len(before.Chain)+1 || l.Revision != before.Revision {
					t.Errorf("%s: decided at %d, not %d; chain %v", text, l.Decided, r.index, l.Chain)
				}
			}
		})
	}
}

// TestForcedTooLate: what was agreed upon stays, and the forced version becomes a fork,
// once.
func TestForcedTooLate(t *testing.T) {
	r := cluster(t)
	r.must(lun(20, "disk", "a b"))
	r.must(serving(t, "b takes 1", 20))
	forced := serving(t, "a forces 1", 20).(*ForceAlone)
	res := r.do(forced)
	l, _ := r.s.LUN(id(20))
	e := Epoch{ForcedTerm(1), forced.Epoch}
	if res.Error != nil || res.Done != 0 || res.Left != 1 || showServing(r.s, 20) != "b @2" || len(l.Forks) != 1 || l.Forks[0] != e {
		t.Fatalf("outcome %+v, %s, forks %v", res.Outcome, showServing(r.s, 20), l.Forks)
	}
	if known, forked := l.Descends(e); !known || !forked {
		t.Error("the fork is not known")
	}
	if known, forked := l.Descends(l.Chain[0]); !known || forked {
		t.Error("the first term is not known")
	}
	if known, _ := l.Descends(Epoch{2, id(77)}); known {
		t.Error("another history is known")
	}
	r.refused(forced, StaleTerm, "its term is 2")
	for n := range MaxForks + 1 {
		again := *forced
		again.Epoch = id(7000 + n)
		r.must(&again)
	}
	if l, _ = r.s.LUN(id(20)); len(l.Forks) != MaxForks || l.Forks[0].ID != id(7001) {
		t.Errorf("forks %v", l.Forks)
	}
}

// TestTakeMany: each LUN by itself, and the outcome tells what was left.
func TestTakeMany(t *testing.T) {
	r := cluster(t)
	r.must(lun(20, "one", "a b"), lun(21, "two", "a b"), lun(22, "of-c", "a c"))
	r.must(serving(t, "b takes 1", 21))
	res := r.do(serving(t, "a takes 1", 20, 21, 22, 23, 20))
	var served []UUID
	for _, c := range res.Changes {
		if s, ok := c.(ServingChanged); ok {
			served = append(served, s.LUN)
		}
	}
	if res.Error != nil || res.Done != 2 || res.Left != 3 || fmt.Sprint(served) != fmt.Sprint([]UUID{id(20), id(22)}) {
		t.Errorf("outcome %+v, %v changed", res.Outcome, served)
	}
	want := []Left{{id(21), "its term is 2, not 1"}, {id(23), "there is no such LUN"}, {id(20), "its term is 2, not 1"}}
	if fmt.Sprint(res.LeftFirst) != fmt.Sprint(want) {
		t.Errorf("left %v", res.LeftFirst)
	}
	many := serving(t, "a takes 1", make([]int, maxLeft+5)...)
	if res := r.do(many); res.Error == nil || res.Error.Code != StaleTerm {
		t.Errorf("LUNs that do not exist: %+v", res.Outcome)
	}
	r.refused(serving(t, "a takes 1"), Invalid, "1 to 4096 LUNs")
	r.refused(&TakeAlone{Steps{Node: "a", LUNs: []Step{{LUN: id(20), Term: 2}}}}, Invalid, "epoch")
}

// TestChain: the newest terms are remembered.
func TestChain(t *testing.T) {
	r := cluster(t)
	r.must(lun(20, "disk", "a b"))
	for term := uint64(1); term < MaxChain+10; term++ {
		r.must(serving(t, fmt.Sprint("a takes ", term), 20))
	}
	l, _ := r.s.LUN(id(20))
	if len(l.Chain) != MaxChain || l.Chain[0].Term != 11 || l.Chain[MaxChain-1].Term != l.Term {
		t.Errorf("%d terms from %d to %d", len(l.Chain), l.Chain[0].Term, l.Term)
	}
}

// TestJoinNumber: a LUN keeps it.
func TestJoinNumber(t *testing.T) {
	r := cluster(t)
	r.must(lun(20, "disk", "a b"), serving(t, "a takes 1", 20), serving(t, "a joins 2", 20))
	if l, _ := r.s.LUN(id(20)); l.Join != 9 {
		t.Errorf("join %d", l.Join)
	}
}

func TestForcedTerm(t *testing.T) {
	for _, c := range [][2]uint64{{1, 1 << 32}, {1<<32 - 1, 1 << 32}, {1 << 32, 2 << 32}, {2<<32 + 5, 3 << 32}} {
		if got := ForcedTerm(c[0]); got != c[1] {
			t.Errorf("ForcedTerm(%d) = %d, want %d", c[0], got, c[1])
		}
	}
}
