package sim

import (
	"strings"
	"testing"
)

// versions are two stories of two blocks, each told at its own site.
type versions [2]*story

var blocks = [2]span{{0, 8}, {8, 8}}

// twoVersions begin when site 0 has written both blocks: op 1 and 2.
func twoVersions(t *testing.T) (v versions, since int64) {
	h := newHistory(8192, false)
	s := &story{t, h}
	for _, b := range blocks {
		s.put(0, b)
	}
	b := h.branch()
	return versions{s, {t, b}}, b.at
}

func (s *story) put(site int, b span) *op {
	s.t.Helper()
	o := s.beginWrite(site, b, false)
	if err := s.endWrite(o, b, false); err != nil {
		s.t.Fatal(err)
	}
	return o
}

// sees returns what the history says of a read of a block.
func (s *story) sees(site int, b span, id uint64) error {
	p := make([]byte, b.bytes())
	fill(p, id)
	return s.endRead(site, b, p, s.tick(), func(int64) bool { return true })
}

func (s *story) want(err error, text string) {
	s.t.Helper()
	if (err == nil) != (text == "") || err != nil && !strings.Contains(err.Error(), text) {
		s.t.Fatalf("%v, want %q", err, text)
	}
}

// chosen joins them: block i is as it is at site sites[i].
func (v versions) chosen(sites ...int) *story {
	var choices []choice
	for i, site := range sites {
		choices = append(choices, choice{blocks[i], site})
	}
	return &story{v[0].t, merge([2]*history{v[0].history, v[1].history}, choices)}
}

// TestUnanswered: a version shows what was begun at its site since it began, and was not
// acknowledged, and nothing of the other site's.
func TestUnanswered(t *testing.T) {
	v, _ := twoVersions(t)
	mine, other := v[0].beginWrite(1, blocks[0], false), v[0].beginWrite(0, blocks[1], false)
	v[1].want(v[1].sees(1, blocks[0], mine.id), "never there")
	v[1].unanswered(1)
	v[1].want(v[1].sees(1, blocks[0], mine.id), "")
	v[1].want(v[1].sees(1, blocks[1], other.id), "never there")
}

func TestVersionsAreApart(t *testing.T) {
	v, _ := twoVersions(t)
	a, b := v[0].put(0, blocks[0]), v[1].put(1, blocks[0])
	for site, s := range v {
		own, others := [2]*op{a, b}[site], [2]*op{b, a}[site]
		s.want(s.sees(site, blocks[0], own.id), "")
		s.want(s.sees(site, blocks[0], 1), notLinear)
		s.want(s.sees(site, blocks[0], others.id), "never there")
		s.want(s.sees(site, blocks[1], 2), "")
	}
}

func TestOneVersionStays(t *testing.T) {
	for winner := range 2 {
		v, _ := twoVersions(t)
		ops := [2]*op{v[0].put(0, blocks[0]), v[1].put(1, blocks[0])}
		s := v.chosen(winner, 1-winner)
		for site := range 2 {
			s.want(s.sees(site, blocks[0], ops[winner].id), "")
			s.want(s.sees(site, blocks[0], ops[1-winner].id), "never there")
			s.want(s.sees(site, blocks[0], 1), notLinear)
			s.want(s.sees(site, blocks[1], 2), "")
		}
	}
}

// What waits at the site whose version is given up may be carried out after the join.
func TestWritesWaitForTheJoin(t *testing.T) {
	v, _ := twoVersions(t)
	waits, dead := v[1].beginWrite(1, blocks[0], false), v[1].beginWrite(1, blocks[1], false)
	dead.dead = true
	s := v.chosen(0, 0)
	s.want(s.sees(0, blocks[0], 1), "")
	s.want(s.sees(0, blocks[0], waits.id), "")
	s.want(s.sees(0, blocks[0], 1), notLinear)
	s.want(s.sees(0, blocks[1], dead.id), "never there")
}

// An update is between what it saw and what it wrote in a branch, too.
func TestBranchedUpdate(t *testing.T) {
	s := newStory(t)
	s.write(0)
	u := s.beginUpdate(0, block)
	p := make([]byte, block.bytes())
	fill(p, 1)
	s.want(s.endUpdate(u, p, true, false, func(int64) bool { return true }), "")
	b := &story{t, s.branch()}
	if r := &b.registers[0]; r.of(u) == s.registers[0].of(u) || r.values[1].next != r.of(u) {
		t.Error("the branch shares values")
	}
}

func TestWhatIsGivenUpWasKept(t *testing.T) {
	v, since := twoVersions(t)
	k := kept{}
	v[1].want(v[1].lacks(1, blocks[0], since, k), "")
	v[1].put(1, blocks[0])
	v[1].want(v[1].lacks(1, blocks[0], since, k), "given up")
	v[1].want(v[1].lacks(1, blocks[1], since, k), "")
	for i := range blocks[0].n {
		k[i] = v[1].tick()
	}
	v[1].want(v[1].lacks(1, blocks[0], since, k), "")
	v[1].put(1, blocks[0])
	v[1].want(v[1].lacks(1, blocks[0], since, k), "given up")
	v[1].beginWrite(1, blocks[1], false) // nobody was told that it is done
	v[1].want(v[1].lacks(1, blocks[1], since, k), "")
}

// An atomic write that is in two extents is one no more if it stays in one of them.
func TestPartOfAnAtomicWrite(t *testing.T) {
	v, _ := twoVersions(t)
	both := span{0, 16}
	o := v[1].beginWrite(1, both, false)
	o.atomic = true
	v[1].want(v[1].endWrite(o, both, false), "")
	p := make([]byte, both.bytes())
	fill(p[:block.bytes()], o.id)
	fill(p[block.bytes():], 2)
	reads := func(s *story) error { return s.endRead(0, both, p, s.tick(), func(int64) bool { return false }) }
	s := v.chosen(1, 0)
	s.want(reads(s), "")
	w, _ := twoVersions(t)
	o = w[1].beginWrite(1, both, false)
	o.atomic = true
	w[1].want(w[1].endWrite(o, both, false), "")
	w[1].want(reads(w[1]), notLinear)
}
