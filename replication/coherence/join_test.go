package coherence

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/wire"
)

// joinPairs are states, here and at the peer, that a join can find; with a turn of 1.
var joinPairs = [][2]dirtymap.State{
	{0, 0},
	{dirtymap.Volatile, 0},
	{dirtymap.Held, dirtymap.Stale},
	{dirtymap.Stale, dirtymap.Held},
	{dirtymap.Held, 0},
	{0, dirtymap.Held},
	{dirtymap.Held | dirtymap.Alone, 0},
	{dirtymap.Held | dirtymap.Alone, dirtymap.Stale},
	{dirtymap.Stale, dirtymap.Held | dirtymap.Alone},
}

// joinCase is what a join finds, in runs of all lengths.
type joinCase struct {
	geo          dirtymap.Geometry
	mine, theirs []dirtymap.State
	relaxed      []uint64
	restarted    bool
	peer         wire.JoinHello
}

func newJoinCase(rnd *rand.Rand) *joinCase {
	const extents = 10_007
	c := &joinCase{
		geo:       dirtymap.Geometry{Size: extents * dirtymap.BlockSize, ExtentSize: dirtymap.BlockSize},
		restarted: rnd.IntN(2) == 0,
	}
	c.peer = wire.JoinHello{Size: uint64(c.geo.Size), ExtentSize: uint32(c.geo.ExtentSize), Committed: 4}
	if rnd.IntN(3) > 0 {
		c.peer.History = [16]byte{1}
	}
	for len(c.mine) < extents {
		pair, n := joinPairs[rnd.IntN(len(joinPairs))], []int{1, 5, 300, 5000}[rnd.IntN(4)]
		for range min(1+rnd.IntN(n), extents-len(c.mine)) {
			c.mine, c.theirs = append(c.mine, pair[0].WithTurn(1)), append(c.theirs, pair[1].WithTurn(1))
		}
	}
	for range rnd.IntN(20) {
		c.relaxed = append(c.relaxed, rnd.Uint64N(extents))
	}
	return c
}

// engine is one that has just begun to compare.
func (c *joinCase) engine() *Engine {
	m := dirtymap.New(c.geo)
	for ext, s := range c.mine {
		m.Set(uint64(ext), s)
	}
	cfg := Config{Preferred: true, Map: m, Predictor: fixedWindow{}, RoleState: RoleState{History: [16]byte{1}}, Committed: 4, ServeStale: true}
	if !c.restarted {
		cfg.Kept = dirtymap.New(c.geo)
		for ext := range uint64(len(c.mine)) {
			cfg.Kept.Own(ext)
			cfg.Kept.Set(ext, dirtymap.Held)
			if ext%7 < 2 {
				cfg.Kept.SetDirty(ext, dirtymap.MaskOf(0, 1))
			}
		}
	}
	e := New(cfg)
	for _, ext := range c.relaxed {
		e.relax(ext)
	}
	flush := e.Step(Connected{Streams: 1})[0].(Flush)
	e.Step(Done{Token: flush.Token})
	e.Step(Received{&c.peer})
	return e
}

// prepare gives an engine the peer's planes in pieces, and returns what it prepares; and
// what it salvages before that.
func (c *joinCase) prepare(t *testing.T, e *Engine, pieces []PeerStates) (Log, Salvage) {
	t.Helper()
	var kept Salvage
	var out []Action
	for _, p := range pieces {
		out = slices.Clone(e.Step(p))
	}
	if i := slices.IndexFunc(out, func(a Action) bool { _, ok := a.(Salvage); return ok }); i >= 0 {
		kept = out[i].(Salvage)
		out = slices.Clone(e.Step(Done{Token: kept.Token}))
	}
	i := slices.IndexFunc(out, func(a Action) bool { l, ok := a.(Log); return ok && l.Prepare != nil })
	if i < 0 {
		t.Fatalf("nothing is prepared: %v", out)
	}
	return out[i].(Log), kept
}

// commit lets what was prepared take effect.
func (c *joinCase) commit(t *testing.T, e *Engine, prepare Log) {
	t.Helper()
	e.Step(Done{Token: prepare.Token})
	for _, a := range slices.Clone(e.Step(Received{&wire.JoinPrepared{Join: prepare.Prepare.Join}})) {
		if l, ok := a.(Log); ok && l.Commit != 0 {
			e.Step(Done{Token: l.Token})
			e.Step(Received{&wire.JoinDone{Join: l.Commit}})
		}
	}
	if !e.Joined() {
		t.Fatal("not joined")
	}
}

// singly is the planes extent by extent, and together in pieces of one state or of many.
func (c *joinCase) singly() (all []PeerStates) {
	for ext := range c.theirs {
		all = append(all, PeerStates{one(uint64(ext)), c.theirs[ext:][:1]})
	}
	return all
}

func (c *joinCase) together(rnd *rand.Rand) (all []PeerStates) {
	for at := 0; at < len(c.theirs); {
		n := 1
		for at+n < len(c.theirs) && c.theirs[at+n] == c.theirs[at] {
			n++
		}
		states := c.theirs[at:][:1]
		if rnd.IntN(2) == 0 {
			n = min(1+rnd.IntN(6000), len(c.theirs)-at)
			states = c.theirs[at:][:n]
		}
		all = append(all, PeerStates{dirtymap.Range{First: uint64(at), Count: uint64(n)}, states})
		at += n
	}
	return all
}

// expanded is an outcome extent by extent.
func expanded(t *testing.T, o *Outcome) map[uint64]dirtymap.State {
	all := map[uint64]dirtymap.State{}
	for _, c := range o.Changes {
		for ext := c.Extents.First; ext < c.Extents.End(); ext++ {
			if _, twice := all[ext]; twice {
				t.Fatalf("extent %d is there twice", ext)
			}
			all[ext] = c.State
		}
	}
	return all
}

// TestJoinByRuns: neighbours that are resolved and applied together come out as each of
// them does by itself.
func TestJoinByRuns(t *testing.T) {
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		c := newJoinCase(rnd)
		a, b := c.engine(), c.engine()
		before := map[uint64]dirtymap.Mask{}
		for ext := range uint64(len(c.mine)) {
			before[ext] = a.m.Dirty(ext)
		}
		runs, keptRuns := c.prepare(t, a, c.together(rnd))
		single, keptSingle := c.prepare(t, b, c.singly())
		want := expanded(t, single.Prepare)
		if !maps.Equal(expanded(t, runs.Prepare), want) || !slices.Equal(a.join.full, b.join.full) {
			t.Fatalf("seed %d: different outcomes", seed)
		}
		if !slices.Equal(keptRuns.Whole, keptSingle.Whole) || !slices.Equal(keptRuns.Dirty, keptSingle.Dirty) {
			t.Fatalf("seed %d: different salvage", seed)
		}
		for _, ext := range c.relaxed {
			if _, named := want[ext]; !named {
				t.Fatalf("seed %d: extent %d, of which the log has not heard, is not in the outcome", seed, ext)
			}
		}
		full := slices.Clone(a.join.full)
		c.commit(t, a, runs)
		c.check(t, a, want, full, before)
	}
}

// check compares the map after a join with the outcome.
func (c *joinCase) check(t *testing.T, e *Engine, outcome map[uint64]dirtymap.State, full []dirtymap.Range, dirty map[uint64]dirtymap.Mask) {
	t.Helper()
	total := int64(0)
	for ext, was := range c.mine {
		ext := uint64(ext)
		s, changed := outcome[ext]
		if !changed {
			s = was
		}
		blocks := dirty[ext]
		switch {
		case s&dirtymap.Held == 0:
			blocks = dirtymap.Mask{}
		case changed && full == nil, slices.ContainsFunc(full, func(r dirtymap.Range) bool { return r.Has(ext) }):
			blocks = c.geo.Full(ext)
		}
		if s&dirtymap.Held != 0 {
			s |= dirtymap.Logged
		}
		total += int64(blocks.Count())
		if e.m.State(ext) != s || e.m.Dirty(ext) != blocks {
			t.Fatalf("extent %d, which was %v: %v with %x dirty, want %v with %x", ext, was, e.m.State(ext), e.m.Dirty(ext), s, blocks)
		}
	}
	if e.m.DirtyBlocks() != total {
		t.Fatalf("%d dirty blocks, want %d", e.m.DirtyBlocks(), total)
	}
}

// aloneEngine serves hosts alone.
func aloneEngine(t *testing.T) *Engine {
	t.Helper()
	m := dirtymap.New(dirtymap.Geometry{Size: dirtymap.BlockSize, ExtentSize: dirtymap.BlockSize})
	e := New(Config{Preferred: true, Map: m, Predictor: fixedWindow{}, RoleState: RoleState{History: [16]byte{1}}, Committed: 4})
	for _, a := range slices.Clone(e.Step(Role{Term: 2, ID: [16]byte{2}, Serve: ServeAlone})) {
		if l, ok := a.(Log); ok {
			e.Step(Done{Token: l.Token})
		}
	}
	if !m.Serving() {
		t.Fatal("it does not serve alone")
	}
	return e
}

// flushOf is the flush among actions.
func flushOf(t *testing.T, actions []Action) Flush {
	t.Helper()
	for _, a := range actions {
		if f, ok := a.(Flush); ok {
			return f
		}
	}
	t.Fatalf("no flush: %v", actions)
	return Flush{}
}

// peerHello is the greeting of the other replica of aloneEngine's LUN.
func peerHello(alone bool, term uint64) Event {
	return Received{&wire.JoinHello{Size: dirtymap.BlockSize, ExtentSize: dirtymap.BlockSize, History: [16]byte{1}, Committed: 4,
		Alone: alone, Term: term, TermID: [16]byte{byte(term)}}}
}

// TestHostsAreServedWhileTheirWritesAreFlushed: a replica that serves alone goes on when
// the link comes up, until a flush has ended, and then flushes what was written since.
func TestHostsAreServedWhileTheirWritesAreFlushed(t *testing.T) {
	for _, c := range []struct {
		name    string
		during  []Event
		serves  bool // until the flush has ended
		joining bool // and joins then
	}{
		{name: "nothing else", serves: true, joining: true},
		{name: "the peer greets", during: []Event{peerHello(false, 2)}, serves: true, joining: true},
		{name: "the peer serves alone in an older term", during: []Event{peerHello(true, 1)}, serves: true, joining: true},
		{name: "the peer serves alone in a newer term", during: []Event{peerHello(true, 3)}, joining: true},
		{name: "the link breaks", during: []Event{Disconnected{}}, serves: true},
		{name: "the peer refuses", during: []Event{Received{&wire.JoinRefuse{Reason: "no"}}}, serves: true},
		{name: "only the peer is to serve", during: []Event{Role{Term: 3, ID: [16]byte{3}, Serve: ServeNone}}, joining: true},
		{name: "it is forced", during: []Event{Role{Term: 9, ID: [16]byte{9}, Serve: ServeAlone, Forced: true}}, serves: true},
	} {
		e := aloneEngine(t)
		first := flushOf(t, e.Step(Connected{Streams: 1}))
		for _, ev := range c.during {
			e.Step(ev)
		}
		if e.m.Serving() != c.serves {
			t.Errorf("%s: serves while the flush is under way: %t", c.name, e.m.Serving())
		}
		e.Step(Done{Token: first.Token})
		if joining := e.join.phase > alone; joining != c.joining || joining && e.m.Serving() {
			t.Errorf("%s: phase %d after the flush, serves %t", c.name, e.join.phase, e.m.Serving())
		}
	}
}

// TestAFlushOfABrokenLinkIsForgotten: it is not what the next join waits for. A greeting
// that comes meanwhile is kept.
func TestAFlushOfABrokenLinkIsForgotten(t *testing.T) {
	e := aloneEngine(t)
	old := flushOf(t, e.Step(Connected{Streams: 1}))
	e.Step(Disconnected{})
	next := flushOf(t, e.Step(Connected{Streams: 2}))
	e.Step(Done{Token: old.Token})
	if e.join.phase != alone || !e.m.Serving() {
		t.Fatal("the flush before has ended the wait")
	}
	e.Step(peerHello(false, 2))
	quiesced := slices.Clone(e.Step(Done{Token: next.Token}))
	if e.m.Serving() || len(e.txSeq) != 2 {
		t.Fatalf("phase %d, %d streams", e.join.phase, len(e.txSeq))
	}
	e.Step(Done{Token: flushOf(t, quiesced).Token})
	if e.join.phase != comparing {
		t.Fatalf("phase %d after what was written since is flushed", e.join.phase)
	}
}

// TestNothingIsHeldBackWhileAJoinFollows: the peer that has the newest data is back.
func TestNothingIsHeldBackWhileAJoinFollows(t *testing.T) {
	e := aloneEngine(t)
	e.m.Set(0, dirtymap.Stale)
	held := func(ev Event) bool {
		return slices.ContainsFunc(e.Step(ev), func(a Action) bool { ad, ok := a.(Admit); return ok && errors.Is(ad.Err, ErrHeld) })
	}
	if !held(Want{Op: 1, Extents: one(0)}) {
		t.Fatal("a command is not held back although the peer is away")
	}
	e.Step(Connected{Streams: 1})
	if held(Want{Op: 2, Extents: one(0)}) || held(Tick{Now: 1}) {
		t.Fatal("a command is held back although the peer is back")
	}
	if !held(Disconnected{}) && !held(Tick{Now: 2}) {
		t.Fatal("a command waits although the peer has left again")
	}
}
