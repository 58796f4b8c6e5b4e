package reservation

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// nexus reads "b" (initiator port b, port 1) or "b2" (port 2).
func nexus(s string) Nexus {
	n := Nexus{Initiator: s[:1], Port: 1}
	if len(s) > 1 {
		n.Port = uint16(s[1] - '0')
	}
	return n
}

func (n Nexus) String() string {
	if n.Port == 1 {
		return n.Initiator
	}
	return n.Initiator + strconv.Itoa(int(n.Port))
}

// command reads one of
//
//	b register OLD NEW [aptl] [all] [+c …]    b reserve KEY TYPE   b clear KEY
//	b ignore NEW                              b release KEY TYPE
//	b preempt KEY VICTIM TYPE                 b abort KEY VICTIM TYPE
//	b move KEY NEW TO [aptl] [leave]
func command(t *testing.T, s string) Command {
	f := strings.Fields(s)
	number := func(i int) int {
		n, err := strconv.Atoi(f[i])
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		return n
	}
	c := Command{From: nexus(f[0])}
	options := 4
	switch f[1] {
	case "register":
		c.Action, c.Key, c.NewKey = Register, Key(number(2)), Key(number(3))
	case "ignore":
		c.Action, c.NewKey, options = RegisterAndIgnore, Key(number(2)), 3
	case "reserve":
		c.Action, c.Key, c.Type = Reserve, Key(number(2)), Type(number(3))
	case "release":
		c.Action, c.Key, c.Type = Release, Key(number(2)), Type(number(3))
	case "clear":
		c.Action, c.Key, options = Clear, Key(number(2)), 3
	case "preempt", "abort":
		c.Action, c.Key, c.NewKey, c.Type, options = Preempt, Key(number(2)), Key(number(3)), Type(number(4)), 5
		if f[1] == "abort" {
			c.Action = PreemptAndAbort
		}
	case "move":
		c.Action, c.Key, c.NewKey, c.To, options = RegisterAndMove, Key(number(2)), Key(number(3)), nexus(f[4]), 5
	default:
		t.Fatalf("%q?", s)
	}
	for _, o := range f[options:] {
		switch {
		case o == "aptl":
			c.Persist = true
		case o == "all":
			c.Ports = []uint16{1, 2}
		case o == "leave":
			c.Leave = true
		default:
			c.Listed = true
			if name := strings.TrimPrefix(o, "+"); name != "" {
				c.Others = append(c.Others, name)
			}
		}
	}
	return c
}

// show writes a state as "a=1 b2=7, 5 a, gen 3, kept".
func show(s *State) string {
	var parts []string
	for _, r := range s.Registrations {
		parts = append(parts, fmt.Sprintf("%v=%d", r.Nexus, r.Key))
	}
	text := strings.Join(parts, " ")
	if s.Type.Shared() {
		text += fmt.Sprintf(", %d", s.Type)
	} else if s.Reserved() {
		text += fmt.Sprintf(", %d %v", s.Type, s.Holder)
	}
	text += fmt.Sprintf(", gen %d", s.Generation)
	if s.Persist {
		text += ", kept"
	}
	return text
}

var outcomes = map[Outcome]string{Done: "", Conflict: "conflict", WrongRelease: "wrong release", Full: "full",
	WrongKey: "wrong key", WrongList: "wrong list", WrongNexus: "wrong nexus", WrongType: "wrong type"}

func showResult(r Result) string {
	text := outcomes[r.Outcome]
	for _, e := range r.Events {
		text += fmt.Sprintf("%v %s ", e.Nexus, map[Notice]string{ReservationsPreempted: "preempted",
			ReservationsReleased: "released", RegistrationsPreempted: "unregistered"}[e.Notice])
		if e.Abort {
			text += "aborted "
		}
	}
	return strings.TrimSpace(text)
}

// TestApply runs scripts. Each line is a command, what came of it unless it is done
// and nobody is told, and the state after it unless that has not changed.
func TestApply(t *testing.T) {
	const three = "a register 0 1\nb register 0 2\nc register 0 3"
	for _, tt := range []struct{ name, script string }{
		{"register, change, leave", `
			a register 0 1           | | a=1, gen 1
			a register 0 2           | conflict
			a register 2 3           | conflict
			a register 1 2           | | a=2, gen 2
			b register 0 2           | | a=2 b=2, gen 3
			b register 1 0           | conflict
			b register 2 0           | | a=2, gen 4
			b register 0 0           | |
			b register 2 0           | conflict
			b2 register 0 7          | | a=2 b2=7, gen 5`},
		{"register and ignore", `
			a ignore 0               | |
			a ignore 5 aptl          | | a=5, gen 1, kept
			a ignore 6               | | a=6, gen 2
			a ignore 0               | | , gen 3`},
		{"APTPL stays when nothing was done", `
			a register 0 1 aptl      | | a=1, gen 1, kept
			b register 0 0           | |
			b register 9 9           | conflict
			a reserve 1 1            | | a=1, 1 a, gen 1, kept
			a register 1 1           | | a=1, 1 a, gen 2`},
		{"all target ports", `
			a register 0 1 all       | | a=1 a2=1, gen 1
			a2 register 1 2          | | a=1 a2=2, gen 2
			a register 1 3 all       | conflict
			a ignore 4 all           | | a=4 a2=4, gen 3
			a2 register 4 0          | | a=4, gen 4
			a ignore 0 all           | | , gen 5`},
		{"initiator ports listed", `
			a register 0 1 +b +c     | | a=1 b=1 c=1, gen 1
			d register 0 2 +b        | wrong nexus
			d register 0 2 +d        | wrong nexus
			a register 1 2 +d        | wrong list
			d register 0 0 +e        | wrong list
			d ignore 2 +e            | wrong list
			d register 7 2 +e        | conflict
			d register 0 2 +         | | a=1 b=1 c=1 d=2, gen 2
			e register 0 3 all +f    | | a=1 b=1 c=1 d=2 e=3 f=3 e2=3 f2=3, gen 3`},
		{"reserve", three + `
			d reserve 0 1            | conflict
			a reserve 2 1            | conflict
			a reserve 1 2            | wrong type
			a reserve 1 17           | wrong type
			a reserve 1 1            | | a=1 b=2 c=3, 1 a, gen 3
			a reserve 1 1            | |
			a reserve 1 3            | conflict
			b reserve 2 1            | conflict`},
		{"release", three + `
			a release 1 1            | |
			a reserve 1 1            | | a=1 b=2 c=3, 1 a, gen 3
			b release 2 1            | |
			a release 2 1            | conflict
			d release 0 1            | conflict
			a release 1 3            | wrong release
			a release 1 0            | wrong type
			a release 1 1            | | a=1 b=2 c=3, gen 3`},
		{"release tells registrants", three + `
			a reserve 1 5            | | a=1 b=2 c=3, 5 a, gen 3
			a release 1 5            | b released c released | a=1 b=2 c=3, gen 3`},
		{"release of all registrants", three + `
			a reserve 1 8            | | a=1 b=2 c=3, 8, gen 3
			b reserve 2 8            | |
			b reserve 2 7            | conflict
			b release 2 8            | a released c released | a=1 b=2 c=3, gen 3`},
		{"the holder leaves", three + `
			a reserve 1 3            | | a=1 b=2 c=3, 3 a, gen 3
			b register 2 0           | | a=1 c=3, 3 a, gen 4
			a register 1 0           | | c=3, gen 5`},
		{"the holder leaves registrants", three + `
			a reserve 1 6            | | a=1 b=2 c=3, 6 a, gen 3
			a register 1 0           | b released c released | b=2 c=3, gen 4`},
		{"the last of all registrants leaves", three + `
			a reserve 1 7            | | a=1 b=2 c=3, 7, gen 3
			a register 1 0           | | b=2 c=3, 7, gen 4
			c register 3 0           | | b=2, 7, gen 5
			b register 2 0           | | , gen 6`},
		{"clear", three + `
			a reserve 1 3            | | a=1 b=2 c=3, 3 a, gen 3
			d clear 0                | conflict
			b clear 1                | conflict
			b clear 2                | a preempted c preempted | , gen 4`},
		{"preempt the reservation", three + `
			a reserve 1 3            | | a=1 b=2 c=3, 3 a, gen 3
			b preempt 1 1 3          | conflict
			b preempt 2 1 0          | wrong type
			b preempt 2 1 3          | a unregistered | b=2 c=3, 3 b, gen 4
			b abort 2 2 1            | c released | b=2 c=3, 1 b, gen 5
			b abort 2 3 1            | c unregistered aborted | b=2, 1 b, gen 6
			a preempt 0 2 1          | conflict`},
		{"preempt with the holder's key", `
			a register 0 1           | | a=1, gen 1
			b register 0 1           | | a=1 b=1, gen 2
			c register 0 1           | | a=1 b=1 c=1, gen 3
			a reserve 1 1            | | a=1 b=1 c=1, 1 a, gen 3
			b preempt 1 1 3          | a unregistered c unregistered | b=1, 3 b, gen 4`},
		{"preempt registrations only", three + `
			a reserve 1 1            | | a=1 b=2 c=3, 1 a, gen 3
			a preempt 1 9 1          | conflict
			a preempt 1 0 1          | wrong key
			b preempt 2 3 3          | c unregistered | a=1 b=2, 1 a, gen 4
			b preempt 2 2 3          | | a=1, 1 a, gen 5`},
		{"preempt without a reservation", three + `
			a preempt 1 0 1          | conflict
			a preempt 1 2 0          | b unregistered | a=1 c=3, gen 4`},
		{"preempt all registrants", three + `
			a reserve 1 7            | | a=1 b=2 c=3, 7, gen 3
			b preempt 2 3 7          | c unregistered | a=1 b=2, 7, gen 4
			b preempt 2 9 7          | conflict
			b preempt 2 0 1          | a unregistered | b=2, 1 b, gen 5`},
		{"the last of all registrants preempts itself", `
			a register 0 1           | | a=1, gen 1
			a reserve 1 8            | | a=1, 8, gen 1
			a preempt 1 1 8          | | , gen 2`},
		{"move", three + `
			a move 1 9 d             | conflict
			a reserve 1 5            | | a=1 b=2 c=3, 5 a, gen 3
			b move 2 9 d             | conflict
			d move 0 9 d             | conflict
			a move 2 9 d             | conflict
			a move 1 0 d             | wrong key
			a move 1 9 a             | wrong nexus
			a move 1 9 d2            | | a=1 b=2 c=3 d2=9, 5 d2, gen 4
			d2 move 9 8 b aptl leave | | a=1 b=8 c=3, 5 b, gen 5, kept`},
		{"no move of what all hold", three + `
			a reserve 1 7            | | a=1 b=2 c=3, 7, gen 3
			a move 1 9 d             | conflict`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := new(State)
			for line := range strings.SplitSeq(strings.TrimSpace(tt.script), "\n") {
				text, rest, checked := strings.Cut(line, "|")
				want, state, changed := strings.Cut(rest, "|")
				if want, state = strings.TrimSpace(want), strings.TrimSpace(state); !changed || state == "" {
					state = show(s)
				}
				before := show(s)
				next, result := s.Apply(command(t, text))
				if got := showResult(result); checked && got != want {
					t.Errorf("%s: %q, want %q", text, got, want)
				}
				if got := show(next); checked && got != state {
					t.Errorf("%s: state %q, want %q", text, got, state)
				}
				if show(s) != before {
					t.Errorf("%s: the old state has changed", text)
				}
				s = next
			}
		})
	}
}

// TestAllows is SPC-4 table 65: who may read and write, for every type. a holds,
// b is registered, c is not.
func TestAllows(t *testing.T) {
	for _, tt := range []struct {
		kind  Type
		want  string // who may read; who may write
		admit string // whose RESERVE (6) has no effect
	}{
		{None, "abc abc", ""},
		{WriteExclusive, "abc a", "a"},
		{ExclusiveAccess, "a a", "a"},
		{WriteExclusiveRegistrants, "abc ab", "ab"},
		{ExclusiveAccessRegistrants, "ab ab", "ab"},
		{WriteExclusiveAll, "abc ab", "ab"},
		{ExclusiveAccessAll, "ab ab", "ab"},
	} {
		s := &State{Registrations: []Registration{{nexus("a"), 1}, {nexus("b"), 2}}, Type: tt.kind}
		if tt.kind != None && !tt.kind.Shared() {
			s.Holder = nexus("a")
		}
		who := func(may func(Nexus) bool) (all string) {
			for _, n := range []string{"a", "b", "c"} {
				if may(nexus(n)) {
					all += n
				}
			}
			return all
		}
		got := who(func(n Nexus) bool { return s.Allows(n, true) }) + " " + who(func(n Nexus) bool { return s.Allows(n, false) })
		if got != tt.want {
			t.Errorf("type %d: allows %q, want %q", tt.kind, got, tt.want)
		}
		if got := who(s.Admits); got != tt.admit {
			t.Errorf("type %d: admits %q, want %q", tt.kind, got, tt.admit)
		}
		if s.Allows(nexus("a2"), false) != (tt.kind == None) {
			t.Errorf("type %d: the same initiator through another port", tt.kind)
		}
	}
	var nothing *State
	if !nothing.Allows(nexus("a"), false) || nothing.Reserved() || nothing.Registered() || nothing.Key(nexus("a")) != 0 {
		t.Error("nil is not an empty state")
	}
	for kind := range Type(16) {
		if want := slices.Contains([]Type{1, 3, 5, 6, 7, 8}, kind); kind.Valid() != want {
			t.Errorf("type %d: valid %v", kind, kind.Valid())
		}
	}
}

// TestFull registers as many as there may be.
func TestFull(t *testing.T) {
	s := new(State)
	register := func(i int) Outcome {
		next, r := s.Apply(Command{Action: RegisterAndIgnore, From: Nexus{fmt.Sprint(i), 1}, NewKey: 1})
		s = next
		return r.Outcome
	}
	for i := range MaxRegistrations {
		if got := register(i); got != Done {
			t.Fatalf("registration %d: %v", i, got)
		}
	}
	if got := register(MaxRegistrations); got != Full || len(s.Registrations) != MaxRegistrations {
		t.Errorf("one more: %v, %d registrations", got, len(s.Registrations))
	}
	if got := register(0); got != Done {
		t.Errorf("one of them again: %v", got)
	}
	_, r := s.Apply(Command{Action: Reserve, From: Nexus{"0", 1}, Key: 1, Type: WriteExclusive})
	if r.Outcome != Done {
		t.Errorf("reserve: %v", r.Outcome)
	}
}

// invariants are what every state keeps.
func (s *State) invariants() error {
	for i, r := range s.Registrations {
		if r.Key == 0 || i > 0 && s.Registrations[i-1].Compare(r.Nexus) >= 0 {
			return fmt.Errorf("registrations %v", s.Registrations)
		}
	}
	switch {
	case len(s.Registrations) > MaxRegistrations:
		return fmt.Errorf("%d registrations", len(s.Registrations))
	case s.Type == None && s.Holder != Nexus{}, s.Type.Shared() && s.Holder != Nexus{}:
		return fmt.Errorf("type %d, but holder %v", s.Type, s.Holder)
	case s.Reserved() && !s.Type.Shared() && s.Key(s.Holder) == 0:
		return fmt.Errorf("the holder %v is not registered", s.Holder)
	case s.Type.Shared() && len(s.Registrations) == 0:
		return fmt.Errorf("held by all, and there is nobody")
	}
	return nil
}

// FuzzApply runs any sequence of commands of three initiator ports through two
// target ports, with few keys: the invariants hold, refused commands change nothing,
// and what a state says is what its file says.
func FuzzApply(f *testing.F) {
	f.Add([]byte("\x00\x00\x10\x00\x01\x01\x10\x01\x07\x10\x11\x00"))
	f.Fuzz(func(t *testing.T, script []byte) {
		s := new(State)
		for ; len(script) >= 4; script = script[4:] {
			c := fuzzed(script)
			next, result := s.Apply(c)
			if err := next.invariants(); err != nil {
				t.Fatalf("%+v on %s: %v", c, show(s), err)
			}
			if result.Outcome != Done && (next != s || len(result.Events) > 0) {
				t.Fatalf("%+v on %s: refused, but something was done", c, show(s))
			}
			if g := next.Generation - s.Generation; g > 1 || g > 0 && (c.Action == Reserve || c.Action == Release) {
				t.Fatalf("%+v on %s: generation %d", c, show(s), next.Generation)
			}
			back, err := Decode(next.Encode([16]byte{1}), [16]byte{1})
			if err != nil {
				t.Fatalf("%s: %v", show(next), err)
			}
			back.Generation, back.Persist = next.Generation, next.Persist
			if show(back) != show(next) {
				t.Fatalf("%s became %s", show(next), show(back))
			}
			s = next
		}
	})
}

func fuzzed(p []byte) Command {
	kinds := []Type{WriteExclusive, ExclusiveAccess, WriteExclusiveRegistrants, ExclusiveAccessRegistrants, WriteExclusiveAll, ExclusiveAccessAll}
	names := map[byte]string{0: "a", 1: "b", 2: "c"}
	c := Command{
		Action: Action(p[0] % 8), From: Nexus{names[p[1]%3], uint16(1 + p[1]>>4&1)},
		Key: Key(p[2] & 3), NewKey: Key(p[2] >> 4 & 3), Type: kinds[int(p[3])%len(kinds)],
		Persist: p[3]&0x80 != 0, Leave: p[1]&0x80 != 0, To: Nexus{names[p[2]>>6%3], uint16(1 + p[0]>>7)},
	}
	if p[0]&0x10 != 0 {
		c.Ports = []uint16{1, 2}
	}
	if p[0]&0x20 != 0 {
		c.Listed = true
		c.Others = slices.Sorted(maps.Values(names))[:p[0]>>6]
	}
	return c
}
