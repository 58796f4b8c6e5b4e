package sanitize

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// world is two sites, and what is on its way between them. A message may be late, lost,
// or come after others: a Tell whose asker has given up is still heard.
type world struct {
	sites  [2]site
	flying []message
	begun  int // orders
	left   budget
}

type site struct {
	State
	sure bool // it Runs, and has been answered since it started that the other one follows: it erases
}

// message is a State on its way to a site, or the answer to one.
type message struct {
	to     int
	answer bool
	begins bool // the asker wants to begin an order when it is answered
	State
}

// budget bounds what may happen.
type budget struct{ orders, crashes, failures, exits, lost, objections int }

func (w world) clone() world {
	w.flying = slices.Clone(w.flying)
	return w
}

// key names a world. What flies is a set.
func (w *world) key() string {
	b := make([]byte, 0, 128)
	for i := range w.sites {
		b = append(w.sites[i].brief(b), bit(w.sites[i].sure))
	}
	all := make([]string, 0, maxFlying+1)
	for i := range w.flying {
		m := &w.flying[i]
		all = append(all, string(m.brief([]byte{byte(m.to), bit(m.answer), bit(m.begins)})))
	}
	slices.Sort(all)
	for _, m := range all {
		b = append(b, m...)
	}
	l := &w.left
	return string(append(b, byte(w.begun), byte(l.orders), byte(l.crashes), byte(l.failures), byte(l.exits), byte(l.lost), byte(l.objections)))
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// brief are all that differs between the States of an exploration.
func (s *State) brief(b []byte) []byte {
	o := &s.Order
	return append(b, byte(s.Phase), byte(s.Over), byte(o.Number), o.ID[0], byte(o.Before), bit(o.AUSE), byte(s.objection))
}

func word(s State) string {
	return fmt.Sprintf("%v %d%c (before: %d, AUSE: %v), over %d, objection %d", s.Phase, s.Order.Number, 'A'+s.Order.ID[0], s.Order.Before, s.Order.AUSE, s.Over, s.objection)
}

// maxFlying bounds what is on its way at a time.
const maxFlying = 3

// event is something that may happen, and the world after it.
type event struct {
	name func() string
	world
}

// next are the worlds that may follow.
func (w world) next() (all []event) {
	add := func(name func() string, change func(w *world)) {
		c := w.clone()
		change(&c)
		all = append(all, event{name, c})
	}
	for i := range w.sites {
		s := w.sites[i]
		if len(w.flying) < maxFlying {
			add(func() string { return fmt.Sprint(i, " tells") }, func(w *world) { w.send(1-i, false, false, s.State) })
			if w.left.orders > 0 && s.Phase != Running && s.Phase != Starting && s.Phase != Following {
				add(func() string { return fmt.Sprint(i, " wants to begin") }, func(w *world) {
					w.left.orders--
					w.send(1-i, false, true, s.State)
				})
			}
		}
		if s.Phase == Starting {
			add(func() string { return fmt.Sprint(i, " gives up") }, func(w *world) { w.sites[i].State = s.abandon() })
		}
		if s.sure {
			add(func() string { return fmt.Sprint(i, " has erased") }, func(w *world) { w.sites[i] = site{State: s.over()} })
			if w.left.failures > 0 {
				add(func() string { return fmt.Sprint(i, " fails") }, func(w *world) {
					w.left.failures--
					w.sites[i] = site{State: s.failed(s.Order.AUSE)}
				})
			}
		}
		if out, err := s.exit(); err == nil && s.Phase == Failed && w.left.exits > 0 {
			add(func() string { return fmt.Sprint(i, " exits") }, func(w *world) {
				w.left.exits--
				w.sites[i].State = out
			})
		}
		if w.left.crashes > 0 {
			add(func() string { return fmt.Sprint(i, " crashes") }, func(w *world) {
				w.left.crashes--
				w.crash(i)
			})
		}
		if w.left.lost > 0 {
			add(func() string { return fmt.Sprint(i, " loses its file") }, func(w *world) {
				w.left.lost--
				w.sites[i], w.flying = site{}, nil // the daemon is down for longer than anything is on its way
			})
		}
	}
	for k, m := range w.flying {
		add(func() string { return fmt.Sprint("to ", m.to, ": ", word(m.State)) }, func(w *world) { w.deliver(k, None) })
		if s := w.sites[m.to]; w.left.objections > 0 && !m.answer && s.objects(m.State) {
			add(func() string { return fmt.Sprint(m.to, " objects") }, func(w *world) {
				w.left.objections--
				w.deliver(k, Conflict)
			})
		}
		add(func() string { return fmt.Sprint("lost to ", m.to) }, func(w *world) { w.flying = slices.Delete(w.flying, k, k+1) })
	}
	return all
}

func (w *world) send(to int, answer, begins bool, s State) {
	w.flying = append(w.flying, message{to, answer, begins, s.told()})
}

// crash: what is asked here is answered to nobody; what it has told may still be heard.
func (w *world) crash(i int) {
	w.flying = slices.DeleteFunc(w.flying, func(m message) bool { return m.to == i && m.answer })
	s := w.sites[i].State
	if s.Phase == Starting {
		s = s.abandon()
	}
	w.sites[i] = site{State: s}
}

// deliver does with a message what Sanitizer does.
func (w *world) deliver(k int, why Objection) {
	m := w.flying[k]
	w.flying = slices.Delete(w.flying, k, k+1)
	s := &w.sites[m.to]
	before := s.State
	switch {
	case why != None:
		s.State = s.object(m.State, why)
	case m.answer:
		s.State = mergeAnswer(s.State, m.State)
	default:
		s.State = merge(s.State, m.State)
	}
	answer := s.State
	s.objection = None
	if s.Phase != before.Phase || !s.Order.same(&before.Order) {
		s.sure = false
	}
	if !m.answer {
		w.send(1-m.to, true, m.begins, answer)
		return
	}
	if next, ok := s.agree(m.State); ok {
		s.State = next
	}
	s.sure = s.sure || s.Phase == Running && s.followedBy(m.State)
	if m.begins {
		w.begin(m.to)
	}
}

// begin is the second half of Sanitizer.Start, after the first exchange.
func (w *world) begin(i int) {
	w.begun++
	o := Order{ID: [16]byte{byte(8 + (1-2*i)*w.begun)}, Passes: 1, AUSE: w.begun%2 == 0}
	if next, err := w.sites[i].start(o); err == nil {
		w.sites[i] = site{State: next}
		w.send(1-i, false, false, next)
	}
}

// check looks whether the world is as it must be.
func (w *world) check(trusted bool) error {
	for i := range w.sites {
		s, other := &w.sites[i], &w.sites[1-i]
		switch {
		case s.sure && s.Phase != Running:
			return fmt.Errorf("site %d erases while it is %v", i, s.Phase)
		case s.sure && other.Over >= s.Order.Number:
			return fmt.Errorf("site %d erases for an order that is over", i)
		case s.sure && other.sure:
			return fmt.Errorf("both erase")
		case trusted && s.Phase == Running && other.Phase == Idle:
			return fmt.Errorf("site %d leads, and hosts are served at the other one", i)
		}
		if err := s.check(); err != nil {
			return fmt.Errorf("site %d: %w", i, err)
		}
	}
	return nil
}

// settle lets the sites talk undisturbed, and tells whether they agree then.
func (w world) settle() error {
	w = w.clone()
	w.flying = nil
	for i := range w.sites {
		if s := w.sites[i].State; s.Phase == Starting {
			w.sites[i].State = s.abandon()
		}
	}
	for range 3 {
		for i := range w.sites {
			w.sites[1-i].State = merge(w.sites[1-i].State, w.sites[i].told())
			w.sites[i].State = merge(w.sites[i].State, w.sites[1-i].told())
		}
	}
	a, b := w.sites[0].State, w.sites[1].State
	switch {
	case a.Phase == Idle && b.Phase == Idle && a.Over == b.Over:
		return nil
	case !a.Order.same(&b.Order) || a.Over != b.Over:
	case a.Phase == Running && b.Phase == Following, a.Phase == Following && b.Phase == Running:
		return nil
	case a.Phase == Failed && b.Phase == Failed && a.Order.AUSE == b.Order.AUSE:
		return nil
	}
	return fmt.Errorf("left to themselves they end as %s and %s", word(a), word(b))
}

// explore goes through the worlds that can be reached, the nearest first, and returns
// how many it has looked at; all says that there are no others.
func explore(t *testing.T, left budget, most int) (n int, all bool) {
	type reached struct {
		world
		from int // in worlds
		name func() string
	}
	first := world{left: left}
	worlds := []reached{{first, -1, func() string { return "it begins" }}}
	seen := map[string]bool{first.key(): true}
	for at := 0; at < len(worlds); at++ {
		if at == most {
			return at, false
		}
		w := &worlds[at].world
		err := w.check(left.lost == 0)
		if err == nil {
			err = w.settle()
		}
		if err != nil {
			var way []string
			for k := at; k >= 0; k = worlds[k].from {
				r := &worlds[k]
				way = append(way, fmt.Sprintf("%s\n\t\t%s | %s", r.name(), word(r.sites[0].State), word(r.sites[1].State)))
			}
			slices.Reverse(way)
			t.Fatalf("%v, after\n\t%s", err, strings.Join(way, "\n\t"))
		}
		for _, s := range w.next() {
			if k := s.key(); !seen[k] {
				seen[k] = true
				worlds = append(worlds, reached{s.world, at, s.name})
			}
		}
	}
	return len(worlds), true
}

// TestExplore goes through what can happen with a few orders, crashes, failures, and
// messages that are lost or late: the nearest worlds, and in a soak (TWINLUN_SOAK) all
// that there are, some hundred thousand.
func TestExplore(t *testing.T) {
	most := 10_000
	if os.Getenv("TWINLUN_SOAK") != "" {
		most = 10_000_000
	}
	for _, left := range []budget{
		{orders: 1, crashes: 1, failures: 1, exits: 1},
		{orders: 2, crashes: 1, failures: 1, exits: 1},
		{orders: 3},
		{orders: 2, crashes: 1, objections: 1, failures: 1},
		{orders: 2, lost: 1, failures: 1, exits: 1},
	} {
		n, all := explore(t, left, most)
		t.Logf("%+v: %d worlds, all: %v", left, n, all)
		if n < 1000 || most > 1_000_000 && !all {
			t.Errorf("%+v: %d worlds, all: %v; the exploration is wrong", left, n, all)
		}
	}
}
