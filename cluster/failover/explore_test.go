package failover

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// move is something that can happen next.
type move struct {
	name string
	do   func(w *world)
}

// tickTime is how far time goes at once.
const tickTime = 250

func (w *world) moves() (ms []move) {
	add := func(name string, do func(w *world)) { ms = append(ms, move{name, do}) }
	if w.steps > 0 {
		// A node that does not tick is paused, or busy; its time passes nevertheless.
		for ticking := 1; ticking < 4; ticking++ {
			add(fmt.Sprintf("time passes, ticks %02b", ticking), func(w *world) {
				w.steps--
				w.time += tickTime
				w.check()
				for i := range w.n {
					if ticking>>i&1 != 0 {
						w.step(i, Tick{})
					}
				}
			})
		}
	}
	if w.entriesOf() < w.entries {
		for k, p := range w.proposals {
			add("agreed: "+p.text(), func(w *world) { w.commit(k) })
		}
	}
	for i := range w.n {
		w.nodeMoves(i, add)
	}
	return ms
}

func (w *world) nodeMoves(i int, add func(string, func(*world))) {
	n, name := &w.n[i], string(names[i])
	for k, m := range w.net[i] {
		text := fmt.Sprintf("%s receives %T%+v", name, m, m)
		add(text, func(w *world) { w.receive(i, k, false) })
		if w.copies > 0 {
			add(text+", and once more", func(w *world) { w.copies--; w.receive(i, k, true) })
		}
	}
	if !n.born || n.applied < w.entriesOf() {
		add(name+" applies", func(w *world) { w.apply(i) })
	}
	if len(n.writing) > 0 {
		add(name+" has written a memo", func(w *world) { w.flushed(i) })
	}
	for k := range w.luns {
		id := lunID(k)
		l := n.m.luns[id]
		if l == nil {
			continue
		}
		if w.joins > 0 && l.alone() && !l.joined {
			add(name+" is joined", func(w *world) { w.joins--; w.step(i, Joined{id, 1}) })
		}
		if w.parts > 0 && l.joined {
			add(name+" is parted", func(w *world) { w.parts--; w.step(i, Parted{id}) })
		}
		if w.drains > 0 && l.mine && l.peers {
			add(name+" is drained", func(w *world) { w.drains--; w.step(i, Drained{id}) })
		}
	}
	if w.crashes > 0 {
		for _, snapshot := range slices.Compact([]int{0, n.applied}) {
			add(fmt.Sprintf("%s CRASHES, and starts from entry %d", name, snapshot), func(w *world) {
				w.crashes--
				w.boot(i, snapshot, w.clock(i))
			})
		}
	}
}

// try makes a move in a copy of the world; bad is what is broken then.
func (w *world) try(m move) (next *world, bad string) {
	next = w.clone()
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

// explore visits all worlds that can come from one, nearest first, up to a number, and
// returns how something was broken.
func explore(from *world, most int) (visited int, path []string) {
	type step struct {
		before *step
		name   string
		w      *world
	}
	trace := func(s *step, last ...string) (all []string) {
		for ; s.before != nil; s = s.before {
			all = append(all, s.name)
		}
		slices.Reverse(all)
		return append(all, last...)
	}
	seen := map[[16]byte]bool{}
	queue := []*step{{w: from}}
	for len(queue) > 0 {
		s := queue[0]
		queue = queue[1:]
		for _, m := range s.w.moves() {
			next, bad := s.w.try(m)
			if bad != "" {
				return len(seen), trace(s, m.name, bad)
			}
			sum := sha256.Sum256([]byte(next.key()))
			if key := [16]byte(sum[:]); !seen[key] {
				seen[key] = true
				queue = append(queue, &step{s, m.name, next})
			}
		}
		s.w = nil
		if len(seen) >= most {
			return len(seen), nil
		}
	}
	return len(seen), nil
}

// scope is a world that is explored, and the faults that must be found in it.
type scope struct {
	name  string
	prime func(w *world) // what has happened before
	begin func(w *world) // what may happen
	finds []mutation
}

// healthy lets both nodes have leases.
func healthy(w *world) {
	for range 2 {
		for i := range w.n {
			w.step(i, Tick{})
		}
		for i := range w.n {
			for len(w.net[i]) > 0 {
				w.receive(i, 0, false)
			}
		}
		for i := range w.n {
			for len(w.n[i].writing) > 0 {
				w.flushed(i)
			}
		}
	}
}

var scopes = []scope{
	{"take over", healthy, func(w *world) { w.steps, w.entries = 5, 1 }, nil},
}

func TestExplore(t *testing.T) {
	for _, s := range scopes {
		t.Run(s.name, func(t *testing.T) {
			w := newWorld(0, 1)
			s.prime(w)
			s.begin(w)
			n, path := explore(w, 1_000_000)
			t.Logf("%d worlds", n)
			if path != nil {
				t.Fatalf("after %d worlds:\n%s", n, strings.Join(path, "\n"))
			}
			for m := fromAnswer; m <= losesDeaf; m++ {
				w := newWorld(m, 1)
				s.prime(w)
				s.begin(w)
				n, path := explore(w, 100_000)
				t.Logf("mutation %d: %d worlds, %d", m, n, len(path))
			}
		})
	}
}
