package reserving

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/twinlun/twinlun/target/reservation"
	"github.com/twinlun/twinlun/target/sam"
)

var hostNames = []string{"a1", "b1", "c1", "a2", "b2", "c2"}

// history is what has come of the log so far, as package reservation and the catalog alone
// say; element 0 is before the first entry of the test.
type history struct {
	*world
	base     int // entries of the log that made the world
	states   []*reservation.State
	outcomes []reservation.Outcome
	serving  []string
	events   [][]reservation.Event
	changed  []int // the last entry that changed the state

	pending []*asked
	told    map[string]map[string]bool // the unit attentions that a host has to get
	known   int                        // entries that hosts have to be able to rely on
}

// asked is a command of a host that was not answered yet.
type asked struct {
	*started
	host  string
	entry int  // of the log; for READ KEYS, what its site had applied
	keys  bool // READ KEYS
}

// TestAnyOrder has hosts send any commands at both sites, which apply the log late and
// each at its own pace, while it changes who serves. Whatever was answered is in force at
// every site that serves.
func TestAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := &history{world: newWorld(t), told: map[string]map[string]bool{},
			states: []*reservation.State{new(reservation.State)}, outcomes: []reservation.Outcome{0}, serving: []string{"ab"},
			events: [][]reservation.Event{nil}, changed: []int{0}}
		h.base = len(h.log)
		for _, s := range h.sites {
			s.held = true
		}
		t.Repeat(map[string]func(*rapid.T){
			"out":   h.drawOut,
			"keys":  h.drawKeys,
			"write": h.drawWrite,
			"apply": h.drawApply,
			"serve": h.drawServe,
		})
		h.finish()
	})
}

func (h *history) site(host string) *site { return h.sites[host[1]-'1'] }
func (h *history) have(s *site) int       { return s.at() - h.base }

// mayServe tells whether a site has its hosts' commands done: it believes to serve, and
// has a lease, which the other one gives only to who has applied what it has itself of who
// serves.
func (h *history) mayServe(s *site) bool {
	here, there := h.have(s), h.have(h.sites[2-s.number])
	decided := 0
	for i := range max(here, there) {
		if h.serving[i] != h.serving[i+1] {
			decided = i + 1
		}
	}
	return decided <= here && slices.Contains([]byte(h.serving[here]), s.name[0])
}

func (h *history) drawHost(t *rapid.T) string {
	return rapid.SampledFrom(hostNames).Draw(t, "host")
}

// drawOut has a host send a PERSISTENT RESERVE OUT, mostly with its right key.
func (h *history) drawOut(t *rapid.T) {
	host := h.drawHost(t)
	if !h.mayServe(h.site(host)) || len(h.pending) > 8 {
		t.Skip("not now")
	}
	h.attend(host)
	c := reservation.Command{From: nexusOf(host), Action: reservation.Action(rapid.IntRange(0, 6).Draw(t, "action"))}
	c.Type = rapid.SampledFrom([]reservation.Type{1, 3, 5, 6, 7, 8}).Draw(t, "type")
	latest := h.states[len(h.states)-1]
	c.Key = latest.Key(c.From)
	if rapid.IntRange(0, 4).Draw(t, "wrong") == 0 {
		c.Key = reservation.Key(rapid.IntRange(0, 3).Draw(t, "key"))
	}
	c.NewKey = reservation.Key(rapid.IntRange(0, 3).Draw(t, "new key"))
	before := h.end()
	p := start(h.host(host), reserveOut(c.Action, c.Type, 24), list(uint64(c.Key), uint64(c.NewKey), 0))
	h.logged(t, before, p)
	h.record(c)
	h.pending = append(h.pending, &asked{p, host, len(h.states) - 1, false})
	h.check(t)
}

func (h *history) end() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.log)
}

// logged waits until a command is in the log.
func (h *history) logged(t *rapid.T, before int, p *started) {
	for {
		h.mu.Lock()
		grown, moved := len(h.log) > before, h.moved
		h.mu.Unlock()
		if grown {
			return
		}
		select {
		case <-moved:
		case <-p.done:
			t.Fatalf("it ended with %s, and nobody has agreed on it", outcome(p.c))
		}
	}
}

// record notes what comes of a command.
func (h *history) record(c reservation.Command) {
	n := len(h.states)
	next, result := h.states[n-1].Apply(c)
	h.states, h.outcomes, h.events = append(h.states, next), append(h.outcomes, result.Outcome), append(h.events, result.Events)
	h.serving = append(h.serving, h.serving[n-1])
	h.changed = append(h.changed, h.changed[n-1])
	if next != h.states[n-1] {
		h.changed[n] = n
	}
}

// drawServe changes who serves, if it can be changed so.
func (h *history) drawServe(t *rapid.T) {
	n := len(h.states)
	who := rapid.SampledFrom([]string{"a", "b", "ab", "ab", "ab"}).Draw(t, "who")
	if h.serving[n-1] == who || len(h.serving[n-1]) == 1 && len(who) == 1 {
		t.Skip("not so")
	}
	h.append(h.world.serving(who))
	h.record(reservation.Command{From: nexusOf("a1"), Action: reservation.Reserve}) // that does nothing
	h.outcomes[n], h.serving[n] = 0, who
	h.check(t)
}

// drawApply has a site apply one entry.
func (h *history) drawApply(t *rapid.T) {
	s := h.sites[rapid.IntRange(0, 1).Draw(t, "site")]
	h.apply(t, s)
}

func (h *history) apply(t tester, s *site) {
	if !s.step(true) {
		return
	}
	for _, e := range h.events[h.have(s)] {
		for _, host := range hostNames {
			if h.site(host) == s && nexusOf(host) == e.Nexus {
				if h.told[host] == nil {
					h.told[host] = map[string]bool{}
				}
				h.told[host][[]string{"6 2a03", "6 2a04", "6 2a05"}[e.Notice]] = true
			}
		}
	}
	h.check(t)
}

// attend has a host hear its unit attentions: those that it should, once each.
func (h *history) attend(host string) {
	for range 8 {
		switch got := outcome(run(h.host(host), testUnitReady, nil)); {
		case got == "good":
			if len(h.told[host]) > 0 {
				h.t.Fatalf("%s was not told %v", host, h.told[host])
			}
			return
		case !h.told[host][got]:
			h.t.Fatalf("%s was told %s, and should be told %v", host, got, h.told[host])
		default:
			delete(h.told[host], got)
		}
	}
}

// drawKeys has a host read the keys.
func (h *history) drawKeys(t *rapid.T) {
	host := h.drawHost(t)
	if !h.mayServe(h.site(host)) || len(h.pending) > 8 {
		t.Skip("not now")
	}
	h.attend(host)
	p := start(h.host(host), readKeys, nil)
	h.pending = append(h.pending, &asked{p, host, h.have(h.site(host)), true})
	h.check(t)
}

// drawWrite has a host write: as its site has applied the log, and never if an answer that
// some host has got forbids it.
func (h *history) drawWrite(t *rapid.T) {
	host := h.drawHost(t)
	s := h.site(host)
	if !h.mayServe(s) {
		t.Skip("not now")
	}
	h.attend(host)
	got := outcome(run(h.host(host), write, nil))
	want := "conflict"
	if h.states[h.have(s)].Allows(nexusOf(host), false) {
		want = "good"
	}
	if got != want {
		t.Fatalf("%s writes: %s, want %s", host, got, want)
	}
	may := slices.ContainsFunc(h.states[h.known:], func(s *reservation.State) bool { return s.Allows(nexusOf(host), false) })
	if got == "good" && !may {
		t.Fatalf("%s has written, against what was answered (entry %d; its site is at %d)", host, h.known, h.have(s))
	}
}

// check looks which commands are answered: those that may be, and all that must be.
func (h *history) check(t tester) {
	h.pending = slices.DeleteFunc(h.pending, func(p *asked) bool {
		s := h.site(p.host)
		peer := h.sites[2-s.number]
		here, there := h.have(s), h.have(peer)
		left := slices.ContainsFunc(h.serving[h.began(p):here+1], func(who string) bool { return who != "ab" && who != string(s.name) })
		alone := slices.ContainsFunc(h.serving[h.began(p):here+1], func(who string) bool { return who == string(s.name) })
		switch {
		case here >= p.entry && there >= here || left && h.serving[here] != "ab" || h.serving[here] == string(s.name) && here >= p.entry:
			<-p.done
		case !left && !alone && (here < p.entry || there < h.changed[p.entry]):
			if p.ended() {
				t.Fatalf("%s is answered (%s) for entry %d; its site is at %d, the other at %d", p.host, outcome(p.c), p.entry, here, there)
			}
		}
		if !p.ended() {
			return false
		}
		h.answered(t, p, left)
		return true
	})
	for _, s := range h.sites {
		if n := h.have(s); h.mayServe(s) && h.changed[n] < h.changed[h.known] {
			t.Fatalf("site %s serves as of entry %d, and %d was answered", s.name, n, h.known)
		}
	}
}

// began is an entry that a command's site had applied when the command came, or later.
func (h *history) began(p *asked) int { return min(p.entry, h.have(h.site(p.host))) }

// answered compares an answer with what the log says.
func (h *history) answered(t tester, p *asked, left bool) {
	got := outcome(p.c)
	if got == "2 040c" && left {
		return
	}
	if p.keys {
		h.wantKeys(t, p)
		return
	}
	if want := outcomeOf(h.outcomes[p.entry]); got != want {
		t.Fatalf("%s, entry %d: %s, want %s", p.host, p.entry, got, want)
	}
	h.known = max(h.known, p.entry)
}

func outcomeOf(o reservation.Outcome) string {
	switch o {
	case reservation.Done:
		return "good"
	case reservation.Conflict:
		return "conflict"
	case reservation.WrongRelease:
		return "5 2604"
	case reservation.WrongType:
		return "5 2400"
	}
	return "5 2600"
}

// wantKeys compares keys with those of the states from when they were asked for.
func (h *history) wantKeys(t tester, p *asked) {
	if p.c.Status != sam.Good {
		t.Fatalf("%s reads keys: %s", p.host, outcome(p.c))
	}
	got := fmt.Sprintf("%x", p.c.In[:p.c.InLen])
	for _, s := range h.states[p.entry:] {
		want := binary.BigEndian.AppendUint32(nil, s.Generation)
		want = binary.BigEndian.AppendUint32(want, uint32(8*len(s.Registrations)))
		for _, r := range s.Registrations {
			want = binary.BigEndian.AppendUint64(want, uint64(r.Key))
		}
		if got == fmt.Sprintf("%x", want) {
			return
		}
	}
	t.Fatalf("%s reads the keys %s, which there never were", p.host, got)
}

// finish has both sites apply everything: all commands are answered, and both have the
// state that the log says.
func (h *history) finish() {
	if len(h.serving[len(h.serving)-1]) == 1 {
		h.append(h.world.serving("ab"))
		h.record(reservation.Command{From: nexusOf("a1"), Action: reservation.Reserve})
		n := len(h.states) - 1
		h.outcomes[n], h.serving[n] = 0, "ab"
	}
	for range 2 {
		for _, s := range h.sites {
			for s.at() < h.end() {
				h.apply(h.t, s)
			}
		}
	}
	if len(h.pending) > 0 {
		h.t.Fatalf("%d commands are not answered", len(h.pending))
	}
	want := h.states[len(h.states)-1]
	for _, s := range h.sites {
		got := s.hub.LUN(disk).Load()
		if got.Generation != want.Generation || got.Type != want.Type || got.Holder != want.Holder || !slices.Equal(got.Registrations, want.Registrations) {
			h.t.Fatalf("site %s has %+v, want %+v", s.name, got, want)
		}
	}
	for _, host := range hostNames {
		h.attend(host)
	}
}
