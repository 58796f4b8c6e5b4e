package cluster

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/twinlun/twinlun/replication/emulator"
)

// recovery has a command that says what it has found.
func recovery(stay ...string) Recovery {
	return Recovery{Stay: stay, Command: func(pending iter.Seq2[uint64, []byte]) ([]byte, error) {
		text := "recover"
		for _, cmd := range pending {
			text += " " + string(cmd)
		}
		return []byte(text), nil
	}}
}

// bereft is the last one of three nodes. It has led, and nobody knows its last command.
func bereft(t *testing.T) (w *world, b *member, known []string) {
	t.Helper()
	w = newWorld(t, func(cfg *Config) { cfg.TrailingLogs = 1 }, "a", "b", "w")
	w.startAll("a", "b", "w")
	known = numbered("x", 0, 5)
	for _, cmd := range known {
		w.propose("a", cmd)
	}
	b = w.nodes["b"]
	w.check(known, "a", "b", "w")
	if err := b.raft().Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	w.until("b leads", func() bool {
		for _, name := range []string{"a", "w"} {
			w.nodes[name].HandOverTo("b")
		}
		return b.Stats().State == "Leader" && b.Sync(w.ctx()) == nil && !b.Heard("a").IsZero() && !b.Heard("w").IsZero()
	})
	w.cut("b", emulator.State{Cut: emulator.CutBoth})
	soon, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	before := b.Stats().LastIndex
	if _, err := b.Propose(soon, []byte("last")); err == nil || b.Stats().LastIndex == before {
		t.Fatalf("entry %d: %v", b.Stats().LastIndex, err)
	}
	w.nodes["a"].stop()
	w.nodes["w"].stop()
	w.until("b does not lead", func() bool { return b.Stats().State != "Leader" })
	return w, b, known
}

func (m *member) memberNames() (all []string) {
	m.w.t.Helper()
	members, err := m.Members()
	if err != nil {
		m.w.t.Fatal(err)
	}
	for _, o := range members {
		if !o.Voter {
			o.Node += " without a vote"
		}
		all = append(all, o.Node)
	}
	slices.Sort(all)
	return all
}

// checkNew checks that a node is all of a new group, and goes on with it.
func (w *world) checkNew(b *member, want ...string) {
	w.t.Helper()
	if got := b.memberNames(); !slices.Equal(got, []string{"b"}) {
		w.t.Errorf("members %q", got)
	}
	w.check(want, "b")
	w.propose("b", "on")
	b.stop()
	b.start(false)
	w.check(append(want, "on"), "b")
}

// The last of three nodes makes a new group, with all that it has in its log. The others can
// do nothing to it, and new ones get all.
func TestRecover(t *testing.T) {
	w, b, known := bereft(t)
	for _, name := range []string{"a", "w"} {
		if b.Heard(name).IsZero() {
			t.Errorf("%s was not heard of", name)
		}
	}
	result, err := b.Recover(recovery())
	if err != nil || result != len(known)+2 {
		t.Fatalf("%v, %v", result, err)
	}
	all := append(slices.Clone(known), "last", "recover last")
	if got := b.fsm.all(); !slices.Equal(got, all) {
		t.Errorf("it has %q as soon as it is done, not %q", got, all)
	}
	w.checkNew(b, all...)
	all = append(all, "on")
	w.cut("b", emulator.State{})
	w.nodes["w"].start(false) // with what it had: to the old group it belongs, and nobody asks it
	if got := w.nodes["w"].memberNames(); len(got) != 3 {
		t.Errorf("w believes that the members are %q", got)
	}
	w.nodes["w"].stop()
	c := w.nodes["a"]
	c.dir = t.TempDir() // a new one, at the place of a
	c.start(false)
	if err := b.SetMember(w.ctx(), Member{"a", true}); err != nil {
		t.Fatal(err)
	}
	w.propose("a", "more")
	w.check(append(all, "more"), "a", "b")
	if age := time.Since(b.AppliedTime()); age < 0 || age > time.Hour {
		t.Errorf("what b has applied is %v old", age)
	}
}

// Whenever the process dies there is the old group, or the new one, and never a bit of both.
func TestRecoverDies(t *testing.T) {
	dead := errors.New("the process has died")
	for at, isNew := range map[string]bool{"stopped": false, "writing": false, "written": true, "applied": true} {
		t.Run(at, func(t *testing.T) {
			w, b, known := bereft(t)
			died := false
			b.die = func(where string) error {
				if died = died || where == at; died {
					return dead
				}
				return nil
			}
			if _, err := b.Recover(recovery()); !errors.Is(err, dead) || !errors.Is(err, ErrHalfway) {
				t.Fatal(err)
			}
			b.stop()
			b.start(false)
			if isNew {
				if got := b.fsm.all(); !slices.Contains(got, "recover last") {
					t.Errorf("when it has started it knows %q", got)
				}
				w.checkNew(b, append(known, "last", "recover last")...)
				return
			}
			w.checkOld(b, known)
		})
	}
}

// checkOld checks that a node is in the old group, and can agree on nothing alone.
func (w *world) checkOld(b *member, known []string) {
	w.t.Helper()
	if got := b.memberNames(); !slices.Equal(got, []string{"a", "b", "w"}) {
		w.t.Errorf("members %q", got)
	}
	if got := b.fsm.all(); !slices.Equal(got, known) {
		w.t.Errorf("it has %q", got)
	}
	w.cut("b", emulator.State{})
	w.nodes["a"].start(false)
	w.nodes["w"].start(false)
	w.leader("a", "b", "w")
	if err := b.Sync(w.ctx()); err != nil {
		w.t.Fatal(err)
	}
	if got := b.fsm.all(); slices.ContainsFunc(got, func(cmd string) bool { return strings.HasPrefix(cmd, "recover") }) {
		w.t.Errorf("the old group has %q", got)
	}
	w.propose("a", "on")
}

// A recovery that fails leaves the old group as it was, in the same process.
func TestRecoverFails(t *testing.T) {
	full := errors.New("the disk is full")
	for what, r := range map[string]struct {
		Recovery
		die func(string) error
	}{
		"no command": {Recovery: Recovery{Command: func(iter.Seq2[uint64, []byte]) ([]byte, error) { return nil, full }}},
		"not written": {recovery(), func(at string) error {
			return map[string]error{"writing": full}[at]
		}},
	} {
		t.Run(what, func(t *testing.T) {
			w, b, known := bereft(t)
			b.die = r.die
			if _, err := b.Recover(r.Recovery); !errors.Is(err, full) || errors.Is(err, ErrHalfway) {
				t.Fatal(err)
			}
			w.checkOld(b, known)
		})
	}
}

// A damaged log is no beginning for anything; the node goes on as it was.
func TestRecoverDamaged(t *testing.T) {
	w, b, known := bereft(t)
	last := b.Stats().LastIndex
	change := func(bit byte) {
		err := b.store.db.Update(func(tx *bbolt.Tx) error {
			v := slices.Clone(tx.Bucket(logBucket).Get(key(last)))
			v[len(v)-1] ^= bit
			return tx.Bucket(logBucket).Put(key(last), v)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	change(1)
	if _, err := b.Recover(recovery()); err == nil || !strings.Contains(err.Error(), "is damaged: entry") {
		t.Fatal(err)
	}
	change(1)
	w.checkOld(b, known)
}

// Nodes that are left beside the one that recovers stay, and get their vote again.
func TestRecoverStays(t *testing.T) {
	w := newWorld(t, nil, "a", "b", "c", "d", "e")
	w.startAll("a", "b", "c", "d", "e")
	w.propose("a", "x")
	w.check([]string{"x"}, "d", "e")
	for _, name := range []string{"a", "b", "c"} {
		w.nodes[name].stop()
	}
	d, e := w.nodes["d"], w.nodes["e"]
	if at, err := d.AppliedAt(w.ctx(), "e"); err != nil || at > d.Applied() {
		t.Fatalf("e has applied %d, and d %d: %v", at, d.Applied(), err)
	}
	if _, err := d.Recover(recovery("e")); err != nil {
		t.Fatal(err)
	}
	w.check([]string{"x", "recover"}, "d", "e")
	if got := e.memberNames(); !slices.Equal(got, []string{"d", "e without a vote"}) {
		t.Errorf("members %q", got)
	}
	if err := d.SetMember(w.ctx(), Member{"e", true}); err != nil {
		t.Fatal(err)
	}
	w.propose("e", "y")
	w.check([]string{"x", "recover", "y"}, "d", "e")
}
