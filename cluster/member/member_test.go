package member

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinlun/twinlun/cluster/catalog"
	"github.com/twinlun/twinlun/cluster/identity"
)

// Each member changes the catalog, and all have it. The leader dies, the others go on;
// it comes back and catches up.
func TestThreeMembers(t *testing.T) {
	w, all := three(t)
	for _, n := range all {
		w.rename(n, "by-"+n.name)
	}
	w.agree(all...)
	for range 2 {
		leader := w.leader(all...)
		leader.stop()
		rest := without(all, leader)
		for _, n := range rest {
			w.rename(n, "without-"+leader.name+"-by-"+n.name)
		}
		w.agree(rest...)
		leader.open()
		w.rename(leader, "back")
		w.agree(all...)
	}
	for _, n := range all {
		if n.Self() != catalog.NodeID(n.name) || n.Witness() != (n.name == "w") {
			t.Errorf("%s: %s, witness %t", n.name, n.Self(), n.Witness())
		}
		if len(n.late) > 0 {
			t.Errorf("%s shows a state before Applied was told of it: %q", n.name, n.late)
		}
	}
	if voters := all[1].State(); len(all[2].told()) < 5 || voters.Version() != catalog.Version {
		t.Errorf("the witness was told %q", all[2].told())
	}
}

// Applied is told the state that is known at the start, alone and before Open returns,
// and then each command in order.
func TestApplied(t *testing.T) {
	w := newWorld(t)
	a := w.found("a")
	w.rename(a, "x")
	w.rename(a, "y")
	if got := a.told(); !slices.Equal(got, []string{"state false", "init-cluster", "rename-cluster", "rename-cluster"}) {
		t.Errorf("told: %q", got)
	}
	a.stop()
	a.seen = nil
	m, err := Open(a.config())
	if got := a.told(); err != nil || len(got) == 0 || got[0] != "state true" {
		t.Errorf("told when Open returns: %q, %v", got, err)
	}
	a.set(m, err)
	if err := a.Sync(w.ctx()); err != nil {
		t.Fatal(err)
	}
	if got := a.State().Cluster().Name; got != "y" {
		t.Errorf("the cluster is called %q", got)
	}
}

// A refused command is the catalog's error, and changes nothing; a node that lags does
// not refuse what it does not know yet.
func TestDoRefused(t *testing.T) {
	w, all := three(t)
	_, err := all[1].Do(w.ctx(), "user eve", &catalog.RenameCluster{Name: "no name"})
	if e := new(catalog.Error); !errors.As(err, &e) || e.Code != catalog.Invalid || e.Field != "name" {
		t.Errorf("a bad name: %v", err)
	}
	for i := range 20 {
		name := "g" + string(rune('a'+i))
		if _, err := all[0].Do(w.ctx(), "user eve", &catalog.PutGroup{Name: name}); err != nil {
			t.Fatal(err)
		}
		if _, err := all[1].Do(w.ctx(), "user eve", &catalog.RemoveGroup{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	w.agree(all...)
}

// A node that is in no cluster says so, also where founding or joining was interrupted.
func TestNone(t *testing.T) {
	w := newWorld(t)
	a := w.node("a")
	none := func() {
		t.Helper()
		if _, err := Open(a.config()); !errors.Is(err, ErrNone) {
			t.Fatalf("Open: %v", err)
		}
	}
	none()
	if _, err := Join(w.ctx(), a.config(), "twinlun-join-x", a.newcomer()); err == nil {
		t.Error("a bad token is taken")
	}
	if _, err := Found(a.config(), FoundOptions{Cluster: "prod", Node: "a", Site: "no site", Addresses: []string{a.address}}); catalog.CodeOf(err) != catalog.Invalid {
		t.Errorf("a bad site: %v", err)
	}
	none()
}

// Making a cluster is interrupted, at whatever moment: there is none, and it is made anew.
func TestFoundInterrupted(t *testing.T) {
	w := newWorld(t)
	a := w.found("a")
	first := a.State().Cluster().ID
	a.stop()
	// As it was right before the end.
	if err := os.WriteFile(a.cfg(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(a.config()); !errors.Is(err, ErrNone) {
		t.Fatalf("Open: %v", err)
	}
	// And right after its beginning.
	if err := errors.Join(os.WriteFile(a.cfg(), nil, 0o600), os.Mkdir(filepath.Join(a.dir, "identity"), 0o700)); err != nil {
		t.Fatal(err)
	}
	w.found("a")
	if a.State().Cluster().ID == first {
		t.Error("it is the same cluster")
	}
	a.stop()
	if _, err := Found(a.config(), FoundOptions{Cluster: "prod", Node: "a", Site: "s", Addresses: []string{a.address}}); !errors.Is(err, identity.ErrExists) {
		t.Errorf("a member makes another cluster: %v", err)
	}
	a.open()
	w.rename(a, "x")
}

func (n *node) cfg() string { return filepath.Join(n.dir, "founding") }

// A log without an identity is not gone on with.
func TestIdentityIsLost(t *testing.T) {
	w := newWorld(t)
	a := w.found("a")
	a.stop()
	if err := os.RemoveAll(filepath.Join(a.dir, "identity")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(a.config()); err == nil || errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "bring") {
		t.Errorf("Open: %v", err)
	}
}

// Joining is interrupted: before the cluster has answered, and before the catalog has
// come. With the same token it goes on.
func TestJoinInterrupted(t *testing.T) {
	w := newWorld(t)
	a := w.found("a")
	token := a.token()
	b := w.node("b")
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Join(gone, b.config(), token, b.newcomer()); err == nil {
		t.Error("it joins without time")
	}
	// The cluster reaches b nowhere: it is admitted, and not brought in.
	elsewhere := b.newcomer()
	elsewhere.Addresses = []string{"127.0.0.1:1"}
	if _, err := Join(w.briefly(), b.config(), token, elsewhere); err == nil || !strings.Contains(err.Error(), "addresses") {
		t.Fatalf("Join: %v", err)
	}
	if n, found := a.State().Node("b"); !found || !n.Voter {
		t.Errorf("a has admitted %+v", n)
	}
	w.rename(a, "goes-on") // as b has no vote yet
	if _, err := a.Do(w.ctx(), "user eve", &catalog.ChangeNode{Name: "b", Addresses: []string{b.address}}); err != nil {
		t.Fatal(err)
	}
	m, err := Join(w.ctx(), b.config(), token, b.newcomer())
	b.set(m, err)
	w.vote("a", "b")
	w.rename(b, "x")
	b.stop()
	m, err = Join(w.ctx(), b.config(), token, b.newcomer()) // once more is nothing
	b.set(m, err)
	b.stop()
	other := b.newcomer()
	other.Node = "c"
	if _, err := Join(w.ctx(), b.config(), token, other); !errors.Is(err, identity.ErrExists) {
		t.Errorf("under another name: %v", err)
	}
}

// Between joining and the arrival of the catalog the daemon starts anew.
func TestOpenBeforeArrival(t *testing.T) {
	w := newWorld(t)
	a := w.found("a")
	b := w.node("b")
	b.newcomer()
	elsewhere := b.newcomer()
	elsewhere.Addresses = []string{"127.0.0.1:1"}
	if _, err := Join(w.briefly(), b.config(), a.token(), elsewhere); err == nil {
		t.Fatal("it joins")
	}
	b.open()
	if _, err := a.Do(w.ctx(), "user eve", &catalog.ChangeNode{Name: "b", Addresses: []string{b.address}}); err != nil {
		t.Fatal(err)
	}
	w.vote("a", "b")
	w.rename(b, "x")
}

// A token is good for one node, until it expires.
func TestTokens(t *testing.T) {
	w := newWorld(t)
	a := w.found("a")
	token := a.token()
	w.join("b", token)
	refused := func(name, token, says string) {
		t.Helper()
		n := w.node(name)
		if _, err := Join(w.ctx(), n.config(), token, n.newcomer()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, not %s", name, err, says)
		}
		if _, found := a.State().Node(catalog.NodeID(name)); found {
			t.Errorf("%s was admitted", name)
		}
		if _, err := Open(n.config()); !errors.Is(err, ErrNone) {
			t.Errorf("%s has something: %v", name, err)
		}
	}
	refused("c", token, "used already")
	old, _, err := a.NewToken(w.ctx(), "test", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond) // a token's time is in whole seconds
	refused("d", old, "has expired")
	ca, err := identity.NewCA(identity.NewClusterID(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := ca.NewToken([]string{a.address}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	refused("e", foreign.Text(), "not the cluster that the token is for")
	made, err := a.id.Authority().NewToken([]string{a.address}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	refused("f", made.Text(), "does not know this token")
}

// A cluster in which nothing happens writes nothing.
func TestPeace(t *testing.T) {
	w, all := three(t)
	w.rename(all[1], "x")
	w.agree(all...)
	leader := w.leader(all...)
	before := leader.Member.node.Stats().LastIndex
	for range 3 {
		if err := errors.Join(leader.lead(), leader.announce()); err != nil {
			t.Fatal(err)
		}
	}
	if now := leader.Member.node.Stats(); now.LastIndex != before && now.State == "Leader" {
		t.Errorf("the log went from %d to %d", before, now.LastIndex)
	}
}

// TestWitnessLeads: a witness is given the lead when all is quiet, and takes none while it
// is away; whoever loses it again and again gives it back later each time.
func TestWitnessLeads(t *testing.T) {
	w, all := three(t)
	a := all[0]
	w.until("the witness leads", func() bool { return a.Leader() == "w" })
	w.nodes["w"].stop()
	w.until("another one leads", func() bool { l := a.Leader(); return l == "a" || l == "b" })
}

func TestLeadership(t *testing.T) {
	var l leadership
	now := time.Now()
	for _, rest := range []time.Duration{1, 2, 4, 8} {
		l.note(true, now)
		if rest *= handOverRest; l.due(now.Add(rest-1)) || !l.due(now.Add(rest)) {
			t.Fatalf("it is not due after %v: %+v", rest, l)
		}
		l.given = now
		l.note(false, now)
	}
	l.note(true, now.Add(handOverMost+1))
	if l.rest != handOverRest {
		t.Errorf("a long time later the rest is %v", l.rest)
	}
}
