package member

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/transport"
)

// isNoBeginning checks that a node is not recovered, and that it says why.
func (n *node) isNoBeginning(want string) {
	n.w.t.Helper()
	if r := n.Recovery(n.w.ctx()); catalog.CodeOf(r.Refusal) != catalog.Conflict || !strings.Contains(r.Refusal.Error(), want) {
		n.w.t.Errorf("%s: %v, and not …%s…", n.name, r.Refusal, want)
	}
	if err := n.Recover(n.w.ctx(), "user eve", nil); catalog.CodeOf(err) != catalog.Conflict {
		n.w.t.Errorf("%s is recovered: %v", n.name, err)
	}
}

// Of three nodes two are gone for good. The last one makes a new group, others join it, and
// the old ones are refused whatever they agree on among themselves.
func TestRecover(t *testing.T) {
	w, all := three(t)
	a, b, witness := all[0], all[1], all[2]
	w.rename(a, "before")
	w.agree(all...)
	b.isNoBeginning("a majority of the nodes is there")
	a.stop()
	b.stop()
	witness.isNoBeginning("is a witness")
	witness.stop()
	b.open()
	r := b.Recovery(w.ctx())
	if r.Refusal != nil || !slices.Equal(r.Names(), []catalog.NodeID{"a", "w"}) || len(r.Stay) > 0 || r.Applied == 0 || time.Since(r.AppliedAt) > time.Hour {
		t.Fatalf("%+v", r)
	}
	if err := b.Recover(w.ctx(), "user eve", []catalog.NodeID{"a"}); catalog.CodeOf(err) != catalog.Changed {
		t.Errorf("others are given up than the operator was told of: %v", err)
	}
	if err := b.Recover(w.ctx(), "user eve", []catalog.NodeID{"w", "a"}); err != nil {
		t.Fatal(err)
	}
	w.vote("b")
	w.rename(b, "after")
	b.isNoBeginning("a majority of the nodes is there")
	c := w.join("c", b.token())
	w.vote("b", "c")
	w.agree(b, c)
	for _, n := range []*node{b, c} {
		if lost, _ := n.State().Node("a"); !lost.GivenUp || n.State().Recoveries() != 1 {
			t.Errorf("%s: %d recoveries, %+v", n.name, n.State().Recoveries(), lost)
		}
	}
	if len(b.late) > 0 {
		t.Errorf("b shows a state before Applied was told of it: %q", b.late)
	}
	a.open()
	w.until("a says that it is out", func() bool { return strings.Contains(a.said.String(), "given up by a recovery") })
	w.until("b says why", func() bool {
		return strings.Contains(b.said.String(), "it was given up when the cluster was recovered")
	})
	if _, err := a.Port().Dial(w.ctx(), "b", transport.Raft); !errors.Is(err, transport.ErrRefused) {
		t.Errorf("a reaches b: %v", err)
	}
	if _, err := b.Port().Dial(w.ctx(), "a", transport.Raft); err == nil || !strings.Contains(err.Error(), "given up") {
		t.Errorf("b talks to a: %v", err)
	}
	a.isNoBeginning("this node is refused by b")
	witness.open()
	w.leader(a, witness)
	w.rename(a, "the-old-ones")
	b.stop()
	b.open()
	w.rename(c, "the-new-ones")
	w.agree(b, c)
	if got := a.State().Cluster().Name; got != "the-old-ones" {
		t.Errorf("the old nodes call the cluster %q", got)
	}
	if err := b.RemoveNode(w.ctx(), "user eve", "a"); err != nil {
		t.Errorf("a node that was given up is removed: %v", err)
	}
}

// A node that has less than another one which is there is not what a new group begins with.
func TestRecoverKnowsLess(t *testing.T) {
	w := newWorld(t)
	a := w.found("a")
	for _, name := range []string{"b", "c", "d", "e"} {
		w.join(name, a.token())
	}
	w.vote("a", "b", "c", "d", "e")
	d, e := w.nodes["d"], w.nodes["e"]
	w.agree(a, d, e)
	d.stop()
	w.rename(a, "without-d")
	w.agree(a, e)
	for _, name := range []string{"a", "b", "c"} {
		w.nodes[name].stop()
	}
	d.open()
	d.isNoBeginning("node e has more than this one")
	if err := e.Recover(w.ctx(), "user eve", []catalog.NodeID{"a", "b", "c"}); err != nil {
		t.Fatal(err)
	}
	w.vote("d", "e")
	w.rename(d, "by-d")
	w.agree(d, e)
}
