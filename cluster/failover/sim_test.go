package failover

import (
	"flag"
	"fmt"
	"math/rand"
	"testing"
)

var (
	simSeed = flag.Int64("failover.seed", 0, "run this simulation alone, and tell what happens")
	simRuns = flag.Int("failover.runs", 500, "simulations")
)

// sim is a world in which anything happens by chance: fine steps of time, clocks that go
// at different rates, lines that are cut one way or both, pauses, crashes.
type sim struct {
	*world
	rnd    *rand.Rand
	cut    [2]bool // messages to this node are lost
	paused [2]bool
	quorum bool // proposals are agreed upon
	crashy int  // percent of the crashes that come about
	rare   int  // a fault comes about in one of so many steps
	tell   func(string, ...any)
	alone  int // worlds in which one node served by itself
	both   int // and together
}

func newSim(seed int64, mut mutation) *sim {
	rnd := rand.New(rand.NewSource(seed))
	w := newWorld(mut, 1+rnd.Intn(2))
	slow := rnd.Intn(2)
	w.rates[slow] = 98 + int64(rnd.Intn(3))
	for i := range w.n { // the clocks have gone at these rates for ever
		w.boot(i, 0, w.clock(i)-50_000)
		w.apply(i)
	}
	crashy := []int{5, 30, 90}[rnd.Intn(3)]
	w.grace = []Time{0, 1500}[seed%2] // of the lives to come
	return &sim{world: w, rnd: rnd, quorum: true, crashy: crashy, rare: []int{6, 40}[rnd.Intn(2)], tell: func(string, ...any) {}}
}

func (s *sim) chance(percent int) bool { return s.rnd.Intn(100) < percent }

// run lets many things happen; what is broken comes back.
func (s *sim) run(steps int) (bad string) {
	defer func() {
		if r := recover(); r != nil {
			b, ok := r.(broken)
			if !ok {
				panic(r)
			}
			bad = string(b)
		}
	}()
	for range steps {
		s.faults()
		s.passTime()
		for range 1 + s.rnd.Intn(4) {
			i := s.rnd.Intn(2)
			if !s.paused[i] {
				s.happen(i)
			}
		}
		s.count()
	}
	return ""
}

func (s *sim) count() {
	if s.answers(0, lunID(0)) && s.answers(1, lunID(0)) {
		s.both++
	} else if s.answers(0, lunID(0)) || s.answers(1, lunID(0)) {
		s.alone++
	}
}

func (s *sim) faults() {
	if s.rnd.Intn(s.rare) != 0 {
		return
	}
	i := s.rnd.Intn(2)
	switch s.rnd.Intn(7) {
	case 0:
		s.cut[i] = !s.cut[i]
		s.tell("messages to %s are lost: %t", names[i], s.cut[i])
	case 1:
		s.cut = [2]bool{s.chance(40), s.chance(40)}
	case 2:
		s.paused[i] = !s.paused[i]
		s.tell("%s is paused: %t", names[i], s.paused[i])
	case 3:
		s.paused = [2]bool{}
	case 4:
		s.quorum = s.chance(80)
		s.tell("quorum: %t", s.quorum)
	case 6:
		if s.chance(30) && s.mayForce(i) && !s.paused[i] {
			s.tell("%s is forced, and %s off", names[i], names[1-i])
			s.paused[1-i] = true
			s.force(i)
		}
	case 5:
		if s.chance(s.crashy) {
			// Mostly it lacks only a few entries, and is soon where it was.
			snapshot := max(0, s.n[i].applied-s.rnd.Intn(1+min(s.n[i].applied, 1<<s.rnd.Intn(6))))
			s.tell("%s crashes, and starts from entry %d", names[i], snapshot)
			s.boot(i, snapshot, s.clock(i))
		}
	}
}

func (s *sim) passTime() {
	s.time += int64(s.rnd.Intn(70))
	s.check()
	for i := range s.n {
		if !s.paused[i] && s.chance(70) {
			s.step(i, Tick{})
		}
	}
}

// happen lets one thing happen at a node.
func (s *sim) happen(i int) {
	n := &s.n[i]
	switch {
	case len(s.net[i]) > 0 && s.chance(60):
		k := s.rnd.Intn(len(s.net[i]))
		m := s.net[i][k]
		if s.cut[i] || s.chance(5) {
			s.net[i] = append(append([]any{}, s.net[i][:k]...), s.net[i][k+1:]...)
			return
		}
		s.tell("%d: %s receives %T%+v", s.clock(i), names[i], m, m)
		s.receive(i, k, s.chance(5))
	case len(s.proposals) > 0 && s.quorum && s.chance(30):
		k := s.rnd.Intn(len(s.proposals))
		s.tell("agreed: %s", s.proposals[k].text())
		s.commit(k)
	case (!n.born || n.applied < s.entriesOf()) && s.chance(50):
		s.apply(i)
		s.tell("%d: %s has applied %d: %v until %d", s.clock(i), names[i], n.applied, n.roles, n.until)
	case len(n.writing) > 0 && s.chance(60):
		s.flushed(i)
		s.tell("%d: %s has written %v", s.clock(i), names[i], n.disk)
	case s.chance(30):
		s.link(i)
	}
}

func (s *sim) link(i int) {
	id := lunID(s.rnd.Intn(s.luns))
	l := s.n[i].m.luns[id]
	switch {
	case l == nil:
	case !l.joined && s.chance(60):
		s.tell("%s is joined", names[i])
		s.step(i, Joined{id, 1})
	case l.joined && s.chance(10):
		s.step(i, Parted{id})
	case s.chance(2):
		s.tell("%s is drained", names[i])
		s.step(i, Drained{id})
	}
}

// heal ends all faults, and tells whether both nodes serve together in the end.
func (s *sim) heal() (bad string) {
	defer func() {
		if r := recover(); r != nil {
			bad = fmt.Sprint(r)
		}
	}()
	s.cut, s.paused, s.quorum = [2]bool{}, [2]bool{}, true
	for range 400 {
		s.time += 50
		for i := range s.n {
			s.step(i, Tick{})
		}
		for len(s.proposals) > 0 {
			s.commit(0)
		}
		for i := range s.n {
			for !s.n[i].born || s.n[i].applied < s.entriesOf() {
				s.apply(i)
			}
			for len(s.n[i].writing) > 0 {
				s.flushed(i)
			}
			for k := range s.luns {
				s.step(i, Joined{lunID(k), 1})
			}
			for len(s.net[i]) > 0 {
				s.receive(i, 0, false)
			}
		}
	}
	for k := range s.luns {
		for i := range s.n {
			if r := s.n[i].roles[lunID(k)]; r.Serve != Together || !s.answers(i, lunID(k)) {
				return fmt.Sprintf("LUN %d at %s in the end: %+v, until %d, now %d; %+v", k, names[i], r, s.n[i].until, s.clock(i), s.n[i].m.luns[lunID(k)])
			}
		}
	}
	return ""
}

func TestSim(t *testing.T) {
	if *simSeed != 0 {
		s := newSim(*simSeed, 0)
		s.tell = t.Logf
		if bad := s.run(600); bad != "" {
			t.Fatal(bad)
		}
		t.Log(s.heal())
		return
	}
	alone, both := 0, 0
	for seed := range int64(*simRuns) {
		s := newSim(seed+1, 0)
		bad := s.run(600)
		alone, both = alone+s.alone, both+s.both
		if bad == "" {
			bad = s.heal()
		}
		if bad != "" {
			t.Fatalf("-failover.seed=%d: %s", seed+1, bad)
		}
	}
	t.Logf("served by one node in %d worlds, by both in %d", alone, both)
	if total := *simRuns * 600; alone < total/20 || both < total/20 {
		t.Errorf("of %d worlds one node served in %d, both in %d: too few to have tried anything", total, alone, both)
	}
}

// TestMutations puts faults into the machine, which have to be found: by simulations, or
// those that need a rare course of things by the scripts.
func TestMutations(t *testing.T) {
	for name, mut := range map[string]mutation{
		"fromAnswer": fromAnswer, "grantsOn": grantsOn, "grantsBlind": grantsBlind, "grantsAhead": grantsAhead,
		"grantsUnread": grantsUnread, "forgets": forgets, "noWait": noWait, "offersFree": offersFree, "losesDeaf": losesDeaf,
		"forcesEarly": forcesEarly, "forgetsForce": forgetsForce, "forkServes": forkServes, "relievesEarly": relievesEarly,
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range int64(4 * *simRuns) {
				if bad := newSim(seed+1, mut).run(600); bad != "" {
					t.Logf("found with seed %d: %s", seed+1, bad)
					return
				}
			}
			t.Error("it was not found")
		})
	}
	for name, mut := range map[string]mutation{"grantsBehind": grantsBehind, "vouchesAll": vouchesAll, "leavesBlind": leavesBlind, "relievesEarly": relievesEarly, "offersEarly": offersEarly} {
		if runScripts(t, mut) == "" {
			t.Errorf("no script finds %s", name)
		}
	}
}
