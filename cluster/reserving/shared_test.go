package reserving

import (
	"strconv"
	"strings"
	"testing"

	"github.com/twinlun/twinlun/target/reservation"
)

// TestBothSites has hosts at both sites send commands: "a1" is initiator a at site 1. A
// line is "host action KEY NEW [type] =outcome", or "host: CDB =outcome".
func TestBothSites(t *testing.T) {
	for _, tt := range []struct{ name, script string }{
		{"registered", `
			a1 0 0 1 =good; a2 0 0 1 =good; a2 0 0 2 =conflict; a1 0 1 2 =good
			b2: 5e =good; a2 0 1 3 =good; a2 0 3 0 =good; a2 0 3 4 =conflict`},
		{"write exclusive", `
			a1 6 0 1 =good; b2 6 0 2 =good; a1 1 1 0 1 =good
			a1: WRITE =good; a2: WRITE =conflict; b1: WRITE =conflict; b2: WRITE =conflict; b2: READ =good; c2: READ =good
			b2 1 2 0 1 =conflict; b2 2 2 0 1 =good; b2: WRITE =conflict; a1 2 1 0 1 =good; b2: WRITE =good; c1: WRITE =good`},
		{"exclusive access", `
			a1 6 0 1 =good; b2 6 0 2 =good; b2 1 2 0 3 =good
			a1: READ =conflict; a2: READ =conflict; c2: READ =conflict; b1: READ =conflict; b2: READ =good; b2: WRITE =good
			b2 2 2 0 3 =good; a1: READ =good`},
		{"registrants only", `
			a1 6 0 1 =good; b2 6 0 2 =good; a1 1 1 0 6 =good
			b2: WRITE =good; c1: READ =conflict; c2: READ =conflict; b1: WRITE =conflict
			a1 2 1 0 6 =good; b2: 00 =6 2a04; b2: 00 =good; a1: 00 =good; c2: READ =good`},
		{"write exclusive, registrants only", `
			a1 6 0 1 =good; b2 6 0 2 =good; b2 1 2 0 5 =good; a1: WRITE =good; c2: READ =good; c2: WRITE =conflict
			b2 0 2 0 =good; a1: 00 =6 2a04; c2: WRITE =good`},
		{"all registrants", `
			a1 6 0 1 =good; b2 6 0 2 =good; a1 1 1 0 8 =good; b2 1 2 0 8 =good; c2: READ =conflict
			a1 0 1 0 =good; b2: 00 =good; a1: READ =conflict; b2: WRITE =good; b2 2 2 0 8 =good; c1: WRITE =good`},
		{"write exclusive, all registrants", `
			a1 6 0 1 =good; b2 6 0 2 =good; b2 1 2 0 7 =good; c1: READ =good; c1: WRITE =conflict; a1: WRITE =good
			a1 4 1 0 1 =good; b2: 00 =6 2a05; b2: WRITE =conflict; a1: WRITE =good`},
		{"preempted by the other site", `
			a1 6 0 1 =good; b2 6 0 2 =good; a1 1 1 0 3 =good
			b2: READ =conflict; b2 4 2 1 3 =good; a1: READ =6 2a05; a1: READ =conflict; b2: WRITE =good; b2 4 2 9 3 =conflict
			a1: 5e =good; a1 6 0 1 =good; a1 5 1 2 3 =good; b2: READ =6 2a05; b2: READ =conflict; a1: WRITE =good`},
		{"cleared by the other site", `
			a1 6 0 1 =good; b2 6 0 2 =good; c1 6 0 3 =good; a1 1 1 0 3 =good; b2 3 2 0 =good
			a1: WRITE =6 2a03; c1: WRITE =6 2a03; b2: WRITE =good; a1 1 1 0 3 =conflict`},
		{"with registrations there RESERVE (6) conflicts", `a1 6 0 1 =good; b2: 16 =conflict; a1 1 1 0 1 =good; b2: 17 =conflict; b2: READ =good`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			for _, line := range strings.FieldsFunc(tt.script, func(r rune) bool { return r == ';' || r == '\n' }) {
				w.line(strings.TrimSpace(line))
			}
		})
	}
}

func (w *world) line(line string) {
	if line == "" {
		return
	}
	text, want, _ := strings.Cut(line, " =")
	f := strings.Fields(text)
	if host, ok := strings.CutSuffix(f[0], ":"); ok {
		cdb := map[string]string{"WRITE": write, "READ": read, "5e": readKeys}[f[1]]
		if cdb == "" {
			cdb = f[1]
		}
		if got := outcome(run(w.host(host), cdb, nil)); got != want {
			w.t.Errorf("%s: %q", line, got)
		}
		return
	}
	number := func(i int) uint64 {
		if i >= len(f) {
			return 0
		}
		n, err := strconv.ParseUint(f[i], 16, 64)
		if err != nil {
			w.t.Fatalf("%s: %v", line, err)
		}
		return n
	}
	if got := outcome(w.out(f[0], reservation.Action(number(1)), number(2), number(3), reservation.Type(number(4)))); got != want {
		w.t.Errorf("%s: %q", line, got)
	}
}

// TestAllPorts registers at both sites at once, and moves a reservation to the other one.
func TestAllPorts(t *testing.T) {
	w := newWorld(t)
	const allPorts, persist, leave = 0x04, 0x01, 0x02
	data := func(host, cdb, want string) {
		t.Helper()
		c := run(w.host(host), cdb, nil)
		if got := c.In[:c.InLen]; outcome(c) != "good" || string(got) != string(unhex(want)) {
			t.Errorf("%s: %s, %x, want %s", host, outcome(c), got, want)
		}
	}
	data("a1", capabilities, "0008 1d 80 ea01 0000") // ATP_C, PTPL_C
	w.want(run(w.host("a1"), reserveOut(reservation.Register, 0, 24), list(0, 5, allPorts|persist)), "good")
	data("b2", readKeys, "00000001 00000010 0000000000000005 0000000000000005")
	data("b2", capabilities, "0008 1d 81 ea01 0000") // PTPL_A
	w.want(w.out("a2", reservation.Reserve, 5, 0, reservation.ExclusiveAccessRegistrants), "good")
	w.want(run(w.host("a1"), write, nil), "good")
	move := append(list(5, 9, 0)[:17], leave, 0, 1, 0, 0, 0, 36)
	id := "45000020" + hexOf("iqn.test:b,i,0x800000000001") + strings.Repeat("00", 5)
	w.want(run(w.host("a2"), reserveOut(reservation.RegisterAndMove, 0, 60), append(move, unhex(id)...)), "good")
	w.want(run(w.host("b1"), write, nil), "good")
	w.want(run(w.host("a2"), write, nil), "conflict")
	if s := w.sites[1].hub.LUN(disk).Load(); s.Holder != nexusOf("b1") || s.Key(nexusOf("b1")) != 9 || s.Key(nexusOf("a2")) != 0 {
		t.Errorf("after the move: %+v", s)
	}
}
