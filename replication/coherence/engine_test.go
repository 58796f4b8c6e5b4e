package coherence

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/twinlun/twinlun/dirtymap"
	"github.com/twinlun/twinlun/replication/wire"
)

// joinedPair is a world at rest after its first join.
func joinedPair(t *testing.T, s scope) *world {
	t.Helper()
	w := newWorld(&s)
	w.runAll(t)
	return w
}

// runAll delivers messages until there are none.
func (w *world) runAll(t *testing.T) {
	t.Helper()
	if bad := w.try(func(w *world) { w.drain() }); bad != "" {
		t.Fatal(bad)
	}
}

func (w *world) drain() {
	for range 1000 {
		ms := slices.DeleteFunc(w.moves(), func(m move) bool { return !strings.Contains(m.name, " receives ") })
		if len(ms) == 0 {
			return
		}
		ms[0].do(w)
	}
	fail("messages without end")
}

func TestFailedFlushDistrusts(t *testing.T) {
	w := joinedPair(t, scope{extents: 1})
	e := w.n[0].e
	token := e.Step(Sync{Op: 7})[0].(Flush).Token
	actions := e.Step(Done{Token: token, Err: errors.New("input/output error")})
	distrust := slices.ContainsFunc(actions, func(a Action) bool { l, ok := a.(Log); return ok && l.Distrust })
	told := slices.ContainsFunc(actions, func(a Action) bool {
		s, ok := a.(Send)
		if !ok {
			return false
		}
		_, ok = s.Msg.(*wire.JoinRefuse)
		return ok
	})
	answered := slices.ContainsFunc(actions, func(a Action) bool {
		ad, ok := a.(Admit)
		return ok && ad.Op == 7 && errors.Is(ad.Err, ErrFaulted)
	})
	if !distrust || !told || !answered {
		t.Errorf("distrust %v, peer told %v, host answered %v: %v", distrust, told, answered, actions)
	}
	for _, ev := range []Event{Want{Op: 8, Extents: dirtymap.Range{Count: 1}}, Sync{Op: 9}} {
		a := e.Step(ev)
		if len(a) != 1 || !errors.Is(a[0].(Admit).Err, ErrFaulted) {
			t.Errorf("%#v after a fault: %v", ev, a)
		}
	}
}

// TestLostPeer: a peer that comes back without its replica takes newer data with it;
// what is left is served only by the operator's word.
func TestLostPeer(t *testing.T) {
	for _, allowed := range []bool{false, true} {
		m := dirtymap.New(dirtymap.Geometry{Size: 4 * dirtymap.BlockSize, ExtentSize: dirtymap.BlockSize})
		m.Set(2, dirtymap.Stale.WithTurn(2))
		e := New(Config{Preferred: true, Map: m, Predictor: fixedWindow{}, RoleState: RoleState{History: [16]byte{1}}, Committed: 4, ServeStale: allowed})
		flush := e.Step(Connected{Streams: 1})[0].(Flush)
		e.Step(Done{Token: flush.Token})
		e.Step(Received{&wire.JoinHello{Size: 4 * dirtymap.BlockSize, ExtentSize: dirtymap.BlockSize}})
		actions := slices.Clone(e.Step(PeerStates{dirtymap.Range{Count: 4}, []dirtymap.State{0}}))
		prepared := slices.ContainsFunc(actions, func(a Action) bool { l, ok := a.(Log); return ok && l.Prepare != nil })
		if prepared != allowed {
			t.Errorf("allowed %v: %v", allowed, actions)
		}
		alarmed := slices.ContainsFunc(actions, func(a Action) bool {
			al, ok := a.(Alarm)
			return ok && strings.Contains(al.Text, "1 extents")
		})
		if !alarmed {
			t.Errorf("allowed %v, no alarm: %v", allowed, actions)
		}
	}
}

// TestJudge: a peer that the LUN's history does not have is refused; one that is new is not
// even judged.
func TestJudge(t *testing.T) {
	const size = 4 * dirtymap.BlockSize
	for _, c := range []struct {
		history [16]byte
		term    uint64
		refuses bool
	}{{history: [16]byte{1}, term: 3}, {history: [16]byte{1}, term: 4, refuses: true}, {term: 4}} {
		m := dirtymap.New(dirtymap.Geometry{Size: size, ExtentSize: dirtymap.BlockSize})
		e := New(Config{
			Preferred: true, Map: m, Predictor: fixedWindow{}, RoleState: RoleState{History: [16]byte{1}, Term: 3}, Committed: 4,
			Judge: func(term uint64, id [16]byte, fork bool) string {
				if term == 4 && id == [16]byte{9} && fork {
					return "it is foreign"
				}
				return ""
			},
		})
		flush := e.Step(Connected{Streams: 1})[0].(Flush)
		e.Step(Done{Token: flush.Token})
		h := &wire.JoinHello{Size: size, ExtentSize: dirtymap.BlockSize, History: c.history, Committed: 4, Term: c.term, Fork: c.term == 4}
		if h.Fork {
			h.TermID = [16]byte{9}
		}
		refuses := slices.ContainsFunc(e.Step(Received{h}), func(a Action) bool {
			s, sends := a.(Send)
			if !sends {
				return false
			}
			r, is := s.Msg.(*wire.JoinRefuse)
			return is && r.Reason == "it is foreign"
		})
		if refuses != c.refuses {
			t.Errorf("%+v: refused: %t", c, refuses)
		}
	}
}

// TestLeast: two new replicas do not begin to count joins again, if either node knows of an
// earlier one.
func TestLeast(t *testing.T) {
	const size = 4 * dirtymap.BlockSize
	for _, least := range [][2]uint64{{0, 0}, {7, 0}, {0, 7}, {7, 7}} {
		m := dirtymap.New(dirtymap.Geometry{Size: size, ExtentSize: dirtymap.BlockSize})
		e := New(Config{Preferred: true, Map: m, Predictor: fixedWindow{}, Blank: true, Proposal: [16]byte{1}})
		todo := slices.Concat(e.Step(Role{Term: 1, Least: least[0]}))
		todo = append(todo, e.Step(Connected{Streams: 1})...)
		greets := false
		for ; len(todo) > 0; todo = todo[1:] {
			switch a := todo[0].(type) {
			case Log:
				todo = append(todo, e.Step(Done{Token: a.Token})...)
			case Flush:
				todo = append(todo, e.Step(Done{Token: a.Token})...)
			case Send:
				greets = a.Msg.(*wire.JoinHello).Least == least[0]
			}
		}
		if !greets {
			t.Errorf("%v: it does not greet with what it knows", least)
		}
		e.Step(Received{&wire.JoinHello{Size: size, ExtentSize: dirtymap.BlockSize, Blank: true, Proposal: [16]byte{2}, Least: least[1], Term: 1}})
		join := uint64(0)
		for _, a := range e.Step(PeerStates{dirtymap.Range{Count: 4}, []dirtymap.State{0}}) {
			if l, logs := a.(Log); logs && l.Prepare != nil {
				join = l.Prepare.Join
			}
		}
		if want := max(least[0], least[1]) + 1; join != want {
			t.Errorf("%v: join %d, want %d", least, join, want)
		}
	}
}

// TestPatience: a host command waits for as long as the role says, since this replica began
// to serve alone; a later one does not wait anew.
func TestPatience(t *testing.T) {
	const patience = 5
	m := dirtymap.New(dirtymap.Geometry{Size: dirtymap.BlockSize, ExtentSize: dirtymap.BlockSize})
	m.Set(0, dirtymap.Stale)
	e := New(Config{Map: m, Predictor: fixedWindow{}, RoleState: RoleState{Term: 1, History: [16]byte{1}}, Serve: ServeBoth})
	e.Step(Tick{100})
	todo := e.Step(Role{Term: 2, Serve: ServeAlone, Patience: patience})
	for ; len(todo) > 0; todo = todo[1:] {
		if l, logs := todo[0].(Log); logs {
			todo = append(todo, e.Step(Done{Token: l.Token})...)
		}
	}
	ends := func(op uint64, actions []Action) bool {
		return slices.ContainsFunc(actions, func(a Action) bool { ad, ok := a.(Admit); return ok && ad.Op == op && errors.Is(ad.Err, ErrHeld) })
	}
	want := func(op uint64) Want { return Want{Op: op, Extents: dirtymap.Range{Count: 1}} }
	if ends(1, e.Step(want(1))) || ends(1, e.Step(Tick{100 + patience - 1})) {
		t.Error("it does not wait")
	}
	if !ends(1, e.Step(Tick{100 + patience})) {
		t.Error("it waits for ever")
	}
	if !ends(2, e.Step(want(2))) {
		t.Error("a later command waits anew")
	}
}

// TestGrowing: both nodes come to the same size, whichever of them is ahead, and a
// size that only one of them has room for changes nothing.
func TestGrowing(t *testing.T) {
	const block = dirtymap.BlockSize
	for _, c := range []struct {
		name                           string
		size, want, peerSize, peerWant int64 // in blocks
		grow                           int64 // 0: it does not
		blocks                         uint32
		joins, refuses                 bool
	}{
		{name: "nobody wants more", size: 4, want: 0, peerSize: 4, peerWant: 4, joins: true},
		{name: "only this node", size: 4, want: 8, peerSize: 4, peerWant: 4, joins: true},
		{name: "only the peer", size: 4, want: 0, peerSize: 4, peerWant: 8, joins: true},
		{name: "both", size: 4, want: 8, peerSize: 4, peerWant: 8, grow: 8},
		{name: "both, the peer less", size: 4, want: 8, peerSize: 4, peerWant: 6, grow: 6},
		{name: "the peer is ahead", size: 4, want: 8, peerSize: 8, peerWant: 8, grow: 8},
		{name: "the peer follows", size: 8, want: 8, peerSize: 4, peerWant: 8},
		{name: "the peer follows, and both go on", size: 8, want: 9, peerSize: 4, peerWant: 9, grow: 9},
		{name: "the peer has grown, and this node may not", size: 4, want: 0, peerSize: 8, peerWant: 8, refuses: true},
		{name: "this node has grown, and the peer may not", size: 8, want: 8, peerSize: 4, peerWant: 4, refuses: true},
		{name: "other blocks for hosts", size: 4, want: 8, peerSize: 4, peerWant: 8, blocks: 4096, refuses: true},
		{name: "beyond all bounds", size: 4, want: 1 << 50, peerSize: 4, peerWant: 1 << 50, joins: true},
	} {
		m := dirtymap.New(dirtymap.Geometry{Size: c.size * block, ExtentSize: block})
		e := New(Config{Preferred: true, Map: m, Predictor: fixedWindow{}, Want: c.want * block})
		flush := e.Step(Connected{Streams: 1})[0].(Flush)
		e.Step(Done{Token: flush.Token})
		actions := e.Step(Received{&wire.JoinHello{Size: uint64(c.peerSize * block), Want: uint64(c.peerWant * block), ExtentSize: block, BlockSize: c.blocks}})
		grow, joins, refuses := int64(0), false, false
		for _, a := range actions {
			switch a := a.(type) {
			case Grow:
				grow = a.Size / block
			case SendPlanes:
				joins = true
			case Send:
				_, refuses = a.Msg.(*wire.JoinRefuse)
			}
		}
		if grow != c.grow || joins != c.joins || refuses != c.refuses {
			t.Errorf("%s: grows to %d, joins %v, refuses %v", c.name, grow, joins, refuses)
		}
	}
}

// TestKeptMap: an engine that comes after another one in the same process knows which
// blocks are dirty of what that one owned; of what only the map file calls OWNED, all.
func TestKeptMap(t *testing.T) {
	small := dirtymap.Geometry{Size: 2 * dirtymap.DefaultExtentSize, ExtentSize: dirtymap.DefaultExtentSize}
	large := dirtymap.Geometry{Size: 4 * dirtymap.DefaultExtentSize, ExtentSize: dirtymap.DefaultExtentSize}
	kept, m := dirtymap.New(small), dirtymap.New(large)
	kept.Own(1)
	kept.SetDirty(1, dirtymap.MaskOf(3, 2))
	for _, ext := range []uint64{0, 1} { // as the map file says
		m.Set(ext, dirtymap.Held.WithTurn(1))
	}
	kept.Set(1, dirtymap.Held.WithTurn(1))
	e := New(Config{Preferred: true, Map: m, Predictor: fixedWindow{}, Kept: kept})
	if e.Restarted() || m.Dirty(1) != dirtymap.MaskOf(3, 2) || m.Dirty(0) != large.Full(0) {
		t.Errorf("restarted %v, dirty %v and %v", e.Restarted(), m.Dirty(1), m.Dirty(0))
	}
	if e := New(Config{Preferred: true, Map: dirtymap.New(large), Predictor: fixedWindow{}}); !e.Restarted() {
		t.Error("it knows what is dirty, from nowhere")
	}
}

// TestResolve: the rules that exploration within small scopes does not reach.
func TestResolve(t *testing.T) {
	const o, s = dirtymap.Held, dirtymap.Stale
	fresh, blank := side{fresh: true}, side{fresh: true, blank: true}
	forced, late := side{aloneTerm: 9}, side{aloneTerm: 9, fork: true}
	for _, c := range []struct {
		name   string
		x, y   dirtymap.State
		xs, ys side
		want   verdict
		bad    bool
	}{
		{name: "both new, the other has data", xs: blank, ys: fresh, want: verdict{first: false}},
		{name: "both new, the preferred has data", xs: fresh, ys: blank, want: verdict{first: true, turn: 1}},
		{name: "both new, both have data", xs: fresh, ys: fresh, want: verdict{first: true, turn: 1}},
		{name: "the preferred is new", xs: blank, y: o.WithTurn(2), want: verdict{first: false, turn: 2}},
		{name: "in sync", x: 0, y: 0, want: verdict{sync: true}},
		{name: "owner, known dirty", x: o.WithTurn(1), y: s.WithTurn(1), want: verdict{first: true, turn: 1, tracked: true}},
		{name: "owner restarted", x: o.WithTurn(1), y: s.WithTurn(1), xs: side{restarted: true}, want: verdict{first: true, turn: 1}},
		{name: "volatile owner crashed", x: (o | dirtymap.Volatile).WithTurn(1), y: s.WithTurn(1), xs: side{crashed: true}, want: verdict{turn: 2}},
		{name: "grant that never arrived", x: s.WithTurn(2), y: s.WithTurn(1), want: verdict{first: true, turn: 3}},
		{name: "forced, and the other one too late in a term of that number", y: (o | dirtymap.Alone).WithTurn(1), x: dirtymap.State(0).WithTurn(1), xs: late, ys: forced, want: verdict{turn: 2, tracked: true}},
		{name: "both forced too late in terms of one number", x: dirtymap.State(0).WithTurn(1), y: (o | dirtymap.Alone).WithTurn(1), xs: late, ys: late, want: verdict{first: true, turn: 1, salvage: true}},
		{name: "owners at once", x: o.WithTurn(1), y: o.WithTurn(1), bad: true},
		{name: "two turns apart", x: o.WithTurn(1), y: s.WithTurn(3), bad: true},
	} {
		got, err := resolve(c.x, c.y, c.xs, c.ys)
		if (err != nil) != c.bad || err == nil && got != c.want {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

// TestFetchWindow: what is asked for at once is bounded, and all of it comes.
func TestFetchWindow(t *testing.T) {
	const n = 3 * fetchBytes / dirtymap.MaxExtentSize
	geo := dirtymap.Geometry{Size: n * dirtymap.MaxExtentSize, ExtentSize: dirtymap.MaxExtentSize}
	m := dirtymap.New(geo)
	e := New(Config{Preferred: true, Map: m, Predictor: fixedWindow{}})
	e.join.phase, e.rxSeq, e.txSeq = joined, []uint64{0}, []uint64{0}
	for ext := range uint64(n) {
		m.Set(ext, dirtymap.Stale)
	}
	m.Open()
	asked, admitted, most := 0, 0, 0
	var queue []Action
	queue = append(queue, e.Step(Want{Op: 1, Extents: dirtymap.Range{Count: n}})...)
	for len(queue) > 0 {
		a := queue[0]
		queue = queue[1:]
		switch a := a.(type) {
		case Admit:
			admitted++
		case Send:
			f := a.Msg.(*wire.Fetch)
			for _, r := range f.Ranges {
				asked += int(r.Count)
			}
			most = max(most, asked-admitted)
			for _, r := range f.Ranges {
				for ext := r.First; ext < r.End(); ext++ {
					reply := &wire.FetchReply{ID: f.ID, Floors: []uint64{0}, Items: []wire.FetchItem{{Outcome: wire.FetchedShared, Blocks: wire.Blocks{Extent: ext}}}}
					queue = append(queue, slices.Clone(e.Step(Received{reply}))...)
				}
			}
		}
	}
	if admitted != n || most > n/3 {
		t.Errorf("%d of %d admitted, at most %d at once", admitted, n, most)
	}
}

// TestMixings: reads are disturbed by data that comes after atomic writes of the peer's
// have begun, once for each change of their number, and by a join; and messages with
// data say how many have begun here.
func TestMixings(t *testing.T) {
	w := joinedPair(t, scope{extents: 1})
	if n := w.n[0].e.m.Mixings(); n != 1 {
		t.Errorf("%d times mixed after a join", n)
	}
	m := dirtymap.New(dirtymap.Geometry{Size: 4 * dirtymap.BlockSize, ExtentSize: dirtymap.BlockSize})
	e := New(Config{Preferred: true, Map: m, Predictor: fixedWindow{}})
	e.join.phase, e.rxSeq, e.txSeq = joined, []uint64{0}, []uint64{0}
	for ext := range uint64(4) {
		m.Set(ext, dirtymap.Stale)
	}
	m.Open()
	seq, ext := uint64(0), uint64(0)
	copied := func(atomics uint64) []Action {
		seq++
		return e.Step(ReceivedBulk{Stream: 0, Msg: &wire.Copy{Seq: seq, Atomics: atomics}})
	}
	fetched := func(atomics uint64) []Action {
		id := e.Step(Want{Op: ext, Extents: dirtymap.Range{First: ext, Count: 1}})[0].(Send).Msg.(*wire.Fetch).ID
		ext++
		return e.Step(Received{&wire.FetchReply{ID: id, Atomics: atomics, Floors: []uint64{0},
			Items: []wire.FetchItem{{Outcome: wire.FetchedShared, Blocks: wire.Blocks{Extent: ext - 1}}}}})
	}
	for _, c := range []struct {
		name    string
		do      func(atomics uint64) []Action
		atomics uint64
		mixes   uint64
	}{
		{"a copy", copied, 0, 0}, {"a copy after an atomic write", copied, 1, 1}, {"another copy", copied, 1, 0},
		{"a reply", fetched, 1, 0}, {"a reply after an atomic write", fetched, 2, 1}, {"another reply", fetched, 2, 0},
		{"a copy after several", copied, 9, 1},
	} {
		before := m.Mixings()
		c.do(c.atomics)
		if got := m.Mixings() - before; got != c.mixes {
			t.Errorf("%s: %d times mixed, want %d", c.name, got, c.mixes)
		}
	}
	m.BeginAtomic()
	m.BeginAtomic()
	for _, a := range e.Step(Received{&wire.Fetch{ID: 1, Ranges: []dirtymap.Range{{First: 0, Count: 1}}}}) {
		if r := a.(Send).Msg.(*wire.FetchReply); r.Atomics != 2 {
			t.Errorf("a reply says %d atomic writes", r.Atomics)
		}
	}
}

// TestBroken: a replica that can go on no longer is as after a flush that failed.
func TestBroken(t *testing.T) {
	e := joinedPair(t, scope{extents: 1}).n[0].e
	actions := e.Step(Broken{errors.New("input/output error")})
	if !slices.ContainsFunc(actions, func(a Action) bool { l, ok := a.(Log); return ok && l.Distrust }) {
		t.Errorf("no distrust: %v", actions)
	}
	if a := e.Step(Sync{Op: 9}); len(a) != 1 || !errors.Is(a[0].(Admit).Err, ErrFaulted) {
		t.Errorf("a host's sync: %v", a)
	}
}

// TestPrefer: what a replica greets another peer with, and that it is not changed under one.
func TestPrefer(t *testing.T) {
	m := dirtymap.New(dirtymap.Geometry{Size: 1 << 20, ExtentSize: 64 << 10})
	e := New(Config{Preferred: true, Map: m, Predictor: fixedWindow{}})
	e.Prefer(false)
	e.Step(Connected{Streams: 1})
	if e.hello().Preferred {
		t.Error("it greets as the preferred one")
	}
	if e.join.phase <= alone {
		t.Fatalf("phase %d: it has not greeted", e.join.phase)
	}
	defer func() {
		if recover() == nil {
			t.Error("it is another one while there is a peer")
		}
	}()
	e.Prefer(true)
}
