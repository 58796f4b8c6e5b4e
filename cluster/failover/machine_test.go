package failover

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twinlun/twinlun/cluster/catalog"
)

func TestStretched(t *testing.T) {
	for _, c := range []struct {
		d    catalog.Duration
		want Time
	}{{0, 0}, {1, 2}, {98, 100}, {99, 102}, {1000, 1021}, {2e9, 2040816327}} {
		if got := Stretched(c.d); got != c.want {
			t.Errorf("Stretched(%d) = %d, want %d", c.d, got, c.want)
		}
		// A clock that is 2% slow does not reach d before one that is right reaches it.
		if slow := Stretched(c.d) * 98 / 100; slow < Time(c.d) {
			t.Errorf("Stretched(%d): by a slow clock only %d have passed", c.d, slow)
		}
	}
}

// script is one machine, and what it did.
type script struct {
	t   *testing.T
	m   *Machine
	now Time
}

func newScript(t *testing.T, mut mutation, memos ...Memo) *script {
	s := &script{t, New(Config{Self: "a", Peer: "b", Life: 7, Start: 10_000, mutation: mut}), 10_000}
	for _, memo := range memos {
		got := s.at(10_000, Known{lunID(0), memo})
		if free := strings.HasSuffix(got, fmt.Sprintf("alone in %d free", memo.Term)); free != (memo.What == Alone || memo.What == Forced) {
			t.Errorf("the memo %v leads to %q", memo, got)
		}
	}
	return s
}

// at gives an event, and tells the actions, in short.
func (s *script) at(now Time, ev Event) string {
	var did []string
	for _, a := range s.m.Step(now, ev) {
		text := strings.TrimPrefix(fmt.Sprintf("%T", a), "failover.")
		switch a := a.(type) {
		case SetRole:
			text = fmt.Sprintf("%s in %d %s", [...]string{"none", "together", "alone"}[a.Role.Serve], a.Role.Term, [...]string{"held", "leased", "free"}[a.Role.When])
		case SetLease:
			text = fmt.Sprintf("lease until %d", a.Until)
		case Ask:
			text = fmt.Sprintf("ask %d", a.Request.Seq)
		case Answer:
			text = fmt.Sprintf("answer %d, applied %d, decided %d", a.Grant.Seq, a.Grant.Applied, a.Grant.Decided)
		case Propose:
			text = fmt.Sprintf("propose %s of %d", [...]string{"take", "join", "leave", "force"}[a.Kind], a.LUNs[0].Term)
		case Remember:
			text = fmt.Sprintf("remember %s in %d", [...]string{"nothing", "alone", "offered", "forced"}[a.Memo.What], a.Memo.Term)
		}
		did = append(did, text)
	}
	return strings.Join(did, "; ")
}

// TestGrace: a node that was just started gives the other one time to appear. Once that
// has answered, it is lost as quickly as ever.
func TestGrace(t *testing.T) {
	for name, c := range map[string]struct {
		peers    bool // it answers once, at 10_050
		lostFrom Time
	}{"never seen": {false, 15_000}, "seen once": {true, 10_500}} {
		s := &script{t, New(Config{Self: "a", Peer: "b", Life: 7, Start: 10_000, Grace: 5000}), 10_000}
		s.at(10_000, applied(5, 1, 5, "a", "b"))
		if c.peers {
			s.at(10_050, Granted{Grant{7, 1, 5, 5, 1000}})
		}
		if got := s.at(c.lostFrom-1, Tick{}); strings.Contains(got, "propose") {
			t.Errorf("%s: too early: %s", name, got)
		}
		if got := s.at(c.lostFrom, Tick{}); !strings.Contains(got, "propose take of 1") {
			t.Errorf("%s: at %d: %q", name, c.lostFrom, got)
		}
	}
}

func applied(index uint64, term, decided uint64, serving ...catalog.NodeID) Applied {
	return Applied{Index: index, Decided: decided, Settings: settings, Longest: settings.Lease, LUNs: []catalog.LUN{{
		ID: lunID(0), Term: term, Decided: decided, Serving: serving, Preferred: "a",
	}}}
}

func TestScripts(t *testing.T) {
	if wrong := runScripts(t, 0); wrong != "" {
		t.Error(wrong)
	}
}

// runScripts are the course of things, one event a line; it returns where something else
// happens.
func runScripts(t *testing.T, mut mutation) (wrong string) {
	type line struct {
		at   Time
		ev   Event
		want string
	}
	wrote := func(term uint64, what What) Event { return Remembered{lunID(0), Memo{Term: term, What: what}} }
	answer := func(seq, applied, decided uint64) Event { return Granted{Grant{7, seq, applied, decided, 1000}} }
	asks := Asked{Request{9, 4}}
	forced := Memo{Term: 1 << 32, What: Forced, From: 1, Epoch: catalog.UUID{9}}
	tells := func(index, term, decided uint64, chain, forks []catalog.Epoch, serving ...catalog.NodeID) Event {
		e := applied(index, term, decided, serving...)
		e.LUNs[0].Chain, e.LUNs[0].Forks = chain, forks
		return e
	}
	heard := Memo{Term: 1 << 32, What: Forced, From: 2, Epoch: catalog.UUID{9}}
	epoch := []catalog.Epoch{{Term: forced.Term, ID: forced.Epoch}}
	for name, s := range map[string]struct {
		memos []Memo
		lines []line
	}{
		"take over and join": {nil, []line{
			{10_000, applied(5, 1, 5, "a", "b"), "remember nothing in 1; together in 1 held; ask 1"},
			{10_000, wrote(1, Nothing), ""},
			{10_050, answer(1, 4, 4), "lease until 11000"},
			{10_060, asks, "answer 4, applied 5, decided 5; ask 2"}, // until 11081 by b's clock at most
			{10_250, Tick{}, ""},
			{10_300, answer(2, 5, 5), "lease until 11060; together in 1 leased"},
			{10_300, answer(2, 5, 5), ""},
			{10_310, Tick{}, "ask 3"},
			{10_559, Tick{}, ""},
			{10_560, Tick{}, "propose take of 1; ask 4"},
			{10_570, asks, ""},
			{10_809, Tick{}, ""},
			{10_810, Tick{}, "propose take of 1; ask 5"},
			{11_050, applied(6, 2, 6, "a"), "remember nothing in 2; alone in 2 held; ask 6"},
			{11_060, asks, "answer 4, applied 5, decided 6"}, // term 2 is not on disk yet
			{11_070, wrote(2, Nothing), ""},
			{11_080, Tick{}, ""},
			{11_081, Tick{}, "remember alone in 2; alone in 2 free"},
			{11_090, wrote(2, Alone), ""},
			{11_100, Joined{lunID(0), 3}, ""}, // as if a line that was cut had not been noticed
			{11_110, answer(6, 6, 6), "lease until 12050; remember offered in 2"},
			{11_120, wrote(2, Offered), "alone in 2 leased; propose join of 2"},
			{11_130, applied(7, 3, 7, "a", "b"), "remember nothing in 3; together in 3 held; ask 7"},
			{11_140, answer(7, 7, 7), "lease until 12130; together in 3 leased"},
		}},
		"the loser": {nil, []line{
			{10_000, applied(5, 1, 5, "a", "b"), "remember nothing in 1; together in 1 held; ask 1"},
			{10_010, answer(1, 5, 5), "lease until 11000; together in 1 leased"},
			{10_250, Tick{}, "ask 2"},
			{10_260, answer(2, 6, 6), ""}, // b serves alone, and this node does not know it yet
			{10_270, applied(6, 2, 6, "b"), "remember nothing in 2; none in 2 held; lease until 11250; ask 3"},
			{10_280, Joined{lunID(0), 3}, ""},
			{12_000, Tick{}, "ask 4"},
		}},
		"alone before the restart": {[]Memo{{Term: 4, What: Alone}}, []line{
			{10_000, applied(5, 3, 5, "a", "b"), "ask 1"},
			{10_010, asks, ""},
			{10_020, applied(9, 4, 9, "a"), "ask 2"},
			{10_030, asks, "answer 4, applied 9, decided 9"},
		}},
		"offered before the restart": {[]Memo{{Term: 4, What: Offered}}, []line{
			{10_000, applied(9, 4, 9, "a"), "alone in 4 held; propose take of 4; ask 1"},
			{11_030, Tick{}, "propose take of 4; ask 2"},
			{11_040, applied(10, 5, 10, "a"), "remember nothing in 5; alone in 5 held; remember alone in 5; alone in 5 free; ask 3"},
		}},
		"alone, and the memo does not say so": {[]Memo{{Term: 4, What: Nothing}}, []line{
			{10_000, applied(9, 4, 9, "a"), "alone in 4 held; ask 1"},
			{11_020, Tick{}, "ask 2"},
			{11_021, Tick{}, "remember alone in 4; alone in 4 free"},
		}},
		"the joined part before it is offered": {[]Memo{{Term: 4, What: Alone}}, []line{
			{10_000, applied(9, 4, 9, "a"), "ask 1"},
			{10_005, answer(1, 8, 8), "lease until 11000"},
			{10_010, Joined{lunID(0), 3}, "remember offered in 4"},
			{10_020, Parted{lunID(0)}, "remember alone in 4"},
			{10_030, Joined{lunID(0), 4}, "remember offered in 4"},
			{10_040, wrote(4, Offered), ""},
			{10_050, wrote(4, Alone), ""},
			{10_060, wrote(4, Offered), "alone in 4 held; propose join of 4"}, // and the lease is still to come
		}},
		"joined, and not heard": {[]Memo{{Term: 4, What: Alone}}, []line{
			{10_000, applied(9, 4, 9, "a"), "ask 1"},
			{10_005, answer(1, 9, 9), "lease until 11000"},
			{10_500, Joined{lunID(0), 3}, "ask 2"},
			{10_900, answer(2, 9, 9), "lease until 11500; remember offered in 4; ask 3"},
		}},
		"leave": {nil, []line{
			{10_000, applied(5, 1, 5, "a", "b"), "remember nothing in 1; together in 1 held; ask 1"},
			{10_010, answer(1, 5, 5), "lease until 11000; together in 1 leased"},
			{10_020, Drained{lunID(0)}, "none in 1 held; ask 2"}, // what was answered before says nothing
			{10_021, Drained{lunID(0)}, ""},
			{10_025, answer(2, 5, 5), "lease until 11020; propose leave of 1"},
			{10_030, applied(6, 2, 6, "b"), "remember nothing in 2; none in 2 held; ask 3"},
		}},
		"leave, and another connection": {nil, []line{
			{10_000, applied(5, 1, 5, "a", "b"), "remember nothing in 1; together in 1 held; ask 1"},
			{10_010, answer(1, 5, 5), "lease until 11000; together in 1 leased"},
			{10_020, Drained{lunID(0)}, "none in 1 held; ask 2"},
			{10_022, Linked{}, "together in 1 leased"}, // who knows what this one has by now?
			{10_025, answer(2, 5, 5), "lease until 11020"},
			{10_030, Drained{lunID(0)}, "none in 1 held; ask 3"},
			{10_035, answer(3, 5, 5), "lease until 11030; propose leave of 1"},
		}},
		"forced": {nil, []line{
			{10_000, applied(5, 1, 5, "a", "b"), "remember nothing in 1; together in 1 held; ask 1"},
			{10_010, wrote(1, Nothing), ""},
			{10_020, Force{LUN: lunID(0), Epoch: forced.Epoch}, "remember forced in 4294967296; none in 1 held"},
			{10_030, Force{LUN: lunID(0), Epoch: catalog.UUID{8}}, ""}, // once is enough
			{10_040, asks, "ask 2"}, // it has no lease itself
			{10_050, Remembered{lunID(0), forced}, "alone in 4294967296 free; propose force of 1"},
			{10_060, Joined{lunID(0), 3}, ""},
			{10_300, Tick{}, "propose force of 1; ask 3"},
			{10_310, tells(6, forced.Term, 6, epoch, nil, "a"), "remember alone in 4294967296; alone in 4294967296 free; ask 4"},
			{10_320, asks, "answer 4, applied 5, decided 6"}, // that is not on disk yet
		}},
		"forced, and the replica has heard of a later term": {nil, []line{
			{10_000, applied(5, 1, 5, "a", "b"), "remember nothing in 1; together in 1 held; ask 1"},
			{10_010, wrote(1, Nothing), ""},
			{10_020, Force{lunID(0), heard.Epoch, heard.From}, "remember forced in 4294967296; none in 1 held"},
			{10_030, Remembered{lunID(0), heard}, "alone in 4294967296 free"}, // and nobody can agree to that before it knows of that term
			{10_040, applied(6, 2, 6, "b"), "propose force of 2; ask 2"},
		}},
		"forced before the restart, and it had taken over": {[]Memo{forced}, []line{
			{10_000, applied(5, 1, 5, "a", "b"), "propose force of 1; ask 1"},
			{10_010, asks, ""},
			{10_020, applied(6, 2, 6, "a"), "remember forced in 4294967296; propose force of 2; ask 2"},
			{10_030, tells(7, forced.Term, 7, epoch, nil, "a"), "remember alone in 4294967296; alone in 4294967296 free; ask 3"},
		}},
		"forced too late": {[]Memo{forced}, []line{
			{10_000, applied(6, 2, 6, "b"), "none in 4294967296 held; propose force of 1; ask 1"},
			{10_010, asks, ""},
			{10_020, tells(7, 2, 6, nil, epoch, "b"), "remember nothing in 2; ask 2"},
			{10_030, wrote(2, Nothing), "none in 2 held"}, // not before
			{10_040, asks, "answer 4, applied 7, decided 6"},
		}},
		"forced, as the other one was": {[]Memo{forced}, []line{
			{10_000, tells(6, forced.Term, 6, []catalog.Epoch{{Term: forced.Term, ID: catalog.UUID{8}}}, nil, "b"), "none in 4294967296 held; propose force of 1; ask 1"},
		}},
		"removed": {nil, []line{
			{10_000, applied(5, 1, 5, "a", "b"), "remember nothing in 1; together in 1 held; ask 1"},
			{10_010, Applied{Index: 6, Decided: 5, Settings: settings, Gone: []catalog.UUID{lunID(0)}}, "none in 1 held; ask 2"},
			{20_000, Tick{}, "ask 3"},
		}},
	} {
		m := newScript(t, mut, s.memos...)
		for _, l := range s.lines {
			if got := m.at(l.at, l.ev); got != l.want {
				return fmt.Sprintf("%s, at %d, %T%+v:\n got %s\nwant %s", name, l.at, l.ev, l.ev, got, l.want)
			}
		}
	}
	return ""
}
