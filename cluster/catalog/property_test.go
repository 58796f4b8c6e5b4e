package catalog

import (
	"bytes"
	"fmt"
	"math/rand"
	"slices"
	"testing"
	"testing/quick"

	"pgregory.net/rapid"

	"github.com/twinlun/twinlun/target/reservation"
)

// The small world of the property tests: so few names that commands meet.
var (
	someNodes   = []NodeID{"a", "b", "c", "w", "x"}
	someSites   = []string{"berlin", "paris", "third"}
	someLUNs    = []int{20, 21, 22}
	someNames   = []string{"one", "two", "three"}
	someTargets = []string{iqn, iqn + "2"}
	someRoles   = []Role{Admin, Operator, Viewer}
)

func pick[V any](t *rapid.T, label string, from []V) V {
	return from[rapid.IntRange(0, len(from)-1).Draw(t, label)]
}

func flip(t *rapid.T, label string) bool { return rapid.Bool().Draw(t, label) }

// maybe is nothing, or one of some values.
func maybe[V any](t *rapid.T, label string, from []V) *V {
	if flip(t, "with "+label) {
		return nil
	}
	return ptr(pick(t, label, from))
}

// drawBody makes any command; those about serving are drawn most often, and mostly with
// the right term.
func drawBody(t *rapid.T, s *State) Body {
	if flip(t, "serving") {
		return drawServing(t, s)
	}
	all := []func(*rapid.T, *State) Body{drawNode, drawLUN, drawReplica, drawHost, drawMapping, drawReserve, drawUser, drawSetting}
	return pick(t, "kind", all)(t, s)
}

func drawServing(t *rapid.T, s *State) Body {
	steps := Steps{Node: pick(t, "node", someNodes), Epoch: id(rapid.IntRange(1, 1<<30).Draw(t, "epoch"))}
	for range rapid.IntRange(1, 3).Draw(t, "luns") {
		step := Step{LUN: id(pick(t, "lun", someLUNs)), Join: 3}
		l, _ := s.LUN(step.LUN)
		step.Term = l.Term
		if rapid.IntRange(0, 4).Draw(t, "late") == 0 && l.Term > 0 {
			step.Term--
		}
		steps.LUNs = append(steps.LUNs, step)
	}
	return pick(t, "what", []Body{&TakeAlone{steps}, &JoinBoth{steps}, &Leave{steps}, &ForceAlone{steps}})
}

func drawNode(t *rapid.T, s *State) Body {
	name := pick(t, "name", someNodes)
	n := newNode(name, pick(t, "site", someSites), rapid.IntRange(1, 6).Draw(t, "key"))
	n.Witness = name == "w"
	token := sha(rapid.IntRange(50, 53).Draw(t, "token"))
	return pick(t, "what", []Body{
		&InitCluster{Cluster{id(1), "prod"}, n}, &AdmitNode{token, n}, &AddToken{token, start + 1<<40}, &RemoveToken{token},
		&ChangeNode{Name: name, Site: &n.Site, Voter: maybe(t, "voter", []bool{true, false}), Version: maybe(t, "version", []int{1, 2})},
		&RemoveNode{name}, &RecoverCluster{name, []NodeID{pick(t, "given up", someNodes)}},
	})
}

func drawLUN(t *rapid.T, s *State) Body {
	n, name := pick(t, "lun", someLUNs), pick(t, "name", someNames)
	l := lun(n, name, string(pick(t, "first", someNodes)))
	if flip(t, "mirror") {
		l.Replicas = append(l.Replicas, Replica{Node: pick(t, "second", someNodes), Kind: File, Path: "/srv/" + name})
	}
	return pick(t, "what", []Body{l, l, &RemoveLUN{l.ID}, &ChangeLUN{
		ID: l.ID, Name: maybe(t, "new name", someNames), Size: maybe(t, "size", []int64{1 << 30, 2 << 30}),
		Preferred: maybe(t, "preferred", someNodes), Loss: maybe(t, "loss", []LossPolicy{Hold, ServeStale, Rollback}),
	}})
}

func drawReplica(t *rapid.T, s *State) Body {
	lun, node := id(pick(t, "lun", someLUNs)), pick(t, "node", someNodes)
	return pick(t, "what", []Body{
		&AddReplica{lun, Replica{Node: node, Kind: Block, Path: "/dev/" + pick(t, "path", someNames)}}, &RemoveReplica{lun, node},
		&DrainReplica{lun, node, flip(t, "drained")},
	})
}

func drawHost(t *rapid.T, s *State) Body {
	name, group := pick(t, "host", someNames), pick(t, "group", someNames)
	h := &PutHost{Name: name, Initiators: []string{pick(t, "initiator", []string{"*", "iqn.x:*", "iqn.x:1", "iqn.y"})}}
	if flip(t, "grouped") {
		h.Group = group
	}
	if flip(t, "sited") {
		h.Site = pick(t, "site", someSites)
	}
	return pick(t, "what", []Body{h, h, &RemoveHost{name}, &PutGroup{Name: group}, &RemoveGroup{group}})
}

func drawMapping(t *rapid.T, s *State) Body {
	target, name, number := pick(t, "target", someTargets), pick(t, "name", someNames), uint16(rapid.IntRange(0, 2).Draw(t, "number"))
	who := pick(t, "who", []Subject{{Host: name}, {Group: name}})
	m := &Map{Mapping{target, who, number, id(pick(t, "lun", someLUNs))}}
	portal := Portal{pick(t, "node", someNodes), "h:1"}
	return pick(t, "what", []Body{m, m, m, &Unmap{target, who, number}, &PutTarget{Name: target, Portals: []Portal{portal}}, &RemoveTarget{target}})
}

func drawReserve(t *rapid.T, s *State) Body {
	key := func(label string) reservation.Key { return reservation.Key(rapid.IntRange(0, 2).Draw(t, label)) }
	nexus := func(label string) Nexus { return Nexus{"iqn." + pick(t, label, someNames) + ",i,0x1", 1} }
	b := &ReserveOut{
		LUN: id(pick(t, "lun", someLUNs)), Action: reservation.Action(rapid.IntRange(0, 7).Draw(t, "action")),
		From: nexus("from"), Key: key("key"), NewKey: key("new key"), Type: pick(t, "type", []reservation.Type{1, 3, 5, 6, 7, 8}),
		Persist: flip(t, "persist"),
	}
	if b.Action == reservation.RegisterAndMove {
		b.To = ptr(nexus("to"))
	}
	return b
}

func drawUser(t *rapid.T, s *State) Body {
	name, n := pick(t, "user", someNames), rapid.IntRange(30, 33).Draw(t, "token")
	return pick(t, "what", []Body{
		&PutUser{Name: name, Role: pick(t, "role", someRoles), Disabled: flip(t, "disabled")}, &RemoveUser{name},
		&AddAPIToken{id(n), "t", name, sha(n), pick(t, "token role", someRoles), 0}, &RemoveAPIToken{id(n)},
	})
}

func drawSetting(t *rapid.T, s *State) Body {
	return pick(t, "what", []Body{
		&ChangeSettings{Lease: maybe(t, "lease", []Duration{2e9, 3e9, 1e9})}, &RaiseVersion{2},
		&SetDiscovery{chap("x")}, &RenameCluster{pick(t, "name", someNames)}, &LogEvent{Info, "x", "y"},
	})
}

// TestProperties runs any commands, and checks after each of them what always holds.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := cluster(t)
		r.must(lun(20, "one", "a b"), &PutTarget{Name: iqn}, &PutHost{Name: "one", Initiators: []string{"iqn.x:1"}})
		w := &watcher{t: rt, terms: map[string]string{}}
		follower, restored := r.s, r.s // a second node, and one that is restarted now and then
		kept, keptBytes := r.s, r.bytes()
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			c := r.command(drawBody(rt, r.s))
			if w.last != nil && rapid.IntRange(0, 9).Draw(rt, "again") == 0 {
				c = *w.last
			}
			w.last = &c
			raw, err := c.Encode()
			if err != nil {
				rt.Fatal(err)
			}
			before := r.s
			checked := before.Check(c)
			r.index++
			var res Result
			if r.s, res, err = before.Apply(r.index, raw); err != nil {
				rt.Fatal(err)
			}
			w.applied(before, r.s, res, checked)
			follower, _, _ = follower.Apply(r.index, raw)
			restored, _, _ = restored.Apply(r.index, raw)
			if flip(rt, "restart") {
				if restored, err = Read(bytes.NewReader(bytesOf(t, restored))); err != nil {
					rt.Fatal(err)
				}
			}
		}
		now := r.bytes()
		if !bytes.Equal(bytesOf(t, follower), now) || !bytes.Equal(bytesOf(t, restored), now) {
			rt.Fatal("three nodes have the same log, and not the same state")
		}
		if !bytes.Equal(bytesOf(t, kept), keptBytes) {
			rt.Fatal("a state was changed after it was made")
		}
	})
}

// watcher remembers what must not change.
type watcher struct {
	t     *rapid.T
	last  *Command
	terms map[string]string // by LUN's life and term: who serves
	lives map[UUID]int      // how often a LUN was made
}

func (w *watcher) applied(before, after *State, res Result, checked error) {
	if err := (&change{State: *after}).check(); err != nil {
		w.t.Fatalf("%s %+v: %v", res.Command.Body.Kind(), res.Command.Body, err)
	}
	if !res.Repeated && (checked == nil) != (res.Error == nil) {
		w.t.Fatalf("%s: Check says %v, Apply %v", res.Command.Body.Kind(), checked, res.Error)
	}
	if (res.Error != nil || res.Repeated) && len(res.Changes) > 0 {
		w.t.Fatalf("nothing was done, and %v changed", res.Changes)
	}
	if res.Repeated || res.Error != nil {
		w.same(before, after)
	}
	for l := range after.LUNs() {
		w.serving(before, after, &l, res)
	}
}

// same compares two states but for what every command changes.
func (w *watcher) same(before, after *State) {
	a, b := *before, *after
	for _, s := range []*State{&a, &b} {
		s.core.Index, s.requests, s.answered = 0, table[request]{}, table[string]{}
	}
	if !a.Equal(&b) {
		w.t.Fatal("a command that did nothing has changed the state")
	}
}

// serving checks that terms only rise; that whoever serves in one is always the same, so
// that there are never two sets in one term; that one who was not in a set or forced does
// not come into it by himself; and that a change is told.
func (w *watcher) serving(before, after *State, l *LUN, res Result) {
	old, was := before.LUN(l.ID)
	if !was {
		if w.lives == nil {
			w.lives = map[UUID]int{}
		}
		w.lives[l.ID]++
	}
	key := fmt.Sprint(l.ID, w.lives[l.ID], " ", l.Term)
	if set, known := w.terms[key]; known && set != fmt.Sprint(l.Serving, l.Decided) {
		w.t.Fatalf("term %s: served by %s, and by %v", key, set, l.Serving)
	}
	w.terms[key] = fmt.Sprint(l.Serving, l.Decided)
	told := slices.Contains(res.Changes, Change(ServingChanged{l.ID}))
	switch {
	case !was:
	case l.Term < old.Term:
		w.t.Fatalf("the term goes back from %d to %d", old.Term, l.Term)
	case l.Term == old.Term && told, l.Term != old.Term && !told:
		w.t.Fatalf("term %d after %d, told: %t", l.Term, old.Term, told)
	case l.Term > old.Term:
		w.changed(&old, l, res)
	}
}

func (w *watcher) changed(old, l *LUN, res Result) {
	if l.Decided != after(res) {
		w.t.Fatalf("a term that was not decided by the command: %d", l.Decided)
	}
	var by NodeID
	joined, forced := false, false
	switch b := res.Command.Body.(type) {
	case *TakeAlone:
		by = b.Node
	case *JoinBoth:
		by, joined = b.Node, true
	case *Leave:
		by = b.Node
	case *ForceAlone:
		by, forced = b.Node, true
	default:
		w.t.Fatalf("%s changed who serves", b.Kind())
	}
	if !forced && !old.Serves(by) {
		w.t.Fatalf("%s by node %s, which did not serve", res.Command.Body.Kind(), by)
	}
	for _, n := range l.Serving {
		if !old.Serves(n) && !(joined && old.Alone(by)) && !(forced && n == by) {
			w.t.Fatalf("%s by %s lets %s serve, after %v", res.Command.Body.Kind(), by, n, old.Serving)
		}
	}
}

// after is the index of a result's command, as its events tell.
func after(res Result) uint64 {
	for _, c := range res.Changes {
		if e, ok := c.(EventLogged); ok {
			return e.Event.Index
		}
	}
	return 0
}

// TestTable compares a table with a map.
func TestTable(t *testing.T) {
	if err := quick.Check(func(seed int64) bool {
		rnd := rand.New(rand.NewSource(seed))
		var tab table[int]
		want := map[string]int{}
		for range 200 {
			key := string([]byte("abc\x00\xff")[rnd.Intn(5)]) + string(rune('a' + rnd.Intn(3)))[:rnd.Intn(2)]
			if old := tab; rnd.Intn(3) > 0 {
				want[key] = rnd.Int()
				if tab.set(key, want[key]); old.len() == tab.len() && !old.has(key) {
					return false
				}
			} else {
				delete(want, key)
				tab.drop(key)
			}
		}
		var keys []string
		for key, v := range tab.all("") {
			if want[key] != v {
				return false
			}
			keys = append(keys, key)
		}
		return len(keys) == len(want) && tab.len() == len(want) && slices.IsSorted(keys)
	}, nil); err != nil {
		t.Error(err)
	}
}
