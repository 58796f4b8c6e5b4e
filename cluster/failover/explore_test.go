package failover

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// The exploration visits every run of two nodes in which at most so many faults come
// about, at whatever time. Between faults everything takes its ordinary course, in rounds:
// time passes, nodes tick, what was proposed is agreed upon and applied, memos are
// written, messages arrive. Faults begin and end by themselves: a line is cut in one
// direction, holds back its messages, or brings all of them twice; a node is paused, or
// does not hear the log; nobody agrees on anything; a node crashes, and begins with an
// earlier state; replicas are joined or parted; a node is drained.

var moreFaults = flag.Int("failover.faults", 0, "explore runs with so many more faults")

// roundTime is how far time goes in a round: half a heartbeat.
const roundTime = 125

// toggles are faults that begin and end.
type toggles struct {
	cut, held, twice   [2]bool // messages to a node
	paused, deaf, slow [2]bool // a node; slow: it writes one memo a round
	noQuorum           bool
}

// explored is a world in the exploration.
type explored struct {
	*world
	toggles
	rounds, faults int // that may still come
	allowed        string
}

func (x *explored) clone() *explored {
	c := *x
	c.world = x.world.clone()
	return &c
}

func (x *explored) key() [16]byte {
	sum := sha256.Sum256(fmt.Appendf([]byte(x.world.key()), "%v %d %d", x.toggles, x.rounds, x.faults))
	return [16]byte(sum[:])
}

// round is the ordinary course of things.
func (x *explored) round() {
	x.rounds--
	x.time += roundTime
	x.check()
	if !x.noQuorum {
		for len(x.proposals) > 0 && x.entriesOf() < 12 {
			x.commit(0)
		}
	}
	for i := range x.n {
		n := &x.n[i]
		if x.paused[i] {
			continue
		}
		for !n.born || !x.deaf[i] && n.applied < x.entriesOf() {
			x.apply(i)
		}
		x.step(i, Tick{})
		for more := true; more && len(n.writing) > 0; more = !x.slow[i] {
			x.flushed(i)
		}
	}
	for range 3 { // requests, answers, and what was held back
		x.arrive(0)
		x.arrive(1)
	}
}

func (x *explored) arrive(i int) {
	if x.cut[i] {
		x.net[i] = nil
	}
	for !x.held[i] && !x.paused[i] && len(x.net[i]) > 0 {
		if x.twice[i] {
			x.receive(i, 0, true)
		}
		x.receive(i, 0, false)
	}
}

// move is something that can happen next.
type move struct {
	name string
	do   func(x *explored)
}

func (x *explored) moves() (ms []move) {
	if x.rounds > 0 {
		ms = append(ms, move{"time passes", (*explored).round})
	}
	if x.faults == 0 {
		return ms
	}
	fault := func(kind, name string, do func(x *explored)) {
		if strings.Contains(x.allowed, kind) {
			ms = append(ms, move{name, func(x *explored) { x.faults--; do(x) }})
		}
	}
	fault("quorum", "QUORUM", func(x *explored) { x.noQuorum = !x.noQuorum })
	for i := range x.n {
		name := string(names[i])
		fault("cut", "CUT to "+name, func(x *explored) { x.cut[i] = !x.cut[i] })
		fault("hold", "HOLD to "+name, func(x *explored) { x.held[i] = !x.held[i] })
		fault("twice", "TWICE to "+name, func(x *explored) { x.twice[i] = !x.twice[i] })
		fault("pause", "PAUSE "+name, func(x *explored) { x.paused[i] = !x.paused[i] })
		fault("slow", "SLOW "+name, func(x *explored) { x.slow[i] = !x.slow[i] })
		fault("deaf", "DEAF "+name, func(x *explored) { x.deaf[i] = !x.deaf[i] })
		for _, less := range slices.Compact([]int{0, min(1, x.n[i].applied), x.n[i].applied}) {
			fault("crash", fmt.Sprintf("CRASH of %s, %d entries behind", name, less), func(x *explored) {
				x.boot(i, x.n[i].applied-less, x.clock(i))
			})
		}
		x.lineMoves(i, fault)
	}
	return ms
}

func (x *explored) lineMoves(i int, fault func(kind, name string, do func(*explored))) {
	name, id := string(names[i]), lunID(0)
	l := x.n[i].m.luns[id]
	switch {
	case l == nil || x.paused[i]:
	case l.joined:
		fault("part", name+" is parted", func(x *explored) { x.step(i, Parted{id}) })
	case l.alone():
		fault("join", name+" is joined", func(x *explored) { x.step(i, Joined{id, 1}) })
	}
	if !x.paused[i] && x.mayForce(i) {
		fault("force", name+" IS FORCED, the other one is off", func(x *explored) { x.paused[1-i] = true; x.force(i) })
	}
	if l != nil && l.mine && l.peers && !x.paused[i] {
		fault("drain", name+" is drained", func(x *explored) { x.step(i, Drained{id}) })
	}
}

// try makes a move in a copy of the world; bad is what is broken then.
func (x *explored) try(m move) (next *explored, bad string) {
	next = x.clone()
	defer func() {
		if r := recover(); r != nil {
			b, ok := r.(broken)
			if !ok {
				panic(r)
			}
			bad = string(b)
		}
	}()
	m.do(next)
	return next, ""
}

// explore visits every world that can come from one, and returns how something was broken.
func explore(x *explored) (visited int, path []string) {
	seen := map[[16]byte]bool{}
	var visit func(x *explored) []string
	visit = func(x *explored) []string {
		for _, m := range x.moves() {
			next, bad := x.try(m)
			if bad != "" {
				return []string{m.name, bad}
			}
			key := next.key()
			if seen[key] {
				continue
			}
			seen[key] = true
			if path := visit(next); path != nil {
				return append([]string{m.name}, path...)
			}
		}
		return nil
	}
	path = visit(x)
	return len(seen), path
}

// scope is what is explored: the faults that are possible, how many of them, in how many
// rounds, from which world on; and which faults of the machine are found there.
type scope struct {
	name, allowed  string
	faults, rounds int
	from           func(x *explored)
	finds          []mutation
}

var scopes = []scope{
	{"take over", "cut hold deaf pause quorum", 3, 14, leased, []mutation{fromAnswer, grantsOn, grantsBlind, grantsAhead, grantsUnread, noWait, losesDeaf}},
	{"take over and crash", "cut deaf crash", 3, 14, leased, []mutation{forgets}},
	{"back again", "cut join part deaf quorum", 3, 16, aAlone, nil},
	{"back again and crash", "join crash deaf slow part", 4, 8, aAlone, nil},
	{"forced", "force pause deaf quorum slow", 3, 10, leased, []mutation{forcesEarly}},
	{"forced and crash", "force crash pause quorum", 3, 8, leased, []mutation{forgetsForce}},
	{"forced too late", "force pause deaf cut crash", 4, 6, bCutOff, []mutation{forkServes}},
	{"drain", "cut drain deaf crash", 3, 12, leased, nil},
}

// bCutOff: node b is cut off, and knows only of the term that both served; a has taken over.
func bCutOff(x *explored) {
	x.pass(4)
	x.cut, x.deaf[1] = [2]bool{true, true}, true
	x.pass(14)
	if r := x.n[0].roles[lunID(0)]; r.Serve != ByItself || r.When != Always {
		panic("a does not serve alone")
	}
}

// leased: both nodes serve together.
func leased(x *explored) { x.pass(4) }

// aAlone: node a serves alone, and is connected to b, which has applied that.
func aAlone(x *explored) {
	x.pass(4)
	x.cut = [2]bool{true, true}
	x.pass(14)
	x.cut = [2]bool{}
	x.pass(3)
	if r := x.n[0].roles[lunID(0)]; r.Serve != ByItself || r.When != Always {
		panic("a does not serve alone")
	}
}

func (x *explored) pass(rounds int) {
	for x.rounds = rounds; x.rounds > 0; {
		x.round()
	}
}

// world is where a scope begins, with clocks that go at different rates.
func (s *scope) world(mut mutation, rates [2]int64) *explored {
	w := newWorld(mut, 1)
	w.rates = rates
	for i := range w.n {
		w.boot(i, 0, w.clock(i)-50_000)
		w.apply(i)
	}
	x := &explored{world: w}
	s.from(x)
	x.allowed, x.faults, x.rounds = s.allowed, s.faults, s.rounds
	return x
}

func TestExplore(t *testing.T) {
	for _, s := range scopes {
		t.Run(s.name, func(t *testing.T) {
			s.faults += *moreFaults
			s.safe(t, [2]int64{100, 100})
			s.faults--
			s.safe(t, [2]int64{98, 100})
			s.safe(t, [2]int64{100, 98})
		})
	}
}

// safe visits everything with clocks of some rates.
func (s *scope) safe(t *testing.T, rates [2]int64) {
	n, path := explore(s.world(0, rates))
	t.Logf("clocks %v, %d faults: %d worlds", rates, s.faults, n)
	if path != nil {
		t.Fatalf("clocks %v, after %d worlds:\n%s", rates, n, strings.Join(path, "\n"))
	}
}

// TestExploreMutations puts faults into the machine, which have to be found.
func TestExploreMutations(t *testing.T) {
	for _, s := range scopes {
		for _, m := range s.finds {
			n, path := explore(s.world(m, [2]int64{100, 100}))
			if path == nil {
				t.Errorf("%s: mutation %d is not found in %d worlds", s.name, m, n)
				continue
			}
			t.Logf("%s: mutation %d, after %d worlds: %s", s.name, m, n, path[len(path)-1])
		}
	}
}
